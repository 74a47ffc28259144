"""The Python that does again what a workbench did, and the names of its files."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from compresskit.pruning.patterns import parse_pattern
from compresskit.recipe import Recipe
from compresskit.widgets.jobs import Training
from compresskit.widgets.origin import Source
from compresskit.widgets.points import Setting
from compresskit.zoo import manifest

_MOST_LETTERS = 60
_TRAININGS = ("distill", "fine_tune", "train_pruned", "train_quantized")


def file_name(model: str, setting: Setting) -> str:
    """Name a file after what was done: ``digit_reader_zero60_w8a8.tflite``."""
    name = _plain(model) + (f"_{_plain(setting.model)}" if setting.model else "")
    fixed = parse_pattern(setting.pattern).sparsity is not None
    kind = "zero" if setting.pattern == "unstructured" else f"{setting.pattern.replace(':', 'of').replace(' ', '')}"
    zero = "" if not setting.prunes() else f"_{kind}" if fixed else f"_{kind}{100 * setting.sparsity:.0f}"
    cut = f"_rank{100 * setting.low_rank:g}".replace(".", "p") if setting.low_rank < 1 else ""
    cut += f"_{setting.convolutions}" if cut and setting.convolutions != "keep" else ""
    shared = "".join(f"_{step.method}{step.count}{'c' * (step.granularity == 'channel')}" for step in setting.shares())
    bits = f"_w{setting.weights}a{setting.activations}" if min(setting.weights, setting.activations) < 32 else ""
    return f"{name}{cut}{zero}{shared}{bits or '_float'}.tflite"


def _plain(name: str) -> str:
    """Leave what every system takes in a file's name, and not more of it than there is room for."""
    return "".join(each if each.isalnum() or each in "-_" else "_" for each in name)[:_MOST_LETTERS]


def python_of(source: Source, recipe: Recipe, name: str, training: Sequence[str] = ()) -> str:
    """Write the program that makes the same file; `training` are lines that train ``model`` first."""
    imports = sorted(line for line in training if line.startswith("from "))
    whole = "digits.train" if source.parts else "digits"
    return "\n".join(
        [
            "import compresskit as ck",
            *dict.fromkeys(imports),
            "",
            f"digits = {source.digits}",
            f"model = {source.model}" + (f"  # sha256 {source.sha256}" if source.sha256 else ""),
            *(line for line in training if not line.startswith("from ")),
            f"small = ck.compress(model, {recipe.to_python()}, calibration={whole})",
            f"print(ck.evaluate(small, {'digits.test' if source.parts else 'digits'}))",
            f"small.save({name!r})",
        ]
    )


def code_of(training: Training, original: Source) -> tuple[str, ...]:
    """Write the lines of Python that do a training; a teacher that the course does not have is the original."""
    settings = ", ".join(f"{name}={value!r}" for name, value in training.settings.items())
    if training.kind == "distill":
        assert training.teacher is not None
        shipped = manifest().get(training.teacher.name)
        known = shipped is not None and shipped.tflite_sha256 == training.teacher.digest
        teacher = f"ck.load_model({training.teacher.name!r})" if known else original.model
        line = f"model = distill({teacher}, model, digits, {settings}, keep_zeros=True).checkpoint"
        return ("from compresskit.training.distill import distill", line)
    steps = training.recipe.to_python().removeprefix("ck.Recipe(").removesuffix(")")
    if training.kind == "quantize":
        line = f"model = train_quantized(model, {steps}, digits, {settings}).checkpoint"
        return ("from compresskit.training.quantize import train_quantized", line)
    if not training.recipe.steps:
        return (
            "from compresskit.training.prune import fine_tune",
            f"model = fine_tune(model, digits, {settings}).checkpoint",
        )
    line = f"model = train_pruned(model, [{steps}], digits, {settings}).checkpoint"
    return ("from compresskit.training.prune import train_pruned", line)


def check_code(lines: Sequence[str]) -> None:
    """Hold lines that were kept on disk against the form of those that `code_of` writes: they go into programs.

    Raises
    ------
    ValueError
        If a line does something else than train ``model`` with the functions of this package.
    """
    for line in lines:
        try:
            (made,) = ast.parse(line).body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"code is no line of a training: {line[:80]!r}") from error
        if not (_imports_training(made) or _trains(made)):
            raise ValueError(f"code is no line of a training: {line[:80]!r}")


def _imports_training(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.ImportFrom)
        and (line.module or "").startswith("compresskit.training.")
        and all(each.name in _TRAININGS and each.asname is None for each in line.names)
    )


def _trains(line: ast.stmt) -> bool:
    """Tell ``model = train_pruned(model, [ck.Prune(0.5)], digits, epochs=2).checkpoint`` from anything else."""
    if not (isinstance(line, ast.Assign) and [ast.unparse(each) for each in line.targets] == ["model"]):
        return False
    data = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.keyword, ast.UnaryOp, ast.unaryop, ast.expr_context)
    return all(
        isinstance(each, data)
        or (isinstance(each, ast.Name) and each.id in (*_TRAININGS, "ck", "model", "digits"))
        or (isinstance(each, ast.Attribute) and (each.attr == "checkpoint" or ast.unparse(each.value) == "ck"))
        or (isinstance(each, ast.Call) and isinstance(each.func, (ast.Name, ast.Attribute)))
        for each in ast.walk(line.value)
    )
