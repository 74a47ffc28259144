"""What a workbench computes, without any widget: a setting in, a point of size and accuracy out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, Draft, draft
from compresskit.data import Split
from compresskit.evaluation import Score, complete, evaluate, wilson_interval
from compresskit.litert.inspect import CHANNEL_AXIS, Layer
from compresskit.pruning.patterns import parse_pattern
from compresskit.recipe import Factorize, Prune, Quantize, Recipe, Share, Step
from compresskit.widgets.live import AbandonedError, Stop
from compresskit.zoo import Checkpoint

PREVIEW_DIGITS = 1000
_PART_SECONDS = 0.4
"""A file that reads slowly is read in parts that take about this long, so that a newer setting can be let through."""
_FAST_MACS, _SLOW_MACS = 10**11, 2 * 10**9
"""What two cores multiply and accumulate in about a second, with LiteRT's fast kernels and with its reference ones."""


@dataclass(frozen=True)
class Setting:
    """Where the controls of a workbench stand.

    Attributes
    ----------
    sparsity : float
        Fraction of the weights to set to zero; 0.0 for none.
    scope : str
        "layer" or "global"; see `Prune`.
    weights, activations : int
        Bits; 32 is float. See `Quantize`.
    granularity, ranges : str
        See `Quantize`.
    activation_ranges, io : str
        See `Quantize`; they do nothing where activations are float.
    layers : tuple of (str, int)
        Bits of single layers that differ from `weights`; 32 leaves a layer float.
    own_ranges : str
        Ranges of these layers; empty for those of all layers.
    pattern, importance : str
        See `Prune`. An N:M pattern has a sparsity of its own.
    sparsities : tuple of (str, float or None)
        For every layer its own sparsity, or None for that of all; a layer of 0.0 is left out. Empty: all are alike.
    model : str
        Which model the steps are done to: empty for the original, else the label of one that was trained from it.
    shared : int
        How many values the weights of a layer share; 0 for as many as they like.
    share_method, share_granularity : str
        `Share.method`, of which "binary" and "ternary" have a number of their own, and `Share.granularity`.
    low_rank : float
        Part of the weights that stays when layers are cut into thinner ones, the budget of `Factorize`; 1.0 leaves
        them whole.
    convolutions : str
        See `Factorize`.
    """

    sparsity: float = 0.0
    scope: str = "layer"
    weights: int = 8
    activations: int = 8
    granularity: str = "channel"
    ranges: str = "minmax"
    activation_ranges: str = "minmax"
    io: str = "same"
    layers: tuple[tuple[str, int], ...] = ()
    own_ranges: str = ""
    pattern: str = "unstructured"
    importance: str = "magnitude"
    sparsities: tuple[tuple[str, float | None], ...] = ()
    model: str = ""
    shared: int = 0
    share_method: str = "kmeans"
    share_granularity: str = "layer"
    low_rank: float = 1.0
    convolutions: str = "keep"

    def recipe(self) -> Recipe:
        """Give the steps that do something; the empty recipe for the original model.

        Raises
        ------
        ValueError
            If the combination cannot be; the sentence says what to choose.
        """
        channels = [step for step in self.prunes() if step.place < Factorize.place]
        single = [step for step in self.prunes() if step.place > Factorize.place]
        steps: list[Step] = [*channels, *self.factorizes(), *single, *self.shares()]
        if self._quantizes:
            integers = self.activations < 32
            others = {name: bits for name, bits in self.layers if bits != self.weights}
            own = {"ranges": self.own_ranges} if self.own_ranges else {}
            step = Quantize(
                self.weights,
                self.activations,
                self.granularity,
                self.ranges,
                layers={name: {"weights": bits, **own} for name, bits in others.items() if bits < 32},
                skip=tuple(name for name, bits in others.items() if bits == 32),
                activation_ranges=self.activation_ranges if integers else "minmax",
                io=self.io if integers else "same",
            )
            steps.append(step)
        return Recipe(*steps)

    def prunes(self) -> tuple[Prune, ...]:
        """Give the steps that prune: one for the layers that are alike, and one for each other sparsity."""
        fixed = parse_pattern(self.pattern).sparsity
        overall = self.sparsity if fixed is None else fixed
        wanted: dict[float, tuple[str, ...] | None] = {} if self.sparsities else {overall: None}
        for name, own in self.sparsities:
            sparsity = overall if own is None or (fixed is not None and own > 0) else own
            wanted[sparsity] = (*(wanted.get(sparsity) or ()), name)
        if len(wanted) == 1:
            wanted = dict.fromkeys(wanted)  # all layers are alike: none needs to be named
        return tuple(
            Prune(
                None if fixed is not None else sparsity,
                self.scope if self.pattern == "unstructured" and sparsity == overall else "layer",
                names,
                self.importance,
                self.pattern,
            )
            for sparsity, names in wanted.items()
            if sparsity > 0
        )

    def factorizes(self) -> tuple[Factorize, ...]:
        """Give the step that cuts layers into thinner ones, if there is one."""
        if self.low_rank >= 1:
            return ()
        return (Factorize(budget=self.low_rank, convolutions=self.convolutions),)

    def shares(self) -> tuple[Share, ...]:
        """Give the step that lets weights share values, if there is one."""
        fixed = fixed_count(self.share_method)
        if not self.shared and not fixed:
            return ()
        levels = None if fixed else self.shared
        return (Share(levels, self.share_method, granularity=self.share_granularity),)

    @property
    def _quantizes(self) -> bool:
        """Whether there is anything to quantize."""
        return self.weights < 32 or self.activations < 32 or any(bits < 32 for _, bits in self.layers)

    def describe(self) -> str:
        """Say in a few words what is done to the model."""
        parts = [_cut_in_words(step) for step in self.factorizes()]
        parts += [self._in_words(step) for step in self.prunes()]
        parts += self._shared_in_words()
        if self._quantizes:
            grid = f", a scale per {self.granularity}" if self.weights < 16 else ""
            ranges = _RANGES_IN_WORDS[self.ranges]
            parts.append(f"{_width(self.weights)} weights{grid}{ranges if self.weights < 16 else ''}")
            own = _RANGES_IN_WORDS[self.own_ranges or "minmax"]
            parts += [f"{name} {_width(bits)}{own}" for name, bits in self.layers if bits != self.weights]
            parts.append(f"{_width(self.activations)} activations")
            if self.activations < 32 and self.activation_ranges != "minmax":
                parts[-1] += _RANGES_IN_WORDS[self.activation_ranges]
            if self.activations < 32 and self.io != "same":
                parts.append(f"{self.io} in and out")
        return ", ".join([*([self.model] if self.model else []), *parts]) or "the original"

    def _shared_in_words(self) -> list[str]:
        """Say which values are shared, as ``16 shared values``, whether that can be or not."""
        count = fixed_count(self.share_method) or self.shared
        if not count:
            return []
        how = {
            "kmeans": "shared values", "exact": "shared values (exact k-means)", "uniform": "values at equal distances",
            "binary": "shared values (binary)", "ternary": "shared values (ternary)", "powers": "powers of two",
        }[self.share_method]  # fmt: skip
        return [f"{count} {how}{' for each channel' if self.share_granularity == 'channel' else ''}"]

    def _in_words(self, step: Prune) -> str:
        """Say what a step takes away, as ``60 % pruned over the whole network``."""
        share = f"{step.sparsity or 0:.0%}".replace("%", " %")
        kind = parse_pattern(step.pattern).kind
        what = {
            "unstructured": f"{share} pruned",
            "n:m": f"{step.pattern} pruned",
            "block": f"{share} pruned in blocks of {step.pattern.removeprefix('block ')}",
            "channel": f"{share} of the channels removed",
        }[kind]
        what += " over the whole network" if step.scope == "global" else ""
        what += f" by {step.importance}" if step.importance != "magnitude" else ""
        return f"{what} in {', '.join(step.layers)}" if step.layers else what


