"""Starting the app: what was asked for is checked first, then Streamlit serves it in this process until it is told to
stop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from streamlit.web import bootstrap

from thirtytwo.app import library as shelf
from thirtytwo.app.memory import give_back
from thirtytwo.app.settings import Settings, streamlit_options
from thirtytwo.errors import ServiceError
from thirtytwo.inference.classifier import find_model
from thirtytwo.inference.model_file import read_info
from thirtytwo.process import environment

SCRIPT = Path(__file__).with_name("main.py")
_TRIED = 20


def run(settings: Settings, *, open_browser: bool, tell: Callable[[str], None], any_port: bool = False) -> None:
    """Serve the app; returns when it was told to stop.

    Args:
        settings: what it shows, and where it listens; port 0 takes a free one.
        open_browser: also open a browser window.
        tell: is called with the address before the app starts.
        any_port: take the next free port where this one is taken.

    Raises:
        ServiceError: the address cannot be listened on.
        UnknownNameError: no such model; as `thirtytwo.load` raises.
        ModelFileError: likewise.
        RunError: likewise.
    """
    for model in settings.models:
        read_info(find_model(model))
    settings = replace(settings, port=_free_port(settings.host, settings.port, _TRIED if any_port else 1))
    shelf.settings = settings
    give_back()
    options = streamlit_options(settings, open_browser=open_browser)
    flags = {name.replace(".", "_"): value for name, value in options.items()}
    bootstrap.load_config_options(flags)
    tell(settings.address)
    with environment("HF_HUB_OFFLINE", "1"):  # a page that is opened fetches nothing
        bootstrap.run(str(SCRIPT), False, [], flags)


def _free_port(host: str, port: int, tried: int) -> int:
    """The first of `tried` ports from this one on that can be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ServiceError(f"There is no address {host!r} here: {error.strerror or error}.", "Check --host.") from None
    reason = ""
    for candidate in range(port, min(port + tried, 65_536)):
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address[0], candidate, *address[2:]))
                return int(probe.getsockname()[1])
            except OSError as error:
                reason = error.strerror or str(error)
    raise ServiceError(f"{host}, port {port} cannot be listened on: {reason}.", "Choose another with --port or --host.")
