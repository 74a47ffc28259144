"""Where the digits come from: files, cache, download, offline sample."""

from compresskit.data.cache import cache_folder
from compresskit.data.sources import load_mnist
from compresskit.data.splits import Digits, Split, as_float

__all__ = ["Digits", "Split", "as_float", "cache_folder", "load_mnist"]
