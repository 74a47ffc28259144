"""The panel of lesson 10: what it measures is the file, and what it draws is what it measures."""

from __future__ import annotations

import json

import numpy as np
import pytest

import compresskit as ck
from compresskit.lowrank import break_even_rank
from compresskit.training.lowrank_curves import load_results
from compresskit.widgets import lowrank
from compresskit.widgets.lowrank import Setting, choose_rank, measure


@pytest.fixture(scope="module")
def digits():
    return ck.load_mnist()


def test_what_is_measured_is_the_file(digits):
    model = ck.load_model("lenet_300_100")
    some = digits.validation.take(500)
    measured = measure(model, Setting("dense1", 10), some, timed=True)
    small = ck.compress(model, ck.Recipe(ck.Factorize(10, layers=["dense1"])))
    assert (measured.size, measured.misread) == (small.size, ck.evaluate(small, some).errors)
    assert measured.weights == measured.macs == 10 * (300 + 784) and measured.whole_weights == 300 * 784
    s = np.linalg.svd(ck.compress(model, ck.Recipe()).weights("dense1").T.astype(float), compute_uv=False)
    assert measured.energy == pytest.approx((s[:10] ** 2).sum() / (s**2).sum(), rel=1e-6)
    assert measured.time is not None and measured.time.median > 0


def test_a_convolution_is_cut_down_and_across(digits):
    model = ck.load_model("lenet5")
    measured = measure(model, Setting("conv2", 6), digits.validation.take(200))
    assert measured.weights == 6 * 5 * (20 + 50) and measured.time is None
    assert measured.macs == 6 * 5 * 20 * 8 * 12 + 6 * 5 * 50 * 8 * 8, "the column is as wide as what it reads"


def slide(control, value) -> None:
    """What the page sends when a control is moved; an index for selections."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"index": value}}}, "buffers": []})


def test_the_panel_follows_its_controls(digits):
    panel = choose_rank("lenet_300_100", digits)
    try:
        assert panel.wait_idle(120) and panel.layer.value == "dense1" and "bytes; misreads" in panel.status.text
        ranks = [rank for _, rank in panel.rank.options]
        edge = break_even_rank(300, 784)
        assert ranks[0] == 1 and ranks[-1] == 300 and edge in ranks and ranks == sorted(ranks)
        slide(panel.rank, 1)
        assert panel.wait_idle(120)
        assert panel.setting.rank == 2 and panel.tried[panel.setting][2]
        drawn = panel.chart.figure
        assert len(drawn["data"][0]["x"]) == 2 and len(drawn["data"][1]["x"]) == 298
        assert drawn["data"][-1]["x"] == [panel.result.size], "the ring is where you stand"
        assert [note["text"] for note in drawn["layout"]["annotations"]] == [f"break-even: {edge}"]
        slide(panel.rank, len(ranks) - 1)
        assert panel.wait_idle(120) and "times as many weights" in panel.status.text
        asked, submit = [], panel._live.submit
        panel._live.submit = lambda setting: (asked.append(setting.rank), submit(setting))
        slide(panel.layer, 2)
        assert panel.wait_idle(120) and panel.setting.layer == "head"
        assert set(asked) == {panel.rank.value}, "no file is made for a rank that the slider passes by itself"
        assert panel.rank.options[-1][1] == 10 and "<td>weights</td>" in panel.table.value
        assert panel._picture().png().startswith(b"\x89PNG") and "misreads" in panel._picture().title
        assert repr(panel) == f"Low rank of lenet_300_100: head with rank {panel.rank.value}"
    finally:
        panel.close()


def test_results_that_are_none_are_named(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"rows": []}))
    for name in ("missing.json", "other.json"):
        with pytest.raises(ValueError, match=r"not the results of `python -m compresskit.training.lowrank_curves`"):
            load_results(tmp_path / name)
    assert tuple(sorted(lowrank.RANKS)) == lowrank.RANKS
