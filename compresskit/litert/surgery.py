"""Remove channels from a float `.tflite`: not set to zero, but gone, with every weight that made or read them.

Channels hang together. What a convolution puts out is what a depthwise convolution after it filters, what an addition
adds to another branch, and what the next layer reads; after a flattening each channel is read once for every place.
A *group* is a set of tensors whose channels can only be removed together. Removing a channel of a group cuts it out of
every layer that makes it (a row of weights, a bias), works on it, or reads it (a column of weights).

The smaller network is exact: it computes what the original computes when everything that makes or shifts the removed
channels is zero. So a group can be cut only where zero stays zero on the way: a sigmoid turns 0 into one half, and a
softmax reads all channels at once. Such groups are left as they are, and the reason is given.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from compresskit.litert import model as files
from compresskit.litert.inspect import sites
from compresskit.litert.model import ModelT

Kept = NDArray[np.bool_]
"""For each channel of a group, whether it stays."""

_ZERO_STAYS_ZERO = frozenset(
    {
        *("AVERAGE_POOL_2D", "MAX_POOL_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
        *("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "ELU", "GELU", "HARD_SWISH", "TANH"),
        *("ABS", "NEG", "SQUARE", "SQRT"),
    }
)
_JOINING = frozenset(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])


@dataclass(frozen=True)
class Group:
    """Channels that can only be removed together.

    Attributes
    ----------
    name : str
        The first layer that makes them.
    layers : tuple of str
        All layers that make them or work on them one by one, in the order in which they run.
    readers : tuple of str
        The layers that read them.
    size : int
        How many channels there are.
    reason : str
        Why they cannot be cut; empty if they can.
    """

    name: str
    layers: tuple[str, ...]
    readers: tuple[str, ...]
    size: int
    reason: str

    @property
    def cuttable(self) -> bool:
        """Whether channels can be removed."""
        return not self.reason


@dataclass
class _Channels:
    """A group while it is being found: a node of a disjoint-set forest."""

    size: int
    reason: str = ""
    parent: _Channels | None = None
    made_by: list[str] = field(default_factory=list)
    read_by: list[str] = field(default_factory=list)

    def root(self) -> _Channels:
        """Find what this group was joined into."""
        return self if self.parent is None else self.parent.root()


@dataclass(frozen=True)
class _Slice:
    """A constant tensor, used by one operator, of which an axis belongs to a group."""

    operator: int
    position: int
    axis: int
    channels: _Channels
    makes: bool


@dataclass
class _Anatomy:
    """How the channels of a model hang together."""

    of_tensor: dict[int, _Channels] = field(default_factory=dict)
    slices: list[_Slice] = field(default_factory=list)
    shapes: list[tuple[int, int]] = field(default_factory=list)
    """Operators and positions of constants that hold a target shape whose last entry counts channels."""


def groups(tflite: bytes) -> tuple[Group, ...]:
    """Find the groups of channels of a float model.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.

    Returns
    -------
    tuple of Group
        Every group that a layer with weights makes, in the order in which the layers run.
    """
    return tuple(
        Group(found.made_by[0], tuple(found.made_by), tuple(found.read_by), found.size, found.reason)
        for found in _made(_anatomy(files.read(tflite)))
    )


def remove_channels(tflite: bytes, kept: Mapping[str, Kept]) -> bytes:
    """Cut channels out of a float model.

    Parameters
    ----------
    tflite
        A plain float `.tflite`.
    kept
        Group name to a mask over its channels; groups that are not named stay whole.

    Returns
    -------
    bytes
        A smaller plain `.tflite` with the same inputs and outputs.

    Raises
    ------
    ValueError
        If there is no such group, it cannot be cut, the mask does not fit, or no channel would be left.
    """
    model = copy.deepcopy(files.read(tflite))
    anatomy = _anatomy(model)
    masks = _masks(anatomy, kept)
    graph = model.subgraphs[0]
    for each in anatomy.slices:
        mask = masks.get(id(each.channels.root()))
        if mask is not None:
            source = graph.tensors[graph.operators[each.operator].inputs[each.position]]
            values = files.stored(model, source)
            repeat = values.shape[each.axis] // mask.size
            _replace(model, each, np.compress(np.tile(mask, repeat), values, axis=each.axis))
    _shrink_shapes(model, anatomy, masks)
    tidy(model)
    return files.write(model)


def zero_channels(tflite: bytes, kept: Mapping[str, Kept]) -> bytes:
    """Set to zero what `remove_channels` would cut from the layers that make or shift channels: the same function.

    Parameters, errors as for `remove_channels`. The file keeps its size.
    """
    model = files.read(tflite)
    anatomy = _anatomy(model)
    masks = _masks(anatomy, kept)
    graph = model.subgraphs[0]
    for each in anatomy.slices:
        mask = masks.get(id(each.channels.root()))
        if mask is not None and each.makes:
            source = graph.tensors[graph.operators[each.operator].inputs[each.position]]
            values = files.stored(model, source)
            along = [1] * values.ndim
            along[each.axis] = -1
            _replace(model, each, values * np.tile(mask, values.shape[each.axis] // mask.size).reshape(along))
    tidy(model)
    return files.write(model)


def _masks(anatomy: _Anatomy, kept: Mapping[str, Kept]) -> dict[int, Kept]:
    """Check the masks; key them by the group's node."""
    by_name = {found.made_by[0]: found for found in _made(anatomy)}
    masks = {}
    for name, mask in kept.items():
        if name not in by_name:
            raise ValueError(f"channels of {name!r}: there is no such group; the groups are {', '.join(by_name)}")
        found = by_name[name]
        if found.reason:
            raise ValueError(f"channels of {name!r} cannot be cut: {found.reason}")
        chosen = np.asarray(mask, bool)
        if chosen.shape != (found.size,):
            raise ValueError(f"channels of {name!r}: the mask has shape {chosen.shape}, but there are {found.size}")
        if not chosen.any():
            raise ValueError(f"channels of {name!r}: all {found.size} would go; keep at least one")
        if not chosen.all():
            masks[id(found)] = chosen
    return masks


