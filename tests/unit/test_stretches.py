"""Stretches are where the constants of a file are, and as wide."""

from itertools import pairwise

import numpy as np
import pytest

from compresskit.litert.model import read, shape, stored
from compresskit.litert.stretches import stretches
from compresskit.zoo import load_model, model_names


@pytest.mark.parametrize("name", model_names())
def test_every_constant_of_the_course_models_is_found(name):
    tflite = load_model(name).tflite
    model = read(tflite)
    found = {tflite[s.offset : s.offset + s.size]: s for s in stretches(tflite)}
    constants = 0
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or len(data) == 0:
            continue
        constants += 1
        numbers = stored(model, tensor)
        stretch = found[bytes(np.asarray(data, np.uint8))]
        assert stretch.size * 8 == numbers.size * stretch.bits
        assert stretch.columns == (int(np.prod(shape(tensor)[1:])) if numbers.ndim > 1 else 0)
    assert len(found) == constants > 4


def test_in_the_order_of_the_file_and_apart():
    found = stretches(load_model("digit_reader").tflite)
    assert all(a.offset + a.size <= b.offset for a, b in pairwise(found))
