"""Each layer pruned alone: the scan's numbers are those of files made one by one."""

from __future__ import annotations

import pytest

import compresskit as ck
from compresskit.analysis import pruning_sensitivity


def test_each_layer_alone_is_scored_on_its_file():
    model, some = ck.load_model("lenet_300_100"), ck.load_mnist().validation.take(300)
    told: list[tuple[int, int]] = []
    found = pruning_sensitivity(model, some, (0.5, 0.9), on_progress=lambda done, total: told.append((done, total)))
    assert found.layers == ("dense1", "dense2", "head") and found.sparsities == (0.0, 0.5, 0.9)
    assert told[-1] == (7, 7)
    assert set(found.accuracy[:, 0]) == {ck.evaluate(model, some).accuracy}
    by_hand = ck.compress(model, ck.Recipe(ck.Prune(0.9, layers=["dense1"])))
    assert [layer.sparsity > 0.5 for layer in by_hand.layers] == [True, False, False]
    assert found.accuracy[0, 2] == ck.evaluate(by_hand, some).accuracy < found.accuracy[1, 2]


def test_the_importance_is_passed_on():
    model, some = ck.load_model("lenet_300_100"), ck.load_mnist().validation.take(300)
    lot = pruning_sensitivity(model, some, (0.7,), importance="random")
    assert lot.accuracy[0, 1] < pruning_sensitivity(model, some, (0.7,)).accuracy[0, 1] - 0.1
    with pytest.raises(ValueError, match="needs digits"):
        pruning_sensitivity(model, some, (0.7,), importance="activation")
