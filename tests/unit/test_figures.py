"""Charts, still pictures and colours."""

from __future__ import annotations

import gc
import gzip
import io
import re
import subprocess
import sys
import threading
import weakref
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from compresskit.widgets import style
from compresskit.widgets.figures import Chart, figure, plotly_source
from compresskit.widgets.picture import Picture, png_bytes


@pytest.mark.parametrize("signal", [style.BEFORE, style.AFTER, style.CURRENT])
@pytest.mark.parametrize("background", [style.LIGHT_BACKGROUND, style.DARK_BACKGROUND])
def test_signal_colours_stand_out_on_both_themes(signal, background):
    assert style.contrast(signal, background) >= 3.0  # WCAG 2.2, 1.4.11: graphical objects


def test_white_text_on_the_main_button_is_readable():
    assert style.contrast(style.AFTER, "#ffffff") >= 4.5


def test_contrast_of_known_pairs():
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert style.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WebAIM's published value


def test_colours_are_roles():
    assert style.colour("ink").startswith("var(--jp-ui-font-color1")
    assert style.colour("after") == style.AFTER
    assert re.fullmatch("#[0-9a-f]{6}", style.fixed_colour("grid"))
    with pytest.raises(ValueError, match="'pink'"):
        style.colour("pink")


def test_the_style_sheet_touches_panels_only():
    sheet = re.sub(r"/\*.*?\*/", "", style.style_tag(), flags=re.S).removeprefix("<style>").removesuffix("</style>")
    sheet = re.sub(r"@media[^{]*\{(.*)\}\s*$", r"\1", sheet, flags=re.S)
    keyframes = r"@keyframes\s+(\S+)\s*\{(?:[^{}]*\{[^{}]*\})*\s*\}"
    assert all(name.startswith("ck-") for name in re.findall(keyframes, sheet)), "a name that others may have too"
    sheet = re.sub(keyframes, "", sheet)
    for selectors in re.findall(r"([^{}]+)\{[^{}]*\}", sheet):
        for selector in selectors.split(","):
            assert ".compresskit" in selector, selector


def test_plotly_js_is_the_one_of_the_package():
    from pathlib import Path

    import plotly

    code = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes()
    assert gzip.decompress(plotly_source()) == code
    assert len(plotly_source()) < 0.4 * len(code)


