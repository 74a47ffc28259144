"""The Python that does again what a workbench did, and the names of its files."""

from __future__ import annotations

from collections.abc import Sequence

from compresskit.pruning.patterns import parse_pattern
from compresskit.recipe import Recipe
from compresskit.widgets.jobs import Training
from compresskit.widgets.origin import Source
from compresskit.widgets.points import Setting
from compresskit.zoo import manifest


def file_name(model: str, setting: Setting) -> str:
    """Name a file after what was done: ``digit_reader_zero60_w8a8.tflite``."""
    name = "".join(each if each.isalnum() or each in "-_" else "_" for each in model)
    name += f"_{setting.model.replace(' ', '_')}" if setting.model else ""
    fixed = parse_pattern(setting.pattern).sparsity is not None
    kind = "zero" if setting.pattern == "unstructured" else f"{setting.pattern.replace(':', 'of').replace(' ', '')}"
    zero = "" if not setting.prunes() else f"_{kind}" if fixed else f"_{kind}{100 * setting.sparsity:.0f}"
    cut = f"_rank{100 * setting.low_rank:g}".replace(".", "p") if setting.low_rank < 1 else ""
    cut += f"_{setting.convolutions}" if cut and setting.convolutions != "keep" else ""
    shared = "".join(f"_{step.method}{step.count}{'c' * (step.granularity == 'channel')}" for step in setting.shares())
    bits = f"_w{setting.weights}a{setting.activations}" if min(setting.weights, setting.activations) < 32 else ""
    return f"{name}{cut}{zero}{shared}{bits or '_float'}.tflite"


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
