"""What the service answers when it does not answer: problem documents (RFC 9457) that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str, str]] = {
    "malformed": (400, "The request is malformed", "The body is not what its Content-Type says."),
    "no-key": (401, "An API key is needed", "Send it as Authorization: Bearer KEY."),
    "unknown-model": (404, "There is no such model", "GET /models lists those there are."),
    "too-slow": (408, "The upload took too long", "Send fewer files at a time."),
    "too-large": (413, "The request is too large", "A file, the number of files or the body is over its limit."),
    "unsupported-type": (415, "The body's type is not supported", "Send multipart/form-data or application/json."),
    "invalid": (422, "A parameter or the body is invalid", "The OpenAPI document says what is expected."),
    "no-picture": (422, "There is no image in the request", "Send at least one file."),
    "unreadable": (422, "No image could be read", "Every file is listed with what is wrong with it."),
    "no-heatmaps": (422, "The model gives no heatmaps", "Ask without heatmap, or another model."),
    "busy": (503, "Too much is waiting", "Come again after the seconds in Retry-After."),
    "timed-out": (503, "The answer took too long", "Come again after the seconds in Retry-After."),
    "not-ready": (503, "The service is about to stop", "Ask another instance."),
    "bug": (500, "Something went wrong in the service", "This is a bug; its log says more."),
}
"""Status, title and what to do of each kind of problem."""


class Problem(Exception):
    """A request that is refused; answered with the status of its kind.

    Args:
        kind: one of `KINDS`.
        detail: what was found and expected in this request.
        file: the file at fault, as the client called it.
        headers: further headers of the answer.
        more: further members of the document.
    """

    def __init__(
        self, kind: str, detail: str, *, file: str | None = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        self.kind = kind
        self.status, self.title, _ = KINDS[kind]
        self.headers = dict(headers or {})
        self.document = {"type": f"/docs#{kind}", "title": self.title, "status": self.status, "detail": detail}
        if file is not None:
            self.document["file"] = file
        self.document |= more
        super().__init__(detail)

    def response(self) -> Response:
        return _response(self.document, self.status, self.headers)


def plain_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The document of a status that says everything by itself, such as 404 or 405."""
    title = HTTPStatus(status).phrase
    return _response({"type": "about:blank", "title": title, "status": status, "detail": detail}, status, headers or {})


def as_json(value: Any) -> bytes:
    """JSON in ASCII, so that whatever a file was called can be written."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _response(document: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response(as_json(document), status, dict(headers), MEDIA_TYPE)
