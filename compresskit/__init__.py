"""compresskit: a course and a workbench on making neural networks small.

The names that lessons use. Importing this package loads nothing heavy: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compresskit.compression import Compressed, compress
    from compresskit.data import load_data, load_idx, load_mnist
    from compresskit.evaluation import Score, evaluate
    from compresskit.recipe import Factorize, Prune, Quantize, Recipe, Share
    from compresskit.widgets.workbench import Workbench
    from compresskit.zoo import Checkpoint, load_model

_HOMES = {
    "Checkpoint": "zoo",
    "Compressed": "compression",
    "Factorize": "recipe",
    "Prune": "recipe",
    "Quantize": "recipe",
    "Recipe": "recipe",
    "Score": "evaluation",
    "Share": "recipe",
    "Workbench": "widgets.workbench",
    "compress": "compression",
    "evaluate": "evaluation",
    "load_data": "data",
    "load_idx": "data",
    "load_mnist": "data",
    "load_model": "zoo",
}

__all__ = [
    "Checkpoint",
    "Compressed",
    "Factorize",
    "Prune",
    "Quantize",
    "Recipe",
    "Score",
    "Share",
    "Workbench",
    "compress",
    "evaluate",
    "load_data",
    "load_idx",
    "load_mnist",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'compresskit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"compresskit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
