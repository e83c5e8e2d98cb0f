"""Larger copies of training images, decoded together with the images, and the survey of undecoded data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data import build
from thirtytwo.data.load import load_dataset, survey
from thirtytwo.data.split import concatenate, hold_out
from thirtytwo.errors import DataError
from thirtytwo.images.decode import load_image


def test_larger_copies_belong_to_their_images(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"a": 12, "b": 12}, side=40)
    data = load_dataset(str(root), image_size=16, large=20)
    assert data.train.images.shape[1:] == (16, 16, 3)
    train, val = hold_out(data.train, 0.25, 0)
    both = concatenate(train, val)
    for images in (data.train, train, both):
        assert images.large is not None
        copies = images.large.read(np.arange(len(images)))
        for position, file in enumerate(images.files or ()):
            np.testing.assert_array_equal(images.images[position], load_image(root / file, 16).pixels)
            np.testing.assert_array_equal(copies[position], load_image(root / file, 20).pixels)


def test_larger_copies_are_decoded_once(make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make.tree(tmp_path / "d", {"train/a": 3, "train/b": 3, "test/a": 2, "test/b": 2}, side=24)
    first = load_dataset(str(root), image_size=8, large=12)
    monkeypatch.setattr(build, "load_hashed", None)  # any further decoding fails
    again = load_dataset(str(root), image_size=8, large=12)
    assert isinstance(again.train.large.array if again.train.large else None, np.memmap)
    assert first.fingerprint == again.fingerprint == load_dataset(str(root), image_size=8).fingerprint
    assert again.test is not None
    assert again.test.large is None


@pytest.mark.parametrize("large", [0, 8, 16])
def test_no_copies_that_are_not_larger(large: int, make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"a": 4, "b": 4}, side=24)
    assert load_dataset(str(root), image_size=16, large=large).train.large is None


def test_survey_of_folders_and_tables(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"train/a": 3, "train/b": 4, "test/a": 2, "test/b": 2}, side=70)
    assert survey(str(root)) == build.Survey(70, 11, 2)
    make.parquet(tmp_path / "p" / "data" / "train-00000-of-00001.parquet", [0, 1, 0, 1])
    assert survey(str(tmp_path / "p")) == build.Survey(10, 4, 2)
    assert survey("digits").side == 8


def test_survey_of_unreadable_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "d" / name).mkdir(parents=True)
        (tmp_path / "d" / name / "x.jpg").write_bytes(b"no image")
    with pytest.raises(DataError):
        survey(str(tmp_path / "d"))
