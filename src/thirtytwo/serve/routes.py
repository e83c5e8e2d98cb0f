"""The routes of the HTTP interface, one router per topic."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import ValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from thirtytwo.errors import ModelFileError, did_you_mean
from thirtytwo.serve import metrics
from thirtytwo.serve.limits import Reservation
from thirtytwo.serve.schemas import (
    KINDS,
    MEDIA_TYPE,
    Classified,
    Health,
    Model,
    PredictParameters,
    Problem,
    UnreadableFile,
    as_json,
)
from thirtytwo.serve.service import Backend
from thirtytwo.serve.settings import ServeSettings
from thirtytwo.serve.uploads import JSON, MULTIPART, PARAMETERS, read_uploads
from thirtytwo.text import plain_reason, shorten

logger = logging.getLogger(__name__)

SWAGGER = Path(__file__).with_name("swagger")
"""Swagger UI, which shows the page /docs."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of /docs; Swagger UI sets styles of elements and embeds its icons."""

_DEFAULTS = PredictParameters()
_WATCH_AFTER = 0.5
"""Seconds from the end of a request's body until its connection is watched."""
_MULTIPART_SCHEMA = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
    "required": ["files"],
}
_PREDICT_BODY = {
    "required": True,
    "content": {
        MULTIPART: {"schema": _MULTIPART_SCHEMA},
        JSON: {"schema": {"$ref": "#/components/schemas/PredictBody"}},
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}
_PROMETHEUS = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
_BEARER = HTTPBearer(
    auto_error=False, scheme_name="key", description="The API key, if the service was started with THIRTYTWO_API_KEY."
)
_OPTIONAL_KEY: dict[str, Any] = {"security": [{}]}
"""Added to the key's requirement in the OpenAPI document: without THIRTYTWO_API_KEY, no key is required."""


def prediction(service: Backend) -> Callable[[Request], Awaitable[Response]]:
    """`POST /predict` as it is handled: without FastAPI, whose work for a request exceeds all of the others' here."""

    async def predict(request: Request) -> Response:
        _check_key(service.settings, request)
        parameters = _read_parameters(request) if request.scope["query_string"] else _DEFAULTS
        return Response(as_json(await _predict(service, request, parameters)), media_type=JSON)

    return predict


def documented_prediction(service: Backend) -> APIRouter:
    """`POST /predict` for the OpenAPI document; `prediction` handles its requests."""
    router = APIRouter(dependencies=[_key_check(service)])

    @router.post(
        "/predict",
        summary="Classify images",
        response_model=list[Classified | UnreadableFile],
        responses=_problem_responses(*(kind for kind in KINDS if kind not in ("bug", "not-ready"))),
        openapi_extra=_OPTIONAL_KEY | {"requestBody": _PREDICT_BODY},
    )
    async def predict(parameters: Annotated[PredictParameters, Query()]) -> None:
        """Returns one entry per file, in order. The entry of an unreadable file has `file` and `error`; if no file
        can be read, the request fails with a problem document. Multipart parts with a file name may have any field
        name. A body that is one image may also have its own type or application/octet-stream.
        """

    return router


def model_routes(service: Backend) -> APIRouter:
    """`GET /models`."""
    router = APIRouter(dependencies=[_key_check(service)])

    @router.get(
        "/models",
        summary="List the models",
        response_model=list[Model],
        responses=_problem_responses("no-key"),
        openapi_extra=_OPTIONAL_KEY,
    )
    async def models() -> Response:
        """The first one is the default."""
        return Response(as_json(await service.list_models()), media_type=JSON)

    return router


def health_routes(service: Backend) -> APIRouter:
    """`GET /health/live` and `GET /health/ready`."""
    router = APIRouter(prefix="/health")

    @router.get("/live", summary="Check that the process is running", response_model=Health)
    async def live() -> Response:
        """Does not require a key."""
        return Response(as_json({"status": "alive"}), media_type=JSON)

    @router.get(
        "/ready",
        summary="Check that the service accepts requests",
        response_model=Health,
        responses=_problem_responses("not-ready"),
    )
    async def ready() -> Response:
        """Models are loaded and the service is not shutting down. Does not require a key."""
        if not service.ready:
            raise Problem("not-ready", "The service is shutting down: it finishes accepted requests only.")
        return Response(as_json({"status": "ready"}), media_type=JSON)

    return router


def metrics_routes(service: Backend) -> APIRouter:
    """`GET /metrics`."""
    router = APIRouter(dependencies=[_key_check(service)])

    @router.get(
        "/metrics",
        summary="Return metrics for Prometheus",
        response_class=Response,
        responses={200: _PROMETHEUS, **_problem_responses("no-key")},
        openapi_extra=_OPTIONAL_KEY,
    )
    async def prometheus() -> Response:
        """Requests, images, batches, waiting images, memory and processor time."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)

    return router


def add_page(app: FastAPI) -> None:
    """Add the page /docs and its files, to which / redirects."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return FileResponse(SWAGGER / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        return RedirectResponse(f"{request.scope['root_path']}/docs")

    app.mount("/docs", StaticFiles(directory=SWAGGER))


def _key_check(service: Backend) -> Any:
    """A dependency that raises `Problem` if a key is required and the request has none or a wrong one."""

    async def check(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]) -> None:
        _check_key(service.settings, request)

    return Depends(check)


