"""Hold back what libraries written in C++ say on standard error: a notebook would show it in red."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stderr_held_back() -> Iterator[Callable[[], str]]:
    """Point file descriptor 2 elsewhere while the body runs; no setting reaches those who write to it directly.

    Yields
    ------
    callable () -> str
        What was written so far. What to do with it is for the body to decide: what it drops is lost.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:

        def written() -> str:
            return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace").strip()

        os.dup2(file.fileno(), 2)
        try:
            yield written
        finally:
            os.dup2(kept, 2)
            os.close(kept)
