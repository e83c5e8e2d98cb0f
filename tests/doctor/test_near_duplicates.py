"""Near-duplicates: copies are found, other images are not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor import Subject, examine
from thirtytwo.doctor.near_duplicates import (
    FINE,
    FINE_PHOTOGRAPHS,
    SIDE,
    Pairs,
    find_alike,
    find_pairs,
    grouped,
    is_enlarged,
    thumbnails,
)

Pixels = npt.NDArray[np.uint8]


def scenes(count: int, side: int = SIDE, seed: int = 0) -> Pixels:
    """Random images with structure at all scales, as photographs have."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(count, side, side, 1)) + 0.2 * random.normal(size=(count, side, side, 3))
    layers = [gaussian_filter(noise, (0, scale, scale, 0)) * scale**1.5 for scale in (1, 2, 4, 8)]
    values = np.asarray(sum(layers))
    low, high = values.min(axis=(1, 2, 3), keepdims=True), values.max(axis=(1, 2, 3), keepdims=True)
    return np.asarray((values - low) / (high - low) * 255).astype(np.uint8)


def recompressed(image: Pixels) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=60)
    return np.asarray(Image.open(stream))


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "equal": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "recompressed": recompressed,
    "brightened": lambda image: np.clip(image * 1.2, 0, 255).astype(np.uint8),
    "shifted": lambda image: np.pad(image, ((2, 0), (2, 0), (0, 0)), mode="edge")[:SIDE, :SIDE],
}


@pytest.mark.parametrize("count", [60, 600])
@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind: str, count: int) -> None:
    images = scenes(count)
    images[50] = COPIES[kind](images[7])
    pairs = find_pairs(images)
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(7, 50)]


def test_flat_images_are_not_compared() -> None:
    images = np.stack([np.full((SIDE, SIDE, 3), value, dtype=np.uint8) for value in (0, 9, 9, 255)])
    assert len(find_pairs(images)) == 0


def test_no_images() -> None:
    assert len(find_pairs(np.zeros((0, SIDE, SIDE, 3), dtype=np.uint8))) == 0


def test_connected_images_are_one_group() -> None:
    pairs = Pairs(
        np.array([5, 1, 2]),
        np.array([9, 2, 3]),
        np.array([0.9, 0.8, 0.7], dtype=np.float32),
        np.zeros(3, dtype=np.bool_),
    )
    assert grouped(pairs) == [[5, 9], [1, 2, 3]]


def test_larger_images_are_compared_at_a_small_size() -> None:
    images = scenes(20, side=96)
    images[9] = COPIES["mirrored"](images[3])
    pairs = find_pairs(thumbnails(images))
    assert list(zip(pairs.first, pairs.second, strict=True)) == [(3, 9)]


def test_findings_name_split_and_label() -> None:
    images = scenes(100)
    train, test = images[:60].copy(), images[60:].copy()
    test[0] = COPIES["shifted"](train[4])  # across, same label
    test[3] = COPIES["mirrored"](train[6])  # across, other label
    train[9] = COPIES["brightened"](train[11])  # within
    parts = [
        ImageSet(part, np.arange(len(part)) % 2, ("ant", "bee"), np.arange(len(part), dtype=np.int64))
        for part in (train, test)
    ]
    found = {finding.code: finding for finding in examine(DataSet("insects", parts[0], None, parts[1], "x"))}
    assert len(found["T111"].groups) == 2
    assert "train row 6 (ant) ≈ test row 3 (bee)" in found["T112"].what
    assert [place.position for place in found["T113"].groups[0]] == [9, 11]
    assert all(note.startswith("similarity ") for note in found["T111"].notes)
    by_code = {code: [note.endswith(", mirrored") for note in found[code].notes] for code in ("T111", "T112", "T113")}
    assert (sorted(by_code["T111"]), by_code["T112"], by_code["T113"]) == ([False, True], [True], [False])
    assert "1 of them with a mirrored copy" in found["T111"].what


