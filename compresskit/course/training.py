"""Tell whether this environment can train, and what to install if it cannot."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

MISSING = (
    "{} not installed, so nothing is trained here: this notebook goes on with the model that comes with the course. "
    "To train, install the extra 'train' (make setup; or pip install 'compresskit[train]'), then restart the kernel."
)


def can_train() -> bool:
    """Load TensorFlow without its notices, and say so if it is missing.

    Returns
    -------
    bool
        Whether TensorFlow and tf-keras are here.
    """
    missing = [
        name for name, module in (("TensorFlow", "tensorflow"), ("tf-keras", "tf_keras")) if not find_spec(module)
    ]
    if missing:
        print(MISSING.format(f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"))
        return False
    importlib.import_module("compresskit.training.quiet").load()
    return True
