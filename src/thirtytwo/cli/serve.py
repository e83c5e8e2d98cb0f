"""`thirtytwo serve`: flags and environment become settings, and the service runs until it is told to stop."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from thirtytwo.cli.console import say
from thirtytwo.errors import ServiceError, require

_KEY = "THIRTYTWO_API_KEY"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            envvar="THIRTYTWO_SERVE_MODEL",
            help="Which models, the default first; NAME=RUN gives one a name of its own. May be repeated.",
            show_default="bundled ones, else the newest run",
        ),
    ] = None,
    host: Annotated[str, typer.Option(envvar="THIRTYTWO_SERVE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, envvar="THIRTYTWO_SERVE_PORT", help="Port; 0 takes a free one.")
    ] = 8032,
    max_batch: Annotated[
        int, typer.Option(min=1, max=1024, envvar="THIRTYTWO_SERVE_MAX_BATCH", help="Pictures in a batch.")
    ] = 32,
    max_wait_ms: Annotated[
        float,
        typer.Option(
            min=0,
            max=1000,
            envvar="THIRTYTWO_SERVE_MAX_WAIT_MS",
            help="How long a picture waits for its batch to fill.",
        ),
    ] = 2,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            envvar="THIRTYTWO_SERVE_THREADS",
            help="Threads for decoding, and for the model.",
            show_default="one a core",
        ),
    ] = None,
    max_file_mb: Annotated[
        float, typer.Option(min=0.001, max=1024, envvar="THIRTYTWO_SERVE_MAX_FILE_MB", help="Largest file.")
    ] = 10,
    max_files: Annotated[
        int, typer.Option(min=1, max=10_000, envvar="THIRTYTWO_SERVE_MAX_FILES", help="Most files in a request.")
    ] = 64,
    max_megapixels: Annotated[
        float,
        typer.Option(
            min=0.001, max=50, envvar="THIRTYTWO_SERVE_MAX_MEGAPIXELS", help="Largest picture; checked before decoding."
        ),
    ] = 50,
    max_decode_mb: Annotated[
        float,
        typer.Option(
            min=1, envvar="THIRTYTWO_SERVE_MAX_DECODE_MB", help="Most memory that decoding one image may take."
        ),
    ] = 400,
    max_json_mb: Annotated[
        float, typer.Option(min=0.001, max=1024, envvar="THIRTYTWO_SERVE_MAX_JSON_MB", help="Largest JSON body.")
    ] = 32,
    max_held_mb: Annotated[
        float,
        typer.Option(min=1, envvar="THIRTYTWO_SERVE_MAX_HELD_MB", help="Uploads in memory, of all requests together."),
    ] = 512,
    queue: Annotated[
        int, typer.Option(min=1, envvar="THIRTYTWO_SERVE_QUEUE", help="Pictures that may wait; beyond, 503.")
    ] = 1024,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600, envvar="THIRTYTWO_SERVE_TIMEOUT", help="Seconds for a request, upload included."
        ),
    ] = 30,
    access_log: Annotated[
        bool, typer.Option("--access-log", envvar="THIRTYTWO_SERVE_ACCESS_LOG", help="Log every request on stdout.")
    ] = False,
) -> None:
    """Answer over HTTP (REST); a key that clients must show comes from THIRTYTWO_API_KEY."""
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

    def tell(address: str) -> None:
        if host not in _LOOPBACK and settings.api_key is None:
            say(f"Whoever reaches {host} can use the service; {_KEY} makes it ask for a key.")
        say(f"Serving {', '.join(service.models)} at {address} (see {address}/docs; Ctrl-C stops)")

    if run(service, tell):
        raise KeyboardInterrupt


def _api_key() -> str | None:
    key = os.environ.get(_KEY)
    if key is not None and not key.strip():
        raise ServiceError(f"{_KEY} is set, and empty.", "Give it a key that clients must show, or unset it.")
    return None if key is None else key.strip()