@pytest.mark.parametrize(("side", "expected"), [(8, set()), (15, set()), (16, {"T111", "T112", "T113"})])
def test_tiny_images_are_not_compared(side: int, expected: set[str]) -> None:
    images = scenes(40, side=16)[:, :side, :side].copy()
    for source, target in ((1, 3), (5, 31), (7, 34)):  # within train; across splits with the same and another label
        images[target] = np.clip(images[source] * 1.1, 0, 255).astype(np.uint8)
    parts = [ImageSet(images[rows], rows % 2, ("a", "b"), rows) for rows in np.split(np.arange(40), [30])]
    found = examine(DataSet("tiny", parts[0], None, parts[1], "x"))
    assert {finding.code for finding in found if finding.code.startswith("T11")} == expected


@pytest.mark.parametrize(("detail", "expected"), [(8, True), (16, False), (SIDE, False)])
def test_images_that_were_enlarged_are_recognized_by_their_detail(detail: int, expected: bool) -> None:
    reduced = [Image.fromarray(one).resize((detail, detail), Image.Resampling.BOX) for one in scenes(30, side=96)]
    larger = [np.asarray(one.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for one in reduced]
    small = np.stack([*larger, np.zeros((SIDE, SIDE, 3), np.uint8)])
    assert is_enlarged(small) is expected
    small[7] = np.clip(small[3] * 1.1, 0, 255)
    assert find_alike(small) == ([] if expected else [[3, 7]])


def test_originals_of_tiny_images_decide_for_taught_ones() -> None:
    images = scenes(12)
    images[9] = recompressed(images[3])
    assert find_alike(images) == [[3, 9]]
    assert find_alike(images, [8] * 12) == []
    assert find_alike(images, [8, 640, 640]) == [[3, 9]]


@pytest.mark.parametrize("cut", [True, False])
def test_advice_on_copies_across_splits_depends_on_who_cut_them(cut: bool) -> None:
    images = scenes(60)
    images[50] = recompressed(images[7])
    parts = [ImageSet(images[rows], rows % 2, ("a", "b"), rows) for rows in np.split(np.arange(60), [40])]
    data = DataSet("set", parts[0], None, parts[1], "x", test_is_cut=cut)
    (finding,) = [finding for finding in examine(data) if finding.code == "T111"]
    assert ("keep_together" in finding.fix) is cut


@pytest.mark.parametrize("kept", [True, False])
def test_advice_within_a_split_names_no_setting_that_is_followed_already(kept: bool) -> None:
    images = scenes(60)
    images[50] = recompressed(images[7])
    rows = np.arange(60)
    near = rows.astype(np.uint64) if kept else None
    data = DataSet("set", ImageSet(images, rows % 2, ("a", "b"), rows, near=near), None, None, "x")
    (finding,) = [finding for finding in examine(data) if finding.code == "T113"]
    assert ("keep_together" in finding.fix) is not kept


def test_the_similarity_of_a_group_is_not_that_of_equal_images() -> None:
    images = scenes(60)
    images[20], images[50] = images[7], recompressed(images[7])
    rows = np.arange(60)
    (group,) = Subject(DataSet("set", ImageSet(images, rows % 2, ("a", "b"), rows), None, None, "x")).near_groups
    assert [place.position for place in group.places] == [7, 20, 50]
    assert group.similarity == pytest.approx(find_pairs(images[[7, 50]]).similarity[0])
    assert group.similarity < 0.9999


def test_photographs_must_be_more_alike_than_small_images() -> None:
    images = scenes(2)
    random = np.random.default_rng(1)
    for strength in np.arange(5, 8, 0.1):  # noise until the similarity is between both limits
        noisy = np.clip(images[0] + random.normal(0, strength, images[0].shape), 0, 255).astype(np.uint8)
        pair = np.stack([images[0], noisy])
        if FINE <= max(find_pairs(pair).similarity, default=0.0) < FINE_PHOTOGRAPHS:
            break
    data = DataSet("pair", ImageSet(pair, np.array([0, 1]), ("ant", "bee"), np.arange(2)), None, None, "x")
    assert len(Subject(data).near_groups) == 1
    assert Subject(replace(data, sizes={(192, 256): 2})).near_groups == ()
