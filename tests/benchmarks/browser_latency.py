"""From a key pressed on a slider to the redrawn point, in a real JupyterLab and Chromium."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.row import Row

sys.path.insert(0, str(Path(__file__).parents[1] / "browser"))

KEYS = 20
CELL = "import compresskit as ck\nbench = ck.Workbench()\nbench"
WATCH = """() => {
  const plot = document.querySelector(".ck-grow .js-plotly-plot");
  const points = () => plot.data[1].x.length + plot.data[2].x.length;
  window.ckTimes = [];
  let pressed = 0, before = 0;
  document.addEventListener("keydown", () => { pressed = performance.now(); before = points(); }, true);
  plot.on("plotly_afterplot", () => {
    if (!pressed || points() === before) return;
    window.ckTimes.push(performance.now() - pressed);
    pressed = 0;
  });
}"""


def milliseconds(keys: int = KEYS) -> list[float]:
    """Press ArrowRight on the sparsity slider, each time after everything has come to rest.

    Parameters
    ----------
    keys
        How often.

    Returns
    -------
    list of float
        Milliseconds from each key press to the plot redrawn with the new (preview) point, by the page's own clock.

    Raises
    ------
    RuntimeError
        Without a Chromium.
    """
    from lab_driver import LabServer, NotebookPage, chromium, find_chromium

    if find_chromium() is None:
        raise RuntimeError("there is no Chromium here (Debian and Ubuntu: sudo apt-get install chromium)")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        server = LabServer(Path(folder) / "lab")
        try:
            server.write("bench.ipynb", [CELL])
            notebook = NotebookPage(browser.new_page(viewport={"width": 1280, "height": 1400}), server, "bench.ipynb")
            notebook.run_all()
            notebook.wait("() => document.querySelector('.js-plotly-plot')?.data?.[1]?.x?.length === 1")
            notebook.page.evaluate(WATCH)
            for done in range(keys):
                notebook.press(".ck-sparsity", "ArrowRight")
                notebook.wait("(n) => window.ckTimes.length === n", done + 1)
                notebook.until(f"len(bench.points) == {done + 2} and bench.wait_idle(60)")
            return [float(each) for each in notebook.page.evaluate("() => window.ckTimes")]
        finally:
            server.shut_down_kernels()
            server.stop()


def rows() -> list[Row]:
    """Measure, and give the median and the 95th percentile."""
    times = milliseconds()
    return [
        Row("key press to redrawn point, median", float(np.median(times)), None, None, "ms"),
        Row("key press to redrawn point, 95th percentile", float(np.percentile(times, 95)), None, None, "ms"),
    ]
