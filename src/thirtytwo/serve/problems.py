"""Error responses: problem documents (RFC 9457) that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"

KINDS: dict[str, tuple[int, str, str]] = {
    "malformed": (400, "The request is malformed", "The body does not match its Content-Type."),
    "no-key": (401, "An API key is required", "Send it in the header Authorization: Bearer KEY."),
    "unknown-model": (404, "There is no such model", "GET /models lists the models."),
    "too-slow": (408, "The upload took too long", "Send fewer files at a time."),
    "too-large": (413, "The request is too large", "A file, the number of files or the body exceeds its limit."),
    "unsupported-type": (415, "The body's type is not supported", "Send multipart/form-data or application/json."),
    "invalid": (422, "A parameter or the body is invalid", "See the OpenAPI document for the expected values."),
    "no-picture": (422, "The request contains no image", "Send at least one file."),
    "unreadable": (422, "No image could be read", "The errors of all files are listed."),
    "no-heatmaps": (422, "The model has no heatmaps", "Leave out heatmap, or use another model."),
    "busy": (503, "The service is overloaded", "Retry after the number of seconds in Retry-After."),
    "timed-out": (503, "The prediction took too long", "Retry after the number of seconds in Retry-After."),
    "not-ready": (503, "The service is shutting down", "Send the request to another instance."),
    "bug": (500, "Internal error", "This is a bug; see the service's log."),
}
"""Status, title and fix for each kind of problem."""


class Problem(Exception):
    """A request that fails with a problem document and the status of its kind.

    Args:
        kind: one of `KINDS`.
        detail: the found and expected values in this request.
        file: name of the file that caused the problem, as sent by the client.
        headers: additional headers of the response.
        more: additional members of the document.
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
    """A problem response for a status without a kind of its own, such as 404 or 405."""
    title = HTTPStatus(status).phrase
    return _response({"type": "about:blank", "title": title, "status": status, "detail": detail}, status, headers or {})


def as_json(value: Any) -> bytes:
    """JSON in ASCII, which can represent any file name."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _response(document: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response(as_json(document), status, dict(headers), MEDIA_TYPE)
