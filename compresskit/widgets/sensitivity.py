"""A budget to be kept: how sensitive each layer is to pruning, a slider for each, and the file that comes of them.

`measure` makes the file of a choice and reads digits with it; `plan` finds the choice that loses the least within a
budget, if the losses of the layers added up. Neither has a widget in it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np

from compresskit.analysis import pruning_sensitivity
from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert.model import deflated_size
from compresskit.litert.sizes import Sizes, file_sizes
from compresskit.pruned import float_weights
from compresskit.pruning.importance import magnitude
from compresskit.pruning.patterns import unstructured_mask
from compresskit.pruning.sensitivity import Allocation, Sensitivity, allocate
from compresskit.recipe import Prune, Recipe
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import AbandonedError, Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, button_of, classed, markup, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.points import preview_of
from compresskit.widgets.pruning import KINDS, sizes_table
from compresskit.widgets.style import AFTER, BEFORE, CURRENT
from compresskit.zoo import Checkpoint, load_model

GRID: Final = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Sparsities that are tried on each layer alone."""
STEPS: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98)
"""Where a slider can stand."""
HEIGHT: Final = 320
BUDGET: Final = 0.25
"""Of the bytes of the float `.tflite`, for the file once it is deflated."""
ALLOWED: Final = 0.01
"""Accuracy that may be lost: one point."""
_LOOKS: Final = (
    (AFTER, "circle", "solid"), (BEFORE, "square", "dash"), (CURRENT, "diamond", "dot"), ("#8a6d9f", "x", "dashdot"),
    (AFTER, "triangle-up", "dot"), (BEFORE, "star", "solid"), (CURRENT, "cross", "dash"),
)  # fmt: skip
"""Colour, mark and dash of a layer's line; which of them are told apart without colour."""


@dataclass(frozen=True)
class Choice:
    """How much goes from each layer.

    Attributes
    ----------
    sparsities : tuple of (str, float)
        Layer name and fraction of its weights, in the order of the layers.
    """

    sparsities: tuple[tuple[str, float], ...]

    def recipe(self) -> Recipe:
        """Write the choice as a recipe: in each layer the smallest weights go."""
        return Recipe(*(Prune(share, layers=(name,)) for name, share in self.sparsities if share))


@dataclass(frozen=True)
class Measured:
    """What came of a choice.

    Attributes
    ----------
    compressed
        The file.
    misread, n
        How many of `n` digits it misreads.
    misread_float
        How many of the same digits the float model misreads.
    sizes
        Of the file, and of the float file; None in a preview.
    """

    compressed: Compressed
    misread: int
    n: int
    misread_float: int
    sizes: tuple[Sizes, Sizes] | None

    @property
    def lost(self) -> float:
        """Accuracy lost, as a fraction; negative if some was gained."""
        return (self.misread - self.misread_float) / self.n

    @property
    def share(self) -> float:
        """Deflated bytes as a part of the float `.tflite`; NaN in a preview."""
        return self.sizes[0].deflated / self.sizes[1].tflite if self.sizes else float("nan")


def measure(model: Checkpoint, choice: Choice, digits: Split) -> Measured:
    """Make the file of a choice, measure it in all ways, and read digits with it.

    Parameters
    ----------
    model
        The float model.
    choice
        How much goes from each layer.
    digits
        Digits to read.

    Returns
    -------
    Measured

    Raises
    ------
    ValueError
        If a layer is not in the model, or a sparsity is not one.
    """
    small = compress(model, choice.recipe())
    with ThreadPoolExecutor(max_workers=1) as beside:
        sizes = beside.submit(lambda: (file_sizes(small.tflite), file_sizes(model.tflite)))
        return Measured(
            small, evaluate(small, digits).errors, len(digits), evaluate(model, digits).errors, sizes.result()
        )


@functools.lru_cache(maxsize=1024)
def layer_bytes(tflite: bytes, layer: str, sparsity: float) -> int:
    """Measure how many bytes a layer's weights take, deflated by themselves, once pruned by magnitude.

    Parameters
    ----------
    tflite
        The float model.
    layer
        Name of the layer.
    sparsity
        Fraction of its weights to remove.

    Returns
    -------
    int
        Bytes. Those of all layers add up to nearly what the file takes.
    """
    weights = float_weights(tflite)[layer]
    kept = unstructured_mask(magnitude(weights), sparsity, name=layer)
    return deflated_size(np.where(kept, weights, np.float32(0)).tobytes())


