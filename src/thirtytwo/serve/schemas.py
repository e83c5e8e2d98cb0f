"""Request and response schemas for the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
MAX_CLASSES = 1000

KINDS: dict[str, tuple[int, str, str]] = {
    "malformed": (400, "The request is malformed", "The body does not match its Content-Type."),
    "no-key": (401, "An API key is required", "Send it in the header Authorization: Bearer KEY."),
    "unknown-model": (404, "There is no such model", "GET /models lists the models."),
    "too-slow": (408, "The upload took too long", "Send fewer files at a time."),
    "too-large": (413, "The request is too large", "A file, the number of files or the body exceeds its limit."),
    "unsupported-type": (
        415,
        "The body's type is not supported",
        "Send multipart/form-data, application/json or an image.",
    ),
    "invalid": (422, "A parameter or the body is invalid", "See the OpenAPI document for the expected values."),
    "no-image": (422, "The request contains no image", "Send at least one file."),
    "unreadable": (422, "No image could be read", "The errors of all files are listed."),
    "no-heatmaps": (422, "The model has no heatmaps", "Leave out heatmap, or use another model."),
    "busy": (503, "The service is overloaded", "Retry after the number of seconds in Retry-After."),
    "timed-out": (503, "The prediction took too long", "Retry after the number of seconds in Retry-After."),
    "not-ready": (503, "The service is shutting down", "Send the request to another instance."),
    "broken-model": (500, "The model cannot predict", "Use another model; the service's log names the file."),
    "bug": (500, "Internal error", "This is a bug; see the service's log."),
}
"""Status, title and fix for each kind of problem."""


def problems_table() -> str:
    """The kinds of problems as a Markdown table."""
    rows = [f"| {status} | `{kind}` | {title}. {fix} |" for kind, (status, title, fix) in KINDS.items()]
    return "\n".join(["| status | `type` ends with | meaning |", "| --- | --- | --- |", *rows]) + "\n"


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

    def response(self, root_path: str = "") -> Response:
        """The problem document; `root_path` is the path prefix of the service."""
        return _response(self.document | {"type": f"{root_path}{self.document['type']}"}, self.status, self.headers)


def plain_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """A problem response for a status without a kind of its own, such as 404 or 405."""
    title = HTTPStatus(status).phrase
    return _response({"type": "about:blank", "title": title, "status": status, "detail": detail}, status, headers or {})


_JSON = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def as_json(value: Any) -> bytes:
    """JSON in ASCII, which can represent any file name."""
    return _JSON.encode(value).encode("ascii")


def _response(document: dict[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response(as_json(document), status, dict(headers), MEDIA_TYPE)


class PredictParameters(BaseModel):
    """Parameters of the address of `POST /predict`."""

    top: Annotated[int, Field(ge=1, le=MAX_CLASSES, description="Number of classes to return, at most all.")] = 5
    model: Annotated[str | None, Field(description="Model to use; without it, the default.")] = None
    heatmap: Annotated[bool, Field(description="Also return heatmaps.")] = False


class EncodedFile(BaseModel):
    """A file in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(description="File name, repeated in the response.")] = ""
    data: Annotated[
        bytes,  # not str, which takes up to four bytes per character
        Field(
            description="Content of the file in base64 (RFC 4648, with padding), also as a data URI or in lines.",
            json_schema_extra={"format": "byte", "contentEncoding": "base64"},
        ),
    ]


class PredictBody(BaseModel):
    """Images in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    files: Annotated[list[EncodedFile], Field(min_length=1)]


class Label(BaseModel):
    """A class and its calibrated probability."""

    name: Annotated[str, Field(alias="class")]
    confidence: Annotated[float, Field(ge=0, le=1)]


class Heatmap(BaseModel):
    """Heatmap of the evidence for the top class."""

    values: Annotated[list[list[float]], Field(description="Rows of the heatmap, 0 to 1, over the model's input.")]
    overlay: Annotated[str, Field(description="PNG of the heatmap over the model's input, in base64.")]


class Classified(BaseModel):
    """Prediction for one image."""

    file: Annotated[str, Field(description="File name sent by the client.")]
    width: Annotated[int, Field(description="In pixels, after EXIF rotation.")]
    height: int
    top: Annotated[str, Field(description="The most probable class.")]
    confidence: Annotated[float, Field(ge=0, le=1, description="Calibrated probability of that class.")]
    known: Annotated[bool, Field(description="False if the image is unknown (out of distribution).")]
    predictions: Annotated[list[Label], Field(description="The most probable classes, most probable first.")]
    heatmap: Annotated[Heatmap | None, Field(description="Only if requested.")] = None


class UnreadableFile(BaseModel):
    """A file that could not be read."""

    file: str
    error: Annotated[str, Field(description="Why it could not be read.")]


class Model(BaseModel):
    """A model that is served."""

    name: Annotated[str, Field(description="Value for the parameter `model`.")]
    default: Annotated[bool, Field(description="Whether it is used if a request names no model.")]
    dataset: Annotated[str, Field(description="Training data set.")]
    architecture: str
    accuracy: Annotated[float | None, Field(description="Accuracy on the test split of its data set, 0 to 1.")]
    classes: list[str]
    input_size: Annotated[int, Field(description="Side of the square model input, in pixels.")]
    resize: Annotated[str, Field(description="How images are made square: crop, pad or squash.")]
    heatmaps: Annotated[bool, Field(description="Whether it supports heatmaps.")]
    version: Annotated[str, Field(description="Version of thirtytwo that wrote it.")]


class Health(BaseModel):
    """State of the service."""

    status: str


class ErrorDetail(BaseModel):
    """One of several errors in a request."""

    file: str | None = None
    where: Annotated[str | None, Field(description="Parameter, or path in the JSON body.")] = None
    error: str


class ProblemDocument(BaseModel):
    """Error response (RFC 9457)."""

    type: Annotated[str, Field(description="Kind of problem, as a link to its explanation.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="Found and expected values in this request.")]
    file: Annotated[str | None, Field(description="File that caused the problem.")] = None
    errors: Annotated[list[ErrorDetail] | None, Field(description="All errors, if there are several.")] = None
