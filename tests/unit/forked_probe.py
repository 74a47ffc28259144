"""A first look at many files: a process each, as `compresskit.litert.probe` has it, but forked and not started anew.

Starting Python and loading NumPy and LiteRT is five sixths of a look. Here one process does that, and a child of it
looks at the file; a crash takes only the child along.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from compresskit.litert import probe

_PROGRAM = """
import json, os, signal, sys
import ai_edge_litert.interpreter, numpy, psutil
from compresskit.litert import inspect, probe, runtime

for line in sys.stdin:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            os.dup2(writes, 1)
            sys.argv = ["probe", json.loads(line)]
            code = probe.main()
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writes)
    with os.fdopen(reads) as told:
        text = told.read()
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text]), flush=True)
"""


@contextmanager
def forked(monkeypatch: Any) -> Iterator[None]:
    """Have `probe.look` fork its processes as long as this is open."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            assert command[:3] == [sys.executable, "-m", "compresskit.litert.probe"]
            parent.stdin.write(json.dumps(command[3]) + "\n")
            parent.stdin.flush()
            code, told = json.loads(parent.stdout.readline())
            return subprocess.CompletedProcess(command, code, told, "")

        with monkeypatch.context() as patch:
            patch.setattr(probe, "subprocess", SimpleNamespace(**{**vars(subprocess), "run": run}))
            yield
        parent.stdin.close()
