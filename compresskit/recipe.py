"""What is to be done to a model: steps in an order, as data.

A `Recipe` can be compared, hashed, written to JSON and read back unchanged, and shown as the Python that makes it. What
makes no sense is refused here, before anything is computed; what depends on the model (its layers, its operators) is
refused by `compresskit.compression`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import combinations, pairwise
from types import MappingProxyType
from typing import Any, ClassVar

from compresskit.pruning.patterns import Pattern, parse_pattern

SCOPES = ("layer", "global")
IMPORTANCES = ("magnitude", "activation", "gradient", "random")
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, 32)
ACTIVATION_BITS = (8, 16, 32)
GRANULARITIES = ("channel", "tensor", "block32", "block64", "block128", "block256")
RANGES = ("minmax", "mse", "search", "octav", "percentile", "entropy")
ACTIVATION_RANGES = ("minmax", "moving", "percentile", "mse", "octav", "entropy")
COMPUTE = ("integer", "float")
INTERFACES = ("same", "uint8", "float32")
STORES = ("auto", "int8")
SHARE_METHODS = ("kmeans", "exact", "uniform", "binary", "ternary", "powers")
STARTS = ("linear", "density", "k-means++")
SHARE_GRANULARITIES = ("layer", "channel")
CONVOLUTIONS = ("keep", "tucker2", "spatial")
LAYER_SETTINGS = ("weights", "activations", "granularity", "ranges", "compute", "store")

STORED_WIDTH = {2: 2, 3: 8, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8, 16: 16, 32: 32}
"""Bits that one weight takes in the file: LiteRT has no types of 3, 5, 6 or 7 bits, so these are stored as int8."""

MOST_LEVELS = 65_536
_FIXED_LEVELS = {"binary": 2, "ternary": 3}
_VERSION = 1


def _choice(step: str, name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Refuse a value that is not one of those allowed (`True` is not the number 1 here)."""
    options = tuple(allowed)
    if isinstance(value, bool) or value not in options:
        raise ValueError(f"{step}: {name} is {value!r}; choose one of {', '.join(repr(each) for each in options)}")


@dataclass(frozen=True)
class Prune:
    """Set the least important weights to zero, or remove whole channels.

    Attributes
    ----------
    sparsity : float or None
        Fraction of the weights (for "channel", of the channels) to remove, at least 0 and below 1. An N:M pattern
        fixes it: leave it out there.
    scope : str
        "layer": this fraction of every layer; "global": of all of them together, so that layers with small weights
        lose more.
    layers : tuple of str or None
        The layers to prune; None for all that hold weights.
    importance : str
        What is kept: "magnitude", the largest weights; "activation", the largest products of a weight and the mean
        of what it multiplies (needs digits); "gradient", those without which the loss would change most, to first order
        (needs digits with their labels); "random", by lot, the control.
    pattern : str
        "unstructured": single weights; N:M, such as "2:4": N of every M inputs stay; "block 4x4" and so on: rectangles
        of the weight matrix; "channel": filters and neurons, which are removed and not set to zero, with everything
        that reads them.
    seed : int
        Of the lot, for importance="random".
    """

    kind: ClassVar[str] = "prune"

    sparsity: float | None = None
    scope: str = "layer"
    layers: tuple[str, ...] | None = None
    importance: str = "magnitude"
    pattern: str = "unstructured"
    seed: int = 0

    def __post_init__(self) -> None:
        fixed = _pattern(self.pattern).sparsity
        number = isinstance(self.sparsity, (int, float)) and not isinstance(self.sparsity, bool)
        if fixed is not None and self.sparsity is None:
            object.__setattr__(self, "sparsity", fixed)
        elif not number or math.isnan(float(self.sparsity or 0)) or not 0 <= float(self.sparsity or 0) < 1:
            raise ValueError(
                f"Prune: sparsity is {self.sparsity!r}; give a number from 0 up to, but not including, 1, "
                "such as 0.6 for 60 %"
            )
        elif fixed is not None and not math.isclose(float(self.sparsity or 0), fixed):
            raise ValueError(
                f"Prune: sparsity is {self.sparsity!r}, but the pattern {self.pattern} removes exactly {fixed:g}; "
                "leave the sparsity out"
            )
        object.__setattr__(self, "sparsity", float(self.sparsity or 0))
        _choice("Prune", "scope", self.scope, SCOPES)
        _choice("Prune", "importance", self.importance, IMPORTANCES)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"Prune: seed is {self.seed!r}; give a whole number from 0")
        if self.scope == "global" and self.pattern != "unstructured":
            raise ValueError(
                f"Prune: scope is 'global' with pattern {self.pattern!r}; only single weights are weighed "
                "against those of other layers: choose scope='layer'"
            )
        if self.layers is not None:
            object.__setattr__(self, "layers", _names("Prune", self.layers))

    @property
    def place(self) -> int:
        """Place in the order of steps: channels go before single weights."""
        return 1 if self.pattern == "channel" else 3