def _made(anatomy: _Anatomy) -> list[_Channels]:
    """List the groups that a layer makes, each once."""
    roots: dict[int, _Channels] = {}
    for each in anatomy.slices:
        root = each.channels.root()
        if root.made_by:
            roots.setdefault(id(root), root)
    return list(roots.values())


def _join(one: _Channels, other: _Channels) -> _Channels:
    """Make two groups one."""
    first, second = one.root(), other.root()
    if first is second:
        return first
    if first.size != second.size:
        for each in (first, second):
            each.reason = each.reason or "an operator broadcasts its channels"
        return first
    second.parent = first
    first.reason = first.reason or second.reason
    first.made_by += [name for name in second.made_by if name not in first.made_by]
    first.read_by += [name for name in second.read_by if name not in first.read_by]
    return first


def _anatomy(model: ModelT) -> _Anatomy:
    """Walk through the graph in running order and find what hangs together."""
    graph = model.subgraphs[0]
    found = _Anatomy()
    names = {site.operator: site.name for site in sites(model)}
    for index in graph.inputs:
        found.of_tensor[int(index)] = _Channels(_channels(graph.tensors[index]), "they are the model's input")
    for number, op in enumerate(graph.operators):
        kind = files.operator_name(model, op)
        rule = _RULES.get(kind, _through if kind in _ZERO_STAYS_ZERO else _joined if kind in _JOINING else _unknown)
        rule(_Step(model, found, number, op, kind, names.get(number, "")))
    for index in graph.outputs:
        _block(found.of_tensor.get(int(index)), "they are the model's output")
    return found


def _channels(tensor: Any) -> int:
    """Count the entries of a tensor's last axis."""
    dims = files.shape(tensor)
    return dims[-1] if dims else 1


def _block(channels: _Channels | None, reason: str) -> None:
    """Forbid to cut a group; the first reason stays."""
    if channels is not None:
        root = channels.root()
        root.reason = root.reason or reason


@dataclass(frozen=True)
class _Step:
    """One operator on the walk."""

    model: ModelT
    found: _Anatomy
    number: int
    op: Any
    kind: str
    layer: str

    def tensor(self, position: int) -> Any:
        """Give the tensor at an input position."""
        return self.model.subgraphs[0].tensors[self.op.inputs[position]]

    def has(self, position: int) -> bool:
        """Tell whether the operator has this optional input."""
        return len(self.op.inputs) > position and self.op.inputs[position] >= 0

    def constant(self, position: int) -> bool:
        """Tell whether an input is held in the file."""
        return files.is_constant(self.model, int(self.op.inputs[position]))

    def reads(self, position: int = 0) -> _Channels:
        """Give the group of an input."""
        index = int(self.op.inputs[position])
        if index not in self.found.of_tensor:
            unseen = _Channels(_channels(self.tensor(position)), "they come from an operator that is not understood")
            self.found.of_tensor[index] = unseen
        return self.found.of_tensor[index].root()

    def puts_out(self, channels: _Channels) -> None:
        """Say which group the outputs belong to."""
        for index in self.op.outputs:
            self.found.of_tensor[int(index)] = channels

    def cut(self, position: int, axis: int, channels: _Channels, makes: bool) -> None:
        """Note that an axis of a constant belongs to a group."""
        self.found.slices.append(_Slice(self.number, position, axis, channels, makes))


