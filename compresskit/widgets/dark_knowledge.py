"""The first panel of lesson 11: what a teacher says of a digit, softened, and how that pulls at a student.

`study` computes everything from logits and has no widget in it; the panel draws what it gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.data import Digits, Split
from compresskit.distillation import distillation_gradient, entropy, softmax
from compresskit.litert.runtime import outputs
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop, sentence
from compresskit.widgets.panel import Panel, Status, classed, markup, number_slider, slider_of
from compresskit.widgets.picture import Picture, data_uri
from compresskit.widgets.style import AFTER, BEFORE
from compresskit.zoo import load_model

TEMPERATURES: Final = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
EXAMPLES: Final = 8
"""Of each digit, from the one that the teacher doubts most to the one that it is surest of."""
LOOKED_AT: Final = 2000
HEIGHT: Final = 320


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    digit : int
        The true class.
    example : int
        0 is the most doubtful example of it, `EXAMPLES` - 1 the surest.
    temperature, alpha : float
        Of the distillation loss.
    """

    digit: int
    example: int
    temperature: float
    alpha: float


@dataclass(frozen=True)
class Studied:
    """What a teacher's logits say at a temperature.

    Attributes
    ----------
    soft : ndarray, shape (K,)
        The teacher's softened probabilities.
    entropy : float
        How undecided they are, in bits.
    wrong : tuple of int
        The wrong classes, the one that the teacher finds likeliest first.
    by_teacher, by_labels : ndarray, shape (K,)
        How strongly the two parts of the loss (KL with the factor T², and cross-entropy with the label) pull at the
        logits of a student that knows nothing yet: minus the gradient where all its logits are equal.
    """

    soft: NDArray[np.float64]
    entropy: float
    wrong: tuple[int, ...]
    by_teacher: NDArray[np.float64]
    by_labels: NDArray[np.float64]


def study(logits: NDArray[Any], label: int, temperature: float, alpha: float) -> Studied:
    """Soften a teacher's answer, and work out what the loss asks of a student that knows nothing yet.

    Parameters
    ----------
    logits : ndarray, shape (K,)
        The teacher's.
    label : int
        The true class.
    temperature : float
        T > 0.
    alpha : float
        Weight of the teacher, 0 to 1.

    Returns
    -------
    Studied

    Raises
    ------
    ValueError
        If the temperature or alpha is out of range, or a logit is not finite.
    """
    soft = softmax(logits, temperature)
    order = np.argsort(-soft, kind="stable")
    rows, nothing, labels = np.asarray(logits)[None], np.zeros((1, len(logits))), np.array([label])
    whole = -distillation_gradient(rows, nothing, labels, temperature, alpha)[0]
    by_labels = -(1 - alpha) * distillation_gradient(rows, nothing, labels, temperature, 0.0)[0]
    return Studied(
        soft=soft,
        entropy=float(entropy(soft)),
        wrong=tuple(int(k) for k in order if k != label),
        by_teacher=whole - by_labels,
        by_labels=by_labels,
    )


def examples(logits: NDArray[Any], split: Split, digit: int) -> NDArray[np.int64]:
    """Choose `EXAMPLES` digits of a class, spread evenly from the most doubtful to the surest.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        The teacher's, for the digits of `split`.
    split : Split
        Digits.
    digit : int
        The class.

    Returns
    -------
    ndarray of int64
        Indices into `split`; fewer where there are fewer.

    Raises
    ------
    ValueError
        If there is no such digit.
    """
    found = np.flatnonzero(split.labels == digit)
    if not len(found):
        raise ValueError(f"digit is {digit}: there is none among the {len(split):,} digits looked at")
    # Softened, since at T = 1 the teacher is as good as sure of nearly all of them.
    doubt = entropy(softmax(logits[found], 4.0))
    ordered = found[np.argsort(-doubt, kind="stable")]
    chosen = np.linspace(0, len(ordered) - 1, min(EXAMPLES, len(ordered))).round().astype(int)
    return np.asarray(ordered[chosen], np.int64)


