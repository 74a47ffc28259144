"""The workbench: every slider makes a real `.tflite` file, runs it, and puts its size and accuracy on a plot."""

from __future__ import annotations

import html
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, Draft, draft
from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import Score
from compresskit.recipe import Recipe
from compresskit.widgets import views
from compresskit.widgets.figures import Chart
from compresskit.widgets.layer_by_layer import BITS, Choice, LayerByLayer
from compresskit.widgets.live import Live, Outcome, Stop, sentence
from compresskit.widgets.panel import (
    Panel,
    Status,
    Toolbar,
    button_of,
    choice_of,
    classed,
    list_of,
    markup,
    number_slider,
    slider_of,
)
from compresskit.widgets.picture import Picture
from compresskit.widgets.points import (
    Point,
    Setting,
    compute_point,
    newly_misread,
    preview_of,
    read_digits,
    view_weights,
)
from compresskit.widgets.views import Mark, kilobytes, percent, times_smaller
from compresskit.zoo import Checkpoint, load_model

ORIGINAL: Final = Setting(weights=32, activations=32)
WEIGHTS: Final = (
    ("2 bits", 2), ("3 bits, stored as 8", 3), ("4 bits", 4), ("5 bits, stored as 8", 5), ("6 bits, stored as 8", 6),
    ("7 bits, stored as 8", 7), ("8 bits", 8), ("16-bit float", 16), ("32-bit float", 32),
)  # fmt: skip
ACTIVATIONS: Final = (("8 bits", 8), ("16 bits", 16), ("float", 32))
SCOPES: Final = (("each layer", "layer"), ("whole network", "global"))
GRANULARITIES: Final = (("each channel", "channel"), ("whole layer", "tensor"))
RANGES: Final = (
    ("min to max", "minmax"), ("least error", "mse"), ("OCTAV", "octav"), ("search", "search"),
    ("percentile", "percentile"), ("entropy", "entropy"),
)  # fmt: skip
ACTIVATION_RANGES: Final = (
    ("min to max", "minmax"), ("moving average", "moving"), ("percentile", "percentile"), ("least error", "mse"),
    ("OCTAV", "octav"), ("entropy", "entropy"),
)  # fmt: skip
INTERFACES: Final = (("as inside", "same"), ("uint8", "uint8"), ("float", "float32"))
LAYER_BITS: Final = (("as all", 0), ("2", 2), ("4", 4), ("8", 8), ("float", 32))
AXES: Final = (("of the file", "file"), ("of the file, zipped", "zipped"))
AXIS_TITLES: Final = {"file": "size of the file", "zipped": "size of the file, zipped (DEFLATE)"}
NO_POINT: Final = ("choose a point of the plot", "")
REMEMBERED_FILES: Final = 8


@dataclass(frozen=True)
class Visit:
    """A point on the plot. The file is not kept: a hundred of them would fill the memory of a small machine.

    Attributes
    ----------
    setting : Setting
        Where the controls stood.
    recipe : Recipe
        What was done.
    size : int
        Bytes of the file.
    deflated : int or None
        Bytes of the file in an archive; None until it was computed.
    accuracy, interval, n : float, (float, float), int
        As in `Score`.
    exact : bool
        Whether all digits were read.
    """

    setting: Setting
    recipe: Recipe
    size: int
    deflated: int | None
    accuracy: float
    interval: tuple[float, float]
    n: int
    exact: bool

    def mark(self, axis: str) -> Mark:
        """Place the point on the plot, its size that of the file or of the archive."""
        size = self.size if axis == "file" or self.deflated is None else self.deflated
        return Mark(size, self.accuracy, *self.interval, self.n, self.exact, self.setting.describe())


