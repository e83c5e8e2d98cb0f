"""Open model files in ONNX Runtime.

The metadata's module is imported while the model is opened, as it needs pydantic, which takes long to import. The
command line, whose parser needs pydantic too, has the model opened ahead.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo.errors import ModelFileError
from thirtytwo.inference.integrity import find_damage
from thirtytwo.io import is_directory, is_file
from thirtytwo.machine import cpu_count
from thirtytwo.text import escape_bytes, first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from thirtytwo.inference.model_file import ModelInfo

INPUT = "images"
MOST_THREADS = 16
"""Default maximum number of CPU threads of one run."""
BATCHES = 2
"""Batches of a model that run at a time where there are many images, each on its share of the threads and of a batch:
threads of one batch wait for each other at every layer, and smaller batches stay in a processor's cache."""
MANY = 64
"""Smallest number of images that are classified in `BATCHES` batches at a time."""
REQUIRED_OUTPUTS = ("probabilities", "logits")
KNOWN_SCORE = "known_score"
USE_TRAINED = "Give a model.onnx written by thirtytwo train, or its run directory."
_ahead: dict[tuple[Path, int], Future[InferenceSession]] = {}
"""Sessions that `open_ahead` creates, by the path of the model and the number of threads."""


def open_ahead(path: Path) -> None:
    """Start to create, in a thread, the session that `open_session` returns for this path and the default threads."""
    import onnxruntime  # noqa: F401, in this thread: it would take longer in another while this one imports as well

    threads = cpu_count(MOST_THREADS)
    _ahead.clear()
    pool = ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-open")
    _ahead[path, threads] = pool.submit(create_session, path, threads, optimize=True)
    pool.shutdown(wait=False)


def open_session(path: Path | str, *, threads: int | None = None) -> tuple[InferenceSession, ModelInfo]:
    """Open a model file in ONNX Runtime on the CPU; return the session and the file's metadata.

    Args:
        path: a `model.onnx`.
        threads: CPU threads of one run; by default all cores this process may use, at most 16.

    Raises:
        ModelFileError: the file is missing, damaged, not ONNX or not a thirtytwo model.
    """
    path, threads = Path(path), threads or cpu_count(MOST_THREADS)
    with ThreadPoolExecutor(1, thread_name_prefix="thirtytwo-open") as pool:
        opened = {key: _ahead.pop(key) for key in list(_ahead) if key[0] == path}  # any number of threads, to keep none
        creating = opened.get((path, threads))
        if creating is None:
            creating = pool.submit(create_session, path, threads, optimize=True)
        from thirtytwo.inference.model_file import checked_info

        damage = find_damage(path)
        session = creating.result()
    if damage is not None:
        raise damage
    return session, checked_info(session, path)


def create_session(path: Path, threads: int, *, optimize: bool) -> InferenceSession:
    """A session of ONNX Runtime on the CPU; without `optimize` it is for reading metadata only.

    Raises:
        ModelFileError: the file is missing, damaged or not ONNX.
    """
    if is_directory(path):
        raise ModelFileError(f"{path} is a folder, not a model file.", USE_TRAINED)
    if not is_file(path):
        raise ModelFileError(f"There is no model file {str(path)!r}.", USE_TRAINED)
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
        if size == 0 or "INVALID_PROTOBUF" in str(error):
            found = "it is empty (0 bytes)" if size == 0 else f"{size:,} bytes of another format, or damaged"
            raise ModelFileError(f"{path} is not an ONNX model: {found}.", USE_TRAINED) from None
        raise ModelFileError(
            f"{path} cannot be opened as an ONNX model ({size:,} bytes; ONNX Runtime reports: {first_line(error)}).",
            "The file is damaged, or made for another version of ONNX Runtime; copy it again, or train again.",
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
