"""Classes predictable from border, size, format or bytes alone; splits that differ; test sets that are small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from thirtytwo.data.load import load_dataset
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor import CHECKS, Finding, Subject, diagnose
from thirtytwo.doctor.checks.small_test import half_width
from thirtytwo.doctor.probe import auroc, folds_of, indicators, one_against_rest, threshold

Pixels = npt.NDArray[np.uint8]
CODES = ("T601", "T602", "T603", "T604", "T611")


def scenes(count: int, seed: int = 0, side: int = 32) -> Pixels:
    noise = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    values = gaussian_filter(noise, (0, 4, 4, 0)) * 400 + gaussian_filter(noise, (0, 0.7, 0.7, 0)) * 40
    return np.asarray(np.clip(values + 120, 0, 255)).astype(np.uint8)


def in_memory(train: Pixels, test: Pixels | None = None, classes: int = 3) -> DataSet:
    names = tuple("abcdefghij"[:classes])

    def part(images: Pixels) -> ImageSet:
        return ImageSet(images, np.arange(len(images)) % classes, names, np.arange(len(images)))

    return DataSet("set", part(train), None, part(scenes(60, 9) if test is None else test), "x")


def findings(data: DataSet) -> dict[str, Finding]:
    subject = Subject(data)
    return {finding.code: finding for code in CODES for finding in CHECKS.get(code)().run(subject)}


def in_files(root: Path, save: Callable[[Image.Image, str, int], None], count: int = 30) -> dict[str, Finding]:
    """Findings on a folder of classes a, b and c; `save` writes an image of a class without the suffix of its file."""
    images = scenes(3 * count, side=24)
    for position, pixels in enumerate(images):
        label = "abc"[position % 3]
        (root / label).mkdir(parents=True, exist_ok=True)
        save(Image.fromarray(pixels), str(root / label / str(position)), "abc".index(label))
    found = diagnose(str(root), only=CODES, cache=False).findings
    return {finding.code: finding for finding in found}


def jpeg(image: Image.Image, path: str, label: int) -> None:
    image.save(f"{path}.jpg", quality=80)


@pytest.mark.parametrize("seed", range(4))
def test_data_without_shortcuts_has_no_findings(seed: int) -> None:
    assert findings(in_memory(scenes(150, seed))) == {}


@pytest.mark.parametrize("color", [0, 128, 255, "random"])
def test_a_frame_of_one_pixel_around_one_class_is_found(color: int | str) -> None:
    images, random = scenes(200), np.random.default_rng(1)
    for image in images[2::5]:
        framed = random.integers(0, 256, 3) if color == "random" else color
        image[[0, -1]] = framed
        image[:, [0, -1]] = framed
    found = findings(in_memory(images, classes=5))
    assert set(found) == {"T601"}
    assert found["T601"].what.startswith("1 class is predictable from the border pixels alone: 'c'")
    assert found["T601"].severity == "warning"
    assert {place.position % 5 for place in found["T601"].groups[0]} == {2}


def test_files_without_shortcuts_have_no_findings(tmp_path: Path) -> None:
    assert in_files(tmp_path / "set", jpeg) == {}


def test_one_class_of_another_format_is_found(tmp_path: Path) -> None:
    def save(image: Image.Image, path: str, label: int) -> None:
        image.save(f"{path}.png") if label == 1 else jpeg(image, path, label)

    found = in_files(tmp_path / "set", save)
    assert {"T603", "T604"} <= set(found), "PNG files have more bytes per pixel"
    assert "'b' (AUROC 1.000" in found["T603"].what
    assert "'a'" not in found["T603"].what


def test_two_classes_of_two_formats_are_found(tmp_path: Path) -> None:
    images = scenes(60, side=24)
    for position, pixels in enumerate(images):
        folder = tmp_path / "set" / "ab"[position % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{position}.{('png', 'jpg')[position % 2]}")
    (found,) = diagnose(str(tmp_path / "set"), only=["T603"], cache=False).findings
    assert found.what.startswith("2 classes are predictable")


@pytest.mark.parametrize("kind", ["quality", "metadata", "gray", "partly"])
def test_compression_metadata_and_mode_are_found(kind: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"

    def save(image: Image.Image, path: str, label: int) -> None:
        if label != 2 or (kind == "partly" and int(Path(path).name) % 2):
            jpeg(image, path, label)
        elif kind in ("quality", "partly"):
            image.save(f"{path}.jpg", quality=95 if kind == "quality" else 60)
        elif kind == "metadata":
            image.save(f"{path}.jpg", quality=80, exif=exif)
        else:
            image.convert("L").save(f"{path}.jpg", quality=80)

    found = in_files(tmp_path / "set", save, 60 if kind == "partly" else 30)
    assert "1 class is predictable" in found["T603"].what
    assert "'c'" in found["T603"].what


@pytest.mark.parametrize(("wide", "high"), [(30, 24), (48, 48)])
def test_one_class_of_another_size_is_found(wide: int, high: int, tmp_path: Path) -> None:
    sizes = np.random.default_rng(0)

    def save(image: Image.Image, path: str, label: int) -> None:
        size = (wide, high) if label == 0 else tuple(sizes.integers(24, 60, 2).tolist())
        jpeg(image.resize(size), path, label)

    found = in_files(tmp_path / "set", save)
    assert "'a' (AUROC" in found["T602"].what
    assert "1 class is" in found["T602"].what


def test_random_features_tell_nothing() -> None:
    random = np.random.default_rng(0)
    for trial in range(60):
        count, classes = int(random.integers(20, 300)), int(random.integers(2, 12))
        labels = random.integers(0, classes, count)
        features = np.concatenate([random.normal(size=(count, 4)), random.random((count, 3)) < 0.1], axis=1)
        found = one_against_rest(features, labels, classes)
        assert all(one.deviation < threshold(len(found)) for one in found), trial


def test_auroc_with_ties() -> None:
    positive = np.array([True, True, False, False])
    assert auroc(np.array([4.0, 3, 2, 1]), positive) == 1
    assert auroc(np.array([1.0, 1, 1, 1]), positive) == 0.5
    assert auroc(np.array([2.0, 1, 1, 0]), positive) == 0.875


def test_rare_classes_and_unknown_values_are_possible() -> None:
    labels = np.array([0] * 30 + [1] * 30 + [2] * 3)
    features = np.where(labels == 1, 5.0, np.arange(63) % 2)[:, None]
    features[::7] = np.nan
    found = {one.label: one for one in one_against_rest(features, labels, 4)}
    assert set(found) == {0, 1}
    assert found[1].auroc > 0.85
    assert one_against_rest(features[:5], labels[:5], 4) == []
    assert sorted(np.bincount(folds_of(labels))) == [12, 12, 13, 13, 13]
    assert indicators(["x", None, "x"]).tolist() == [[1, 0], [0, 1], [1, 0]]


def test_darker_test_images_are_drift() -> None:
    train, test = scenes(300), scenes(100, 5)
    assert findings(in_memory(train, test)) == {}
    found = findings(in_memory(train, (test * 0.6).astype(np.uint8)))["T611"]
    assert "brightness" in found.what
    assert found.groups[0][0].split == "test"
    assert found.severity == "warning"


def test_drift_of_a_test_split_that_was_split_off_is_a_note() -> None:
    data = in_memory(scenes(300), (scenes(100, 5) * 0.6).astype(np.uint8))
    found = findings(replace(data, test_is_cut=True))["T611"]
    assert found.severity == "note"
    assert "split off at random" in found.what
    assert "split_seed" in found.fix


def test_other_shares_of_the_classes_are_no_drift() -> None:
    images = scenes(400)
    labels = np.random.default_rng(0).integers(0, 2, 400)
    images[labels == 1] //= 2
    in_test = np.where(labels == 1, np.arange(400) % 4 != 0, np.arange(400) % 4 == 0)
    parts = [ImageSet(images[rows], labels[rows], ("a", "b"), np.flatnonzero(rows)) for rows in (~in_test, in_test)]
    assert "T611" not in findings(DataSet("set", parts[0], None, parts[1], "x"))


@pytest.mark.parametrize(("count", "severity"), [(10, "warning"), (300, "note"), (1000, None)])
def test_small_test_sets(count: int, severity: str | None) -> None:
    test = np.zeros((count, 8, 8, 3), dtype=np.uint8)
    found = list(CHECKS.get("T305")().run(Subject(in_memory(scenes(30, side=8), test))))
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_half_width() -> None:
    assert half_width(10_000) == pytest.approx(1.96 * (0.9 * 0.1 / 10_000) ** 0.5, rel=0.01)


@pytest.mark.realdata
@pytest.mark.long
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_has_no_shortcuts_and_few_extreme_images(name: str) -> None:
    diagnosis = diagnose(name, only=[*CODES, "T402", "T403", "T404", "T405"])
    assert {finding.code for finding in diagnosis.findings} <= {"T402", "T403", "T404", "T405"}
    assert all(0 < len(finding.groups) < 300 for finding in diagnosis.findings)


@pytest.mark.slow
def test_digits_have_no_shortcuts() -> None:
    assert findings(load_dataset("digits", cache=False)) == {}
