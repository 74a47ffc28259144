"""Measure, print a table, and write `build/bench.json`: `python -m tests.benchmarks [part ...]`."""

from __future__ import annotations

import argparse
import importlib
import json
import traceback
from dataclasses import asdict
from pathlib import Path

from compresskit.atomic import write_atomically
from tests.benchmarks.row import Row

PARTS = ("live", "browser_latency", "quantization", "pruning", "distillation", "coding", "classroom")
RESULTS = Path("build/bench.json")


def line(row: Row) -> str:
    """Write a row of the table."""
    reference = f"{row.reference:12,.2f}" if row.reference is not None else f"{'':12}"
    ratio = f"{row.ratio:8.2f} x" if row.ratio is not None else ""
    return f"{row.name:44}{row.ours:12,.2f}{reference} {row.unit:4}{ratio}"


def main() -> int:
    """Run the parts named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them when none is named")
    chosen = parser.parse_args().parts or PARTS
    print(f"{'':44}{'ours':>12}{'reference':>12}      better")
    found: list[Row] = []
    broken: list[str] = []
    for part in chosen:
        try:
            for row in importlib.import_module(f"tests.benchmarks.{part}").rows():
                print(line(row), flush=True)
                found.append(row)
        except Exception:  # the other parts are measured all the same, and the exit code tells of this one
            traceback.print_exc()
            broken.append(part)
    with write_atomically(RESULTS) as file:
        file.write(json.dumps([asdict(row) for row in found], indent=1).encode())
    print(f"written to {RESULTS}" + (f", without all of {', '.join(broken)}" if broken else ""))
    return int(bool(broken))


if __name__ == "__main__":
    raise SystemExit(main())
