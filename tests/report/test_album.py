"""Images of cells and classes: which are kept, how they are stored, and that they are the correct ones."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.types import ImageSet
from thirtytwo.predictions import Predictions
from thirtytwo.report import gallery
from thirtytwo.report.gallery import QUALITIES, Quality, choose_quality, columns_of, make_album, sprite


def predictions_and_images(count=60, width=3, side=8, seed=0):
    """Predictions of which a third are wrong, and images whose color encodes their row."""
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


def test_every_misclassified_image_is_at_its_position():
    given, images = predictions_and_images()
    album = make_album(given, images)
    data = album.data
    assert (album.shown, album.problem, album.note) == (album.wrong, "", "")
    found = set()
    for truth, entry in enumerate(data["sprites"]):
        pixels = decoded(entry["source"])
        for place, (predicted, sure, in_truth, row) in enumerate(entry["images"]):
            top, left = divmod(place, entry["columns"])
            cut = pixels[top * data["height"] :, left * data["width"] :][: data["height"], : data["width"]]
            assert (cut[..., 0] == row).all()
            position = int(np.flatnonzero(given.rows == row)[0])
            assert (truth, predicted) == (given.truth[position], given.predicted[position])
            assert sure == pytest.approx(1000 * given.confidence[position], abs=0.51)
            assert in_truth == pytest.approx(1000 * given.probabilities[position, truth], abs=0.51)
            found.add(row)
    assert set(given.rows[given.predicted != given.truth].tolist()) <= found
    assert sum(count for _, _, count in data["cells"]) == len(given.truth)


def test_correct_images_span_the_range_of_confidence():
    given, images = predictions_and_images(count=300)
    album = make_album(given, images)
    right = given.predicted == given.truth
    for truth, entry in enumerate(album.data["sprites"]):
        sure = [image[1] for image in entry["images"] if image[0] == truth]
        own = 1000 * given.confidence[right & (given.truth == truth)]
        assert len(sure) == album.right
        assert (max(sure), min(sure)) == (round(float(own.max())), round(float(own.min())))


def test_each_cell_keeps_its_most_confident_images(monkeypatch):
    given, images = predictions_and_images(count=240)
    monkeypatch.setattr("thirtytwo.report.gallery.choose_quality", lambda *_: (QUALITIES[-1], 15 + 6))
    album = make_album(given, images)
    assert album.shown < album.wrong
    kept = {}
    for truth, entry in enumerate(album.data["sprites"]):
        for predicted, sure, _, _ in entry["images"]:
            if predicted != truth:
                kept.setdefault((truth, predicted), []).append(sure)
    wrong = given.predicted != given.truth
    for truth, predicted in {*zip(given.truth[wrong].tolist(), given.predicted[wrong].tolist(), strict=True)}:
        own = given.confidence[wrong & (given.truth == truth) & (given.predicted == predicted)]
        assert max(kept[truth, predicted]) == round(1000 * float(own.max()))


def test_names_are_listed_without_images():
    given, _ = predictions_and_images()
    named = replace(given, files=tuple(f"folder/{row}.png" for row in given.rows))
    album = make_album(named, None)
    assert "without images" in album.problem
    assert all("source" not in entry for entry in album.data["sprites"])
    names = {image[3] for entry in album.data["sprites"] for image in entry["images"]}
    assert {f"folder/{row}.png" for row in given.rows[given.predicted != given.truth]} <= names


def test_superclasses_are_indices():
    given, images = predictions_and_images()
    data = make_album(given, images, {"a": "late", "b": "early", "c": "late"}).data
    assert (data["groups"], data["group_of"]) == (["early", "late"], [1, 0, 1])


def test_class_without_images_has_an_empty_sprite():
    given, images = predictions_and_images()
    more = replace(given, classes=("a", "b", "c", "d"), probabilities=np.pad(given.probabilities, ((0, 0), (0, 1))))
    assert make_album(more, replace(images, classes=more.classes)).data["sprites"][3] == {"images": []}


@pytest.mark.parametrize("quality", QUALITIES)
def test_best_quality_that_fits_is_chosen(quality):
    noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    sample = np.stack([np.asarray(Image.fromarray(image).resize((16, 16)).resize((128, 128))) for image in noise])
    needed = (100 + 5 * quality.right) * len(sprite(sample, quality)) / len(sample)
    chosen, room = choose_quality(sample, wrong=100, classes=5, budget=int(1.15 * needed))
    assert chosen == quality
    assert room >= 100 + 5 * quality.right


def test_images_are_dropped_if_no_quality_fits():
    sample = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    quality, room = choose_quality(sample, wrong=10_000, classes=5, budget=50_000)
    assert quality == QUALITIES[-1]
    assert room * len(sprite(sample, quality)) / len(sample) <= 50_000


def test_page_stays_in_budget_and_notes_the_loss():
    given, images = predictions_and_images(count=200)
    noisy = replace(images, images=np.random.default_rng(0).integers(0, 256, (200, 96, 64, 3), dtype=np.uint8))
    album = make_album(given, noisy, budget=120_000)
    taken = sum(len(entry.get("source", "")) for entry in album.data["sprites"])
    assert 0 < taken < 120_000
    assert (album.data["height"], album.data["width"]) == (48, 32)
    assert "32 × 48 pixels" in album.note
    assert "JPEG of quality 75" in album.note


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 300])
def test_sprite_holds_all_images_in_order(count):
    images = np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    pixels, columns = decoded(sprite(images, Quality(128, None, 12))), columns_of(count)
    for place, image in enumerate(images):
        top, left = divmod(place, columns)
        assert (pixels[top * 5 : top * 5 + 5, left * 7 : left * 7 + 7] == image).all()


def test_sprite_stays_within_format_limits():
    assert columns_of(16_000) * 128 < 16_383
    assert -(-16_000 // columns_of(16_000)) * 128 < 16_383


@pytest.mark.parametrize("with_images", [True, False])
def test_correct_images_of_many_classes_leave_room_for_errors(with_images, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_NAMES", 3000)
    random = np.random.default_rng(0)
    classes = tuple(f"kind {number:03d}" for number in range(400))
    truth = np.arange(4000) % 400
    probabilities = np.full((4000, 400), 1e-4, dtype=np.float32)
    probabilities[np.arange(4000), np.where(np.arange(4000) < 2500, truth, (truth + 1) % 400)] = 0.9
    given = Predictions(classes, truth, probabilities, np.arange(4000))
    pixels = random.integers(0, 256, (4000, 16, 16, 3), dtype=np.uint8)
    images = ImageSet(pixels, truth, classes, given.rows) if with_images else None
    album = make_album(given, images, budget=600_000)
    assert album.wrong == 1500
    assert 0 < album.shown <= album.wrong
    assert album.shown >= 0.4 * sum(len(entry["images"]) for entry in album.data["sprites"])
    assert sum(len(entry.get("source", "")) for entry in album.data["sprites"]) <= 600_000
    listed = [
        len([1 for image in entry["images"] if image[0] == truth]) for truth, entry in enumerate(album.data["sprites"])
    ]
    assert max(listed) == album.right
