from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.explore import balanced_sample, class_counts, class_means, class_sheet, write_sheet
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.errors import OutputError


def image_set(labels, seed=0, classes=("ant", "bee")) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    return ImageSet(images, np.array(labels, dtype=np.int64), classes, np.arange(len(labels), dtype=np.int64))


def data_set(train: ImageSet, test: ImageSet | None = None, **more) -> DataSet:
    return DataSet("insects", train, None, test or image_set([0, 1] * 5, seed=1, classes=train.classes), "x", **more)


def test_class_counts():
    rows = class_counts(data_set(image_set([0, 0, 1])))
    assert [(row.name, row.counts) for row in rows] == [
        ("ant", {"train": 2, "test": 5}),
        ("bee", {"train": 1, "test": 5}),
    ]


def test_the_sheet_shows_the_images_of_each_class(tmp_path):
    images = image_set([0, 1, 1, 0], classes=("a name that is far too long for the margin", "üñí\ncode"))
    images.images[images.labels == 0] = (255, 0, 0)
    images.images[images.labels == 1] = (0, 0, 255)
    write_sheet(images, tmp_path / "deep/sheet.png", per_class=2)
    sheet = Image.open(tmp_path / "deep/sheet.png")
    assert sheet.getpixel((160, 20)) == (255, 0, 0)
    assert sheet.getpixel((160, 80)) == (0, 0, 255)
    assert sheet.size == class_sheet(images, per_class=2).size


def test_a_sheet_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        write_sheet(image_set([0, 1]), tmp_path / "file" / "sheet.png")


@pytest.mark.parametrize(
    ("counts", "most", "chosen"),
    [
        ((5, 5), 6, [3, 3]),
        ((5, 1, 5), 7, [3, 1, 3]),
        ((2, 0, 1), 10, [2, 0, 1]),
        ((4, 4, 4), 2, [1, 1, 0]),
        ((0,), 3, [0]),
    ],
)
def test_a_balanced_sample_has_equally_many_of_each_class(counts, most, chosen):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    found = balanced_sample(labels, most)
    assert np.bincount(labels[found], minlength=len(counts)).tolist() == chosen
    assert len(set(found.tolist())) == len(found)
    assert (np.diff(labels[found]) >= 0).all()
    assert balanced_sample(labels, most).tolist() == found.tolist()


def test_class_means():
    images = image_set([0, 1, 0], classes=("ant", "bee", "cow"))
    means = class_means(images)
    assert means.dtype == np.uint8
    np.testing.assert_array_equal(means[0], np.rint(images.images[[0, 2]].mean(axis=0)))
    np.testing.assert_array_equal(means[1], images.images[1])
    assert not means[2].any()
