"""Start the app: check the requested models, then serve Streamlit in this process until it is stopped."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from streamlit.web import bootstrap

from thirtytwo.app import library, media, uploads
from thirtytwo.app.settings import PORT, AppSettings, streamlit_options
from thirtytwo.inference.library import find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.machine import listen
from thirtytwo.process import environment

SCRIPT = Path(__file__).with_name("main.py")
_TRIED = 20


def run(settings: AppSettings, *, open_browser: bool, on_start: Callable[[AppSettings], None]) -> None:
    """Serve the app; return when it is stopped.

    Args:
        settings: models to list and address to listen on.
        open_browser: also open a browser window.
        on_start: called with the settings, which then name the port, before the app starts.

    Raises:
        ServiceError: the address is invalid or in use.
        UnknownNameError: there is no such model, as raised by `thirtytwo.load`.
        ModelFileError: likewise.
        RunError: likewise.
    """
    for model in settings.models:
        read_info(find_model(model))
    port = _free_port(settings)
    settings = settings.model_copy(update={"port": port})
    library.settings = settings
    release_memory()
    options = streamlit_options(settings, port, open_browser=open_browser)
    uploads.install()
    media.install()
    flags = {name.replace(".", "_"): value for name, value in options.items()}
    bootstrap.load_config_options(flags)
    on_start(settings)
    with environment("HF_HUB_OFFLINE", "1"):  # opening a page downloads nothing
        bootstrap.run(str(SCRIPT), False, [], flags)


def _free_port(settings: AppSettings) -> int:
    """The port of the settings, or the first free one from `PORT` on."""
    first, tried = (PORT, _TRIED) if settings.port is None else (settings.port, 1)
    with listen(settings.host, first, tried) as listener:
        return int(listener.getsockname()[1])


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's mallopt(3)."""
_LARGE = 1 << 20
_ARENAS = 2


def release_memory() -> None:
    """Make glibc return large blocks to the system when they are freed (Linux only).

    By default glibc raises its threshold for such blocks whenever one is freed and keeps a heap per thread, so that
    loading a model leaves memory of twice its size allocated.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS)):
            library.mallopt(parameter, value)
