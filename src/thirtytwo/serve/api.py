"""The HTTP interface: routes, error handlers and the OpenAPI document."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thirtytwo.serve import metrics
from thirtytwo.serve.page import docs_page
from thirtytwo.serve.schemas import (
    KINDS,
    MEDIA_TYPE,
    Classified,
    Health,
    Model,
    PredictBody,
    Problem,
    ProblemDocument,
    UnreadableFile,
    as_json,
    plain_problem,
)
from thirtytwo.serve.service import Service
from thirtytwo.serve.uploads import JSON, MULTIPART, read_uploads

VERSION = "1.0"
"""Version of the HTTP interface; the major number changes with incompatible changes."""

MAX_CLASSES = 1000

DESCRIPTION = """Classifies images. Responses are those of `thirtytwo predict --format json`; errors are problem
documents (RFC 9457) that name the file. Uploads are not stored."""

MULTIPART_SCHEMA = {
    "type": "object",
    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
    "required": ["files"],
}
_PROMETHEUS = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PATHS = frozenset({"/", "/predict", "/models", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"})


def create_app(service: Service) -> FastAPI:
    """Create the web application of a service; its lifespan starts and stops the service's threads."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.get_running_loop().run_in_executor(None, service.start)
        yield
        service.close()

    app = FastAPI(
        title="thirtytwo",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        telemetry=_NO_TELEMETRY,  # type: ignore[arg-type]
        lifespan=lifespan,
    )
    _add_routes(app, service)
    _add_pages(app)
    _add_error_handlers(app)
    app.add_middleware(_Instrumentation, service=service)
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with the request bodies, problem documents and API key added."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=" ".join(DESCRIPTION.split()), routes=app.routes
        )
        components = document["components"]
        for schema in (PredictBody, ProblemDocument):
            components["schemas"] |= _schemas(schema)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["schemas"] = dict(sorted(components["schemas"].items()))
        app.openapi_schema = document
    return app.openapi_schema


def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schemas of a model and of the models it refers to, by name."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}


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


