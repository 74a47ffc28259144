"""The panels of lesson 07: what they measure is what the engine gives, and what they draw is what they measure."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import compresskit as ck
from compresskit.litert.sizes import file_sizes
from compresskit.pruning.sensitivity import Sensitivity
from compresskit.widgets.pruning import BARS, RULES, Setting, look, prune_weights, recipe_of, sizes_table, try_out
from compresskit.widgets.sensitivity import Choice, expected_loss, keep_a_budget, layer_bytes, measure, plan

NAMES = ("dense1", "dense2", "head")


@pytest.fixture(scope="module")
def model():
    return ck.load_model("lenet_300_100")


@pytest.fixture(scope="module")
def few(digits):
    return dataclasses.replace(digits, validation=digits.validation.take(1500), train=digits.train.take(100))


def zeros(compressed) -> dict[str, float]:
    return {layer.name: layer.sparsity for layer in compressed.layers}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("amount", [0.0, 0.3, 0.9])
def test_every_rule_removes_as_much_in_all(model, rule, amount):
    small = ck.compress(model, recipe_of(model, Setting(amount, rule)))
    cuts, _ = look(model, small, "dense2")
    assert sum(cut.removed for cut in cuts) == pytest.approx(amount * sum(cut.size for cut in cuts), abs=3)
    assert {cut.name: cut.removed / cut.size for cut in cuts} == zeros(small)


def test_the_rules_share_the_zeros_out_as_they_say(model):
    """One threshold is one number for all; in units of the spread, it is; the same share is the same share."""
    cuts = {rule: look(model, ck.compress(model, recipe_of(model, Setting(0.7, rule))), "head")[0] for rule in RULES}
    assert len({round(cut.threshold, 3) for cut in cuts["global"]}) == 1
    units = [cut.threshold / cut.spread for cut in cuts["spread"]]
    assert max(units) - min(units) < 0.02 and len({round(cut.threshold, 3) for cut in cuts["spread"]}) == 3
    assert {round(cut.removed / cut.size, 3) for cut in cuts["layer"]} == {0.7}
    weights = ck.compress(model, ck.Recipe()).weights("dense2")
    assert cuts["global"][1].spread == pytest.approx(float(np.sqrt(np.mean(weights.astype(float) ** 2))))


def test_the_histogram_counts_every_weight_once(model):
    small = ck.compress(model, recipe_of(model, Setting(0.5, "layer")))
    cuts, bins = look(model, small, "dense2")
    assert bins.kept.size == BARS == bins.removed.size == bins.edges.size - 1
    assert bins.removed.sum() == cuts[1].removed == 15_000 and bins.kept.sum() == 15_000
    middle = (bins.edges[:-1] + bins.edges[1:]) / 2
    outside = np.abs(middle) > cuts[1].threshold + bins.edges[1] - bins.edges[0]
    assert bins.removed[outside].sum() == 0 < bins.kept[outside].sum()


def test_what_is_shown_is_what_the_engine_gives(model, few):
    setting = Setting(0.8, "global", "activation", "head")
    shown = try_out(model, setting, few.validation, few.train)
    by_hand = ck.compress(model, ck.Recipe(ck.Prune(0.8, scope="global", importance="activation")), few.train)
    assert shown.compressed.tflite == by_hand.tflite
    assert shown.misread == ck.evaluate(by_hand, few.validation).errors > shown.misread_float
    assert shown.sizes == (file_sizes(by_hand.tflite), file_sizes(model.tflite))
    assert shown.sparsity == pytest.approx(0.8, abs=1e-4)


def test_what_cannot_be_is_a_sentence(model):
    with pytest.raises(ValueError, match="rule is 'best'; choose one of global"):
        recipe_of(model, Setting(0.5, "best"))
    with pytest.raises(ValueError, match="is one of magnitudes; choose magnitude"):
        recipe_of(model, Setting(0.5, "spread", "random"))
    with pytest.raises(ValueError, match="'conv9' is not in this model; its layers are dense1"):
        look(model, ck.compress(model, ck.Recipe()), "conv9")
    with pytest.raises(ValueError, match=r"budget is 25; give a part of the float file"):
        keep_a_budget(model, budget=25)


def slide(control, value) -> None:
    """What the page sends when a control is moved; an index for selections."""
    control._handle_msg({"content": {"data": {"method": "update", "state": {"index": value}}}, "buffers": []})


def test_the_panel_follows_its_controls(model, few):
    panel = prune_weights(model, few)
    assert panel.wait_idle(60) and "of 1,500 digits misread, 60.0% removed" in panel.status.text
    assert panel.result.sizes is not None and f"{panel.result.sizes[0].packed:,}" in panel.sizes.value
    assert "entropy (estimated)" in panel.sizes.value
    tables = []
    panel.sizes.observe(lambda change: tables.append(change["new"]), "value")
    slide(panel.amount, 45)
    assert (
        panel.wait_idle(60) and panel.setting.amount == 0.9 and panel.tried["global", "magnitude"].keys() == {0.6, 0.9}
    )
    told = ["the file before this" in table for table in tables]
    assert told[0] and not told[-1], "while the new file is measured, the sizes of the old one are called that"
    drawn = panel.chart.figure["data"]
    assert drawn[0]["y"] == panel.result.histogram.kept.tolist()
    assert drawn[3]["x"] == [60.0, 90.0] and drawn[3]["y"][1] == 100 * panel.result.misread / 1500
    slide(panel.rule, 2)
    slide(panel.importance, 1)
    assert panel.wait_idle(60) and panel.setting.rule == "layer" and ("layer", "activation") in panel.tried
    assert len(panel.chart.figure["layout"]["shapes"]) == 1, "no threshold can be drawn that is not one of magnitudes"
    slide(panel.rule, 1)
    assert panel.wait_idle(60) and "choose magnitude" in panel.status.text
    slide(panel.importance, 0)
    assert panel.wait_idle(60) and "times its spread" in panel.status.text
    slide(panel.layer, 2)
    assert panel.wait_idle(60) and panel.result.histogram.kept.sum() + panel.result.histogram.removed.sum() == 1000
    bundle, about = panel._repr_mimebundle_()
    assert bundle["image/png"].startswith(b"\x89PNG") and "head loses" in about["image/png"]["alt"]
    panel.close()


def test_a_table_of_sizes_keeps_its_rows_and_shows_its_goal(model):
    known = sizes_table((file_sizes(model.tflite),) * 2, 0.25)
    for table in (sizes_table(None), known):
        assert table.count("<tr>") == 5, "as high before it is measured as after"
    assert known.count("left:25.0%") == 4 and f"{model.size:,}" in known


# -- a budget ----------------------------------------------------------------------------------------------------------


@given(st.tuples(*[st.sampled_from([0.0, 0.5, 0.9])] * 3))
def test_a_choice_becomes_a_recipe(shares):
    recipe = Choice(tuple(zip(NAMES, shares, strict=True))).recipe()
    assert {step.layers[0]: step.sparsity for step in recipe.prunes} == {
        name: share for name, share in zip(NAMES, shares, strict=True) if share
    }


@pytest.fixture(scope="module")
def scan():
    """Made up, so that what the plan does can be reckoned: dense1 bears 80 %, the others nothing."""
    grid = (0.0, 0.5, 0.8, 0.9)
    accuracy = np.array([[0.98, 0.98, 0.975, 0.9], [0.98, 0.9, 0.7, 0.5], [0.98, 0.9, 0.8, 0.6]])
    return Sensitivity(NAMES, grid, accuracy)


def test_bytes_of_layers_add_up_to_nearly_the_file(model):
    shares = {"dense1": 0.8, "dense2": 0.5, "head": 0.0}
    small = ck.compress(model, Choice(tuple(shares.items())).recipe())
    together = sum(layer_bytes(model.tflite, name, share) for name, share in shares.items())
    assert together == pytest.approx(small.deflated_size, rel=0.02)


def test_the_plan_prunes_where_it_costs_least(model, scan):
    chosen = plan(model, scan, 0.4 * model.size)
    assert chosen.sparsities == {"dense1": 0.8, "dense2": 0.0, "head": 0.0}
    assert chosen.expected_drop == pytest.approx(0.005)
    made = ck.compress(model, Choice(tuple(chosen.sparsities.items())).recipe())
    assert made.deflated_size == pytest.approx(chosen.cost, rel=0.02)
    saved = layer_bytes(model.tflite, "dense1", 0.0) - layer_bytes(model.tflite, "dense1", 0.8)
    assert chosen.cost == model.deflated_size - saved, "what is not weights is counted as well"
    with pytest.raises(ValueError, match="raise the budget"):
        plan(model, scan, 1000)


def test_losses_are_read_off_between_the_points(scan):
    assert expected_loss(scan, Choice((("dense1", 0.65), ("dense2", 0.25), ("head", 0.0)))) == pytest.approx(0.0425)


def test_the_budget_panel_follows_sliders_and_the_plan(model, few, scan):
    panel = keep_a_budget(model, few, sensitivity=scan, budget=0.4)
    assert panel.wait_idle(60) and panel.measured.lost == 0 and "Wanted: at most 40%" in panel.status.text
    slide(panel._sliders["dense2"], 13)
    assert panel.wait_idle(60) and dict(panel.choice.sparsities)["dense2"] == 0.9
    by_hand = measure(model, panel.choice, few.validation)
    assert (panel.measured.misread, panel.measured.sizes) == (by_hand.misread, by_hand.sizes)
    ring = panel._chart.figure["data"][3]
    assert ring["x"] == [90.0] and ring["y"] == [pytest.approx(50.0)], "on the line of dense2"
    panel._fit.click()
    assert panel.wait_idle(60) and dict(panel.choice.sparsities) == {"dense1": 0.8, "dense2": 0.0, "head": 0.0}
    assert panel.measured.share <= 0.4 and f"{100 * panel.measured.lost:.2f} points lost" in panel.status.text
    assert panel._repr_mimebundle_()[0]["image/png"].startswith(b"\x89PNG")
    panel.close()


def test_the_button_waits_for_the_scan_and_says_what_is_out_of_reach(model, few, scan):
    panel = keep_a_budget(model, few, sensitivity=scan, budget=0.001)
    assert panel.wait_idle(60)
    panel._fit.click()
    assert "raise the budget" in panel.status.text
    panel._found = None
    panel._fit.click()
    assert "not finished" in panel.status.text
    panel.close()


def test_the_panel_scans_by_itself(few):
    small = dataclasses.replace(few, validation=few.validation.take(60))
    panel = keep_a_budget("lenet_300_100", small)
    assert panel.wait_idle(120) and panel._found.layers == NAMES and len(panel._chart.figure["data"]) == 7
    panel.close()
