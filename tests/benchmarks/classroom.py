"""A class on one machine: many live kernels, their memory, and how long a slider takes while others move theirs.

`python -m tests.benchmarks classroom` takes about five minutes and 8 GB; it is left out of `make bench`, which measures
one learner.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.live import ALL_DIGITS, kernel, run
from tests.benchmarks.row import Row

SIZES = (1, 5, 10, 30)
SECONDS = 40
PAUSE = 8.0
"""Seconds between two moves of one learner, on average: they also read."""

LEARNER = """
import json, random, time
from compresskit.widgets.points import Setting
def learn(seconds, pause, seed):
    chance, found = random.Random(seed), []
    end = time.monotonic() + seconds
    time.sleep(chance.uniform(0, pause))
    while time.monotonic() < end:
        setting = Setting(sparsity=round(chance.uniform(0.1, 0.9), 4), scope="global")
        started = time.monotonic()
        workbench.move_to(setting)
        while workbench.point is None or workbench.point.setting != setting:
            time.sleep(0.002)
        first = time.monotonic() - started
        workbench.wait_idle()
        found.append((first, time.monotonic() - started))
        time.sleep(chance.expovariate(1 / pause))
    return found
"""


def rows() -> list[Row]:
    """Add learners up to thirty, and measure at each size of the class."""
    found: list[Row] = []
    with contextlib.ExitStack() as stack:
        learners: list[tuple[Any, int]] = []
        for size in SIZES:
            while len(learners) < size:
                _, client = stack.enter_context(kernel())
                run(client, ALL_DIGITS + LEARNER)
                learners.append((client, int(printed(client, "import os; print(os.getpid())"))))
            found += measured(learners)
    return found


def measured(learners: list[tuple[Any, int]]) -> list[Row]:
    """Let all learners work at once."""
    size = len(learners)
    asked = [
        client.execute(f"print(json.dumps(learn({SECONDS}, {PAUSE}, {seed})))")
        for seed, (client, _) in enumerate(learners)
    ]
    times = [
        pair
        for (client, _), request in zip(learners, asked, strict=True)
        for pair in json.loads(heard(client, request))
    ]
    previews, exacts = ([1000 * each[place] for each in times] for place in (0, 1))
    own = [psutil.Process(pid).memory_full_info() for _, pid in learners]
    shared_fairly = [proportional(pid) for _, pid in learners]
    name = f"class of {size}"
    return [
        Row(f"{name}: preview, median", statistics.median(previews), None, None, "ms"),
        Row(f"{name}: preview, 95th percentile", percentile(previews), None, None, "ms"),
        Row(f"{name}: all digits, median", statistics.median(exacts), None, None, "ms"),
        Row(f"{name}: all digits, 95th percentile", percentile(exacts), None, None, "ms"),
        Row(
            f"{name}: memory of a kernel of its own",
            statistics.median(each.uss for each in own) / 1e6,
            None,
            None,
            "MB",
        ),
        Row(f"{name}: memory of all, shared pages once", sum(shared_fairly) / 1e6, None, None, "MB"),
    ]


def percentile(values: list[float]) -> float:
    """Give the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


def proportional(pid: int) -> int:
    """Bytes of memory of a process, a page shared by n processes counted as an n-th (Linux)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} does not tell its memory")


def printed(client: Any, code: str) -> str:
    """Run code in a kernel, and give what it prints."""
    return heard(client, client.execute(code))


def heard(client: Any, request: str) -> str:
    """Wait for the end of a request, and give what it printed."""
    told = []
    while True:
        message = client.get_iopub_msg(timeout=300)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream":
            told.append(message["content"]["text"])
        elif message["msg_type"] == "error":
            raise RuntimeError("\n".join(message["content"]["traceback"]))
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return "".join(told)
