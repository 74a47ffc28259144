"""A network layer by layer: how sensitive each is, how many bits it gets, and where on the way the error arises.

`measure` makes the file of a choice and compares what flows in it with the float model; it has no widget in it. The
panel sets the bits of a layer by a click, on a button or on a bar of the plot.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import ipywidgets

from compresskit.analysis import LayerError, Sensitivity, layer_errors, quantization_sensitivity
from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split
from compresskit.evaluation import Score
from compresskit.litert.inspect import Layer
from compresskit.recipe import Quantize, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import AbandonedError, Live, Outcome, Stop, sentence
from compresskit.widgets.panel import Panel, Status, choice_of, classed, markup
from compresskit.widgets.picture import Picture
from compresskit.widgets.points import preview_of, read_digits
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.widgets.views import kilobytes, percent, times_smaller
from compresskit.zoo import Checkpoint, load_model

WIDTHS: Final = (2, 4, 8)
"""Bits that are tried on each layer alone."""
BITS: Final = (("2", 2), ("4", 4), ("8", 8), ("float", 32))
ACTIVATIONS: Final = (("8 bits", 8), ("16 bits", 16), ("float", 32))
RANGES: Final = (("min to max", "minmax"), ("least error", "mse"), ("OCTAV", "octav"))
GRANULARITIES: Final = (("each channel", "channel"), ("whole layer", "tensor"))
MOST_DECIBELS: Final = 60.0
"""Signal-to-noise ratios above this are drawn here: nobody tells 60 dB from no error at all."""
_HEIGHT: Final = 330
_LOOKS: Final = {2: (BEFORE, "x"), 4: (CURRENT, "/"), 8: (AFTER, "")}
"""Colour and pattern of a width's bars."""


@dataclass(frozen=True)
class Choice:
    """How each layer is to be quantized.

    Attributes
    ----------
    bits : tuple of (str, int)
        Layer name and bits of its weights, in the order of the layers; 32 leaves a layer float.
    activations : int
        8, 16, or 32 for float activations that are rounded while running.
    ranges : str
        How far grids of fewer than 8 bits reach; those of 8 reach to the largest weight.
    granularity : str
        "channel" or "tensor".
    """

    bits: tuple[tuple[str, int], ...]
    activations: int = 32
    ranges: str = "octav"
    granularity: str = "channel"

    def recipe(self) -> Recipe:
        """Write the choice as a recipe.

        Raises
        ------
        ValueError
            If LiteRT has no such layer.
        """
        floats = tuple(name for name, bits in self.bits if bits == 32)
        if len(floats) == len(self.bits):
            return Recipe()
        narrow = {name: {"weights": bits, "ranges": self.ranges} for name, bits in self.bits if bits < 8}
        return Recipe(Quantize(activations=self.activations, granularity=self.granularity, layers=narrow, skip=floats))

    def with_bits(self, name: str, bits: int) -> Choice:
        """Give the same choice with other bits for one layer."""
        return replace(self, bits=tuple((each, bits if each == name else had) for each, had in self.bits))


@dataclass(frozen=True)
class Measured:
    """What came of a choice.

    Attributes
    ----------
    compressed : Compressed
        The file.
    score : Score
        On how many digits it was read, and how well.
    errors : tuple of LayerError
        For each layer, how far its output is from the float model's.
    """

    compressed: Compressed
    score: Score
    errors: tuple[LayerError, ...]


def never() -> bool:
    """Say that nothing newer waits."""
    return False


def measure(
    model: Checkpoint, choice: Choice, digits: Split, calibration: Split | None, *, flow: Split, stop: Stop = never
) -> Measured:
    """Make the file, compare what flows in it with the float model, and read digits with it.

    Parameters
    ----------
    model
        The float model.
    choice
        Bits of each layer.
    digits
        Digits to read.
    calibration
        Digits on which ranges of integer activations are measured.
    flow
        Digits on the first hundred of which the outputs of the layers are compared.
    stop
        Asked now and then by a file that reads slowly.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If there is no such file; the sentence names the layer.
    """
    small = compress(model, choice.recipe(), calibration)
    return Measured(small, read_digits(small, digits, stop), layer_errors(small, flow))


