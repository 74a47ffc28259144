"""Removed channels: the small network computes what the masked one computes, on 200 networks made by chance."""

from __future__ import annotations

import numpy as np
import pytest

import compresskit as ck
from compresskit.data import Digits
from compresskit.litert.inspect import layers
from compresskit.litert.runtime import outputs
from compresskit.litert.surgery import groups, remove_channels, zero_channels
from tests.unit.float_networks import FloatNetwork, random_network


def some_masks(tflite: bytes, seed: int) -> dict[str, np.ndarray]:
    """A mask for each group that can be cut, by chance, with a channel left."""
    chance = np.random.default_rng([11, seed])
    masks = {}
    for group in groups(tflite):
        if group.cuttable:
            mask = chance.random(group.size) < 0.6
            mask[chance.integers(group.size)] = True
            masks[group.name] = mask
    return masks


@pytest.mark.parametrize("block", range(10))
def test_removing_is_exact_on_networks_made_by_chance(block: int) -> None:
    cut = 0
    for seed in range(block * 20, block * 20 + 20):
        tflite = random_network(seed)
        masks = some_masks(tflite, seed)
        images = np.random.default_rng(seed).normal(size=(3, *FloatShape.of(tflite))).astype(np.float32)
        small, masked = remove_channels(tflite, masks), zero_channels(tflite, masks)
        expected = outputs(masked, images)
        np.testing.assert_allclose(
            outputs(small, images), expected, atol=1e-5 * max(1.0, float(np.abs(expected).max()))
        )
        gone = sum(int((~mask).sum()) for mask in masks.values())
        if gone:
            cut += 1
            assert len(small) < len(tflite)
            assert sum(row.parameters for row in layers(small)) < sum(row.parameters for row in layers(tflite))
    assert cut > 10


class FloatShape:
    """Shape of a model's input, without the batch."""

    @staticmethod
    def of(tflite: bytes) -> tuple[int, ...]:
        return ck.Checkpoint("any", tflite).input_shape


@pytest.mark.parametrize("name", ["digit_reader", "lenet5", "big_teacher", "small_student", "lenet_300_100"])
def test_shipped_models_are_cut_exactly(name: str, digits: Digits) -> None:
    model = ck.load_model(name)
    masks = some_masks(model.tflite, 1)
    assert len(masks) >= 2
    images = np.asarray(digits.test.images[:50])
    small = remove_channels(model.tflite, masks)
    np.testing.assert_allclose(
        outputs(small, images), outputs(zero_channels(model.tflite, masks), images), rtol=1e-5, atol=1e-5
    )
    assert ck.Checkpoint("small", small).classes == 10


def test_three_tenths_of_the_channels_are_half_of_the_macs() -> None:
    model = ck.load_model("digit_reader")
    masks = {group.name: np.arange(group.size) % 10 < 7 for group in groups(model.tflite) if group.cuttable}
    before, after = (
        sum(row.macs for row in layers(file)) for file in (model.tflite, remove_channels(model.tflite, masks))
    )
    assert 0.45 < after / before < 0.55


def test_a_residual_addition_ties_its_branches() -> None:
    net = FloatNetwork((8, 8, 2), 1)
    x = net.conv(net.input, 4)
    y = net.conv(net.depthwise(x), 4, 1)
    tflite = net.tflite(net.dense(net.flatten(net.add(x, y)), 10, "none"))
    first = groups(tflite)[0]
    assert len(first.layers) == 3
    assert first.size == 4
    assert first.cuttable


@pytest.mark.parametrize("kind", ["LOGISTIC", "SOFTMAX"])
def test_what_does_not_leave_zero_at_zero_is_left_and_said_so(kind: str) -> None:
    net = FloatNetwork((8, 8, 1), 2)
    x = net.unary(kind, net.conv(net.input, 4))
    tflite = net.tflite(net.dense(net.mean(x), 10, "none"))
    first = groups(tflite)[0]
    assert first.reason == f"{kind} reads them"
    with pytest.raises(ValueError, match=f"cannot be cut: {kind} reads them"):
        remove_channels(tflite, {first.name: np.array([True, False, True, True])})


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"nowhere": np.ones(3, bool)}, "there is no such group; the groups are conv1, conv2, dense, head"),
        ({"conv1": np.ones(3, bool)}, "the mask has shape (3,), but there are 32"),
        ({"conv1": np.zeros(32, bool)}, "all 32 would go; keep at least one"),
        ({"head": np.arange(10) > 2}, "cannot be cut: they are the model's output"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ValueError) as refused:
        remove_channels(ck.load_model("digit_reader").tflite, masks)
    assert words in str(refused.value)
