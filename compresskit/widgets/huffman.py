"""The second panel of lesson 09: a Huffman tree drawn for real weights, and other coders beside it on the same weights.

`code_layer` shares, codes and measures; it has no widget in it. The panel draws what it gives.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import math
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import ipywidgets
import numpy as np
import zstandard
from numpy.typing import NDArray

from compresskit.entropy import (
    Lengths,
    canonical_codes,
    count_symbols,
    entropy,
    gap_encode,
    huffman_encode,
    huffman_lengths,
    range_encode,
)
from compresskit.litert.inspect import CHANNEL_AXIS
from compresskit.pruned import float_weights, layer_sites, prune
from compresskit.recipe import Prune, Share
from compresskit.shared import share_array
from compresskit.widgets.figures import Chart, figure
from compresskit.widgets.live import Live, Outcome, Stop
from compresskit.widgets.panel import Status, StatusPanel, classed, list_of, slider_of
from compresskit.widgets.picture import Picture
from compresskit.widgets.style import AFTER, BEFORE
from compresskit.zoo import Checkpoint, load_model

LEVELS: Final = tuple(range(2, 17))
PRUNED: Final = (0, 30, 50, 60, 70, 80, 90, 95)
HEIGHT: Final = 430
GAP_BITS: Final = {"FULLY_CONNECTED": 5}
"""Bits of a gap in Deep Compression: 5 in dense layers, 8 in convolutions."""


@dataclass(frozen=True)
class Setting:
    """Where the controls stand.

    Attributes
    ----------
    layer
        The layer.
    levels
        Values that its weights share (k-means).
    pruned
        Per cent of its weights that are set to zero first.
    """

    layer: str
    levels: int = 8
    pruned: int = 0


@dataclass(frozen=True)
class Coded:
    """A layer's weights, coded in several ways.

    Attributes
    ----------
    values, counts
        The shared values, ascending, and how many weights have each.
    lengths, words
        The Huffman code: bits of each value's code word, and the word itself, as text of 0 and 1.
    streams
        Coder to the bytes that it wrote for all weights of the layer. The codebook is not among them.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64]
    lengths: Lengths
    words: tuple[str, ...]
    streams: Mapping[str, int]

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return int(self.counts.sum())

    @property
    def floor(self) -> float:
        """Entropy, in bits a weight."""
        return entropy(self.counts)

    def bits(self, coder: str) -> float:
        """Bits a weight that a coder took."""
        return 8 * self.streams[coder] / self.weights


@dataclass(frozen=True)
class Node:
    """A node of the tree: where it stands, and the code word that leads to it (a value's, if it is a leaf)."""

    word: str
    x: float
    depth: int
    symbol: int | None


@functools.lru_cache(maxsize=64)
def code_layer(checkpoint: Checkpoint, setting: Setting) -> Coded:
    """Prune and share the weights of a layer, and code them.

    Parameters
    ----------
    checkpoint
        The float model.
    setting
        What to do.

    Returns
    -------
    Coded

    Raises
    ------
    ValueError
        If there is no such layer, or its weights cannot be shared.
    """
    sites = {site.name: site for site in layer_sites(checkpoint.tflite)}
    if setting.layer not in sites:
        raise ValueError(f"layer {setting.layer!r} is not in this model; its layers are {', '.join(sites)}")
    site = sites[setting.layer]
    weights = float_weights(checkpoint.tflite)[setting.layer]
    if setting.pruned:
        step = Prune(setting.pruned / 100, layers=(setting.layer,))
        weights = prune(checkpoint.tflite, (step,)).weights[site.weights]
    shared = share_array(weights, Share(setting.levels), axis=CHANNEL_AXIS[site.op], name=setting.layer)
    counts = count_symbols(shared.codes, shared.levels)
    kept = np.flatnonzero(counts)
    symbols = np.searchsorted(kept, shared.codes.reshape(-1)).astype(np.uint8)
    values, counts = np.asarray(shared.codebook[kept], np.float32), counts[kept]
    lengths = huffman_lengths(counts)
    words = tuple(
        f"{int(word):0{length}b}" for word, length in zip(canonical_codes(lengths), lengths.tolist(), strict=True)
    )
    return Coded(
        values, counts, lengths, words, _streams(symbols, counts, lengths, shared.decode(), GAP_BITS.get(site.op, 8))
    )


