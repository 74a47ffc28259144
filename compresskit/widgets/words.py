"""Two fields for the point that is shown: what it is called, and what is worth noting about it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import ipywidgets

from compresskit.widgets.panel import classed

P = TypeVar("P", bound=Hashable)

LONGEST_NAME = 80
LONGEST_NOTE = 2000


class Words(Generic[P]):
    """A name and a note, for one point at a time.

    What is written belongs to the point that the fields show, also when another one has been asked for meanwhile.

    Parameters
    ----------
    written
        ``written(place, name, note)`` is called when someone has written something.

    Attributes
    ----------
    name, note
        The fields, for the panel to put somewhere and to watch.
    """

    def __init__(self, written: Callable[[P, str, str], None]) -> None:
        self._written = written
        self._place: P | None = None
        self._filling = False
        self.name = ipywidgets.Text(description="Name of this point", continuous_update=False)
        self.note = ipywidgets.Textarea(description="Notes on it", continuous_update=False, rows=2)
        self.name.tooltip = "Stands beside the point on the plot, and in the lists"
        self.note.tooltip = "Is kept with the point; the table and the report hold it too"
        for field, name in ((self.name, "ck-name"), (self.note, "ck-notes")):
            classed(field, "ck-field", name)
        self.box = classed(ipywidgets.HBox([self.name, self.note]), "ck-words")
        self.show(None, "", "")

    def show(self, place: P | None, name: str, note: str) -> None:
        """Fill the fields with what is known of a point; None for one that takes no words."""
        if place is not None and place == self._place and (name, note) == (self.name.value, self.note.value):
            return
        self._place, self._filling = place, True
        try:
            self.name.value, self.note.value = name, note
        finally:
            self._filling = False
        for field in (self.name, self.note):
            field.disabled = place is None

    def on_change(self, _change: Any) -> None:
        """Hand on what was written; for the panel to call when one of the fields changes."""
        if self._place is not None and not self._filling:
            name = " ".join(self.name.value.split())[:LONGEST_NAME]
            self._written(self._place, name, self.note.value.strip()[:LONGEST_NOTE])
