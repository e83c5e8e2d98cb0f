"""The web application: its routes, error handlers and OpenAPI document."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from thirtytwo.images.formats import FORMATS
from thirtytwo.serve.routes import (
    add_page,
    documented_prediction,
    health_routes,
    metrics_routes,
    model_routes,
    prediction,
)
from thirtytwo.serve.schemas import PredictBody, Problem, ProblemDocument, as_json, plain_problem, problems_table
from thirtytwo.serve.service import Backend
from thirtytwo.serve.uploads import JSON

VERSION = "1.0"
"""Version of the HTTP interface; the major number changes with incompatible changes."""

_SUMMARY = f"""Classifies images: {FORMATS}. Responses are those of `thirtytwo predict --format json`; errors are
problem documents (RFC 9457) that name the file. Uploads are not stored."""
DESCRIPTION = f"{' '.join(_SUMMARY.split())}\n\n## Problems\n\n{problems_table()}"

_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "operation_spans": False, "auto_configure": False}
_CLIENT_CLOSED = 499
"""Status of requests whose client closed the connection, as in nginx; it is for the metrics, nobody gets a response."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_PATHS = frozenset({"/", "/predict", "/models", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json"})


def create_app(service: Backend) -> FastAPI:
    """Create the web application of a service; its lifespan starts the service, if it is not ready, and closes it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not service.ready:
            await asyncio.get_running_loop().run_in_executor(None, service.start)
        yield
        service.close()

    app = _Application(
        service,
        title="thirtytwo",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # redirects would have the Host of the request, which a client or proxy sets
        telemetry=_NO_TELEMETRY,
        lifespan=lifespan,
    )
    for routes in (documented_prediction, model_routes, health_routes, metrics_routes):
        app.include_router(routes(service))

    @app.get("/openapi.json", include_in_schema=False)
    async def document() -> Response:
        return Response(as_json(openapi(app, service.settings.root_path)), media_type=JSON)

    add_page(app)
    _add_error_handlers(app)
    return app


class _Application(FastAPI):
    """FastAPI behind `_Instrumentation`, which is outermost."""

    def __init__(self, service: Backend, **settings: Any) -> None:
        self._service = service
        super().__init__(**settings)

    def build_middleware_stack(self) -> ASGIApp:
        return _Instrumentation(super().build_middleware_stack(), self._service)


def openapi(app: FastAPI, root_path: str = "") -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with the request bodies and problem documents added."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
        if root_path:
            document["servers"] = [{"url": root_path}]
        components = document["components"]
        for schema in (PredictBody, ProblemDocument):
            components["schemas"] |= _schemas(schema)
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["schemas"] = dict(sorted(components["schemas"].items()))
        app.openapi_schema = document
    return app.openapi_schema


def _schemas(model: type[BaseModel]) -> dict[str, Any]:
    """JSON schemas of a model and of the models it refers to, by name."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), model.__name__: schema}


def _bug(root_path: str) -> Response:
    return Problem("bug", "The request failed because of a bug in the service.").response(root_path)


def _gone() -> Response:
    return Response(status_code=_CLIENT_CLOSED)


def _add_error_handlers(app: FastAPI) -> None:
    def handled(kind: type[Exception]) -> Callable[[Callable[..., Awaitable[Response]]], None]:
        return lambda handler: app.add_exception_handler(kind, handler)

    @handled(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return error.response(request.scope["root_path"])

    @handled(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return _bug(request.scope["root_path"])

    @handled(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        detail = f"There is no operation {request.method} {request.url.path}."
        return plain_problem(error.status_code, detail, error.headers)

    @handled(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return _gone()


def _without_framework(handle: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """An application of one operation, with the error handlers of `_add_error_handlers`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await handle(request)
        except Problem as error:
            response = error.response(scope["root_path"])
        except ClientDisconnect:
            response = _gone()
        await response(scope, receive, send)

    return app


def _route_scope(scope: Scope, prefix: str) -> tuple[Scope, str]:
    """The scope that routes are matched with, and its path without the prefix; a HEAD request is matched as GET.

    Proxies that strip the path prefix and those that keep it are both supported.
    """
    path = scope["path"]
    inside = path == prefix or path.startswith(f"{prefix}/")
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    changed = {**scope, "method": method, "root_path": prefix, "path": path if inside else prefix + path}
    return changed, changed["path"].removeprefix(prefix) or "/"


class _Instrumentation:
    """Outermost middleware: measures every request, and closes connections once the service is shutting down.

    Handles `POST /predict` itself, as the layers of FastAPI take as long as decoding a small image.
    """

    def __init__(self, app: ASGIApp, service: Backend) -> None:
        self._app, self._service = app, service
        self._predict = _without_framework(prediction(service))
        self._metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        routed, path = _route_scope(scope, self._service.settings.root_path)
        path = path if path in _PATHS else "other"
        head = scope["method"] == "HEAD"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        response_started = False

        async def send_counted(message: Message) -> None:
            nonlocal response_started
            if message["type"] == "http.response.start":
                response_started = True
                if not self._service.ready:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
                self._metrics.count_request(method, path, message["status"], perf_counter() - started)
            elif head:
                message = {**message, "body": b""}
            await send(message)

        app = self._predict if path == "/predict" and method == "POST" else self._app
        try:
            await app(routed, receive, send_counted)
        except Exception:
            if not response_started:  # otherwise `_add_error_handlers` answered
                await _bug(routed["root_path"])(scope, receive, send_counted)
            raise  # for the log
