"""Import TensorFlow without the page of notices that it writes while it starts."""

from __future__ import annotations

from compresskit.quiet import stderr_held_back


def load() -> None:
    """Import TensorFlow and let it look for devices, which is when the last of its notices comes.

    Raises
    ------
    ImportError
        If TensorFlow or tf-keras is missing or does not start; the message ends with what TensorFlow wrote.
    """
    with stderr_held_back() as written:
        try:
            import tensorflow as tf
            import tf_keras  # noqa: F401

            tf.config.list_physical_devices()
            tf.zeros(()).numpy()
            tf.get_logger().setLevel("WARNING")  # each conversion tells where its temporary files lie
        except ImportError as error:
            raise ImportError(f"{error}\n{written()}".strip()) from error
