"""The workbench as a page: opened by its address with the token, moved by the keyboard, closed again."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
from lab_driver import ROOT, SCREENSHOTS, stop_with_parent


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address that `compresskit app` prints."""
    log = tmp_path_factory.mktemp("app") / "log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "compresskit.cli", "app", "small_student", "--no-browser"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, preexec_fn=stop_with_parent)
    end = time.monotonic() + 60
    found = None
    while found is None and time.monotonic() < end and process.poll() is None:
        time.sleep(0.2)
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\w{20,}", log.read_text())
    assert found, log.read_text()
    yield found[0], process
    process.terminate()
    process.wait(20)


def test_the_page_is_a_living_workbench(address, browser):
    url, process = address
    page = browser.new_context(viewport={"width": 1280, "height": 1400}).new_page()
    heard: list[str] = []
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.locator(".compresskit .js-plotly-plot").first.wait_for()
    figures = page.locator(".ck-figures", has_text="% right")
    figures.wait_for()
    before = figures.inner_text()
    page.locator(".ck-weights .noUi-handle").focus()
    page.keyboard.press("ArrowLeft")
    page.locator(".ck-figures", has_text="% right").filter(has_not_text=before).wait_for()
    page.screenshot(path=SCREENSHOTS / "app.png", full_page=True)
    page.emulate_media(color_scheme="dark")  # as a visitor's system may be, or become in the evening
    page.locator("body.theme-dark[data-jp-theme-light=false]").wait_for()
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(ground[:3]) < 64, ground
    page.screenshot(path=SCREENSHOTS / "app-dark.png", full_page=True)
    assert page.locator("pre, .jp-InputArea-editor").filter(visible=True).count() == 0, "no code is shown"
    assert heard == []
    assert {each.split("/")[2] for each in asked if each.startswith("http")} == {url.split("/")[2]}
    for child in psutil.Process(process.pid).children(recursive=True):
        if "ipykernel_launcher" in child.cmdline():
            child.kill()  # as the server does with a page that nobody has moved for an hour
    page.locator(".jupyter-widgets-disconnected").first.wait_for()
    told = page.evaluate("() => getComputedStyle(document.querySelector('.compresskit'), '::before').content")
    assert told == '"No kernel answers this page any more. Load it again."'
    page.context.close()


def test_nobody_enters_without_the_token(address):
    url, _ = address
    for path in ("", "api/kernels/x", "voila/files/cli.py"):
        try:
            with urllib.request.urlopen(url.split("?")[0] + path) as answer:
                assert "/login" in answer.url, path
        except urllib.error.HTTPError as refusal:
            assert refusal.code in (401, 403, 404), path


def test_it_listens_on_this_computer_only(address):
    _, process = address
    listening = [each for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
    assert listening and {each.laddr.ip for each in listening} == {"127.0.0.1"}
