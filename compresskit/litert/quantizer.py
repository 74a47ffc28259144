"""Quantize a float `.tflite` with ai-edge-quantizer, each operator as a plan says, and write a plain flatbuffer.

ai-edge-quantizer edits the graph: types, scales, biases, the QUANTIZE and DEQUANTIZE operators in between. Which grid
the weights of a layer are put on is decided here, by `compresskit.quantization`, so that any width and any choice of
ranges goes through one door. Its own recipe manager matches operators by regular expressions and quietly leaves float
what it does not support; the plan below names every operator, and what is not supported is an error that names it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import CHANNEL_AXIS, Site, sites
from compresskit.litert.model import ModelT
from compresskit.quantization.affine import Grid
from compresskit.quantization.affine import quantize as to_integers
from compresskit.quantization.ranges import weight_grid

_ALGORITHM = "compresskit_grid"
_LARGEST_BIAS = 2.0**30
_TINY = 1e-12
_one_at_a_time = threading.Lock()
"""ai-edge-quantizer exchanges functions of its own modules while it works, to find out which operators tie scales
together (`ai_edge_quantizer.utils.constrained_ops_utils`): two threads in it at once get wrong graphs, or none."""


@dataclass(frozen=True)
class LayerPlan:
    """How one layer is to be stored and computed.

    Attributes
    ----------
    bits : int
        Width of the weights' grid: 2 to 8, 16 for float16, 32 for float.
    stored : int
        Width of the type that holds them: 2, 4, 8, 16 or 32.
    activations : int
        8 or 16 for integer inputs and outputs, 32 for float.
    granularity : str
        "channel", "tensor", or "block" with the number of weights that share a scale, such as "block32".
    ranges : str
        How the grid's reach is chosen, as `compresskit.quantization.ranges.weight_grid` takes it.
    compute : str
        "integer", or "float" for weights that are turned back into floats before use.
    grid : tuple of float
        Scales of a grid on which the weights lie already, one for the layer or one for each output channel. It is used
        in place of `ranges` where it loses nothing; empty if there is none.
    """

    bits: int
    stored: int
    activations: int
    granularity: str
    ranges: str
    compute: str = "integer"
    grid: tuple[float, ...] = ()

    @property
    def block_size(self) -> int:
        """Weights that share a scale along the inputs; 0 where a channel or the whole tensor does."""
        return int(self.granularity.removeprefix("block")) if self.granularity.startswith("block") else 0

    @property
    def dtype(self) -> str:
        """The type that the weights have in the file."""
        return {32: "float32", 16: "float16"}.get(self.stored, f"int{self.stored}")


Ranges = Mapping[str, tuple[float, float]]
"""Tensor name to the smallest and the largest value that flowed through it."""


def quantize(
    tflite: bytes,
    plans: Mapping[str, LayerPlan],
    activations: int,
    ranges: Ranges | None = None,
    io: str = "same",
    weights: Mapping[int, NDArray[Any]] | None = None,
) -> bytes:
    """Quantize a float model.

    Parameters
    ----------
    tflite
        A plain float32 `.tflite` with unique tensor names.
    plans
        Layer name to its plan; every layer that holds weights has one.
    activations
        8 or 16: integers for what flows between layers, wherever no plan says otherwise; 32: float.
    ranges
        Range of each tensor that flows, needed when `activations`, or that of a plan, is below 32.
    io
        What goes in and comes out when `activations` is below 32: "same", "uint8" or "float32".
    weights
        Float weights that take the place of those in the file: tensor index to array.

    Returns
    -------
    bytes
        The quantized model, a plain flatbuffer.

    Raises
    ------
    ValueError
        If an operator cannot be quantized as planned; the sentence names it.
    """
    with _one_at_a_time:
        return _quantize(tflite, plans, activations, ranges or {}, io, weights or {})


def _quantize(
    tflite: bytes,
    plans: Mapping[str, LayerPlan],
    activations: int,
    ranges: Ranges,
    io: str,
    weights: Mapping[int, NDArray[Any]],
) -> bytes:
    """Quantize, alone in the process."""
    _register()
    from ai_edge_quantizer import params_generator

    model = files.twin(_unpacked(tflite))
    files.replace_buffers(model, weights)
    model.signatureDefs = model.signatureDefs or []  # ai-edge-quantizer goes through them where `io` changes types
    reach = {name: _alive(*found) for name, found in ranges.items()}
    table = _table(model, plans, activations, reach, io)
    calibration = {name: {"min": _value(low), "max": _value(high)} for name, (low, high) in reach.items()}
    parameters = params_generator.ParamsGenerator(model).generate_quantization_parameters(table, calibration, False)
    return files.write(_modifier()(model).modify_model(parameters))


@functools.lru_cache(maxsize=8)
def _unpacked(tflite: bytes) -> ModelT:
    """Unpack a file as ai-edge-quantizer wants it, once: a slider asks for the same one again and again."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils

    return tfl_flatbuffer_utils.read_model(bytearray(tflite))


