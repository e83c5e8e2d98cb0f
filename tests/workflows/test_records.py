from __future__ import annotations

from pathlib import Path

import pytest

from thirtytwo.workflows.records import default_path


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("cifar10", "cifar10-fast-seed0"),
        ("../cats", "cats-fast-seed0"),
        ("cats/", "cats-fast-seed0"),
        (".", "cats-fast-seed0"),
        ("./", "cats-fast-seed0"),
        ("..", "zoo-fast-seed0"),
        ("hf:owner/flowers", "flowers-fast-seed0"),
    ],
)
def test_unnamed_runs_are_named_after_their_data(
    data: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "zoo" / "cats").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "zoo" / "cats")
    assert default_path(data, "fast", 0) == Path("runs") / name