class DarkKnowledge(Panel):
    """The panel: a digit, the temperature and alpha; the soft labels, and the pull on a student.

    Parameters
    ----------
    teacher
        What `load_model` takes.
    digits
        The first 2,000 of `validation` are looked at.
    """

    def __init__(self, teacher: Any, digits: Digits) -> None:
        super().__init__()
        self.model = load_model(teacher)
        self.split = digits.validation.take(LOOKED_AT)
        self.notice = digits.notice
        self._logits = outputs(self.model.tflite, np.asarray(self.split.images)).reshape(len(self.split), -1)
        present = [int(each) for each in np.unique(self.split.labels)]
        self.result: Studied | None = None
        self.digit = slider_of("A digit", [(str(each), each) for each in present], present[-3:][0], "ck-which")
        names = ["most doubtful", *(str(each) for each in range(2, EXAMPLES)), "surest"]
        self.example = slider_of("Example", list(zip(names, range(EXAMPLES), strict=True)), 0, "ck-example")
        self.temperature = slider_of("Temperature T", [(f"{each:g}", each) for each in TEMPERATURES], 4.0, "ck-heat")
        self.alpha = number_slider("Alpha, the teacher's weight", 0.0, 1.0, 0.05, 0.9, "ck-alpha", ".2f")
        self._status, self._image = Status(), markup()
        self.chart = Chart(
            self._figure(), height=HEIGHT, label="Soft labels of the teacher, and their pull on a student",
            lock=self.lock,
        )  # fmt: skip
        for control in (self.digit, self.example, self.temperature, self.alpha):
            self._watch(control, self._on_change)
        controls = classed(
            ipywidgets.VBox([self.digit, self.example, self._image, self.temperature, self.alpha]), "ck-controls"
        )
        plot = classed(ipywidgets.VBox([self._status, self.chart]), "ck-grow", "ck-stack")
        self._frame(
            [classed(ipywidgets.HBox([controls, plot]), "ck-row")],
            {
                ".ck-which": "Which digit",
                ".ck-example": "Example, from doubtful to sure",
                ".ck-heat": "Temperature",
                ".ck-alpha": "Alpha",
            },
        )
        self._live: Live[Setting, Studied] = Live(None, self._compute, self._on_result, self._on_error, lock=self.lock)
        self._lives.append(self._live)
        self._live.submit(self.setting())

    def setting(self) -> Setting:
        """Read the controls."""
        return Setting(
            int(self.digit.value), int(self.example.value), float(self.temperature.value), float(self.alpha.value)
        )

    def place(self, setting: Setting) -> int:
        """Give the index of the digit shown."""
        found = examples(self._logits, self.split, setting.digit)
        return int(found[min(setting.example, len(found) - 1)])

    def _compute(self, setting: Setting, _stop: Stop) -> Studied:
        place = self.place(setting)
        return study(self._logits[place], setting.digit, setting.temperature, setting.alpha)

    def _on_change(self, _change: Any) -> None:
        self._live.submit(self.setting())

    def _on_result(self, outcome: Outcome[Setting, Studied]) -> None:
        self.result = outcome.value
        image = np.asarray(self.split.images[self.place(outcome.setting)])
        self._image.value = (
            f'<img src="{data_uri(image)}" alt="a handwritten {outcome.setting.digit}" '
            "style='width:112px;height:112px;image-rendering:pixelated;border-radius:4px;margin:2px 0 8px'>"
        )
        self.chart.show(self._figure())
        self._status.say("exact", *self._words())

    def _on_error(self, _setting: Setting, message: str) -> None:
        self._status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        self._status.say("error", "", sentence(error))

    def _words(self) -> tuple[str, str]:
        if self.result is None:
            return "Asking the teacher", ""
        setting, found = self.setting(), self.result
        likely = ", then ".join(f"{each} ({_share(found.soft[each])})" for each in found.wrong[:2])
        one = f"{'An' if setting.digit == 8 else 'A'} {setting.digit}"
        return (
            f"{one} at T = {setting.temperature:g}: {_share(found.soft[setting.digit])} for "
            f"{setting.digit}, {found.entropy:.2f} bits undecided",
            f"Likeliest wrong digits: {likely}. A hard label has 0 bits, ten equal ones {np.log2(10):.2f}. "
            f"{self.notice}".strip(),
        )

    def _figure(self) -> dict[str, Any]:
        """Draw two groups of bars. Trace 0: soft labels; 1 and 2: the teacher's and the label's part of the pull."""
        found = self.result
        classes = [str(each) for each in range(10)] if found is None else [str(k) for k in range(len(found.soft))]
        soft = [] if found is None else found.soft.tolist()
        pulls = ([], []) if found is None else (found.by_teacher.tolist(), found.by_labels.tolist())
        pull = np.zeros(1) if found is None else found.by_teacher + found.by_labels
        reach = max(1.0, 1.1 * float(pull.max()))
        lowest = min(-0.35 * reach, 1.1 * float(pull.min()))
        bars: dict[str, Any] = {"type": "bar", "x": classes}
        traces = [
            {**bars, "name": "soft labels", "y": soft, "marker": {"color": AFTER}, "showlegend": False,
             "text": ["" if each < 0.005 else f"{100 * each:.0f}" for each in soft], "textposition": "outside",
             "textfont": {"size": 12}, "constraintext": "none",
             "hovertemplate": "%{x}: %{y:.3%}<extra></extra>", "cliponaxis": False},
            {**bars, "name": "the teacher's pull", "y": pulls[0], "marker": {"color": AFTER}, "xaxis": "x2",
             "yaxis": "y2", "hovertemplate": "%{x}: %{y:.3f}<extra>teacher</extra>"},
            {**bars, "name": "the label's pull", "y": pulls[1], "xaxis": "x2", "yaxis": "y2",
             "marker": {"color": BEFORE, "pattern": {"shape": "/", "fillmode": "overlay", "fgcolor": "#ffffff",
                                                     "size": 6, "solidity": 0.3}},
             "hovertemplate": "%{x}: %{y:.3f}<extra>label</extra>"},
        ]  # fmt: skip
        layout = {
            "height": HEIGHT, "barmode": "relative", "bargap": 0.25,
            "margin": {"l": 48, "r": 12, "t": 44, "b": 46},
            "legend": {"x": 0.55, "y": 1.02},
            "xaxis": {"domain": [0, 0.45], "title": {"text": "digit"}, "type": "category", "showgrid": False},
            "xaxis2": {"domain": [0.55, 1], "type": "category", "showgrid": False,
                       "title": {"text": "logit of the student", "standoff": 10, "font": {"size": 12}}},
            "yaxis": {"range": [0, 1.1], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1]},
            "yaxis2": {"anchor": "x2", "range": [lowest, reach], "zeroline": True, "gridcolor": "#e0e0e0"},
            "annotations": [{"xref": "paper", "yref": "paper", "x": 0, "y": 1.04, "yanchor": "bottom",
                             "xanchor": "left", "text": "what the teacher says", "showarrow": False}],
        }  # fmt: skip
        return figure(traces, layout)

    def _summary(self) -> str:
        return f"{self.model.name}. {' '.join(self._words())}"

    def _picture(self) -> Picture:
        picture = Picture(760, 280, self._summary())
        words = self._words()
        picture.text(0, 14, words[0], size=13, bold=True)
        picture.text(0, 32, words[1], size=12, ink="muted")
        picture.raster(0, 60, 112, 112, np.asarray(self.split.images[self.place(self.setting())]))
        if self.result is None:
            return picture
        picture.text(150, 62, "what the teacher says", size=12)
        picture.text(480, 62, "its pull on a student; the label's (lighter)", size=12)
        pull = self.result.by_teacher + self.result.by_labels
        tall = max(1.0, float(np.abs(pull).max()))
        for k, share in enumerate(self.result.soft):
            x = 150 + 30 * k
            picture.rectangle(x, 240 - 160 * share, 20, 160 * share, fill="after")
            picture.text(x + 10, 258, str(k), size=12, anchor="middle")
            x = 480 + 27 * k
            for part, below, fill in (
                (self.result.by_teacher[k], 0.0, "after"),
                (self.result.by_labels[k], self.result.by_teacher[k], "before"),
            ):
                start = below if part * below > 0 else 0.0
                top = max(start, start + part)
                picture.rectangle(
                    x, 205 - 125 * top / tall, 18, 125 * abs(part) / tall, fill=fill, opacity=1.0 if start == 0 else 0.6
                )
            picture.text(x + 9, 258, str(k), size=12, anchor="middle")
        picture.line([(480, 205), (746, 205)], stroke="line")
        return picture


def dark_knowledge(teacher: Any, digits: Digits) -> DarkKnowledge:
    """Show what a teacher says of single digits, at any temperature.

    Parameters
    ----------
    teacher
        What `load_model` takes.
    digits
        The first 2,000 of `validation` are looked at.
    """
    return DarkKnowledge(teacher, digits)


def _share(probability: float) -> str:
    """Write a probability so that small ones are not all 0 %."""
    return f"{100 * probability:.1f} %" if probability >= 0.001 else f"{100 * probability:.1g} %"
