"""Which layer loses the accuracy? Errors layer after layer, and each layer quantized or pruned alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.compression import Compressed, compress
from compresskit.data import Split
from compresskit.evaluation import evaluate
from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.runtime import Session, decode, encode
from compresskit.pruning.sensitivity import Sensitivity as PruningSensitivity
from compresskit.pruning.sensitivity import scan
from compresskit.recipe import Prune, Quantize, Recipe
from compresskit.zoo import Checkpoint


@dataclass(frozen=True)
class LayerError:
    """How far the output of one layer is from that of the float model.

    Attributes
    ----------
    name : str
        The layer.
    signal_to_noise : float
        10 log10(mean square of the float output / mean square of the difference), in dB; infinite if there is none.
    cosine : float
        Mean over the examples of the cosine between the two outputs; 1 for the same direction.
    largest : float
        Largest difference of a single value.
    """

    name: str
    signal_to_noise: float
    cosine: float
    largest: float


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing one layer alone does.

    Attributes
    ----------
    name : str
        The layer.
    bits : int
        Width of its weights; all other layers stay float.
    accuracy : float
        Fraction of the digits that the file reads rightly.
    errors : int
        How many it misreads.
    saved : int
        Bits that this takes off the layer's weights, divided by 8: bytes if they are packed.
    """

    name: str
    bits: int
    accuracy: float
    errors: int
    saved: int


def layer_errors(small: Compressed, digits: Split, *, examples: int = 100) -> tuple[LayerError, ...]:
    """Compare what flows out of each layer of a compressed file with the float model, on the same digits.

    Errors add up on the way: a layer is shown with what it got from those before it. To see what a layer does by
    itself, use `quantization_sensitivity`.

    Parameters
    ----------
    small
        A compressed model.
    digits
        Digits to run; the first `examples` are used.
    examples
        How many.

    Returns
    -------
    tuple of LayerError
        A row for each layer that holds weights, in the order in which they run. Layers that lost channels are left
        out: there is nothing to hold them against.
    """
    images = np.asarray(digits.images[:examples])
    before, after = _layer_outputs(small.checkpoint.tflite, images), _layer_outputs(small.tflite, images)
    return tuple(
        _compare(name, one, other)
        for (name, one), (_, other) in zip(before.items(), after.items(), strict=True)
        if one.shape == other.shape
    )


def _layer_outputs(tflite: bytes, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """Run a file and keep what each layer puts out, as real numbers, an example a row."""
    model = files.read(tflite)
    places = {site.name: int(model.subgraphs[0].operators[site.operator].outputs[0]) for site in sites(model)}
    session = Session(files.expose(tflite, list(places.values())), len(images))
    runs = [
        session(encode(images[start : start + session.batch], session.inputs[0]))
        for start in range(0, len(images), session.batch)
    ]
    joined = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    return {
        name: decode(values, form).reshape(len(images), -1)
        for name, values, form in zip(places, joined, session.outputs, strict=True)
    }


def _compare(name: str, one: NDArray[np.float32], other: NDArray[np.float32]) -> LayerError:
    """Measure the difference between two outputs of the same layer."""
    signal, noise = np.square(one, dtype=np.float64).mean(), np.square(one - other, dtype=np.float64).mean()
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    dots = np.einsum("nd,nd->n", one, other, dtype=np.float64)
    cosines = np.divide(dots, lengths, out=np.ones_like(dots), where=lengths > 0)
    return LayerError(
        name=name,
        signal_to_noise=float(10 * np.log10(signal / noise))
        if noise and signal
        else (np.inf if not noise else -np.inf),
        cosine=float(cosines.mean()),
        largest=float(np.abs(one - other).max()),
    )


def quantization_sensitivity(
    checkpoint: Checkpoint,
    digits: Split,
    *,
    bits: Sequence[int] = (8, 4, 2),
    ranges: str = "minmax",
    on_progress: Callable[[int, int], bool | None] | None = None,
) -> tuple[Sensitivity, ...]:
    """Quantize the weights of one layer at a time, everything else float, and score each file.

    Parameters
    ----------
    checkpoint
        The float model.
    digits
        Digits to score on. Take validation digits when a recipe is chosen by what comes out.
    bits
        Widths to try, each of 2 to 8.
    ranges
        How far the grids reach, as `Quantize` takes it.
    on_progress
        Called with (files done, files in all); if it returns True, the scan ends there.

    Returns
    -------
    tuple of Sensitivity
        For each layer a row for each width, in the order of the layers.
    """
    found: list[Sensitivity] = []
    total = len(checkpoint.layers) * len(bits)
    for layer in checkpoint.layers:
        for width in bits:
            # In bytes and turned back into floats: so every layer can have every width, and only its weights change.
            alone = {"weights": width, "ranges": ranges, "compute": "float", "store": "int8"}
            step = Quantize(weights=32, activations=32, layers={layer.name: alone})
            score = evaluate(compress(checkpoint, Recipe(step)), digits)
            saved = int(np.prod(layer.shape)) * (32 - width) // 8
            found.append(Sensitivity(layer.name, width, score.accuracy, score.errors, saved))
            if on_progress is not None and on_progress(len(found), total):
                return tuple(found)
    return tuple(found)


def pruning_sensitivity(
    checkpoint: Checkpoint,
    digits: Split,
    sparsities: Sequence[float] = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    *,
    importance: str = "magnitude",
    calibration: Split | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PruningSensitivity:
    """Prune one layer at a time, everything else whole, and score each file.

    Parameters
    ----------
    checkpoint
        The float model.
    digits
        Digits to score on. Take validation digits when sparsities are chosen by what comes out.
    sparsities
        The grid; the whole network is always scored as well.
    importance
        What is kept, as `Prune` takes it.
    calibration
        Digits for an importance that looks at what flows.
    on_progress
        Called with (files done, files in all); an exception from it ends the scan.

    Returns
    -------
    compresskit.pruning.sensitivity.Sensitivity
        Accuracy for each layer and sparsity, as `allocate` and `cheapest` take it.
    """

    def score(layer: str, sparsity: float) -> float:
        recipe = Recipe(Prune(sparsity, layers=(layer,), importance=importance)) if sparsity else Recipe()
        return evaluate(compress(checkpoint, recipe, calibration), digits).accuracy

    return scan([layer.name for layer in checkpoint.layers], sparsities, score, progress=on_progress)
