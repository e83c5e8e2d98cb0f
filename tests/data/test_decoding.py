"""Larger copies of training images are decoded together with the images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from thirtytwo.data import decoding
from thirtytwo.data.load import load_dataset
from thirtytwo.data.split import concatenate, hold_out
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
