"""`thirtytwo app`: a local web page to use the models."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from thirtytwo.cli.console import log
from thirtytwo.cli.options import options_from
from thirtytwo.errors import require
from thirtytwo.process import some_home


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            help="Models to list first, before bundled ones and runs under ./runs; may be repeated.",
            show_default="bundled models and ./runs",
        ),
    ] = None,
    browser: Annotated[
        bool | None,
        typer.Option("--browser/--no-browser", help="Open a browser window.", show_default="if there is a display"),
    ] = None,
    **settings: Any,
) -> None:
    """Classify, compare and explore images and add classes in a local web page; no data leaves this computer."""
    start_app(model or [], browser=browser, **settings)


def app_options() -> list[inspect.Parameter]:
    """An option for each setting of the app except `models`, which is --model."""
    from thirtytwo.app.settings import PORT, AppSettings

    shown = {"port": f"{PORT}, or the next free one", "data_root": "THIRTYTWO_DATA"}
    return options_from(AppSettings, without={"models"}, defaults=shown)


def start_app(models: Sequence[str], *, browser: bool | None = None, **settings: Any) -> None:
    """Serve the app until it is stopped.

    Args:
        models: models to list first.
        browser: open a browser window; None: if there is a display.
        settings: other fields of `app.settings.AppSettings`.
    """
    with some_home():  # Streamlit has no files there, but looks for them
        _serve_app(models, _has_display() if browser is None else browser, settings)


def _serve_app(models: Sequence[str], browser: bool, settings: dict[str, Any]) -> None:
    for module in ("streamlit", "onnx"):
        require(module, "app")
    from thirtytwo.app.launch import run
    from thirtytwo.app.settings import AppSettings

    chosen = AppSettings(models=tuple(models), **settings)

    def log_address(settings: AppSettings) -> None:
        if not settings.is_local:
            log(f"Anyone who can reach {settings.host} can use the app.")
            if settings.network_url is not None:
                log(f"On other devices in this network: {settings.network_url} (QR code on the page Help)")
        log(f"The app is running at {settings.own_url} (press Ctrl-C to stop)")

    run(chosen, open_browser=browser, on_start=log_address)


def _has_display() -> bool:
    return os.name == "nt" or os.uname().sysname == "Darwin" or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))
