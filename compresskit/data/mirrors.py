"""MNIST over HTTPS, from the places that publish its four IDX files."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compresskit.data import folders, mnist
from compresskit.data.mnist import Arrays
from compresskit.data.progress import Progress

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
)

KNOCK = 4.0  # seconds in which a mirror must take a connection, looking up its name included
CONNECT = 3.0  # seconds for the connection of a download
SILENCE = 5.0  # seconds without a byte after which a download is given up
GRACE = 10.0  # seconds after which a download must have been
SLOWEST = 20_000.0  # bytes a second on average
MOST_BYTES = 2**25  # three times the largest of the files
_SIZES = (9_912_422, 28_881, 1_648_877, 4_542)  # of the gzipped files, for the progress only


class MirrorError(OSError):
    """A mirror that did not give MNIST, and why."""


def mirrors() -> tuple[str, ...]:
    """Return the addresses to try, in order: `$COMPRESSKIT_MIRRORS` (separated by spaces) or the public ones."""
    chosen = os.environ.get("COMPRESSKIT_MIRRORS")
    return MIRRORS if chosen is None else tuple(chosen.split())


def fetch(addresses: Sequence[str], report: Progress) -> tuple[Arrays, str]:
    """Download MNIST from the first address that gives it whole.

    Parameters
    ----------
    addresses : sequence of str
        Each holds `train-images-idx3-ubyte.gz` and its three siblings.
    report : Progress

    Returns
    -------
    Arrays, str
        MNIST, checked by hash, and the address it came from.

    Raises
    ------
    MirrorError
        When none gave it; the message says why, for each.
    """
    report("Looking for MNIST on the web", None)
    reachable = answering(addresses)
    problems = [f"{address} cannot be reached" for address in addresses if address not in reachable]
    for address in reachable:
        try:
            return _fetch_one(address, report), address
        except (OSError, ValueError) as error:
            problems.append(f"{address}: {error}")
    raise MirrorError("; ".join(problems) or "no mirror is named")


def answering(addresses: Sequence[str], seconds: float = KNOCK) -> list[str]:
    """Return the addresses that take a connection, in the order given.

    All are tried at once, in threads that are left behind when time is up: looking up a name can hang for a minute
    where there is no network, and no timeout of a socket or of HTTP covers it.
    """
    import requests.utils

    answered: set[str] = set()

    def knock(address: str) -> None:
        # Half the time for each of its IP addresses, so that a dead IPv6 route leaves time for IPv4.
        with contextlib.suppress(OSError, ValueError):
            # A proxy, where one is set, is what a request connects to in place of the mirror.
            proxies = requests.utils.get_environ_proxies(address, no_proxy=None)
            target = _host_and_port(requests.utils.select_proxy(address, proxies) or address)
            socket.create_connection(target, timeout=seconds / 2).close()
            answered.add(address)

    threads = [threading.Thread(target=knock, args=(address,), daemon=True) for address in addresses]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [address for address in addresses if address in answered]


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    if not parts.hostname:
        raise ValueError(f"address={address!r} names no host")
    return parts.hostname, parts.port or {"http": 80}.get(parts.scheme, 443)


def _fetch_one(address: str, report: Progress) -> Arrays:
    import pooch

    # pooch announces each file and its hash on standard error; the progress line says it better.
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        with tempfile.TemporaryDirectory(prefix="compresskit-") as folder:
            for i, name in enumerate(folders.FILES):
                download = _Download(f"Downloading MNIST from {urlsplit(address).hostname}", i, report)
                # No hash of the file is asked for: mirrors may pack anew, and the arrays are checked instead.
                url = f"{address.rstrip('/')}/{name}.gz"
                pooch.retrieve(url, known_hash=None, fname=f"{name}.gz", path=folder, downloader=download)
            arrays = folders.read_four(Path(folder))
    finally:
        logger.setLevel(level)
    if problem := mnist.difference(arrays):
        raise MirrorError(problem)
    return arrays


class _Download:
    """A downloader for pooch that reports progress and gives a stalling or dripping server up.

    requests' own timeout starts anew with each byte, so a server that drips would hold a learner for hours.
    """

    def __init__(self, text: str, which: int, report: Progress) -> None:
        self._text, self._report = text, report
        self._before, self._size = sum(_SIZES[:which]), _SIZES[which]

    def __call__(self, url: str, output_file: str, _pooch: Any) -> None:
        import requests
        import urllib3

        begun, received = time.monotonic(), 0
        try:
            with (
                requests.get(url, stream=True, timeout=(CONNECT, SILENCE)) as response,
                Path(output_file).open("wb") as file,
            ):
                response.raise_for_status()
                # read1 returns what has arrived; read would wait for a whole block, however slowly it drips in.
                while chunk := response.raw.read1(2**16):
                    file.write(chunk)
                    received += len(chunk)
                    self._check(received, time.monotonic() - begun)
                    self._report(self._text, (self._before + min(received, self._size)) / sum(_SIZES))
        except urllib3.exceptions.HTTPError as error:
            raise MirrorError(f"the download broke off after {received:,} bytes ({error})") from error

    @staticmethod
    def _check(received: int, seconds: float) -> None:
        if received > MOST_BYTES:
            raise MirrorError(f"it sends more than {MOST_BYTES:,} bytes: not MNIST")
        if seconds > GRACE and received < SLOWEST * seconds:
            raise MirrorError(f"too slow ({received:,} bytes in {seconds:.0f} s)")
