"""Hands that press, drag, choose and type at random in a panel, and remember what they did, to do it again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from lab_driver import NotebookPage

PANEL: Final = ".compresskit"
WHAT: Final = {
    "handle": ".noUi-handle",
    "button": "button:not(.ck-train, .ck-cancel, .ck-download, .ck-download-other, .ck-copy, .ck-keep)",
    "list": "select",
    "text": "input[type=text], input[type=number], input:not([type]), textarea:not([readonly])",
    "tab": "[role=tab]",
    "summary": "summary",
    "chart": ".js-plotly-plot",
    "point": ".js-plotly-plot .point",
    "train": ".ck-train",
    "cancel": ".ck-cancel",
    "take": ".ck-download, .ck-download-other, .ck-copy, .ck-keep",
}
"""What can be taken hold of, as selectors inside the panel."""

OFTEN: Final = {
    "handle": 30, "button": 18, "list": 16, "text": 6, "tab": 10, "chart": 6, "point": 8, "summary": 1, "take": 2,
    "walk": 4, "train": 1, "cancel": 2, "interrupt": 1,
}  # fmt: skip
KEYS: Final = (
    "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End", "x", "d", "0", "m",
)  # fmt: skip
GARBAGE: Final = (
    "", " ", "0", "-1", "1e309", "nan", "½", "x" * 300, "<b onclick=alert(1)>bold</b>", "'; drop table points; --",
    "\u202edigit", "𝟘𝟙 \U0001f600", "../../etc/passwd", "line\nbreak", "{model}", "\\u0000%s",
)  # fmt: skip

FIND = """([panel, what]) => {
  const found = {};
  for (const [kind, selector] of Object.entries(what))
    found[kind] = [...document.querySelectorAll(selector)].filter((each) =>
      each.closest(panel) && !each.disabled && each.getClientRects().length > 0).length;
  return found;
}"""
HOLD = """async ([panel, selector, place]) => {
  const found = [...document.querySelectorAll(selector)].filter((each) =>
    each.closest(panel) && !each.disabled && each.getClientRects().length > 0);
  const one = found[place];
  if (!one) return null;
  // The page may still be scrolling softly, or growing: nobody aims at what moves.
  let at, before;
  for (let look = 0; look < 40 && !(look > 2 && at === before); look++) {
    one.scrollIntoView({ block: "center" });
    await new Promise(requestAnimationFrame);
    [before, at] = [at, one.getBoundingClientRect().y];
  }
  const own = one.getBoundingClientRect(), track = (one.closest(".noUi-target") ?? one).getBoundingClientRect();
  // A mark that was panned out of its chart is drawn nowhere; what lies there may be the bar that folds the output up.
  if (!document.elementFromPoint(own.x + own.width / 2, own.y + own.height / 2)?.closest(panel)) return null;
  const called = one.getAttribute("aria-label") ?? one.textContent;
  return { x: own.x + own.width / 2, y: own.y + own.height / 2, left: track.x, top: track.y, width: track.width,
           height: track.height, options: one.options?.length ?? 0, called: called.trim().slice(0, 40) };
}"""
FOCUS = """([panel, selector, place]) => {
  const found = [...document.querySelectorAll(selector)].filter((each) =>
    each.closest(panel) && !each.disabled && each.getClientRects().length > 0);
  found[place]?.focus();
  return Boolean(document.activeElement.closest(panel));
}"""
CHOOSE = """([panel, selector, place, index]) => {
  const found = [...document.querySelectorAll(selector)].filter((each) =>
    each.closest(panel) && !each.disabled && each.getClientRects().length > 0);
  const list = found[place];
  if (!list) return;
  list.selectedIndex = index % list.options.length;
  list.dispatchEvent(new Event("input", { bubbles: true }));
  list.dispatchEvent(new Event("change", { bubbles: true }));
}"""
INTERRUPT = "() => jupyterapp.shell.currentWidget.sessionContext.session.kernel.interrupt()"
INSIDE = "(panel) => Boolean(document.activeElement.closest(panel))"


@dataclass(frozen=True)
class Deed:
    """One thing that a hand did.

    Attributes
    ----------
    kind : str
        What was taken hold of: a name in `WHAT`, or "walk" for the Tab key, or "interrupt" for the kernel.
    place : int
        Which one, counted among those that were on the page and could be used.
    how : str
        "keys", "drag", "click", "double", "choose", "type", "walk" or "interrupt".
    detail : tuple
        Keys, fractions of a width and a height, an index or a text.
    called : str
        What the thing is called, for whoever reads the list.
    """

    kind: str
    place: int
    how: str
    detail: tuple[Any, ...] = ()
    called: str = ""


class Hands:
    """Random hands on the panels of one page.

    Parameters
    ----------
    notebook
        The page.
    seed
        Of everything that is chosen.
    trains
        Whether they may start a training.
    """

    def __init__(self, notebook: NotebookPage, seed: int, *, trains: bool = False) -> None:
        self.notebook, self.page = notebook, notebook.page
        self._random = random.Random(seed)
        self._often = {kind: weight for kind, weight in OFTEN.items() if trains or kind not in ("train", "cancel")}
        self.done: list[Deed] = []

    def act(self) -> None:
        """Do one thing at random with something that is there."""
        found = self.page.evaluate(FIND, [PANEL, WHAT])
        there = {kind: weight for kind, weight in self._often.items() if found.get(kind, 1)}
        kind = self._random.choices(list(there), list(there.values()))[0]
        self.do(self._deed(kind, self._random.randrange(found[kind]) if kind in found else 0))

    def _deed(self, kind: str, place: int) -> Deed:
        pick = self._random
        fractions = (round(pick.random(), 3), round(pick.random(), 3))
        if kind == "handle":
            if pick.random() < 0.5:
                return Deed(kind, place, "keys", tuple(pick.choices(KEYS, k=pick.randint(1, 6))))
            return Deed(kind, place, "drag", fractions)
        if kind == "list":
            if pick.random() < 0.3:
                return Deed(kind, place, "keys", tuple(pick.choices(("ArrowDown", "ArrowUp", "End", "m", "x"), k=2)))
            return Deed(kind, place, "choose", (pick.randrange(1000),))
        if kind == "text":
            return Deed(kind, place, "type", (pick.choice(GARBAGE), pick.choice(("Enter", "Tab", "Escape", ""))))
        if kind == "chart":
            return Deed(kind, place, pick.choice(("click", "double", "drag")), fractions)
        if kind == "interrupt":
            return Deed(kind, 0, "interrupt")
        if kind == "walk":
            return Deed(kind, 0, "walk", (pick.randint(1, 9), pick.choice(("Space", "Enter", "ArrowRight", "x"))))
        return Deed(kind, place, "click", ())

    def do(self, deed: Deed) -> None:
        """Do it, and remember it; what is gone meanwhile is let be."""
        self.done.append(deed)
        if deed.how == "walk":
            self._walk(*deed.detail)
            return
        if deed.how == "interrupt":
            self.page.evaluate(INTERRUPT)
            return
        where = [PANEL, WHAT[deed.kind], deed.place]
        held = self.page.evaluate(HOLD, where)
        if held is None:
            return
        self.done[-1] = Deed(**{**asdict(deed), "called": held["called"]})
        if deed.how in ("keys", "type"):
            if self.page.evaluate(FOCUS, where):
                self._press(deed)
        elif deed.how == "choose":
            self.page.evaluate(CHOOSE, [*where, deed.detail[0]])
        else:
            self._point(deed, held)

    def _press(self, deed: Deed) -> None:
        if deed.how == "keys":
            for key in deed.detail:
                self.page.keyboard.press(key)
            return
        text, last = deed.detail
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)
        if last:
            self.page.keyboard.press(last)

    def _point(self, deed: Deed, held: dict[str, float]) -> None:
        mouse = self.page.mouse
        if deed.kind == "handle":
            mouse.move(held["x"], held["y"])
            mouse.down()
            mouse.move(held["left"] + deed.detail[0] * held["width"], held["y"], steps=6)
            mouse.up()
        elif deed.kind == "chart":
            x, y = held["left"] + deed.detail[0] * held["width"], held["top"] + deed.detail[1] * held["height"]
            if deed.how == "drag":
                mouse.move(x, y)
                mouse.down()
                mouse.move(x + 60, y + 40, steps=4)
                mouse.up()
            else:
                mouse.click(x, y, click_count=2 if deed.how == "double" else 1)
        else:
            mouse.move(held["x"], held["y"], steps=2)
            mouse.click(held["x"], held["y"])

    def _walk(self, steps: int, key: str) -> None:
        """Go on through the panel by the Tab key, and press something; what lies outside the panel is not touched."""
        if not self.page.evaluate(INSIDE, PANEL):
            self.page.evaluate(FOCUS, [PANEL, WHAT["button"], 0])
        for _ in range(steps):
            self.page.keyboard.press("Tab")
            if not self.page.evaluate(INSIDE, PANEL):
                return  # in the next cell's editor, where Tab indents
        if not self.page.evaluate(INSIDE, f"{PANEL} .ck-train, {PANEL} a"):
            self.page.keyboard.press(key)


def written(deeds: Sequence[Deed]) -> str:
    """Write deeds one a line, for `read`."""
    return "\n".join(json.dumps(list(asdict(deed).values()), ensure_ascii=False) for deed in deeds)


def read(text: str) -> list[Deed]:
    """Read what `written` wrote."""
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    return [Deed(kind, place, how, tuple(detail), called) for kind, place, how, detail, called in rows]