def _pattern(text: Any) -> Pattern:
    """Read a pattern, the step named in the error."""
    try:
        return parse_pattern(str(text))
    except ValueError as error:
        raise ValueError(f"Prune: {error}") from error


def _names(step: str, layers: Any) -> tuple[str, ...]:
    """Take layer names in whatever sequence they come."""
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers) or not tuple(layers):
        raise ValueError(f"{step}: layers is {layers!r}; give a list of layer names, or None for all layers")
    return tuple(layers)


@dataclass(frozen=True)
class Quantize:
    """Store weights, and compute activations, with fewer bits.

    Attributes
    ----------
    weights : int
        Bits of a weight: 32 (float), 16 (float16), 8, 4, 2, or 7, 6, 5, 3, which are snapped to their grid and stored
        as int8, since LiteRT has no such types.
    activations : int
        Bits of what flows between the layers: 32 (float; weights of 8 bits or fewer are then multiplied with
        activations rounded to 8 bits while running, *dynamic range*), 8 or 16 (integers throughout; needs digits to
        calibrate on).
    granularity : str
        "channel": a scale for each output channel; "tensor": one for all weights of a layer; "block32", "block64",
        "block128", "block256": one for so many inputs of an output (dense layers of 4 bits, float activations).
    ranges : str
        How far the grid of the weights reaches: "minmax" to the largest; "mse", "search", "octav", "percentile" and
        "entropy" clip the largest, as `compresskit.quantization.ranges` says.
    layers : mapping
        Settings of single layers that differ, such as `{"conv1": {"weights": 8}}`.
    calibration_digits : int
        How many of the calibration digits are used, from the first on.
    activation_ranges : str
        How far the grids of integer activations reach: "minmax", "moving", "percentile", "mse", "octav", "entropy".
    compute : str
        With float activations: "integer" multiplies integers and rounds the activations while running (*dynamic
        range*); "float" turns the weights back into floats first (*weight-only*): as small, not as fast, more exact.
    store : str
        "auto": weights in the narrowest type that LiteRT has; "int8": narrower grids in bytes all the same, for layers
        of which LiteRT has no narrower kernel. The file is then larger than it could be (`Compressed.packed_size`).
    io : str
        What goes into the file and comes out of it when activations are integers: "same" as inside, "uint8" (pixels as
        they are), or "float32".
    skip : tuple of str
        Layers that stay float throughout.
    """

    kind: ClassVar[str] = "quantize"
    place: ClassVar[int] = 5

    weights: int = 8
    activations: int = 8
    granularity: str = "channel"
    ranges: str = "minmax"
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calibration_digits: int = 100
    activation_ranges: str = "minmax"
    compute: str = "integer"
    store: str = "auto"
    io: str = "same"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.layers, Mapping):
            raise ValueError(
                f"Quantize: layers is {self.layers!r}; give a mapping such as {{'conv1': {{'weights': 8}}}}"
            )
        count = self.calibration_digits
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"Quantize: calibration_digits is {count!r}; give a whole number of at least 1")
        _choice("Quantize", "activation_ranges", self.activation_ranges, ACTIVATION_RANGES)
        _choice("Quantize", "io", self.io, INTERFACES)
        object.__setattr__(self, "skip", _names("Quantize", self.skip) if self.skip else ())
        frozen = {}
        for name, settings in self.layers.items():
            if name in self.skip:
                raise ValueError(f"Quantize: layer {name!r} stands in skip and in layers; leave it out of one of them")
            unknown = sorted(set(settings) - set(LAYER_SETTINGS))
            if unknown:
                raise ValueError(
                    f"Quantize: layer {name!r} has the setting {unknown[0]!r}; choose from {', '.join(LAYER_SETTINGS)}"
                )
            frozen[name] = MappingProxyType(dict(settings))
        object.__setattr__(self, "layers", MappingProxyType(frozen))
        common = {name: getattr(self, name) for name in LAYER_SETTINGS}
        _check_scheme("Quantize", **common)
        for name, settings in frozen.items():
            _check_scheme(f"Quantize: layer {name!r}", **{**common, **settings})
        if self.io != "same" and self.activations == 32:
            raise ValueError(f"Quantize: io is {self.io!r} with float activations; choose activations=8, or io='same'")
        if self.io == "uint8" and self.activations == 16:
            raise ValueError("Quantize: io is 'uint8' with activations of 16 bits; choose io='same' or io='float32'")
        widths = {self.activations, *(self.for_layer(name).activations for name in frozen)} - {32}
        if len(widths) > 1:
            raise ValueError("Quantize: activations of 8 and of 16 bits in one model; LiteRT has no step between them")

    def __hash__(self) -> int:
        return hash(json.dumps(_step_to_dict(self), sort_keys=True))

    def __reduce__(self) -> Any:
        return _step_from_dict, (_step_to_dict(self),)

    def for_layer(self, name: str) -> Quantize:
        """Give the settings that hold for one layer, as a `Quantize` without exceptions."""
        if name in self.skip:
            return Quantize(weights=32, activations=32)
        merged = {setting: getattr(self, setting) for setting in LAYER_SETTINGS} | dict(self.layers.get(name, {}))
        return Quantize(**merged)

    @property
    def stored(self) -> int:
        """Bits that one weight takes in the file."""
        return 8 if self.store == "int8" and self.weights < 8 else STORED_WIDTH[self.weights]

    @property
    def is_float(self) -> bool:
        """Whether nothing is to be done."""
        return self.weights == 32 and all(settings.get("weights", 32) == 32 for settings in self.layers.values())

    @property
    def needs_calibration(self) -> bool:
        """Whether ranges of activations have to be measured on digits."""
        return self.activations < 32 or any(self.for_layer(name).activations < 32 for name in self.layers)

    @property
    def exceptions(self) -> tuple[str, ...]:
        """The layers that are named: those with settings of their own, and those to be skipped."""
        return (*self.layers, *self.skip)


