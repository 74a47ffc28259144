"""Run `.tflite` files with LiteRT: many inputs at once, one at a time against the clock, and with all tensors in view.

LiteRT lets go of the interpreter lock while it computes, so two threads keep two cores busy.
"""

from __future__ import annotations

import functools
import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compresskit.quiet import stderr_held_back

WORKERS = min(2, os.cpu_count() or 1)
"""Interpreters that share the inputs of one run; two are enough for ten thousand digits in a tenth of a second."""

_greeting, _greeted = threading.Lock(), threading.Event()

_BATCH_ELEMENTS = 100_000
_LARGEST_BATCH = 20


@dataclass(frozen=True)
class TensorForm:
    """Form of an input or output of a file.

    Attributes
    ----------
    shape : tuple of int
        Shape for one example, the batch dimension left out.
    dtype : numpy dtype
        The type that goes in or comes out.
    scale, zero_point : float, int
        How integers stand for real numbers; 0.0 and 0 for a float tensor.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Latency:
    """How long one example takes.

    Attributes
    ----------
    median, low, high : float
        Median, 10th and 90th percentile of the runs, in seconds.
    runs : int
        How many runs were timed.
    threads : int
        How many threads LiteRT was given.
    """

    median: float
    low: float
    high: float
    runs: int
    threads: int


class Session:
    """An interpreter for batches of one size.

    Parameters
    ----------
    tflite
        The bytes of the file.
    batch
        Examples per run. A graph whose shapes are fixed for one example runs them one by one.
    threads
        Threads inside LiteRT.
    reference
        Use the reference kernels, slow and exact to the letter of the specification.
    """

    def __init__(self, tflite: bytes, batch: int = 1, *, threads: int = 1, reference: bool = False) -> None:
        self._interpreter = _interpreter(tflite, threads, reference)
        self._inputs = self._interpreter.get_input_details()
        self.batch = batch if self._resize(batch) else 1
        if self.batch != batch:
            self._interpreter = _interpreter(tflite, threads, reference)
            self._interpreter.allocate_tensors()
        self.inputs = tuple(_form(each) for each in self._interpreter.get_input_details())
        self.outputs = tuple(_form(each) for each in self._interpreter.get_output_details())
        self._input_indices = [each["index"] for each in self._interpreter.get_input_details()]
        self._output_indices = [each["index"] for each in self._interpreter.get_output_details()]

    def _resize(self, batch: int) -> bool:
        """Set the batch size; tell whether every output follows it."""
        if batch == 1:
            self._interpreter.allocate_tensors()
            return True
        try:
            for each in self._inputs:
                self._interpreter.resize_tensor_input(each["index"], [batch, *each["shape"][1:]])
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError):  # a graph made for one example: LiteRT says so here
            return False
        return all(len(each["shape"]) and each["shape"][0] == batch for each in self._interpreter.get_output_details())

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """Run one full batch; each input is (batch, ...) in the file's own type. Gives copies of the outputs."""
        self._run(inputs)
        return [self._interpreter.get_tensor(index) for index in self._output_indices]

    def ranges(self, *inputs: NDArray[Any], count: int) -> list[tuple[float, float]]:
        """Run one batch and give the smallest and largest value of each output over its first `count` examples.

        The outputs are read where LiteRT keeps them: copying what flows through a network takes longer than looking.
        """
        self._run(inputs)
        views = [self._interpreter.tensor(index)()[:count] for index in self._output_indices]
        return [(float(view.min()), float(view.max())) for view in views]

    def _run(self, inputs: Sequence[NDArray[Any]]) -> None:
        """Set the inputs and compute."""
        for index, array in zip(self._input_indices, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()


def _interpreter(tflite: bytes, threads: int, reference: bool) -> Any:
    """Make an interpreter."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    made = Interpreter(model_content=tflite, num_threads=threads, experimental_op_resolver_type=kind)
    if not reference:
        _let_greet(made)
    return made


def _let_greet(interpreter: Any) -> None:
    """LiteRT says once in a process, on standard error, that it uses XNNPACK: let it, unheard."""
    with _greeting:
        if not _greeted.is_set():
            with stderr_held_back():
                interpreter.allocate_tensors()
            _greeted.set()


def _form(details: Any) -> TensorForm:
    """Read the form of a tensor from LiteRT's description."""
    scales = details["quantization_parameters"]["scales"]
    zeros = details["quantization_parameters"]["zero_points"]
    return TensorForm(
        shape=tuple(int(size) for size in details["shape"][1:]),
        dtype=np.dtype(details["dtype"]),
        scale=float(scales[0]) if len(scales) else 0.0,
        zero_point=int(zeros[0]) if len(zeros) else 0,
    )


def encode(images: NDArray[Any], form: TensorForm) -> NDArray[Any]:
    """Bring examples into the form that a file's input has.

    Parameters
    ----------
    images : ndarray, shape (n, ...)
        uint8 pixels, which stand for pixel / 255, or float32 values, which are used as they are.
    form
        The input's form.

    Returns
    -------
    ndarray, shape (n, *form.shape)
        In the input's type: float32, or integers `round(x / S) + Z`, clipped to the type.

    Raises
    ------
    ValueError
        If an example has another number of values than the input.
    """
    if math.prod(images.shape[1:]) != math.prod(form.shape):
        raise ValueError(
            f"images: each has the shape {images.shape[1:]}, but the model reads {form.shape}; resize them first"
        )
    shaped = images.reshape(len(images), *form.shape)
    if images.dtype == np.uint8 and form.dtype.itemsize == 1:
        table, shift = _pixel_codes(form)
        if shift is not None:  # pixels / 255 on a grid of steps of 1 / 255: a hundred times faster than the table
            return (shaped + shift).view(form.dtype)
        # Translating bytes is a table look-up in C; NumPy would first widen every pixel to an 8-byte index.
        return np.frombuffer(shaped.tobytes().translate(table), form.dtype).reshape(shaped.shape)
    if images.dtype == np.uint8:
        shaped = shaped.astype(np.float32) / np.float32(255)
    if form.dtype.kind == "f":
        return shaped.astype(form.dtype, copy=False)
    return _integers(shaped, form)


@functools.lru_cache(maxsize=32)
def _pixel_codes(form: TensorForm) -> tuple[bytes, np.uint8 | None]:
    """Tabulate what each of the 256 pixel values becomes; say by how much all are shifted, if all are alike."""
    codes = _integers(np.arange(256, dtype=np.float32) / np.float32(255), form).view(np.uint8)
    shifts = codes - np.arange(256, dtype=np.uint8)
    return codes.tobytes(), shifts[0] if (shifts == shifts[0]).all() else None


def _integers(values: NDArray[Any], form: TensorForm) -> NDArray[Any]:
    """Round real values to the integers of a quantized tensor."""
    if form.scale == 0:
        return values.astype(form.dtype)
    limits = np.iinfo(form.dtype)
    codes = np.rint(values / np.float32(form.scale)) + form.zero_point
    return np.asarray(np.clip(codes, limits.min, limits.max), form.dtype)


def decode(values: NDArray[Any], form: TensorForm) -> NDArray[np.float32]:
    """Turn a file's output into real numbers: `S (q - Z)`, or the floats themselves."""
    if form.scale == 0:
        return values.astype(np.float32, copy=False)
    return (values.astype(np.float32) - np.float32(form.zero_point)) * np.float32(form.scale)


def batch_size(example: Sequence[int]) -> int:
    """Choose how many examples run at once: enough to amortise a call, few enough to stay in the cache."""
    return int(np.clip(_BATCH_ELEMENTS // max(1, int(np.prod(example))), 1, _LARGEST_BATCH))


def outputs(
    tflite: bytes,
    images: NDArray[Any],
    *,
    rows: NDArray[np.integer[Any]] | None = None,
    workers: int = WORKERS,
    reference: bool = False,
) -> NDArray[np.float32]:
    """Run a file over examples.

    Parameters
    ----------
    tflite
        The bytes of the file.
    images : ndarray, shape (n, ...)
        uint8 pixels or float32 values, as `encode` takes them.
    rows : ndarray of int, optional
        Which of them to run, in this order; all when left out.
    workers
        Interpreters that share the examples.
    reference
        Use LiteRT's reference kernels.

    Returns
    -------
    ndarray of float32, shape (n, *output)
        The first output of the file, as real numbers, an example a row.

    Raises
    ------
    ValueError
        If there are no images, or they do not fit the model's input.
    """
    total = len(images if rows is None else rows)
    if total == 0:
        raise ValueError("images: there are none; give at least one")
    size = min(batch_size(images.shape[1:]), total)
    waiting = iter(range(0, total, size))
    found: dict[int, NDArray[Any]] = {}

    def work(_: int) -> TensorForm:
        session = Session(tflite, size, reference=reference)
        for start in waiting:  # one iterator for all: a core that has other things to do as well takes fewer
            part = slice(start, start + size)
            found[start] = _run_all(session, images[part if rows is None else rows[part]])
        return session.outputs[0]

    count = max(1, min(workers, total // size))
    with ThreadPoolExecutor(count) as pool:
        form, *_ = pool.map(work, range(count))
    return decode(np.concatenate([found[start] for start in sorted(found)]), form)


def _run_all(session: Session, images: NDArray[Any]) -> NDArray[Any]:
    """Run a session over images, the last batch filled up with copies of the last image; give what the file gives."""
    found = []
    for start in range(0, len(images), session.batch):
        chunk = images[start : start + session.batch]
        missing = session.batch - len(chunk)
        if missing:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
        result = session(encode(chunk, session.inputs[0]))[0]
        found.append(result[: len(result) - missing])
    return np.concatenate(found)


def latency(tflite: bytes, image: NDArray[Any], *, runs: int = 200, threads: int = 1) -> Latency:
    """Time single examples, as a device would run them.

    Parameters
    ----------
    tflite
        The bytes of the file.
    image : ndarray, shape (1, ...)
        One example.
    runs
        Timed runs, after a tenth as many that are not counted.
    threads
        Threads for LiteRT.

    Returns
    -------
    Latency
        Median and spread in seconds; input and output are copied within the time.
    """
    session = Session(tflite, 1, threads=threads)
    encoded = encode(image, session.inputs[0])
    times = np.empty(runs)
    for _ in range(max(1, runs // 10)):
        session(encoded)
    for run in range(runs):
        start = time.perf_counter()
        session(encoded)
        times[run] = time.perf_counter() - start
    low, median, high = np.percentile(times, [10, 50, 90])
    return Latency(float(median), float(low), float(high), runs, threads)
