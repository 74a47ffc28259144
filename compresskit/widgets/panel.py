"""What all panels share: the frame, the controls with their names, the status line, and the end of their life."""

from __future__ import annotations

import html
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

import anywidget
import comm
import ipywidgets
import traitlets

from compresskit.widgets.live import Live, sentence
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import script, style_tag

PICTURE_PATIENCE: Final = float(os.environ.get("COMPRESSKIT_PICTURE_PATIENCE", "8"))
"""Seconds that showing a panel waits for its first result, so that the still picture shows one. Where notebooks are
built nobody waits for the panel, but a picture of a busy machine's first second would be kept."""

CLOSED_STILL_KNOWN: Final = 2000
"""So many closed widgets are remembered, for what the page may still say to them; a workbench has some 400."""
_closed: deque[str] = deque()


class Names(anywidget.AnyWidget):  # type: ignore[misc]
    """Invisible; tells the page what a panel's controls are called, and what stands there on hover.

    ipywidgets' sliders have no accessible name, and of a drop-down list with a label it shows no tooltip.
    """

    _esm = script("names")
    names = traitlets.Dict().tag(sync=True)
    hints = traitlets.Dict().tag(sync=True)


class Toolbar(anywidget.AnyWidget):  # type: ignore[misc]
    """Buttons that take something out of the page: a download, and code for the clipboard.

    Parameters
    ----------
    content
        Called when the download is asked for; gives the bytes of the file `file_name`.
    other
        The same for a second file, `other_name`, if there is one.
    on_copy
        Called when the code is copied or shown: before it is run, what it reads has to be there.
    """

    _esm = script("toolbar")
    file_name = traitlets.Unicode("").tag(sync=True)
    download_label = traitlets.Unicode("Download").tag(sync=True)
    other_name = traitlets.Unicode("").tag(sync=True)
    other_label = traitlets.Unicode("").tag(sync=True)
    code = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        content: Callable[[], bytes],
        other: Callable[[], bytes] | None = None,
        on_copy: Callable[[], None] | None = None,
    ) -> None:
        self._content, self._other, self._on_copy = content, other, on_copy
        super().__init__()
        self.on_msg(self._on_message)

    def say(self, text: str) -> None:
        """Show a short text beside the buttons for a few seconds."""
        self.send({"type": "say", "text": text})

    def hand_over(self, name: str, content: bytes) -> None:
        """Let the browser save a file."""
        self.send({"type": "file", "name": name}, buffers=[content])

    def _on_message(self, _widget: object, message: dict[str, Any], _buffers: object) -> None:
        asked = message.get("type")
        if asked == "copied" and self._on_copy is not None:
            try:
                self._on_copy()
            except Exception as error:
                self.say(sentence(error))
        if asked not in ("download", "other") or (asked == "other" and self._other is None):
            return
        name, content = (self.file_name, self._content) if asked == "download" else (self.other_name, self._other)
        try:
            assert content is not None
            self.hand_over(name, content())
        except Exception as error:  # nothing else would show it: messages have no cell to fail in
            self.say(sentence(error))