def _convolution(step: _Step) -> None:
    """Take a convolution: it reads one group and makes another."""
    before, after = step.reads(), _Channels(files.shape(step.tensor(1))[0])
    if not step.constant(1) or before.size != files.shape(step.tensor(1))[3]:
        _block(before, "a grouped or computed convolution reads them")
        after.reason = "a grouped or computed convolution makes them"
    else:
        step.cut(1, 0, after, makes=True)
        step.cut(1, 3, before, makes=False)
        if step.has(2):
            step.cut(2, 0, after, makes=True)
        after.made_by.append(step.layer)
        before.read_by.append(step.layer)
    step.puts_out(after)


def _depthwise(step: _Step) -> None:
    """Take a depthwise convolution: it filters each channel by itself."""
    before = step.reads()
    if not step.constant(1) or files.shape(step.tensor(1))[3] != before.size:
        _block(before, "a depthwise convolution makes several channels of each")
        step.puts_out(_Channels(files.shape(step.tensor(1))[3], "a depthwise convolution makes several of each input"))
        return
    step.cut(1, 3, before, makes=True)
    if step.has(2):
        step.cut(2, 0, before, makes=True)
    before.made_by.append(step.layer)
    step.puts_out(before)


def _dense(step: _Step) -> None:
    """Take a dense layer: it reads each channel of its group once for every place, and makes a group."""
    before, after = step.reads(), _Channels(files.shape(step.tensor(1))[0])
    if not step.constant(1) or files.shape(step.tensor(1))[1] % before.size:
        _block(before, "a dense layer reads them in another order")
        after.reason = "their weights are computed"
    else:
        step.cut(1, 0, after, makes=True)
        step.cut(1, 1, before, makes=False)
        if step.has(2):
            step.cut(2, 0, after, makes=True)
        after.made_by.append(step.layer)
        before.read_by.append(step.layer)
    step.puts_out(after)


def _through(step: _Step) -> None:
    """Take an operator that works on each channel by itself and leaves zero at zero."""
    step.puts_out(step.reads())


def _joined(step: _Step) -> None:
    """Take an addition or its like: branches share their channels; a constant has an entry for each, or one for all."""
    flowing = [position for position in range(len(step.op.inputs)) if not step.constant(position)]
    if not flowing:
        _unknown(step)
        return
    group = step.reads(flowing[0])
    for position in flowing[1:]:
        group = _join(group, step.reads(position))
    for position in set(range(len(step.op.inputs))) - set(flowing):
        size = _channels(step.tensor(position))
        if size == group.size and size > 1:
            step.cut(position, len(files.shape(step.tensor(position))) - 1, group, makes=step.kind != "MUL")
        elif step.kind != "MUL":
            _block(group, f"{step.kind} shifts all of them by one number")
    step.puts_out(group)


def _mean(step: _Step) -> None:
    """Take a mean: over places it keeps the channels; over channels it mixes them."""
    group = step.reads()
    rank = len(files.shape(step.tensor(0)))
    axes = {int(axis) % rank for axis in files.stored(step.model, step.tensor(1)).ravel()} if step.constant(1) else {-1}
    if rank - 1 in axes or -1 in axes:
        _block(group, "a mean is taken over them")
        group = _Channels(_channels(step.model.subgraphs[0].tensors[step.op.outputs[0]]), "they are a mean")
    step.puts_out(group)


def _pad(step: _Step) -> None:
    """Take a padding: zeros around the picture keep the channels."""
    group = step.reads()
    if step.constant(1) and not files.stored(step.model, step.tensor(1)).reshape(-1, 2)[-1].any():
        step.puts_out(group)
        return
    _block(group, "padding adds channels")
    step.puts_out(_Channels(_channels(step.model.subgraphs[0].tensors[step.op.outputs[0]]), "padding made them"))


def _reshape(step: _Step) -> None:
    """Take a reshape: a flattening keeps the order, places outside, channels inside."""
    group = step.reads()
    before, after = files.shape(step.tensor(0)), files.shape(step.model.subgraphs[0].tensors[step.op.outputs[0]])
    flattens = len(after) == 2 and after[-1] == int(np.prod(before[1:])) and after[-1] % group.size == 0
    if not flattens or not (step.has(1) and step.constant(1)):
        _block(group, "a reshape mixes them with places")
        step.puts_out(_Channels(_channels(step.model.subgraphs[0].tensors[step.op.outputs[0]]), "a reshape made them"))
        return
    step.found.shapes.append((step.number, 1))
    step.puts_out(group)


