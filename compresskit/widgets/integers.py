"""The panel of lesson 04: one output of one layer, step by step in integers, and what other multipliers would change.

`Bench` holds what LiteRT's reference kernels computed for some test digits; `chain` follows one accumulator to its
output, `compare` requantizes a whole layer, and the whole network, with another multiplier. None of them has a widget
in it. The panel draws what they give.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.litert.between import Flow, layer_flows
from compresskit.litert.integer_layers import IntegerModel, integer_model
from compresskit.quantization.integer import IntegerConv, IntegerDense, IntegerDepthwise, run
from compresskit.quantization.narrow import (
    WAYS,
    WIDEST,
    Way,
    multiply_narrow,
    narrow_multiplier,
    narrowed,
    with_multipliers,
)
from compresskit.recipe import Quantize, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import AbandonedError, Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, number_slider
from compresskit.widgets.picture import Picture, data_uri
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

Weighted = IntegerConv | IntegerDense | IntegerDepthwise

DIGITS: Final = 200
"""Test digits that are computed exactly; LiteRT's reference kernels take a second for them."""
PREVIEW_DIGITS: Final = 20
CHUNK: Final = 20
SWEPT: Final = 40_000
"""Accumulators on which the curves over all widths are measured."""
SEED: Final = 4
LEAST: Final = 0.001
"""Percent at which the plot shows "none"."""
HEIGHT: Final = 330
BY_NUMBER: Final = "number"
PICKS: Final = (
    ("a typical one", "typical"), ("the largest", "largest"), ("a negative sum", "negative"),
    ("one close to a half", "half"), ("the one numbered below", BY_NUMBER),
)  # fmt: skip
LABELS: Final[Mapping[Way, str]] = {
    "twice": "twice, as LiteRT", "even": "once, halves to even", "away": "once, halves away", "down": "cut off (>>)"
}  # fmt: skip
_DASHES: Final[Mapping[Way, str]] = {"twice": "solid", "even": "dash", "away": "dot", "down": "dashdot"}
_INKS: Final[Mapping[Way, str]] = {"twice": AFTER, "even": BEFORE, "away": "#cc79a7", "down": "#888888"}


@dataclass(frozen=True)
class Setting:
    """A layer, and the multiplier with which it is requantized.

    Attributes
    ----------
    layer
        Its name.
    width
        Bits of the multiplier, 1 to 31.
    way
        How it rounds.
    """

    layer: str
    width: int = WIDEST
    way: Way = "twice"