def _check_scheme(
    step: str, weights: Any, activations: Any, granularity: Any, ranges: Any, compute: Any, store: Any
) -> None:
    """Refuse values, and combinations of them, that no `.tflite` file can hold or no LiteRT kernel computes."""
    _choice(step, "weights", weights, WEIGHT_BITS)
    _choice(step, "activations", activations, ACTIVATION_BITS)
    _choice(step, "granularity", granularity, GRANULARITIES)
    _choice(step, "ranges", ranges, RANGES)
    _choice(step, "compute", compute, COMPUTE)
    _choice(step, "store", store, STORES)
    in_bytes = store == "int8"
    if weights >= 16 and activations < 32:
        raise ValueError(
            f"{step}: weights of {weights} bits with activations of {activations}; integer activations need integer "
            "weights: choose weights=8, or activations=32"
        )
    if activations == 16 and weights < 8 and not in_bytes:
        raise ValueError(
            f"{step}: activations of 16 bits with weights of {weights}; LiteRT computes 16-bit activations with 8-bit "
            "weights only: choose weights=8, or activations=8, or store='int8'"
        )
    if activations == 8 and weights == 2 and not in_bytes:
        raise ValueError(
            f"{step}: activations of 8 bits with weights of 2; LiteRT computes 2-bit weights with activations=32 "
            "(rounded while running) only: choose weights=4, or activations=32, or store='int8'"
        )
    if granularity.startswith("block") and (weights != 4 or activations < 32 or compute == "float" or in_bytes):
        raise ValueError(
            f"{step}: granularity is {granularity!r} with weights of {weights} bits, activations of {activations} and "
            f"compute={compute!r}; LiteRT has blocks for weights of 4 bits with activations=32 and "
            "compute='integer' only: choose granularity='channel'"
        )
    if compute == "float" and (activations < 32 or (weights == 2 and not in_bytes)):
        raise ValueError(
            f"{step}: compute is 'float' with weights of {weights} bits and activations of {activations}; LiteRT turns "
            "weights of 3 to 8 bits back into floats, with activations=32: choose these, or compute='integer'"
        )