def test_a_chart_needs_no_plotly_import():
    """Importing plotly's FigureWidget takes two seconds; a panel must not."""
    code = (
        "import sys; from compresskit.widgets.figures import Chart, figure, plotly_source; "
        "Chart(figure([], {})); plotly_source(); print(sorted(m for m in sys.modules if m in ('plotly', 'nbformat')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def points(y):
    return [{"type": "scatter", "mode": "markers", "x": [1, 2], "y": y}]


def test_a_chart_sends_its_whole_state_so_that_a_reload_shows_the_last(messages):
    chart = Chart(figure(points([1, 2]), {}), height=300, label="two points")
    chart.show(figure(points([3, 4]), {}))
    assert chart.get_state()["figure"]["data"][0]["y"] == [3, 4]
    assert messages.states(chart)[-1]["figure"]["data"][0]["y"] == [3, 4]
    assert chart.get_state()["height"] == 300 and chart.get_state()["label"] == "two points"


def test_opening_a_chart_sends_little(messages):
    Chart(figure(points([1, 2]), {}))
    assert len(str(messages.opened)) < 20_000


def test_plotly_js_is_sent_when_the_page_asks(messages, tell):
    chart = Chart(figure(points([1, 2]), {}))
    assert messages.custom(chart) == []
    tell(chart, {"type": "plotly"})
    [(content, buffers)] = messages.custom(chart)
    assert content == {"type": "plotly"} and gzip.decompress(buffers[0]).startswith(b"/**\n* plotly.js v")


def test_a_missing_plotly_is_said_on_the_page(messages, tell, monkeypatch):
    plotly_source.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    chart = Chart(figure(points([1, 2]), {}))
    tell(chart, {"type": "plotly"})
    [(content, _)] = messages.custom(chart)
    assert content["type"] == "failed" and "make setup" in content["text"]


def test_a_click_is_told(messages, tell):
    chart = Chart(figure(points([1, 2]), {}))
    clicks: list = []
    chart.on_click(lambda curve, point: clicks.append((curve, point)))
    tell(chart, {"type": "click", "curve": 0, "point": 1})
    assert clicks == [(0, 1)]
    chart.close()
    chart._on_message(chart, {"type": "click", "curve": 0, "point": 1}, [])
    assert clicks == [(0, 1)]


def test_updates_from_many_threads_stay_whole(messages):
    chart = Chart(figure(points([0, 0]), {}))
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def update(which: int) -> None:
        start.wait(30)
        try:
            for step in range(200):
                chart.show(figure(points([which, step]), {"title": {"text": f"{which} {step}"}}))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=update, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    states = [state["figure"] for state in messages.states(chart)]
    assert len(states) == 800
    for state in states:
        assert state["layout"]["title"]["text"] == " ".join(map(str, state["data"][0]["y"]))
    assert states[-1] == chart.figure


def test_a_layout_is_merged_not_replaced():
    made = figure([], {"xaxis": {"type": "log"}, "margin": {"l": 5}})
    assert made["layout"]["xaxis"]["type"] == "log" and made["layout"]["xaxis"]["zeroline"] is False
    assert made["layout"]["margin"]["l"] == 5 and made["layout"]["margin"]["r"] > 0
    assert made["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert figure([], {})["layout"]["margin"]["l"] != 5, "one figure's layout leaked into the next"


@pytest.fixture
def picture():
    made = Picture(120, 80, 'A "test" & more')
    made.rectangle(10, 10, 40, 20, fill="after", tip="a <box>")
    made.line([(0, 79), (119, 79)], stroke="line")
    made.line([(0, 40), (119, 40)], stroke="muted", dash=True)
    made.mark(90, 20, "star", 16, "before")
    made.mark(90, 60, "ring", 16, "current")
    made.text(5, 70, "3 < 4", bold=True)
    made.raster(60, 30, 14, 14, np.arange(49, dtype=np.uint8).reshape(7, 7) * 5)
    return made


def test_svg_is_well_formed_named_and_follows_the_theme(picture):
    root = ET.fromstring(picture.svg())
    assert root.get("aria-label") == 'A "test" & more' and root.get("role") == "img"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts == ["3 < 4"]
    assert "var(--jp-ui-font-color1" in picture.svg()
    assert [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")] == ["a <box>"]


def test_png_shows_the_shapes_where_they_are(picture):
    image = Image.open(io.BytesIO(picture.png(scale=2))).convert("RGB")
    assert image.size == (240, 160)

    def near(at, colour):
        wanted = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        return max(abs(a - b) for a, b in zip(image.getpixel(at), wanted, strict=True)) < 24

    assert near((60, 40), style.AFTER), "the box"
    assert near((180, 40), style.BEFORE), "the star"
    assert near((180, 120), style.LIGHT_BACKGROUND), "the ring is hollow"
    assert near((2, 2), style.LIGHT_BACKGROUND), "the corner"


def test_a_placed_picture_moves_with_everything(picture):
    outer = Picture(300, 200, "outer")
    outer.place(picture, 100, 50)
    image = Image.open(io.BytesIO(outer.png(scale=1))).convert("RGB")
    assert image.getpixel((130, 70)) != (255, 255, 255) and image.getpixel((30, 20)) == (255, 255, 255)


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 3)])
def test_png_bytes_are_read_by_pillow(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))), pixels)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8)])
def test_png_bytes_refuse_other_arrays(pixels):
    with pytest.raises(ValueError, match="give uint8"):
        png_bytes(pixels)


def test_a_closed_chart_is_freed(messages):
    """anywidget keeps a widget alive whose JavaScript is given as a path; plotly's own FigureWidget leaks that way."""
    chart = Chart(figure(points([1, 2]), {}))
    chart.close()
    gone = weakref.ref(chart)
    del chart
    gc.collect()
    assert gone() is None