class _MayShrink(ipywidgets.Widget):  # type: ignore[misc]
    """A choice whose entries may grow fewer while someone chooses among them."""

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take over what the page says; an entry that is gone meanwhile is not chosen, and the page is told what is."""
        index = sync_data.get("index")
        if index is not None and index >= len(self._options_labels):
            sync_data = {name: value for name, value in sync_data.items() if name != "index"}
            self.send_state("index")
        super().set_state(sync_data)


class Dropdown(_MayShrink, ipywidgets.Dropdown):  # type: ignore[misc]
    """A drop-down list whose entries may change."""


class SelectionSlider(_MayShrink, ipywidgets.SelectionSlider):  # type: ignore[misc]
    """A slider over values that may change."""


class Status(ipywidgets.HTML):  # type: ignore[misc]
    """A line of fixed height: the figures in bold, what they mean below; or an error, in words and with a sign."""

    SIGNS: ClassVar = {"exact": "●", "preview": "○", "busy": "…", "error": "!"}

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.say("busy", "Starting", "")

    def say(self, kind: str, figures: str, small: str = "", done: float | None = None) -> None:
        """Replace the text.

        While it is busy, a bar appears after half a second.

        Parameters
        ----------
        kind
            "exact", "preview", "busy" or "error".
        figures, small
            Plain text; the first line and the second.
        done
            How much of the work is done, 0 to 1, where that is known.
        """
        self.text = f"{figures} {small}".strip()
        error = " ck-error" if kind == "error" else ""
        first = f'<div class="ck-figures">{html.escape(figures)}</div>' if figures else ""
        second = f'<div class="ck-small">{html.escape(small)}</div>' if small else ""
        role = "alert" if kind == "error" else "status"
        sign = f'<div class="ck-sign" aria-hidden="true">{self.SIGNS[kind]}</div>'
        bar = _bar(done) if kind == "busy" else ""
        self.value = f'<div class="ck-status{error}" role="{role}">{sign}<div>{first}{second}</div>{bar}</div>'


def _bar(done: float | None) -> str:
    """Make the bar along the lower edge of a status line; one that knows no share waits before it is seen."""
    share = "class='ck-late'" if done is None else f"max='1' value='{done:.3f}'"
    return f"<progress {share} aria-label='Working'></progress>"


def slider_of(label: str, options: Sequence[tuple[str, Any]], value: Any, name: str) -> ipywidgets.SelectionSlider:
    """Make a slider over given values; `name` is the class by which tests and `Names` find it."""
    return _field(SelectionSlider(description=label, options=list(options), value=value), name)


def number_slider(label: str, low: float, high: float, step: float, value: float, name: str, form: str) -> Any:
    """Make a slider over numbers, shown in Python's format `form`."""
    made = ipywidgets.FloatSlider(
        description=label, min=low, max=high, step=step, value=value, readout_format=form, continuous_update=True
    )
    return _field(made, name)


def choice_of(label: str, options: Sequence[tuple[str, Any]], value: Any, name: str) -> ipywidgets.ToggleButtons:
    """Make buttons of which one is pressed."""
    made = ipywidgets.ToggleButtons(description=label, options=list(options), value=value)
    made.style.button_width = "auto"
    return _field(made, name)


def list_of(label: str, options: Sequence[tuple[str, Any]], value: Any, name: str) -> ipywidgets.Dropdown:
    """Make a drop-down list; no option's value may be None, which ipywidgets takes for "nothing chosen"."""
    return _field(Dropdown(description=label, options=list(options), value=value), name)


def number_box(label: str, value: float, step: float, name: str) -> ipywidgets.FloatText:
    """Make a field for a number; what it may be is for the panel to say."""
    return _field(ipywidgets.FloatText(description=label, value=value, step=step), name)


def button_of(label: str, name: str, *, primary: bool = False) -> ipywidgets.Button:
    """Make a button."""
    made = ipywidgets.Button(description=label)
    for each in ("ck-button", name, *(("ck-primary",) if primary else ())):
        made.add_class(each)
    return made


def _field(control: Any, name: str) -> Any:
    control.tooltip = control.description  # or the page shows the word "null" on hover
    control.add_class("ck-field")
    control.add_class(name)
    return control


def _hints(widgets: Iterable[Any]) -> dict[str, str]:
    """Collect the tooltips of all controls, by CSS selectors."""
    found: dict[str, str] = {}
    for widget in widgets:
        found |= _hints(getattr(widget, "children", ()))
        if "ck-field" in widget._dom_classes and widget.tooltip:
            found["".join(f".{each}" for each in widget._dom_classes)] = widget.tooltip
    return found


def classed(widget: Any, *classes: str) -> Any:
    """Add CSS classes to a widget and give it back."""
    for each in classes:
        widget.add_class(each)
    return widget


def markup(text: str = "") -> ipywidgets.HTML:
    """Make a piece of HTML."""
    return ipywidgets.HTML(text)


