"""The MNIST experiment of Hinton, Vinyals and Dean (2015), section 3, rebuilt: ``compresskit hinton``.

A large net (two layers of 1,200 rectified units, dropout, jittered digits), a small one (two layers of 800) trained
alone without any of that, and the small one on the large one's softened answers at T = 20, on digits that are not
jittered; students of 300 and 30 units over temperatures; a transfer set without any 3, and one of 7 and 8
only, each before and after one bias is corrected.

Each finished run is written at once to ``compresskit/course/data/hinton.json``, and a run that is there is not made
again; a run that is broken off goes on from ``build/hinton``. The cheap runs come first.

What differs from the paper. 54,000 digits are trained on (5,000 are kept for choices, 1,000 for the offline sample),
and biases are corrected on the validation digits, not on the test digits. The paper trained the large net for thousands
of epochs on digits shifted by up to two pixels, with half of the units dropped. In the 80 epochs that it has here, a
fifth of them is dropped, and the digits are also turned by up to 10 degrees and stretched by up to 10 percent; its
products are computed in bfloat16, its weights kept in float32.

The paper does not say how long and with which optimizer the small nets were trained, only that it was without
regularization. Here it is Adam with a cosine schedule, in one of two settings. `DECAYED` is that of the nets of 2 x 800
units on digits that are not jittered. It was chosen for the distilled one, by its errors, its cross-entropy and its
distance from the teacher on the validation digits. Most was gained by a high learning rate with weights that shrink
(weight decay), then by twice as many epochs. Weight decay is a regularizer, which the paper's small nets do not have;
so the net alone gets it too, and a difference between two of these rows is the teacher's doing. `PLAIN`, without decay,
is that of the nets of 300 and of 30 units, and of the net that is taught on jittered digits: jitter is a regularizer
already, and with decay on top of it the one run that was tried made more errors.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compresskit.atomic import write_atomically
from compresskit.compression import compress
from compresskit.data import Digits
from compresskit.litert.runtime import outputs
from compresskit.recipe import Quantize, Recipe
from compresskit.zoo import Checkpoint, load_model

if TYPE_CHECKING:
    from compresskit.training.augment import Augmentation
    from compresskit.training.fit import Progress

COMMAND = "compresskit hinton"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "hinton.json"
SHIPPED_TEACHER = RESULTS.with_name("hinton_teacher.tflite")
SCRATCH = Path("build/hinton")
SEEDS = (0, 1, 2, 3, 4)
TEMPERATURES = (1.0, 2.5, 4.0, 8.0, 20.0)
TEACHER = "teacher"


@dataclass(frozen=True)
class Settings:
    """How long everything is trained.

    Attributes
    ----------
    teacher_epochs, student_epochs : int
        Over all training digits; over a smaller transfer set as many more as make the same number of steps.
    teacher_batch, batch_size : int
        Digits a step, of the teacher and of the others.
    teacher_rate, learning_rate : float
        The highest learning rate of each.
    alpha : float
        Weight of the soft targets where labels are used too.
    weight_decay : float
        Of the others; see :func:`compresskit.training.fit.fit`.
    views : int
        Places of each digit where the student's digits are jittered.
    precision : {"float32", "bfloat16"}
        What the others' products are computed in; weights are kept in float32 either way.
    """

    teacher_epochs: int = 80
    student_epochs: int = 30
    teacher_batch: int = 256
    batch_size: int = 128
    teacher_rate: float = 0.0015
    learning_rate: float = 0.001
    alpha: float = 0.9
    weight_decay: float = 0.0
    views: int = 30
    precision: str = "float32"


PLAIN = Settings()
DECAYED = Settings(
    student_epochs=60, batch_size=256, learning_rate=0.006, alpha=0.5, weight_decay=0.1, precision="bfloat16"
)


@dataclass(frozen=True)
class Row:
    """A line of the table: one training for each seed.

    Attributes
    ----------
    name : str
        What the table calls it.
    student : str
        As ``build`` takes it; the teacher's own row has the name `TEACHER`.
    temperature : float or None
        None without a teacher.
    only : tuple of int or None
        The digits of the transfer set; None for all.
    published : str
        What the paper says, of 10,000 test digits.
    corrected : str
        What it says after a bias was corrected; empty where none is.
    augment : str
        How the student's digits are jittered, each epoch anew; the teacher is asked about the digit as it then looks.
    settings : Settings
        How it is trained: `DECAYED` for the nets of 2 x 800 units on digits as they are, `PLAIN` for all others.
    """

    name: str
    student: str
    temperature: float | None = None
    only: tuple[int, ...] | None = None
    published: str = ""
    corrected: str = ""
    augment: Augmentation = "none"
    settings: Settings = DECAYED


def rows() -> tuple[Row, ...]:
    """List the table in the order in which it is made: what needs no teacher, then the teacher, then the rest."""
    tried = "T above 8 about alike", "T from 2.5 to 4 best"
    return (
        Row("small net alone (2 x 800)", "dense-800x2", published="146"),
        Row("large net (2 x 1,200)", TEACHER, published="67"),
        Row("small net distilled, T = 20", "dense-800x2", 20.0, published="74"),
        Row(
            "small net distilled on jittered digits",
            "dense-800x2",
            20.0,
            published="not in the paper",
            augment="affine",
            settings=PLAIN,
        ),
        Row("no 3 in the transfer set, T = 20", "dense-800x2", 20.0, (0, 1, 2, 4, 5, 6, 7, 8, 9), "206", "109"),
        Row("only 7 and 8 in the transfer set, T = 20", "dense-800x2", 20.0, (7, 8), "4,730", "1,320"),
        *(
            Row(
                f"2 x {width}, T = {temperature:g}",
                f"dense-{width}x2",
                temperature,
                published=word,
                settings=PLAIN,
            )
            for width, word in zip((300, 30), tried, strict=True)
            for temperature in TEMPERATURES
        ),
    )


@dataclass(frozen=True)
class Result:
    """One finished training.

    Attributes
    ----------
    row : str
        Name of the row.
    seed : int
        Of the training.
    errors : int
        Misread among the test digits.
    corrected : int or None
        The same after the bias was corrected; None where none is.
    lift : float
        By how much the biases were raised (lowered, if negative); 0 where none is.
    seconds : float
        Of the training.
    settings : dict
        That it was made with.
    """

    row: str
    seed: int
    errors: int
    corrected: int | None
    lift: float
    seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)


def teacher_net(seed: int, precision: str = "float32") -> Any:
    """Build the large net, untrained; a fifth of its units is dropped while training.

    Parameters
    ----------
    seed : int
        Of the initial weights and of what is dropped.
    precision : {"float32", "mixed_bfloat16"}
        What the products of the hidden layers are computed in; weights are kept in float32 either way.

    Returns
    -------
    tf_keras.Model
        From images (n, 28, 28, 1) to ten logits in float32.
    """
    import tf_keras

    layers, within = tf_keras.layers, tf_keras.mixed_precision.Policy(precision)
    image = tf_keras.Input((28, 28, 1), name="image")
    x = layers.Flatten(name="flatten")(image)
    for number in (1, 2):
        start = tf_keras.initializers.HeNormal(seed=1000 * seed + number)
        x = layers.Dense(1200, activation="relu", kernel_initializer=start, dtype=within, name=f"dense{number}")(x)
        x = layers.Dropout(0.2, seed=seed + number, dtype=within, name=f"drop{number}")(x)
    last = tf_keras.initializers.GlorotUniform(seed=1000 * seed + 3)
    return tf_keras.Model(image, layers.Dense(10, kernel_initializer=last, name="head")(x), name=TEACHER)


def train_teacher(digits: Digits, settings: Settings, **how: Any) -> Checkpoint:
    """Train the large net.

    Parameters
    ----------
    digits : Digits
        Full MNIST.
    settings : Settings
        How long.
    **how
        ``seed``, ``checkpoint``, ``on_progress`` and ``cancel`` as :func:`compresskit.training.fit.fit` takes them.

    Returns
    -------
    Checkpoint
        In float32.
    """
    from compresskit.training.convert import to_checkpoint
    from compresskit.training.fit import fit

    net = teacher_net(how["seed"], "mixed_bfloat16")
    fit(
        net,
        digits,
        epochs=settings.teacher_epochs,
        batch_size=settings.teacher_batch,
        learning_rate=settings.teacher_rate,
        augment="affine",
        **how,
    )
    plain = teacher_net(how["seed"])
    plain.set_weights(net.get_weights())
    return to_checkpoint(plain, TEACHER)


def make(
    row: Row,
    seed: int,
    digits: Digits,
    settings: Settings,
    folder: Path,
    *,
    teacher: Checkpoint | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """Train one net and count its errors.

    Parameters
    ----------
    row : Row
        What to train.
    seed : int
        Of the training; the teacher of all students is the one of seed 0.
    digits : Digits
        Full MNIST.
    settings : Settings
        How long.
    folder : Path
        Where broken-off runs and the trained teacher are kept.
    teacher : Checkpoint, optional
        In place of the one in `folder`.
    on_progress, cancel
        As :func:`compresskit.training.fit.fit` takes them. A run that is cancelled is scored as far as it came.

    Returns
    -------
    Result

    Raises
    ------
    ValueError
        If the row needs the teacher and there is none.
    """
    from compresskit.training.distill import distill

    started = time.monotonic()
    common: dict[str, Any] = {"seed": seed, "on_progress": on_progress, "cancel": cancel}
    running = folder / f"{_file_name(row)}-{seed}.npz"
    if row.student == TEACHER:
        student = train_teacher(digits, settings, checkpoint=running, **common)
        if seed == 0:
            student.save(folder / f"{TEACHER}.tflite")
    else:
        shown = digits if row.only is None else replace(digits, train=digits.train.only(*row.only))
        alpha = 0.0 if row.temperature is None else 1.0 if row.only else settings.alpha
        with _products_in(settings.precision):
            student = distill(
                load_model("small_student") if alpha == 0 else teacher or trained_teacher(folder),
                row.student,
                shown,
                temperature=row.temperature or 1.0,
                alpha=alpha,
                epochs=round(settings.student_epochs * len(digits.train) / len(shown.train)),
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                augment=row.augment,
                views=settings.views,
                resume=running,
                **common,
            ).checkpoint
    logits = outputs(student.tflite, digits.test.images)
    corrected, lift = None, 0.0
    if row.only is not None:
        classes = (3,) if 3 not in row.only else row.only
        lift = best_lift(outputs(student.tflite, digits.validation.images), digits.validation.labels, classes)
        corrected = count_errors(lifted(logits, classes, lift), digits.test.labels)
    running.unlink(missing_ok=True)
    errors = count_errors(logits, digits.test.labels)
    return Result(row.name, seed, errors, corrected, lift, round(time.monotonic() - started, 1), asdict(settings))


@contextmanager
def _products_in(precision: str) -> Iterator[None]:
    """Let TensorFlow compute products in this precision while the block runs, on processors that can.

    Parameters
    ----------
    precision : {"float32", "bfloat16"}
        Weights, their moments and sums stay in float32. Processors without instructions for bfloat16 go on in float32.
    """
    import tensorflow as tf

    name = "auto_mixed_precision_onednn_bfloat16"
    before = tf.config.optimizer.get_experimental_options().get(name, False)
    tf.config.optimizer.set_experimental_options({name: precision == "bfloat16"})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({name: before})


def trained_teacher(folder: Path) -> Checkpoint:
    """Load the large net that a run before has left in the folder.

    Raises
    ------
    ValueError
        If it is not there.
    """
    path = folder / f"{TEACHER}.tflite"
    if not path.exists():
        raise ValueError(f"folder is {folder}: it holds no {path.name}; run `{COMMAND}` without --rows first")
    return load_model(path)


def ship_teacher(folder: Path, path: Path = SHIPPED_TEACHER) -> None:
    """Write the large net into the course with its weights in 8 bits: a quarter of the bytes, and it still teaches.

    Parameters
    ----------
    folder : Path
        That a run has left it in.
    path : Path
        Where to write it.
    """
    small = compress(trained_teacher(folder), Recipe(Quantize(weights=8, activations=32)))
    small.save(path)


def shipped_teacher(path: Path = SHIPPED_TEACHER) -> Checkpoint:
    """Read the large net as it comes with the course. It can be run and asked, not made smaller again.

    Raises
    ------
    FileNotFoundError
        If it is not there; the sentence says how it is got.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path.name}, the large net of 2015, is not in {path.parent}; get the course again")
    return Checkpoint(TEACHER, path.read_bytes())