def fixed_count(method: str) -> int:
    """Tell how many values a way to share has, where it has a number of its own; else 0."""
    return Share(method=method).count if method in ("binary", "ternary") else 0


def _cut_in_words(step: Factorize) -> str:
    """Say how far layers are cut, as ``low rank with 25 % of the weights``."""
    how = {"keep": "", "tucker2": ", convolutions in three (Tucker-2)", "spatial": ", convolutions in two"}
    return f"low rank with {100 * (step.budget or 0):g} % of the weights{how[step.convolutions]}"


_RANGES_IN_WORDS = {
    "minmax": "", "mse": ", least-error ranges", "octav": ", OCTAV ranges", "search": ", searched ranges",
    "percentile": ", percentile ranges", "entropy": ", entropy ranges", "moving": ", moving-average ranges",
}  # fmt: skip


def _width(bits: int) -> str:
    return "float" if bits == 32 else f"{bits}-bit"


@dataclass(frozen=True)
class Point:
    """What a setting came to.

    Attributes
    ----------
    setting : Setting
        What was asked for.
    compressed : Compressed
        The file.
    score : Score
        LiteRT's answers on it.
    exact : bool
        False when only the preview digits were read.
    measured : mapping of str to float
        Its place on each axis of the plot that was asked for, and its loss; see `compresskit.widgets.axes.ask`.
    """

    setting: Setting
    compressed: Compressed = field(repr=False)
    score: Score
    exact: bool
    measured: Mapping[str, float] = field(default_factory=dict, compare=False)


