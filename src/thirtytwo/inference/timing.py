"""How long model files take for a picture, here and now."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from thirtytwo.inference.model_file import INPUT, cpu_count, open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 32
ROUNDS = 30
_LEAST_ROUNDS = 3
_SECONDS = 20.0


@dataclass(frozen=True)
class Timing:
    """Milliseconds a picture through a `model.onnx`, decoding and resizing left out.

    `alone` for a picture by itself, `batched` in batches of `BATCH`; medians of `rounds` calls each.
    """

    alone: float
    batched: float
    rounds: int


def time_models(paths: Sequence[Path], rounds: int = ROUNDS) -> list[Timing]:
    """Measure model files in turns, so that whatever else the machine does falls on all of them alike.

    Raises:
        ModelFileError: missing, damaged, or not one of ours.
    """
    opened = [open_session(path) for path in paths]
    random = np.random.default_rng(0)
    pictures = [
        random.integers(0, 256, (BATCH, info.input_size, info.input_size, 3), dtype=np.uint8) for _, info in opened
    ]
    calls: list[list[tuple[float, float]]] = [[] for _ in opened]
    for session, batch in zip((session for session, _ in opened), pictures, strict=True):
        _milliseconds(session, batch)  # the first call prepares memory
    started, done = time.perf_counter(), 0
    while done < rounds and (done < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS):
        for taken, (session, _), batch in zip(calls, opened, pictures, strict=True):
            taken.append((_milliseconds(session, batch[:1]), _milliseconds(session, batch)))
        done += 1
    return [Timing(median(one for one, _ in taken), median(many for _, many in taken), done) for taken in calls]


def where_timed() -> str:
    """The machine that `time_models` runs on, in words."""
    threads = cpu_count()
    return f"{_processor()}, {threads} {'thread' if threads == 1 else 'threads'}, ONNX Runtime"


def _milliseconds(session: InferenceSession, batch: npt.NDArray[np.uint8]) -> float:
    """Milliseconds a picture of one call."""
    started = time.perf_counter()
    session.run(["probabilities"], {INPUT: batch})
    return 1000.0 * (time.perf_counter() - started) / len(batch)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
