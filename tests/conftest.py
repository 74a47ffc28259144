"""What every test may ask for."""

from __future__ import annotations

import pytest
from hypothesis import settings

from compresskit.data import Digits, load_mnist

# No test depends on how fast the machine is.
settings.register_profile("compresskit", deadline=None)
settings.load_profile("compresskit")


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Full MNIST; a test that asks for it fails, and does not pass on less, where it is not to be had."""
    found = load_mnist()
    assert found.complete, "these tests need full MNIST: run `compresskit fetch` where there is a network"
    return found