def preview_of(digits: Split) -> Split:
    """Choose the digits of a preview: a thousand, spread evenly, always the same.

    Parameters
    ----------
    digits
        All test digits. (The first thousand of MNIST's would not do: its first half is the easier one.)

    Returns
    -------
    Split
        `digits` itself when there are no more than that.
    """
    if len(digits) <= PREVIEW_DIGITS:
        return digits
    chosen = _preview_positions(len(digits))
    return replace(digits, images=digits.images[chosen], labels=digits.labels[chosen], name=f"{digits.name} (preview)")


def _preview_positions(n: int) -> NDArray[np.int64]:
    return np.linspace(0, n - 1, PREVIEW_DIGITS).round().astype(np.int64)


def read_digits(
    model: Compressed | Checkpoint,
    digits: Split,
    stop: Stop,
    preview: Score | None = None,
    progress: Callable[[float], None] | None = None,
) -> Score:
    """Evaluate a file, in parts where it is slow; the result is that of `evaluate`.

    Parameters
    ----------
    model, digits
        As for `evaluate`.
    stop
        Asked between the parts.
    preview
        The file's score on `preview_of(digits)`, if there is one: these digits are not read again.
    progress
        Told after each part how much is read, 0 to 1.

    Returns
    -------
    Score

    Raises
    ------
    AbandonedError
        As soon as `stop()` says so.
    """
    macs = sum(layer.macs for layer in model.layers) * len(digits)
    quantize = model.recipe.quantize if isinstance(model, Compressed) else None
    slow_kernels = quantize is not None and quantize.activations == 16  # LiteRT has reference kernels only
    if macs < (_SLOW_MACS if slow_kernels else _FAST_MACS):
        if preview is not None and preview.model is model and preview.n < len(digits):
            return complete(preview, _preview_positions(len(digits)), digits)
        return evaluate(model, digits)
    scores: list[Score] = []
    start, part = 0, min(len(digits), 100)
    while start < len(digits):
        if stop():
            raise AbandonedError
        began = time.perf_counter()
        chosen = slice(start, start + part)
        scores.append(evaluate(model, replace(digits, images=digits.images[chosen], labels=digits.labels[chosen])))
        start += part
        if progress is not None:
            progress(min(1.0, start / len(digits)))
        part = max(1, int(part * _PART_SECONDS / max(time.perf_counter() - began, 1e-6)))
    return _joined(scores, digits)


def _joined(scores: list[Score], digits: Split) -> Score:
    predictions = np.concatenate([score.predictions for score in scores])
    correct = int((predictions == digits.labels).sum())
    return replace(
        scores[0],
        accuracy=correct / len(digits),
        interval=wilson_interval(correct, len(digits)),
        n=len(digits),
        predictions=predictions,
        loss=sum(score.n * score.loss for score in scores) / len(digits),
    )


def compute_point(
    checkpoint: Checkpoint,
    setting: Setting,
    digits: Split,
    calibration: Split | None,
    *,
    exact: bool = True,
    stop: Stop = lambda: False,
    squeeze: bool = True,
    make: Callable[[Checkpoint, Recipe, Split | None], Draft] = draft,
    preview: Score | None = None,
    progress: Callable[[float], None] | None = None,
) -> Point:
    """Make the file of a setting and let it read digits, while it is checked, and squeezed, on other threads.

    Parameters
    ----------
    checkpoint
        The original.
    setting
        Where the controls stand.
    digits, calibration
        The digits to read, and those to measure ranges on.
    exact
        Whether `digits` are all there are.
    stop, preview, progress
        See `read_digits`.
    squeeze
        Whether to find the size of the file in an archive as well.
    make
        Makes the file; a workbench passes one that remembers.

    Returns
    -------
    Point

    Raises
    ------
    ValueError
        If the setting cannot be; the sentence says why.
    AbandonedError
        If `stop()` said so.
    """
    made = make(checkpoint, setting.recipe(), calibration)
    with ThreadPoolExecutor(2) as beside:
        checking = beside.submit(lambda: made.checked)
        squeezing = beside.submit(lambda: made.file.deflated_size) if squeeze else None
        try:
            score = read_digits(made.file, digits, stop, preview, progress)
        except RuntimeError:
            checking.result()  # knows better what is wrong with a file that does not run
            raise
        if squeezing is not None:
            squeezing.result()
        return Point(setting, checking.result(), score, exact)


