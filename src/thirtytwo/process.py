"""Temporary changes to process-wide state, restored when the context ends.

A change within another of the same thread ends with the value that it found. Changes by several threads are
reference-counted: the first saves the original value and the last restores it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from thirtytwo.errors import require

_lock = threading.RLock()
_held: dict[Hashable, tuple[int, Any]] = {}
_of_thread = threading.local()
_owned = False


@contextmanager
def changed(key: Hashable, read: Callable[[], Any], write: Callable[[Any], object], *value: Any) -> Iterator[None]:
    """Save the value that `read` returns, write `value` if one is given, and restore the saved value at the end."""
    depths: dict[Hashable, int] = _of_thread.__dict__.setdefault("depths", {})
    with _lock:
        found = read()
        count, original = _held.get(key, (0, found))
        _held[key] = (count + 1, original)
        depths[key] = depths.get(key, 0) + 1
        if value:
            write(*value)
    try:
        yield
    finally:
        with _lock:
            count, original = _held.pop(key)
            depth = depths.pop(key)
            if count > 1:
                _held[key] = (count - 1, original)
            if depth > 1:
                depths[key] = depth - 1
                write(found)
            elif count == 1:
                write(original)


@contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Suppress messages below `level` of these loggers and their children."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            key = ("logger", logger.name)
            stack.enter_context(changed(key, partial(getattr, logger, "level"), logger.setLevel, level))
        yield


@contextmanager
def hub_offline() -> Iterator[None]:
    """Put the Hugging Face libraries into offline mode, in which they use only their cache."""
    constants = require("huggingface_hub.constants", "train")
    with ExitStack() as stack:
        for module in (constants, sys.modules.get("datasets.config")):  # the second copies the first on import
            if module is not None:
                stack.enter_context(library_attribute(module, "HF_HUB_OFFLINE", True))
        yield


_REACH_SECONDS = 5.0


def hub_is_reachable() -> bool:
    """Whether the Hugging Face hub responds within seconds; False with HF_HUB_OFFLINE or HF_DATASETS_OFFLINE.

    Its client itself would retry for half a minute, and log every try.
    """
    utils: Any = require("huggingface_hub.utils", "train")
    constants: Any = require("huggingface_hub.constants", "train")
    if constants.HF_HUB_OFFLINE or getattr(sys.modules.get("datasets.config"), "HF_HUB_OFFLINE", False):
        return False
    try:
        utils.get_session().head(constants.ENDPOINT, timeout=_REACH_SECONDS)
    except Exception:  # any network error means that the hub cannot be reached
        return False
    return True


def hub_connection_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What the hub's client raises where a connection is lost, and `more`; its transport errors are no `OSError`."""
    errors: Any = require("huggingface_hub.errors", "hub")
    return (errors.HTTPError, OSError, *more)


@contextmanager
def library_attribute(module: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute of a library's module temporarily."""
    with changed((id(module), name), partial(getattr, module, name), partial(setattr, module, name), value):
        yield


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable temporarily; None: unset it. Restored at the end, whatever the block sets."""

    def write(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    with changed(("environment", name), partial(os.environ.get, name), write, value):
        yield


@contextmanager
def some_home() -> Iterator[None]:
    """Set HOME to a temporary directory where there is none, as in many containers; some libraries fail without."""
    try:
        Path.home()
    except RuntimeError:
        with tempfile.TemporaryDirectory(prefix="thirtytwo-home-") as place, environment("HOME", place):
            yield
        return
    yield


@contextmanager
def own_process() -> Iterator[None]:
    """Mark the process as exclusive to thirtytwo, as under the command line: irreversible settings may be changed."""
    global _owned
    before, _owned = _owned, True
    try:
        yield
    finally:
        _owned = before


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that a stopped command cleans up, says so and can be resumed.

    Without effect outside the main thread, where signals cannot be handled.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_own_process() -> bool:
    """Whether the process is exclusive to thirtytwo."""
    return _owned
