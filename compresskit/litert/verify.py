"""Does a quantized file do what was asked? Types, weights, and every layer's arithmetic, on probe digits.

A converter can accept a setting and leave the layer float, pack weights that the kernel reads differently, or pick a
kernel that computes nonsense; all three have been seen, none says a word. So each file is checked before it is used:

1. every layer's weights have the type that was planned, and every tensor that flows has too;
2. the weights stored are those planned: within half a step of the float weights they stand for, or clipped;
3. every operator, run by LiteRT inside the file, gives what LiteRT computes in float from the *same* inputs and the
   *same* dequantized weights, within the bounds below.

The third check works operator by operator, so an error cannot hide behind another one, and it names the layer.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import CHANNEL_AXIS, sites
from compresskit.litert.model import ModelT
from compresskit.litert.quantizer import LayerPlan
from compresskit.litert.runtime import Session, TensorForm, decode, encode, outputs

STEPS_BOUND = 2.0
"""Largest root-mean-square difference, in steps of the output's own grid, where outputs are integers."""

NOISE_BOUND = 4.0
"""Largest ratio of the difference to the rounding noise expected where inputs are rounded while running."""

FLOAT_BOUND = 1e-3
"""Largest root-mean-square difference, relative to that of the output, where everything is float."""

SAME_BOUND = 0.05
"""Largest root-mean-square difference between a file's float outputs and those of its copy with all tensors in view."""

_CARRIERS = ("QUANTIZE", "DEQUANTIZE")

_SHAPES = ("int32", "int64")
"""What sizes are computed in, as for a Reshape: no examples along their first axis, and nothing to compare."""


def check_file(
    small: bytes,
    float_model: bytes,
    weights: Mapping[int, NDArray[Any]],
    plans: Mapping[str, LayerPlan],
    activations: int,
    images: NDArray[Any],
) -> None:
    """Check a quantized file against the float model that it was made from.

    Parameters
    ----------
    small
        The quantized file.
    float_model
        The float file before weights were edited.
    weights
        The edited float weights that were quantized: tensor index in `float_model` to array.
    plans
        What was asked for, layer by layer.
    activations
        Bits of what flows where no plan says otherwise: 8, 16 or 32.
    images : ndarray, shape (n, ...)
        Probe examples; a handful is enough.

    Raises
    ------
    ValueError
        If the file does not do what was asked; the sentence names the layer and the reason.
    """
    model = files.read(small)
    _check_types(model, plans)
    _check_flow(model, plans, activations)
    stored = _stored_weights(model, float_model)
    _check_weights(model, float_model, weights, plans, stored)
    try:
        _check_operators(model, small, float_model, stored, plans, images)
    except RuntimeError as error:  # LiteRT's own refusal
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"Quantize: LiteRT refuses to run the file ({reason}); choose other bits or another granularity"
        ) from error


def check_same(cut: bytes, whole: bytes, images: NDArray[Any]) -> None:
    """Check that a float file computes what another does, but for the order of its sums.

    Parameters
    ----------
    cut
        A file in which layers were replaced by products of others.
    whole
        The file with these products as its weights.
    images : ndarray, shape (n, ...)
        Probe examples.

    Raises
    ------
    ValueError
        If the outputs differ.
    """
    expected = outputs(whole, images, workers=1)
    error = _rms(outputs(cut, images, workers=1) - expected)
    if not error <= FLOAT_BOUND * _rms(expected) + 1e-6:
        raise ValueError(
            f"Factorize: the file computes something else than the products of its layers (off by {error:.3g}); "
            "choose another rank"
        )


def _check_types(model: ModelT, plans: Mapping[str, LayerPlan]) -> None:
    """Refuse a file in which a layer's weights are not of the type that was planned."""
    for site in sites(model):
        kind = files.DTYPES[model.subgraphs[0].tensors[site.weights].type]
        planned = plans[site.name].dtype
        if kind != planned:
            raise ValueError(f"layer {site.name!r}: its weights are {kind} in the file, not {planned} as asked for")


