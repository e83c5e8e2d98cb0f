from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from thirtytwo.data.load import survey
from thirtytwo.data.survey import Survey
from thirtytwo.errors import DataError


def test_survey_of_folders_and_tables(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"train/a": 3, "train/b": 4, "test/a": 2, "test/b": 2}, side=70)
    assert survey(str(root)) == Survey(70, 11, 2)
    make.parquet(tmp_path / "p" / "data" / "train-00000-of-00001.parquet", [0, 1, 0, 1])
    assert survey(str(tmp_path / "p")) == Survey(10, 4, 2)
    assert survey("digits").side == 8


def test_survey_of_unreadable_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError):
        survey(str(tmp_path / "d"))
