"""Python runs this first where the folder is in PYTHONPATH: it then finds no TensorFlow, as on the plain install."""

import sys
from importlib.machinery import PathFinder

TRAINED_HALF = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization"}


class PlainInstall(PathFinder):
    """Finds what stands in sys.path, but for the extra `train`."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        """Find a module's spec; None where it is not installed."""
        return None if fullname.partition(".")[0] in TRAINED_HALF else super().find_spec(fullname, path, target)


sys.meta_path[:] = [PlainInstall if finder is PathFinder else finder for finder in sys.meta_path]