@dataclass(frozen=True)
class Factorize:
    """Write layers as products of thinner ones: low rank. Say how far by exactly one of rank, energy and budget.

    Attributes
    ----------
    rank : int or None
        Width between the new layers, at least 1; for "tucker2" the channels before and after the window (as many as
        the convolution has, where that is fewer).
    energy : float or None
        Part of the squared weights that each layer keeps, above 0 and up to 1: the smallest rank that keeps it.
    budget : float or None
        Part of the weights of these layers that stays, above 0 and below 1. Ranks are given to the layers in which they
        add most; with "tucker2" the convolutions keep to this part together, each with the same part of its energy.
    convolutions : str
        "keep": only dense layers are cut; "tucker2": convolutions become three (fewer channels in, the window, more
        channels out); "spatial": two (down the column, along the row).
    layers : tuple of str or None
        The layers to cut, whether they become smaller by it or not; None for all that become smaller.
    """

    kind: ClassVar[str] = "factorize"
    place: ClassVar[int] = 2

    rank: int | None = None
    energy: float | None = None
    budget: float | None = None
    convolutions: str = "keep"
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("rank", "energy", "budget") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"Factorize: {' and '.join(given) if given else 'nothing'} was given; say by exactly one of rank, "
                "energy and budget how far to go, such as rank=16"
            )
        if self.rank is not None and not (_is_whole(self.rank) and self.rank >= 1):
            raise ValueError(f"Factorize: rank is {self.rank!r}; give a whole number of at least 1")
        if self.energy is not None and not (_is_number(self.energy) and 0 < self.energy <= 1):
            raise ValueError(f"Factorize: energy is {self.energy!r}; give a part above 0 and up to 1, such as 0.9")
        if self.budget is not None and not (_is_number(self.budget) and 0 < self.budget < 1):
            raise ValueError(f"Factorize: budget is {self.budget!r}; give a part above 0 and below 1, such as 0.25")
        _choice("Factorize", "convolutions", self.convolutions, CONVOLUTIONS)
        if self.layers is not None:
            object.__setattr__(self, "layers", _names("Factorize", self.layers))


