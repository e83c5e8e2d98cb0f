"""Start the app: check the requested models, then serve Streamlit in this process until it is stopped."""

from __future__ import annotations

import ctypes
import mmap
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from streamlit.web import bootstrap

from thirtytwo.app import library
from thirtytwo.app.settings import Settings, streamlit_options
from thirtytwo.errors import ServiceError
from thirtytwo.inference.classifier import find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.process import environment

SCRIPT = Path(__file__).with_name("main.py")
_TRIED = 20


def run(settings: Settings, *, open_browser: bool, on_start: Callable[[str], None], any_port: bool = False) -> None:
    """Serve the app; return when it is stopped.

    Args:
        settings: models to list and address to listen on; port 0 picks a free port.
        open_browser: also open a browser window.
        on_start: called with the address before the app starts.
        any_port: use the next free port if this one is taken.

    Raises:
        ServiceError: the address is invalid or in use.
        UnknownNameError: there is no such model, as raised by `thirtytwo.load`.
        ModelFileError: likewise.
        RunError: likewise.
    """
    for model in settings.models:
        read_info(find_model(model))
    settings = replace(settings, port=_free_port(settings.host, settings.port, _TRIED if any_port else 1))
    library.settings = settings
    release_memory()
    options = streamlit_options(settings, open_browser=open_browser)
    flags = {name.replace(".", "_"): value for name, value in options.items()}
    bootstrap.load_config_options(flags)
    on_start(settings.address)
    with environment("HF_HUB_OFFLINE", "1"):  # opening a page downloads nothing
        bootstrap.run(str(SCRIPT), False, [], flags)


def _free_port(host: str, port: int, tried: int) -> int:
    """The first free port among `tried` ports, starting at `port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServiceError(
            f"Cannot resolve the address {host!r}: {error.strerror or error}.", "Check --host."
        ) from None
    reason = ""
    for candidate in range(port, min(port + tried, 65_536)):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate, *address[2:]))
                return int(probe.getsockname()[1])
            except OSError as error:
                reason = error.strerror or str(error)
    raise ServiceError(f"Cannot listen on {host}, port {port}: {reason}.", "Choose another with --port or --host.")


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


def release_pages(images: npt.NDArray[np.uint8]) -> None:
    """Release the pages of a memory-mapped array that were read; they are read again on access."""
    mapped: object = images.base
    if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
