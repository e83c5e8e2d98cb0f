"""`thirtytwo app`: a local web page to use the models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from thirtytwo.cli.console import log
from thirtytwo.errors import require

PORT = 8033


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            help="Models to list first, before bundled ones and runs under ./runs; may be repeated.",
            show_default="bundled models and ./runs",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port to listen on; 0 picks a free one.", show_default="8033, or the next free one"
        ),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open a browser window.", show_default="if there is a display"),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder to look for known data sets in.", show_default="THIRTYTWO_DATA"),
    ] = None,
) -> None:
    """Classify, compare and explore images and add classes in a local web page; no data leaves this computer."""
    start_app(model or [], host=host, port=port, browser=browser, data_root=data_root)


def start_app(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool | None = None,
    data_root: Path | None = None,
) -> None:
    """Serve the app until it is stopped; without `port`, on 8033 or the next free port."""
    for module in ("streamlit", "onnx"):
        require(module, "app")
    from thirtytwo.app.launch import run
    from thirtytwo.app.settings import Settings
    from thirtytwo.machine import LOOPBACK

    def log_address(address: str) -> None:
        if host not in LOOPBACK:
            log(f"Anyone who can reach {host} can use the app.")
        log(f"The app is running at {address} (press Ctrl-C to stop)")

    run(
        Settings(tuple(models), data_root, host, PORT if port is None else port),
        open_browser=_has_display() if browser is None else browser,
        on_start=log_address,
        any_port=port is None,
    )


def _has_display() -> bool:
    return os.name == "nt" or os.uname().sysname == "Darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