@dataclass(frozen=True)
class Share:
    """Let all weights of a layer take one of a few values: a codebook.

    Attributes
    ----------
    levels : int or None
        How many values there are: at least 1 for k-means, an even number for "uniform", at least 3 for "powers". By
        default 16. "binary" and "ternary" fix it: leave it out there.
    method : str
        "kmeans": each value is the mean of the weights nearest to it, found step by step; "exact": the best such values
        there are (but for what lies within a 4,096th of the range); "uniform": at equal distances, which a file of
        2- or 4-bit integers can hold; "binary": -a and +a; "ternary": -a, 0 and +a; "powers": 0 and powers of two.
    start : str
        Where "kmeans" begins: "linear", from the smallest weight to the largest; "density", most values where most
        weights are; "k-means++", drawn by lot, far apart.
    granularity : str
        "layer": one codebook for all weights of a layer; "channel": one for each output channel.
    keep_zero : bool
        Keep zeros exactly 0 (k-means gives them a value of their own), so that pruned weights stay pruned.
    layers : tuple of str or None
        The layers; None for all that hold weights. Several steps may share different layers differently.
    seed : int
        Of the lot, for start="k-means++".
    """

    kind: ClassVar[str] = "share"
    place: ClassVar[int] = 4

    levels: int | None = None
    method: str = "kmeans"
    start: str = "linear"
    granularity: str = "layer"
    keep_zero: bool = True
    layers: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _choice("Share", "method", self.method, SHARE_METHODS)
        _choice("Share", "start", self.start, STARTS)
        _choice("Share", "granularity", self.granularity, SHARE_GRANULARITIES)
        fixed = _FIXED_LEVELS.get(self.method)
        if self.levels is None:
            object.__setattr__(self, "levels", fixed or 16)
        lowest = {"uniform": 2, "powers": 3}.get(self.method, 1)
        if not _is_whole(self.levels) or not lowest <= self.count <= MOST_LEVELS:
            raise ValueError(
                f"Share: levels is {self.levels!r}; give a whole number from {lowest} to {MOST_LEVELS:,}, such as 16"
            )
        if fixed is not None and self.levels != fixed:
            raise ValueError(
                f"Share: levels is {self.levels!r}, but method {self.method!r} has {fixed}; leave the levels out"
            )
        if self.method == "uniform" and self.count % 2:
            raise ValueError(f"Share: levels is {self.levels!r} with method 'uniform'; give an even number, such as 16")
        if not isinstance(self.keep_zero, bool):
            raise ValueError(f"Share: keep_zero is {self.keep_zero!r}; choose True or False")
        if not _is_whole(self.seed) or self.seed < 0:
            raise ValueError(f"Share: seed is {self.seed!r}; give a whole number from 0")
        if self.layers is not None:
            object.__setattr__(self, "layers", _names("Share", self.layers))

    @property
    def count(self) -> int:
        """The number of values, as a number."""
        return 0 if self.levels is None else self.levels

    @property
    def on_a_grid(self) -> bool:
        """Whether the values are whole multiples of one, which an integer file can hold."""
        return self.method in ("uniform", "binary", "ternary")


def _is_whole(value: Any) -> bool:
    """Tell a whole number (`True` is none here)."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Tell a number that is not NaN (`True` is none here)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and not math.isnan(value)


Step = Prune | Factorize | Share | Quantize
_STEPS: dict[str, type[Step]] = {step.kind: step for step in (Prune, Factorize, Share, Quantize)}


@dataclass(frozen=True, init=False)
class Recipe:
    """Steps that make a model small, in the order in which they are done.

    Parameters
    ----------
    *steps
        In this order, each if wanted: `Prune` of channels, `Factorize`, `Prune` of weights, `Share`, `Quantize`. No
        step at all: the float model itself.

    Raises
    ------
    ValueError
        If the order makes no sense; the sentence names the step.

    Examples
    --------
    >>> Recipe(Prune(sparsity=0.6), Quantize(weights=8, activations=8)).to_python()
    'ck.Recipe(ck.Prune(sparsity=0.6), ck.Quantize())'
    """

    steps: tuple[Step, ...]

    def __init__(self, *steps: Step) -> None:
        for step in steps:
            if not isinstance(step, tuple(_STEPS.values())):
                raise ValueError(
                    f"Recipe: {step!r} is not a step; give Prune(...), Factorize(...), Share(...) or Quantize(...)"
                )
        for earlier, later in pairwise(steps):
            if earlier.place > later.place:
                raise ValueError(f"Recipe: {_why_not_after(earlier, later)}")
        if sum(isinstance(step, Quantize) for step in steps) > 1:
            raise ValueError("Recipe: Quantize twice; weights are rounded once: give single layers with layers={...}")
        for kind in (Factorize, Share):
            _check_once([step for step in steps if isinstance(step, kind)])
        if any(isinstance(step, Prune) and step.place == Share.place - 1 for step in steps):
            for step in steps:
                if isinstance(step, Share) and step.method == "binary":
                    raise ValueError(
                        "Recipe: Share with method 'binary' after Prune; it has no zero, so nothing would stay pruned: "
                        "choose method='ternary'"
                    )
        object.__setattr__(self, "steps", tuple(steps))

    @property
    def prunes(self) -> tuple[Prune, ...]:
        """The pruning steps."""
        return tuple(step for step in self.steps if isinstance(step, Prune))

    @property
    def factorizes(self) -> tuple[Factorize, ...]:
        """The steps that cut layers into thinner ones."""
        return tuple(step for step in self.steps if isinstance(step, Factorize))

    @property
    def shares(self) -> tuple[Share, ...]:
        """The steps that share weights."""
        return tuple(step for step in self.steps if isinstance(step, Share))

    @property
    def quantize(self) -> Quantize | None:
        """The quantization step, if there is one that does something."""
        for step in self.steps:
            if isinstance(step, Quantize) and not step.is_float:
                return step
        return None

    def to_json(self) -> str:
        """Write the recipe as JSON text, the same text for equal recipes."""
        return json.dumps({"version": _VERSION, "steps": [_step_to_dict(step) for step in self.steps]}, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Recipe:
        """Read a recipe that `to_json` wrote.

        Raises
        ------
        ValueError
            If the text is not JSON, not a recipe, or from a later version; the sentence says which.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"Recipe: the text is not JSON ({error}); give what to_json() wrote") from error
        if not isinstance(data, dict) or not isinstance(data.get("steps"), list):
            raise ValueError("Recipe: the JSON has no list 'steps'; give what to_json() wrote")
        if data.get("version") != _VERSION:
            raise ValueError(f"Recipe: version is {data.get('version')!r}; this compresskit reads version {_VERSION}")
        return Recipe(*(_step_from_dict(step) for step in data["steps"]))

    def to_python(self) -> str:
        """Write the recipe as the Python that makes it, `compresskit` imported as `ck`."""
        return f"ck.Recipe({', '.join(_step_to_python(step) for step in self.steps)})"

    def __str__(self) -> str:
        return self.to_python()