def _add_routes(app: FastAPI, service: Service) -> None:
    async def require_key(request: Request) -> None:
        _check_key(request, service.settings.api_key)

    secured: dict[str, Any] = {"dependencies": [Depends(require_key)]}
    key_security: dict[str, Any] = {"security": [{"key": []}, {}]}

    @app.post(
        "/predict",
        summary="Classify images",
        response_model=list[Classified | UnreadableFile],
        responses=_problem_responses(*(kind for kind in KINDS if kind not in ("bug", "not-ready"))),
        openapi_extra=key_security
        | {
            "requestBody": {
                "required": True,
                "content": {
                    MULTIPART: {"schema": MULTIPART_SCHEMA},
                    JSON: {"schema": {"$ref": "#/components/schemas/PredictBody"}},
                },
            }
        },
        **secured,
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=MAX_CLASSES, description="Number of classes to return, at most all.")] = 5,
        model: Annotated[str | None, Query(description="Model to use; without it, the default.")] = None,
        heatmap: Annotated[bool, Query(description="Also return heatmaps.")] = False,
    ) -> Response:
        """Returns one entry per file, in order. The entry of an unreadable file has `file` and `error`; if no file
        can be read, the request fails with a problem document. Multipart parts may have any field name.
        """
        return Response(as_json(await _predict(service, request, top, model, heatmap)), media_type=JSON)

    @app.get(
        "/models",
        summary="List the models",
        response_model=list[Model],
        responses=_problem_responses("no-key"),
        openapi_extra=key_security,
        **secured,
    )
    async def models() -> Response:
        """The first one is the default."""
        return Response(as_json([_model_entry(service, name) for name in service.models]), media_type=JSON)

    @app.get("/health/live", summary="Check that the process is running", response_model=Health)
    async def live() -> Response:
        """Does not require a key."""
        return Response(as_json({"status": "alive"}), media_type=JSON)

    @app.get(
        "/health/ready",
        summary="Check that the service accepts requests",
        response_model=Health,
        responses=_problem_responses("not-ready"),
    )
    async def ready() -> Response:
        """Models are loaded and the service is not shutting down. Does not require a key."""
        if not service.ready:
            raise Problem("not-ready", "The service is shutting down: it finishes accepted requests only.")
        return Response(as_json({"status": "ready"}), media_type=JSON)

    @app.get(
        "/metrics",
        summary="Return metrics for Prometheus",
        response_class=Response,
        responses={200: _PROMETHEUS, **_problem_responses("no-key")},
        openapi_extra=key_security,
        **secured,
    )
    async def prometheus() -> Response:
        """Requests, images, batches, waiting images, memory and processor time."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


async def _predict(
    service: Service, request: Request, top: int, model: str | None, heatmap: bool
) -> list[dict[str, Any]]:
    served = service.find(model)
    if heatmap and not served.has_heatmaps:
        raise Problem("no-heatmaps", f"The architecture of model {served.name} has no heatmaps.")
    service.limits.check()
    received = False

    async def uploads() -> AsyncIterator[Any]:
        nonlocal received
        async for upload in read_uploads(request, service.settings, reservation):
            yield upload
        received = True

    seconds = service.settings.timeout
    with service.limits.reservation() as reservation:
        try:
            async with asyncio.timeout(seconds):
                return await service.predict(uploads(), served, reservation, top=top, heatmap=heatmap)
        except TimeoutError:
            if not received:
                raise Problem("too-slow", f"The upload was not complete after {seconds:g} s.") from None
            raise service.limits.problem("timed-out", f"The prediction was not complete after {seconds:g} s.") from None


def _model_entry(service: Service, name: str) -> dict[str, Any]:
    served = service.models[name]
    info = served.classifier.info
    return {
        "name": name,
        "default": name == service.default,
        "dataset": info.dataset,
        "architecture": info.architecture,
        "accuracy": info.accuracy,
        "classes": info.classes,
        "input_size": info.input_size,
        "resize": info.resize,
        "heatmaps": served.has_heatmaps,
        "version": info.version,
    }


def _check_key(request: Request, key: str | None) -> None:
    """Check the API key of a request.

    Raises:
        Problem: a key is required, and this request has none or a wrong one.
    """
    if key is None:
        return
    scheme, _, sent = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(sent.strip().encode("latin-1"), key.encode()):
        detail = "The API key is wrong." if sent else "The request has no API key."
        raise Problem("no-key", detail, headers={"WWW-Authenticate": "Bearer"})


def _add_pages(app: FastAPI) -> None:
    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return Response(as_json(openapi(app)), media_type=JSON)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(docs_page(openapi(app)))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")


def _add_error_handlers(app: FastAPI) -> None:
    def handled(kind: type[Exception]) -> Callable[[Callable[..., Awaitable[Response]]], None]:
        return lambda handler: app.add_exception_handler(kind, handler)

    @handled(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response()

    @handled(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        detail = f"There is no operation {request.method} {request.url.path}."
        return plain_problem(error.status_code, detail, error.headers)

    @handled(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return plain_problem(400, "The connection was closed before the request was complete.")

    @handled(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{"where": str(entry["loc"][-1]), "error": entry["msg"]} for entry in error.errors()]
        first = errors[0]
        return Problem("invalid", f"{first['where']}: {first['error']}.", errors=errors).response()


class _Instrumentation:
    """Outermost middleware: measures every request, and closes connections once the service is shutting down."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        path = scope["path"] if scope["path"] in _PATHS else "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        response_started = False

        async def send_counted(message: Message) -> None:
            nonlocal response_started
            if message["type"] == "http.response.start":
                response_started = True
                if not self._service.ready:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                self._metrics.requests.labels(method, path, str(message["status"])).inc()
                self._metrics.seconds.labels(path).observe(perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not response_started:
                await Problem("bug", "The request failed because of a bug in the service.").response()(
                    scope, receive, send_counted
                )
            raise  # for the log