@functools.cache
def _modifier() -> Any:
    """Make ai-edge-quantizer's graph editor hand over its result as objects.

    It would write them to a file with the large buffers outside, which had to be read and written once more.
    """
    from ai_edge_quantizer.model_modifier import ModelModifier

    class Modifier(ModelModifier):  # type: ignore[misc]
        def _serialize_model(self, quantized_model: ModelT, *_: Any, **__: Any) -> ModelT:
            return quantized_model

        def _serialize_small_model(self, quantized_model: ModelT) -> ModelT:
            return quantized_model

    return Modifier


def _alive(low: float, high: float) -> tuple[float, float]:
    """Give a tensor that was 0 throughout the range from 0 to 1: on a grid of no width LiteRT cannot multiply.

    Behind a layer whose weights are nearly all gone, that is what there is to be measured.
    """
    return (low, high) if max(high, 0.0) - min(low, 0.0) > _TINY else (0.0, 1.0)


def _value(number: float) -> NDArray[np.float32]:
    """Shape a bound as ai-edge-quantizer wants it."""
    return np.full((1, 1), number, np.float32)


class _Table:
    """Stands where ai-edge-quantizer expects its recipe manager: looks each operator up by its output tensors."""

    def __init__(
        self, rows: Mapping[str, tuple[str, Any]], default: tuple[str, Any], interface: tuple[str, Any]
    ) -> None:
        self._rows = rows
        self._default = default
        self._interface = interface

    def need_calibration(self) -> bool:
        """Calibration is checked by the caller, which knows the digits."""
        return False

    def get_quantization_configs(self, target_op_name: Any, scope_name: str) -> tuple[str, Any]:
        """Give algorithm and settings for an operator; `scope_name` lists its output tensors."""
        # The graph's inputs and outputs are operators to ai-edge-quantizer; an output shares its tensor with a layer.
        if target_op_name.value in ("INPUT", "OUTPUT"):
            return self._interface
        algorithm, config = self._rows.get(scope_name, self._default)
        if config is None:
            return algorithm, config
        return algorithm, _checked(algorithm, target_op_name, config, scope_name)


def _table(model: ModelT, plans: Mapping[str, LayerPlan], activations: int, ranges: Ranges, io: str) -> _Table:
    """Write the plan as ai-edge-quantizer's settings, a row for each layer."""
    from ai_edge_quantizer import algorithm_manager

    graph = model.subgraphs[0]
    nothing = (algorithm_manager.AlgorithmName.NO_QUANTIZE, None)
    rows = {}
    for site in sites(model):
        outputs = graph.operators[site.operator].outputs
        scope = "".join(files.tensor_name(graph.tensors[index]) + ";" for index in outputs)
        plan = plans[site.name]
        floor = _scale_floor(model, site, ranges) if plan.activations == 8 else ()  # with 16 bits, biases have 64
        rows[scope] = nothing if plan.bits == 32 else _settings(plan, site.name, floor)
    if activations == 32:
        return _Table(rows, nothing, nothing)
    inside = _settings(LayerPlan(8, 8, activations, "channel", "minmax"), "")
    return _Table(rows, inside, {"same": inside, "uint8": _unsigned(inside), "float32": nothing}[io])