def _why_not_after(earlier: Step, later: Step) -> str:
    """Say why a step cannot come after another, and what to do."""
    one, other = type(later).__name__, type(earlier).__name__
    if isinstance(earlier, Quantize):
        return f"{one} after Quantize; the weights are integers by then: put {one} first"
    if isinstance(earlier, Share):
        return f"{one} after Share; its result would no longer be shared: put {one} first"
    if isinstance(later, Factorize):
        return f"Factorize after {other}; the products of thinner layers would not stay sparse: put Factorize first"
    if isinstance(earlier, Factorize):
        return "channels are removed after Factorize, which has made new ones; remove channels first"
    return "channels are removed after single weights; remove channels first"


def _check_once(steps: list[Any]) -> None:
    """Refuse two steps of a kind for one layer."""
    for earlier, later in combinations(steps, 2):
        kind = type(later).__name__
        if earlier.layers is None or later.layers is None:
            raise ValueError(f"Recipe: {kind} twice; give each its layers with layers=[...], or leave one out")
        for name in later.layers:
            if name in earlier.layers:
                raise ValueError(f"Recipe: {kind} twice for layer {name!r}; leave it out of one of them")


def _plain(value: Any) -> Any:
    """Turn frozen values into those that JSON and Python literals have."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _step_to_dict(step: Step) -> dict[str, Any]:
    """List a step's settings under its kind."""
    return {"step": step.kind, **{each.name: _plain(getattr(step, each.name)) for each in fields(step)}}


def _step_from_dict(data: Any) -> Step:
    """Make a step of its settings."""
    if not isinstance(data, dict) or data.get("step") not in _STEPS:
        kind = data.get("step") if isinstance(data, dict) else data
        raise ValueError(f"Recipe: the step {kind!r} is not known; choose from {', '.join(_STEPS)}")
    cls = _STEPS[data["step"]]
    settings = {key: value for key, value in data.items() if key != "step"}
    unknown = sorted(set(settings) - {each.name for each in fields(cls)})
    if unknown:
        raise ValueError(f"{cls.__name__}: the setting {unknown[0]!r} is not known")
    try:
        return cls(**settings)
    except TypeError as error:
        raise ValueError(f"{cls.__name__}: {error}") from error


def _step_to_python(step: Step) -> str:
    """Write a step as a call that gives only what differs from the defaults."""
    shown = []
    for each in fields(step):
        value = getattr(step, each.name)
        default = each.default_factory() if each.default_factory is not MISSING else each.default
        if (each.default is MISSING and each.default_factory is MISSING) or value != default:
            shown.append(f"{each.name}={_plain(value)!r}")
    return f"ck.{type(step).__name__}({', '.join(shown)})"
