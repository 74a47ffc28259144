"""What every test may ask for."""

from __future__ import annotations

import pytest

from compresskit.data import Digits, load_mnist


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Full MNIST; a test that asks for it fails, and does not pass on less, where it is not to be had."""
    found = load_mnist()
    assert found.complete, "these tests need full MNIST: run `compresskit fetch` where there is a network"
    return found
