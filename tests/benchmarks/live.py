"""How long a slider's way is: from a setting to a score, from a kernel's start to a first point, and in memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psutil

import compresskit as ck
from compresskit.app import memory_settings
from compresskit.compression import Draft, draft
from compresskit.data import Split
from compresskit.evaluation import Score
from compresskit.widgets.live import Live
from compresskit.widgets.points import Point, Setting, compute_point, preview_of
from compresskit.zoo import Checkpoint
from tests.benchmarks.row import Row, compare

PAIRS = 9

OPEN = """
import time
import compresskit as ck
workbench = ck.Workbench()
"""
FIRST_POINT = (
    OPEN
    + """
while workbench.point is None:
    time.sleep(0.001)
"""
)
ALL_DIGITS = OPEN + "workbench.wait_idle()"
IMPORTS = "import tensorflow, tensorflow_model_optimization"


@contextmanager
def converter_way() -> Iterator[subprocess.Popen[str]]:
    """Start the reference, with TensorFlow imported and the model loaded, and wait until it is ready."""
    command = [sys.executable, "-m", "tests.benchmarks.converter_way"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "ready", "the reference did not start"
        yield process
    finally:
        process.stdin.close()
        process.wait(timeout=30)


def ask(process: subprocess.Popen[str], sparsity: float) -> dict[str, Any]:
    """Let the reference compute one setting."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{sparsity}\n")
    process.stdin.flush()
    return dict(json.loads(process.stdout.readline()))


def live_against_converter() -> list[Row]:
    """Compare what a workbench does for a slider change with the converter's way: a preview, then all digits."""
    digits, model = ck.load_mnist(), ck.load_model("digit_reader")
    sample = preview_of(digits.test)
    times: dict[str, float] = {}
    done = threading.Event()
    accuracies: list[float] = []
    before: list[Score] = []
    drafts: dict[ck.Recipe, Draft] = {}

    def show(outcome: Any) -> None:
        times["exact" if outcome.exact else "preview"] = time.perf_counter()
        if outcome.exact:
            accuracies.append(outcome.value.score.accuracy)
            done.set()

    def make(model: Checkpoint, recipe: ck.Recipe, calibration: Split | None) -> Draft:
        if recipe not in drafts:
            drafts.clear()
            drafts[recipe] = draft(model, recipe, calibration)
        return drafts[recipe]

    def preview(setting: Setting, _: Any) -> Point:
        point = compute_point(model, setting, sample, digits.train, exact=False, squeeze=False, make=make)
        before[:] = [point.score]
        return point

    def exact_point(setting: Setting, _: Any) -> Point:
        return compute_point(model, setting, digits.test, digits.train, squeeze=False, make=make, preview=before[0])

    def fail(_: Any, sentence: str) -> None:
        raise AssertionError(sentence)

    live = Live(preview, exact_point, show, fail, cache_entries=0)
    previews: list[tuple[float, float]] = []

    def ours(number: int) -> float:
        # No two settings are the same, so nothing comes out of a cache.
        sparsity = 0.6 + number / 1000
        done.clear()
        start = time.perf_counter()
        live.submit(Setting(sparsity))
        assert done.wait(60), "no result within a minute"
        previews.append((times["preview"] - start, 0.0))
        return (times["exact"] - start) * 1000

    references: list[dict[str, Any]] = []

    with converter_way() as process:

        def reference(number: int) -> float:
            references.append(ask(process, 0.6 + number / 1000))
            return float(references[-1]["seconds"]) * 1000

        exact = compare("live exact", ours, reference, pairs=PAIRS, unit="ms")
    live.close()
    gap = np.abs(np.array(accuracies) - [each["accuracy"] for each in references]).max()
    assert gap < 0.003, f"the two ways disagree by {gap:.2%} in accuracy"
    preview_ms = [each * 1000 for each, _ in previews[1:]]
    ratios = [each["seconds"] * 1000 / ms for each, ms in zip(references[1:], preview_ms, strict=True)]
    preview = Row("live preview", statistics.median(preview_ms), exact.reference, statistics.median(ratios), "ms")
    return [exact, preview]


@contextmanager
def kernel() -> Iterator[tuple[Any, Any]]:
    """Start a Jupyter kernel of this Python as the lab starts it, and end it."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    environment = {**os.environ, **memory_settings()}
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False"], env=environment)
    client = manager.client()
    client.start_channels()
    try:
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(client: Any, code: str) -> None:
    """Run code in a kernel and wait for its end."""
    reply = client.execute_interactive(code, timeout=300, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]


def kernel_seconds(code: str) -> float:
    """From starting a kernel to the end of the code."""
    start = time.perf_counter()
    with kernel() as (_manager, client):
        run(client, code)
        return time.perf_counter() - start


def import_seconds(_: int) -> float:
    """Import TensorFlow and TFMOT in a fresh Python, its own start left out."""
    code = f"import time; start = time.perf_counter()\n{IMPORTS}\nprint(time.perf_counter() - start)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def kernel_megabytes(code: str) -> float:
    """Resident memory of a kernel that has run the code, in MB (1,000,000 bytes)."""
    with kernel() as (_manager, client):
        run(client, code)
        found: list[str] = []
        client.execute_interactive(
            "import os; print(os.getpid())",
            timeout=60,
            output_hook=lambda message: found.append(message["content"].get("text", "")),
        )
        return float(psutil.Process(int("".join(found))).memory_info().rss / 1e6)


def rows() -> list[Row]:
    """Measure everything in this file."""
    return [
        *live_against_converter(),
        compare(
            "kernel start to first live point",
            lambda _: kernel_seconds(FIRST_POINT),
            import_seconds,
            pairs=5,
            unit="s",
        ),
        compare(
            "kernel start to that point on all digits",
            lambda _: kernel_seconds(ALL_DIGITS),
            import_seconds,
            pairs=3,
            unit="s",
        ),
        compare(
            "memory of a live kernel",
            lambda _: kernel_megabytes(ALL_DIGITS),
            lambda _: kernel_megabytes(IMPORTS),
            pairs=2,
            unit="MB",
        ),
    ]
