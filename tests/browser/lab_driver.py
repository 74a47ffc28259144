"""Start JupyterLab, open a notebook in Chromium, run it, and hear every error: of cells, page and console."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds; how long a broken page is waited for
QUIET = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True,
    }
}  # fmt: skip

LISTEN = """(kernel) => {
  if (kernel.ckUnheard) return;
  kernel.ckUnheard = new Set();
  const send = kernel.sendShellMessage.bind(kernel);
  kernel.sendShellMessage = (message, ...rest) => {
    const future = send(message, ...rest);
    if (message.header.msg_type === "comm_msg") {
      kernel.ckUnheard.add(future);
      const heard = () => kernel.ckUnheard.delete(future);
      future.done.then(heard, heard);
    }
    return future;
  };
}"""
"""Count the messages of widgets that the kernel has not dealt with: it does so on another thread than it runs code."""

RUN_ALL = """async () => {
  const wait = async (test, what) => {
    const end = Date.now() + 90000;
    while (!test()) {
      if (Date.now() > end) throw new Error("waited in vain for " + what);
      await new Promise((done) => setTimeout(done, 50));
    }
  };
  await wait(() => window.jupyterapp?.shell?.currentWidget?.content?.widgets?.length > 0, "the notebook");
  const panel = jupyterapp.shell.currentWidget;
  await panel.context.ready;
  await panel.revealed;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  await wait(() => panel.sessionContext.session.kernel.status === "idle", "an idle kernel");
  (LISTEN)(panel.sessionContext.session.kernel);
  await jupyterapp.commands.execute("notebook:run-all-cells");
  const errors = [];
  for (const cell of panel.content.widgets) {
    if (cell.model.type !== "code") continue;
    const outputs = cell.model.outputs.toJSON();
    for (const output of outputs) if (output.output_type === "error")
      errors.push(output.ename + ": " + output.evalue);
    if (cell.model.executionCount === null) errors.push("not run: " + cell.model.sharedModel.getSource().slice(0, 60));
  }
  return errors;
}""".replace("LISTEN", LISTEN)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome, if there is one."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def stop_with_parent() -> None:
    """In the child: be sent SIGTERM when the test process dies, however it dies (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LabServer:
    """A JupyterLab of its own: own port, token, settings and folder."""

    def __init__(self, folder: Path) -> None:
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        config = folder / "config"
        (config / "labconfig").mkdir(parents=True)
        (config / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(QUIET))
        self.token, self.port = secrets.token_hex(16), _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(config), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }  # fmt: skip
        self.log = folder / "server.log"
        command = [
            sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}", "--allow-root",
            "--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}",
            f"--ServerApp.root_dir={self.notebooks}", "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly", '--ServerApp.jpserver_extensions={"jupyterlab_jupytext":False}',
        ]  # fmt: skip
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=folder, preexec_fn=stop_with_parent
            )
        self._wait_ready()

    def _wait_ready(self) -> None:
        end = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                self.call("GET", "/api/status")
            except OSError:
                time.sleep(0.1)
            else:
                return
        self.stop()
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def call(self, method: str, path: str) -> Any:
        """Ask the server's own interface."""
        request = urllib.request.Request(
            self.address + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def write(self, name: str, cells: Sequence[str | nbformat.NotebookNode]) -> Path:
        """Write a notebook of code cells: their source, or whole cells with outputs."""
        whole = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
        book = nbformat.v4.new_notebook(cells=whole)
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        path = self.notebooks / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, path)
        return path

    def shut_down_kernels(self, names: Sequence[str] | None = None) -> None:
        """End the kernels of some notebooks, or of all: a page that other tests share has to live on."""
        for session in self.call("GET", "/api/sessions"):
            if names is None or session["path"] in names:
                self.call("DELETE", f"/api/sessions/{session['id']}")

    def stop(self) -> None:
        """End the server and its kernels."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


class NotebookPage:
    """A notebook in the browser.

    Parameters
    ----------
    page
        Playwright's page.
    server, name
        The lab, and the notebook's path in it.
    loaded
        Whether the page shows that lab already: then the notebook is opened in it, which spares most of the work.

    Attributes
    ----------
    page
        Playwright's page.
    errors
        What the console and the page complained of, in order.
    """

    def __init__(self, page: Page, server: LabServer, name: str, *, loaded: bool = False) -> None:
        self.page, self.server, self.name = page, server, name
        self.errors: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", self._catch)
        page.set_default_timeout(PATIENCE)
        if loaded:
            page.evaluate("async (path) => { await jupyterapp.commands.execute('docmanager:open', { path }); }", name)
            return
        page.goto(f"{server.address}/lab/workspaces/{secrets.token_hex(4)}/tree/{name}?token={server.token}&reset")

    def leave(self) -> None:
        """Close the notebook, unsaved; the page stays for another one."""
        self.page.remove_listener("console", self._hear)
        self.page.remove_listener("pageerror", self._catch)
        self.page.evaluate("() => { for (const each of [...jupyterapp.shell.widgets('main')]) each.dispose(); }")

    def _catch(self, error: Error) -> None:
        self.errors.append(f"uncaught: {error}")

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            where = message.location.get("url", "") if message.location else ""
            self.errors.append(f"{message.text} ({where})")

    def run_all(self, minutes: float = 2) -> None:
        """Run every cell; raises with the errors of the cells, or after so many minutes."""
        self.start_all()
        self.finish_all(minutes)

    def start_all(self) -> None:
        """Begin to run every cell, and come back at once."""
        self.page.evaluate(
            f"() => {{ window.ckRun = ({RUN_ALL})().catch((e) => [String(e)]).then((e) => window.ckErrors = e); }}"
        )

    def finish_all(self, minutes: float = 2) -> None:
        """Wait for what `start_all` began; raises as `run_all` does."""
        self.page.wait_for_function("() => window.ckErrors !== undefined", timeout=minutes * 60_000)
        errors = self.page.evaluate("() => { const e = window.ckErrors; window.ckErrors = undefined; return e; }")
        assert errors == [], errors

    def theme(self, dark: bool) -> None:
        """Switch JupyterLab's theme."""
        name = "JupyterLab Dark" if dark else "JupyterLab Light"
        self.page.evaluate("(theme) => jupyterapp.commands.execute('apputils:change-theme', { theme })", name)
        light = str(not dark).lower()
        self.page.wait_for_function("(light) => document.body.dataset.jpThemeLight === light", arg=light)

    def chart(self, at: str = "") -> dict[str, Any]:
        """Data and layout that plotly drew last, of the first chart inside the selector `at`."""
        selector = f"{at} .js-plotly-plot".strip()
        self.page.wait_for_selector(selector)
        return self.page.evaluate(
            "(at) => { const plot = document.querySelector(at);"
            " return JSON.parse(JSON.stringify({ data: plot.data, layout: plot.layout })); }",
            selector,
        )

    def wait(self, script: str, argument: Any = None) -> None:
        """Wait until a JavaScript expression holds."""
        self.page.wait_for_function(script, arg=argument)

    def point_at(self, x: float, y: float) -> None:
        """Bring the mouse to a point of a chart, and wait until plotly has seen it: from then on a click counts."""
        hovered = "[...document.querySelectorAll('.js-plotly-plot')].some((plot) => plot._hoverdata?.length)"
        self.page.mouse.move(1, 1)
        self.wait(f"() => !{hovered}")
        self.page.mouse.move(x - 2, y)
        self.page.mouse.move(x, y, steps=5)
        self.wait(f"() => {hovered}")

    def click_point(self, x: float, y: float, key: str = "") -> None:
        """Click a point of a chart once, as long as a person does, a key held down."""
        self.point_at(x, y)
        if key:
            self.page.keyboard.down(key)
        self.page.mouse.down()
        self.page.wait_for_timeout(100)
        self.page.mouse.up()
        if key:
            self.page.keyboard.up(key)

    def kernel(self, code: str) -> str:
        """Run code in the notebook's kernel, beside the notebook; gives what it printed. Raises what it raised.

        What was done in the page before has reached the kernel by then.
        """
        printed, error = self.page.evaluate(
            """async (code) => {
              const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              while (kernel.ckUnheard?.size)
                await Promise.allSettled([...kernel.ckUnheard].map((future) => future.done));
              const future = kernel.requestExecute({ code, store_history: false });
              let printed = "", error = "";
              future.onIOPub = ({ header, content }) => {
                if (header.msg_type === "stream") printed += content.text;
                if (header.msg_type === "error") error = content.ename + ": " + content.evalue;
              };
              await future.done;
              return [printed, error];
            }""",
            code,
        )
        assert not error, error
        return str(printed)

    def beside(self) -> NotebookPage:
        """Open the same notebook in a second tab of the browser."""
        return NotebookPage(self.page.context.new_page(), self.server, self.name)

    def until(self, expression: str, minutes: float = 1) -> None:
        """Wait until a Python expression holds in the kernel."""
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            if self.kernel(f"print(bool({expression}))") == "True\n":
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"waited in vain for {expression}")

    def press(self, slider: str, *keys: str) -> None:
        """Focus the handle of the slider inside a selector, and press keys."""
        handle = self.page.locator(f"{slider} .noUi-handle").first
        handle.scroll_into_view_if_needed()
        handle.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def screenshot(self, name: str, at: str | None = None) -> Path:
        """Save what is seen, or one element, under build/screenshots."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.wait_for_timeout(300)  # transitions end; nothing is asserted on the picture
        if at is None:
            self.page.screenshot(path=path)
        else:
            self.page.locator(at).first.screenshot(path=path)
        return path


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), headless=True, args=list(FLAGS))
        try:
            yield browser
        finally:
            try:
                browser.close()
            except Error as error:  # it may have died with the test that looked at it
                print(f"closing Chromium: {error}", file=sys.stderr)
