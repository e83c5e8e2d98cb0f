"""`thirtytwo app`: the models in a web page on this computer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from thirtytwo.cli.console import say
from thirtytwo.errors import require

PORT = 8033


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            help="Show these models first, beside bundled ones and runs under ./runs. May be repeated.",
            show_default="bundled ones and ./runs",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", show_default="8033, or the next free"),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open a browser window.", show_default="where there is a screen"),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Where known data sets are looked for.", show_default="THIRTYTWO_DATA"),
    ] = None,
) -> None:
    """Classify, compare, explore and teach in a web page; nothing leaves this computer."""
    start_app(model or [], host=host, port=port, browser=browser, data_root=data_root)


def start_app(
    models: list[str],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool | None = None,
    data_root: Path | None = None,
) -> None:
    """Serve the app until it is stopped; without a port, 8033 or the next free one."""
    for module in ("streamlit", "onnx"):
        require(module, "app")
    from thirtytwo.app.launch import run
    from thirtytwo.app.settings import LOOPBACK, Settings

    def tell(address: str) -> None:
        if host not in LOOPBACK:
            say(f"Whoever reaches {host} can use the app.")
        say(f"The app is at {address} (Ctrl-C stops it)")

    run(
        Settings(tuple(models), data_root, host, PORT if port is None else port),
        open_browser=_has_screen() if browser is None else browser,
        tell=tell,
        any_port=port is None,
    )


def _has_screen() -> bool:
    return os.name == "nt" or os.uname().sysname == "Darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
