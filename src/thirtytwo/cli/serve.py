"""`thirtytwo serve`: read the settings from flags and environment, and run the service until it is stopped."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from thirtytwo.cli.console import log
from thirtytwo.errors import ServiceError, require
from thirtytwo.machine import LOOPBACK

_KEY = "THIRTYTWO_API_KEY"


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
    host: Annotated[str, typer.Option(envvar="THIRTYTWO_SERVE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, envvar="THIRTYTWO_SERVE_PORT", help="Port to listen on; 0 picks a free one."),
    ] = 8032,
    max_batch: Annotated[
        int,
        typer.Option(min=1, max=1024, envvar="THIRTYTWO_SERVE_MAX_BATCH", help="Maximum number of images per batch."),
    ] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            envvar="THIRTYTWO_SERVE_MAX_WAIT_MS",
            help="Maximum time an image waits for its batch to fill.",
        ),
    ] = 2,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            envvar="THIRTYTWO_SERVE_THREADS",
            help="Number of threads for decoding, and for the model.",
            show_default="one per core",
        ),
    ] = None,
    max_file_mb: Annotated[
        float, typer.Option(min=0.001, max=1024, envvar="THIRTYTWO_SERVE_MAX_FILE_MB", help="Maximum file size.")
    ] = 10,
    max_files: Annotated[
        int,
        typer.Option(
            min=1, max=10_000, envvar="THIRTYTWO_SERVE_MAX_FILES", help="Maximum number of files per request."
        ),
    ] = 64,
    max_megapixels: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=50,
            envvar="THIRTYTWO_SERVE_MAX_MEGAPIXELS",
            help="Maximum image size; checked before decoding.",
        ),
    ] = 50,
    max_decode_mb: Annotated[
        float,
        typer.Option(min=1, envvar="THIRTYTWO_SERVE_MAX_DECODE_MB", help="Maximum memory to decode one image."),
    ] = 400,
    max_json_mb: Annotated[
        float,
        typer.Option(min=0.001, max=1024, envvar="THIRTYTWO_SERVE_MAX_JSON_MB", help="Maximum size of a JSON body."),
    ] = 32,
    max_held_mb: Annotated[
        float,
        typer.Option(
            min=1,
            envvar="THIRTYTWO_SERVE_MAX_HELD_MB",
            help="Maximum size of the uploads in memory, over all requests.",
        ),
    ] = 512,
    queue: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="THIRTYTWO_SERVE_QUEUE",
            help="Maximum number of waiting images; further requests get status 503.",
        ),
    ] = 1024,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=3600,
            envvar="THIRTYTWO_SERVE_TIMEOUT",
            help="Maximum seconds per request, including the upload.",
        ),
    ] = 30,
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar="THIRTYTWO_SERVE_ACCESS_LOG", help="Log every request on stdout.")
    ] = False,
) -> None:
    """Serve models over HTTP (REST); set THIRTYTWO_API_KEY to require an API key from clients."""
    for module in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        require(module, "serve")
    from thirtytwo.serve.server import run
    from thirtytwo.serve.service import Service, choose_models
    from thirtytwo.serve.settings import Settings

    settings = Settings(
        host=host,
        port=port,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        threads=threads,
        max_file_mb=max_file_mb,
        max_files=max_files,
        max_megapixels=max_megapixels,
        max_decode_mb=max_decode_mb,
        max_json_mb=max_json_mb,
        max_held_mb=max_held_mb,
        queue=queue,
        timeout=timeout,
        access_log=access_log,
        api_key=_api_key(),
    )
    service = Service(choose_models(model or ()), settings)

    def log_address(address: str) -> None:
        if host not in LOOPBACK and settings.api_key is None:
            log(f"Anyone who can reach {host} can use the service; set {_KEY} to require an API key.")
        log(f"Serving {', '.join(service.models)} at {address} (see {address}/docs; press Ctrl-C to stop)")

    if run(service, log_address):
        raise KeyboardInterrupt


def _api_key() -> str | None:
    key = os.environ.get(_KEY)
    if key is not None and not key.strip():
        raise ServiceError(f"{_KEY} is set but empty.", "Set it to the key that clients must send, or unset it.")
    return None if key is None else key.strip()
