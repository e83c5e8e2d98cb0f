"""Measure the inference time of model files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thirtytwo.inference.session import INPUT, MOST_THREADS, open_session
from thirtytwo.machine import cpu_count, cpu_name

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 32
ROUNDS = 30
_MIN_ROUNDS = 3
_MAX_SECONDS = 20.0


@dataclass(frozen=True)
class Timing:
    """Inference time of a `model.onnx` in milliseconds per image, without decoding and resizing.

    `alone` is for single images, `batched` for batches of `BATCH`; each is the median of `rounds` calls.
    """

    alone: float
    batched: float
    rounds: int


def time_models(paths: Sequence[Path], rounds: int = ROUNDS) -> list[Timing]:
    """Measure model files in turns, so that other load on the machine affects all of them equally.

    Args:
        paths: model files.
        rounds: calls per model; fewer where they would take long.

    Raises:
        ModelFileError: a file is missing, damaged or not a thirtytwo model.
    """
    models = [open_session(path) for path in paths]
    random = np.random.default_rng(0)
    images = [
        random.integers(0, 256, (BATCH, info.input_size, info.input_size, 3), dtype=np.uint8) for _, info in models
    ]
    calls: list[list[tuple[float, float]]] = [[] for _ in models]
    for session, batch in zip((session for session, _ in models), images, strict=True):
        _milliseconds(session, batch)  # warm-up: the first call allocates memory
    started, done = time.perf_counter(), 0
    while done < rounds and (done < _MIN_ROUNDS or time.perf_counter() - started < _MAX_SECONDS):
        for durations, (session, _), batch in zip(calls, models, images, strict=True):
            durations.append((_milliseconds(session, batch[:1]), _milliseconds(session, batch)))
        done += 1
    return [
        Timing(median(one for one, _ in durations), median(many for _, many in durations), done) for durations in calls
    ]


def where_timed() -> str:
    """Describe the machine: processor, threads and runtime."""
    threads = cpu_count(MOST_THREADS)
    return f"{cpu_name()}, {threads} {'thread' if threads == 1 else 'threads'}, ONNX Runtime"


def _milliseconds(session: InferenceSession, batch: npt.NDArray[np.uint8]) -> float:
    """Milliseconds per image of one call."""
    started = time.perf_counter()
    session.run(["probabilities"], {INPUT: batch})
    return 1000.0 * (time.perf_counter() - started) / len(batch)