class Panel:
    """A panel: it shows itself in a notebook, and closes the one that its cell showed before.

    A subclass calls `_frame` with its rows, says in `_picture` what it looks like without a kernel, and in `_summary`
    what it is in words.
    """

    _open: ClassVar[dict[tuple[type, str], Panel]] = {}

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.closed = False
        self.box: Any = None
        self._lives: list[Live[Any, Any]] = []
        self._observed: list[tuple[Any, Callable[[Any], None], str]] = []
        cell = running_cell()
        if cell:
            earlier = Panel._open.pop((type(self), cell), None)
            if earlier is not None:
                earlier.close()
            Panel._open[type(self), cell] = self

    def _frame(self, rows: Iterable[Any], names: dict[str, str], later: Iterable[Any] = ()) -> None:
        """Put rows into the panel's frame; `names` maps CSS selectors to names, `later` comes on demand."""
        shown = list(rows)
        style = classed(markup(style_tag()), "ck-style")
        hidden = classed(Names(names=names, hints=_hints([*shown, *later])), "ck-style")
        self.box = classed(ipywidgets.VBox([style, hidden, *shown]), "compresskit", "ck-stack")
        answer_while_busy(self.box)

    def _watch(self, widget: Any, callback: Callable[[Any], None], trait: str = "value") -> None:
        """Observe a control until the panel is closed; an error in the callback appears in the panel."""

        def guarded(change: Any) -> None:
            try:
                callback(change)
            except Exception as error:
                self._say_error(error)

        widget.observe(guarded, trait)
        self._observed.append((widget, guarded, trait))

    def _say_error(self, error: Exception) -> None:
        """Show an error in the panel; here so that a subclass that forgets to cannot swallow one."""
        raise error

    def close(self) -> None:
        """End the panel's threads, let go of its controls, and take it off the page. Safe to call twice."""
        if self.closed:
            return
        self.closed = True
        for live in self._lives:
            live.close()
        for widget, callback, trait in self._observed:
            widget.unobserve(callback, trait)
        self._observed.clear()
        for key in [key for key, panel in Panel._open.items() if panel is self]:
            del Panel._open[key]
        if self.box is not None:
            with self.lock:
                close_all(self.box)

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until everything asked for is shown; False when `timeout` seconds were not enough."""
        return all(live.wait_idle(timeout) for live in self._lives)

    def _picture(self) -> Picture:
        raise NotImplementedError

    def _summary(self) -> str:
        raise NotImplementedError

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Show the panel; beside it goes a still picture, for a reader without a kernel. Gives data and metadata."""
        self.wait_idle(PICTURE_PATIENCE)
        with self.lock:
            picture = self._picture()
            bundle: dict[str, Any] = {"text/plain": self._summary(), "image/png": picture.png()}
            if not self.closed:
                view = self.box._repr_mimebundle_()
                view = view[0] if isinstance(view, tuple) else view
                bundle = {**{kind: value for kind, value in view.items() if kind != "text/plain"}, **bundle}
        return bundle, {"image/png": {"alt": picture.title, "width": round(picture.width)}}

    def __repr__(self) -> str:
        return self._summary()


def running_cell() -> str:
    """Name the notebook cell that is being run: empty outside a notebook, and where the front end does not say."""
    from IPython import get_ipython

    shell = get_ipython()
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    return str(parent.get("metadata", {}).get("cellId", ""))


def answer_while_busy(widget: Any) -> None:
    """Let the page's messages to a widget, and to all in it, be handled while a cell runs.

    JupyterLab sends them to a subshell, a thread of its own in the kernel. ipykernel from 7.4 on takes them to the
    shell instead in which the widget was last spoken from: to the one of the busy cell, where they wait for its end, or
    to the subshell of a page that is closed, where they are lost.
    """
    for child in getattr(widget, "children", ()):
        answer_while_busy(child)
    if hasattr(widget.comm, "_reply_subshell_for"):
        widget.comm._reply_subshell_for = _as_asked


def _as_asked(_data: object, subshell: str | None) -> str | None:
    return subshell


def close_all(widget: Any) -> None:
    """Close a widget with everything in it, and with its layout and style, which ipywidgets would leave behind."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in ("layout", "style"):
        owned = getattr(widget, part, None)
        if isinstance(owned, ipywidgets.Widget):
            _close(owned)
    _close(widget)


def _close(widget: Any) -> None:
    """Close a widget; what the page still says to it is let go.

    Page and kernel speak at the same time: a slider's last move may be on its way while its widget is closed, and
    Jupyter would warn of a comm that it does not know.
    """
    channel = widget.comm
    if channel is not None:
        manager = comm.get_comm_manager()
        manager.register_comm(comm.DummyComm("closed", comm_id=channel.comm_id, primary=False))
        channel.close(deleting=True)  # tells the page, and leaves the manager alone
        _closed.append(channel.comm_id)
        while len(_closed) > CLOSED_STILL_KNOWN:
            manager.comms.pop(_closed.popleft(), None)
    widget.close()


class StatusPanel(Panel):
    """A panel with one status line, where its errors appear.

    Attributes
    ----------
    status : Status
        The line; a subclass makes it with its other controls.
    """

    status: Status

    def _on_error(self, _setting: Any, message: str) -> None:
        self.status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        with self.lock:
            self.status.say("error", "", sentence(error))