class Workbench(Panel):
    """Compress a model with the hand on a slider.

    Parameters
    ----------
    model
        What `load_model` takes: the name of a shipped model, a path, a Keras model, or a checkpoint.
    data
        `Digits` (calibrated on their training digits, scored on their test digits), or a `Split` that serves for both.
        By default full MNIST.
    setting
        Where the controls stand at first.

    Attributes
    ----------
    setting : Setting
        Where the controls stand.
    point : Point or None
        The latest result shown, with its file (`point.compressed`) and its score.
    points : tuple of Visit
        Everything on the plot but the original, in the order of visiting.

    Raises
    ------
    ValueError
        If the model cannot be used, or does not fit the data.

    Examples
    --------
    >>> bench = Workbench("digit_reader")  # doctest: +SKIP
    >>> bench  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any = "digit_reader",
        data: Digits | Split | None = None,
        *,
        setting: Setting | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint: Checkpoint = load_model(model)
        source = load_mnist() if data is None else data
        self._data: Digits | Split = source
        self.test: Split = source if isinstance(source, Split) else source.test
        self.calibration: Split = source if isinstance(source, Split) else source.train
        self._check_fit()
        self._sample = preview_of(self.test)
        self._references: dict[bool, Score] = {}
        self._files: OrderedDict[Recipe, Draft] = OrderedDict()
        self._previewed: Score | None = None
        self._visits: OrderedDict[Recipe, Visit] = OrderedDict()
        self._curves: list[list[Recipe]] = [[], [], [], []]
        self._moving = False
        self._weights_shown: tuple[Recipe, str] | None = None
        self.point: Point | None = None
        self._build(setting or Setting())
        live: Live[Setting, Point] = Live(
            self._preview if self._sample is not self.test else None,
            self._exact,
            self._on_result,
            self._on_error,
            on_start=self._on_start,
            key=Setting.recipe,
            lock=self.lock,
        )
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    def _check_fit(self) -> None:
        example, wanted = int(np.prod(self.test.images.shape[1:])), int(np.prod(self.checkpoint.input_shape))
        if example != wanted:
            raise ValueError(
                f"data: each example has the shape {self.test.images.shape[1:]}, but the model "
                f"{self.checkpoint.name!r} reads {self.checkpoint.input_shape}; resize the images first."
            )
        classes = int(self.test.labels.max()) + 1
        if classes > self.checkpoint.classes:
            raise ValueError(
                f"data: there are labels up to {classes - 1}, but the model {self.checkpoint.name!r} tells only "
                f"{self.checkpoint.classes} classes apart; give data of the model's own classes."
            )

    # -- what is computed, on the worker thread ----------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Point:
        self._reference(False, stop)
        return self._compute(setting, self._sample, False, stop)

    def _exact(self, setting: Setting, stop: Stop) -> Point:
        self._reference(True, stop)
        return self._compute(setting, self.test, True, stop)

    def _compute(self, setting: Setting, digits: Split, exact: bool, stop: Stop) -> Point:
        point = compute_point(
            self.checkpoint, setting, digits, self.calibration, exact=exact, stop=stop, make=self._file,
            squeeze=exact or self._axis.value == "zipped", preview=self._previewed,
        )  # fmt: skip
        self._previewed = None if exact else point.score
        return point

    def _file(self, checkpoint: Checkpoint, recipe: Recipe, calibration: Split | None) -> Draft:
        """Compress, or take the file that the preview made a moment ago."""
        if recipe not in self._files:
            self._files[recipe] = draft(checkpoint, recipe, calibration)
            while len(self._files) > REMEMBERED_FILES:
                self._files.popitem(last=False)
        return self._files[recipe]

    def _reference(self, exact: bool, stop: Stop) -> Score:
        """Score the original, once."""
        if exact not in self._references:
            self._references[exact] = read_digits(self.checkpoint, self.test if exact else self._sample, stop)
        return self._references[exact]

    # -- what is shown ---------------------------------------------------------------------------------------

    def _build(self, setting: Setting) -> None:
        self._controls: dict[str, Any] = {
            "sparsity": number_slider("Weights set to zero", 0, 0.98, 0.01, setting.sparsity, "ck-sparsity", ".0%"),
            "scope": choice_of("Zero the smallest of", SCOPES, setting.scope, "ck-scope"),
            "weights": slider_of("Bits of a weight", WEIGHTS, setting.weights, "ck-weights"),
            "activations": choice_of("Bits between the layers", ACTIVATIONS, setting.activations, "ck-activations"),
            "granularity": choice_of("One scale for", GRANULARITIES, setting.granularity, "ck-granularity"),
            "ranges": list_of("Range of the grid", RANGES, setting.ranges, "ck-ranges"),
            "activation_ranges": list_of(
                "Range of activations", ACTIVATION_RANGES, setting.activation_ranges, "ck-activation-ranges"
            ),
            "io": choice_of("In and out of the file", INTERFACES, setting.io, "ck-io"),
        }
        self._layer_bits, self._own_ranges = dict(setting.layers), setting.own_ranges
        for control in self._controls.values():
            self._watch(control, self._on_control)
        self._status = Status()
        self._axis = choice_of("Size in the plot", AXES, "file", "ck-axis")
        self._watch(self._axis, self._on_axis)
        self._back = list_of("Go back to", [NO_POINT], NO_POINT[1], "ck-back")
        self._watch(self._back, self._on_back)
        self._tradeoff = Chart(
            views.tradeoff_figure(None, [], None, AXIS_TITLES["file"]), height=520, lock=self.lock,
            label="Plot of size against accuracy; the list below it names the same points",
        )  # fmt: skip
        self._tradeoff.on_click(self._on_click)
        names = [layer.name for layer in self.checkpoint.layers]
        heaviest = max(self.checkpoint.layers, key=lambda layer: layer.bytes).name
        self._layer = list_of("Layer", [(name, name) for name in names], heaviest, "ck-layer")
        self._watch(self._layer, self._on_layer)
        self._own_bits = choice_of("Bits of this layer", LAYER_BITS, self._layer_bits.get(heaviest, 0), "ck-layer-bits")
        self._watch(self._own_bits, self._on_own_bits)
        self._histogram = Chart(
            views.weights_figure(None), height=250, lock=self.lock, label="Histogram of the weights"
        )
        self._histogram_note = markup(_note("", "ck-three-lines"))
        self._table = markup(self._layers(self.checkpoint))
        self._strip = markup('<div class="ck-digits"></div>')
        self._strip_note = markup(_note("Reading"))
        self._detail: LayerByLayer | None = None
        self._detail_box = classed(ipywidgets.VBox([]), "ck-stack")
        self._detail_button = button_of("Layer by layer", "ck-detail")
        self._detail_button.on_click(lambda _: self._toggle_detail())
        self._toolbar = Toolbar(self._download)
        clear = button_of("Clear the plot", "ck-clear")
        reset = button_of("Back to the original", "ck-original")
        clear.on_click(lambda _: self.clear())
        reset.on_click(lambda _: self.move_to(ORIGINAL))
        self._frame(self._rows(clear, reset), self._names())

    def _rows(self, clear: Any, reset: Any) -> list[Any]:
        rule = markup('<hr class="ck-rule">')
        controls = classed(ipywidgets.VBox([*self._controls.values(), rule, self._axis, self._back]), "ck-controls")
        plot = classed(ipywidgets.VBox([self._status, self._tradeoff]), "ck-grow", "ck-stack")
        cards = [
            [_heading("Bytes by layer", _LEGEND), self._table],
            [
                _heading("Weights of a layer", _WEIGHTS_LEGEND),
                self._layer,
                self._own_bits,
                self._histogram,
                self._histogram_note,
            ],
            [_heading("Digits that it misreads now"), self._strip_note, self._strip],
        ]
        buttons = classed(ipywidgets.HBox([self._detail_button, clear, reset]), "ck-row", "ck-buttons")
        return [
            markup(self._title()),
            classed(ipywidgets.HBox([controls, plot]), "ck-row"),
            classed(
                ipywidgets.HBox([classed(ipywidgets.VBox(card), "ck-card") for card in cards]), "ck-row", "ck-cards"
            ),
            classed(ipywidgets.HBox([self._toolbar, buttons]), "ck-row", "ck-foot"),
            self._detail_box,
        ]

    def _names(self) -> dict[str, str]:
        return {
            ".ck-sparsity": "Weights set to zero", ".ck-scope": "Zero the smallest weights of",
            ".ck-weights": "Bits of a weight", ".ck-activations": "Bits between the layers",
            ".ck-granularity": "One scale for", ".ck-ranges": "Range of the grid", ".ck-axis": "Size in the plot",
            ".ck-activation-ranges": "Range of activations", ".ck-io": "In and out of the file",
            ".ck-layer-bits": "Bits of this layer",
            ".ck-back": "Go back to a point of the plot", ".ck-layer": "Layer whose weights are shown",
        }  # fmt: skip

    def _title(self) -> str:
        parameters = sum(layer.parameters for layer in self.checkpoint.layers)
        text = f"{self.checkpoint.name}: {parameters:,} parameters, {kilobytes(self.checkpoint.size)} as a float file"
        text += f". {self.test.notice}" if self.test.notice else ""
        return (
            '<h3 class="ck-title">Workbench</h3>'
            f'<div class="ck-subtitle">{html.escape(text)}</div>'
        )  # fmt: skip

    # -- what the hand does ------------------------------------------------------------------------------------

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        values = {name: control.value for name, control in self._controls.items()}
        layers = tuple((name, bits) for name, bits in self._layer_bits.items() if bits and bits != values["weights"])
        return Setting(
            **{**values, "sparsity": round(float(values["sparsity"]), 4)}, layers=layers, own_ranges=self._own_ranges
        )

    @property
    def points(self) -> tuple[Visit, ...]:
        """What is on the plot but the original, in the order of visiting."""
        with self.lock:
            return tuple(self._visits.values())

    def move_to(self, setting: Setting) -> None:
        """Put the controls somewhere, as a hand would.

        Raises
        ------
        ValueError
            If the workbench was closed.
        """
        if self.closed:
            raise ValueError("This workbench was closed; run its cell again to get a live one.")
        self._moving = True
        try:
            for name, control in self._controls.items():
                control.value = getattr(setting, name)
            self._layer_bits, self._own_ranges = dict(setting.layers), setting.own_ranges
            self._own_bits.value = self._layer_bits.get(self._layer.value, 0)
        finally:
            self._moving = False
        self._live.submit(self.setting)

    def clear(self) -> None:
        """Take all points but the original and the current one off the plot."""
        with self.lock:
            current = self.point.compressed.recipe if self.point else None
            for recipe in [recipe for recipe in self._visits if recipe != current]:
                del self._visits[recipe]
            self._draw_tradeoff()

    def _on_control(self, _change: Any) -> None:
        if not self._moving and not self.closed:
            self._live.submit(self.setting)

    def _on_axis(self, _change: Any) -> None:
        with self.lock:
            self._draw_tradeoff()

    def _on_layer(self, _change: Any) -> None:
        self._moving = True
        try:
            self._own_bits.value = self._layer_bits.get(self._layer.value, 0)
        finally:
            self._moving = False
        with self.lock:
            self._draw_weights()

    def _on_own_bits(self, change: Any) -> None:
        if self._moving or self.closed:
            return
        name, bits = self._layer.value, change["new"]
        self._layer_bits = {**{each: had for each, had in self._layer_bits.items() if each != name}, name: bits}
        if not bits:
            del self._layer_bits[name]
        self._live.submit(self.setting)

    def _toggle_detail(self) -> None:
        """Open the view of single layers below, or close it."""
        if self._detail is not None:
            self._detail.close()
            self._detail, self._detail_box.children = None, ()
            self._detail_button.description = "Layer by layer"
            return
        self._detail = LayerByLayer(self.checkpoint, self._data, choice=self._choice_of(self.setting))
        use = button_of("Use these bits above", "ck-use-bits", primary=True)
        use.on_click(lambda _: self._use_bits())
        self._detail_box.children = (self._detail.box, use)
        self._detail_button.description = "Close the layers"

    def _choice_of(self, setting: Setting) -> Choice:
        """Say in the terms of the view what the controls say; widths that it does not offer become 8."""
        own = dict(setting.layers)
        widths = [(layer.name, own.get(layer.name, setting.weights)) for layer in self.checkpoint.layers]
        offered = {bits for _, bits in BITS}
        return Choice(tuple((name, bits if bits in offered else 8) for name, bits in widths), setting.activations)

    def _use_bits(self) -> None:
        """Put the controls where the view stands: the same file."""
        if self._detail is None:
            return
        choice = self._detail.choice
        layers = tuple((name, bits) for name, bits in choice.bits if bits != 8)
        self.move_to(
            replace(
                self.setting,
                weights=8,
                activations=choice.activations,
                granularity=choice.granularity,
                ranges="minmax",
                activation_ranges="minmax",
                io="same",
                layers=layers,
                own_ranges=choice.ranges,
            )
        )

    def close(self) -> None:
        """End the threads of the workbench, and of the view of single layers."""
        if self._detail is not None:
            self._detail.close()
        super().close()

    def _on_back(self, change: Any) -> None:
        visit = change["new"]
        if isinstance(visit, Visit):
            self._back.value = NO_POINT[1]
            self.move_to(visit.setting)

    def _on_click(self, curve: int, place: int) -> None:
        with self.lock:
            recipes = self._curves[curve] if curve < len(self._curves) else []
            visit = self._visits.get(recipes[place]) if place < len(recipes) else None
        if curve == 0:
            self.move_to(ORIGINAL)
        elif visit is not None:
            self.move_to(visit.setting)

    def _download(self) -> bytes:
        with self.lock:
            if self.point is None:
                raise ValueError("There is no file yet; wait for the first point.")
            return self.point.compressed.tflite

    # -- what comes back, on the worker thread, the lock held ----------------------------------------------------

    def _on_start(self, _setting: Setting, exact: bool) -> None:
        which = f"all {len(self.test):,}" if exact else f"{len(self._sample):,}"
        self._say(f"reading {which}", "busy")

    def _on_error(self, _setting: Setting, message: str) -> None:
        self._status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        with self.lock:
            self._status.say("error", "", sentence(error))

    def _on_result(self, outcome: Outcome[Setting, Point]) -> None:
        point = outcome.value
        self._visit(point)
        current = not outcome.outdated
        if current or self.point is None:
            self.point = point
        elif not outcome.exact:
            self.point = point  # a preview that was overtaken still moves the picture under the hand
        self._draw_tradeoff()
        self._say(_time(outcome), "exact" if point.exact else "preview")
        self._draw_rest(current)

    def _visit(self, point: Point) -> None:
        recipe = point.compressed.recipe
        if not recipe.steps:
            return  # the star is there already
        earlier = self._visits.get(recipe)
        if earlier is not None and earlier.exact and not point.exact:
            return
        deflated = point.compressed.__dict__.get("deflated_size")  # only if it was asked for: it takes a while
        size, score = point.compressed.size, point.score
        self._visits[recipe] = Visit(
            point.setting, recipe, size, deflated, score.accuracy, score.interval, score.n, point.exact
        )

    def _draw_tradeoff(self) -> None:
        axis = self._axis.value
        visits = list(self._visits.values())
        if axis == "zipped":
            visits = [visit for visit in visits if visit.deflated is not None]
        self._curves = [
            [],
            [visit.recipe for visit in visits if visit.exact],
            [visit.recipe for visit in visits if not visit.exact],
            [],
        ]
        self._tradeoff.show(
            views.tradeoff_figure(
                self._star(axis), [visit.mark(axis) for visit in visits], self._ring(axis), AXIS_TITLES[axis]
            )
        )

    def _star(self, axis: str) -> Mark | None:
        exact = True in self._references
        score = self._references.get(exact)
        if score is None:
            return None
        size = self.checkpoint.size if axis == "file" else self.checkpoint.deflated_size
        return Mark(size, score.accuracy, *score.interval, score.n, exact, "the original")

    def _ring(self, axis: str) -> Mark | None:
        if self.point is None:
            return None
        if not self.point.compressed.recipe.steps:
            return self._star(axis)
        visit = self._visits.get(self.point.compressed.recipe)
        if visit is None or (axis == "zipped" and visit.deflated is None):
            return None
        return visit.mark(axis)

    def _draw_rest(self, current: bool) -> None:
        """Draw what takes longer than the plot, unless the hand is on its way already."""
        point = self.point
        if point is None or not current:
            return
        self._table.value = self._layers(point.compressed)
        self._draw_weights()
        digits = self.test if point.exact else self._sample
        wrong = newly_misread(self._references[point.exact], point.score, digits)
        self._strip_note.value = _note(views.misread_note(len(wrong), len(digits), point.exact))
        self._strip.value = views.misread_strip(digits, wrong, point.score.predictions)
        self._toolbar.file_name = file_name(self.checkpoint.name, point.setting)
        self._toolbar.download_label = f"Download the .tflite ({kilobytes(point.compressed.size)})"
        self._toolbar.code = python_of(self.checkpoint.name, point.compressed.recipe, self._toolbar.file_name)
        self._list_visits()

    def _layers(self, small: Compressed | Checkpoint) -> str:
        sizes = (self.checkpoint.size, small.size)
        return views.layers_table(self.checkpoint.layers, small.layers, sizes)

    def _list_visits(self) -> None:
        entries = [
            (f"{kilobytes(visit.size)}, {percent(visit.accuracy)}: {visit.setting.describe()}", visit)
            for visit in self._visits.values()
        ]
        options = [NO_POINT, *entries]
        if list(self._back.options) != options:
            self._back.options = options

    def _draw_weights(self) -> None:
        point, name = self.point, self._layer.value
        if point is None or self._weights_shown == (point.compressed.recipe, name):
            return
        before, after = self._weights(name)
        layer = next(each for each in self.checkpoint.layers if each.name == name)
        step = point.compressed.recipe.quantize
        bits = step.for_layer(name).weights if step else 32
        view = view_weights(before, after, layer, bits, step.granularity if step else "tensor")
        self._histogram.show(views.weights_figure(view))
        self._histogram_note.value = _note(views.weights_note(view, bits), "ck-three-lines")
        self._weights_shown = (point.compressed.recipe, name)

    def _weights(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self.point is not None
        original = Compressed(self.checkpoint.tflite, Recipe(), self.checkpoint)
        return original.weights(name), self.point.compressed.weights(name)

    def _say(self, small: str, kind: str) -> None:
        """Write the status line: the latest figures, and what is going on."""
        if self.point is None:
            self._status.say(kind, "", f"{small} digits".capitalize())
            return
        score, size = self.point.score, self.point.compressed.size
        low, high = (100 * end for end in score.interval)
        figures = f"{percent(score.accuracy)} right, {kilobytes(size)}, {times_smaller(self.checkpoint.size, size)}"
        read = f"{score.n:,} digits{'' if self.point.exact else ' (preview)'}"
        self._status.say(kind, figures, f"{read}, 95 % interval {low:.2f} to {high:.2f} %; {size:,} bytes; {small}")

    # -- without a kernel --------------------------------------------------------------------------------------

    def _summary(self) -> str:
        return f"Workbench: {self.checkpoint.name}, {self.checkpoint.size:,} bytes"

    def _picture(self) -> Picture:
        made = Picture(820, 652, f"{self._summary()}: size against accuracy, and the bytes of each layer")
        made.text(20, 34, f"Workbench: {self.checkpoint.name}", size=18, bold=True)
        star, point = self._star("file"), self.point
        if star is None or point is None:
            made.text(20, 62, "Run this cell to see the panel.", ink="muted")
            return made
        size = point.compressed.size
        score = f"{percent(point.score.accuracy)} of {point.score.n:,} digits"
        made.text(20, 58, f"{score}, {kilobytes(size)}, {times_smaller(star.size, size)}", size=14)
        made.text(20, 78, point.setting.describe(), size=13, ink="muted")
        marks = [visit.mark("file") for visit in self._visits.values()]
        made.place(views.tradeoff_picture(star, marks, AXIS_TITLES["file"], 780, 340), 20, 92)
        made.text(20, 460, "Bytes by layer, before and after", size=13, bold=True)
        pairs = list(zip(self.checkpoint.layers, point.compressed.layers, strict=True))
        largest = sorted(sorted(range(len(pairs)), key=lambda place: -pairs[place][0].bytes)[:4])
        before, after = zip(*(pairs[place] for place in largest), strict=True)
        made.place(views.layers_picture(before, after, 780), 20, 470)
        made.text(20, 636, "A still picture. Run the cell for the live panel.", size=11, ink="muted")
        return made


_LEGEND: Final = (
    '<div class="ck-legend"><span><span class="ck-key ck-before"></span>before</span>'
    '<span><span class="ck-key ck-after"></span>after</span></div>'
)


_WEIGHTS_LEGEND: Final = (
    '<div class="ck-legend"><span><span class="ck-key ck-line"></span>before</span>'
    '<span><span class="ck-key ck-after"></span>after</span>'
    '<span><span class="ck-key ck-ticks"></span>values the grid allows</span></div>'
)


def _heading(text: str, more: str = "") -> ipywidgets.HTML:
    return markup(f'<h4 class="ck-heading">{html.escape(text)}</h4>{more}')


def _note(text: str, kind: str = "ck-one-line") -> str:
    return f'<div class="ck-note {kind}">{html.escape(text)}</div>'


def _time(outcome: Outcome[Setting, Point]) -> str:
    return "known already" if outcome.cached else f"{1000 * outcome.seconds:,.0f} ms"


def file_name(model: str, setting: Setting) -> str:
    """Name a file after what was done: ``digit_reader_zero60_w8a8.tflite``."""
    name = "".join(each if each.isalnum() or each in "-_" else "_" for each in model)
    zero = f"_zero{100 * setting.sparsity:.0f}" if setting.sparsity else ""
    bits = f"_w{setting.weights}a{setting.activations}" if min(setting.weights, setting.activations) < 32 else ""
    return f"{name}{zero}{bits or '_float'}.tflite"


def python_of(model: str, recipe: Recipe, name: str) -> str:
    """Write the program that makes the same file."""
    return "\n".join(
        [
            "import compresskit as ck",
            "",
            "digits = ck.load_mnist()",
            f"model = ck.load_model({model!r})",
            f"small = ck.compress(model, {recipe.to_python()}, calibration=digits.train)",
            "print(ck.evaluate(small, digits.test))",
            f"small.save({name!r})",
        ]
    )
