"""The project's own cache: one file that loads in milliseconds and is either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np

from compresskit.data import mnist
from compresskit.data.mnist import Bytes

FILE_NAME = "mnist-1.npy"  # the number is that of the layout in `mnist.pack`: a new layout gets a new name
_LONGEST_WAIT = 600.0  # seconds
_LITTER_AGE = 3600.0  # seconds after which a half-written file belongs to a process that was killed


def cache_folder() -> Path:
    """Return the folder that downloads are kept in; it need not exist.

    `$COMPRESSKIT_CACHE` when set, else `compresskit` in the platform's own place: `$XDG_CACHE_HOME` or `~/.cache`,
    `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows.
    """
    if chosen := os.environ.get("COMPRESSKIT_CACHE"):
        return expanded(chosen).absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
        return expanded(base) / "compresskit" / "Cache"
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification tells to ignore a relative path.
    return expanded(base if Path(base).is_absolute() else default) / "compresskit"


def expanded(path: str) -> Path:
    """Return the path with `~` replaced by the user's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # a container's user without a home
        return Path(tempfile.gettempdir()) / "compresskit-without-home"


def read(path: Path) -> Bytes:
    """Map the packed file into memory and check every byte of it.

    Mapped and not read: thirty kernels on one server share one copy. After the check a kernel holds none of it, and
    takes back the pages it comes to use: those of the test digits, as a rule.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError, OSError
        When it cannot be read, or is not packed MNIST.
    """
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except OSError:  # some shared folders cannot be mapped, only read
        mapped = np.load(path, allow_pickle=False)
    # Viewed as its base class, because np.memmap's own repr and pickling surprise.
    packed = mapped.view(np.ndarray)
    if not mnist.is_packed_mnist(packed):
        raise ValueError(f"{path} is damaged: its bytes are not those of MNIST")
    if isinstance(mapped.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.base.madvise(mmap.MADV_DONTNEED)
    return cast(Bytes, packed)


def write(path: Path, packed: Bytes) -> None:
    """Write the file so that at every moment there is a whole one under its name, or none.

    Raises
    ------
    OSError
        When the folder cannot be made or written to, or the disk is full; nothing is left behind then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_litter(path)
    handle, beside = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            np.save(stream, packed)
            stream.flush()
            os.fsync(stream.fileno())
        if os.name == "posix":
            Path(beside).chmod(0o644)  # mkstemp gives 0600, which a class sharing this folder could not read
        Path(beside).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        raise


@contextlib.contextmanager
def one_at_a_time(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Let one process, or thread, at a time fetch what belongs at `path`: the others find it there afterwards.

    The operating system lets go of the lock when its process ends, however it ends. Where no lock can be had (a folder
    that cannot be written to, a file system without locks), and after ten minutes of waiting, everyone goes on.

    Parameters
    ----------
    path
        The file; the lock lies beside it.
    waiting : callable
        Called about every fifth of a second while another one is at work; what it raises ends the waiting.

    Yields
    ------
    bool
        Whether somebody else was at work.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.parent / f".{path.name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError:
        yield False
        return
    try:
        end, waited = time.monotonic() + _LONGEST_WAIT, False
        while not _take(descriptor) and time.monotonic() < end:
            waited = True
            waiting()
            time.sleep(0.2)
        yield waited
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Take the lock if it is free; tell whether it was, or cannot be had at all."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
    return True


def _clear_litter(path: Path) -> None:
    """Remove what killed processes left: a `.part` file that nobody has written to for an hour."""
    for part in path.parent.glob(f"{path.name}.*.part"):
        with contextlib.suppress(OSError):  # another process may be clearing it at this moment
            if time.time() - part.stat().st_mtime > _LITTER_AGE:
                part.unlink()
