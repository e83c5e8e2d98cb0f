"""Folders of small images, and a separate cache for each test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image


def write_tree(root: Path, counts: Mapping[str, int], side: int = 10) -> Path:
    """`{"train/cat": 3}` creates three images of noise in that folder; all images differ."""
    random = np.random.default_rng(0)
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """`make.tree(root, counts)` writes a folder of images."""
    return SimpleNamespace(tree=write_tree)


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own cache, and no data root from the environment unless it reads real data."""
    monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache of the test"))
    if request.node.get_closest_marker("realdata") is None:
        monkeypatch.delenv("THIRTYTWO_DATA", raising=False)
