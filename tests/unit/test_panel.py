"""What all panels share: a list that grows shorter, and the end of their widgets."""

from __future__ import annotations

import logging

import comm
import ipywidgets
import pytest

from compresskit.widgets import panel


def say(comm_id: str) -> None:
    """Say something to a widget, as the page does: by the number of its comm."""
    data = {"method": "update", "state": {"value": 0.5}}
    comm.get_comm_manager().comm_msg(None, None, {"content": {"comm_id": comm_id, "data": data}, "buffers": []})


def test_what_the_page_still_says_to_a_closed_widget_is_let_go(messages, caplog):
    slider = ipywidgets.FloatSlider()
    box = ipywidgets.VBox([slider])
    parts = [each.comm.comm_id for each in (slider, slider.layout, slider.style, box, box.layout)]
    say(parts[0])
    assert slider.value == 0.5
    slider.value = 0.25
    panel.close_all(box)
    panel.close_all(box)
    assert sorted(messages.closed) == sorted(parts), "the page is told, once"
    with caplog.at_level(logging.WARNING):
        for each in parts:
            say(each)
    assert not caplog.records and slider.value == 0.25
    say("somebody else")
    assert "somebody else" in caplog.text, "what was never known is still complained of"


def test_closed_widgets_are_not_remembered_for_ever(messages, monkeypatch):
    monkeypatch.setattr(panel, "CLOSED_STILL_KNOWN", 3)
    before = len(comm.get_comm_manager().comms) - len(panel._closed)
    for _ in range(5):
        panel.close_all(ipywidgets.FloatSlider())
    assert len(panel._closed) == 3
    assert len(comm.get_comm_manager().comms) - before == 3


@pytest.mark.parametrize("kind", [panel.list_of, panel.slider_of])
def test_an_entry_that_is_gone_meanwhile_is_not_chosen(kind, messages, move):
    """The page chose among the entries as they were a moment ago."""
    field = kind("Go back to", [("none", 0), ("first", 1), ("second", 2)], 0, "ck-back")
    move(field, index=2)
    assert field.value == 2
    field.options = [("none", 0), ("first", 1)]
    field.value = 1
    already = len(messages.sent)
    move(field, index=2)
    assert field.value == 1
    assert {"index": 1} in [data.get("state") for _, data, _ in messages.sent[already:]], "the page shows it again"
    move(field, index=0)
    assert field.value == 0
