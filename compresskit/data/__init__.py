"""Where the digits come from: files, cache, download, offline sample.

- `splits`: what the rest of the package knows of a data set, `Split` and `Digits`.
- `bring`: `load_data`, for data of your own in whatever form it comes.
- `idx`, `folders`: the IDX format, and data sets of four IDX files.
- `mnist`: how MNIST is recognised, and which of its digits are set aside.
- `cache`, `mirrors`, `package_index`, `offline`: one file each for a place that MNIST comes from.
- `sources`: `load_mnist`, which tries them in order.
"""

from compresskit.data.bring import load_data
from compresskit.data.cache import cache_folder
from compresskit.data.folders import load_idx
from compresskit.data.idx import IdxError, read_idx, write_idx
from compresskit.data.sources import load_mnist, write_mnist
from compresskit.data.splits import Digits, Split, as_float

__all__ = [
    "Digits",
    "IdxError",
    "Split",
    "as_float",
    "cache_folder",
    "load_data",
    "load_idx",
    "load_mnist",
    "read_idx",
    "write_idx",
    "write_mnist",
]
