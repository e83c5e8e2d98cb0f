"""State that the whole process shares: changed for a while, and put back however that while ends.

Every change is counted: where two threads want the same, the first one remembers what was there and the last one puts
it back.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from thirtytwo.errors import require

_lock = threading.RLock()
_held: dict[Hashable, tuple[int, Any]] = {}
_owned = False


@contextmanager
def changed(key: Hashable, read: Callable[[], Any], write: Callable[[Any], object], *value: Any) -> Iterator[None]:
    """What `read` gives is written back at the end; `value`, where one is given, is written until then."""
    with _lock:
        count, before = _held[key] if key in _held else (0, read())
        _held[key] = (count + 1, before)
        if value:
            write(*value)
    try:
        yield
    finally:
        with _lock:
            count, before = _held.pop(key)
            if count > 1:
                _held[key] = (count - 1, before)
            else:
                write(before)


@contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Without what these loggers, and those below them, say under `level`."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            key = ("logger", logger.name)
            stack.enter_context(changed(key, partial(getattr, logger, "level"), logger.setLevel, level))
        yield


@contextmanager
def hub_offline() -> Iterator[None]:
    """Without a question to the network by the Hugging Face libraries, which look into their cache alone meanwhile."""
    constants = require("huggingface_hub.constants", "train")
    with ExitStack() as stack:
        for module in (constants, sys.modules.get("datasets.config")):  # one has what the other said when it was loaded
            if module is not None:
                stack.enter_context(library_attribute(module, "HF_HUB_OFFLINE", True))
        yield


@contextmanager
def library_attribute(module: object, name: str, value: object) -> Iterator[None]:
    """An attribute of a library's module with another value."""
    with changed((id(module), name), partial(getattr, module, name), partial(setattr, module, name), value):
        yield


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """An environment variable with another value."""

    def write(value: str | None) -> None:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

    with changed(("environment", name), partial(os.environ.get, name), write, value):
        yield


@contextmanager
def owned() -> Iterator[None]:
    """This process is ours alone, as the command line's is: what cannot be put back may be changed in it."""
    global _owned
    before, _owned = _owned, True
    try:
        yield
    finally:
        _owned = before


def is_owned() -> bool:
    """Whether the process is ours alone."""
    return _owned
