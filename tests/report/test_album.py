"""Pictures behind cells and classes: which are kept, how they are stored, and that they are the right ones."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.types import ImageSet
from thirtytwo.report.album import make_album
from thirtytwo.report.sheets import LADDER, Quality, choose_quality, columns_of, sheet
from thirtytwo.rundir import Predictions


def given_and_pictures(count=60, width=3, side=8, seed=0):
    """Predictions of which a third are wrong, and pictures that each hold their own row as a colour."""
    random = np.random.default_rng(seed)
    truth = np.arange(count) % width
    logits = random.normal(size=(count, width)) * 2
    shares = np.exp(logits)
    probabilities = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    rows = np.arange(count)[::-1] + 5  # stored in another order than they were scored
    given = Predictions(tuple("abcdefgh"[:width]), truth, probabilities, rows)
    images = np.zeros((count, side, side, 3), dtype=np.uint8)
    images[..., 0] = rows[:, None, None]
    order = random.permutation(count)
    return given, ImageSet(images, truth, given.classes, rows).take(order)


def decoded(source):
    assert source.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def test_every_wrong_picture_is_there_where_its_entry_says():
    given, pictures = given_and_pictures()
    album = make_album(given, pictures)
    data = album.data
    assert (album.shown, album.problem, album.note) == (album.wrong, "", "")
    found = set()
    for truth, entry in enumerate(data["sheets"]):
        pixels = decoded(entry["source"])
        for place, (called, sure, in_truth, row) in enumerate(entry["pictures"]):
            top, left = divmod(place, entry["columns"])
            cut = pixels[top * data["height"] :, left * data["width"] :][: data["height"], : data["width"]]
            assert (cut[..., 0] == row).all()
            position = int(np.flatnonzero(given.rows == row)[0])
            assert (truth, called) == (given.truth[position], given.predicted[position])
            assert sure == pytest.approx(1000 * given.confidence[position], abs=0.51)
            assert in_truth == pytest.approx(1000 * given.probabilities[position, truth], abs=0.51)
            found.add(row)
    assert set(given.rows[given.predicted != given.truth].tolist()) <= found
    assert sum(count for _, _, count in data["cells"]) == len(given.truth)


def test_right_ones_run_from_the_least_to_the_most_confident():
    given, pictures = given_and_pictures(count=300)
    album = make_album(given, pictures)
    right = given.predicted == given.truth
    for truth, entry in enumerate(album.data["sheets"]):
        sure = [picture[1] for picture in entry["pictures"] if picture[0] == truth]
        own = 1000 * given.confidence[right & (given.truth == truth)]
        assert len(sure) == album.right
        assert (max(sure), min(sure)) == (round(float(own.max())), round(float(own.min())))


def test_where_not_all_fit_each_cell_keeps_its_most_confident(monkeypatch):
    given, pictures = given_and_pictures(count=240)
    monkeypatch.setattr("thirtytwo.report.album.choose_quality", lambda *_: (LADDER[-1], 15 + 6))
    album = make_album(given, pictures)
    assert album.shown < album.wrong
    kept = {}
    for truth, entry in enumerate(album.data["sheets"]):
        for called, sure, _, _ in entry["pictures"]:
            if called != truth:
                kept.setdefault((truth, called), []).append(sure)
    wrong = given.predicted != given.truth
    for truth, called in {*zip(given.truth[wrong].tolist(), given.predicted[wrong].tolist(), strict=True)}:
        own = given.confidence[wrong & (given.truth == truth) & (given.predicted == called)]
        assert max(kept[truth, called]) == round(1000 * float(own.max()))


def test_names_are_listed_without_pictures():
    given, _ = given_and_pictures()
    named = replace(given, files=tuple(f"folder/{row}.png" for row in given.rows))
    album = make_album(named, None)
    assert "without pictures" in album.problem
    assert all("source" not in entry for entry in album.data["sheets"])
    names = {picture[3] for entry in album.data["sheets"] for picture in entry["pictures"]}
    assert {f"folder/{row}.png" for row in given.rows[given.predicted != given.truth]} <= names


def test_superclasses_are_told_by_number():
    given, pictures = given_and_pictures()
    data = make_album(given, pictures, {"a": "late", "b": "early", "c": "late"}).data
    assert (data["groups"], data["group_of"]) == (["early", "late"], [1, 0, 1])


def test_a_class_without_pictures_has_an_empty_sheet():
    given, pictures = given_and_pictures()
    more = replace(given, classes=("a", "b", "c", "d"), probabilities=np.pad(given.probabilities, ((0, 0), (0, 1))))
    assert make_album(more, replace(pictures, classes=more.classes)).data["sheets"][3] == {"pictures": []}


@pytest.mark.parametrize("quality", LADDER)
def test_the_best_quality_that_fits_is_taken(quality):
    noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    sample = np.stack([np.asarray(Image.fromarray(picture).resize((16, 16)).resize((128, 128))) for picture in noise])
    needed = (100 + 5 * quality.right) * len(sheet(sample, quality)) / len(sample)
    chosen, room = choose_quality(sample, wrong=100, classes=5, budget=int(1.1 * needed))
    assert chosen == quality
    assert room >= 100 + 5 * quality.right


def test_what_takes_too_much_at_any_quality_is_cut():
    sample = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    quality, room = choose_quality(sample, wrong=10_000, classes=5, budget=50_000)
    assert quality == LADDER[-1]
    assert room * len(sheet(sample, quality)) / len(sample) <= 50_000


def test_a_page_stays_in_its_budget_and_says_what_that_cost():
    given, pictures = given_and_pictures(count=200)
    noisy = replace(pictures, images=np.random.default_rng(0).integers(0, 256, (200, 96, 64, 3), dtype=np.uint8))
    album = make_album(given, noisy, budget=120_000)
    taken = sum(len(entry.get("source", "")) for entry in album.data["sheets"])
    assert 0 < taken < 120_000
    assert (album.data["height"], album.data["width"]) == (48, 32)
    assert (
        album.note
        == "To keep this page small, pictures are reduced to 32 × 48 pixels and stored as JPEG of quality 75."
    )


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 300])
def test_a_sheet_holds_all_pictures_in_order(count):
    pictures = np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    pixels, columns = decoded(sheet(pictures, Quality(128, None, 12))), columns_of(count)
    for place, picture in enumerate(pictures):
        top, left = divmod(place, columns)
        assert (pixels[top * 5 : top * 5 + 5, left * 7 : left * 7 + 7] == picture).all()


def test_no_sheet_outgrows_its_format():
    assert columns_of(16_000) * 128 < 16_383
    assert -(-16_000 // columns_of(16_000)) * 128 < 16_383
