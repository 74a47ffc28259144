"""The course map: which lessons there are to be, and which of them exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Planned:
    """One row of the course map.

    Attributes
    ----------
    file
        Name of the lesson's source without its ending. Numbers are fixed, so that links last.
    title
        What the lesson is called.
    about
        The slider or the moment that the lesson is about.
    """

    file: str
    title: str
    about: str

    @property
    def number(self) -> str:
        """Two digits, as in the file name."""
        return self.file[:2]


COURSE: tuple[Planned, ...] = (
    Planned("00_start_here", "Start here", "draw a digit; shrink the reader until it misreads you"),
    Planned(
        "01_train_a_digit_reader", "Train a digit reader", "MNIST to 99 %; parameters, MACs, bytes: where do they sit?"
    ),
    Planned(
        "02_the_arithmetic_of_int8",
        "The arithmetic of int8",
        "scale, zero point, rounding, clipping; bits from 2 to 16",
    ),
    Planned("03_choosing_ranges", "Choosing ranges", "min-max, percentile, MSE, entropy; per tensor, per channel"),
    Planned(
        "04_integers_only",
        "Integers only",
        "int32 accumulators, multiplier and shift: bit for bit what LiteRT computes",
    ),
    Planned(
        "05_post_training_quantization",
        "Post-training quantization",
        "dynamic, float16, int8, 16x8, int4, mixed by layer; the traps",
    ),
    Planned(
        "06_quantization_aware_training",
        "Quantization-aware training",
        "where rounding after training fails, and training with it does not",
    ),
    Planned(
        "07_pruning_weights",
        "Pruning weights",
        "sensitivity by layer; schedules; why the file does not shrink until it is packed",
    ),
    Planned(
        "08_pruning_structure", "Pruning structure", "channels, 2:4, blocks: what makes it faster and what does not"
    ),
    Planned(
        "09_sharing_and_coding_weights",
        "Sharing and coding weights",
        "k-means, binary and ternary, Huffman: Deep Compression, rebuilt and measured",
    ),
    Planned("10_low_rank", "Low rank", "the SVD of a dense layer; the break-even rank"),
    Planned("11_distillation", "Distillation", "temperature and alpha; the digit the student never saw"),
    Planned("12_putting_it_together", "Putting it together", "order matters; the size-accuracy frontier"),
    Planned("13_compress_automatically", "Compress automatically", "a budget in, a recipe out"),
    Planned("14_deploy", "Deploy", "LiteRT, Arm, a microcontroller"),
    Planned(
        "15_other_toolchains", "Other toolchains", "ONNX Runtime, OpenVINO and NNCF, and the rest, on the same digits"
    ),
)


def course_map(minutes: Mapping[str, int]) -> str:
    """Write the course as a Markdown table that tells what exists.

    Parameters
    ----------
    minutes
        For each lesson that exists, by file name without ending, how long it takes.

    Returns
    -------
    str
        A table with one row a lesson; only lessons that exist are links.
    """
    rows = ["| | lesson | minutes | what it is about |", "|---|---|---|---|"]
    for planned in COURSE:
        if planned.file in minutes:
            name, time = f"[{planned.title}]({planned.file}.md)", str(minutes[planned.file])
        else:
            name, time = planned.title, "not yet written"
        rows.append(f"| {planned.number} | {name} | {time} | {planned.about} |")
    return "\n".join(rows)
