"""A stand-in for the connection between a widget and the page: it records what would be sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import comm
import pytest
from comm.base_comm import BaseComm


@dataclass
class Messages:
    """What the widgets of a test sent."""

    opened: list[dict[str, Any]] = field(default_factory=list)
    sent: list[tuple[str, dict[str, Any], list[Any]]] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def states(self, widget: Any) -> list[dict[str, Any]]:
        """State updates of one widget, in order."""
        return [d["state"] for model, d, _ in self.sent if model == widget.model_id and d.get("method") == "update"]

    def custom(self, widget: Any) -> list[tuple[dict[str, Any], list[Any]]]:
        """Custom messages of one widget with their buffers."""
        of_widget = [(d, b) for model, d, b in self.sent if model == widget.model_id and d.get("method") == "custom"]
        return [(d["content"], b) for d, b in of_widget]


@pytest.fixture
def messages(monkeypatch):
    """Record instead of sending."""
    record = Messages()

    class RecordingComm(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            if msg_type == "comm_open":
                record.opened.append({"id": self.comm_id, "data": data, "buffers": buffers})
            elif msg_type == "comm_close":
                record.closed.append(self.comm_id)
            else:
                record.sent.append((self.comm_id, data, buffers or []))

    monkeypatch.setattr(comm, "create_comm", lambda *args, **keys: RecordingComm(*args, **keys))
    return record


@pytest.fixture
def move():
    """``move(widget, value=3)``: what the page sends when a control is moved."""

    def send(widget: Any, buffers: list[Any] | None = None, **state: Any) -> None:
        paths = [[name] for name in state if buffers]
        message = {"method": "update", "state": {} if buffers else state, "buffer_paths": paths}
        widget._handle_msg({"content": {"data": message}, "buffers": buffers or []})

    return send


@pytest.fixture
def tell():
    """``tell(widget, {"type": "click"})``: a custom message from the page."""

    def send(widget: Any, content: dict[str, Any]) -> None:
        widget._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})

    return send