def _check_flow(model: ModelT, plans: Mapping[str, LayerPlan], activations: int) -> None:
    """Refuse a file in which an operator was left to compute with other activations than planned."""
    graph = model.subgraphs[0]
    layer_at = {site.operator: site.name for site in sites(model)}
    for index, op in enumerate(graph.operators):
        kind = files.operator_name(model, op)
        if kind in _CARRIERS:
            continue
        name = layer_at.get(index, kind)
        wanted = {8: "int8", 16: "int16", 32: "float32"}[plans[name].activations if name in plans else activations]
        for tensor in (graph.tensors[each] for each in op.outputs):
            found = files.DTYPES[tensor.type]
            if found != wanted and found in ("float32", "int8", "int16"):
                raise ValueError(
                    f"layer {name!r}: what it puts out is {found}, not {wanted} as asked for; LiteRT has no such "
                    f"{kind}: choose other activations for it"
                )


def _stored_weights(model: ModelT, float_model: bytes) -> dict[int, NDArray[np.float32]]:
    """Dequantize each layer's weights, keyed by the tensor that holds them in the float model."""
    return {
        original.weights: files.dequantized(model, model.subgraphs[0].tensors[site.weights])
        for site, original in zip(sites(model), _float_sites(float_model), strict=True)
    }


@functools.lru_cache(maxsize=32)
def _float_sites(float_model: bytes) -> tuple[Any, ...]:
    return sites(files.read(float_model))


def _check_weights(
    model: ModelT,
    float_model: bytes,
    weights: Mapping[int, NDArray[Any]],
    plans: Mapping[str, LayerPlan],
    stored: Mapping[int, NDArray[np.float32]],
) -> None:
    """Refuse stored weights that are further than half a step from the float ones, unless they are clipped."""
    source = _float_weights(float_model)
    for site, original in zip(sites(model), _float_sites(float_model), strict=True):
        plan = plans[site.name]
        wanted = weights.get(original.weights, source[original.weights])
        got = stored[original.weights]
        if plan.bits >= 16:
            allowed = np.abs(wanted) * np.float32(1e-3 if plan.bits == 16 else 0) + np.float32(1e-7)
            wrong = np.abs(got - wanted) > allowed
        else:
            scale = _scale(model, site, got.shape)
            highest = 2 ** (plan.bits - 1) - 1
            lowest = -highest if plan.bits == 8 else -highest - 1  # 8-bit weights leave out -128
            inside = np.clip(wanted, np.float32(lowest) * scale, np.float32(highest) * scale)
            wrong = np.abs(got - inside) > np.float32(0.5001) * scale
        if wrong.any():
            raise ValueError(
                f"layer {site.name!r}: {int(wrong.sum())} of its {wrong.size} stored weights are not the nearest on "
                f"the {plan.bits}-bit grid; the file was packed wrongly: choose other bits for this layer"
            )


@functools.lru_cache(maxsize=32)
def _float_weights(float_model: bytes) -> dict[int, NDArray[np.float32]]:
    """Read each layer's float weights, keyed by tensor."""
    model = files.read(float_model)
    return {site.weights: files.dequantized(model, model.subgraphs[0].tensors[site.weights]) for site in sites(model)}