def _streams(
    symbols: NDArray[np.uint8], counts: NDArray[np.int64], lengths: Lengths, weights: NDArray[np.float32], gap_bits: int
) -> dict[str, int]:
    """Write the codes with each coder, and count bytes."""
    fixed = max(1, (len(counts) - 1).bit_length())
    plain = symbols.tobytes()
    found = {
        "one length": -(-fixed * symbols.size // 8),
        "Huffman": len(huffman_encode(symbols, lengths)),
        "deflate (zlib)": len(zlib.compress(plain, 9)),
        "zstd": len(zstandard.ZstdCompressor(level=19).compress(plain)),
        "bzip2": len(bz2.compress(plain)),
        "LZMA": len(lzma.compress(plain, format=lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])),
    }
    with suppress(ImportError):  # there is none for Linux on Arm; the row is left out there
        found["range coder"] = len(range_encode(symbols, counts))
    if (weights == 0).mean() > 0.25:
        found["gaps, Huffman"] = gap_coded_bytes(weights, gap_bits)
    return found


def gap_coded_bytes(weights: NDArray[np.float32], bits: int) -> int:
    """Code a sparse layer as Deep Compression does: the gaps, and the values between them, each with Huffman codes.

    Parameters
    ----------
    weights : ndarray, any shape
        Few different values, many of them 0.
    bits : int
        Of a gap.

    Returns
    -------
    int
        Bytes of both streams.
    """
    coded = gap_encode(weights, bits)
    _, symbols = np.unique(coded.values, return_inverse=True)
    total = 0
    for row in (coded.gaps, symbols.reshape(-1)):
        total += len(huffman_encode(row, huffman_lengths(count_symbols(row))))
    return total


def tree(words: tuple[str, ...]) -> tuple[Node, ...]:
    """Lay a prefix code out as a tree: leaves side by side in the order of their words, parents above the middle.

    Parameters
    ----------
    words
        The code word of each symbol.

    Returns
    -------
    tuple of Node
        All leaves and all nodes above them, the root (the empty word) last.
    """
    places: dict[str, Node] = {}
    for place, (word, symbol) in enumerate(sorted((word, symbol) for symbol, word in enumerate(words))):
        places[word] = Node(word, float(place), len(word), symbol)
    for depth in range(max(map(len, words)) - 1, -1, -1):
        for parent in {word[:depth] for word in places if len(word) == depth + 1}:
            below = [places[parent + bit].x for bit in "01" if parent + bit in places]
            places[parent] = Node(parent, sum(below) / len(below), depth, None)
    return tuple(places.values())


class HuffmanTree(StatusPanel):
    """The panel; `huffman_tree` makes it.

    Parameters
    ----------
    model
        What `load_model` takes.
    """

    def __init__(self, model: Any = "digit_reader") -> None:
        super().__init__()
        self.checkpoint = load_model(model)
        self.result: Coded | None = None
        self._build()
        live: Live[Setting, Coded] = Live(
            None, self._exact, self._on_result, self._on_error, lock=self.lock, cache_entries=64
        )
        self._live = live
        self._lives.append(live)
        live.submit(self.setting)

    @property
    def setting(self) -> Setting:
        """Where the controls stand."""
        return Setting(str(self.layer.value), int(self.levels.value), int(self.pruned.value))

    def _exact(self, setting: Setting, stop: Stop) -> Coded:
        return code_layer(self.checkpoint, setting)

    def _build(self) -> None:
        names = [layer.name for layer in self.checkpoint.layers]
        largest = max(self.checkpoint.layers, key=lambda layer: layer.parameters).name
        self.layer = list_of("Weights of layer", [(name, name) for name in names], largest, "ck-layer")
        self.levels = slider_of("Shared values", [(str(n), n) for n in LEVELS], 8, "ck-levels")
        self.pruned = slider_of("Pruned before", [(f"{n} %", n) for n in PRUNED], 0, "ck-pruned")
        self.status = Status()
        self.chart = Chart(
            figure([], {"height": HEIGHT, "showlegend": False}), height=HEIGHT, lock=self.lock,
            label="Huffman tree of the shared values; bits a weight that each coder takes",
        )  # fmt: skip
        for control in (self.layer, self.levels, self.pruned):
            self._watch(control, self._on_choice)
        fields = [classed(ipywidgets.VBox([each]), "ck-card") for each in (self.layer, self.levels, self.pruned)]
        for each in fields:
            each.layout.flex = "1 1 180px"
        called = {".ck-layer": "Weights of layer", ".ck-levels": "Shared values", ".ck-pruned": "Pruned before"}
        self._frame([classed(ipywidgets.HBox(fields), "ck-row"), self.status, self.chart], called)

    def _on_choice(self, _change: Any) -> None:
        self._live.submit(self.setting)

    def _on_result(self, outcome: Outcome[Setting, Coded]) -> None:
        self.result = outcome.value
        self.status.say("exact", *words(outcome.setting, outcome.value))
        self.chart.show(drawing(outcome.value))

    def _summary(self) -> str:
        where = self.setting
        return f"Huffman tree of {self.checkpoint.name}: {where.layer}, {where.levels} values, {where.pruned} % pruned"

    def _picture(self) -> Picture:
        if self.result is None:
            picture = Picture(780, 320, self._summary())
            picture.text(10, 30, "Run the cell to draw the tree.", size=14)
            return picture
        told = words(self.setting, self.result)
        return still(Picture(780, 320, f"{self._summary()}. {'. '.join(told)}"), told, self.result)