def plan(model: Checkpoint, found: Sensitivity, budget: float) -> Allocation:
    """Choose the sparsities that lose the least within a budget, if the losses of the layers added up.

    Parameters
    ----------
    model
        The float model.
    found
        What each layer loses alone.
    budget
        Bytes that the deflated file may take.

    Returns
    -------
    Allocation
        `cost` adds the layers' bytes up, `expected_drop` their losses: make the file and look.

    Raises
    ------
    ValueError
        If the grid does not reach the budget.
    """
    whole = sum(layer_bytes(model.tflite, layer, 0.0) for layer in found.layers)
    rest = deflated_size(model.tflite) - whole
    return allocate(found, lambda layer, sparsity: layer_bytes(model.tflite, layer, sparsity), budget, fixed=rest)


def expected_loss(found: Sensitivity, choice: Choice) -> float:
    """Add up what each layer loses alone, read off the scan's lines between its points."""
    return sum(
        float(np.interp(share, found.sparsities, found.drops[found.layers.index(name)]))
        for name, share in choice.sparsities
    )


class KeepABudget(StatusPanel):
    """The panel; `keep_a_budget` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default.
    sensitivity
        What `pruning_sensitivity` found, if that is known already; otherwise the panel scans.
    budget
        A fraction of the float `.tflite`.

    Attributes
    ----------
    measured : Measured or None
        The latest file and what was found about it.
    """

    def __init__(
        self,
        model: Any = "digit_reader",
        data: Digits | None = None,
        *,
        sensitivity: Sensitivity | None = None,
        budget: float = BUDGET,
    ) -> None:
        super().__init__()
        if not 0 < budget <= 1:
            raise ValueError(f"budget is {budget!r}; give a part of the float file above 0 and up to 1, such as 0.25")
        self.checkpoint, self.budget = load_model(model), budget
        digits = load_mnist() if data is None else data
        self.validation, self._sample = digits.validation, preview_of(digits.validation)
        self.measured: Measured | None = None
        self._sized: Measured | None = None  # the last one whose sizes are known: a preview comes without
        self._found = sensitivity
        self._moving = False
        self._float = functools.lru_cache(maxsize=2)(
            lambda whole: evaluate(self.checkpoint, self.validation if whole else self._sample).errors
        )
        self._build()
        self._live: Live[Choice, Measured] = Live(
            self._preview, self._exact, self._on_result, self._on_error, lock=self.lock, cache_entries=64
        )
        self._scanner: Live[int, Sensitivity] = Live(
            None, self._scan, self._on_scan, self._on_scan_error, lock=self.lock, name="compresskit-scan"
        )
        self._lives += [self._live, self._scanner]
        if sensitivity is None:
            self._scanner.submit(0)
        self._live.submit(self.choice)

    # -- what is computed, on worker threads ---------------------------------------------------------------------

    def _preview(self, choice: Choice, stop: Stop) -> Measured:
        small = compress(self.checkpoint, choice.recipe())
        return Measured(small, evaluate(small, self._sample).errors, len(self._sample), self._float(False), None)

    def _exact(self, choice: Choice, stop: Stop) -> Measured:
        return measure(self.checkpoint, choice, self.validation)

    def _scan(self, _: int, stop: Stop) -> Sensitivity:
        def told(done: int, total: int) -> None:
            if stop() or self.closed:
                raise AbandonedError
            with self.lock:
                if not self.closed:
                    self._note.value = _note(f"Scanning on {len(self._sample):,} digits: {done} of {total} files")

        return pruning_sensitivity(self.checkpoint, self._sample, GRID, on_progress=told)

    # -- the controls ----------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self._sliders = {
            layer.name: slider_of(
                f"{layer.name}, {int(np.prod(layer.shape)):,} weights", [(f"{s:.0%}", s) for s in STEPS], 0.0,
                f"ck-share-{place}",
            )
            for place, layer in enumerate(self.checkpoint.layers)
        }  # fmt: skip
        self._fit = button_of("Share the budget out", "ck-plan", primary=True)
        self._fit.on_click(lambda _: self._follow_plan())
        self._note = classed(markup(_note("")), "ck-three-lines")
        for slider in self._sliders.values():
            self._watch(slider, self._on_slider)
        self.status, self.sizes = Status(), markup(sizes_table(None, self.budget))
        self._chart = Chart(
            self._figure(), height=HEIGHT, lock=self.lock,
            label="Digits misread with one layer pruned, against the share of its weights that went",
        )  # fmt: skip
        controls = classed(ipywidgets.VBox([*self._sliders.values(), self._fit, self._note]), "ck-controls")
        plots = classed(ipywidgets.VBox([self.status, self._chart, self.sizes]), "ck-grow", "ck-stack")
        names = {f".ck-share-{place}": f"Removed from {name}" for place, name in enumerate(self._sliders)}
        self._frame([classed(ipywidgets.HBox([controls, plots]), "ck-row")], names)
        self._say_plan()

    @property
    def choice(self) -> Choice:
        """Where the sliders stand."""
        return Choice(tuple((name, float(slider.value)) for name, slider in self._sliders.items()))

    def move_to(self, sparsities: Mapping[str, float]) -> None:
        """Put the sliders at the nearest places, as a hand would."""
        self._moving = True
        try:
            for name, share in sparsities.items():
                self._sliders[name].value = min(STEPS, key=lambda step, share=share: abs(step - share))  # type: ignore[misc]
        finally:
            self._moving = False
        self._live.submit(self.choice)

    def _on_slider(self, _change: Any) -> None:
        if not self._moving and not self.closed:
            self._live.submit(self.choice)

    def _follow_plan(self) -> None:
        """Put the sliders where the losses of the layers, added up, are least within the budget."""
        try:
            if self._found is None:
                raise ValueError("The scan of the layers is not finished; wait until its lines are drawn.")
            self.move_to(plan(self.checkpoint, self._found, self.budget * self.checkpoint.size).sparsities)
        except ValueError as error:
            self._say_error(error)

    # -- what comes back -------------------------------------------------------------------------------------------

    def _on_result(self, outcome: Outcome[Choice, Measured]) -> None:
        if outcome.outdated and outcome.exact:
            return
        found = self.measured = outcome.value
        self.status.say("exact" if outcome.exact else "preview", *self._words(outcome.setting, outcome.value))
        self._chart.show(self._figure())
        if found.sizes is not None:
            self._sized = found
        if self._sized is not None:
            outdated = self._sized.compressed.tflite != found.compressed.tflite
            self.sizes.value = sizes_table(self._sized.sizes, self.budget, outdated=outdated)

    def _on_scan(self, outcome: Outcome[int, Sensitivity]) -> None:
        self._found = outcome.value
        self._say_plan()
        self._chart.show(self._figure())

    def _on_error(self, _choice: Choice, message: str) -> None:
        self.status.say("error", "", message)

    def _on_scan_error(self, _: int, message: str) -> None:
        self._note.value = _note(f"The scan stopped: {message}")

    def _say_plan(self) -> None:
        if self._found is not None:
            self._note.value = _note(
                f"The button finds the sliders at which the losses of the layers, added up, are least, if the deflated "
                f"file is to take {self.budget:.0%} of the float one. What they lose together is measured."
            )

    # -- what is shown -------------------------------------------------------------------------------------------

    def _words(self, choice: Choice, found: Measured) -> tuple[str, str]:
        lost = f"{abs(100 * found.lost):.2f} points {'lost' if found.lost >= 0 else 'gained'}"
        size = f", deflated to {found.share:.1%} of the float file" if found.sizes else ""
        alone = "" if self._found is None else (
            f" The layers alone lose {100 * expected_loss(self._found, choice):.2f} points together."
        )  # fmt: skip
        kept = "" if found.sizes is None else (
            "The budget is kept. " if found.share <= self.budget and found.lost <= ALLOWED else
            f"Wanted: at most {self.budget:.0%} and 1 point lost. "
        )  # fmt: skip
        return (
            f"{lost}{size}",
            f"{kept}{found.misread:,} of {found.n:,} digits misread, {found.misread_float:,} by the float file.{alone}",
        )

    def _figure(self) -> dict[str, Any]:
        data: list[dict[str, Any]] = []
        found, where = self._found, dict(self.choice.sparsities)
        for place, name in enumerate(found.layers if found else ()):
            ink, shape, dash = _LOOKS[place % len(_LOOKS)]
            assert found is not None
            misread = 100 * (1 - found.accuracy[place])
            x = [100 * share for share in found.sparsities]
            data.append(
                {"type": "scatter", "mode": "lines+markers", "x": x, "y": np.maximum(misread, 0.05).tolist(),
                 "name": name, "line": {"color": ink, "dash": dash, "width": 2},
                 "marker": {"symbol": shape, "size": 8, "color": ink},
                 "hovertemplate": f"{name} alone, %{{x:.0f}} % removed: %{{y:.2f}} % misread<extra></extra>"}
            )  # fmt: skip
            here = float(np.interp(100 * where[name], x, np.maximum(misread, 0.05)))
            data.append(
                {"type": "scatter", "mode": "markers", "x": [100 * where[name]], "y": [here], "showlegend": False,
                 "name": f"{name} here", "hoverinfo": "skip", "cliponaxis": False,
                 "marker": {"symbol": "circle-open", "size": 16, "color": ink, "line": {"width": 2.5}}}
            )  # fmt: skip
        if self.measured is not None:
            share = max(100 * self.measured.misread / self.measured.n, 0.05)
            data.append(
                {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [share, share], "name": "your file",
                 "line": {"color": "#808080", "dash": "longdash", "width": 2},
                 "hovertemplate": "your file: %{y:.2f} % misread<extra></extra>"}
            )  # fmt: skip
        layout = {
            "height": HEIGHT, "margin": {"t": 34},
            "xaxis": {"title": {"text": "removed from the layer, %; all others whole"}, "range": [-2, 102]},
            "yaxis": {"title": {"text": "misread, %"}, "type": "log", "range": [-0.7, 2.03], "dtick": 1},
        }  # fmt: skip
        return figure(data, layout)

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in self.choice.sparsities)
        return f"A budget for {self.checkpoint.name}: removed from {shares}"

    def _picture(self) -> Picture:
        title = self._summary()
        picture = Picture(780, 230, title)
        picture.text(0, 14, title, size=13, bold=True)
        if self.measured is None:
            picture.text(0, 40, "Run the cell to share a budget out.", size=14)
            return picture
        first, second = self._words(self.choice, self.measured)
        picture.text(0, 36, first, size=13)
        picture.text(0, 54, second, ink="muted")
        if self.measured.sizes is not None:
            _draw_sizes(picture, self.measured.sizes, self.budget)
        return picture


