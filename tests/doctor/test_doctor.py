from __future__ import annotations

import re

import numpy as np
import pytest

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor import diagnose, examine
from thirtytwo.errors import UnknownNameError


def image_set(labels, seed=0, classes=("ant", "bee")) -> ImageSet:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    return ImageSet(images, np.array(labels, dtype=np.int64), classes, np.arange(len(labels), dtype=np.int64))


def data_set(train: ImageSet, test: ImageSet | None = None, **more) -> DataSet:
    return DataSet("insects", train, None, test or image_set([0, 1] * 100, seed=1, classes=train.classes), "x", **more)


def severities(dataset: DataSet, pattern: str) -> list[str]:
    return [finding.severity for finding in examine(dataset) if re.search(pattern, finding.what)]


def test_valid_data_has_no_warnings_or_errors():
    assert [finding for finding in examine(data_set(image_set([0, 1] * 50))) if finding.severity != "note"] == []


@pytest.mark.parametrize(
    ("labels", "pattern", "severity"),
    [
        ([0] * 30 + [1] * 10, "^1 of 2 classes .*20 .*'bee'", "warning"),
        ([0] * 300 + [1] * 25, "'ant' .*300.*'bee' .*25", "warning"),
        ([0] * 30, "^train .*'bee'", "error"),
    ],
)
def test_counts(labels, pattern, severity):
    assert severities(data_set(image_set(labels)), pattern) == [severity]


def test_imbalance_is_found_beside_a_class_without_training_images():
    train = image_set([0] * 300 + [1] * 25, classes=("ant", "bee", "cow"))
    assert severities(data_set(train), "imbalanced: 'ant' .*300.*'bee' .*25") == ["warning"]


def test_duplicates_within_across_and_with_other_labels():
    train, test = image_set([0, 1] * 25), image_set([0, 1] * 5, seed=1)
    train.images[2] = train.images[0]
    train.images[3] = train.images[5]
    test.images[0] = train.images[4]
    test.images[1] = train.images[6]
    found = {
        finding.what: finding.severity for finding in examine(data_set(train, test)) if finding.code in ("T101", "T102")
    }
    assert len(found) == 2
    across, conflict = found
    assert conflict.startswith("1 group ")
    assert "labels: train row 6 (ant) = test row 1 (bee)" in conflict
    assert across.startswith("2 groups")
    assert "more than one split" in across
    assert severities(data_set(train, test), "^2 duplicates .*split: train row") == ["note"]


def test_a_conflict_shows_an_image_of_each_label():
    train = image_set([0, 0, 0, 0, 0, 1] * 10)
    for row in range(6):
        train.images[row] = train.images[0]
    (found,) = (finding.what for finding in examine(data_set(train)) if finding.code == "T102")
    assert "(bee)" in found
    assert "and 3 more" in found


def test_images_of_a_single_color():
    train = image_set([0, 1] * 25)
    train.images[7] = 9
    assert severities(data_set(train), r"^1 image of train .*color.*train row 7 \(bee\)") == ["warning"]


@pytest.mark.parametrize(
    ("sizes", "pattern"),
    [
        ({(32, 32): 60}, "32×32 .*8×8"),
        ({(32, 20): 30, (40, 60): 30}, "32 to 40 .*wide.* 20 to 60 .*high"),
        ({(96, 32): 30, (96, 60): 30}, "Images are 96 pixels wide and 32 to 60 high"),
        ({(5, 9): 1, (40, 60): 58}, "^1 of 59 images is smaller than 8×8 and is enlarged"),
        ({(5, 9): 2, (40, 60): 58}, "^2 of 60 .*smaller than 8×8"),
        ({(10, 90): 4, (40, 60): 56}, "^4 of 60 .*aspect ratio above 2"),
    ],
)
def test_sizes(sizes, pattern):
    assert severities(data_set(image_set([0, 1] * 25), sizes=sizes), pattern)


def test_skipped_files_are_a_note():
    assert severities(data_set(image_set([0, 1] * 25), skipped=("Thumbs.db: junk",)), "Thumbs.db") == ["note"]


def test_findings_are_ordered_by_severity(make, tmp_path):
    root = make.tree(tmp_path / "set", {"a": 30, "b": 5})
    (root / "a/3.png").write_bytes(b"")
    (root / "a/4.png").write_bytes((root / "a/5.png").read_bytes())
    diagnosis = diagnose(str(root))
    dataset, findings = diagnosis.data, diagnosis.findings
    assert dataset is not None
    assert dataset.test is not None
    assert len(dataset.train) + len(dataset.test) == 34
    assert findings[0].severity == "error"
    assert "a/3.png is empty" in findings[0].what
    order = [finding.severity for finding in findings]
    assert order == sorted(order, key=["error", "warning", "note"].index)


@pytest.mark.parametrize(("tree", "words"), [({"a": 3}, "one class, 'a'"), ({}, "no images")])
def test_data_that_cannot_be_used_is_a_finding(tree, words, make, tmp_path):
    (tmp_path / "set").mkdir()
    diagnosis = diagnose(str(make.tree(tmp_path / "set", tree)))
    findings = diagnosis.findings
    assert diagnosis.data is None
    assert [finding.severity for finding in findings] == ["error"]
    assert words in findings[0].what


def test_unknown_data_is_an_error():
    with pytest.raises(UnknownNameError):
        diagnose("cifar11")


def test_no_image_size_is_promised_for_training_which_its_recipe_sets():
    photographs = data_set(image_set([0, 1] * 50), sizes={(640, 480): 100})
    notes = [finding.what for finding in examine(photographs) if "640×480" in finding.what]
    assert notes == ["All images have 640×480 pixels; checked at 8×8. The recipe sets the size for training."]
