"""`thirtytwo serve`: read the settings from flags and environment, and run the service until it is stopped."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.console import log
from thirtytwo.cli.options import options_from
from thirtytwo.errors import require
from thirtytwo.machine import LOOPBACK

if TYPE_CHECKING:
    from thirtytwo.serve.service import Service

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic_settings")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            envvar="THIRTYTWO_SERVE_MODEL",
            help="Models to serve, the default first; NAME=RUN sets the name. May be repeated.",
            show_default="bundled models, else the newest run",
        ),
    ] = None,
    **settings: Any,
) -> None:
    """Serve models over HTTP (REST); set THIRTYTWO_API_KEY to require an API key from clients."""
    for module in _LIBRARIES:
        require(module, "serve")
    from thirtytwo.serve.server import run
    from thirtytwo.serve.service import Service, choose_models
    from thirtytwo.serve.settings import read_settings

    read = read_settings(**settings)
    service = Service(choose_models(model or ()), read)
    if run(service, lambda address: _log_address(service, address)):
        raise KeyboardInterrupt


def serve_options() -> list[inspect.Parameter]:
    """An option for each setting of the service, except the key: other users could read it in a list of processes."""
    from thirtytwo.serve.settings import ServeSettings

    return options_from(ServeSettings, without={"api_key"}, defaults={"threads": "one per core"})


def _log_address(service: Service, address: str) -> None:
    from thirtytwo.serve.settings import KEY_VARIABLE

    host = service.settings.host
    if host not in LOOPBACK and service.settings.api_key is None:
        log(f"Anyone who can reach {host} can use the service; set {KEY_VARIABLE} to require an API key.")
    log(f"Serving {', '.join(service.models)} at {address} (see {address}/docs; press Ctrl-C to stop)")
