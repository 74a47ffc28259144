"""Time several files against each other, by turns.

A machine is not equally fast all the time: it has other things to do, and clocks down when it is warm. Files that are
timed one after the other are timed on different machines, so to speak. By turns, each gets its share of good and bad
moments, and differences of a few per cent can be seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from compresskit.litert.runtime import Latency, Session, encode


def latencies(
    tflites: Mapping[str, bytes],
    image: NDArray[np.generic],
    *,
    threads: int = 1,
    rounds: int = 20,
    runs: int = 10,
    stop: Callable[[], bool] | None = None,
) -> dict[str, Latency]:
    """Time single examples with each of several files.

    Parameters
    ----------
    tflites
        Name to file.
    image : ndarray, shape (1, ...)
        One example that all of them read.
    threads
        Threads for LiteRT.
    rounds
        How often it is each file's turn; the first round is not counted.
    runs
        Runs in a turn.
    stop
        Asked before each round; if it says so, the rounds so far are given.

    Returns
    -------
    dict of str to Latency
        Median, 10th and 90th percentile of all counted runs of a file, in seconds; input and output are copied within
        the time. If not a single round was counted, there is nothing in it.

    Raises
    ------
    ValueError
        If rounds or runs are fewer than 1, or the image does not fit a file.
    """
    if rounds < 1 or runs < 1:
        raise ValueError(f"rounds is {rounds} and runs is {runs}; give 1 or more of each")
    sessions = {name: Session(tflite, 1, threads=threads) for name, tflite in tflites.items()}
    inputs = {name: encode(image, session.inputs[0]) for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for counted in range(rounds + 1):
        if stop is not None and stop():
            break
        for name, session in sessions.items():
            for _ in range(runs):
                start = time.perf_counter()
                session(inputs[name])
                if counted:
                    times[name].append(time.perf_counter() - start)
    return {name: summary(measured, threads) for name, measured in times.items() if measured}


def summary(times: list[float], threads: int) -> Latency:
    """Give median and spread of some times in seconds."""
    low, median, high = np.percentile(times, [10, 50, 90])
    return Latency(float(median), float(low), float(high), len(times), threads)
