"""The workbench: every slider makes a real `.tflite` file, runs it, and puts its size and accuracy on a plot."""

from __future__ import annotations

import html
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray
from traitlets import TraitError

from compresskit.compression import Compressed, Draft, draft
from compresskit.data import Digits, Split, load_data, load_mnist
from compresskit.data.cache import cache_folder
from compresskit.evaluation import Score
from compresskit.recipe import Recipe
from compresskit.widgets import axes, export, views
from compresskit.widgets.axes import AXES, UPWARD
from compresskit.widgets.compare import LETTERS, CompareView, Pair
from compresskit.widgets.comparison import Comparison, compare_points
from compresskit.widgets.controls import ALWAYS, GRID, LAYER_BITS, NO_MODEL, SHARE, Controls
from compresskit.widgets.figures import Chart
from compresskit.widgets.jobs import Job, Trained
from compresskit.widgets.layer_by_layer import BITS, Choice, LayerByLayer
from compresskit.widgets.live import Live, Outcome, Stop, sentence
from compresskit.widgets.origin import Origin
from compresskit.widgets.panel import (
    Panel,
    Status,
    Toolbar,
    answer_while_busy,
    button_of,
    choice_of,
    classed,
    close_all,
    list_of,
    markup,
)
from compresskit.widgets.picture import Picture
from compresskit.widgets.pieces import as_one, composed, pieces_of
from compresskit.widgets.points import (
    Point,
    Setting,
    compute_point,
    newly_misread,
    preview_of,
    read_digits,
    view_weights,
)
from compresskit.widgets.programs import code_of, file_name, python_of
from compresskit.widgets.session import Session
from compresskit.widgets.training_tab import TrainingTab, Wish, training_of
from compresskit.widgets.undo import Undo
from compresskit.widgets.views import Mark, kilobytes, percent, times_smaller
from compresskit.widgets.visits import Visit, setting_from_plain
from compresskit.widgets.words import Words
from compresskit.zoo import Checkpoint, load_model

ORIGINAL: Final = Setting(weights=32, activations=32)
Place = tuple[str, Recipe]
ORIGINAL_PLACE: Final[Place] = (NO_MODEL, Recipe())
NO_POINT: Final = ("choose a point of the plot", "")
REMEMBERED_FILES: Final = 8
COMPARE_OPEN: Final = "Compare two points"
COMPARE_CLOSE: Final = "Close the comparison"


@dataclass(frozen=True)
class Model:
    """A model that the steps can be done to.

    Attributes
    ----------
    checkpoint : Checkpoint
        The model.
    code : tuple of str
        Lines of Python that make it of the original.
    """

    checkpoint: Checkpoint
    code: tuple[str, ...] = ()


def check_fit(checkpoint: Checkpoint, test: Split) -> None:
    """Raise ValueError if a model cannot read these examples, or does not know their classes."""
    example, wanted = int(np.prod(test.images.shape[1:])), int(np.prod(checkpoint.input_shape))
    if example != wanted:
        raise ValueError(
            f"data: each example has the shape {test.images.shape[1:]}, but the model "
            f"{checkpoint.name!r} reads {checkpoint.input_shape}; resize the images first."
        )
    given, read = ([side for side in shape if side > 1] for shape in (test.images.shape[1:], checkpoint.input_shape))
    if given != read and min(len(given), len(read)) > 1:
        raise ValueError(
            f"data: each example has the shape {test.images.shape[1:]}, but the model {checkpoint.name!r} reads "
            f"{checkpoint.input_shape}; bring the axes into that order, such as with np.moveaxis(images, 1, -1)."
        )
    classes = int(test.labels.max()) + 1
    if classes > checkpoint.classes:
        from_one = classes == checkpoint.classes + 1 and test.labels.min() > 0
        remedy = "count them from 0 (labels - 1)" if from_one else "give data of the model's own classes"
        raise ValueError(
            f"data: there are labels up to {classes - 1}, but the model {checkpoint.name!r} tells only "
            f"{checkpoint.classes} classes apart; {remedy}."
        )