def huffman_tree(model: Any = "digit_reader") -> HuffmanTree:
    """Draw the Huffman tree of a layer's shared weights, and set other coders beside it.

    Parameters
    ----------
    model
        What `load_model` takes.

    Returns
    -------
    HuffmanTree
        The panel; in a notebook it is shown when it is a cell's last value.
    """
    return HuffmanTree(model)


def words(setting: Setting, coded: Coded) -> tuple[str, str]:
    """Say what the code takes, and what it could take at best."""
    shortest, longest = int(coded.lengths.min()), int(coded.lengths.max())
    spread = f"{shortest} bit{'s' if shortest > 1 else ''}" if shortest == longest else f"{shortest} to {longest} bits"
    return (
        f"Huffman: {coded.bits('Huffman'):.3f} bits a weight; entropy: {coded.floor:.3f}",
        f"{coded.weights:,} weights of {setting.layer}, {len(coded.values)} values, code words of {spread}. "
        f"Codes of one length: {coded.bits('one length'):.0f} bits",
    )


def drawing(coded: Coded) -> dict[str, Any]:
    """Draw the tree, and the bits that each coder takes, as plotly's JSON."""
    nodes = {node.word: node for node in tree(coded.words)}
    x: list[float | None] = []
    y: list[float | None] = []
    marks = []
    for node in nodes.values():
        if node.word:
            above = nodes[node.word[:-1]]
            x += [above.x, node.x, None]
            y += [-above.depth, -node.depth, None]
            marks.append(
                {"text": node.word[-1], "x": (above.x + node.x) / 2, "y": -(above.depth + node.depth) / 2,
                 "showarrow": False, "font": {"size": 11}, "xshift": -7 if node.word[-1] == "0" else 7}
            )  # fmt: skip
    leaves = [node for node in nodes.values() if node.symbol is not None]
    share = [coded.counts[node.symbol or 0] / coded.weights for node in leaves]
    deepest = max(node.depth for node in leaves)
    for node in leaves:
        text = {"text": f"{coded.values[node.symbol or 0]:.2f}", "x": node.x, "y": -node.depth, "showarrow": False}
        crowded = len(leaves) > 10
        size = _disc(coded.counts[node.symbol or 0] / coded.weights)
        marks.append({**text, "yanchor": "top", "yshift": -size / 2 - 1, "textangle": -90 if crowded else 0,
                      "font": {"size": 11}})  # fmt: skip
    coders = sorted(coded.streams, key=lambda name: -coded.streams[name])
    bits = [coded.bits(name) for name in coders]
    data: list[dict[str, Any]] = [
        {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": "#8a8a8a", "width": 1.5},
         "hoverinfo": "skip", "name": "branches"},
        {"type": "scatter", "mode": "markers", "x": [node.x for node in leaves], "cliponaxis": False,
         "y": [-node.depth for node in leaves], "name": "values",
         "text": [f"{coded.values[node.symbol or 0]:.4f}" for node in leaves],
         "customdata": [[node.word, int(coded.counts[node.symbol or 0])] for node in leaves],
         "hovertemplate": "value %{text}: code %{customdata[0]}, %{customdata[1]:,} weights<extra></extra>",
         "marker": {"color": AFTER, "opacity": 1, "size": [_disc(part) for part in share]}},
        {"type": "bar", "orientation": "h", "x": bits, "y": coders, "xaxis": "x2", "yaxis": "y2", "name": "coders",
         "marker": {"color": [AFTER if name == "Huffman" else "#8a8a8a" for name in coders]}, "width": 0.6,
         "text": [f"{each:.3f}" for each in bits], "textposition": "outside", "cliponaxis": False,
         "hovertemplate": "%{y}: %{x:.3f} bits a weight<extra></extra>"},
    ]  # fmt: skip
    layout = {
        "height": HEIGHT, "showlegend": False, "margin": {"t": 22, "l": 50, "b": 50, "r": 40},
        "xaxis": {"domain": [0, 0.54], "visible": False, "range": [-1.0, len(leaves) - 0.3]},
        "yaxis": {"range": [-deepest - 0.9, 0.3], "tickvals": list(range(-deepest, 1)),
                  "ticktext": [str(-depth) for depth in range(-deepest, 1)], "title": {"text": "bits"}},
        "xaxis2": {"domain": [0.76, 1], "anchor": "y2", "range": [0, 1.25 * max(bits)], "gridcolor": "#e0e0e0",
                   "zeroline": False, "title": {"text": "bits a weight", "standoff": 8, "font": {"size": 12}}},
        "yaxis2": {"anchor": "x2", "type": "category", "zeroline": False, "showgrid": False},
        "annotations": [*marks, {"text": f"entropy {coded.floor:.3f}", "xref": "x2", "yref": "y2 domain",
                                 "x": coded.floor, "y": 1.0, "yanchor": "bottom", "showarrow": False,
                                 "font": {"size": 12}}],
        "shapes": [{"type": "line", "xref": "x2", "yref": "y2 domain", "x0": coded.floor, "x1": coded.floor, "y0": 0,
                    "y1": 1, "line": {"dash": "dot", "width": 2, "color": BEFORE}}],
    }  # fmt: skip
    return figure(data, layout)


