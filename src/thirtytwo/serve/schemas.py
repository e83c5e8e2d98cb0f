"""What goes in and comes out of the service, as the OpenAPI document tells it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class EncodedFile(BaseModel):
    """A file in a JSON body."""

    model_config = ConfigDict(extra="forbid")

    file: Annotated[str, Field(description="What the answer calls it.")] = ""
    data: Annotated[
        bytes,  # of the text: a str takes up to four bytes for each of them
        Field(
            description="The file's bytes in base64 (RFC 4648, with padding).",
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
    """Where the model looked for its top class."""

    values: Annotated[list[list[float]], Field(description="Rows of the map, 0 to 1, over what the model saw.")]
    overlay: Annotated[str, Field(description="PNG of the map over what the model saw, in base64.")]


class Classified(BaseModel):
    """What the model says of one image."""

    file: Annotated[str, Field(description="What the client called it.")]
    width: Annotated[int, Field(description="In pixels, upright.")]
    height: int
    top: Annotated[str, Field(description="The most probable class.")]
    confidence: Annotated[float, Field(ge=0, le=1, description="Its calibrated probability.")]
    known: Annotated[bool, Field(description="False: unlike anything the model was trained on.")]
    predictions: Annotated[list[Label], Field(description="The most probable classes, most probable first.")]
    heatmap: Annotated[Heatmap | None, Field(description="Only where it was asked for.")] = None


class Unread(BaseModel):
    """A file that could not be read, among others that could."""

    file: str
    error: Annotated[str, Field(description="What is wrong with it.")]


class Model(BaseModel):
    """A model that answers."""

    name: Annotated[str, Field(description="For the parameter `model`.")]
    default: Annotated[bool, Field(description="Whether it answers where none is named.")]
    dataset: Annotated[str, Field(description="What it was trained on.")]
    architecture: str
    accuracy: Annotated[float | None, Field(description="On its data set's test split, 0 to 1.")]
    classes: list[str]
    input_size: Annotated[int, Field(description="Side of the square it sees, in pixels.")]
    resize: Annotated[str, Field(description="How other shapes become that square: crop, pad or squash.")]
    heatmaps: Annotated[bool, Field(description="Whether it gives heatmaps.")]
    version: Annotated[str, Field(description="The version of thirtytwo that wrote it.")]


class Health(BaseModel):
    """That the service is there."""

    status: str


class Fault(BaseModel):
    """One of several things wrong with a request."""

    file: str | None = None
    where: Annotated[str | None, Field(description="The parameter, or the place in a JSON body.")] = None
    error: str


class ProblemDocument(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: Annotated[str, Field(description="What kind of problem; leads to its explanation.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="What was found and expected in this request.")]
    file: Annotated[str | None, Field(description="The file at fault.")] = None
    errors: Annotated[list[Fault] | None, Field(description="Everything wrong, where that is several things.")] = None
