"""What pruning steps leave of a float model: edited weights, or, where whole channels go, a smaller graph."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compresskit.data import Split
from compresskit.litert import model as files
from compresskit.litert.calibration import tensor_values
from compresskit.litert.gradients import weight_gradients
from compresskit.litert.inspect import CHANNEL_AXIS, Site, layers, sites
from compresskit.litert.surgery import cuttable, groups, remove_channels
from compresskit.pruning import importance
from compresskit.pruning.patterns import channel_mask, global_masks, pattern_mask
from compresskit.recipe import Prune

SAMPLE_DIGITS = 100
"""Digits on which the strength of a layer's inputs is measured, for importance="activation"."""

GRADIENT_DIGITS = 500
"""Digits over which gradients are averaged, for importance="gradient"; fewer where the network is large."""

_GRADIENT_MACS, _FEWEST_GRADIENTS = 2_500_000_000, 16

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Pruned:
    """A pruned float model.

    Attributes
    ----------
    base : bytes
        The float `.tflite`, with the channels that were removed cut out.
    weights : dict of int to ndarray of float32
        Weights that were edited: tensor index in `base` to the new array.
    """

    base: bytes
    weights: Mapping[int, NDArray[np.float32]]


def sample_of(steps: Iterable[Prune], digits: Split | None) -> Split | None:
    """Take the digits that the importances of some steps look at; None if none of them looks at any."""
    looked_at = {"activation": SAMPLE_DIGITS, "gradient": GRADIENT_DIGITS}
    counts = [looked_at[step.importance] for step in steps if step.importance in looked_at]
    return digits.take(max(counts)) if counts and digits is not None else None


@functools.lru_cache(maxsize=8)
def prune(tflite: bytes, steps: tuple[Prune, ...], sample: Split | None = None) -> Pruned:
    """Prune a float model, step after step.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    steps
        The steps, those that remove channels first.
    sample
        Digits for importance="activation" and "gradient" (`sample_of`).

    Returns
    -------
    Pruned
        Weights that no step touches are left out.

    Raises
    ------
    ValueError
        If a weight is not finite, a pattern does not fit a layer, every channel would go, or digits are missing; the
        sentence names the layer.
    """
    base = tflite
    for step in steps:
        if step.pattern == "channel":
            base = remove_channels(base, kept_channels(base, step, sample))
    weights, touched = dict(float_weights(base)), set[str]()
    for step in (step for step in steps if step.pattern != "channel"):
        chosen = {name: weights[name] for name in step.layers or weights}
        masks = _masks(step, _scores(base, step, chosen, sample, weights))
        # A negative weight times 0 is -0.0, and two kinds of zeros take half as many bytes again: -0.0 + 0.0 is 0.0.
        weights.update({name: array * masks[name] + np.float32(0) for name, array in chosen.items()})
        touched.update(chosen)
    return Pruned(base, {site.weights: weights[site.name] for site in layer_sites(base) if site.name in touched})


@functools.lru_cache(maxsize=32)
def layer_sites(tflite: bytes) -> tuple[Site, ...]:
    """Find the layers of a file that does not change."""
    return sites(files.read(tflite))


@functools.lru_cache(maxsize=16)
def float_weights(tflite: bytes) -> Weights:
    """Read the float weights of every layer, and refuse a model in which one is not finite.

    Returns
    -------
    dict of str to ndarray of float32
        Layer name to weights, in LiteRT's shapes; not to be written to.
    """
    model = files.read(tflite)
    weights = {}
    for site in sites(model):
        array = files.dequantized(model, model.subgraphs[0].tensors[site.weights])
        if not np.isfinite(array).all():
            raise ValueError(
                f"layer {site.name!r}: {int((~np.isfinite(array)).sum())} of its weights are infinite or undefined; "
                "the training went wrong: train again from finite weights"
            )
        weights[site.name] = array
    return weights