def _scale(model: ModelT, site: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Give a layer's weight scales in a shape that broadcasts against the weights."""
    tensor = model.subgraphs[0].tensors[site.weights]
    blocks = files.block_scales(model, tensor)
    if blocks is not None:
        return blocks
    scale = np.asarray(tensor.quantization.scale, np.float32)
    along = [1] * len(shape)
    if len(scale) > 1:
        along[CHANNEL_AXIS[site.op]] = len(scale)
    return scale.reshape(along)


@dataclass(frozen=True)
class _Exploded:
    """A float model cut apart: every operator reads its own graph inputs, every result is a graph output.

    Attributes
    ----------
    tflite : bytes
        The cut model.
    feeds : tuple of (int, int)
        For each graph input: the operator it belongs to, and which of that operator's inputs it is.
    results : tuple of (int, int)
        For each graph output: the operator, and which of its outputs it is.
    """

    tflite: bytes
    feeds: tuple[tuple[int, int], ...]
    results: tuple[tuple[int, int], ...]


@functools.lru_cache(maxsize=16)
def _explode(float_model: bytes) -> _Exploded:
    """Cut a float model apart."""
    model = files.read(float_model)
    graph = model.subgraphs[0]
    tensors = list(graph.tensors)
    feeds, inputs, results, outputs = [], [], [], []
    for number, op in enumerate(graph.operators):
        sources = [int(index) for index in op.inputs]
        for position, index in enumerate(sources):
            if index >= 0 and not files.is_constant(model, index) and _is_real(tensors[index]):
                sources[position] = len(tensors)
                inputs.append(len(tensors))
                feeds.append((number, position))
                tensors.append(_renamed(tensors[index], f"feed_{number}_{position}"))
        op.inputs = np.asarray(sources, np.int32)
        for position, index in enumerate(op.outputs):
            if _is_real(tensors[index]):
                outputs.append(int(index))
                results.append((number, position))
    graph.tensors = tensors
    graph.inputs, graph.outputs = np.asarray(inputs, np.int32), np.asarray(outputs, np.int32)
    model.signatureDefs = []
    return _Exploded(files.write(model), tuple(feeds), tuple(results))


def _is_real(tensor: Any) -> bool:
    """Whether a tensor carries real numbers (and not, say, a shape)."""
    return files.DTYPES[tensor.type] == "float32"


def _renamed(tensor: Any, name: str) -> Any:
    """Copy a tensor under another name."""
    twin = type(tensor)(**vars(tensor))
    twin.name = name.encode()
    return twin


def _check_operators(
    model: ModelT,
    small: bytes,
    float_model: bytes,
    stored: Mapping[int, NDArray[np.float32]],
    plans: Mapping[str, LayerPlan],
    images: NDArray[Any],
) -> None:
    """Compare each operator with its float twin, fed with the same numbers."""
    names = {site.operator: site.name for site in sites(model)}
    operators = list(_computing(model))
    flow, same = _run_exposed(model, small, images)
    parts = _explode(float_model)
    feeds = []
    for number, position in parts.feeds:
        _, op = operators[number]
        feeds.append(flow[int(op.inputs[position])].real)
    twin = Session(files.replace_constants(parts.tflite, stored), len(images))
    expected = _run_twin(twin, feeds, len(images))
    for (number, position), reference in zip(parts.results, expected, strict=True):
        index, op = operators[number]
        name = names.get(index, files.operator_name(model, op))
        got = flow[int(op.outputs[position])]
        error, bound, unit = _difference(model, op, got, reference, flow, plans.get(name))
        if not error <= bound:  # also refuses a difference that is not a number
            found = f"off by {error:.3g} {unit}" if np.isfinite(error) else "its output is not a number"
            raise ValueError(
                f"layer {name!r}: LiteRT's {files.operator_name(model, op)} does not compute what its weights and "
                f"inputs say ({found}; at most {bound:.3g} {unit} is allowed); choose other bits for this layer"
            )
    if not same:
        raise ValueError(
            "Quantize: the file computes something else when its inner tensors are looked at; choose other bits"
        )


def _computing(model: ModelT) -> Iterator[tuple[int, Any]]:
    """Go through the operators that compute, leaving out those that only change the type of numbers."""
    for index, op in enumerate(model.subgraphs[0].operators):
        if files.operator_name(model, op) not in _CARRIERS:
            yield index, op


@dataclass(frozen=True)
class _Flow:
    """What a tensor of the quantized file held: its real values, and how it stands for them."""

    real: NDArray[np.float32]
    form: TensorForm


def _run_exposed(model: ModelT, small: bytes, images: NDArray[Any]) -> tuple[dict[int, _Flow], bool]:
    """Run the quantized file on the probes with everything that flows in view; tell whether it ran as it ships."""
    graph = model.subgraphs[0]
    computed = [
        int(index)
        for op in graph.operators
        for index in op.outputs
        if not (files.operator_name(model, op) == "DEQUANTIZE" and files.is_constant(model, int(op.inputs[0])))
        and (int(index) in graph.outputs or files.DTYPES[graph.tensors[index].type] not in _SHAPES)
    ]
    session = Session(files.expose(small, computed), len(images))
    shipped = Session(small, len(images))
    encoded = encode(images, session.inputs[0])
    runs, same = [], True
    for start in range(0, len(images), session.batch):
        chunk = encoded[start : start + session.batch]
        results = session(chunk)
        for index, result in zip(graph.outputs, shipped(chunk), strict=True):
            same = same and _same_run(result, results[computed.index(int(index))])
        runs.append(results)
    joined = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
    flow = {
        index: _Flow(decode(values, form), form)
        for index, values, form in zip(computed, joined, session.outputs, strict=True)
    }
    flow[int(graph.inputs[0])] = _Flow(decode(encoded, session.inputs[0]), session.inputs[0])
    return flow, same


def _same_run(shipped: NDArray[Any], shown: NDArray[Any]) -> bool:
    """Tell whether a file and its copy with everything in view gave the same outputs.

    Integers are equal. Floats differ where activations are rounded while running: LiteRT may choose other kernels,
    which round by digit or by batch.
    """
    if shipped.dtype.kind != "f":
        return np.array_equal(shipped, shown)
    if not (np.isfinite(shipped).all() and np.isfinite(shown).all()):
        return False
    return _rms(shipped - shown) <= SAME_BOUND * _rms(shown) + 1e-6


def _run_twin(twin: Session, feeds: list[NDArray[np.float32]], count: int) -> list[NDArray[np.float32]]:
    """Run the cut float model on the inputs that its operators had in the quantized file."""
    order = [int(np.prod(feed.shape)) for feed in feeds]
    if len(order) != len(twin.inputs):
        raise ValueError(
            "Quantize: the quantized file has other operators than the float model; choose other activations"
        )
    runs = [twin(*(feed[start : start + twin.batch] for feed in feeds)) for start in range(0, count, twin.batch)]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def _difference(
    model: ModelT,
    op: Any,
    got: _Flow,
    reference: NDArray[np.float32],
    flow: Mapping[int, _Flow],
    plan: LayerPlan | None,
) -> tuple[float, float, str]:
    """Measure how far an operator is from its float twin, and how far it may be."""
    if got.form.scale:
        limits = np.iinfo(got.form.dtype)
        low = (limits.min - got.form.zero_point) * got.form.scale
        high = (limits.max - got.form.zero_point) * got.form.scale
        error = _rms(got.real - np.clip(reference, low, high)) / got.form.scale
        return error, STEPS_BOUND, "steps of its output"
    error = _rms(got.real - reference)
    floor = FLOAT_BOUND * _rms(reference) + 1e-6
    if plan is None or plan.bits > 8 or plan.compute == "float":
        return error, floor, "(root mean square)"
    # Inputs are rounded to 8 bits while running: a step of at most the largest magnitude / 127, its noise spread
    # evenly over a step (standard deviation step / sqrt(12)), summed over the weights of an output.
    step = float(np.abs(flow[int(op.inputs[0])].real).max()) / 127
    weights = files.dequantized(model, model.subgraphs[0].tensors[int(op.inputs[1])])
    axis = CHANNEL_AXIS[files.operator_name(model, op)]
    norms = np.sqrt(np.square(np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)).sum(axis=1))
    return error, NOISE_BOUND * step / np.sqrt(12) * _rms(norms) + floor, "(root mean square)"


def _rms(values: NDArray[Any]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0