def row_named(name: str) -> Row:
    """Look a row of the table up.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    known = {row.name: row for row in rows()}
    if name not in known:
        raise ValueError(f"rows: there is no {name!r}; the rows are {'; '.join(known)}")
    return known[name]


def count_errors(logits: NDArray[Any], labels: NDArray[Any]) -> int:
    """Count the rows of logits (n, K) whose largest is not the label."""
    return int((logits.argmax(axis=1) != labels).sum())


def lifted(logits: NDArray[Any], classes: Sequence[int], lift: float) -> NDArray[Any]:
    """Add a number to the logits of some classes, as raising their bias does."""
    return np.asarray(logits + lift * np.isin(np.arange(logits.shape[1]), classes), np.float32)


def best_lift(logits: NDArray[Any], labels: NDArray[Any], classes: Sequence[int]) -> float:
    """Find by how much to raise the biases of some classes: the fewest errors, and of equal ones the smallest change.

    Parameters
    ----------
    logits : ndarray, shape (n, K)
        Of validation digits.
    labels : ndarray, shape (n,)
        True classes.
    classes : sequence of int
        Whose biases are raised, all by the same.

    Returns
    -------
    float
        From -15 to 15, in steps of 0.1.
    """
    tried = np.round(np.arange(-150, 151) / 10, 1)
    return float(min(tried, key=lambda lift: (count_errors(lifted(logits, classes, lift), labels), abs(lift))))


def load_results(path: Path = RESULTS) -> tuple[Result, ...]:
    """Read the finished runs; none if there is no file yet.

    Raises
    ------
    ValueError
        If the file is not one of these.
    """
    if not path.exists():
        return ()
    try:
        return tuple(Result(**each) for each in json.loads(path.read_text(encoding="utf-8"))["results"])
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"path is {path}: not the results of `{COMMAND}` ({error}); delete it to start afresh"
        ) from error


def table(results: Sequence[Result]) -> str:
    """Write the table: errors of 10,000 test digits, the paper's beside ours; what is not made yet says so."""
    lines = [f"{'test errors':42}{'paper':>22}   here: median (lowest to highest), seeds"]
    for row in rows():
        found = [each for each in results if each.row == row.name]
        lines.append(f"{row.name:42}{row.published:>22}   {_spread([each.errors for each in found])}")
        if row.corrected:
            fixed = [each.corrected for each in found if each.corrected is not None]
            lines.append(f"{'   with the bias corrected':42}{row.corrected:>22}   {_spread(fixed)}")
    return "\n".join(lines)


