"""The workbench as a page of its own: no notebook, no code, a kernel for each visitor (`compresskit app`).

Voila serves it. Visitors cannot run code of their own; each gets a kernel that ends when the page is closed, or after
an hour without it.
"""

from __future__ import annotations

import html
import ipaddress
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.display import HTML

    from compresskit.widgets.workbench import Workbench

JUPYTER = Path(__file__).resolve().parent / "jupyter"
PAGE = JUPYTER / "workbench_page.ipynb"
LOOPBACK = "127.0.0.1"

MODEL, DATA = "COMPRESSKIT_APP_MODEL", "COMPRESSKIT_APP_DATA"
"""Environment variables that tell the page's kernels what to open."""

_NOT_FOR_PAGES = ("jupyterlab-jupytext", "jupyterlab-plotly", "@voila-dashboards/jupyterlab-preview")
"""Extensions of JupyterLab that a page without a notebook has no use for, and that complain of it in the console."""

_IDLE_SECONDS = 3600


def memory_settings() -> dict[str, str]:
    """Give the variables that keep a kernel small.

    GNU's C library gives threads heaps of their own, up to eight for each core, and is slow to give them back; the
    dozen threads of a workbench share two as fast. Other systems do not know the variable. Who has set it keeps it.
    """
    return {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2")}


def page() -> Workbench | HTML:
    """Make the workbench that a visitor sees, or say why there is none; called in the page's kernel."""
    from compresskit.widgets.workbench import Workbench

    try:
        return Workbench(os.environ.get(MODEL, "digit_reader"), os.environ.get(DATA))
    except (ValueError, OSError) as error:
        from IPython.display import HTML

        return HTML(f'<p role="alert" style="margin: 2em">There is no workbench here: {html.escape(str(error))}</p>')


def app_command(host: str, port: int, browser: bool) -> list[str]:
    """Give the command that starts the page.

    Parameters
    ----------
    host : str
        The address it listens at.
    port : int
        First port to try; the next ones are tried where it is taken.
    browser : bool
        Open a browser; else the address is printed and nothing more.
    """
    return [
        sys.executable,
        *("-m", "voila"),
        str(PAGE),
        f"--Voila.ip={host}",
        f"--Voila.port={port}",
        f"--Voila.open_browser={browser}",
        "--Voila.auto_token=True",  # a new one each time; it is part of the address that is printed
        "--VoilaConfiguration.template=compresskit",
        "--VoilaConfiguration.strip_sources=True",
        "--VoilaConfiguration.show_tracebacks=False",
        *(f"--VoilaConfiguration.extension_denylist={name}" for name in _NOT_FOR_PAGES),
        "--KernelManager.transport_encryption=auto",  # others on this computer cannot listen in
        f"--MappingKernelManager.cull_idle_timeout={_IDLE_SECONDS}",
        "--MappingKernelManager.cull_interval=60",
    ]


def app_environment(model: str, data: str | None) -> dict[str, str]:
    """Give the variables that the page is started with."""
    paths = [str(JUPYTER), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    chosen = {MODEL: _absolute(model), **({DATA: _absolute(data)} if data else {})}
    return {"JUPYTER_PATH": os.pathsep.join(paths), "JUPYTER_PREFER_ENV_PATH": "1", **memory_settings(), **chosen}


def _absolute(source: str) -> str:
    """Make a path independent of the folder that the page's kernels start in; a name stays as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def warning(host: str) -> str:
    """Say who can reach the page; empty if only this computer can.

    Raises
    ------
    ValueError
        If the host is not an address.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise ValueError(
            f"host is {host!r}; give the address to listen at, such as {LOOPBACK} (this computer only) or 0.0.0.0 "
            "(every network that this computer is in)"
        ) from error
    if address.is_loopback:
        return ""
    where = "every network that this computer is in" if address.is_unspecified else f"the network of {host}"
    return (
        f"compresskit: this page can be opened from {where}, by whoever has the address with its token. Each visitor "
        "gets a kernel of about 200 MB on this computer. Nothing on the way is encrypted: on a network that others "
        "share, put a server with HTTPS in front of it."
    )
