"""Post-training quantization by TensorFlow's own converter, to compare with: the other way to the same `.tflite`.

`compresskit.compress` edits a float `.tflite`; `TFLiteConverter` starts from the Keras model. Both store integers by
the same specification, so their files hold the same weights. What the converter does not say, this module does: an
infinite number among the calibration digits would end the process without a word.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.quiet import stderr_held_back
from compresskit.training.convert import refuse_non_finite, shorten_names, to_keras

if TYPE_CHECKING:
    import tf_keras

    from compresskit.zoo import Checkpoint

SCHEMES: Final = ("float16", "dynamic", "int8", "uint8", "16x8")
"""float16 weights; int8 weights with float activations; integers throughout with int8 or uint8 at both ends; int8
weights with int16 activations."""

_CALIBRATED: Final = ("int8", "uint8", "16x8")


def convert(
    model: Checkpoint | tf_keras.Model,
    scheme: str,
    calibration: Split | NDArray[Any] | None = None,
    *,
    digits: int = 100,
    per_channel: bool = True,
) -> bytes:
    """Quantize a Keras model with `TFLiteConverter`.

    Parameters
    ----------
    model
        A checkpoint that holds a Keras archive, or a Keras 2 model.
    scheme
        One of `SCHEMES`.
    calibration
        Digits on which ranges are measured, for "int8", "uint8" and "16x8": a `Split`, or images as uint8 (which stand
        for pixel / 255) or float32.
    digits
        How many of them are used, from the first on.
    per_channel
        A scale for each output channel of a convolution or, with False, one for the whole layer.

    Returns
    -------
    bytes
        A `.tflite` file, tensors named by layer as `compresskit.training.convert.shorten_names` does.

    Raises
    ------
    ValueError
        If the scheme does not exist, the digits are missing, of the wrong shape, or not finite, or the converter gives
        up. The sentence says what to do.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}; choose one of {', '.join(SCHEMES)}")
    network = model if isinstance(model, tf.Module) else to_keras(model)
    refuse_non_finite(network)
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel = not per_channel
    if scheme in _CALIBRATED:
        images = calibration_images(calibration, tuple(network.input_shape[1:]), digits)
        converter.representative_dataset = lambda: _one_by_one(images)
        converter.target_spec.supported_ops = [_operators(scheme)]
        kind = {"int8": tf.int8, "uint8": tf.uint8, "16x8": tf.int16}[scheme]
        converter.inference_input_type = converter.inference_output_type = kind
    elif scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with stderr_held_back() as said, warnings.catch_warnings():  # its notices, and the reason if it gives up
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")  # asked for, wrongly, before calibrating
        try:
            converted = bytes(converter.convert())
        except Exception as error:
            reason = (str(error).strip() or said()).splitlines()[0][:300]
            raise ValueError(f"model {network.name!r} cannot be converted to {scheme}: {reason}") from error
    return shorten_names(converted, network.name, [layer.name for layer in network.layers])


def calibration_images(
    calibration: Split | NDArray[Any] | None, shape: tuple[int, ...], digits: int
) -> NDArray[np.float32]:
    """Bring calibration digits into the form that the converter reads, and refuse what it would choke on.

    Parameters
    ----------
    calibration
        As `convert` takes it.
    shape
        Of one example of the model's input.
    digits
        How many to take.

    Returns
    -------
    ndarray of float32, shape (n, *shape)

    Raises
    ------
    ValueError
        If there are none, they have another number of values, or one is not finite.
    """
    images = None if calibration is None else calibration.images if isinstance(calibration, Split) else calibration
    if images is None or len(images) == 0 or digits < 1:
        raise ValueError("calibration: integer activations need digits to measure ranges on; give digits.train")
    chosen = np.asarray(images[:digits])
    if int(np.prod(chosen.shape[1:])) != int(np.prod(shape)):
        raise ValueError(f"calibration: each digit has the shape {chosen.shape[1:]}, but the model reads {shape}")
    floats = np.asarray(chosen, np.float32) / np.float32(255 if chosen.dtype == np.uint8 else 1)
    wrong = int((~np.isfinite(floats)).any(axis=tuple(range(1, floats.ndim))).sum())
    if wrong:
        raise ValueError(
            f"calibration: {wrong} of {len(floats)} digits hold infinite or undefined numbers, which end the process "
            "inside TFLiteConverter without a word; clean them first"
        )
    return floats.reshape(len(floats), *shape)


def _one_by_one(images: NDArray[np.float32]) -> Iterator[list[NDArray[np.float32]]]:
    """Hand out examples as the converter asks for them: a list with one batch of one."""
    for image in images:
        yield [image[None]]


def _operators(scheme: str) -> Any:
    """Name the set of operators that computes a scheme; without it the converter may leave layers float."""
    if scheme == "16x8":
        return tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    return tf.lite.OpsSet.TFLITE_BUILTINS_INT8