class Workbench(Panel):
    """Compress a model with the hand on a slider.

    Parameters
    ----------
    model
        What `load_model` takes: the name of a shipped model, a path, a Keras model, or a checkpoint.
    data
        `Digits` (calibrated on their training digits, scored on their test digits), a `Split` that serves for both, or
        whatever `load_data` takes. By default full MNIST.
    setting
        Where the controls stand at first; by default where they stood when the session ended.
    session
        A folder in which every point is kept with its file, and every trained model. If it holds some already, they are
        on the plot again, with their names and notes, and the controls stand where they stood.

    Attributes
    ----------
    checkpoint : Checkpoint
        The original.
    models : mapping of str to Model
        The original, called "", and what was trained here, by the label in the list of models.
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
        data: Any = None,
        *,
        setting: Setting | None = None,
        session: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.checkpoint: Checkpoint = load_model(model)
        source = load_mnist() if data is None else load_data(data)
        self._data: Digits | Split = source
        self.test: Split = source if isinstance(source, Split) else source.test
        self.calibration: Split = source if isinstance(source, Split) else source.train
        check_fit(self.checkpoint, self.test)
        self._sample = preview_of(self.test)
        self._references: dict[bool, Score] = {}
        self.models: dict[str, Model] = {NO_MODEL: Model(self.checkpoint)}
        self._original: dict[str, float] = {}
        self._trained_from = NO_MODEL
        self._files: OrderedDict[tuple[str, Recipe], Draft] = OrderedDict()
        self._previewed: Score | None = None
        self._visits: OrderedDict[Place, Visit] = OrderedDict()
        self._squeezer = ThreadPoolExecutor(1, thread_name_prefix="compresskit-squeeze")
        self._curves: list[list[Place]] = [[], [], [], [], []]
        self._moving = False
        self._known: Visit | None = None
        self._weights_shown: tuple[Place, str] | None = None
        self.point: Point | None = None
        self._session = None if session is None else Session(session, self.checkpoint, self.test, self._not_kept)
        beside = cache_folder() if self._session is None else self._session.folder
        self._origin = Origin(model, self.checkpoint, data, source, beside.resolve() / "originals")
        self._build(setting or Setting())
        live: Live[Setting, Point] = Live(
            self._preview if self._sample is not self.test else None,
            self._exact,
            self._on_result,
            self._on_error,
            on_start=self._on_start,
            key=_place,
            lock=self.lock,
        )
        self._live = live
        self._lives.append(live)
        self._reopen(setting is None)
        self._submit(note=False)

    def _reopen(self, stand_there: bool) -> None:
        """Put what the session holds back into the panel; the controls too, unless they were put somewhere else."""
        if self._session is None:
            return
        for label, (checkpoint, code) in self._session.models().items():
            self.models[label] = Model(checkpoint, code)
        self._list_models()
        visits = self._session.visits()
        known = [visit for visit in visits if visit.setting.model in self.models]
        self._visits.update((_place(visit.setting), visit) for visit in known)
        self._list_visits()
        lost = len(visits) - len(known)
        left = [*([f"points of a model that is not here ({lost})"] if lost else []), *self._session.damaged]
        if left:
            told = f"Left out, since they cannot be read: {', '.join(left[:3])}{' and others' * (len(left) > 3)}"
            self._not_kept(f"{told}. They stay where they are, in {self._session.folder}.")
        self._stand(self._session.standing(), stand_there)

    def _stand(self, plain: Mapping[str, Any], stand_there: bool) -> None:
        """Go on from where a session ended; what does not fit any more is passed over."""
        try:
            steps = [setting_from_plain(each) for each in plain["steps"]]
            pair = [each and setting_from_plain(each) for each in plain["compared"]]
            self._undo.put(steps, int(plain["at"]))
            self._axis.value, self._upward.value = plain["axis"], plain["upward"]
            here = steps[int(plain["at"])]
            if stand_there and here.model in self.models:
                self._put_controls(here)
        except (KeyError, TypeError, AttributeError, ValueError, TraitError):
            return  # a session from before, or one whose end was not kept: its points are there all the same
        if not stand_there:
            self._undo.note(self.setting)
        if plain.get("comparing"):
            self._compare_box.children = (self._compare.box,)
            self._compare_button.description = COMPARE_CLOSE
        self._compare.put((pair[0] or None, pair[1] or None), self._entries())

    def _keep_standing(self) -> None:
        """Write down where the controls stand, and what is compared, for tomorrow."""
        if self._session is not None:
            self._session.keep_standing(self._standing)

    def _standing(self) -> dict[str, Any]:
        """Tell where the controls stand, as JSON can hold it; called on the session's thread, out of the hand's way."""
        steps, at = self._undo.steps
        return {
            "steps": [asdict(each) for each in steps],
            "at": at,
            "axis": self._axis.value,
            "upward": self._upward.value,
            "compared": [each and asdict(each) for each in self._compare.pair],
            "comparing": bool(self._compare_box.children),
        }

    # -- what is computed, on the worker thread ----------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Point:
        self._reference(False, stop)
        return self._compute(setting, self._sample, False, stop)

    def _exact(self, setting: Setting, stop: Stop) -> Point:
        self._reference(True, stop)
        return self._compute(setting, self.test, True, stop)

    def _compute(self, setting: Setting, digits: Split, exact: bool, stop: Stop) -> Point:
        model, axis = self.models[setting.model].checkpoint, self._axis.value
        point = compute_point(
            model, setting, digits, self.calibration, exact=exact, stop=stop, make=self._file,
            squeeze=axis == "zipped", preview=self._previewed, progress=self._on_part if exact else None,
        )  # fmt: skip
        self._previewed = None if exact else point.score
        return axes.ask(point, axis, self.test.images[:1])

    def _on_part(self, done: float) -> None:
        """Say how far a slow reading is."""
        with self.lock:
            if not self.closed:
                self._say(f"reading all {len(self.test):,}", "busy", done)

    def _file(self, checkpoint: Checkpoint, recipe: Recipe, calibration: Split | None) -> Draft:
        """Compress, or take the file that the preview made a moment ago."""
        key = (checkpoint.digest, recipe)
        if key not in self._files:
            self._files[key] = draft(checkpoint, recipe, calibration)
            while len(self._files) > REMEMBERED_FILES:
                self._files.popitem(last=False)
        return self._files[key]

    def _comparison(self, pair: Pair, stop: Stop) -> Comparison:
        """Compare two points, on a thread of its own."""
        self._reference(True, stop)
        first, second = (self._point_of(setting, stop) for setting in pair)
        return compare_points(self.checkpoint, first, second, self.test)

    def _point_of(self, setting: Setting, stop: Stop) -> Point:
        """Give the exact point of a setting: one that is remembered, or made again."""
        known = self._live.known(setting)
        if known is not None:
            return known
        model = self.models[setting.model].checkpoint
        return compute_point(model, setting, self.test, self.calibration, stop=stop, squeeze=False)

    def _reference(self, exact: bool, stop: Stop) -> Score:
        """Score the original, once."""
        if exact not in self._references:
            self._references[exact] = read_digits(self.checkpoint, self.test if exact else self._sample, stop)
        return self._references[exact]

    # -- what is shown ---------------------------------------------------------------------------------------

    def _build(self, setting: Setting) -> None:
        self._says = Controls(self.checkpoint.layers, setting, lambda label: self.models[label].checkpoint.tflite)
        self._controls, self._own_sparsities = self._says.fields, self._says.own_sparsities
        for control in (*self._controls.values(), *self._own_sparsities.values()):
            self._watch(control, self._on_control)
        self._about = markup(self._title())
        self._status = Status()
        self._axis = list_of("From left to right", [(axis.name, key) for key, axis in AXES.items()], "file", "ck-axis")
        self._upward = choice_of("Upward", UPWARD, "accuracy", "ck-upward")
        for control in (self._axis, self._upward):
            self._watch(control, self._on_axis)
        self._axis.tooltip = "What a point's place from left to right is: bytes, work, time or memory of its file"
        self._upward.tooltip = "What a point's height is; the best are above"
        self._training = TrainingTab(self._begin_training, self._on_trained, self.lock)
        self._back = list_of("Go back to", [NO_POINT], NO_POINT[1], "ck-back")
        self._back.tooltip = "Puts the controls where they stood for a point, as a click on it does"
        self._absent = markup(_note("", "ck-three-lines"))
        self._watch(self._back, self._on_back)
        self._tradeoff = Chart(
            views.tradeoff_figure(None, [], None, AXES["file"].title), height=476, lock=self.lock,
            label="Plot of size against accuracy; the list 'Go back to' under Plot names the same points",
        )  # fmt: skip
        self._tradeoff.on_click(self._on_click)
        self._tradeoff.on_shift_click(self._on_shift_click)
        self._words: Words[Place] = Words(self._on_words)
        for field in (self._words.name, self._words.note):
            self._watch(field, self._words.on_change)
        self._undo = Undo(self.setting, self._go_back, lambda step: step.model in self.models)
        self._compare = CompareView(
            self._comparison, self.test, self.lock, self._on_compared, len(self.checkpoint.layers)
        )
        for letter, field in zip(LETTERS, self._compare.lists, strict=True):
            field.tooltip = f"The point that is called {letter} below; Shift and a click in the plot chooses too"
            self._watch(field, self._compare.on_list)
        answer_while_busy(self._compare.box)
        self._compare_box = classed(ipywidgets.VBox([]), "ck-stack")
        self._compare_button = button_of(COMPARE_OPEN, "ck-compare-open")
        self._compare_button.on_click(lambda _: self._toggle_compare())
        names = [layer.name for layer in self.checkpoint.layers]
        heaviest = max(self.checkpoint.layers, key=lambda layer: layer.bytes).name
        self._layer = list_of("Layer", [(name, name) for name in names], heaviest, "ck-layer")
        self._watch(self._layer, self._on_layer)
        self._own_bits = choice_of(
            "Bits of this layer", LAYER_BITS, self._says.layer_bits.get(heaviest, 0), "ck-layer-bits"
        )
        self._watch(self._own_bits, self._on_own_bits)
        self._layer.tooltip = "Whose weights the histogram shows"
        self._own_bits.tooltip = "Bits of this layer alone; all others have those of the slider above"
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
        self._use_button = button_of("Use these bits above", "ck-use-bits", primary=True)
        self._use_button.on_click(lambda _: self._use_bits())
        answer_while_busy(self._use_button)
        self._toolbar = Toolbar(self._download, self._download_packed, self._origin.keep)
        clear = button_of("Clear the plot", "ck-clear")
        reset = button_of("Back to the original", "ck-original")
        clear.on_click(lambda _: self.clear())
        reset.on_click(lambda _: self.move_to(ORIGINAL))
        self._frame(self._rows(clear, reset), self._names(), later=[self._compare.box])

    def _rows(self, clear: Any, reset: Any) -> list[Any]:
        controls = classed(ipywidgets.VBox([*(self._controls[name] for name in ALWAYS), self._tabs()]), "ck-controls")
        plot = classed(ipywidgets.VBox([self._status, self._tradeoff, self._words.box]), "ck-grow", "ck-stack")
        cards = [
            [_heading("Bytes by layer", _LEGEND), self._table],
            [
                _heading("Weights of a layer", _WEIGHTS_LEGEND),
                self._layer,
                self._own_bits,
                self._histogram,
                self._histogram_note,
            ],
            [_heading(f"{self.test.noun.capitalize()} that it misreads now"), self._strip_note, self._strip],
        ]
        buttons = [self._detail_button, self._compare_button, clear, reset]
        return [
            classed(ipywidgets.HBox([self._about, self._undo.box]), "ck-head"),
            classed(ipywidgets.HBox([controls, plot]), "ck-row"),
            classed(
                ipywidgets.HBox([classed(ipywidgets.VBox(card), "ck-card") for card in cards]), "ck-row", "ck-cards"
            ),
            classed(
                ipywidgets.HBox([self._toolbar, classed(ipywidgets.HBox(buttons), "ck-row", "ck-buttons")]),
                "ck-row", "ck-foot",
            ),
            self._compare_box,
            self._detail_box,
        ]  # fmt: skip

    def _tabs(self) -> Any:
        """Put the rarer controls one behind another, in a space of a fixed height."""
        layers = classed(
            ipywidgets.VBox([markup('<div class="ck-note">Each layer</div>'), *self._own_sparsities.values()]), "ck-tab"
        )
        tabs = {
            "Prune": ipywidgets.VBox([self._controls["importance"], self._controls["scope"], layers]),
            "Grid": ipywidgets.VBox([self._controls[name] for name in GRID]),
            "Share, rank": ipywidgets.VBox([self._controls[name] for name in SHARE]),
            "Train": self._training.box,
            "Plot": ipywidgets.VBox([self._axis, self._upward, self._back, self._absent]),
            "Keep": self._keeping(),
        }
        for tab in tabs.values():
            classed(tab, "ck-tab")
        return classed(ipywidgets.Tab(list(tabs.values()), titles=tuple(tabs)), "ck-tabs")

    def _keeping(self) -> Any:
        """Offer what can be taken out of the workbench besides the file."""
        told: dict[str, Callable[[], tuple[str, str | bytes]]] = {
            "Table of all points (CSV)": self._table_of_points,
            "Report that opens anywhere (HTML)": self._report,
            "Notebook that makes this point again": self._notebook,
            "File with recipe and score (.tflite)": self._stamped,
        }
        buttons = []
        for label, content in told.items():
            button = button_of(label, "ck-keep")
            button.on_click(lambda _, content=content: self._hand_over(content))
            buttons.append(button)
        where = 'Nothing is kept on disk: Workbench(..., session="folder") keeps every point with its file.'
        if self._session is not None:
            where = f"Every point is kept with its file in the folder {self._session.folder}."
        self._kept_note = markup(_note(where, "ck-three-lines"))
        return ipywidgets.VBox([*buttons, self._kept_note])

    def _not_kept(self, told: str) -> None:
        self._kept_note.value = f'<div class="ck-note ck-error" role="alert">{html.escape(told)}</div>'
        self._toolbar.say(told)

    def _hand_over(self, content: Callable[[], tuple[str, str | bytes]]) -> None:
        try:
            name, made = content()
            self._toolbar.hand_over(name, made.encode() if isinstance(made, str) else made)
        except (ValueError, OSError) as error:
            self._toolbar.say(sentence(error))

    def _table_of_points(self) -> tuple[str, str]:
        with self.lock:
            return f"{self.checkpoint.name}_points.csv", export.points_csv(self._first(), self.points)

    def _report(self) -> tuple[str, str]:
        with self.lock:
            text = export.report_html(self.checkpoint.name, self._first(), self.points, self.test)
            return f"{self.checkpoint.name}_report.html", text

    def _notebook(self) -> tuple[str, str]:
        with self.lock:
            visit = None if self.point is None else self._visits.get(_place(self.point.setting))
            if visit is None:
                raise ValueError("The original needs no notebook; move a slider first.")
            name = file_name(self.checkpoint.name, visit.setting)
            self._origin.keep()
            source, code = self._origin.source, self.models[visit.setting.model].code
            original = self.checkpoint.digest if source.sha256 else ""
            text = export.notebook_json(
                self.checkpoint.name, python_of(source, visit.recipe, name, code), visit, self.test.noun,
                "" if code else original,
            )  # fmt: skip
            return name.replace(".tflite", ".ipynb"), text

    def _stamped(self) -> tuple[str, bytes]:
        with self.lock:
            if self.point is None:
                raise ValueError("There is no file yet; wait for the first point.")
            point, code = self.point, self.models[self.point.setting.model].code
        name = file_name(self.checkpoint.name, point.setting).replace(".tflite", "_stamped.tflite")
        original = replace(point.compressed, checkpoint=self.checkpoint)  # what was trained is told by its lines
        stamped = original.stamped(point.score, code)
        more = len(stamped) - point.compressed.size
        self._toolbar.say(f"{len(stamped):,} bytes, {more:,} of them the stamp; compresskit inspect reads it")
        return name, stamped

    def _first(self) -> Mark:
        """Give the original's point."""
        star = self._star("file")
        if star is None:
            raise ValueError("There is no point yet; wait for the first.")
        return star

    def _entries(self) -> list[tuple[str, Setting]]:
        """List the points that can be compared: the original, and all that read every digit."""
        return [("the original", ORIGINAL), *((v.entry, v.setting) for v in self.points if v.exact)]

    def _names(self) -> dict[str, str]:
        own = {
            f".ck-own-sparsity-{place}": f"Weights of {name} set to zero"
            for place, name in enumerate(self._own_sparsities)
        }
        return {
            **own, ".ck-model": "Model that the steps are done to", ".ck-pattern": "What goes: the pattern",
            ".ck-importance": "What stays: the importance", ".ck-upward": "What the plot shows upward",
            ".ck-train-kind": "What the training makes the model live with", ".ck-epochs": "Epochs",
            ".ck-rate": "Learning rate", ".ck-teacher": "Teacher",
            ".ck-temperature": "Temperature of the distillation", ".ck-alpha": "Weight of the teacher, alpha",
            ".ck-sparsity": "Weights set to zero", ".ck-scope": "Zero the smallest weights of",
            ".ck-weights": "Bits of a weight", ".ck-activations": "Bits between the layers",
            ".ck-granularity": "One scale for", ".ck-ranges": "Range of the grid",
            ".ck-axis": "What the plot shows from left to right",
            ".ck-activation-ranges": "Range of activations", ".ck-io": "In and out of the file",
            ".ck-layer-bits": "Bits of this layer", ".ck-shared": "Shared values in each layer's codebook",
            ".ck-share-method": "How the shared values are chosen", ".ck-share-granularity": "One codebook for",
            ".ck-low-rank": "Part of the weights that low rank keeps",
            ".ck-convolutions": "What low rank does with convolutions",
            ".ck-back": "Go back to a point of the plot", ".ck-layer": "Layer whose weights are shown",
            ".ck-name": "Name of this point", ".ck-notes": "Notes on this point",
            **{f".ck-compare-{letter.lower()}": f"Point {letter} to compare" for letter in LETTERS},
        }  # fmt: skip

    def _title(self) -> str:
        parameters = sum(layer.parameters for layer in self.checkpoint.layers)
        text = f"{self.checkpoint.name}: {parameters:,} parameters, {kilobytes(self.checkpoint.size)} as a float file"
        text += f". {self.test.notice}" if self.test.notice else ""
        text += self._doubt()
        return (
            '<h3 class="ck-title">Workbench</h3>'
            f'<div class="ck-subtitle">{html.escape(text)}</div>'
        )  # fmt: skip

    def _doubt(self) -> str:
        """Say what may be wrong with a model, or with its data, that guesses; empty where it does better."""
        score = self._references.get(True)
        if score is None or score.accuracy > _guessed(self.test.labels):
            return ""
        range_given = "from 0 to 1, as is done with uint8" if self.test.images.dtype == np.uint8 else "as they are"
        return (
            f". The original itself reads only {percent(score.accuracy)} right, no more than guessing would. It is "
            f"given the {self.test.noun} {range_given}: is that what it was trained on? Are the labels in its order, "
            "from 0?"
        )

    # -- what the hand does ------------------------------------------------------------------------------------

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return self._says.setting

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
            If the workbench was closed, or the controls do not offer the setting; they stay where they were then.
        """
        if self.closed:
            raise ValueError("This workbench was closed; run its cell again to get a live one.")
        with self.lock:  # the page speaks from a thread beside the cells': no hand gets in between
            before = self.setting
            try:
                self._put_controls(setting)
            except TraitError as error:
                self._put_controls(before)
                here = asdict(before)
                wanted = ", ".join(
                    f"{name}={value!r}" for name, value in asdict(setting).items() if value != here[name]
                )
                raise ValueError(f"setting: the controls do not offer {wanted}; choose among their values") from error
            self._submit()

    def _put_controls(self, setting: Setting) -> None:
        """Put the controls somewhere, without asking for the point; the lock is held."""
        self._moving = True
        try:
            self._says.put(setting)
            self._own_bits.value = self._says.layer_bits.get(self._layer.value, 0)
        finally:
            self._moving = False

    def undo(self) -> None:
        """Put the controls where they stood before, as the button and Ctrl+Z do."""
        self._undo.undo()

    def redo(self) -> None:
        """Put the controls where they stood before the last undo."""
        self._undo.redo()

    def _go_back(self, setting: Setting) -> None:
        with self.lock:
            if not self.closed:
                self._put_controls(setting)
                self._submit(note=False)

    def _submit(self, *, note: bool = True, drag: bool = False) -> None:
        """Ask for the point where the controls stand; one that is known is shown at once."""
        with self.lock:  # of two threads, the one that reads the controls last has to ask last
            setting = self.setting
            if note:
                self._undo.note(setting, drag=drag)
            self._keep_standing()
            self._show_known(setting)
            self._live.submit(setting)

    def _show_known(self, setting: Setting) -> None:
        """Show the score of a place that was visited, while its file is made again; the lock is held."""
        try:
            visit = self._visits.get(_place(setting))
        except ValueError:  # a setting that cannot be: the sentence comes with the answer
            return
        if visit is not None and visit.exact and self._live.known(setting) is None:
            self._known = visit
            self._draw_tradeoff()
            self._say("known already, its file is made again", "busy")

    def name_point(self, name: str, note: str = "") -> None:
        """Name the point that is shown, and note something on it; see `points`.

        Raises
        ------
        ValueError
            If no point is shown, or only the original, which has its name.
        """
        with self.lock:
            place = None if self.point is None else _place(self.point.setting)
            if place is None or place not in self._visits:
                raise ValueError("name: there is no point to be named; move a slider first, and wait for its point")
            self._on_words(place, name, note)
            self._words.show(place, name, note)

    def clear(self) -> None:
        """Take all points but the original and the current one off the plot."""
        with self.lock:
            current = _place(self.point.setting) if self.point else None
            for place in [place for place in self._visits if place != current]:
                del self._visits[place]
            self._draw_tradeoff()
            self._list_visits()

    def _on_control(self, _change: Any) -> None:
        with self.lock:
            self._says.still_sliders()
            if not self._moving and not self.closed:
                self._submit(drag=True)

    def _on_axis(self, _change: Any) -> None:
        with self.lock:
            self._measure_original()
            self._draw_tradeoff()
            self._keep_standing()
            self._place_on_axis()

    def _place_on_axis(self) -> None:
        """Ask for the current point again if its file was never asked for what the plot shows from left to right."""
        if self.point is None or not self.point.exact:  # a preview is followed by more
            return
        visit = self._visits.get(_place(self.point.setting))
        if visit is not None and self._axis.value not in visit.measured and not self.closed:
            self._live.forget()
            self._live.submit(self.setting)

    def _measure_original(self) -> None:
        """Measure the original on the axis that was chosen; what the status line said comes back afterwards."""
        if self.point is None or self._axis.value in self._original:
            return
        text, value = self._status.text, self._status.value
        self._say("measuring the original", "busy")
        self._original_at(self._axis.value)
        self._status.text, self._status.value = text, value

    def _shown(self, visit: Visit) -> bool:
        """Tell whether a point has a place on the axes that are chosen."""
        return self._axis.value in visit.measured and (self._upward.value != "loss" or "loss" in visit.measured)

    def _on_layer(self, _change: Any) -> None:
        with self.lock:
            self._moving = True
            try:
                self._own_bits.value = self._says.layer_bits.get(self._layer.value, 0)
            finally:
                self._moving = False
            self._draw_weights()

    def _on_own_bits(self, change: Any) -> None:
        with self.lock:
            if not self._moving and not self.closed:
                self._says.set_bits(self._layer.value, change["new"])
                self._submit()

    def _toggle_compare(self, *, close: bool = True) -> None:
        """Open the view of two points below, or close it."""
        with self.lock:
            opened = bool(self._compare_box.children)
            if opened and not close:
                return
            self._compare.offer(self._entries())
            self._compare_box.children = () if opened else (self._compare.box,)
            self._compare_button.description = COMPARE_OPEN if opened else COMPARE_CLOSE
            self._draw_tradeoff()
        self._keep_standing()

    def compare(self, first: Setting, second: Setting) -> None:
        """Hold two points side by side, as the lists of the view do.

        Raises
        ------
        ValueError
            If one of them is not on the plot.
        """
        entries = self._entries()
        for setting in (first, second):
            if setting not in [each for _, each in entries]:
                raise ValueError(f"compare: {setting.describe()!r} is no exact point of the plot; go there first")
        self._toggle_compare(close=False)
        self._compare.put((first, second), entries)

    def _on_compared(self) -> None:
        with self.lock:
            self._draw_tradeoff()
        self._keep_standing()

    def _on_shift_click(self, curve: int, place: int) -> None:
        setting = self._setting_at(curve, place)
        if setting is not None:
            self._toggle_compare(close=False)
            self._compare.choose(setting)

    def _on_words(self, place: Place, name: str, note: str) -> None:
        """Take a name and a note down: on the plot, in the lists, and on disk."""
        with self.lock:
            visit = self._visits.get(place)
            if visit is None:
                return  # the plot was cleared meanwhile
            self._visits[place] = visit = replace(visit, name=name, note=note)
            squeezed = all(each in visit.measured for each in axes.SOON)
            if self._session is not None and squeezed:  # else it is kept with its file, in a moment
                self._session.keep_words(visit)
            self._draw_tradeoff()
            self._list_visits()

    def _toggle_detail(self) -> None:
        """Open the view of single layers below, or close it."""
        with self.lock:
            earlier, self._detail = self._detail, None
            if earlier is not None:
                self._detail_box.children = ()
                self._detail_button.description = "Layer by layer"
                earlier.close()
            elif not self.closed:
                self._detail = LayerByLayer(self._model, self._data, choice=self._choice_of(self.setting))
                self._detail_box.children = (self._detail.box, self._use_button)
                self._detail_button.description = "Close the layers"

    def _choice_of(self, setting: Setting) -> Choice:
        """Say in the terms of the view what the controls say; widths that it does not offer become 8."""
        own = dict(setting.layers)
        widths = [(layer.name, own.get(layer.name, setting.weights)) for layer in self._model.layers]
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

    @property
    def _model(self) -> Checkpoint:
        """The model that the steps are done to now."""
        return self.models[self._controls["model"].value].checkpoint

    # -- training ----------------------------------------------------------------------------------------------

    def train(
        self, kind: str = "fine-tune", *, epochs: int = 2, temperature: float | None = None, alpha: float | None = None
    ) -> None:
        """Start a training, as the button does.

        Parameters
        ----------
        kind
            "fine-tune": what the controls prune, trained; "quantize": with the rounding that they ask for; "distill".
        epochs
            How often each training digit is seen, 1 to 10.
        temperature, alpha
            For "distill": what the logits are divided by, above 0, and the weight of the teacher, 0 to 1; where the
            controls stand when left out.
        """
        self._training.kind.value, self._training.epochs.value = kind, epochs
        if temperature is not None:
            self._training.temperature.value = temperature
        if alpha is not None:
            self._training.alpha.value = alpha
        self._training.start()

    def _begin_training(self, wish: Wish, job: Job) -> None:
        """Start what is wished for, of the model and the setting that the controls show; the lock is held."""
        if self.closed:
            raise ValueError("This workbench was closed; run its cell again to get a live one.")
        if isinstance(self._data, Split):
            raise ValueError("Training needs digits of its own: make the workbench with Digits, not with a Split.")
        setting = self.setting
        model = self.models[setting.model].checkpoint
        job.start(model, training_of(wish, setting, model, self.checkpoint), self._data)
        self._trained_from = setting.model

    def _on_trained(self, result: Trained) -> str:
        """Take a trained model in, and put the controls on it; the lock is held."""
        training = result.training
        name = {"fine-tune": "fine-tuned", "quantize": "trained with rounding", "distill": "distilled"}[training.kind]
        label = f"{name} {sum(each.startswith(name) for each in self.models) + 1}"
        earlier = self.models[self._trained_from].code
        self.models[label] = Model(result.checkpoint, (*earlier, *code_of(training, self._origin.source)))
        self._list_models()
        if self._session is not None:
            self._session.keep_model(label, result.checkpoint, self.models[label].code)
        changed: dict[str, Any] = {"model": label}
        if training.kind == "fine-tune":
            changed |= {"sparsity": 0.0, "pattern": "unstructured", "sparsities": ()}
        elif training.kind == "quantize":
            changed |= {"ranges": "minmax", "own_ranges": ""}  # the trained weights lie on the grid that reaches so far
        self.move_to(replace(self.setting, **changed))
        return f"{'Cancelled early' if result.cancelled else 'Trained'}: now on {label!r}"

    def _list_models(self) -> None:
        """Offer the models that there are; the choice stays."""
        shown = self.setting.model
        self._moving = True
        try:
            self._controls["model"].options = [(each or "the original", each) for each in self.models]
            self._controls["model"].value = shown
        finally:
            self._moving = False

    def close(self) -> None:
        """End the threads of the workbench, of the view of single layers, and a training that is under way."""
        self._training.close()
        self._compare.close()
        for part in (self._compare.box, self._use_button):  # they are in the panel now and then only
            close_all(part)
        super().close()
        if self._detail is not None:  # from now on none is opened any more
            self._detail.close()
        self._squeezer.shutdown(wait=True)
        if self._session is not None:
            self._session.close()
        self._files.clear()  # a notebook's history holds on to the workbench of each run of a cell
        self._live.forget()
        self.point = self._previewed = None
        self._sample = self.test  # the preview's own digits are a megabyte

    def _on_back(self, change: Any) -> None:
        visit = change["new"]
        if isinstance(visit, Visit):
            self._back.value = NO_POINT[1]
            self.move_to(visit.setting)

    def _on_click(self, curve: int, place: int) -> None:
        setting = self._setting_at(curve, place)
        if setting is not None:
            self.move_to(setting)

    def _setting_at(self, curve: int, place: int) -> Setting | None:
        """Find the setting of a mark of the plot."""
        with self.lock:
            places = self._curves[curve] if curve < len(self._curves) else []
            visit = self._visits.get(places[place]) if place < len(places) else None
        return ORIGINAL if curve == 0 else None if visit is None else visit.setting

    def _download(self) -> bytes:
        with self.lock:
            if self.point is None:
                raise ValueError("There is no file yet; wait for the first point.")
            return self.point.compressed.tflite

    def _download_packed(self) -> bytes:
        with self.lock:
            if self.point is None:
                raise ValueError("There is no file yet; wait for the first point.")
            compressed = self.point.compressed
        return compressed.pack()

    def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until a training, if any, has ended, and everything asked for is shown."""
        if not (self._training.job.wait(timeout) and super().wait_idle(timeout) and self._compare.wait_idle(timeout)):
            return False
        return self.closed or not wait([self._squeezer.submit(lambda: None)], timeout).not_done

    # -- what comes back, on the worker thread, the lock held ----------------------------------------------------

    def _on_start(self, _setting: Setting, exact: bool) -> None:
        which = f"all {len(self.test):,}" if exact else f"{len(self._sample):,}"
        self._say(f"reading {which}", "busy")

    def _on_error(self, _setting: Setting, message: str) -> None:
        """Say why there is no file, and show the last that there was: also one that was only passed on the way."""
        self._known = None
        self._draw_tradeoff()
        self._draw_rest()
        self._status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        with self.lock:
            self._status.say("error", "", sentence(error))

    def _on_result(self, outcome: Outcome[Setting, Point]) -> None:
        point = outcome.value
        self._visit(point)
        if self._known is not None and (point.exact or _place(point.setting) != _place(self._known.setting)):
            self._known = None
        if point.exact and self._about.value != (told := self._title()):
            self._about.value = told
        current = not outcome.outdated
        if current or self.point is None:
            self.point = point
        elif not outcome.exact:
            self.point = point  # a preview that was overtaken still moves the picture under the hand
        self._draw_tradeoff()
        self._say(_time(outcome), "exact" if point.exact else "preview")
        self._offer_file()
        if current:  # else the hand is on its way already
            self._draw_rest()
            self._place_on_axis()

    def _visit(self, point: Point) -> None:
        place = _place(point.setting)
        if place == ORIGINAL_PLACE:
            return  # the star is there already
        earlier = self._visits.get(place)
        if earlier is not None and earlier.exact and not point.exact:
            return
        size, score = point.compressed.size, point.score
        measured, words = point.measured, ("", "")
        if earlier is not None:
            measured, words = {**earlier.measured, **measured}, (earlier.name, earlier.note)
        visit = Visit(
            point.setting, point.compressed.recipe, size, measured, score.accuracy, score.interval, score.n,
            point.exact, point.compressed.digest, *words,
        )  # fmt: skip
        self._visits[place] = visit
        if point.exact:
            self._squeezer.submit(self._squeeze, place, point.compressed)

    def _squeeze(self, place: Place, small: Compressed) -> None:
        """Find the size in an archive, which takes long, once the point is on the plot; then keep the point."""
        found = axes.measure(small, axes.SOON, self.test.images[:1])
        with self.lock:
            if self.closed or place not in self._visits:
                return  # the plot was cleared meanwhile
            visit = self._visits[place]
            self._visits[place] = visit = replace(visit, measured={**visit.measured, **found})
            if self._session is not None:
                self._session.keep(visit, small.tflite)
            if self._axis.value in found:
                self._draw_tradeoff()

    def _draw_tradeoff(self) -> None:
        axis = self._axis.value
        visits = [visit for visit in self._visits.values() if self._shown(visit)]
        self._absent.value = _note(self._absence(), "ck-three-lines")
        drawn = [(bool(visit.setting.model), visit.exact, _place(visit.setting)) for visit in visits]
        self._curves = [
            [],
            [place for trained, exact, place in drawn if exact and not trained],
            [place for _, exact, place in drawn if not exact],
            [],
            [place for trained, exact, place in drawn if exact and trained],
        ]
        self._tradeoff.show(
            views.tradeoff_figure(
                self._star(axis),
                [visit.mark(axis) for visit in visits],
                self._ring(axis),
                AXES[axis].title,
                unit=AXES[axis].unit,
                upward=self._upward.value,
                compared=self._compared(axis),
                noun=self.test.noun,
            )
        )

    def _absence(self) -> str:
        """Name the points that have no place on the axes chosen: nobody asked their files, or the session is older."""
        absent = [visit for visit in self._visits.values() if not self._shown(visit)]
        wanted = {self._axis.value: AXES[self._axis.value].name}
        if self._upward.value == "loss":
            wanted["loss"] = "loss"
        lacking = [name for key, name in wanted.items() if any(key not in each.measured for each in absent)]
        return views.absence_note([each.name or each.setting.describe() for each in absent], lacking)

    def _compared(self, axis: str) -> list[tuple[str, Mark]]:
        """Give the marks that are held side by side, with their letters."""
        if not self._compare_box.children:
            return []
        chosen = zip(LETTERS, self._compare.pair, strict=True)
        marks = [(letter, self._mark_of(_place(setting), axis)) for letter, setting in chosen if setting is not None]
        return [(letter, mark) for letter, mark in marks if mark is not None]

    def _star(self, axis: str) -> Mark | None:
        exact = True in self._references
        score = self._references.get(exact)
        if score is None:
            return None
        at = self._original_at(axis)
        return Mark(
            self.checkpoint.size, score.accuracy, *score.interval, score.n, exact, "the original", at, loss=score.loss
        )

    def _original_at(self, axis: str) -> float:
        """Measure the original on an axis, once."""
        if axis not in self._original:
            original = Compressed(self.checkpoint.tflite, Recipe(), self.checkpoint)
            self._original[axis] = AXES[axis].place(original, self.test.images[:1])
        return self._original[axis]

    def _ring(self, axis: str) -> Mark | None:
        here = self._known if self._known is not None else self.point
        return None if here is None else self._mark_of(_place(here.setting), axis)

    def _mark_of(self, place: Place, axis: str) -> Mark | None:
        """Give the mark of a place, if it is on the plot."""
        if place == ORIGINAL_PLACE:
            return self._star(axis)
        visit = self._visits.get(place)
        return visit.mark(axis) if visit is not None and self._shown(visit) else None

    def _offer_file(self) -> None:
        """Offer the file of the point that the ring is around, and the program that makes it."""
        point = self.point
        assert point is not None
        name = file_name(self.checkpoint.name, point.setting)
        self._toolbar.file_name, self._toolbar.other_name = name, name.replace(".tflite", ".ckz")
        self._toolbar.download_label = f"Download the .tflite ({kilobytes(point.compressed.size)})"
        self._toolbar.other_label = "Download it packed"
        code = self.models[point.setting.model].code
        self._toolbar.code = python_of(self._origin.source, point.compressed.recipe, name, code)

    def _draw_rest(self) -> None:
        """Draw what takes longer than the plot."""
        point = self.point
        if point is None:
            return
        self._table.value = self._layers(point.compressed)
        self._draw_weights()
        digits = self.test if point.exact else self._sample
        wrong = newly_misread(self._references[point.exact], point.score, digits)
        self._strip_note.value = _note(views.misread_note(len(wrong), digits, point.exact))
        self._strip.value = views.misread_strip(digits, wrong, point.score.predictions)
        self._list_visits()
        place = _place(point.setting)
        visit = self._visits.get(place)
        self._words.show(place if visit else None, visit.name if visit else "", visit.note if visit else "")

    def _layers(self, small: Compressed | Checkpoint) -> str:
        sizes = (self.checkpoint.size, small.size)
        return views.layers_table(self.checkpoint.layers, small.layers, sizes)

    def _list_visits(self) -> None:
        options = [NO_POINT, *((visit.entry, visit) for visit in self._visits.values())]
        if list(self._back.options) != options:
            self._back.options = options
        if self._compare_box.children:
            self._compare.offer(self._entries())

    def _draw_weights(self) -> None:
        point, name = self.point, self._layer.value
        if point is None or self._weights_shown == (_place(point.setting), name):
            return
        before, after = self._weights(name)
        layer = next(each for each in self.checkpoint.layers if each.name == name)
        step = point.compressed.recipe.quantize
        bits = step.for_layer(name).weights if step else 32
        cut = name not in [each.name for each in point.compressed.layers]
        shares = point.compressed.recipe.shares
        apart = "channel" if any(each.granularity == "channel" for each in shares) else "tensor"
        view = view_weights(
            before, after, layer, 32 if cut else bits, step.granularity if step and bits < 16 else apart,
            shared=bool(shares) and not cut,
        )  # fmt: skip
        self._histogram.show(views.weights_figure(view))
        note = views.product_note(view) if cut else views.weights_note(view, bits)
        self._histogram_note.value = _note(note, "ck-three-lines")
        self._weights_shown = (_place(point.setting), name)

    def _weights(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        assert self.point is not None
        original = Compressed(self.checkpoint.tflite, Recipe(), self.checkpoint)
        return original.weights(name), composed(self.point.compressed, name)

    def _say(self, small: str, kind: str, done: float | None = None) -> None:
        """Write the status line: the latest figures, and what is going on."""
        here = self._known
        if here is None and self.point is None:
            self._status.say(kind, "", f"{small} {self.test.noun}".capitalize(), done)
            return
        if here is not None:
            accuracy, interval, n, size, exact = here.accuracy, here.interval, here.n, here.size, here.exact
        else:
            assert self.point is not None
            score = self.point.score
            accuracy, interval, n = score.accuracy, score.interval, score.n
            size, exact = self.point.compressed.size, self.point.exact
        low, high = (100 * end for end in interval)
        figures = f"{percent(accuracy)} right, {kilobytes(size)}, {times_smaller(self.checkpoint.size, size)}"
        read = f"{n:,} {self.test.noun}{'' if exact else ' (preview)'}"
        told = f"{read}, 95 % interval {low:.2f} to {high:.2f} %; {size:,} bytes; {small}"
        self._status.say(kind, figures, told, done)

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
        score = f"{percent(point.score.accuracy)} of {point.score.n:,} {self.test.noun}"
        made.text(20, 58, f"{score}, {kilobytes(size)}, {times_smaller(star.size, size)}", size=14)
        made.text(20, 78, point.setting.describe(), size=13, ink="muted")
        marks = [visit.mark("file") for visit in self._visits.values()]
        made.place(views.tradeoff_picture(star, marks, AXES["file"].title, 780, 340), 20, 92)
        made.text(20, 460, "Bytes by layer, before and after", size=13, bold=True)
        pieces = pieces_of(self.checkpoint.layers, point.compressed.layers)
        pairs = [(old, as_one(new)) for old, new in zip(self.checkpoint.layers, pieces, strict=True)]
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
    '<span><span class="ck-key ck-ticks"></span>values it can take</span></div>'
)


def _heading(text: str, more: str = "") -> ipywidgets.HTML:
    return markup(f'<h4 class="ck-heading">{html.escape(text)}</h4>{more}')


def _note(text: str, kind: str = "ck-one-line") -> str:
    return f'<div class="ck-note {kind}">{html.escape(text)}</div>'


def _guessed(labels: NDArray[Any]) -> float:
    """Give the accuracy of always answering the most frequent class; 0 where there is but one."""
    share = float(np.bincount(labels).max() / len(labels))
    return share if share < 1 else 0.0


def _time(outcome: Outcome[Setting, Point]) -> str:
    return "known already" if outcome.cached else f"{1000 * outcome.seconds:,.0f} ms"


def _place(setting: Setting) -> Place:
    """Tell settings apart by the file that they make."""
    return setting.model, setting.recipe()
