"""Where the cache is, in environments as containers have them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from thirtytwo.data.cache import cache_dir

HOME, TEMPORARY = "/home/someone", "/scratch"


def no_entry(uid: int) -> object:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.mark.skipif(sys.platform != "linux", reason="the platform decides the default")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, f"{TEMPORARY}/thirtytwo-cache-{os.getuid() if hasattr(os, 'getuid') else 0}"),
        ({"XDG_CACHE_HOME": "/caches"}, "/caches/thirtytwo"),
        ({"THIRTYTWO_CACHE": "/mine"}, "/mine"),
        ({"THIRTYTWO_CACHE": "~/mine"}, f"{TEMPORARY}/thirtytwo-cache-{os.getuid() if hasattr(os, 'getuid') else 0}"),
        ({"HOME": HOME}, f"{HOME}/.cache/thirtytwo"),
        ({"HOME": HOME, "THIRTYTWO_CACHE": "~/mine"}, f"{HOME}/mine"),
        ({"HOME": "/"}, "/.cache/thirtytwo"),
    ],
)
def test_without_a_home(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "THIRTYTWO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr("tempfile.gettempdir", lambda: TEMPORARY)
    assert cache_dir() == Path(expected)
