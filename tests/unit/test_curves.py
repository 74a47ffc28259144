"""The training panel: curves that follow the run, a button that cancels it, a picture that stays."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from compresskit.widgets.curves import Training, watch


def progress(epoch: int, step: int, steps: int = 10, **more) -> SimpleNamespace:
    told = {
        "epochs": 3, "loss": 1 / (epoch + step / steps), "accuracy": 0.9, "validation_loss": None,
        "validation_accuracy": None, "seconds": 4.0, "seconds_left": 8.0,
    }  # fmt: skip
    return SimpleNamespace(epoch=epoch, step=step, steps=steps, **{**told, **more})


def traces(panel: Training) -> list[dict]:
    return panel._chart.figure["data"]


def test_curves_follow_the_run():
    panel = Training(3, target=0.99)
    panel.update(progress(1, 5))
    panel.update(progress(1, 10, validation_loss=0.2, validation_accuracy=0.95))
    panel.update(progress(2, 5, validation_loss=0.2, validation_accuracy=0.95))
    loss, validation_loss, error, validation_error = traces(panel)
    assert loss["x"] == [0.5, 1.0, 1.5] and error["y"] == pytest.approx([10.0, 10.0, 10.0])
    assert validation_loss["x"] == [1] and validation_loss["y"] == [0.2], "one mark an epoch, where it was measured"
    assert validation_error["y"] == pytest.approx([5.0])
    assert "Epoch 2 of 3" in panel._status.value and "4 s, about 8 s left" in panel._status.value
    assert "value='0.500'" in panel._bar.value
    assert panel._chart.figure["layout"]["annotations"][0]["text"] == "target: 99% right"


def test_a_validation_mark_stands_at_its_epoch_even_if_reported_late():
    panel = Training(3)
    panel.update(progress(2, 1, validation_loss=0.3, validation_accuracy=0.9))
    assert traces(panel)[1]["x"] == [1]


def test_a_long_run_keeps_few_points_and_both_ends():
    panel = Training(3)
    for step in range(1, 3001):
        panel.update(progress(1 + (step - 1) // 1000, (step - 1) % 1000 + 1, 1000))
    x = traces(panel)[0]["x"]
    gaps = np.diff(x)
    assert 150 < len(x) <= 400 and x[0] == 0.001 and x[-1] > 2.97
    assert gaps.min() > 0 and gaps.max() < 2.5 * gaps.min(), (
        "as dense at the beginning, where most happens, as at the end"
    )


def test_an_error_of_zero_can_be_drawn():
    panel = Training(3)
    panel.update(progress(1, 10, accuracy=1.0, validation_loss=0.0, validation_accuracy=1.0))
    panel.update(progress(2, 10, accuracy=1.0, validation_loss=0.0, validation_accuracy=1.0))
    assert all(math.isfinite(math.log10(y)) for trace in traces(panel) for y in trace["y"])
    assert panel._picture().png().startswith(b"\x89PNG")


def test_the_button_cancels():
    panel = Training(3)
    panel.update(progress(1, 5))
    assert not panel.cancel.is_set()
    panel._button.click()
    assert panel.cancel.is_set() and panel._button.disabled
    panel.update(progress(1, 6))
    assert "cancelling" in panel._status.value
    panel.finish()
    assert "Cancelled" in panel._status.value and "After 0.6 of 3 epochs" in panel._status.value


def test_watch_says_how_it_ended():
    with watch(3) as panel:
        panel.update(progress(3, 10, validation_loss=0.1, validation_accuracy=0.9912))
    assert "Trained" in panel._status.value and "99.12%" in panel._status.value and panel._button.disabled
    with pytest.raises(ValueError, match="no digits"), watch(3) as panel:
        raise ValueError("no digits <here>")
    assert "Training failed" in panel._status.value and "no digits &lt;here&gt;" in panel._status.value
    with pytest.raises(KeyboardInterrupt), watch(3) as panel:
        raise KeyboardInterrupt
    assert "interrupted" in panel._status.value


def test_a_reader_without_a_kernel_gets_the_curves(monkeypatch):
    shown = []
    handle = SimpleNamespace(update=lambda what: shown.append(what._repr_mimebundle_()[0]))
    monkeypatch.setattr(
        "IPython.display.display", lambda what, display_id: shown.append(what._repr_mimebundle_()[0]) or handle
    )
    with watch(3) as panel:
        panel.update(progress(1, 10, validation_loss=0.1, validation_accuracy=0.9))
    first, last = shown
    assert "application/vnd.jupyter.widget-view+json" in first and first["image/png"] != last["image/png"]
    assert "1 of 3 epochs trained, 90.00% of the validation digits" in last["text/plain"]