def _check_key(settings: ServeSettings, request: Request) -> None:
    if settings.api_key is None:
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    sent = sent.strip() if scheme.lower() == "bearer" else ""
    if not hmac.compare_digest(sent.encode("latin-1"), settings.api_key.encode()):
        detail = "The API key is wrong." if sent else f"The request has no API key. {KINDS['no-key'][2]}"
        raise Problem("no-key", detail, headers={"WWW-Authenticate": "Bearer"})


def _read_parameters(request: Request) -> PredictParameters:
    given = dict(request.query_params)
    if unknown := [name for name in given if name not in PARAMETERS]:
        found = f"The address has the unknown parameter {shorten(unknown[0], 100)!r}."
        errors = [{"where": name, "error": "Unknown parameter"} for name in unknown]
        raise Problem("invalid", f"{found} {did_you_mean(unknown[0], PARAMETERS)}", errors=errors)
    if repeated := [name for name in given if len(request.query_params.getlist(name)) > 1]:
        found = f"The address has the parameter {repeated[0]!r} more than once; give it once."
        raise Problem("invalid", found, errors=[{"where": name, "error": "Repeated"} for name in repeated])
    try:
        return PredictParameters.model_validate(given)
    except ValidationError as error:
        errors = [
            {
                "where": str(entry["loc"][-1]),
                "error": f"{plain_reason(entry)}; found {shorten(repr(entry['input']), 100)}",
            }
            for entry in error.errors()
        ]
        raise Problem("invalid", f"{errors[0]['where']}: {errors[0]['error']}.", errors=errors) from None


def _problem_responses(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the kinds of problems of an operation."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title, _ = KINDS[kind]
        previous = responses.get(status, {}).get("description")
        responses[status] = {
            "description": f"{previous}, or: {title}" if previous else title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        if kind in ("busy", "timed-out"):
            responses[status]["headers"] = {
                "Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}
            }
    return responses


class _Watch:
    """Cancels the task of a request whose client is gone, so that its images leave the queue.

    It starts to watch only where the prediction takes long, since most requests are answered before. Uploads that are
    still in memory are counted until they are decoded, so it waits for that.
    """

    def __init__(self, request: Request, reservation: Reservation) -> None:
        self._request, self._reservation, self._task = request, reservation, asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def start(self) -> None:
        """Watch in `_WATCH_AFTER` seconds; the body must be complete."""
        self._timer = asyncio.get_running_loop().call_later(_WATCH_AFTER, self._begin)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def accept(self) -> bool:
        """Whether the task was cancelled by this watch alone; then it goes on."""
        return self.gone and self._task is not None and self._task.uncancel() == 0

    def _begin(self) -> None:
        self._watcher = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        while self._reservation.held:
            await asyncio.sleep(_WATCH_AFTER / 10)
        if self._task is not None:
            self.gone = self._task.cancel()


async def _predict(service: Backend, request: Request, parameters: PredictParameters) -> list[dict[str, Any]]:
    top, heatmap = parameters.top, parameters.heatmap
    name = await service.find(parameters.model, heatmap=heatmap)
    service.limits.check()
    received = False

    async def uploads() -> AsyncIterator[Any]:
        nonlocal received
        async for upload in read_uploads(request, service.settings, reservation):
            yield upload
        received = True
        watch.start()

    seconds = service.settings.timeout
    with service.limits.reservation() as reservation:
        watch = _Watch(request, reservation)
        try:
            async with asyncio.timeout(seconds):
                return await service.predict(uploads(), name, reservation, top=top, heatmap=heatmap)
        except ModelFileError as error:
            logger.error("%s", error)
            detail = "A probability that the model computes for these images is not a number."
            raise Problem("broken-model", detail) from None
        except asyncio.CancelledError:
            if not watch.accept():
                raise
            raise ClientDisconnect from None
        except TimeoutError:
            if not received:
                raise Problem("too-slow", f"The upload was not complete after {seconds:g} s.") from None
            raise service.limits.problem("timed-out", f"The prediction was not complete after {seconds:g} s.") from None
        finally:
            watch.stop()
