"""The way of TFMOT's guides, as a program that answers requests: prune, convert, run single images, zip.

For each line on standard input, a sparsity, it prunes the Keras model by magnitude, converts it to int8 with a
representative dataset of 100 digits, runs LiteRT over 10,000 single images, zips the file for its size, and prints a
line of JSON: seconds, accuracy, bytes.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf

import compresskit as ck
from compresskit.training.convert import to_keras


def prune(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Zero the smallest of a kernel; biases stay."""
    if weights.ndim < 2:
        return weights
    threshold = np.sort(np.abs(weights).ravel())[round(sparsity * weights.size) - 1] if sparsity else -1.0
    return np.where(np.abs(weights) <= threshold, 0, weights)


def convert(model: tf.Module, digits: np.ndarray) -> bytes:
    """Convert to int8 throughout, calibrated one digit at a time."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([digit[None]] for digit in digits)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def score(tflite: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """Run single images, as the guides do."""
    interpreter = tf.lite.Interpreter(model_content=tflite)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    scale, zero = entry["quantization"]
    right = 0
    for image, label in zip(images, labels, strict=True):
        interpreter.set_tensor(entry["index"], np.clip(np.rint(image[None] / scale + zero), -128, 127).astype(np.int8))
        interpreter.invoke()
        right += int(interpreter.get_tensor(result["index"])[0].argmax() == label)
    return right / len(labels)


def zipped(tflite: bytes) -> int:
    """Bytes of a zip archive with the file."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.tflite", tflite)
    return len(held.getvalue())


def main() -> None:
    """Answer requests until standard input ends."""
    digits = ck.load_mnist()
    model = to_keras(ck.load_model("digit_reader"))
    original = model.get_weights()
    calibration = (np.asarray(digits.train.images[:100], np.float32) / 255)[..., None]
    images = (np.asarray(digits.test.images, np.float32) / 255)[..., None]
    labels = np.asarray(digits.test.labels)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        model.set_weights([prune(weights, float(line)) for weights in original])
        tflite = convert(model, calibration)
        accuracy = score(tflite, images, labels)
        took = time.perf_counter() - start
        size = zipped(tflite)  # not timed: a workbench finds this size, too, after the score is shown
        print(json.dumps({"seconds": took, "accuracy": accuracy, "bytes": len(tflite), "zip": size}), flush=True)


if __name__ == "__main__":
    main()
