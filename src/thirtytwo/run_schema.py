"""Schemas of the JSON files of a run: what readers rely on; further entries are allowed and may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from thirtytwo.text import plain_reason

Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    """A table that may hold more than its fields; values are not converted."""

    model_config = ConfigDict(extra="allow", strict=True)


class Data(_Entry):
    """The entry `data` of environment.json."""

    spec: str
    path: str | None = None
    name: str | None = None
    fingerprint: str
    classes: list[str]
    superclasses: dict[str, str] | None = None
    train: Count = 0
    val: Count | None = 0
    test: Count | None = 0
    skipped: list[str] | None = None
    fixes: dict[str, int] | None = None


class Seconds(_Entry):
    """Durations in seconds."""

    train: float | None = None
    total: float | None = None


class AutomaticChoice(_Entry):
    """An automatic choice with its reason."""

    what: str
    value: str
    reason: str


class Member(_Entry):
    """A member of a combined run."""

    run: str
    recipe: str | None = None
    network: str | None = None
    parameters: Count | None = None
    flops: Count | None = None
    seconds_train: float | None = None


class Hardware(_Entry):
    """The machine of a training."""

    cpu: str | None = None
    cores: Count | None = None
    memory_gb: float | None = None
    gpu: str | None = None
    system: str | None = None


class Processes(_Entry):
    """The processes of a training: all, those on each machine, and machines."""

    world_size: Count = 1
    devices: Count = 1
    nodes: Count = 1


class Environment(_Entry):
    """environment.json."""

    command: str | None = None
    started: str | None = None
    finished: str | None = None
    versions: dict[str, str] | None = None
    hardware: Hardware | None = None
    device: str | None = None
    processes: Processes | None = None
    choices: list[AutomaticChoice] | None = None
    data: Data
    seconds: Seconds | None = None
    members: list[Member] | None = None
    sessions: Count = 1
    epochs: Count | None = None
    parameters: Count | None = None
    flops: Count | None = None
    peak_memory_mb: float | None = None
    session_threads: list[Count] | None = None
    interrupted: bool = False


class Part(_Entry):
    """The images of one split."""

    hashes: list[str]
    rows: list[int]
    files: list[str] | None = None
    labels: list[Count] | None = None

    @model_validator(mode="after")
    def _check_lengths(self) -> Part:
        if len({len(column) for column in (self.hashes, self.rows, self.files, self.labels) if column is not None}) > 1:
            raise ValueError("hashes, rows, files and labels have different lengths")
        return self


class SeenBefore(_Entry):
    """Training images of the runs that a run builds on."""

    hashes: list[str]


class Split(_Entry):
    """split.json."""

    seed: int | None = None
    train_on: Literal["train", "all"] = "train"
    n_train: Count | None = None
    n_val: Count
    n_test: Count | None = None
    own_val: bool = False
    val_rows: list[int] | None = None
    test_evaluations: Count
    train: Part | None = None
    val: Part | None = None
    test: Part | None = None
    unused: list[str] | None = None
    seen_before: SeenBefore | None = None

    @model_validator(mode="after")
    def _check_parts(self) -> Split:
        if len({part is None for part in (self.train, self.val, self.test)}) > 1:
            raise ValueError("the images of one of the splits train, val and test are missing")
        return self


class Score(_Entry):
    """A metric with its 95 % interval."""

    value: float | None
    ci95: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class Accuracy(Score):
    """A metric that every evaluation has."""

    value: Annotated[float, Field(ge=0, le=1)]
    ci95: Annotated[list[float], Field(min_length=2, max_length=2)]


class ClassRow(_Entry):
    """Metrics of one class."""

    name: str = Field(alias="class")
    precision: float | None
    recall: float | None
    f1: float | None
    support: Count


class Confusion(_Entry):
    """Images of one class that are predicted as another."""

    true: str
    predicted: str
    count: Count


class Temperature(_Entry):
    """The best temperature without a curvature."""

    temperature: float


class Calibration(_Entry):
    """The entry `calibration` of metrics.json."""

    temperature_only: Temperature | None = None


class Unknown(_Entry):
    """The entry `unknown` of metrics.json."""

    validation: dict[str, Any] | None = None


class Metrics(_Entry):
    """metrics.json, and those on other data."""

    dataset: str
    split: str
    n: Count
    accuracy: Accuracy
    accuracy_tta: Score | None = None
    top5_accuracy: Score | None = None
    macro_precision: Score | None = None
    macro_recall: Score | None = None
    macro_f1: Score | None = None
    nll: Score | None = None
    brier: Score | None = None
    ece: Score | None = None
    superclass_accuracy: Score | None = None
    mistake_severity: Score | None = None
    per_class: list[ClassRow]
    confusions: list[Confusion]
    test_evaluations: Count
    calibration: Calibration | None = None
    unknown: Unknown | None = None


Table = dict[str, dict[str, Any]]
"""exports.json: a table for each exported file."""

_SCHEMAS: Mapping[str, Any] = {
    "environment.json": Environment,
    "split.json": Split,
    "metrics.json": Metrics,
    "exports.json": Table,
}


def find_problem(name: str, content: object) -> str | None:
    """The first reason why the content of a run's JSON file of this name cannot be used; None where it can.

    Of files without a schema, only that they hold a table is checked.
    """
    try:
        TypeAdapter(_SCHEMAS.get(name, dict[str, Any])).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "its top level"
        reason = plain_reason(first)
        return f"{where}: {reason[:1].lower()}{reason[1:]}"
    return None
