"""Exercise checks, predictions, pictures, and the building of notebooks from lessons."""

from compresskit.course.checks import check
from compresskit.course.predict import predict, reveal
from compresskit.course.show import show_bars, show_digits
from compresskit.course.training import can_train

__all__ = ["can_train", "check", "predict", "reveal", "show_bars", "show_digits"]
