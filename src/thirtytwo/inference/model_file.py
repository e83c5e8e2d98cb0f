"""model.onnx: the one file that is the model, and what it says about itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thirtytwo.errors import ModelFileError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY = "thirtytwo"
INPUT = "images"
REQUIRED_OUTPUTS = ("probabilities", "logits")
KNOWN_SCORE = "known_score"
_TRAIN_ONE = "Give a model.onnx written by thirtytwo train, or its run directory."


class ModelInfo(BaseModel):
    """What a model file says about itself, as JSON under the metadata key `thirtytwo`."""

    model_config = ConfigDict(frozen=True)

    classes: tuple[str, ...] = Field(min_length=1)
    """Class names in the order of the outputs."""
    input_size: int = Field(ge=1)
    """Side of the square the network sees, in pixels."""
    resize: Literal["crop", "pad", "squash"]
    """How other shapes become that square."""
    mean: tuple[float, float, float]
    """Channel means the graph subtracts, RGB, for pixels between 0 and 1."""
    std: tuple[float, float, float]
    """Channel deviations the graph divides by, RGB, for pixels between 0 and 1."""
    temperature: float = Field(gt=0)
    """By which logits are divided before softmax, inside the graph."""
    curvature: float = Field(0.0, ge=0)
    """How much of its squared log probability the graph took off each logit before (`evaluation.calibration`)."""
    unknown_score: Literal["class_mean", "network", "max_logit"] = "max_logit"
    """How alike a picture is to those of training: `class_mean` is the output `known_score`, the cosine between its
    features and the nearest class mean; `network` what the network itself gives as that output; `max_logit` its largest
    logit."""
    unknown_threshold: float | None
    """A picture whose score is below this is called unknown; None: never."""
    architecture: str
    """Name of the network."""
    dataset: str
    """What it was trained on."""
    accuracy: float | None
    """Single-view accuracy on the data set's test split, 0 to 1."""
    version: str
    """thirtytwo's version at export."""


def open_session(path: Path | str, *, threads: int | None = None) -> tuple[InferenceSession, ModelInfo]:
    """An ONNX Runtime session on the CPU, checked to be one of our models, and what the file says about itself.

    `threads` are those of one run on the CPU; None: all this process may use, at most 16.

    Raises:
        ModelFileError: missing, damaged, not ONNX, or not one of ours.
    """
    session = _session(Path(path), threads or cpu_count(), optimise=True)
    return session, _checked_info(session, Path(path))


def read_info(path: Path | str) -> ModelInfo:
    """What the model file says about itself; raises as `open_session` does."""
    return _checked_info(_session(Path(path), 1, optimise=False), Path(path))


def cpu_count(most: int = 16) -> int:
    """Cores this process may use, at most `most`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(most, available))


def _session(path: Path, threads: int, *, optimise: bool) -> InferenceSession:
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder, not a model file.", _TRAIN_ONE)
    if not path.is_file():
        raise ModelFileError(f"There is no model file {str(path)!r}.", _TRAIN_ONE)
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # what goes wrong comes as an exception, and is told once
    onnxruntime.disable_telemetry_events()  # where a program imported it before thirtytwo
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # An explicit number keeps ONNX Runtime from pinning its threads to cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait for work by spinning take the cores from those that decode pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        size = path.stat().st_size
        found = "it is empty" if size == 0 else f"ONNX Runtime says: {_first_line(error)}"
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({size:,} bytes; {found}).",
            "The file is damaged or something else; copy or train it again.",
        ) from None


def _checked_info(session: InferenceSession, path: Path) -> ModelInfo:
    metadata = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path} is an ONNX model, but not one of thirtytwo's: its metadata has no key {METADATA_KEY!r}.",
            _TRAIN_ONE,
        )
    try:
        info = ModelInfo.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the JSON'}: {problem['msg']}" for problem in error.errors()
        )
        raise ModelFileError(
            f"{path}: its metadata {METADATA_KEY!r} does not fit this version of thirtytwo ({problems}).",
            "Export the model again with this version.",
        ) from None
    problem = _graph_problem(session, info)
    if problem:
        raise ModelFileError(f"{path} is not a model thirtytwo can run: {problem}.", _TRAIN_ONE)
    return info


def _graph_problem(session: InferenceSession, info: ModelInfo) -> str | None:
    """How inputs and outputs differ from the contract; None: they do not."""
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


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
