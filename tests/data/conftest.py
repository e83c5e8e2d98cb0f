"""Small data sets on disk, and a separate cache for each test."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def pixels(seed: int, side: int = 10) -> np.ndarray:
    """One image of noise, uint8 `(side, side, 3)`."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def png(seed: int, side: int = 10) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, side)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tree(root: Path, counts: Mapping[str, int], side: int = 10) -> Path:
    """`{"train/cat": 3}` creates three images in that folder; all images differ."""
    seed = 0
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number}.png").write_bytes(png(seed, side))
            seed += 1
    return root


def write_parquet(
    file: Path,
    labels: Sequence[Any],
    *,
    names: Sequence[str] | None = None,
    image: str = "img",
    label: str = "label",
    first: int = 0,
    more: Mapping[str, Any] | None = None,
    images: Sequence[Any] | None = None,
) -> Path:
    """A parquet file in the hub's layout; `names` adds class names to its metadata."""
    cells = images or [{"bytes": png(first + number), "path": None} for number in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if isinstance(cells[0], dict) else pa.binary()
    columns = {image: pa.array(cells, kind), label: pa.array(labels), **(more or {})}
    table = pa.table(columns)
    if names is not None:
        features = {image: {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file)
    return file


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(pixels=pixels, png=png, tree=write_tree, parquet=write_parquet)


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own cache, except for real data, and no data root from the environment."""
    if request.node.get_closest_marker("realdata") is None:
        monkeypatch.setenv("THIRTYTWO_CACHE", str(tmp_path / "cache of the test"))
    monkeypatch.delenv("THIRTYTWO_DATA", raising=False)