def newly_misread(original: Score, small: Score, digits: Split) -> NDArray[np.int64]:
    """Find the digits that the original reads rightly and the small model does not.

    Parameters
    ----------
    original, small
        Scores on the same digits.
    digits
        These digits.

    Returns
    -------
    NDArray[np.int64]
        Their positions in `digits`.
    """
    right_before = original.predictions == digits.labels
    wrong_now = small.predictions != digits.labels
    return np.flatnonzero(right_before & wrong_now)


@dataclass(frozen=True)
class WeightView:
    """A layer's weights before and after, counted in equal bins, and the grid that the new ones lie on.

    Attributes
    ----------
    edges : NDArray[np.float64]
        (bins + 1,) borders of the bins.
    before, after : NDArray[np.int64]
        (bins,) weights in each bin; `after` without those that are exactly zero.
    zeros : int
        Weights that are exactly zero after.
    total : int
        All weights of the layer.
    grid : NDArray[np.float64]
        The values that a weight can take; empty when they stay float.
    channel : int or None
        The output channel whose grid it is, where each has its own: the one that reaches farthest.
    shared : bool
        Whether `grid` holds the values that weights share, and not a grid.
    """

    edges: NDArray[np.float64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    zeros: int
    total: int
    grid: NDArray[np.float64]
    channel: int | None
    shared: bool = False


def view_weights(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    layer: Layer,
    bits: int,
    granularity: str,
    bins: int = 101,
    *,
    shared: bool = False,
) -> WeightView:
    """Count a layer's weights and find the grid.

    Parameters
    ----------
    before, after
        Real weights of the original and of the small file, of one shape.
    layer
        The layer, for its operator.
    bits
        Bits of a weight.
    granularity
        "channel" or "tensor".
    bins
        How many bins.
    shared
        Whether the weights share values, of which there are too few to tell a grid by.

    Returns
    -------
    WeightView
    """
    reach = max(float(np.abs(before).max()), float(np.abs(after).max()), 1e-12)
    edges = np.linspace(-reach, reach, bins + 1)
    grid, channel = np.empty(0), None
    if bits < 16 or shared:
        own = after
        if granularity == "channel":
            by_channel = np.moveaxis(after, CHANNEL_AXIS[layer.op], 0).reshape(after.shape[CHANNEL_AXIS[layer.op]], -1)
            channel = int(np.abs(by_channel).max(axis=1).argmax())
            own = by_channel[channel]
        grid = np.unique(own).astype(np.float64) if shared else grid_of(own, bits)
    kept = after[after != 0]
    return WeightView(
        edges=edges,
        before=np.histogram(before, edges)[0],
        after=np.histogram(kept, edges)[0],
        zeros=int(after.size - kept.size),
        total=int(after.size),
        grid=grid,
        channel=channel,
        shared=shared,
    )


def grid_of(weights: NDArray[np.float32], bits: int) -> NDArray[np.float64]:
    """Find the levels of a symmetric grid, `S q` with whole `q` of at most `bits` bits, from weights that lie on it.

    Parameters
    ----------
    weights
        Weights that lie on one grid.
    bits
        Bits of `q`.

    Returns
    -------
    NDArray[np.float64]
        The levels in order, as far as the weights reach; only 0 when all weights are 0.
    """
    levels = np.unique(np.abs(weights.astype(np.float64)))
    levels = levels[levels > 0]
    if not len(levels):
        return np.zeros(1)
    gaps = np.diff(np.concatenate([[0.0], levels]))
    step = float(gaps[gaps > levels[-1] * 2.0 ** -(bits + 1)].min())
    # The gap between two neighbours has a rounding error that the largest level, many steps out, does not have.
    step = float(levels[-1]) / round(float(levels[-1]) / step)
    highest = round(float(levels[-1]) / step)
    return np.arange(-highest, highest + 1, dtype=np.float64) * step
