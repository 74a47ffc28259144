"""Deep Compression, stage by stage, over several seeds: prune, share, code, training in between.

    python -m compresskit.training.deep_compression

goes on where it was broken off, and writes the table of lesson 09 to ``compresskit/course/data/deep_compression.json``,
and beside it the packed file of the best seed of each model, by validation digits. Sizes are lengths of packed files
that were read back; errors are LiteRT's, on all test digits.

Han, Mao and Dally (2015), https://arxiv.org/abs/1510.00149: 27 KB at 1.58 % for LeNet-300-100, 44 KB at 0.74 % for
LeNet-5.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

COMMAND = "python -m compresskit.training.deep_compression"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "deep_compression.json"
SEEDS = (0, 1, 2)
BIAS_VALUES = 16
STAGES = ("float", "pruned", "shared", "coded")


@dataclass(frozen=True)
class Settings:
    """How a model is made small.

    Attributes
    ----------
    sparsity : float
        Fraction of all weights that goes, by one threshold for all layers.
    levels : int
        Values that the weights of a layer share, zero among them.
    prune_epochs, share_epochs : int
        Epochs of training while pruning, and of the shared values.
    """

    sparsity: float
    levels: int
    prune_epochs: int
    share_epochs: int


SETTINGS: Mapping[str, Settings] = {
    "lenet_300_100": Settings(sparsity=0.96, levels=16, prune_epochs=14, share_epochs=3),
    "lenet5": Settings(sparsity=0.95, levels=64, prune_epochs=8, share_epochs=2),
}


@dataclass(frozen=True)
class Row:
    """A stage of one run.

    Attributes
    ----------
    model : str
        The shipped model that it began with.
    stage : str
        "float"; "pruned", fine-tuned; "shared", the values trained; "coded": few values for biases too, and nothing in
        the file that running does not need.
    seed : int
        Of the training.
    file, packed : int
        Bytes of the `.tflite`, and of the packed file.
    errors, validation_errors : int
        Misread test digits and validation digits.
    """

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
    """Make the last file: biases share values too, layer by layer, and what running does not need is left out.

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
    biases = {}
    for site in sites(model):
        if site.bias is not None:
            values = files.stored(model, model.subgraphs[0].tensors[site.bias])
            biases[site.bias] = exact_kmeans(values, BIAS_VALUES).decode()
    return slim(files.replace_constants(checkpoint.tflite, biases))


def measure(model: str, stage: str, seed: int, tflite: bytes, digits: Digits) -> Row:
    """Score and pack a stage's file."""
    file = Checkpoint(f"{model}, {stage}", tflite)
    wrong, validation = (evaluate(file, part).errors for part in (digits.test, digits.validation))
    return Row(model, stage, seed, len(tflite), len(packed(tflite)), wrong, validation)


def run(name: str, settings: Settings, seed: int, digits: Digits, work: Path) -> Iterator[tuple[Row, bytes]]:
    """Take a model through all stages.

    Parameters
    ----------
    name : str
        A shipped model.
    settings : Settings
        How.
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
    from compresskit.training.prune import train_pruned

    work.mkdir(parents=True, exist_ok=True)
    checkpoint = load_model(name)
    yield measure(name, "float", seed, checkpoint.tflite, digits), checkpoint.tflite
    prune = Prune(settings.sparsity, scope="global")
    pruned = train_pruned(
        checkpoint, prune, digits, schedule="polynomial", epochs=settings.prune_epochs, learning_rate=0.002, seed=seed,
        resume=work / f"{name}-{seed}-pruned.npz",
    ).checkpoint  # fmt: skip
    yield measure(name, "pruned", seed, pruned.tflite, digits), pruned.tflite
    shared = train_shared(
        pruned, Share(settings.levels, "exact"), digits, epochs=settings.share_epochs, seed=seed,
        resume=work / f"{name}-{seed}-shared.npz",
    ).checkpoint  # fmt: skip
    yield measure(name, "shared", seed, shared.tflite, digits), shared.tflite
    small = coded(shared)
    yield measure(name, "coded", seed, small, digits), small


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


def packed_path(name: str, results: Path = RESULTS) -> Path:
    """Say where the packed file of a model's best seed is."""
    return results.with_name(f"deep_compression_{name}.packed")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not done yet, and write the table after each run."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write (default: the course's own)")
    parser.add_argument("--models", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--work", type=Path, default=Path("build/deep_compression"), help="states of broken-off runs")
    options = parser.parse_args(arguments)
    digits = load_mnist()
    written = {name: asdict(settings) for name, settings in SETTINGS.items()}
    rows: list[Row] = []
    if options.out.exists():
        content, found = load_rows(options.out)
        rows = [row for row in found if content["settings"].get(row.model) == written[row.model]]
    started = time.monotonic()
    for seed in options.seeds:
        for name in options.models:
            done = {row.stage for row in rows if (row.model, row.seed) == (name, seed)}
            if done == set(STAGES):
                continue
            rows = [row for row in rows if (row.model, row.seed) != (name, seed)]
            made: list[tuple[Row, bytes]] = []
            for row, tflite in run(name, SETTINGS[name], seed, digits, options.work):
                made.append((row, tflite))
                print(f"{name} seed {seed} {row.stage:7} {row.packed:10,} bytes packed, {row.errors:4} misread, "
                      f"{time.monotonic() - started:5.0f} s", flush=True)  # fmt: skip
            rows += [row for row, _ in made]
            last = [row for row in rows if (row.model, row.stage) == (name, "coded")]
            options.out.parent.mkdir(parents=True, exist_ok=True)
            if min(last, key=lambda row: row.validation_errors) is made[-1][0]:
                with write_atomically(packed_path(name, options.out)) as file:
                    file.write(packed(made[-1][1]))
            content = {"command": COMMAND, "settings": written, "rows": [asdict(row) for row in rows]}
            with write_atomically(options.out) as file:
                file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
