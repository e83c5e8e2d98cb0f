"""Larger copies of training images are decoded together with the images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data import build, decoding
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
    monkeypatch.setattr(decoding, "load_hashed", None)  # any further decoding fails
    again = load_dataset(str(root), image_size=8, large=12)
    assert isinstance(again.train.large.array if again.train.large else None, np.memmap)
    assert first.fingerprint == again.fingerprint == load_dataset(str(root), image_size=8).fingerprint
    assert again.test is not None
    assert again.test.large is None


@pytest.mark.parametrize("large", [0, 8, 16])
def test_no_copies_that_are_not_larger(large: int, make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"a": 4, "b": 4}, side=24)
    assert load_dataset(str(root), image_size=16, large=large).train.large is None


def decodings(caplog: pytest.LogCaptureFixture) -> int:
    """How often a whole data set was decoded."""
    return sum(record.getMessage().startswith("Decoding") for record in caplog.records)


@pytest.mark.parametrize("large", [0, 20])
@pytest.mark.parametrize("split", ["train", "test"])
def test_unreadable_images_are_decoded_once(
    split: str, large: int, make: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sizes = {"train/a": 6, "train/b": 6, "test/a": 4, "test/b": 4}
    root, good = make.tree(tmp_path / "d", sizes, side=40), make.tree(tmp_path / "good", sizes, side=40)
    bad = sorted((root / split / "a").iterdir())[1]
    (good / bad.relative_to(root)).unlink()
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    caplog.set_level("INFO", logger=decoding.logger.name)
    expected = load_dataset(str(good), image_size=16, large=large, cache=False)
    caplog.clear()
    for count, side in ((1, 16), (1, 16), (2, 24)):
        data = load_dataset(str(root), image_size=side, large=large, skip_unreadable=True)
        assert decodings(caplog) == count, "once for each size"
        assert bad.name in data.warnings[0]
        for ours, theirs in ((data.train, expected.train), (data.test, expected.test)):
            assert ours is not None
            assert theirs is not None
            np.testing.assert_array_equal(ours.hashes, theirs.hashes)
            if side == 16:
                np.testing.assert_array_equal(ours.images, theirs.images)
                assert (ours.large is None) == (theirs.large is None)
    with pytest.raises(decoding.UnreadableImagesError, match=bad.name):
        load_dataset(str(root), image_size=16, large=large)
    assert decodings(caplog) == 2, "the error is known too"
    bad.write_bytes(whole)
    assert len(load_dataset(str(root), image_size=16, skip_unreadable=True).train) == 12
    assert decodings(caplog) == 3


def test_rows_that_can_be_read_again_are_decoded(
    make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make.tree(tmp_path / "d", {"a": 12, "b": 12})
    monkeypatch.setattr(build.cache, "read_rows", lambda key: [("train", 3), ("val", 1)])
    assert load_dataset(str(root), skip_unreadable=True).warnings == ()


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '[["train"]]', '[["train", "x"]]', "null"])
def test_damaged_notes_of_unreadable_rows_are_ignored(text: str) -> None:
    build.cache.contents_dir().mkdir(parents=True, exist_ok=True)
    (build.cache.contents_dir() / ("0" * 32)).write_text(text)
    assert build.cache.read_rows("0" * 32) == []


def test_more_images_that_cannot_be_read_are_left_out_too(
    make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What can be read depends on the limit of pixels, which changes from load to load."""
    root = make.tree(tmp_path / "d", {"train/a": 6, "train/b": 6, "test/a": 4, "test/b": 4}, side=40)
    damaged, large = sorted((root / "train" / "a").iterdir())[:2]
    damaged.write_bytes(damaged.read_bytes()[:60])
    Image.new("RGB", (90, 90)).save(large)
    caplog.set_level("INFO", logger=decoding.logger.name)
    for limit, left, count in ((10_000, 11, 1), (5_000, 10, 2), (10_000, 11, 2), (5_000, 10, 2)):
        monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", str(limit))
        assert len(load_dataset(str(root), image_size=16, skip_unreadable=True).train) == left
        assert decodings(caplog) == count, limit


def test_kept_errors_hold_no_images(make: SimpleNamespace, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "d", {"a": 12, "b": 12})
    sorted((root / "a").iterdir())[0].write_bytes(b"GIF89a")
    found: list[Any] = []
    load_dataset(str(root), unreadable=found)
    assert [(one.__traceback__, one.__cause__, one.__context__) for one in found] == [(None, None, None)]


def test_a_lower_limit_of_pixels_counts_for_cached_images_too(
    make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make.tree(tmp_path / "d", {"train/a": 6, "train/b": 6, "test/a": 4, "test/b": 4}, side=40)
    large = sorted((root / "train" / "a").iterdir())[0]
    Image.new("RGB", (90, 90)).save(large)
    assert len(load_dataset(str(root), image_size=16).train) == 12
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "5000")
    with pytest.raises(decoding.UnreadableImagesError, match=large.name):
        load_dataset(str(root), image_size=16)
    data = load_dataset(str(root), image_size=16, skip_unreadable=True)
    assert len(data.train) == 11
    assert data.warnings[0].startswith("skipped 1 image that")


@pytest.mark.parametrize(
    ("variable", "named"), [("1e6", "THIRTYTWO_MAX_PIXELS is '1e6'"), ("900", "more than the limit")]
)
def test_a_survey_of_unreadable_images_names_the_reason(
    variable: str, named: str, make: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make.tree(tmp_path / "d", {"a": 4, "b": 4}, side=40)
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", variable)
    with pytest.raises(DataError, match=named):
        survey(str(root))
