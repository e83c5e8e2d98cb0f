"""The web interface: what is answered on which path, in HTTP."""

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
from thirtytwo.serve.problems import KINDS, MEDIA_TYPE, Problem, as_json, plain_problem
from thirtytwo.serve.schemas import Classified, Health, Model, PredictBody, ProblemDocument, Unread
from thirtytwo.serve.service import Service
from thirtytwo.serve.uploads import JSON, MULTIPART, read_uploads

VERSION = "1.0"
"""Of the interface; another first number would break clients."""

MOST_CLASSES = 1000

DESCRIPTION = """Classifies images. Answers are those of `thirtytwo predict --format json`; refusals are problem
documents (RFC 9457) that name the file. Nothing that is sent is kept."""

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
    """The web interface of a service; starting and stopping it starts and ends the service's threads."""

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
    app.add_middleware(_Outermost, service=service)
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: what FastAPI derives, and how a key is shown where one is needed."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=" ".join(DESCRIPTION.split()), routes=app.routes
        )
        parts = document["components"]
        for schema in (PredictBody, ProblemDocument):
            parts["schemas"] |= _schemas(schema)
        parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for unused in ("HTTPValidationError", "ValidationError"):
            parts["schemas"].pop(unused, None)
        parts["schemas"] = dict(sorted(parts["schemas"].items()))
        app.openapi_schema = document
    return app.openapi_schema


def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    """A model and those it is made of, by name."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}


def _refusals(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """The problem documents of an operation, for the OpenAPI document."""
    told: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title, _ = KINDS[kind]
        before = told.get(status, {}).get("description")
        told[status] = {
            "description": f"{before}, or: {title}" if before else title,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
        }
        if kind in ("busy", "timed-out"):
            told[status]["headers"] = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer"}}}
    return told


def _add_routes(app: FastAPI, service: Service) -> None:
    async def key_shown(request: Request) -> None:
        _check_key(request, service.settings.api_key)

    secured: dict[str, Any] = {"dependencies": [Depends(key_shown)]}
    key_needed: dict[str, Any] = {"security": [{"key": []}, {}]}

    @app.post(
        "/predict",
        summary="Classify images",
        response_model=list[Classified | Unread],
        responses=_refusals(*(kind for kind in KINDS if kind not in ("bug", "not-ready"))),
        openapi_extra=key_needed
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
        top: Annotated[int, Query(ge=1, le=MOST_CLASSES, description="How many classes to tell, at most all.")] = 5,
        model: Annotated[str | None, Query(description="Which model; the default where none is named.")] = None,
        heatmap: Annotated[bool, Query(description="Also tell where the model looked.")] = False,
    ) -> Response:
        """Every file gets an entry, in order. A file that cannot be read has `file` and `error`, as long as another
        one could be read; where none could, the whole request is refused. Multipart parts may have any field name.
        """
        return Response(as_json(await _predict(service, request, top, model, heatmap)), media_type=JSON)

    @app.get(
        "/models",
        summary="List the models that answer",
        response_model=list[Model],
        responses=_refusals("no-key"),
        openapi_extra=key_needed,
        **secured,
    )
    async def models() -> Response:
        """The first one answers where a request names none."""
        return Response(as_json([_card(service, name) for name in service.models]), media_type=JSON)

    @app.get("/health/live", summary="Is the process there?", response_model=Health)
    async def live() -> Response:
        """Never needs a key."""
        return Response(as_json({"status": "alive"}), media_type=JSON)

    @app.get(
        "/health/ready",
        summary="Does it take requests?",
        response_model=Health,
        responses=_refusals("not-ready"),
    )
    async def ready() -> Response:
        """Models are loaded, and nobody has asked the service to stop. Never needs a key."""
        if not service.ready:
            raise Problem("not-ready", "The service finishes what it has accepted, and then stops.")
        return Response(as_json({"status": "ready"}), media_type=JSON)

    @app.get(
        "/metrics",
        summary="Counters for Prometheus",
        response_class=Response,
        responses={200: _PROMETHEUS, **_refusals("no-key")},
        openapi_extra=key_needed,
        **secured,
    )
    async def prometheus() -> Response:
        """Requests, images, batches, what waits, memory and processor time."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


async def _predict(
    service: Service, request: Request, top: int, model: str | None, heatmap: bool
) -> list[dict[str, Any]]:
    served = service.find(model)
    if heatmap and not served.has_heatmaps:
        raise Problem("no-heatmaps", f"{served.name} has an architecture that gives none.")
    service.gate.check()
    arrived = False

    async def uploads() -> AsyncIterator[Any]:
        nonlocal arrived
        async for upload in read_uploads(request, service.settings, ticket):
            yield upload
        arrived = True

    seconds = service.settings.timeout
    with service.gate.ticket() as ticket:
        try:
            async with asyncio.timeout(seconds):
                return await service.answer(uploads(), served, ticket, top=top, heatmap=heatmap)
        except TimeoutError:
            if not arrived:
                raise Problem("too-slow", f"The upload was not finished after {seconds:g} s.") from None
            raise service.gate.problem("timed-out", f"There was no answer after {seconds:g} s.") from None


def _card(service: Service, name: str) -> dict[str, Any]:
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
    """Raises:
    Problem: a key is needed, and this request shows none or another one.
    """
    if key is None:
        return
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode("latin-1"), key.encode()):
        detail = "The key is wrong." if shown else "The request shows no key."
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
        detail = f"{request.method} {request.url.path} is not answered here."
        return plain_problem(error.status_code, detail, error.headers)

    @handled(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return plain_problem(400, "The connection was closed before the request was whole.")

    @handled(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        told = [{"where": str(fault["loc"][-1]), "error": fault["msg"]} for fault in error.errors()]
        first = told[0]
        return Problem("invalid", f"{first['where']}: {first['error']}.", errors=told).response()


class _Outermost:
    """Counts and times every request, bugs included; asks to close connections once the service is to stop."""

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
        answering = False

        async def counted(message: Message) -> None:
            nonlocal answering
            if message["type"] == "http.response.start":
                answering = True
                if not self._service.ready:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                self._metrics.requests.labels(method, path, str(message["status"])).inc()
                self._metrics.seconds.labels(path).observe(perf_counter() - started)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not answering:
                await Problem("bug", "The request could not be answered.").response()(scope, receive, counted)
            raise  # for the log
