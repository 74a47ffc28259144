"""What flows through a float model: the range of every tensor, measured on examples.

Integer activations need a range for each tensor before any digit is seen. It is measured with LiteRT on the float file
itself, many examples at once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.runtime import Session, batch_size, encode


@functools.lru_cache(maxsize=32)
def flowing(tflite: bytes) -> tuple[int, ...]:
    """List the real-valued tensors that operators of the main graph compute, in the order of their making."""
    model = files.read(tflite)
    tensors = model.subgraphs[0].tensors
    computed = (int(index) for op in model.subgraphs[0].operators for index in op.outputs)
    return tuple(index for index in computed if files.DTYPES[tensors[index].type] == "float32")


@functools.lru_cache(maxsize=32)
def _exposed(tflite: bytes) -> tuple[bytes, tuple[str, ...], tuple[str, ...]]:
    """Write the model with every computed tensor as an output; name its inputs and those outputs."""
    model = files.read(tflite)
    tensors = model.subgraphs[0].tensors
    indices = flowing(tflite)
    inputs = tuple(files.tensor_name(tensors[index]) for index in model.subgraphs[0].inputs)
    return files.expose(model, list(indices)), inputs, tuple(files.tensor_name(tensors[index]) for index in indices)


def tensor_values(
    tflite: bytes, images: NDArray[np.generic], weights: Mapping[int, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """Run a float model and keep everything that flows through it.

    Parameters
    ----------
    tflite
        A plain float `.tflite`; the exposed copy of it is made once and kept.
    images : ndarray, shape (n, ...)
        Examples, as `compresskit.litert.runtime.encode` takes them.
    weights
        Constant tensors to be replaced first: index to array. Empty for the model as it is.

    Returns
    -------
    dict of str to ndarray
        Tensor name to its values, a row an example, the inputs included.

    Raises
    ------
    ValueError
        If there are no images, or they do not fit the model.
    """
    if len(images) == 0:
        raise ValueError("calibration: there are no digits; give at least one")
    exposed, inputs, names = _exposed(tflite)
    session = Session(files.replace_constants(exposed, weights), min(len(images), batch_size(images.shape[1:])))
    found: list[list[NDArray[np.generic]]] = []
    for start in range(0, len(images), session.batch):
        chunk = encode(images[start : start + session.batch], session.inputs[0])
        missing = session.batch - len(chunk)
        if missing:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
        found.append([array[: session.batch - missing] for array in (chunk, *session(chunk))])
    joined = [np.concatenate(parts) for parts in zip(*found, strict=True)]
    return dict(zip((*inputs, *names), joined, strict=True))


def activation_ranges(
    tflite: bytes, images: NDArray[np.generic], weights: Mapping[int, NDArray[np.generic]]
) -> dict[str, tuple[float, float]]:
    """Measure the smallest and largest value of every tensor that flows, as `tensor_values` runs it.

    Returns
    -------
    dict of str to (float, float)
        Tensor name to (lowest, highest).

    Raises
    ------
    ValueError
        If a value is not finite; the sentence names the tensor.
    """
    ranges = {}
    for name, values in tensor_values(tflite, images, weights).items():
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError(
                f"calibration: the tensor {name!r} reaches {low} to {high}; check the digits and the weights for "
                "infinite or undefined numbers"
            )
        ranges[name] = (low, high)
    return ranges