def _unknown(step: _Step) -> None:
    """Take whatever else there is: nothing that flows in or out can be cut."""
    for position in range(len(step.op.inputs)):
        if step.op.inputs[position] >= 0 and not step.constant(position):
            _block(step.reads(position), f"{step.kind} reads them")
    for index in step.op.outputs:
        tensor = step.model.subgraphs[0].tensors[index]
        step.found.of_tensor[int(index)] = _Channels(_channels(tensor), f"{step.kind} makes them")


_RULES: dict[str, Callable[[_Step], None]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MEAN": _mean,
    "PAD": _pad,
    "RESHAPE": _reshape,
}


def _replace(model: ModelT, each: _Slice, values: NDArray[Any]) -> None:
    """Give one operator a constant of its own; others may share the old one."""
    graph = model.subgraphs[0]
    op = graph.operators[each.operator]
    _own_constant(model, op, each.position, values.astype(np.float32))
    graph.tensors[op.inputs[each.position]].type = schema.TensorType.FLOAT32


def _own_constant(model: ModelT, op: Any, position: int, values: NDArray[Any]) -> None:
    """Store new values for one input of one operator."""
    graph = model.subgraphs[0]
    tensor = copy.copy(graph.tensors[op.inputs[position]])
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    buffer.offset = buffer.size = 0
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    tensor.shape = np.asarray(values.shape, np.int32)
    graph.tensors.append(tensor)
    inputs = np.array(op.inputs)
    inputs[position] = len(graph.tensors) - 1
    op.inputs = inputs


def _shrink_shapes(model: ModelT, anatomy: _Anatomy, masks: Mapping[int, Kept]) -> None:
    """Write the smaller channel counts wherever a shape is stated."""
    graph = model.subgraphs[0]
    for index, channels in anatomy.of_tensor.items():
        mask = masks.get(id(channels.root()))
        if mask is None:
            continue
        tensor = graph.tensors[index]
        for name in ("shape", "shapeSignature"):
            dims = getattr(tensor, name)
            if dims is not None and len(dims):
                smaller = np.array(dims)
                smaller[-1] = smaller[-1] // mask.size * mask.sum()
                setattr(tensor, name, smaller)
    for number, position in anatomy.shapes:
        op = graph.operators[number]
        mask = masks.get(id(anatomy.of_tensor[int(op.outputs[0])].root()))
        if mask is None:
            continue
        target = files.stored(model, graph.tensors[op.inputs[position]]).copy()
        if target[-1] > 0:  # -1 says: whatever is left
            target[-1] = target[-1] // mask.size * mask.sum()
        _own_constant(model, op, position, target)
        if op.builtinOptions is not None and getattr(op.builtinOptions, "newShape", None) is not None:
            op.builtinOptions.newShape = target


def tidy(model: ModelT) -> None:
    """Drop tensors and buffers that nothing uses any more, and give tensors unique names."""
    graph = model.subgraphs[0]
    used = {int(index) for op in graph.operators for index in (*op.inputs, *op.outputs) if index >= 0}
    used |= {int(index) for index in (*graph.inputs, *graph.outputs)}
    order = sorted(used)
    place = {old: new for new, old in enumerate(order)} | {-1: -1}
    graph.tensors = [graph.tensors[index] for index in order]
    for op in graph.operators:
        op.inputs = np.array([place[int(index)] for index in op.inputs], np.int32)
        op.outputs = np.array([place[int(index)] for index in op.outputs], np.int32)
    graph.inputs = np.array([place[int(index)] for index in graph.inputs], np.int32)
    graph.outputs = np.array([place[int(index)] for index in graph.outputs], np.int32)
    for signature in model.signatureDefs or []:
        for item in (*(signature.inputs or []), *(signature.outputs or [])):
            item.tensorIndex = place[int(item.tensorIndex)]
    kept = sorted({0, *(tensor.buffer for tensor in graph.tensors), *(each.buffer for each in model.metadata or [])})
    shelf = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[index] for index in kept]
    for holder in (*graph.tensors, *(model.metadata or [])):
        holder.buffer = shelf[holder.buffer]
    seen: dict[str, int] = {}
    for tensor in graph.tensors:
        name = files.tensor_name(tensor)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            tensor.name = f"{name}_{seen[name]}".encode()


@functools.lru_cache(maxsize=16)
def cuttable(tflite: bytes) -> tuple[Group, ...]:
    """List the groups of a model that can be cut, found once."""
    return tuple(group for group in groups(tflite) if group.cuttable)
