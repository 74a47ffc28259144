"""Draw a digit; the original and the compressed network read it side by side, while the compression moves."""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass, field
from typing import Any, Final

import ipywidgets
import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, compress
from compresskit.data import Digits, Split, load_mnist
from compresskit.evaluation import Score, evaluate
from compresskit.litert.runtime import Session, decode, encode
from compresskit.widgets.drawing import SIDE, DrawingPad, enlarge
from compresskit.widgets.live import Live, Outcome, Stop, sentence
from compresskit.widgets.panel import Panel, Status, button_of, classed, markup, number_slider, slider_of
from compresskit.widgets.picture import Picture, data_uri
from compresskit.widgets.points import Setting
from compresskit.widgets.views import kilobytes, percent, times_smaller
from compresskit.zoo import Checkpoint, load_model

WEIGHT_BITS: Final = (
    ("3, stored as 8", 3), ("4", 4), ("5, stored as 8", 5), ("6, stored as 8", 6), ("7, stored as 8", 7), ("8", 8),
    ("32, the original", 32),
)  # fmt: skip
CLASSES: Final = 10


def probabilities(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turn what a network says of one digit into probabilities.

    Parameters
    ----------
    outputs
        (classes,) logits, or probabilities already (none negative, and they sum to about 1).

    Returns
    -------
    NDArray[np.float64]
        (classes,), not negative, summing to 1: the softmax ``exp(z_i) / sum_j exp(z_j)`` of logits.
    """
    values = outputs.astype(np.float64)
    if values.min() >= 0 and abs(values.sum() - 1) < 0.05:  # rounding to int8 moves the sum a little
        return np.asarray(values / values.sum())
    exponentials = np.exp(values - values.max())
    return np.asarray(exponentials / exponentials.sum())


class Reader:
    """A file, ready to read one digit at a time; safe to call from several threads.

    Parameters
    ----------
    tflite
        The bytes of the file.
    """

    def __init__(self, tflite: bytes) -> None:
        self._session = Session(tflite, 1)
        self._lock = threading.Lock()

    def __call__(self, digit: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Give the probabilities, (classes,), of a (28, 28) uint8 digit."""
        with self._lock:
            encoded = encode(digit[None], self._session.inputs[0])
            outputs = decode(self._session(encoded)[0], self._session.outputs[0])
        return probabilities(outputs.reshape(-1))


@dataclass(frozen=True)
class Shrunk:
    """A compressed file that is ready to read.

    Attributes
    ----------
    compressed : Compressed
        The file.
    reader : Reader
        What reads with it.
    score : Score or None
        How well it reads all test digits; None in a preview.
    """

    compressed: Compressed
    reader: Reader = field(repr=False)
    score: Score | None


def shrink(
    checkpoint: Checkpoint, setting: Setting, calibration: Split, test: Split | None, stop: Stop = lambda: False
) -> Shrunk:
    """Make the file of a setting, ready to read; with `test`, also score it on these digits."""
    compressed = compress(checkpoint, setting.recipe(), calibration)
    score = evaluate(compressed, test) if test is not None and not stop() else None
    return Shrunk(compressed, Reader(compressed.tflite), score)


class DrawAndRead(Panel):
    """The panel; `draw_and_read` makes it.

    Parameters
    ----------
    model
        A model that reads 28 x 28 digits in ten classes; what `load_model` takes.
    data
        Digits to calibrate and to score on; full MNIST by default.
    """

    def __init__(self, model: Any = "digit_reader", data: Digits | None = None) -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        if int(np.prod(self.checkpoint.input_shape)) != SIDE * SIDE or self.checkpoint.classes != CLASSES:
            raise ValueError(
                f"model: {self.checkpoint.name!r} reads {self.checkpoint.input_shape} into {self.checkpoint.classes} "
                "classes; give one that reads 28 x 28 digits into ten."
            )
        self._digits = load_mnist() if data is None else data
        self._original = Reader(self.checkpoint.tflite)
        self._shrunk: Shrunk | None = None
        self._next = 0
        self._build()
        live: Live[Setting, Shrunk] = Live(
            self._preview, self._exact, self._on_result, self._on_error, key=Setting.recipe, lock=self.lock
        )
        self._live = live
        self._lives.append(live)
        self._show_another()
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the sliders stand."""
        bits = int(self._bits.value)
        return Setting(round(float(self._sparsity.value), 4), weights=bits, activations=32 if bits == 32 else 8)

    @property
    def digit(self) -> NDArray[np.uint8]:
        """What is on the pad, (28, 28) uint8, as the networks see it."""
        return self.pad.digit

    @property
    def readings(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """The ten probabilities of the original and of the small network; None for an empty pad."""
        with self.lock:
            if self._shrunk is None or not self.pad.digit.any():
                return None
            return self._original(self.pad.digit), self._shrunk.reader(self.pad.digit)

    def close(self) -> None:
        """End the panel, and forget who listens to the pad."""
        super().close()
        self.pad.close()

    # -- what is computed ----------------------------------------------------------------------------------------

    def _preview(self, setting: Setting, stop: Stop) -> Shrunk:
        return shrink(self.checkpoint, setting, self._digits.train, None)

    def _exact(self, setting: Setting, stop: Stop) -> Shrunk:
        return shrink(self.checkpoint, setting, self._digits.train, self._digits.test, stop)

    # -- what is shown -------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.pad = DrawingPad()
        self.pad.on_draw(self._on_draw)
        self._sparsity = number_slider("Sparsity", 0, 0.98, 0.01, 0.0, "ck-sparsity", ".0%")
        self._bits = slider_of("Weight bits", WEIGHT_BITS, 8, "ck-weights")
        for control in (self._sparsity, self._bits):
            self._watch(control, lambda _: self._live.submit(self.setting))
        clear = button_of("Clear", "ck-clear")
        another = button_of("Show a test digit", "ck-another")
        clear.on_click(lambda _: self.pad.clear())
        another.on_click(lambda _: self._show_another())
        self._seen = markup()
        self._before = markup()
        self._after = markup()
        self._status = Status()
        left = [self.pad, classed(ipywidgets.HBox([clear, another]), "ck-row", "ck-buttons"), self._seen]
        bars = [classed(ipywidgets.VBox([each]), "ck-half") for each in (self._before, self._after)]
        right = [
            self._status,
            classed(ipywidgets.HBox([self._sparsity, self._bits]), "ck-row", "ck-sliders"),
            classed(ipywidgets.HBox(bars), "ck-row"),
        ]
        rows = [
            markup('<h3 class="ck-title">Draw a digit</h3><div class="ck-subtitle">Mouse, pen or finger.</div>'),
            classed(
                ipywidgets.HBox(
                    [
                        classed(ipywidgets.VBox(left), "ck-stack", "ck-pad-column"),
                        classed(ipywidgets.VBox(right), "ck-grow", "ck-stack"),
                    ]
                ),
                "ck-row",
            ),
        ]
        self._frame(rows, {".ck-sparsity": "Sparsity", ".ck-weights": "Weight bits"})

    def _show_another(self) -> None:
        """Put the next test digit on the pad: drawing without a hand."""
        digit = self._digits.test.images[self._next % len(self._digits.test)]
        self._next += 1
        self.pad.show_digit(np.asarray(digit).reshape(SIDE, SIDE))

    def _on_draw(self, _digit: NDArray[np.uint8]) -> None:
        with self.lock:
            try:
                self._show()
            except Exception as error:
                self._say_error(error)

    def _on_result(self, outcome: Outcome[Setting, Shrunk]) -> None:
        self._shrunk = outcome.value
        self._show()

    def _on_error(self, _setting: Setting, message: str) -> None:
        self._status.say("error", "", message)

    def _say_error(self, error: Exception) -> None:
        with self.lock:
            self._status.say("error", "", sentence(error))

    def _show(self) -> None:
        self._seen.value = seen(self.pad.digit)
        readings = self.readings
        before, after = readings or (None, None)
        size = self.checkpoint.size
        self._before.value = bars("The original", kilobytes(size), before, "before")
        if self._shrunk is None:
            self._after.value = bars("The small one", "", None, "after")
            return
        small = self._shrunk.compressed.size
        self._after.value = bars("The small one", f"{kilobytes(small)}, {times_smaller(size, small)}", after, "after")
        score = self._shrunk.score
        text = "Reading all test digits" if score is None else f"The small one reads {percent(score.accuracy)} of "
        text += "" if score is None else f"{score.n:,} test digits. {score.notice}"
        self._status.say("preview" if score is None else "exact", verdict(before, after), text.strip())

    # -- without a kernel ----------------------------------------------------------------------------------------

    def _summary(self) -> str:
        return f"Draw a digit: {self.checkpoint.name} beside a smaller file of it"

    def _picture(self) -> Picture:
        made = Picture(820, 330, self._summary())
        made.text(20, 34, "Draw a digit", size=18, bold=True)
        made.raster(20, 56, 224, 224, enlarge(self.pad.digit))
        readings = self.readings
        if readings is not None and self._shrunk is not None:
            made.text(270, 34, verdict(*readings), size=14)
            sizes = (self.checkpoint.size, self._shrunk.compressed.size)
            for place, (name, shares) in enumerate(zip(("The original", "The small one"), readings, strict=True)):
                left = 270 + 275 * place
                made.text(left, 72, f"{name}, {kilobytes(sizes[place])}", bold=True)
                for label, share in enumerate(shares):
                    middle = 94 + 19 * label
                    made.text(left, middle + 4, str(label), ink="muted")
                    fill, stroke = ("none", "before") if place == 0 else ("after", "none")
                    made.rectangle(left + 18, middle - 6, max(1.0, 170 * share), 12, fill=fill, stroke=stroke)
                    made.text(left + 250, middle + 4, f"{100 * share:.0f} %", anchor="end", size=11)
        made.text(20, 314, "A still picture. Run the cell to draw.", size=11, ink="muted")
        return made


def draw_and_read(model: Any = "digit_reader", data: Digits | None = None) -> DrawAndRead:
    """Show a pad to draw on, read by a model and by what two sliders make of it.

    Parameters
    ----------
    model
        A model that reads 28 x 28 digits in ten classes; what `load_model` takes.
    data
        Digits to calibrate and to score on; full MNIST by default.

    Returns
    -------
    DrawAndRead
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return DrawAndRead(model, data)


def verdict(before: NDArray[np.float64] | None, after: NDArray[np.float64] | None) -> str:
    """Say whether the two networks agree; for an empty pad, what to do."""
    if before is None or after is None:
        return "Draw a digit on the black square."
    first, second = int(before.argmax()), int(after.argmax())
    if first == second:
        return f"Both read a {first}."
    return f"They differ: the original reads a {first}, the small one a {second}."


def bars(name: str, size: str, shares: NDArray[np.float64] | None, kind: str) -> str:
    """Draw ten probabilities as bars, the highest in bold; the same height whether there are any or not.

    Parameters
    ----------
    name, size
        Heading and what stands beside it.
    shares
        (10,) probabilities, or None for an empty pad.
    kind
        "before" or "after": which look the bars have.

    Returns
    -------
    str
        HTML.
    """
    best = int(shares.argmax()) if shares is not None else -1
    rows = []
    for label in range(CLASSES):
        share = 0.0 if shares is None else float(shares[label])
        width, number = f"{100 * share:.1f}%", "" if shares is None else f"{100 * share:.0f} %"
        bold = " ck-best" if label == best else ""
        rows.append(
            f'<tr class="ck-share{bold}"><th scope="row">{label}</th><td><span class="ck-bar ck-{kind}" '
            f'style="width:{width}"></span></td><td class="ck-number">{number}</td></tr>'
        )
    read = f'<span class="ck-read">{best if best >= 0 else "–"}</span>'
    head = f'<div class="ck-reading">{read}<div><b>{html.escape(name)}</b><br>{html.escape(size)}</div></div>'
    return f'{head}<table class="ck-table ck-shares"><tbody>{"".join(rows)}</tbody></table>'


def seen(digit: NDArray[np.uint8]) -> str:
    """Show the 28 x 28 pixels that the networks are given."""
    text = "What the networks see: 28 x 28 pixels, scaled and centred as in MNIST."
    return (
        f'<div class="ck-seen"><img alt="The drawing as 28 by 28 pixels" src="{data_uri(digit)}">'
        f'<span class="ck-note">{text}</span></div>'
    )