@dataclass(frozen=True, eq=False)
class Bench:
    """An int8 network, and what LiteRT's reference kernels compute for some digits.

    Attributes
    ----------
    model
        The network in integers.
    digits
        The digits.
    x
        The digits on the grid of the input.
    flows
        What goes into each layer and comes out, in int8.
    real
        What comes out of the same layer of the float model.
    """

    model: IntegerModel
    digits: Split
    x: NDArray[Any]
    flows: Mapping[str, Flow]
    real: Mapping[str, NDArray[np.float32]]

    @classmethod
    def of(cls, checkpoint: Checkpoint, data: Digits, count: int = DIGITS, looked_at: int = PREVIEW_DIGITS) -> Bench:
        """Quantize a model to int8 and run test digits through it; the float model runs the first `looked_at`."""
        small = compress(checkpoint, Recipe(Quantize()), calibration=data.train)
        model, digits = integer_model(small.tflite), data.test.take(count)
        x = model.encode(digits.images)
        pixels = digits.images[:looked_at].reshape(-1, *model.input_shape).astype(np.float32) / np.float32(255)
        real = {name: flow.given for name, flow in layer_flows(checkpoint.tflite, pixels).items()}
        return cls(model, digits, x, layer_flows(small.tflite, x), real)

    def layer(self, name: str) -> Weighted:
        """Give a layer with weights.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        for layer in self.model.layers:
            if layer.name == name and isinstance(layer, Weighted):
                return layer
        raise ValueError(f"layer: {name!r} is not in this model; its layers are {', '.join(self.flows)}")

    @property
    def logits(self) -> NDArray[Any]:
        """What LiteRT gives at the end, in integers (n, classes)."""
        return list(self.flows.values())[-1].given


@dataclass(frozen=True)
class Chain:
    """One output, from the accumulator to the int8 that leaves the layer.

    Attributes
    ----------
    place
        Index of the output in its layer: (row, column, channel) or (unit,).
    products, bias
        What the accumulator is made of: the sum of the products, and the bias.
    real
        M, the real multiplier of this channel.
    m, shift, width, way
        M in integers, m / 2^width * 2^shift, and how the product is rounded.
    product
        Accumulator * m: up to 63 bits.
    first
        The product after its first rounding, or None where there is only one.
    rounded
        M * accumulator in whole numbers.
    zero_point, lowest, highest
        Of the output.
    output, litert
        What comes out, and what LiteRT gave.
    accumulator_scale, output_scale
        S_in S_w and S_out: how the integers stand for real numbers.
    float_model
        What the float model gives at this place.
    """

    place: tuple[int, ...]
    products: int
    bias: int
    real: float
    m: int
    shift: int
    width: int
    way: Way
    product: int
    first: int | None
    rounded: int
    zero_point: int
    lowest: int
    highest: int
    output: int
    litert: int
    accumulator_scale: float
    output_scale: float
    float_model: float

    @property
    def accumulator(self) -> int:
        """Products and bias."""
        return self.products + self.bias


@dataclass(frozen=True)
class Compared:
    """How outputs and answers differ from LiteRT's.

    Attributes
    ----------
    changed, outputs
        Outputs of the layer that differ, LiteRT's own inputs given, and how many there are.
    differences
        How many outputs differ by -3 or less, -2, -1, 1, 2, 3 or more units.
    furthest
        The largest difference in units.
    logits, answers, n
        Logits and answers that differ when every layer of the network is requantized so, and of how many digits.
    """

    changed: int
    outputs: int
    differences: tuple[int, ...]
    furthest: int
    logits: int
    answers: int
    n: int


STEPS: Final = (-3, -2, -1, 1, 2, 3)


def chain(bench: Bench, setting: Setting, digit: int, position: int) -> Chain:
    """Follow one output of one layer.

    Parameters
    ----------
    bench
        The network and what LiteRT computed.
    setting
        Layer and multiplier.
    digit
        Which of the bench's digits.
    position
        Which of the layer's outputs, counted through.

    Raises
    ------
    ValueError
        If there is no such layer, digit or output.
    """
    layer, flow = bench.layer(setting.layer), bench.flows[setting.layer]
    sums = accumulators(bench, setting.layer, digit)
    if not 0 <= position < sums.size:
        raise ValueError(f"position is {position}; {setting.layer} has the outputs 0 to {sums.size - 1}")
    place = tuple(int(index) for index in np.unravel_index(position, sums.shape))
    channel, q = place[-1], layer.requantize
    accumulator = np.asarray(sums[place], np.int64)
    real = float(np.broadcast_to(q.real, sums.shape[-1:])[channel])
    m, shift = (int(part) for part in narrow_multiplier(real, setting.width))
    left = int(accumulator) << max(shift, 0)
    rounded = int(multiply_narrow(accumulator, real, setting.width, setting.way))
    scale = float(np.broadcast_to(q.weight_scale, sums.shape[-1:])[channel]) * float(q.input_scale)
    return Chain(
        place=place,
        products=int(accumulator) - int(layer.bias[channel]),
        bias=int(layer.bias[channel]),
        real=real,
        m=m,
        shift=shift,
        width=setting.width,
        way=setting.way,
        product=left * m,
        first=(left * m + (1 << (setting.width - 1))) >> setting.width if setting.way == "twice" else None,
        rounded=rounded,
        zero_point=q.zero_point,
        lowest=q.lowest,
        highest=q.highest,
        output=int(np.clip(rounded + q.zero_point, q.lowest, q.highest)),
        litert=int(flow.given[digit].reshape(sums.shape)[place]),
        accumulator_scale=scale,
        output_scale=float(q.output_scale),
        float_model=float(bench.real[setting.layer][digit].reshape(sums.shape)[place]),
    )


def accumulators(bench: Bench, name: str, digit: int) -> NDArray[np.int32]:
    """Compute a layer's accumulators for one digit, from what LiteRT put into the layer."""
    if not 0 <= digit < len(bench.x):
        raise ValueError(f"digit is {digit}; there are the digits 0 to {len(bench.x) - 1}")
    return np.asarray(bench.layer(name).accumulate(bench.flows[name].taken[digit : digit + 1])[0])


