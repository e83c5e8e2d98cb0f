"""Read model files: open `model.onnx` in ONNX Runtime and validate its metadata."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thirtytwo.errors import ModelFileError
from thirtytwo.images.pixels import ResizeRule
from thirtytwo.inference.integrity import check_integrity
from thirtytwo.inference.views import TtaInfo
from thirtytwo.io import METADATA_KEY, is_directory, is_file
from thirtytwo.machine import cpu_count
from thirtytwo.text import escape_bytes, first_line, plain_reason

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT = "images"
MOST_THREADS = 16
"""Default maximum number of CPU threads of one run."""
REQUIRED_OUTPUTS = ("probabilities", "logits")
KNOWN_SCORE = "known_score"
_COPY = "Copy it again, or export it again."
_USE_TRAINED = "Give a model.onnx written by thirtytwo train, or its run directory."


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


def open_session(path: Path | str, *, threads: int | None = None) -> tuple[InferenceSession, ModelInfo]:
    """Open a model file in ONNX Runtime on the CPU; return the session and the file's metadata.

    Args:
        path: a `model.onnx`.
        threads: CPU threads of one run; by default all cores this process may use, at most 16.

    Raises:
        ModelFileError: the file is missing, damaged, not ONNX or not a thirtytwo model.
    """
    session = _session(Path(path), threads or cpu_count(MOST_THREADS), optimize=True)
    return session, _checked_info(session, Path(path))


def read_info(path: Path | str) -> ModelInfo:
    """Read the metadata of a model file; raises the errors of `open_session`."""
    return _checked_info(_session(Path(path), 1, optimize=False), Path(path))


def _session(path: Path, threads: int, *, optimize: bool) -> InferenceSession:
    if is_directory(path):
        raise ModelFileError(f"{path} is a folder, not a model file.", _USE_TRAINED)
    if not is_file(path):
        raise ModelFileError(f"There is no model file {str(path)!r}.", _USE_TRAINED)
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)  # errors arrive as exceptions and are reported once
    onnxruntime.disable_telemetry_events()  # in case a program imported it before thirtytwo
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # An explicit number keeps ONNX Runtime from pinning its threads to cores.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take CPU time from the threads that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _share_memory():
        options.add_session_config_entry("session.use_env_allocators", "1")
    # Plans would reserve a second block of memory for every batch size, beside the one that its first run took.
    options.enable_mem_pattern = False
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # its fallback would try the same again, and print
        return onnxruntime.InferenceSession(
            _readable(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime's exceptions share no base class of their own
        size = path.stat().st_size
        found = "it is empty" if size == 0 else f"ONNX Runtime reports: {first_line(error)}"
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({size:,} bytes; {found}).",
            "The file is damaged or has another format; copy it again or train again.",
        ) from None


@cache
def _share_memory() -> bool:
    """Let the sessions of this process share memory for intermediate results; otherwise each keeps what it ever used.

    Returns whether they can; not if the program registered memory of its own with ONNX Runtime before.
    """
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    try:
        onnxruntime.create_and_register_allocator(memory, onnxruntime.OrtArenaCfg(0, -1, -1, -1))
    except Exception:  # ONNX Runtime's exceptions share no base class of their own
        return False
    return True


def _readable(path: Path) -> str | bytes:
    """What ONNX Runtime opens: the path, or the content of a file whose path is not UTF-8."""
    text = os.fspath(path)
    return text if escape_bytes(text) == text else path.read_bytes()


def _checked_info(session: InferenceSession, path: Path) -> ModelInfo:
    check_integrity(path)
    try:
        metadata = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ModelFileError(f"{path} is damaged: its metadata is not text ({error.reason}).", _COPY) from None
    if METADATA_KEY not in metadata:
        raise ModelFileError(
            f"{path} is an ONNX model, but not a thirtytwo model: its metadata has no key {METADATA_KEY!r}.",
            _USE_TRAINED,
        )
    try:
        info = ModelInfo.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the JSON'}: {plain_reason(problem['msg'])}"
            for problem in error.errors()
        )
        raise ModelFileError(
            f"{path}: its metadata {METADATA_KEY!r} does not fit this version of thirtytwo ({problems}).",
            "Export the model again with this version.",
        ) from None
    problem = _graph_problem(session, info)
    if problem:
        raise ModelFileError(f"{path} is not a model that thirtytwo can run: {problem}.", _USE_TRAINED)
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