def kept_channels(base: bytes, step: Prune, sample: Split | None) -> dict[str, NDArray[np.bool_]]:
    """Choose the channels that stay, of every group that can be cut, or of those that the layers named make.

    Parameters
    ----------
    base
        A plain float `.tflite`.
    step
        With `pattern="channel"`.
    sample
        Digits, for the importances that look at them.

    Returns
    -------
    dict of str to ndarray of bool
        Name of the group (`compresskit.litert.surgery.groups`) to a mask over its channels.
    """
    known = {name: group for group in groups(base) for name in group.layers}
    for name in step.layers or ():
        if name not in known or not known[name].cuttable:
            reason = known[name].reason if name in known else "no channels are known for it"
            raise ValueError(f"Prune: layer {name!r}: its channels cannot be removed, since {reason}")
    chosen = [group for group in cuttable(base) if not step.layers or set(step.layers) & set(group.layers)]
    if not chosen:
        raise ValueError("Prune: there is no layer whose channels can be removed; choose another pattern")
    weights = float_weights(base)
    axes = {site.name: CHANNEL_AXIS[site.op] for site in layer_sites(base)}
    if step.importance == "gradient":  # changes of the loss add up with their signs, before they are compared
        slopes = _gradients(base, sample, weights)
        of_channel = {
            name: importance.taylor_channel(array, slopes[name], axis=axes[name], name=name)
            for name, array in weights.items()
        }
    else:
        scores = _scores(base, step, weights, sample, weights)
        of_channel = {name: importance.per_channel(array, axis=axes[name], pool="l2") for name, array in scores.items()}
    return {
        group.name: channel_mask(
            np.asarray(sum(of_channel[name] for name in group.layers)), _sparsity(step), name=group.name
        )
        for group in chosen
    }


def _sparsity(step: Prune) -> float:
    """Give the fraction asked for; the recipe has seen to it that there is one."""
    return 0.0 if step.sparsity is None else step.sparsity


def _masks(step: Prune, scores: Mapping[str, NDArray[np.float32]]) -> Mapping[str, NDArray[np.bool_]]:
    """Decide which weights stay."""
    if step.scope == "global":
        return global_masks(scores, _sparsity(step))
    return {name: pattern_mask(array, step.pattern, step.sparsity, name=name) for name, array in scores.items()}


def _scores(
    base: bytes, step: Prune, chosen: Weights, sample: Split | None, weights: Weights
) -> dict[str, NDArray[np.float32]]:
    """Score each weight as the step asks."""
    if step.importance == "random":
        return {
            name: importance.chance(array, seed=step.seed + index) for index, (name, array) in enumerate(chosen.items())
        }
    if step.importance == "activation":
        scales = _input_scales(base, sample, weights)
        return {name: importance.activation(array, scales[name], name=name) for name, array in chosen.items()}
    if step.importance == "gradient":
        slopes = _gradients(base, sample, weights)
        return {name: importance.taylor(array, slopes[name], name=name) for name, array in chosen.items()}
    return {name: importance.magnitude(array) for name, array in chosen.items()}


def _gradients(base: bytes, sample: Split | None, weights: Weights) -> Mapping[str, NDArray[np.float32]]:
    """Compute the gradient of the loss with respect to the weights as they are now; for the base itself, once."""
    original = float_weights(base)
    edited = {
        site.weights: weights[site.name] for site in layer_sites(base) if weights[site.name] is not original[site.name]
    }
    macs = sum(layer.macs for layer in layers(base))
    digits = _needed(sample, "gradient").take(max(_FEWEST_GRADIENTS, _GRADIENT_MACS // max(1, macs)))
    return weight_gradients(files.replace_constants(base, edited) if edited else base, digits)


def _needed(sample: Split | None, name: str) -> Split:
    """Give the digits that an importance looks at, or say that there are none."""
    if sample is None:
        raise ValueError(
            f"calibration: importance={name!r} needs digits to see what flows, and there are none; give "
            "calibration=digits.train, or choose importance='magnitude'"
        )
    return sample


def _input_scales(base: bytes, sample: Split | None, weights: Weights) -> dict[str, NDArray[np.float64]]:
    """Measure how strong each input channel of each layer is, on average over the sample."""
    model = files.read(base)
    graph = model.subgraphs[0]
    edited = {site.weights: weights[site.name] for site in layer_sites(base)}
    values = tensor_values(base, np.asarray(_needed(sample, "activation").take(SAMPLE_DIGITS).images), edited)
    scales = {}
    for site in layer_sites(base):
        source = files.tensor_name(graph.tensors[graph.operators[site.operator].inputs[0]])
        scale = importance.mean_absolute_input(values[source], name=site.name)
        if site.op == "DEPTHWISE_CONV_2D":  # one that makes several channels of each input puts them side by side
            scale = np.repeat(scale, weights[site.name].shape[3] // len(scale))
        scales[site.name] = scale
    return scales
