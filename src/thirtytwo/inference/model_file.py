"""The metadata of model files: what `model.onnx` says about itself, validated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thirtytwo.errors import ModelFileError
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.inference.integrity import check_integrity
from thirtytwo.inference.session import INPUT, KNOWN_SCORE, REQUIRED_OUTPUTS, USE_TRAINED, create_session
from thirtytwo.inference.views import SMALL_SIDE
from thirtytwo.io import METADATA_KEY
from thirtytwo.text import plain_reason

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

USUAL_THRESHOLD = 0.9
"""Threshold of models that have none: a fixed value, with which benchmarks/tta.py measures the bundled models."""
_COPY = "Copy it again, or export it again."


class TtaInfo(BaseModel):
    """Test-time augmentation that suits a model."""

    model_config = ConfigDict(frozen=True)

    shift: int = Field(ge=0, le=4)
    """Shift of the shifted views in pixels; 0: the mirror image is the only further view."""
    threshold: float = Field(ge=0, le=1)
    """Images whose confidence from one view is below this get further views."""


class FewShotInfo(BaseModel):
    """How a model was taught from a few images of each class, and what to expect of it."""

    model_config = ConfigDict(frozen=True)

    base: str
    """Name of the model whose features it uses."""
    counts: tuple[int, ...]
    """Number of images of each class."""
    accuracy: float | None
    """Expected accuracy on new images from cross-validation, 0 to 1; None where a class has a single image."""
    ci95: tuple[float, float] | None
    """Its 95 % interval."""
    folds: int
    """Number of folds; 0 without an estimate."""
    date: str
    """Day on which it was taught, as in ISO 8601, in UTC."""


class ModelInfo(BaseModel):
    """Metadata of a model file, stored as JSON under the ONNX metadata key `thirtytwo`."""

    model_config = ConfigDict(frozen=True)

    classes: tuple[str, ...] = Field(min_length=1)
    """Class names in the order of the outputs."""
    input_size: int = Field(ge=1)
    """Side of the square input in pixels."""
    resize: ResizeRule
    """How images of other shapes are resized to that square."""
    mean: tuple[float, float, float]
    """Channel means (RGB) that the graph subtracts, for pixels in 0 to 1."""
    std: tuple[float, float, float]
    """Channel standard deviations (RGB) that the graph divides by, for pixels in 0 to 1."""
    temperature: float = Field(gt=0)
    """Temperature by which the graph divides logits before softmax."""
    curvature: float = Field(0.0, ge=0)
    """Factor of the squared log probability that the graph subtracts from each logit (`evaluation.calibration`)."""
    unknown_score: Literal["class_mean", "network", "max_logit"] = "max_logit"
    """Out-of-distribution score, larger for known images: `class_mean` is the output `known_score`, the cosine between
    the image's features and the nearest class mean; `network` is a `known_score` that the network computes itself;
    `max_logit` is the largest logit."""
    unknown_threshold: float | None
    """Images with a score below this are marked unknown; None: no image is."""
    architecture: str
    """Name of the network architecture."""
    dataset: str
    """Name of the training data set."""
    accuracy: float | None
    """Single-view accuracy on the test split, 0 to 1."""
    version: str
    """Version of thirtytwo that exported the file."""
    tta: TtaInfo | None = None
    """Test-time augmentation, with the threshold chosen on validation; None: the usual one for the input size."""
    few_shot: FewShotInfo | None = None
    """For linear probes: how it was taught."""


def read_info(path: Path | str) -> ModelInfo:
    """Read the metadata of a model file; raises the errors of `session.open_session`."""
    session = create_session(Path(path), 1, optimize=False)
    check_integrity(Path(path))
    return checked_info(session, Path(path))


def checked_info(session: InferenceSession, path: Path) -> ModelInfo:
    """The metadata of an opened model file.

    Raises:
        ModelFileError: it is not a thirtytwo model.
    """
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is damaged: its metadata is not text ({error.reason}).", _COPY) from None
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path} is an ONNX model, but not a thirtytwo model: its metadata has no key {METADATA_KEY!r}.",
            USE_TRAINED,
        )
    try:
        info = ModelInfo.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the JSON'}: {plain_reason(problem)}" for problem in error.errors()
        )
        raise ModelFileError(
            f"{path}: its metadata {METADATA_KEY!r} does not fit this version of thirtytwo ({problems}).",
            "Export the model again with this version.",
        ) from None
    problem = _graph_problem(session, info)
    if problem:
        raise ModelFileError(f"{path} is not a model that thirtytwo can run: {problem}.", USE_TRAINED)
    return info


def _graph_problem(session: InferenceSession, info: ModelInfo) -> str | None:
    """Describe how the graph's inputs and outputs differ from the contract; None if they match."""
    inputs = [(entry.name, entry.type, len(entry.shape)) for entry in session.get_inputs()]
    if inputs != [(INPUT, "tensor(uint8)", 4)]:
        found = ", ".join(f"{name} {kind} with {rank} dimensions" for name, kind, rank in inputs)
        return f"its input must be {INPUT} tensor(uint8) with 4 dimensions, found {found or 'none'}"
    outputs: dict[str, Any] = {entry.name: entry.shape for entry in session.get_outputs()}
    for name in (*REQUIRED_OUTPUTS, *([KNOWN_SCORE] if info.unknown_score != "max_logit" else [])):
        if name not in outputs:
            return f"it has no output {name!r}, found {', '.join(outputs)}"
        columns = outputs[name][-1] if outputs[name] and name in REQUIRED_OUTPUTS else None
        if isinstance(columns, int) and columns != len(info.classes):
            return f"output {name!r} has {columns} columns for {len(info.classes)} classes"
    return None


def usual_tta(input_size: int) -> TtaInfo:
    """The test-time augmentation of a model that names none, by the side of its input in pixels."""
    return TtaInfo(shift=1 if input_size <= SMALL_SIDE else 0, threshold=USUAL_THRESHOLD)
