"""Import TensorFlow without the page of notices that it writes while it starts.

The notices are written by C++ code to file descriptor 2, some of them before any setting is read, so the descriptor
itself is pointed elsewhere meanwhile. If the import fails, what was written is part of the error.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


def load() -> None:
    """Import TensorFlow and let it look for devices, which is when the last of its notices comes.

    Raises
    ------
    ImportError
        If TensorFlow or tf-keras is missing or does not start; the message ends with what TensorFlow wrote.
    """
    with held_back():
        import tensorflow as tf
        import tf_keras  # noqa: F401

        tf.config.list_physical_devices()
        tf.zeros(()).numpy()


@contextmanager
def held_back() -> Iterator[None]:
    """Keep what is written to file descriptor 2 while the body runs; add it to an error that the body raises.

    Raises
    ------
    ImportError
        In place of the body's own, with the text that was held back.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except ImportError as error:
            file.seek(0)
            written = file.read().decode(errors="replace").strip()
            raise ImportError(f"{error}\n{written}".strip()) from error
        finally:
            os.dup2(kept, 2)
            os.close(kept)