def _disc(share: float) -> float:
    """Diameter of a value's disc, in pixels: its area grows with the weights that have the value."""
    return 8 + 30 * math.sqrt(share)


def still(picture: Picture, told: tuple[str, str], coded: Coded) -> Picture:
    """Draw what a reader without a kernel sees: the tree and the coders."""
    picture.text(0, 14, told[0], size=13, bold=True)
    picture.text(0, 32, told[1], size=12, ink="muted")
    nodes = {node.word: node for node in tree(coded.words)}
    leaves = [node for node in nodes.values() if node.symbol is not None]
    deepest = max(node.depth for node in leaves)
    wide, top, high = 440.0, 60.0, 220.0

    def place(node: Node) -> tuple[float, float]:
        return 20 + (wide - 40) * node.x / max(1, len(leaves) - 1), top + high * node.depth / deepest

    for node in nodes.values():
        if node.word:
            picture.line([place(nodes[node.word[:-1]]), place(node)], stroke="muted", width=1.5)
    for node in leaves:
        x, y = place(node)
        share = coded.counts[node.symbol or 0] / coded.weights
        picture.mark(x, y, "disc", 7 + 26 * math.sqrt(share), "after")
        picture.text(x, y + 26, f"{coded.values[node.symbol or 0]:.2f}", size=10, anchor="middle")
    most = max(coded.bits(name) for name in coded.streams)
    for row, name in enumerate(sorted(coded.streams, key=lambda name: coded.streams[name])):
        y = 70 + 28 * row
        picture.text(600, y + 12, name, anchor="end")
        picture.rectangle(610, y, 110 * coded.bits(name) / most, 16, fill="after" if name == "Huffman" else "muted")
        picture.text(614 + 110 * coded.bits(name) / most, y + 12, f"{coded.bits(name):.3f}", size=11)
    floor = 610 + 110 * coded.floor / most
    picture.line([(floor, 60), (floor, 70 + 28 * len(coded.streams))], stroke="before", width=2, dash=True)
    picture.text(floor, 54, f"entropy {coded.floor:.3f}", size=11, anchor="middle")
    return picture
