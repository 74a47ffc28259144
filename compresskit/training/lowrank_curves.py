"""How much of what low rank loses training brings back: the numbers of lesson 10.

    python -m compresskit.training.lowrank_curves

writes ``compresskit/course/data/lowrank.json``: for some ranks of the digit reader's dense layer, the validation digits
misread before and after training, over three seeds, and beside them a control, the whole network trained for as long.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compresskit.atomic import write_atomically
from compresskit.compression import compress
from compresskit.data import Digits, load_mnist
from compresskit.evaluation import evaluate
from compresskit.recipe import Factorize, Recipe
from compresskit.zoo import load_model

COMMAND = "python -m compresskit.training.lowrank_curves"
RESULTS = Path(__file__).resolve().parents[1] / "course" / "data" / "lowrank.json"
RANKS = (2, 4, 8, 16)
SEEDS = (0, 1, 2)
TRAINING_DIGITS = 10_000
EPOCHS = 2


def load_results(path: Path = RESULTS) -> dict[str, Any]:
    """Read what the command wrote.

    Returns
    -------
    dict
        ``command``, ``ranks``, ``seeds``, ``training_digits``, ``epochs``; ``float`` misread before any training,
        ``untrained`` for each rank, ``trained`` and ``control``, a list over the seeds for each.

    Raises
    ------
    ValueError
        If there is no such file, or it is not one of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {**content, "trained": {int(rank): found for rank, found in content["trained"].items()},
                "untrained": {int(rank): found for rank, found in content["untrained"].items()}}  # fmt: skip
    except (OSError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"path is {path}: not the results of `{COMMAND}` ({error}); run it to make them") from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the file."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write (default: the course's own)")
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    options = parser.parse_args(arguments)
    # TensorFlow is needed to make the numbers, not to read them.
    from compresskit.training.convert import to_checkpoint, to_keras
    from compresskit.training.fit import fit
    from compresskit.training.graphs import fold_normalization
    from compresskit.training.lowrank import train_factorized

    digits, model = load_mnist(), load_model("digit_reader")
    part = Digits(digits.train.take(TRAINING_DIGITS), digits.validation, digits.test, digits.source)

    def wrong(checkpoint: Any) -> int:
        return evaluate(checkpoint, digits.validation).errors

    untrained, trained = {}, {}
    for rank in options.ranks:
        step = Factorize(rank, layers=("dense",))
        untrained[rank] = wrong(compress(model, Recipe(step)))
        runs = [train_factorized(model, step, part, epochs=EPOCHS, seed=seed).checkpoint for seed in options.seeds]
        trained[rank] = [wrong(each) for each in runs]
        print(f"rank {rank:3}: misread {untrained[rank]}, trained {trained[rank]}", flush=True)
    control = []
    for seed in options.seeds:
        whole = fold_normalization(to_keras(model))
        fit(whole, part, epochs=EPOCHS, learning_rate=0.0005, augment="shift", seed=seed)
        control.append(wrong(to_checkpoint(whole, "control")))
    content = {
        "command": COMMAND, "model": model.name, "layer": "dense", "ranks": options.ranks, "seeds": options.seeds,
        "training_digits": TRAINING_DIGITS, "epochs": EPOCHS, "validation_digits": len(digits.validation),
        "float": wrong(model), "control": control, "untrained": untrained, "trained": trained,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(options.out) as file:
        file.write(f"{json.dumps(content, indent=1)}\n".encode())


if __name__ == "__main__":
    main()