def _draw_sizes(picture: Picture, sizes: tuple[Sizes, Sizes], goal: float) -> None:
    """Draw the four sizes as bars, with the budget as a line across them."""
    for row, (kind, text) in enumerate(KINDS):
        y, size = 96 + 34 * row, getattr(sizes[0], kind)
        picture.text(0, y, text)
        picture.text(240, y, f"{size:,}", anchor="end")
        fill, stroke = ("none", "after") if kind == "entropy" else ("after", "none")
        picture.rectangle(260, y - 11, 500 * size / sizes[1].tflite, 13, fill=fill, stroke=stroke)
    x = 260 + 500 * goal
    picture.line([(x, 76), (x, 210)], stroke="before", width=2, dash=True)
    picture.text(x + 4, 76, f"{goal:.0%}", size=11)


def _note(text: str) -> str:
    return f'<div class="ck-note">{text}</div>'


def keep_a_budget(
    model: Any = "digit_reader",
    data: Digits | None = None,
    *,
    sensitivity: Sensitivity | None = None,
    budget: float = BUDGET,
) -> KeepABudget:
    """Show a slider for each layer, what each of them loses alone, and the file that comes of all together.

    Parameters
    ----------
    model
        What `load_model` takes.
    data
        Digits; full MNIST by default. Files are scored on validation digits.
    sensitivity
        What `pruning_sensitivity` found, if that is known already; otherwise the panel scans.
    budget
        A fraction of the float `.tflite`.

    Returns
    -------
    KeepABudget
        The panel; in a notebook it is shown when it is a cell's last value.

    Raises
    ------
    ValueError
        If the budget is no such fraction.
    """
    return KeepABudget(model, data, sensitivity=sensitivity, budget=budget)
