"""`thirtytwo serve`: read the settings from flags and environment, and run the service until it is stopped."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.console import log
from thirtytwo.cli.options import options_from
from thirtytwo.errors import ServiceError, require
from thirtytwo.machine import LOOPBACK

if TYPE_CHECKING:
    from thirtytwo.serve.service import Backend

_LIBRARIES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "pydantic_settings")


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            envvar="THIRTYTWO_SERVE_MODEL",
            help="Models to serve, the default first; NAME=RUN sets the name. May be repeated.",
            show_default="bundled models, imagenet first, else the newest run",
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="ray|ADDRESS",
            envvar="THIRTYTWO_SERVE_ON",
            help="Run the models as replicas on a Ray cluster: ray, auto, ray://HOST:PORT or HOST:PORT.",
            show_default="in this process",
        ),
    ] = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="With --on: replace the models of the running service, which goes on with its settings, and exit.",
        ),
    ] = False,
    **settings: Any,
) -> None:
    """Serve models over HTTP (REST); set THIRTYTWO_API_KEY to require an API key from clients."""
    for module in _LIBRARIES:
        require(module, "serve")
    if on is not None:
        _serve_on(on, model, update, settings)
        return
    from thirtytwo.serve.server import run
    from thirtytwo.serve.service import Service, choose_models
    from thirtytwo.serve.settings import read_settings

    read = read_settings(**settings)
    if update or read.most_replicas > 1:
        raise ServiceError("Replicas and --update are for a service on a Ray cluster.", "Add --on ray.")
    service = Service(choose_models(model or ()), read)
    if run(service, lambda address: _log_address(service, address)):
        raise KeyboardInterrupt


def _serve_on(on: str, models: list[str] | None, update: bool, settings: dict[str, Any]) -> None:
    from thirtytwo.scale.address import parse_address
    from thirtytwo.scale.cluster import import_ray

    parse_address(on)
    import_ray()
    from thirtytwo.scale.serve import serve_on_ray, update_on_ray

    if update:
        update_on_ray(on, models, log=log)
    elif serve_on_ray(on, models, settings, on_start=_log_address, log=log):
        raise KeyboardInterrupt


def serve_options() -> list[inspect.Parameter]:
    """An option for each setting of the service, except the key: other users could read it in a list of processes."""
    from thirtytwo.serve.settings import ServeSettings

    return options_from(
        ServeSettings,
        without={"api_key"},
        defaults={"threads": "one per core; with --on, one", "max_replicas": "as --replicas"},
    )


def _log_address(service: Backend, address: str) -> None:
    from thirtytwo.serve.settings import KEY_VARIABLE

    host = service.settings.host
    if host not in LOOPBACK and service.settings.api_key is None:
        log(f"Anyone who can reach {host} can use the service; set {KEY_VARIABLE} to require an API key.")
    log(f"Serving {', '.join(service.names)} at {address} (see {address}/docs; press Ctrl-C to stop)")
