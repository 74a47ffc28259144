"""Coding and sharing: bytes and time of packing, of our coders beside others', and of a slider with shared values."""

from __future__ import annotations

import bz2
import lzma
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import zstandard
from sklearn.cluster import KMeans

import compresskit as ck
from compresskit import entropy, sharing
from compresskit.litert.stretches import stretches
from compresskit.pruned import float_weights
from tests.benchmarks.row import Row, compare

LEVELS = 16
PAIRS = 5


def seconds(work: Callable[[], Any]) -> float:
    """Time one run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def packing(model: ck.Checkpoint) -> list[Row]:
    """Pack and unpack the digit reader with 16 shared values, in time for a million bytes of the file; beside LZMA."""
    tflite = ck.compress(model, ck.Recipe(ck.Share(LEVELS))).tflite
    places, million = stretches(tflite), len(tflite) / 1e6
    packed, other = entropy.pack(tflite, places), lzma.compress(tflite)
    return [
        compare("pack 1 MB, beside LZMA", lambda _: 1000 * seconds(lambda: entropy.pack(tflite, places)) / million,
                lambda _: 1000 * seconds(lambda: lzma.compress(tflite)) / million, pairs=PAIRS, unit="ms"),
        compare("unpack 1 MB, beside LZMA", lambda _: 1000 * seconds(lambda: entropy.unpack(packed)) / million,
                lambda _: 1000 * seconds(lambda: lzma.decompress(other)) / million, pairs=PAIRS, unit="ms"),
        Row("packed file, beside LZMA", len(packed) / 1000, len(other) / 1000, len(other) / len(packed), "kB"),
    ]  # fmt: skip


def coders(model: ck.Checkpoint) -> list[Row]:
    """Code the weights of the dense layer, 16 values: bytes and milliseconds of each coder, beside deflate's."""
    shared = sharing.kmeans(float_weights(model.tflite)["dense"], LEVELS)
    symbols = shared.codes.reshape(-1)
    counts, plain = entropy.count_symbols(symbols), symbols.tobytes()
    lengths = entropy.huffman_lengths(counts)
    writers: dict[str, Callable[[], bytes]] = {
        "Huffman": lambda: entropy.huffman_encode(symbols, lengths),
        "range coder": lambda: entropy.range_encode(symbols, counts),
        "zstd, level 3": lambda: zstandard.ZstdCompressor(level=3).compress(plain),
        "zstd, level 19": lambda: zstandard.ZstdCompressor(level=19).compress(plain),
        "bzip2": lambda: bz2.compress(plain),
        "LZMA": lambda: lzma.compress(plain),
    }
    deflated = len(zlib.compress(plain, 9))
    rows = []
    for name, write in writers.items():
        size = len(write())
        rows.append(
            Row(f"{name}, 401,408 weights, beside deflate", size / 1000, deflated / 1000, deflated / size, "kB")
        )
        rows.append(
            compare(f"{name}, time, beside deflate", lambda _, write=write: 1000 * seconds(write),  # type: ignore[misc]
                    lambda _: 1000 * seconds(lambda: zlib.compress(plain, 9)), pairs=3, unit="ms")
        )  # fmt: skip
    return rows


def clustering(model: ck.Checkpoint) -> list[Row]:
    """Find 16 values for the dense layer, beside scikit-learn's k-means as it comes; and the error of both."""
    dense = float_weights(model.tflite)["dense"]
    column = dense.reshape(-1, 1)
    theirs = KMeans(LEVELS, random_state=0)
    rows = [
        compare("k-means, 401,408 weights, beside sklearn",
                lambda _: 1000 * seconds(lambda: sharing.kmeans(dense, LEVELS)),
                lambda _: 1000 * seconds(lambda: theirs.fit(column)), pairs=3, unit="ms")
    ]  # fmt: skip
    for name, shared in (
        ("k-means, squared error", sharing.kmeans(dense, LEVELS)),
        ("exact k-means, squared error", sharing.exact_kmeans(dense, LEVELS, bins=4096)),
    ):
        error = float(np.square(shared.decode().astype(float) - dense).sum())
        rows.append(Row(name, error, float(theirs.inertia_), float(theirs.inertia_) / error, ""))
    return rows


def sliders(model: ck.Checkpoint) -> list[Row]:
    """From a setting to the exact score on all test digits: 16 shared values, beside int8; and the file alone."""
    digits = ck.load_mnist()

    def made(number: int, *steps: Any) -> ck.Compressed:
        # No two settings are the same, so nothing comes out of a cache.
        return ck.compress(model, ck.Recipe(ck.Prune(0.5 + number / 1000), *steps), digits.train)

    def exact(number: int, *steps: Any) -> float:
        return 1000 * seconds(lambda: ck.evaluate(made(number, *steps), digits.test))

    def file(number: int, *steps: Any) -> float:
        return 1000 * seconds(lambda: made(number, *steps))

    share, layer = ck.Share(LEVELS), ck.Quantize(granularity="tensor")
    return [
        compare("file with 16 shared values, beside int8", lambda n: file(n, share),
                lambda n: file(n + 100, ck.Quantize()), pairs=PAIRS, unit="ms"),
        compare("16 values, floats, to exact, beside int8", lambda n: exact(n + 200, share),
                lambda n: exact(n + 300, ck.Quantize()), pairs=PAIRS, unit="ms"),
        compare("16 values in int8 to exact, beside int8", lambda n: exact(n + 400, share, layer),
                lambda n: exact(n + 450, ck.Quantize()), pairs=PAIRS, unit="ms"),
    ]  # fmt: skip


def rows() -> list[Row]:
    """Measure everything in this file."""
    model = ck.load_model("digit_reader")
    return [*packing(model), *coders(model), *clustering(model), *sliders(model)]
