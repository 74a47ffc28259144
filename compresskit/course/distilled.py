"""Draw the runs of lesson 11 as a still picture: accuracy against temperature, with the control as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from compresskit.course.show import Still
from compresskit.training.distillation_runs import ALONE, STUDENTS, TEMPERATURES, Run, chosen, mean
from compresskit.widgets.picture import Picture
from compresskit.widgets.views import percent

_SIDE, _TOP, _BOTTOM = 290, 66, 250
_MARGIN = 0.004  # of accuracy, above and below what is drawn


def show_temperatures(runs: Sequence[Run]) -> Still:
    """Draw a plot for each student; a mark is the mean over the seeds, the bar through it goes from lowest to highest.

    Parameters
    ----------
    runs
        As `compresskit.training.distillation_runs.load_runs` gives them.

    Returns
    -------
    Still
        For the last line of a cell.

    Raises
    ------
    ValueError
        If a setting was not measured.
    """
    words = []
    picture = Picture(760, 306, "")
    picture.mark(76, 12, "diamond", 10, "after")
    picture.text(88, 16, "with the teacher: mean, and lowest to highest", size=12)
    picture.line([(420, 12), (446, 12)], stroke="before", width=2, dash=True)
    picture.text(454, 16, "without: mean", size=12)
    for place, student in enumerate(STUDENTS):
        words.append(_draw_student(picture, 76 + 372 * place, student, runs))
    picture.title = f"Test accuracy against temperature. {'; '.join(words)}"
    return Still(picture)


def _draw_student(picture: Picture, left: float, student: str, runs: Sequence[Run]) -> str:
    """Draw one student; give it in words."""
    alone = chosen(runs, group="temperature", student=student, teacher=ALONE)
    taught = {
        temperature: chosen(runs, group="temperature", student=student, teacher="big_teacher", temperature=temperature)
        for temperature in TEMPERATURES
    }
    shown = [*alone, *(each for found in taught.values() for each in found)]
    low, high = min(shown) - _MARGIN, max(shown) + _MARGIN

    def down(accuracy: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (accuracy - low) / (high - low)

    def across(temperature: float) -> float:
        first, last = math.log(TEMPERATURES[0]), math.log(TEMPERATURES[-1])
        return left + 16 + (_SIDE - 32) * (math.log(temperature) - first) / (last - first)

    picture.text(left, 46, student, size=13, bold=True)
    step = 0.01 if high - low > 0.02 else 0.005
    for number in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = down(number * step)
        picture.line([(left, y), (left + _SIDE, y)], stroke="grid")
        picture.text(left - 6, y + 4, f"{100 * number * step:g} %", size=11, anchor="end")
    picture.line([(left, down(mean(alone))), (left + _SIDE, down(mean(alone)))], stroke="before", width=2, dash=True)
    picture.line([(across(t), down(mean(found))) for t, found in taught.items()], stroke="after", width=2)
    for temperature, found in taught.items():
        x = across(temperature)
        picture.line([(x, down(min(found))), (x, down(max(found)))], stroke="after", width=3)
        picture.mark(x, down(mean(found)), "diamond", 10, "after", tip=f"T = {temperature:g}: {percent(mean(found))}")
        picture.text(x, _BOTTOM + 18, f"{temperature:g}", size=11, anchor="middle")
    picture.text(left + _SIDE / 2, _BOTTOM + 38, "temperature T", size=12, anchor="middle")
    told = ", ".join(f"T = {t:g} {percent(mean(found))}" for t, found in taught.items())
    return f"{student}: without {percent(mean(alone))}, {told}"
