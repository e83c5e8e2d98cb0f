"""Request and response schemas for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class EncodedFile(BaseModel):
    """A file in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(description="File name, repeated in the response.")] = ""
    data: Annotated[
        bytes,  # not str, which takes up to four bytes per character
        Field(
            description="Content of the file in base64 (RFC 4648, with padding).",
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
