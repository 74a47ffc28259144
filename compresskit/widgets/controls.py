"""What the controls of a workbench can say, and say: the choices, the fields, and the setting that they stand for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from compresskit.factorized import factorize
from compresskit.litert.inspect import Layer
from compresskit.litert.inspect import layers as layers_of
from compresskit.pruning.patterns import parse_pattern
from compresskit.recipe import Factorize
from compresskit.widgets.panel import choice_of, list_of, number_slider, slider_of
from compresskit.widgets.pieces import pieces_of
from compresskit.widgets.points import Setting, fixed_count

NO_MODEL: Final = ""
ALWAYS: Final = ("model", "sparsity", "pattern", "weights", "activations")
GRID: Final = ("granularity", "ranges", "activation_ranges", "io")
WEIGHTS: Final = (
    ("2 bits", 2), ("3 bits, stored as 8", 3), ("4 bits", 4), ("5 bits, stored as 8", 5), ("6 bits, stored as 8", 6),
    ("7 bits, stored as 8", 7), ("8 bits", 8), ("16-bit float", 16), ("32-bit float", 32),
)  # fmt: skip
ACTIVATIONS: Final = (("8 bits", 8), ("16 bits", 16), ("float", 32))
SCOPES: Final = (("each layer", "layer"), ("whole network", "global"))
GRANULARITIES: Final = (("each channel", "channel"), ("whole layer", "tensor"))
RANGES: Final = (
    ("min to max", "minmax"), ("least error", "mse"), ("OCTAV", "octav"), ("search", "search"),
    ("percentile", "percentile"), ("entropy", "entropy"),
)  # fmt: skip
ACTIVATION_RANGES: Final = (
    ("min to max", "minmax"), ("moving average", "moving"), ("percentile", "percentile"), ("least error", "mse"),
    ("OCTAV", "octav"), ("entropy", "entropy"),
)  # fmt: skip
INTERFACES: Final = (("as inside", "same"), ("uint8", "uint8"), ("float", "float32"))
LAYER_BITS: Final = (("as all", 0), ("2", 2), ("4", 4), ("8", 8), ("float", 32))
PATTERNS: Final = (
    ("single weights", "unstructured"), ("2 of 4 stay", "2:4"), ("1 of 4 stays", "1:4"),
    ("blocks of 1 x 4", "block 1x4"), ("blocks of 4 x 4", "block 4x4"), ("channels, removed", "channel"),
)  # fmt: skip
IMPORTANCES: Final = (
    ("the largest", "magnitude"), ("the largest times its input", "activation"),
    ("what the loss needs (gradient)", "gradient"), ("by lot", "random"),
)  # fmt: skip
SHARED: Final = (("off", 0), *((str(count), count) for count in (2, 4, 8, 16, 32, 64, 128, 256)))
SHARE_METHODS: Final = (
    ("k-means", "kmeans"), ("k-means, exact", "exact"), ("equal distances", "uniform"), ("binary: -a, a", "binary"),
    ("ternary: -a, 0, a", "ternary"), ("powers of two", "powers"),
)  # fmt: skip
SHARE_GRANULARITIES: Final = (("whole layer", "layer"), ("each channel", "channel"))
LOW_RANK: Final = (
    ("off", 1.0),
    *((f"{part} %", part / 100) for part in (90, 75, 60, 50, 40, 30, 25, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2, 1)),
)
CONVOLUTIONS: Final = (("stay whole", "keep"), ("become three (Tucker-2)", "tucker2"), ("become two", "spatial"))
SHARE: Final = ("shared", "share_method", "share_granularity", "low_rank", "convolutions")
TOOLTIPS: Final = {
    "model": "What the steps are done to: the original, or a model that was trained here (tab Train)",
    "sparsity": "Part of the weights that become zero",
    "pattern": "Which weights go together: any of them, some of each four, blocks, or whole channels",
    "weights": "Bits of each weight. 3, 5, 6 and 7 bits are stored as 8; packed bytes tell what they save",
    "activations": "What flows between the layers: integers, or float. With integers a device needs no float at all",
    "importance": "By what it is decided which weights stay",
    "scope": "Whether each layer loses the same part, or the smallest of the whole network go",
    "granularity": "How many weights share one scale: those of an output channel, or all of a layer",
    "ranges": "How the largest weight that the grid holds is chosen; what lies beyond is clipped",
    "activation_ranges": "How far the integers between the layers reach, as measured on calibration digits",
    "io": "The type of the numbers that go into the file and come out of it",
    "shared": "How many values all weights of a layer share: its codebook. Packed bytes tell what it saves",
    "share_method": "k-means: each value is the mean of the weights nearest to it. Binary has two, ternary three",
    "share_granularity": "One codebook for all weights of a layer, or one for each output channel",
    "low_rank": "Layers become products of two thin ones; of their weights, this part stays",
    "convolutions": "Low rank cuts dense layers; convolutions too, into two or three with fewer channels",
}
AS_ALL: Final = -1.0
OWN_SPARSITIES: Final = (("as all", AS_ALL), *((f"{share} %", share / 100) for share in range(99)))


class Controls:
    """The fields that a setting is made of.

    Parameters
    ----------
    layers
        The layers of the original, each of which gets a slider of its own.
    setting
        Where the fields stand at first.
    tflite_of
        Gives the float file of a model by its label in the list of models.

    Attributes
    ----------
    fields : dict of str to widget
        By the name that each has in `Setting`.
    own_sparsities : dict of str to widget
        A slider for each layer, by its name.
    layer_bits : dict of str to int
        Bits of the layers that were given bits of their own.
    """

    def __init__(self, layers: Sequence[Layer], setting: Setting, tflite_of: Callable[[str], bytes]) -> None:
        self._tflite_of = tflite_of
        self.fields: dict[str, Any] = {
            "model": list_of("Model", [("the original", NO_MODEL)], NO_MODEL, "ck-model"),
            "sparsity": number_slider("Weights set to zero", 0, 0.98, 0.01, setting.sparsity, "ck-sparsity", ".0%"),
            "pattern": list_of("What goes", PATTERNS, setting.pattern, "ck-pattern"),
            "weights": slider_of("Bits of a weight", WEIGHTS, setting.weights, "ck-weights"),
            "activations": choice_of("Bits between the layers", ACTIVATIONS, setting.activations, "ck-activations"),
            "importance": list_of("What stays", IMPORTANCES, setting.importance, "ck-importance"),
            "scope": choice_of("Zero the smallest of", SCOPES, setting.scope, "ck-scope"),
            "granularity": choice_of("One scale for", GRANULARITIES, setting.granularity, "ck-granularity"),
            "ranges": list_of("Range of the grid", RANGES, setting.ranges, "ck-ranges"),
            "activation_ranges": list_of(
                "Range of activations", ACTIVATION_RANGES, setting.activation_ranges, "ck-activation-ranges"
            ),
            "io": choice_of("In and out of the file", INTERFACES, setting.io, "ck-io"),
            "shared": slider_of("Shared values", SHARED, setting.shared, "ck-shared"),
            "share_method": list_of("How they are chosen", SHARE_METHODS, setting.share_method, "ck-share-method"),
            "share_granularity": choice_of(
                "One codebook for", SHARE_GRANULARITIES, setting.share_granularity, "ck-share-granularity"
            ),
            "low_rank": slider_of("Weights that low rank keeps", LOW_RANK, setting.low_rank, "ck-low-rank"),
            "convolutions": list_of("Convolutions", CONVOLUTIONS, setting.convolutions, "ck-convolutions"),
        }
        for name, tooltip in TOOLTIPS.items():
            self.fields[name].tooltip = tooltip
        self.own_sparsities: dict[str, Any] = {
            layer.name: slider_of(layer.name, OWN_SPARSITIES, AS_ALL, f"ck-own-sparsity-{place}")
            for place, layer in enumerate(layers)
        }
        for name, slider in self.own_sparsities.items():
            slider.tooltip = f"Part of the weights of {name} that become zero"
        self.layer_bits: dict[str, int] = {}
        self._put_own(setting)
        self.still_sliders()

    @property
    def setting(self) -> Setting:
        """Where the fields stand."""
        values = {name: field.value for name, field in self.fields.items()}
        alike = Setting(**{**values, "sparsity": round(float(values["sparsity"]), 4)}, own_ranges=self._own_ranges)
        return replace(alike, layers=self._bits(alike), sparsities=self._sparsities(alike))

    def put(self, setting: Setting) -> None:
        """Put the fields somewhere; what watches them hears of each."""
        for name, field in self.fields.items():
            field.value = getattr(setting, name)
        self._put_own(setting)

    def set_bits(self, layer: str, bits: int) -> None:
        """Give a layer bits of its own; 0 gives it those of all."""
        others = {name: had for name, had in self.layer_bits.items() if name != layer}
        self.layer_bits = {**others, layer: bits} if bits else others

    def still_sliders(self) -> None:
        """Still the slider of a number which the pattern, or the way to share, has of its own."""
        self.fields["sparsity"].disabled = parse_pattern(self.fields["pattern"].value).sparsity is not None
        shared, fixed = self.fields["shared"], fixed_count(self.fields["share_method"].value)
        shared.disabled, shared.readout = bool(fixed), not fixed
        shared.description = f"Shared values: {fixed}" if fixed else "Shared values"

    def _bits(self, alike: Setting) -> tuple[tuple[str, int], ...]:
        """List the bits of single layers; what low rank makes of a layer has those of the layer."""
        own = {name: bits for name, bits in self.layer_bits.items() if bits and bits != alike.weights}
        names = self._later(alike)[1] if own else {}
        return tuple((each, bits) for name, bits in own.items() for each in names.get(name, (name,)))

    def _sparsities(self, alike: Setting) -> tuple[tuple[str, float | None], ...]:
        """Read the sliders of single layers; a layer that the pattern does not fit is left out."""
        own = {name: slider.value for name, slider in self.own_sparsities.items()}
        free = parse_pattern(alike.pattern).kind in _FIT_ALL
        if free and all(value == AS_ALL for value in own.values()):
            return ()
        tflite, names = self._pruned_file(alike)
        unfit = _unfit(tflite, alike.pattern)
        if not unfit and all(value == AS_ALL for value in own.values()):
            return ()
        return tuple(
            (each, 0.0 if each in unfit else None if value == AS_ALL else float(value))
            for name, value in own.items()
            for each in names.get(name, (name,))
        )

    def _put_own(self, setting: Setting) -> None:
        """Put the sliders and the bits of single layers where a setting has them."""
        self._own_ranges = setting.own_ranges
        if not (setting.layers or setting.sparsities):
            setting = replace(setting, low_rank=1.0)  # nothing that would have to be looked for in thinner layers
        own, (tflite, names) = dict(setting.sparsities), self._pruned_file(setting)
        unfit = _unfit(tflite, setting.pattern)
        for name, slider in self.own_sparsities.items():
            found = [own[each] for each in (*names.get(name, ()), name) if each in own and each not in unfit]
            slider.value = AS_ALL if not found or found[0] is None else round(found[0], 2)
        wholes = {each: name for name, pieces in self._later(setting)[1].items() for each in pieces}
        self.layer_bits = {wholes.get(name, name): bits for name, bits in setting.layers}

    def _pruned_file(self, setting: Setting) -> tuple[bytes, Mapping[str, tuple[str, ...]]]:
        """Give the float file that is pruned, and what each layer is there: channels go before low rank comes."""
        return self._later(replace(setting, low_rank=1.0) if setting.pattern == "channel" else setting)

    def _later(self, setting: Setting) -> tuple[bytes, Mapping[str, tuple[str, ...]]]:
        """Give the float file that the steps after low rank see, and what each layer is there."""
        return _cut(self._tflite_of(setting.model), setting.factorizes())


_FIT_ALL: Final = ("unstructured", "channel")


@functools.lru_cache(maxsize=8)
def _cut(tflite: bytes, steps: tuple[Factorize, ...]) -> tuple[bytes, Mapping[str, tuple[str, ...]]]:
    """Cut a float model's layers; give the file, and the names of what each layer became."""
    if not steps:
        return tflite, {}
    try:
        base = factorize(tflite, steps).base
    except ValueError:
        return tflite, {}  # there is no such file: the point says why
    before = layers_of(tflite)
    pieces = pieces_of(before, layers_of(base))
    return base, {old.name: tuple(each.name for each in new) for old, new in zip(before, pieces, strict=True)}


@functools.lru_cache(maxsize=32)
def _unfit(tflite: bytes, pattern: str) -> frozenset[str]:
    """Find the layers that a pattern does not fit: N:M and blocks have to divide the weights."""
    chosen = parse_pattern(pattern)
    if chosen.kind in _FIT_ALL:
        return frozenset()
    rows, columns = (1, chosen.size[1]) if chosen.kind == "n:m" else chosen.size
    found = []
    for layer in layers_of(tflite):
        across = layer.shape[-1] if chosen.kind == "n:m" else int(np.prod(layer.shape[1:]))
        if across % columns or layer.shape[0] % rows:
            found.append(layer.name)
    return frozenset(found)