def _unsigned(settings: tuple[str, Any]) -> tuple[str, Any]:
    """Give the same settings with activations from 0 to 255."""
    from ai_edge_quantizer import qtyping

    algorithm, config = settings
    flowing = replace(config.activation_tensor_config, dtype=qtyping.TensorDataType.UINT)
    return algorithm, replace(config, activation_tensor_config=flowing)


def _scale_floor(model: ModelT, site: Site, ranges: Ranges) -> tuple[float, ...]:
    """Compute, for each output channel, the smallest weight scale with which its bias still fits into 32 bits.

    The bias is stored as `round(b / (S_in S_w))`. Where pruning left a channel with tiny weights or none, `S_w` of the
    largest weight would make that overflow, and the bias would be lost without a word.
    """
    if site.bias is None:
        return ()
    graph = model.subgraphs[0]
    low, high = ranges[files.tensor_name(graph.tensors[graph.operators[site.operator].inputs[0]])]
    input_scale = max((max(high, 0.0) - min(low, 0.0)) / 255, _TINY)
    bias = files.stored(model, graph.tensors[site.bias]).astype(np.float64)
    return tuple(np.abs(bias) / input_scale / _LARGEST_BIAS)


def _settings(plan: LayerPlan, layer: str, floor: tuple[float, ...] = ()) -> tuple[str, Any]:
    """Write one plan as an algorithm and an `OpQuantizationConfig`."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    if plan.stored == 16:
        cast = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        return algorithm_manager.AlgorithmName.FLOAT_CASTING, qtyping.OpQuantizationConfig(
            weight_tensor_config=cast,
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        )
    weights = qtyping.TensorQuantizationConfig(
        num_bits=plan.stored,
        symmetric=True,
        granularity=qtyping.QuantGranularity[
            f"BLOCKWISE_{plan.block_size}" if plan.block_size else f"{plan.granularity.upper()}WISE"
        ],
        algorithm_params={"bits": plan.bits, "ranges": plan.ranges, "layer": layer, "floor": floor, "grid": plan.grid},
    )
    flowing = None
    if plan.activations < 32:  # LiteRT wants 16-bit activations symmetric, 8-bit ones with a zero point
        flowing = qtyping.TensorQuantizationConfig(num_bits=plan.activations, symmetric=plan.activations == 16)
    return _ALGORITHM, qtyping.OpQuantizationConfig(
        activation_tensor_config=flowing,
        weight_tensor_config=weights,
        compute_precision=qtyping.ComputePrecision[plan.compute.upper()],
        explicit_dequantize=plan.compute == "float",
    )


def _checked(algorithm: str, op: Any, config: Any, scope: str) -> Any:
    """Refuse settings that ai-edge-quantizer's policy does not list for this operator."""
    from ai_edge_quantizer import algorithm_manager

    if algorithm != _ALGORITHM:
        return config
    weights = config.weight_tensor_config
    plain = replace(config, weight_tensor_config=replace(weights, algorithm_params={}))
    try:
        algorithm_manager.check_op_quantization_config(algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, op, plain)
    except ValueError as error:
        layer = weights.algorithm_params["layer"] or scope.rstrip(";")
        flowing = config.activation_tensor_config.num_bits if config.activation_tensor_config else 32
        raise ValueError(
            f"layer {layer!r}: LiteRT's {op.value} cannot have {weights.num_bits}-bit weights with activations of "
            f"{flowing} bits, {weights.granularity.value.lower()}; choose other bits for this layer"
        ) from error
    return config