def plan(seeds: Sequence[int], names: Sequence[str] = ()) -> Iterator[tuple[Row, int]]:
    """List what is to be made: for each seed all rows, the teacher for seed 0 only.

    Raises
    ------
    ValueError
        If a name is no row's.
    """
    chosen = [row_named(name) for name in names] or rows()
    for seed in seeds:
        for row in rows():
            if row in chosen and (row.student != TEACHER or seed == 0):
                yield row, seed


def run(
    digits: Digits,
    *,
    seeds: Sequence[int] = SEEDS,
    names: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
    path: Path = RESULTS,
    folder: Path = SCRATCH,
    tell: Callable[[str], None] = print,
) -> tuple[Result, ...]:
    """Make all runs that the file does not hold yet, and write each one at once.

    Parameters
    ----------
    digits : Digits
        Full MNIST.
    seeds : sequence of int
        A training of each row for each.
    names : sequence of str
        Rows to make; all if empty.
    changes : mapping, optional
        Attributes of `Settings` that are to be others than the rows' own.
    path, folder : Path
        Where results and broken-off runs are kept.
    tell : callable
        Called with a line for each finished run.

    Returns
    -------
    tuple of Result
        All that the file holds now.

    Raises
    ------
    ValueError
        If the digits are not full MNIST, or a row needs the teacher and it is not there.
    """
    if not digits.complete:
        raise ValueError(f"digits: the experiment needs full MNIST. {digits.notice}")
    done = list(load_results(path))
    for row, seed in plan(seeds, names):
        if any((each.row, each.seed) == (row.name, seed) for each in done):
            continue
        made = make(row, seed, digits, replace(row.settings, **(changes or {})), folder)
        if row.student == TEACHER:
            ship_teacher(folder, path.with_name(SHIPPED_TEACHER.name))
        done.append(made)
        with write_atomically(path) as file:
            content = {"command": COMMAND, "results": [asdict(each) for each in done]}
            file.write(f"{json.dumps(content, indent=1)}\n".encode())
        fixed = "" if made.corrected is None else f", {made.corrected} with the bias corrected by {made.lift:+.1f}"
        tell(f"{row.name}, seed {seed}: {made.errors} errors{fixed}, {made.seconds:.0f} s")
    return tuple(done)


def _spread(values: Sequence[int]) -> str:
    if not values:
        return "not run yet"
    return f"{np.median(values):,.6g} ({min(values):,} to {max(values):,}), {len(values)}"


def _file_name(row: Row) -> str:
    return "".join(each if each.isalnum() else "-" for each in row.name)
