"""Deep Compression, stage by stage, over several seeds: prune, share, code, training in between; twice.

Once as good as in the paper and smaller, once as small as can be at an error of 1.9 % and 1.0 %. To the paper's three
stages come two things of lessons 08 and 11: channels are cut before weights are pruned, so that what is left lies close
together and trains fast, and the network learns from the answers of a better one.

    python -m compresskit.training.deep_compression

goes on where it was broken off, and writes the table of lesson 09 to ``compresskit/course/data/deep_compression.json``,
and beside it the packed files of the best seed of each model, by validation digits. Sizes are lengths of packed files
that were read back; errors are LiteRT's, on all test digits.

Han, Mao and Dally (2015), https://arxiv.org/abs/1510.00149: 27 KB at 1.58 % for LeNet-300-100, 44 KB at 0.74 % for
LeNet-5. Oktay, Ballé, Singh and Shrivastava (2020), *Scalable model compression by entropy penalized
reparameterization*, https://arxiv.org/abs/1906.06624: 8.56 KB at 1.9 %, and 2.84 KB at 1.0 %.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compresskit import entropy
from compresskit.atomic import write_atomically
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.slim import slim
from compresskit.litert.stretches import stretches
from compresskit.recipe import Prune, Share
from compresskit.sharing import exact_kmeans
from compresskit.zoo import Checkpoint, load_model

if TYPE_CHECKING:
    from compresskit.training.augment import Augmentation

COMMAND = "python -m compresskit.training.deep_compression"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "deep_compression.json"
SEEDS = (0, 1, 2)
BIAS_VALUES = 8
TEACHER = "lenet5"
STAGES = ("float", "pruned", "shared", "coded")


@dataclass(frozen=True)
class Settings:
    """How a model is made small.

    Attributes
    ----------
    sparsity : float
        Fraction of the weights that goes, by one threshold for all layers, once channels are cut.
    levels : int
        Values that the weights of a layer share, zero among them.
    prune_epochs, share_epochs : int
        Epochs of training while pruning, and of the shared values.
    channels : mapping of str to float
        Fraction of a layer's channels that is cut before anything else.
    augment : {"none", "shift"}
        How digits are moved while training. A network of very few weights has enough to do with those that are not.
    """

    sparsity: float
    levels: int
    prune_epochs: int
    share_epochs: int
    channels: Mapping[str, float] = field(default_factory=dict)
    augment: Augmentation = "none"


SETTINGS: Mapping[str, Mapping[str, Settings]] = {
    "accurate": {
        "lenet_300_100": Settings(0.955, 16, 16, 3),
        "lenet5": Settings(0.85, 32, 12, 2, {"conv1": 0.3, "conv2": 0.4, "dense": 0.6}, "shift"),
    },
    "smallest": {
        "lenet_300_100": Settings(0.953, 8, 20, 3, {"dense1": 0.5, "dense2": 0.4}),
        "lenet5": Settings(0.9, 8, 30, 4, {"conv1": 0.6, "conv2": 0.64, "dense": 0.88}),
    },
}


@dataclass(frozen=True)
class Row:
    """A stage of one run.

    Attributes
    ----------
    aim : str
        Of the settings: "accurate" or "smallest".
    model : str
        The shipped model that it began with.
    stage : str
        "float"; "pruned", channels cut and weights pruned while training; "shared", the values trained; "coded":
        few values for biases too, numbers of 16 bits, and nothing in the file that running does not need.
    seed : int
        Of the training.
    file, packed : int
        Bytes of the `.tflite`, and of the packed file.
    errors, validation_errors : int
        Misread test digits and validation digits.
    """

    aim: str
    model: str
    stage: str
    seed: int
    file: int
    packed: int
    errors: int
    validation_errors: int


def packed(tflite: bytes) -> bytes:
    """Pack a file; `compresskit.entropy.unpack` gives it back."""
    return entropy.pack(tflite, stretches(tflite))


def coded(checkpoint: Checkpoint) -> bytes:
    """Make the last file: biases share values too, numbers end in zeros, and what running does not need is left out.

    Parameters
    ----------
    checkpoint : Checkpoint
        The float model with shared weights.

    Returns
    -------
    bytes
        A `.tflite`.
    """
    model = files.read(checkpoint.tflite)
    tensors = model.subgraphs[0].tensors
    arrays = {}
    for site in sites(model):
        arrays[site.weights] = files.stored(model, tensors[site.weights])
        if site.bias is not None:
            arrays[site.bias] = exact_kmeans(files.stored(model, tensors[site.bias]), BIAS_VALUES).decode()
    return slim(files.replace_constants(checkpoint.tflite, {key: bfloat16(each) for key, each in arrays.items()}))


def bfloat16(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Round to the nearest floats whose last 16 bits are zero: 8 bits of the fraction stay, and every exponent.

    Parameters
    ----------
    values : ndarray of float
        Finite.

    Returns
    -------
    ndarray of float32, of the same shape
        Among two that are equally near, the one farther from zero.
    """
    bits = np.asarray(values, np.float32).copy().view(np.uint32)
    return ((bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def measure(aim: str, model: str, stage: str, seed: int, tflite: bytes, digits: Digits) -> Row:
    """Score and pack a stage's file."""
    file = Checkpoint(f"{model}, {stage}", tflite)
    wrong, validation = (evaluate(file, part).errors for part in (digits.test, digits.validation))
    return Row(aim, model, stage, seed, len(tflite), len(packed(tflite)), wrong, validation)


def run(aim: str, name: str, seed: int, digits: Digits, work: Path) -> Iterator[tuple[Row, bytes]]:
    """Take a model through all stages.

    Parameters
    ----------
    aim : str
        Of ``SETTINGS``.
    name : str
        A shipped model.
    seed : int
        Of all trainings.
    digits : Digits
        Trained on ``train``.
    work : Path
        Folder for the states of trainings, from which a run that was broken off goes on.

    Yields
    ------
    Row, bytes
        Each stage as it is done, and its `.tflite`.
    """
    from compresskit.training.cluster import train_shared
    from compresskit.training.distill import VIEWS, KeptLogits
    from compresskit.training.prune import train_pruned

    work.mkdir(parents=True, exist_ok=True)
    settings, checkpoint = SETTINGS[aim][name], load_model(name)
    yield measure(aim, name, "float", seed, checkpoint.tflite, digits), checkpoint.tflite
    teaching = KeptLogits(
        (load_model(TEACHER),), digits, 4.0, 0.9, "kl", settings.augment, VIEWS,
        probabilities=False, cancel=threading.Event(),
    )  # fmt: skip
    common: dict[str, Any] = {
        "batch_size": 256, "augment": settings.augment, "seed": seed, "teaching": teaching,
    }  # fmt: skip
    cuts = [Prune(part, layers=(layer,), pattern="channel") for layer, part in settings.channels.items()]
    pruned = train_pruned(
        checkpoint, (*cuts, Prune(settings.sparsity, scope="global")), digits, schedule="polynomial",
        epochs=settings.prune_epochs, learning_rate=0.003, resume=work / f"{aim}-{name}-{seed}-pruned.npz", **common,
    ).checkpoint  # fmt: skip
    yield measure(aim, name, "pruned", seed, pruned.tflite, digits), pruned.tflite
    shared = train_shared(
        pruned, Share(settings.levels, "exact"), digits, epochs=settings.share_epochs,
        resume=work / f"{aim}-{name}-{seed}-shared.npz", **common,
    ).checkpoint  # fmt: skip
    yield measure(aim, name, "shared", seed, shared.tflite, digits), shared.tflite
    small = coded(shared)
    yield measure(aim, name, "coded", seed, small, digits), small


def load_rows(path: Path = RESULTS) -> tuple[dict[str, Any], tuple[Row, ...]]:
    """Read what the command wrote.

    Parameters
    ----------
    path : Path
        The JSON file.

    Returns
    -------
    dict, tuple of Row
        How it was made (``command``, ``settings``), and the rows.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in content.pop("rows"))
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"path is {path}: not the results of `{COMMAND}` ({error}); run it to make them") from error
    return content, rows


def packed_path(aim: str, name: str, results: Path = RESULTS) -> Path:
    """Say where the packed file of a model's best seed is."""
    return results.with_name(f"deep_compression_{name}_{aim}.packed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, and write the table after each run."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write (default: the course's own)")
    parser.add_argument("--aims", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--models", nargs="+", default=list(SETTINGS["smallest"]), choices=list(SETTINGS["smallest"]))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--work", type=Path, default=Path("build/deep_compression"), help="states of broken-off runs")
    options = parser.parse_args(arguments)
    digits = load_mnist()
    rows = _still_valid(options.out)
    started = time.monotonic()
    for seed, aim, name in itertools.product(options.seeds, options.aims, options.models):
        if {row.stage for row in rows if (row.aim, row.model, row.seed) == (aim, name, seed)} == set(STAGES):
            continue
        rows = [row for row in rows if (row.aim, row.model, row.seed) != (aim, name, seed)]
        made: list[tuple[Row, bytes]] = []
        for row, tflite in run(aim, name, seed, digits, options.work):
            made.append((row, tflite))
            print(f"{aim} {name} seed {seed} {row.stage:7} {row.packed:10,} bytes packed, {row.errors:4} misread, "
                  f"{time.monotonic() - started:5.0f} s", flush=True)  # fmt: skip
        rows += [row for row, _ in made]
        _write(rows, made[-1], options.out)


def _settings() -> dict[str, dict[str, Any]]:
    """Give the settings as JSON holds them."""
    return {aim: {name: asdict(each) for name, each in models.items()} for aim, models in SETTINGS.items()}


def _still_valid(out: Path) -> list[Row]:
    """Read the rows that were made with the present settings."""
    if not out.exists():
        return []
    content, found = load_rows(out)
    now, then = _settings(), content["settings"]
    return [row for row in found if then.get(row.aim, {}).get(row.model) == now[row.aim][row.model]]


def _write(rows: Sequence[Row], last: tuple[Row, bytes], out: Path) -> None:
    """Write the table; and the packed file of the last run, if it is the best of its kind by validation digits."""
    row, tflite = last
    alike = [each for each in rows if (each.aim, each.model, each.stage) == (row.aim, row.model, "coded")]
    out.parent.mkdir(parents=True, exist_ok=True)
    if min(alike, key=lambda each: each.validation_errors) is row:
        with write_atomically(packed_path(row.aim, row.model, out)) as file:
            file.write(packed(tflite))
    content = {"command": COMMAND, "settings": _settings(), "rows": [asdict(each) for each in rows]}
    with write_atomically(out) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
