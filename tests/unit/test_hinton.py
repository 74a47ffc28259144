"""The experiment of 2015: finished runs are kept, what is missing says so, biases are corrected on validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import compresskit as ck
from compresskit.cli import main
from compresskit.training import distillation_runs, hinton, tiny_student
from compresskit.training.hinton import Result, Row, best_lift, count_errors, lifted, load_results, plan, rows, table

# -- the experiment ---------------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """Train nothing; remember what would have been."""
    asked = []

    def quick(row: Row, seed, digits, settings, folder):
        asked.append((row.name, seed))
        if row.student == hinton.TEACHER:
            ck.load_model("lenet_300_100").save(folder / "teacher.tflite")
        return Result(row.name, seed, 100 + seed, 90 if row.only else None, 2.5 if row.only else 0.0, 1.0)

    monkeypatch.setattr(hinton, "make", quick)
    return asked


def test_each_finished_run_is_written_and_not_made_again(digits, made, tmp_path):
    path, told = tmp_path / "hinton.json", []

    def tell(line):
        told.append(line)
        if len(told) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hinton.run(digits, seeds=(0, 1), path=path, folder=tmp_path, tell=tell)
    assert len(load_results(path)) == 4
    found = hinton.run(digits, seeds=(0, 1), path=path, folder=tmp_path, tell=told.append)
    assert len(made) == len(set(made)) == len(found) == 2 * len(rows()) - 1, "the teacher once, all else twice"
    assert found == load_results(path)
    assert "corrected by +2.5" in "\n".join(told)
    shipped = tmp_path / hinton.SHIPPED_TEACHER.name
    assert shipped.stat().st_size < 0.3 * (tmp_path / "teacher.tflite").stat().st_size, "weights in 8 bits"


def test_the_table_says_what_is_not_run_yet():
    words = table((Result("small net alone (2 x 800)", 0, 140, None, 0.0, 1.0),)).splitlines()
    assert "146   140 (140 to 140), 1" in words[1] and words[2].endswith("67   not run yet")
    assert sum("not run yet" in line for line in words) == len(words) - 2


def test_the_teacher_comes_before_what_needs_it():
    order = [row for row, _ in plan((0,))]
    place = [row.student for row in order].index(hinton.TEACHER)
    assert all(row.temperature is None for row in order[:place])
    with pytest.raises(ValueError, match="there is no 'huge net'"):
        list(plan((0,), ["huge net"]))


def test_half_a_data_set_and_a_missing_teacher_are_refused(digits, tmp_path):
    sample = replace(digits, complete=False, notice="An offline sample.")
    with pytest.raises(ValueError, match=r"needs full MNIST\. An offline sample"):
        hinton.run(sample, path=tmp_path / "x.json")
    with pytest.raises(ValueError, match=r"holds no teacher\.tflite"):
        hinton.trained_teacher(tmp_path)
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match="not the results of"):
        load_results(tmp_path / "broken.json")


@pytest.mark.parametrize("bias", [-14.0, 14.0])
def test_the_bias_that_was_taken_away_or_added_is_found_again(digits, bias):
    split = digits.validation.take(1000)
    logits = ck.litert.runtime.outputs(ck.load_model("lenet_300_100").tflite, split.images)
    before = count_errors(logits, split.labels)
    spoilt = lifted(logits, (3,), bias)
    assert count_errors(spoilt, split.labels) > before + 20
    lift = best_lift(spoilt, split.labels, (3,))
    assert count_errors(lifted(spoilt, (3,), lift), split.labels) <= before
    assert best_lift(np.eye(10), np.arange(10), (3,)) == 0, "nothing to mend, nothing changed"


@pytest.mark.train
def test_a_row_is_really_trained(digits, tmp_path):
    pytest.importorskip("tensorflow")
    small = replace(digits, train=digits.train.take(600), validation=digits.validation.take(300))
    settings = hinton.Settings(teacher_epochs=1, student_epochs=6, batch_size=50, learning_rate=0.005)
    ck.load_model("lenet_300_100").save(tmp_path / "teacher.tflite")
    row = Row("without 3", "dense-30x2", 8.0, (0, 1, 2, 4, 5, 6, 7, 8, 9), "206", "109")
    with pytest.warns(UserWarning, match="no example of class 3"):
        found = hinton.make(row, 0, small, settings, tmp_path)
        given = hinton.make(row, 0, small, settings, tmp_path / "empty", teacher=ck.load_model("lenet_300_100"))
    assert (found.errors, found.lift) == (given.errors, given.lift), "the teacher in the folder is this one"
    assert found.corrected is not None and found.corrected <= found.errors and found.lift > 0


def test_the_shipped_teacher_reads_as_well_as_the_table_says(digits):
    teacher = hinton.shipped_teacher()
    table_says = next(each.errors for each in load_results() if each.row == "large net (2 x 1,200)")
    assert abs(ck.evaluate(teacher, digits.test).errors - table_says) <= 5, "8 bits change little"


def test_a_large_net_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^hinton_teacher\.tflite, the large net of 2015, is not in .*again$"):
        hinton.shipped_teacher(tmp_path / "hinton_teacher.tflite")


@pytest.mark.parametrize("name", ["small net distilled, T = 20", "small net distilled on jittered digits"])
def test_the_small_net_distilled_reaches_the_paper_s_74(name):
    found = [each.errors for each in load_results() if each.row == name]
    assert len(found) == 5 and np.median(found) <= 74


def test_runs_of_one_row_were_made_alike():
    for row in rows():
        made_with = [{**vars(hinton.PLAIN), **each.settings} for each in load_results() if each.row == row.name]
        for settings in made_with if row.student != hinton.TEACHER else ():
            assert settings == vars(row.settings), f"{row.name}: delete its runs from hinton.json, and make them again"


def test_only_what_is_asked_for_is_changed(digits, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(hinton, "make", lambda row, seed, digits, settings, folder: seen.append(settings) or 1 / 0)
    for name in ("small net alone (2 x 800)", "2 x 30, T = 4"):
        with pytest.raises(ZeroDivisionError):
            hinton.run(digits, names=[name], changes={"student_epochs": 2}, path=tmp_path / "x.json")
    assert seen == [replace(each, student_epochs=2) for each in (hinton.DECAYED, hinton.PLAIN)]


@pytest.mark.train
def test_products_are_narrow_only_while_asked_for():
    tf = pytest.importorskip("tensorflow")
    name = "auto_mixed_precision_onednn_bfloat16"
    with pytest.raises(ZeroDivisionError), hinton._products_in("bfloat16"):
        assert tf.config.optimizer.get_experimental_options()[name]
        raise ZeroDivisionError
    assert not tf.config.optimizer.get_experimental_options()[name]


def test_the_command_prints_the_table(capsys):
    assert main(["hinton", "--table"]) == 0
    assert "small net distilled, T = 20" in capsys.readouterr().out


# -- what ships -------------------------------------------------------------------------------------------------------


def test_the_runs_shipped_are_complete():
    about, runs = distillation_runs.load_runs()
    assert about["command"] == distillation_runs.COMMAND
    assert {run.key for run in runs} == {run.key for run in distillation_runs.plan()}
    assert all(0.5 < run.validation < 1 and 0.5 < run.test < 1 for run in runs)
    with pytest.raises(ValueError, match="no run with them"):
        distillation_runs.chosen(runs, student="dense-31x1")
    with pytest.raises(ValueError, match="run it to make them"):
        distillation_runs.load_runs(distillation_runs.RESULTS.with_name("none.json"))


def test_the_tiny_student_is_small_and_reads_99_per_cent(digits):
    tiny, card = tiny_student.load()
    score = ck.evaluate(tiny, digits.test)
    assert tiny.size == card["bytes"] <= 12_000
    assert card["parameters"] <= 6000
    assert score.accuracy >= 0.99
    assert abs(score.errors - card["test_errors"]) <= 3  # kernels of other machines round otherwise