@functools.cache
def _register() -> None:
    """Make our choice of grids known to ai-edge-quantizer, as one more algorithm for every operator it knows."""
    from ai_edge_quantizer import algorithm_manager
    from ai_edge_quantizer.algorithms.uniform_quantize import naive_min_max_quantize

    for op, materialize in algorithm_manager.MIN_MAX_OP_NAME_MATERIALIZE_FUNC_DICT.items():
        algorithm_manager.register_quantized_op(
            _ALGORITHM,
            op,
            naive_min_max_quantize.init_qsvs,
            calibration_func=naive_min_max_quantize.min_max_calibrate,
            materialize_func=functools.partial(materialize, _tensor_parameters),
        )


def _tensor_parameters(op_info: Any, config: Any, content: Any = None, range_: Any = None) -> Any:
    """Give scale, zero point and integers for a tensor; called back by ai-edge-quantizer."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithms.uniform_quantize import naive_min_max_quantize
    from ai_edge_quantizer.algorithms.uniform_quantize.uniform_quantize_tensor import (
        extract_block_size_from_granularity,
    )

    axis = CHANNEL_AXIS.get(op_info.op_name.value.replace("CONV_2D_TRANSPOSE", "TRANSPOSE_CONV"))
    if content is None or axis is None or not config.algorithm_params:
        return naive_min_max_quantize.get_tensor_quant_params(op_info, config, content, range_)
    settings = config.algorithm_params
    block = extract_block_size_from_granularity(config.granularity)
    if block:
        if content.shape[-1] % block:
            raise ValueError(
                f"layer {settings['layer']!r}: its {content.shape[-1]} inputs cannot be cut into blocks of {block}; "
                "choose another granularity for it"
            )
        along = content.ndim - 1
    else:
        along = axis if config.granularity is qtyping.QuantGranularity.CHANNELWISE else None
    grid = _known_grid(content, settings, along, block) or weight_grid(
        content, settings["bits"], axis=along, block_size=block, method=settings["ranges"]
    )
    if not block:
        grid = _raised(grid, content, settings["floor"])
    shape = grid.scale.shape if block else [-1 if dimension == along else 1 for dimension in range(content.ndim)]
    return qtyping.UniformQuantParams(
        num_bits=config.num_bits,
        quantized_dimension=along,
        scale=grid.scale.reshape(shape),
        zero_point=grid.zero_point.reshape(shape),
        symmetric=True,
        quantized_data=to_integers(content, grid),
        block_size=block,
    )


def _known_grid(content: NDArray[Any], settings: Mapping[str, Any], axis: int | None, block: int) -> Grid | None:
    """Give the grid that the weights lie on already, if this many bits can hold it; None if there is none."""
    scales = np.asarray(settings["grid"], np.float32)
    if not scales.size or block or (axis is None and scales.size > 1):
        return None
    if axis is not None:
        scales = np.broadcast_to(scales, (content.shape[axis],))
        spread = scales.reshape([-1 if each == axis % content.ndim else 1 for each in range(content.ndim)])
    else:
        scales = spread = scales.reshape(())
    # 8-bit weights leave out -128, as LiteRT's specification asks.
    grid = Grid(
        np.array(scales), np.zeros(scales.shape, np.int32), settings["bits"], narrow=settings["bits"] == 8, axis=axis
    )
    numbers = content / spread
    lossless = np.abs(numbers - np.rint(numbers)).max(initial=0) < 1e-3
    inside = numbers.min(initial=0) > grid.lowest - 0.5 and numbers.max(initial=0) < grid.highest + 0.5
    return grid if lossless and inside else None


def _raised(grid: Grid, content: NDArray[Any], floor: tuple[float, ...]) -> Grid:
    """Raise scales that are too small for the layer's bias; a channel of zeros takes the largest scale of the layer."""
    if grid.axis is None:
        lowest = np.max(floor, initial=0.0)
        return replace(grid, scale=np.maximum(grid.scale, np.float32(lowest)))
    empty = ~content.any(axis=tuple(axis for axis in range(content.ndim) if axis != grid.axis % content.ndim))
    scale = np.where(empty, grid.scale.max(), grid.scale)
    return replace(grid, scale=np.maximum(scale, np.asarray(floor or 0.0, np.float32)).astype(np.float32))