class LayerByLayer(Panel):
    """The panel: a row of buttons for each layer, the sensitivity of each, and the error on the way through the file.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        `Digits` (calibrated on training, scanned on validation, scored on test digits), or a `Split` for all three.
    choice
        Where the buttons stand at first; 8 bits everywhere by default.
    sensitivity
        What `quantization_sensitivity` found with `choice.ranges`, if that is known already.

    Attributes
    ----------
    choice : Choice
        Where the buttons stand.
    measured : Measured or None
        The latest file and what was found about it.
    """

    def __init__(
        self,
        model: Any,
        data: Digits | Split,
        *,
        choice: Choice | None = None,
        sensitivity: Sequence[Sensitivity] | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        single = isinstance(data, Split)
        self._test, self._calibration, self._validation = (
            (data, data, data) if isinstance(data, Split) else (data.test, data.train, data.validation)
        )
        self._scanned_on = "the same digits" if single else "validation digits"
        self._layers: tuple[Layer, ...] = self.checkpoint.layers
        self._sample = preview_of(self._test)
        self.measured: Measured | None = None
        self._scan: tuple[Sensitivity, ...] = ()
        self._scan_note = ""
        start = choice or Choice(tuple((layer.name, 8) for layer in self._layers))
        self._moving = False
        self._build(start)
        self._live: Live[Choice, Measured] = Live(
            self._preview if self._sample is not self._test else None, self._exact, self._on_result, self._on_error,
            on_start=self._on_start, lock=self.lock,
        )  # fmt: skip
        self._scanner: Live[str, tuple[Sensitivity, ...]] = Live(
            None, self._scan_layers, self._on_scan, self._on_scan_error, lock=self.lock, name="compresskit-scan"
        )
        self._lives += [self._live, self._scanner]
        if sensitivity is not None:
            self._scan = tuple(sensitivity)
            self._scan_note = f"Each layer alone, all others float; ranges: {start.ranges}."
            self._draw()
        else:
            self._scanner.submit(start.ranges)
        self._live.submit(start)

    # -- what is computed, on worker threads ---------------------------------------------------------------------

    def _preview(self, choice: Choice, stop: Stop) -> Measured:
        return measure(self.checkpoint, choice, self._sample, self._calibration, flow=self._test, stop=stop)

    def _exact(self, choice: Choice, stop: Stop) -> Measured:
        return measure(self.checkpoint, choice, self._test, self._calibration, flow=self._test, stop=stop)

    def _scan_layers(self, ranges: str, stop: Stop) -> tuple[Sensitivity, ...]:
        digits = self._validation

        def told(done: int, total: int) -> bool:
            with self.lock:
                if not self.closed:
                    self._note.value = _note(f"Scanning on {len(digits):,} digits: {done} of {total} files")
            return stop()

        found = quantization_sensitivity(self.checkpoint, digits, bits=WIDTHS, ranges=ranges, on_progress=told)
        if len(found) < len(self._layers) * len(WIDTHS):
            raise AbandonedError
        return found

    # -- the controls ----------------------------------------------------------------------------------------------

    def _build(self, start: Choice) -> None:
        chosen = dict(start.bits)
        self._bits = {
            layer.name: choice_of(
                f"Bits of {layer.name}, {layer.op.lower()}", BITS, chosen[layer.name], f"ck-bits-{place}"
            )
            for place, layer in enumerate(self._layers)
        }
        self._common = {
            "activations": choice_of("Bits between the layers", ACTIVATIONS, start.activations, "ck-activations"),
            "ranges": choice_of("Range of a grid below 8 bits", RANGES, start.ranges, "ck-ranges"),
            "granularity": choice_of("One scale for", GRANULARITIES, start.granularity, "ck-granularity"),
        }
        for control in (*self._bits.values(), *self._common.values()):
            self._watch(control, self._on_control)
        self._watch(self._common["ranges"], self._on_ranges)
        self._status = Status()
        self._chart = Chart(
            self._figure(), height=_HEIGHT, lock=self.lock,
            label="Digits misread with one layer quantized, and signal to noise after each layer; see the table below",
        )  # fmt: skip
        self._chart.on_click(self._on_click)
        self._note = markup(_note(""))
        self._table = classed(markup(), "ck-scroll")
        controls = classed(ipywidgets.VBox([*self._bits.values(), *self._common.values()]), "ck-controls")
        plots = classed(ipywidgets.VBox([self._status, self._chart, self._note, self._table]), "ck-grow", "ck-stack")
        names = {f".ck-bits-{place}": f"Bits of {layer.name}" for place, layer in enumerate(self._layers)}
        names |= {
            ".ck-activations": "Bits between the layers",
            ".ck-ranges": "Range of a grid below 8 bits",
            ".ck-granularity": "One scale for",
        }
        self._frame([classed(ipywidgets.HBox([controls, plots]), "ck-row")], names)
        self._draw()

    @property
    def choice(self) -> Choice:
        """Where the buttons stand."""
        bits = tuple((name, int(control.value)) for name, control in self._bits.items())
        return Choice(bits, **{name: control.value for name, control in self._common.items()})

    def move_to(self, choice: Choice) -> None:
        """Put the buttons somewhere, as a hand would."""
        self._moving = True
        try:
            for name, bits in choice.bits:
                self._bits[name].value = bits
            for name, control in self._common.items():
                control.value = getattr(choice, name)
        finally:
            self._moving = False
        self._live.submit(self.choice)

    def _on_control(self, _change: Any) -> None:
        if not self._moving and not self.closed:
            self._live.submit(self.choice)

    def _on_ranges(self, change: Any) -> None:
        if not self.closed:
            self._scanner.submit(change["new"])

    def _on_click(self, curve: int, place: int) -> None:
        """Take the bits of the bar that was clicked."""
        if curve < len(WIDTHS) and place < len(self._layers):
            self._bits[self._layers[place].name].value = WIDTHS[::-1][curve]

    # -- what comes back, on worker threads, the lock held -----------------------------------------------------------

    def _on_start(self, _choice: Choice, exact: bool) -> None:
        count = len(self._test if exact else self._sample)
        self._say("busy", f"Reading {count:,} digits")

    def _on_error(self, _choice: Choice, message: str) -> None:
        self._status.say("error", "", message)

    def _on_scan_error(self, _ranges: str, message: str) -> None:
        self._note.value = _note(f"The scan stopped: {message}")

    def _say_error(self, error: Exception) -> None:
        with self.lock:
            self._status.say("error", "", sentence(error))

    def _on_result(self, outcome: Outcome[Choice, Measured]) -> None:
        if outcome.outdated and outcome.exact:
            return
        self.measured = outcome.value
        self._draw()
        self._say("exact" if outcome.exact else "preview", "")

    def _on_scan(self, outcome: Outcome[str, tuple[Sensitivity, ...]]) -> None:
        self._scan = outcome.value
        self._scan_note = (
            f"Each layer alone, all others float; on {len(self._validation):,} {self._scanned_on}, "
            f"ranges: {outcome.setting}. Click a bar to give that layer its bits."
        )
        self._draw()

    # -- what is shown -------------------------------------------------------------------------------------------

    def _say(self, kind: str, more: str) -> None:
        if self.measured is None:
            self._status.say(kind, "", more)
            return
        score, small = self.measured.score, self.measured.compressed
        low, high = score.interval
        figures = f"{percent(score.accuracy)} right, {small.size:,} bytes, "
        figures += times_smaller(self.checkpoint.size, small.size)
        count = f"{score.errors:,} of {score.n:,} digits misread; 95 % interval {percent(low)} to {percent(high)}"
        self._status.say(kind, figures, f"{count}. {more} {score.notice}".strip())

    def _draw(self) -> None:
        self._chart.show(self._figure())
        self._note.value = _note(self._scan_note)
        self._table.value = self._rows()

    def _alone(self, name: str, bits: int) -> Sensitivity | None:
        return next((row for row in self._scan if (row.name, row.bits) == (name, bits)), None)

    def _figure(self) -> dict[str, Any]:
        names = [layer.name for layer in self._layers]
        data: list[dict[str, Any]] = []
        for bits in WIDTHS[::-1]:
            found = [self._alone(name, bits) for name in names]
            ink, pattern = _LOOKS[bits]
            # A logarithm cannot show 0: a file without an error stands at half a digit.
            data.append(
                {"type": "bar", "name": f"{bits} bits", "x": names, "y": [max(0.5, row.errors) if row else None
                 for row in found], "marker": {"color": ink, "pattern": {"shape": pattern, "fillmode": "overlay"}},
                 "hovertemplate": f"%{{x}} alone in {bits} bits: %{{y:,}} digits misread<extra></extra>"}
            )  # fmt: skip
        decibels = [] if self.measured is None else [shown_decibels(row) for row in self.measured.errors]
        cosines = [] if self.measured is None else [row.cosine for row in self.measured.errors]
        data.append(
            {"type": "scatter", "mode": "lines+markers", "showlegend": False, "x": names,
             "y": decibels, "customdata": cosines, "xaxis": "x2", "yaxis": "y2", "line": {"color": AFTER, "width": 2},
             "marker": {"size": 9, "color": AFTER},
             "hovertemplate": "after %{x}: %{y:.1f} dB, cosine %{customdata:.4f}<extra></extra>"}
        )  # fmt: skip
        crowded = len(names) > 5
        layout = {
            "height": _HEIGHT, "barmode": "group", "bargap": 0.25,
            "margin": {"l": 58, "r": 12, "t": 30, "b": 92 if crowded else 40},
            "xaxis": {"domain": [0, 0.5], "type": "category", "tickangle": -40 if crowded else 0,
                      "gridcolor": "rgba(0,0,0,0)"},
            "yaxis": {"type": "log", "title": {"text": "misread, one layer alone"}, "dtick": 1,
                      "range": [math.log10(0.4), math.log10(2 * max([row.errors for row in self._scan] or [10]) + 1)]},
            "xaxis2": {"domain": [0.63, 1], "anchor": "y2", "type": "category", "tickangle": -40 if crowded else 0,
                       "gridcolor": "rgba(0,0,0,0)", "range": [-0.4, len(names) - 0.6]},
            "yaxis2": {"anchor": "x2", "title": {"text": "signal to noise, dB", "font": {"size": 12}},
                       "range": [-5, MOST_DECIBELS + 3],
                       "gridcolor": "#e0e0e0", "zeroline": False},
        }  # fmt: skip
        return figure(data, layout)

    def _rows(self) -> str:
        """Write a row for each layer: what is stored, the error after it, and what it does alone."""
        small = self.measured.compressed.layers if self.measured else self._layers
        errors: Sequence[LayerError | None] = self.measured.errors if self.measured else [None] * len(small)
        chosen = dict(self.choice.bits)
        body = []
        for layer, now, error in zip(self._layers, small, errors, strict=True):
            alone = self._alone(layer.name, chosen[layer.name])
            cells = (
                f"{layer.bytes:,}", f"{now.bytes:,}", html.escape(now.dtype),
                decibels_text(error) if error else "", f"{error.cosine:.4f}" if error else "",
                f"{alone.errors:,}" if alone else "",
            )  # fmt: skip
            numbers = "".join(f'<td class="ck-number">{cell}</td>' for cell in cells)
            body.append(f"<tr><td><b>{html.escape(layer.name)}</b></td>{numbers}</tr>")
        heads = ("layer", "float bytes", "bytes now", "stored as", "signal to noise", "cosine", "misread alone")
        head = "".join(
            f'<th scope="col"{" class=ck-number" if place else ""}>{name}</th>' for place, name in enumerate(heads)
        )
        return f'<table class="ck-table"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'

    def _summary(self) -> str:
        """Say what is shown; nothing that depends on how far the reading has come, since notebooks keep it."""
        bits = ", ".join(f"{name} {'float' if each == 32 else each}" for name, each in self.choice.bits)
        return f"Layer by layer: {self.checkpoint.name}; bits: {bits}"

    def _picture(self) -> Picture:
        row = 28.0
        made = Picture(820, 108 + row * len(self._layers), self._summary())
        made.text(16, 28, f"Layer by layer: {self.checkpoint.name}", size=16, bold=True)
        if self.measured is not None:
            score, small = self.measured.score, self.measured.compressed
            text = f"{percent(score.accuracy)} of {score.n:,} digits, {kilobytes(small.size)}"
            made.text(16, 50, f"{text}, {times_smaller(self.checkpoint.size, small.size)}", size=13)
        for x, head in ((200, "bits"), (360, "misread alone: 8 bits"), (440, "4 bits"), (520, "2 bits")):
            made.text(x, 80, head, size=11, anchor="end", ink="muted")
        made.text(560, 80, "signal to noise after it", size=11, ink="muted")
        for place, (name, bits) in enumerate(self.choice.bits):
            y = 104 + row * place
            made.text(16, y, name, size=12, bold=True)
            made.text(200, y, "float" if bits == 32 else str(bits), size=12, anchor="end")
            for x, width in ((360, 8), (440, 4), (520, 2)):
                alone = self._alone(name, width)
                made.text(x, y, f"{alone.errors:,}" if alone else "...", size=12, anchor="end")
            if self.measured is not None:
                error = self.measured.errors[place]
                reach = 150 * max(0.0, shown_decibels(error)) / MOST_DECIBELS
                made.rectangle(560, y - 10, max(2.0, reach), 11, fill="after")
                made.text(720, y, decibels_text(error), size=12)
        return made


def layer_by_layer(
    model: Any,
    data: Digits | Split,
    *,
    choice: Choice | None = None,
    sensitivity: Sequence[Sensitivity] | None = None,
) -> LayerByLayer:
    """Show a model layer by layer, with bits that are set by a click; parameters as of `LayerByLayer`."""
    return LayerByLayer(model, data, choice=choice, sensitivity=sensitivity)


def shown_decibels(error: LayerError) -> float:
    """Give a signal-to-noise ratio as the plot shows it: finite, from -60 to 60 dB."""
    return float(min(MOST_DECIBELS, max(-MOST_DECIBELS, error.signal_to_noise)))


def decibels_text(error: LayerError) -> str:
    """Write a signal-to-noise ratio."""
    return "no error" if math.isinf(error.signal_to_noise) and error.signal_to_noise > 0 else (
        f"{error.signal_to_noise:.1f} dB"
    )  # fmt: skip


def _note(text: str) -> str:
    return f'<div class="ck-note" style="min-height:1.5em">{html.escape(text)}</div>'