def pick(bench: Bench, name: str, digit: int, kind: str) -> int:
    """Find an output worth looking at.

    Parameters
    ----------
    bench, name, digit
        Where to look.
    kind
        "typical": the median of the positive sums, "negative": of those below zero, the bias alone (an empty part of
        the image) not counted; "largest"; "half": of the outputs that are not cut off, the one whose M * accumulator is
        closest to half way between two integers.
    """
    layer, sums = bench.layer(name), accumulators(bench, name, digit)
    q, flat = layer.requantize, (sums * layer.requantize.real).ravel()
    if kind == "largest":
        return int(flat.argmax())
    if kind == "half":
        inside = (flat + q.zero_point > q.lowest) & (flat + q.zero_point < q.highest)
        return int(np.where(inside, np.abs(flat - np.floor(flat) - 0.5), 1.0).argmin())
    if kind not in ("typical", "negative"):
        raise ValueError(f"kind is {kind!r}; choose 'typical', 'largest', 'negative' or 'half'")
    chosen = np.flatnonzero((flat > 0 if kind == "typical" else flat < 0) & (sums != layer.bias).ravel())
    if not chosen.size:
        return int(flat.argmin())
    return int(chosen[np.argsort(flat[chosen], kind="stable")[chosen.size // 2]])


def compare(bench: Bench, setting: Setting, count: int, stop: Stop = lambda: False) -> Compared:
    """Requantize a layer, and then every layer of the network, and compare with LiteRT on the first `count` digits."""
    layer, flow = bench.layer(setting.layer), bench.flows[setting.layer]
    requantize = narrowed(layer.requantize, setting.width, setting.way)
    network = with_multipliers(bench.model.layers, setting.width, setting.way)
    histogram, logits, answers, outputs = np.zeros(len(STEPS), np.int64), 0, 0, 0
    furthest = 0
    count = min(count, len(bench.x))
    for start in range(0, count, CHUNK):
        if stop():
            raise AbandonedError
        part = slice(start, min(start + CHUNK, count))
        sums = layer.accumulate(flow.taken[part])
        difference = requantize(sums).astype(np.int16) - flow.given[part].reshape(sums.shape)
        counts = np.bincount((np.clip(difference, -3, 3) + 3).ravel(), minlength=7)
        histogram += np.delete(counts, 3)
        furthest = max(furthest, int(np.abs(difference).max()))
        outputs += difference.size
        ours, theirs = run(network, bench.x[part], batch=CHUNK), bench.logits[part]
        logits += int((ours != theirs).sum())
        answers += int((ours.argmax(1) != theirs.argmax(1)).sum())
    counted = tuple(int(number) for number in histogram)
    return Compared(sum(counted), outputs, counted, furthest, logits, answers, count)


def sweep(bench: Bench, name: str) -> dict[Way, list[float]]:
    """Measure the share of a layer's outputs that differ from LiteRT's, for each width 1 to 31 and each way.

    On `SWEPT` accumulators, drawn with a fixed seed from the first digits.
    """
    layer, flow = bench.layer(name), bench.flows[name]
    digits = min(len(bench.x), -(-SWEPT // flow.given[0].size) + 5)
    sums = layer.accumulate(flow.taken[:digits])
    rows, given = sums.reshape(-1, sums.shape[-1]), flow.given[:digits].reshape(-1, sums.shape[-1])
    rng = np.random.default_rng(SEED)
    chosen = rng.permutation(len(rows))[: max(1, SWEPT // rows.shape[1])]
    rows, given = rows[chosen], given[chosen]
    return {
        way: [
            float((narrowed(layer.requantize, width, way)(rows) != given).mean()) for width in range(1, WIDEST + 1)
        ]
        for way in WAYS
    }  # fmt: skip


class Integers(StatusPanel):
    """The panel; `integers` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default.
    """

    def __init__(self, model: Any = "digit_reader", data: Digits | None = None) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        self.bench = Bench.of(self.checkpoint, load_mnist() if data is None else data)
        self.result: Compared | None = None
        self._following = False
        self._sweep: Callable[[str], dict[Way, list[float]]] = functools.cache(
            lambda name: sweep(self.bench, name)
        )  # fmt: skip
        self._build()
        self._look()
        self._live: Live[Setting, Compared] = Live(
            lambda setting, stop: self._compared(setting, PREVIEW_DIGITS, stop),
            lambda setting, stop: self._compared(setting, DIGITS, stop),
            self._on_result,
            self._on_error,
            lock=self.lock,
            cache_entries=256,
        )
        self._lives.append(self._live)
        self._live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Layer and multiplier that the controls stand on."""
        return Setting(str(self.layer.value), int(self.width.value), self.way.value)

    @property
    def chain(self) -> Chain:
        """The output that is looked at."""
        return chain(self.bench, self.setting, int(self.digit.value), int(self.position.value))

    def _compared(self, setting: Setting, count: int, stop: Stop) -> Compared:
        self._sweep(setting.layer)  # a second's work the first time, and remembered: not while the lock is held
        return compare(self.bench, setting, count, stop)

    def _build(self) -> None:
        names = list(self.bench.flows)
        looked_at = min(PREVIEW_DIGITS, len(self.bench.x))
        self.digit = number_slider("Test digit", 0, looked_at - 1, 1, 0, "ck-which", ".0f")
        self.layer = list_of("Layer", [(name, name) for name in names], names[0], "ck-layer")
        self.kind = list_of("Output value", PICKS, "typical", "ck-kind")
        # A field, not a slider: to a new end a slider's page answers with a value of its own.
        self.position = ipywidgets.BoundedIntText(description="Number of the output", min=0, max=1, value=0)
        self.position.tooltip = self.position.description
        classed(self.position, "ck-field", "ck-position")
        self.width = number_slider("Bits of the multiplier", 1, WIDEST, 1, WIDEST, "ck-width", ".0f")
        self.way = list_of("Rounding", [(label, way) for way, label in LABELS.items()], "twice", "ck-way")
        self.picture = ipywidgets.HTML()
        self.steps = ipywidgets.HTML()
        self.status = Status()
        self.chart = Chart(
            figure([], {"height": HEIGHT}), height=HEIGHT, lock=self.lock,
            label="Outputs that differ from LiteRT's against the bits of the multiplier, and by how many units",
        )  # fmt: skip
        for control in (self.digit, self.layer, self.kind):
            self._watch(control, self._on_pick)
        self._watch(self.position, self._on_number)
        for control in (self.layer, self.width, self.way):
            self._watch(control, self._on_multiplier)
        controls = [self.picture, self.digit, self.layer, self.kind, self.position, self.width, self.way]
        row = ipywidgets.HBox(
            [
                classed(ipywidgets.VBox(controls), "ck-controls"),
                classed(ipywidgets.VBox([self.steps]), "ck-grow", "ck-stack"),
            ]
        )
        names_of = {
            ".ck-which": "Test digit", ".ck-layer": "Layer", ".ck-kind": "Output value",
            ".ck-position": "Number of the output", ".ck-width": "Bits of the multiplier", ".ck-way": "Rounding",
        }  # fmt: skip
        self._frame([classed(row, "ck-row"), self.status, self.chart], names_of)

    def _on_pick(self, _change: Any) -> None:
        with self.lock:
            self._look()

    def _on_number(self, _change: Any) -> None:
        if self._following:
            return
        with self.lock:
            if self.kind.value != BY_NUMBER:
                self.kind.value = BY_NUMBER  # looks
            else:
                self._look()

    def _on_multiplier(self, _change: Any) -> None:
        with self.lock:
            self._tell()
        self._live.submit(self.setting)

    def _look(self) -> None:
        """Move the slider to the output that is asked for, and show its chain."""
        name, digit = str(self.layer.value), int(self.digit.value)
        last = self.bench.flows[name].given[0].size - 1
        self._following = True
        try:
            with self.position.hold_sync():
                self.position.value = min(self.position.value, last)
                self.position.max = last
                if self.kind.value != BY_NUMBER:
                    self.position.value = pick(self.bench, name, digit, str(self.kind.value))
        finally:
            self._following = False
        label = int(self.bench.digits.labels[digit])
        image = data_uri(self.bench.digits.images[digit])
        self.picture.value = (
            f'<figure class="ck-digit"><img alt="The test digit: a {label}" src="{image}"><b>{label}</b></figure>'
        )
        self._tell()

    def _tell(self) -> None:
        if self.position.value <= self.bench.flows[str(self.layer.value)].given[0].size - 1:
            self.steps.value = table(self.setting.layer, self.chain)

    def _on_result(self, outcome: Outcome[Setting, Compared]) -> None:
        if outcome.setting.layer != self.layer.value:
            return  # overtaken: its curves would stand under another layer's name
        self.result = outcome.value
        self.status.say("exact" if outcome.exact else "preview", *words(outcome.setting, outcome.value))
        self.chart.show(drawing(outcome.setting, outcome.value, self._sweep(outcome.setting.layer)))

    def _summary(self) -> str:
        found = self.chain
        text = (
            f"{self.setting.layer}, output {found.place}: accumulator {found.accumulator:,}, "
            f"times {found.real:.6g} is {found.real * found.accumulator:.4f}, rounded {found.rounded}, "
            f"output {found.output}; LiteRT gives {found.litert}."
        )
        return text if self.result is None else f"{text} {' '.join(words(self.setting, self.result))}"

    def _picture(self) -> Picture:
        picture = Picture(780, 372, self._summary())
        picture.raster(0, 4, 56, 56, self.bench.digits.images[int(self.digit.value)])
        picture.text(70, 24, f"{self.setting.layer}, {placed(self.chain)}", size=13, bold=True)
        picture.text(70, 44, "from the accumulator to the output", size=12, ink="muted")
        for column, head, anchor in ((0, "step", "start"), (560, "integer", "end"), (770, "in real numbers", "end")):
            picture.text(column, 84, head, size=11, ink="muted", anchor=anchor)  # type: ignore[arg-type]
        for row, (step, integer, real) in enumerate(rows(self.chain)):
            y = 108 + 23 * row
            picture.text(0, y, step)
            picture.text(560, y, integer.replace("✓ ", "").replace("✗ ", ""), anchor="end")  # not in every font
            picture.text(770, y, real, anchor="end")
        if self.result is not None:
            first, second = words(self.setting, self.result)
            picture.text(0, 340, first, size=12, bold=True)
            picture.text(0, 360, second, size=12, ink="muted")
        return picture


def integers(model: Any = "digit_reader", data: Digits | None = None) -> Integers:
    """Show how an int8 layer comes from its accumulators to its outputs, and what other multipliers change.

    Parameters
    ----------
    model
        What `load_model` takes: a chain of layers.
    data
        Digits; full MNIST by default. Calibrated on training digits, compared on test digits.

    Returns
    -------
    Integers
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return Integers(model, data)


def words(setting: Setting, found: Compared) -> tuple[str, str]:
    """Say how much differs from LiteRT."""
    share = found.changed / found.outputs
    by = f", by up to {found.furthest} unit{'s' if found.furthest > 1 else ''}" if found.changed else ""
    return (
        f"{setting.layer} alone: {found.changed:,} of {found.outputs:,} outputs differ from LiteRT's ({share:.3%}){by}",
        f"All layers so, over {found.n:,} digits: {found.logits:,} of {10 * found.n:,} logits differ, "
        f"{found.answers:,} answers change.",
    )


def placed(found: Chain) -> str:
    """Name the place of an output."""
    if len(found.place) == 1:
        return f"output {found.place[0]}"
    return f"row {found.place[0]}, column {found.place[1]}, channel {found.place[2]}"


def rows(found: Chain) -> list[tuple[str, str, str]]:
    """Write a chain as rows: the step, its integer, and the real number that the integer stands for."""
    s, out = found.accumulator_scale, found.output_scale
    right = max(-found.shift, 0)
    product = f"times m = {found.m:,}"
    if found.shift > 0:
        product += f", shifted left by {found.shift}"
    if found.first is not None:
        moves = [
            (f"first rounding: / 2^{found.width}", f"{found.first:,}", _signed(out * found.first / 2**right)),
            (f"second rounding: / 2^{right}", f"{found.rounded:,}", _signed(out * found.rounded)),
        ]
    else:
        moves = [
            (f"/ 2^{found.width + right}, not rounded yet", f"{_exact(found):,.4f}", _signed(out * _exact(found))),
            (f"rounded ({LABELS[found.way]})", f"{found.rounded:,}", _signed(out * found.rounded)),
        ]
    moved = found.rounded + found.zero_point
    cut = f"clamped to {found.lowest} to {found.highest}"
    agrees = "✓ the same" if found.output == found.litert else f"✗ {found.output - found.litert:+d} from it"
    return [
        ("sum of (q - Z) times weight", f"{found.products:,}", _signed(s * found.products)),
        ("plus bias: the accumulator", f"{found.accumulator:,}", _signed(s * found.accumulator)),
        (product, f"{found.product:,}", ""),
        *moves,
        (f"plus zero point {found.zero_point}", f"{moved:,}", _signed(out * found.rounded)),
        (cut, f"{found.output:,}", _signed(out * (found.output - found.zero_point))),
        ("LiteRT's reference kernel", f"{found.litert:,}  {agrees}", _signed(out * (found.litert - found.zero_point))),
        ("the float model, same place", "", _signed(found.float_model)),
    ]


def table(layer: str, found: Chain) -> str:
    """Write a chain as an HTML table."""
    lines = []
    for step, integer, real in rows(found):
        strong = ' style="font-weight:600"' if step.startswith(("clamped", "LiteRT")) else ""
        lines.append(
            f'<tr{strong}><td>{step}</td><td class="ck-number">{integer}</td><td class="ck-number">{real}</td></tr>'
        )
    approximate = found.m / 2**found.width * 2.0**found.shift
    sign = "=" if abs(approximate / found.real - 1) < 1e-9 else "≈"
    caption = (
        f"<h4 class='ck-heading'>{layer}, {placed(found)}</h4><div class='ck-note'>M = {found.real:.9f} {sign} "
        f"m / 2^{found.width} × 2^{found.shift}; M × accumulator = {found.real * found.accumulator:.5f}</div>"
    )
    head = (
        '<tr><th scope="col">step</th><th scope="col" class="ck-number">integer</th>'
        '<th scope="col" class="ck-number">in real numbers</th></tr>'
    )
    widths = '<colgroup><col style="width:44%"><col style="width:33%"><col style="width:23%"></colgroup>'
    return f'{caption}<table class="ck-table">{widths}<thead>{head}</thead><tbody>{"".join(lines)}</tbody></table>'


def drawing(setting: Setting, found: Compared, curves: Mapping[Way, list[float]]) -> dict[str, Any]:
    """Draw the share of changed outputs against the width, and by how many units they differ, as plotly's JSON."""
    widths = list(range(1, WIDEST + 1))
    here = max(100 * found.changed / found.outputs, LEAST)
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": widths, "y": [max(100 * share, LEAST) for share in curves[way]],
         "name": LABELS[way], "line": {"color": _INKS[way], "dash": _DASHES[way], "width": 2.2},
         "hovertemplate": f"{LABELS[way]}, %{{x}} bits: %{{y:.3g}} %<extra></extra>"}
        for way in WAYS
    ]  # fmt: skip
    data.append(
        {"type": "scatter", "mode": "markers", "x": [setting.width], "y": [here], "name": "your multiplier",
         "marker": {"symbol": "circle-open", "size": 15, "color": CURRENT, "line": {"width": 3}}, "cliponaxis": False,
         "hovertemplate": "%{x} bits: %{y:.3g} %<extra></extra>"}
    )  # fmt: skip
    names = ["-3 or less", "-2", "-1", "+1", "+2", "+3 or more"]
    data.append(
        {"type": "bar", "x": names, "y": [100 * number / found.outputs for number in found.differences],
         "xaxis": "x2", "yaxis": "y2", "showlegend": False, "marker": {"color": CURRENT, "line": {"width": 0}},
         "text": [f"{number:,}" if number else "" for number in found.differences], "textposition": "outside",
         "textfont": {"size": 10}, "constraintext": "none",
         "cliponaxis": False, "hovertemplate": "%{x}: %{text} outputs<extra></extra>", "name": "differences"}
    )  # fmt: skip
    most = max((100 * number / found.outputs for number in found.differences), default=0.0)
    layout = {
        "height": HEIGHT, "bargap": 0.25, "margin": {"t": 46, "l": 64},
        "annotations": [] if most else [
            {"text": "none differs", "xref": "x2 domain", "yref": "y2 domain", "x": 0.5, "y": 0.6, "showarrow": False}
        ],
        "xaxis": {"domain": [0, 0.56], "range": [0.3, 31.7], "title": {"text": "bits of the multiplier"},
                  "tickvals": [1, 4, 8, 12, 16, 20, 24, 28, 31]},
        "yaxis": {"type": "log", "range": [math.log10(LEAST) - 0.15, 2.1],
                  "title": {"text": f"{setting.layer}: outputs that differ, %"},
                  "tickvals": [LEAST, 0.01, 0.1, 1, 10, 100], "ticktext": ["none", "0.01", "0.1", "1", "10", "100"]},
        "xaxis2": {"domain": [0.68, 1], "anchor": "y2", "type": "category", "tickangle": 0,
                   "title": {"text": "units from LiteRT's", "standoff": 10, "font": {"size": 12}},
                   "tickfont": {"size": 11}, "tickvals": names, "ticktext": ["≤-3", "-2", "-1", "+1", "+2", "≥+3"]},
        "yaxis2": {"anchor": "x2", "range": [0, most * 1.2 or 1.0], "gridcolor": "#e0e0e0", "zeroline": False,
                   "nticks": 5, "title": {"text": "outputs, %", "font": {"size": 12}}},
    }  # fmt: skip
    return figure(data, layout)


def _exact(found: Chain) -> float:
    """Give what the integers stand for before rounding."""
    return found.product / 2.0 ** (found.width + max(-found.shift, 0))


def _signed(value: float) -> str:
    """Write a real number with four decimals, zero without a sign."""
    return f"{value:.4f}" if abs(value) >= 0.00005 else "0.0000"
