"""A first look at a file from elsewhere, in a process of its own.

A damaged or hostile `.tflite` can crash LiteRT, and a crash takes its process along. So a file that someone brings is
read, allocated and run once in a child process; only a file that survives this is opened in the kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT = 60.0
_MEMORY_LIMIT = 8 * 2**30


@dataclass(frozen=True)
class Look:
    """What the child process found.

    Attributes
    ----------
    inputs, outputs : tuple of tuple of int
        Shapes of the graph's inputs and outputs, batch dimension included.
    layers : tuple of str
        Names of the layers that hold weights.
    resident : int
        Bytes of memory that loading and running the file added to the process.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]
    resident: int


def look(tflite: bytes, name: str = "the file") -> Look:
    """Read and run a file once in a child process.

    Parameters
    ----------
    tflite
        The bytes of the file.
    name
        What to call it in an error.

    Returns
    -------
    Look
        Shapes and layers.

    Raises
    ------
    ValueError
        If the file cannot be read or run, crashes, or takes longer than a minute; the sentence says which.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(tflite)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "compresskit.litert.probe", str(path)],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{name} ran for {_TIMEOUT:.0f} seconds without an answer; it is damaged") from error
    report = _last_json(done.stdout)
    if report is None:
        raise ValueError(f"{name} crashes LiteRT (exit code {done.returncode}); it is damaged: convert the model again")
    if "error" in report:
        raise ValueError(f"{name} cannot be used: {report['error']}")
    return Look(
        inputs=tuple(tuple(shape) for shape in report["inputs"]),
        outputs=tuple(tuple(shape) for shape in report["outputs"]),
        layers=tuple(report["layers"]),
        resident=int(report["resident"]),
    )


def resident_memory(tflite: bytes) -> int:
    """Measure how many bytes of memory loading and running a file adds to a fresh process.

    Returns
    -------
    int
        Bytes of resident memory: the file, LiteRT's copies of its weights, and room for what flows.
    """
    return look(tflite).resident


def _last_json(text: str) -> dict[str, Any] | None:
    """Read the report, the last line that the child wrote; None if it did not get that far."""
    lines = text.strip().splitlines()
    if not lines:
        return None
    try:
        report = json.loads(lines[-1])
    except json.JSONDecodeError:
        return None
    return report if isinstance(report, dict) else None


def _examine(path: Path) -> dict[str, Any]:
    """Read, describe and run a file; called in the child."""
    import numpy as np
    import psutil

    from compresskit.litert.inspect import layers
    from compresskit.litert.runtime import Session

    tflite = path.read_bytes()
    _refuse_forms(tflite)
    rows = layers(tflite)
    _refuse_non_finite(tflite)
    process = psutil.Process()
    before = process.memory_info().rss
    session = Session(tflite)
    inputs = [np.zeros((1, *form.shape), form.dtype) for form in session.inputs]
    results = session(*inputs)
    return {
        "inputs": [each.shape for each in inputs],
        "outputs": [each.shape for each in results],
        "layers": [row.name for row in rows],
        "resident": max(0, process.memory_info().rss - before),
    }


def _refuse_forms(tflite: bytes) -> None:
    """Say in plain words what LiteRT would say in its own: inputs without a size, operators of TensorFlow."""
    from compresskit.litert import model as files

    model = files.read(tflite)
    custom = (code.customCode.decode(errors="replace") for code in model.operatorCodes if code.customCode)
    if foreign := sorted(name for name in custom if name.startswith("Flex")):
        raise ValueError(
            f"it calls TensorFlow ({', '.join(foreign[:3])}), which LiteRT alone cannot; convert it with the built-in "
            "operators only"
        )
    graph = model.subgraphs[0]
    for tensor in (graph.tensors[index] for index in graph.inputs):
        signature = [] if tensor.shapeSignature is None else [int(size) for size in tensor.shapeSignature]
        if any(size < 0 for size in signature[1:]):
            shape = " x ".join("any" if size < 0 else str(size) for size in signature[1:])
            raise ValueError(
                f"it reads inputs of any size ({shape}); make the model again with one size, such as "
                "keras.Input((96, 96, 3)), and the same weights"
            )
        if int(tensor.shape[0] if len(tensor.shape) else 1) != 1:
            raise ValueError(
                f"it reads {tensor.shape[0]} examples at a time and no other number; convert it with a free batch, or "
                "with one example"
            )


def _refuse_non_finite(tflite: bytes) -> None:
    """Name the layer whose weights are no numbers: every score of it would be that of guessing."""
    import numpy as np

    from compresskit.litert import model as files
    from compresskit.litert.inspect import sites

    model = files.read(tflite)
    for site in sites(model):
        for index in (site.weights, site.bias):
            tensor = None if index is None else model.subgraphs[0].tensors[index]
            if tensor is not None and not np.isfinite(files.stored(model, tensor)).all():
                raise ValueError(f"layer {site.name!r} holds weights that are NaN or infinite; train the model again")


def _limit_memory() -> None:
    """Let a file that claims absurd sizes fail here instead of filling the machine (where the system can)."""
    if os.name == "posix":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))


def main() -> int:
    """Examine the file named on the command line and print a line of JSON."""
    _limit_memory()
    try:
        report = _examine(Path(sys.argv[1]))
    except Exception as error:  # whatever is wrong with the file is told to the parent in one line
        told = " ".join(str(error).split())[:300]
        if type(error) is not ValueError:
            told = f"it is damaged, or LiteRT has no operators for it; convert the model again ({told})"
        report = {"error": told}
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
