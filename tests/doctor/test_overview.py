"""The numbers of an overview, against values that were computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor.data_charts import spread_chart
from thirtytwo.doctor.data_map import majority_of_neighbors, map_data
from thirtytwo.doctor.overview import survey_data
from thirtytwo.doctor.shapes import RATIO_BINS, formats_of, shapes_of
from thirtytwo.doctor.spread import BINS, FEWEST_BINS, extreme_positions, spreads
from thirtytwo.doctor.statistics import pixel_statistics
from thirtytwo.doctor.subject import Subject
from thirtytwo.images.header import FileFacts


def image_set(images, labels, classes=("ant", "bee")) -> ImageSet:
    return ImageSet(images, np.array(labels, dtype=np.int64), classes, np.arange(len(labels), dtype=np.int64))


def noise(count, side=8, seed=0):
    return np.random.default_rng(seed).integers(90, 160, (count, side, side, 3), dtype=np.uint8)


def facts(kind="JPEG", mode="RGB", size=100, orientation=1) -> FileFacts:
    return FileFacts(kind, mode, False, orientation, 4, 4, size, False, False, False, 0.0)


def test_spreads_name_the_extremes():
    images = noise(20)
    images[3], images[5] = 10, 250
    images[7, ::2] = 0
    images[7, 1::2] = 255
    brightness, contrast, sharpness = spreads(pixel_statistics(images), extremes=2)
    assert (brightness.name, contrast.name, sharpness.name) == ("brightness", "contrast", "sharpness")
    assert (brightness.lowest[0], brightness.highest[0]) == (3, 5)
    assert brightness.lowest_values[0] == pytest.approx(10, abs=1e-3)
    assert contrast.highest[0] == 7
    assert set(contrast.lowest.tolist()) == {3, 5}
    assert not {3, 5} & {*sharpness.lowest.tolist(), *sharpness.highest.tolist()}
    assert brightness.counts.sum() == 20
    assert sharpness.counts.sum() == 18
    assert len(brightness.counts) == 9  # few images, few bars
    found = list(extreme_positions((brightness, contrast, sharpness)))
    assert len(found) == len(set(found))
    assert {3, 5, 7} <= set(found)


@pytest.mark.parametrize(("count", "bins"), [(2, FEWEST_BINS), (100, 20), (4000, BINS)])
def test_few_images_have_few_bars(count: int, bins: int) -> None:
    found = spreads(pixel_statistics(noise(count)))
    assert [len(one.counts) for one in found] == [bins] * 3


def test_a_few_extreme_images_are_counted_outside_of_the_histogram():
    images = noise(3000)
    images[:2] = 255  # brightness 255; the others have about 125
    images[2] = 0
    brightness, *_ = spreads(pixel_statistics(images))
    assert (brightness.below, brightness.above) == (1, 2)
    assert brightness.counts.sum() == 2997
    assert brightness.counts[-1] < brightness.counts.max() / 4  # no heap at the end
    assert brightness.counts[0] < brightness.counts.max() / 4
    assert brightness.high < 200
    chart = spread_chart(brightness)
    assert "2 images up to 255" in chart
    assert "1 image down to 0" in chart


def test_no_image_is_left_out_of_a_histogram_that_is_hardly_wider_with_it():
    for one in spreads(pixel_statistics(noise(500))):
        assert (one.below, one.above) == (0, 0)
        assert one.counts.sum() == 500
        assert "up to" not in spread_chart(one)
        assert (one.low, one.high) == (float(one.lowest_values[0]), float(one.highest_values[0]))


@pytest.mark.parametrize(
    ("sizes", "scattered"),
    [
        ({(100 + n, 90): 1 for n in range(9)}, True),
        ({(100 + n, 90): 1 for n in range(8)}, False),  # all are listed
        ({(100, 90): 30, **{(200 + n, 90): 1 for n in range(50)}}, False),
        ({(100 + n, 90): 2 for n in range(400)}, True),
        ({(32, 32): 60_000}, False),
    ],
)
def test_a_list_of_sizes_says_something_or_not(sizes, scattered):
    assert shapes_of(sizes).are_scattered(8) == scattered


def test_sizes_by_area():
    found = shapes_of({(10, 10): 1, (10, 20): 1, (30, 10): 1, (20, 20): 1, (50, 10): 1})
    assert [size for _, *size in found.by_area()] == [[10, 10], [10, 20], [30, 10], [20, 20], [50, 10]]


def test_typical_sizes_of_many_are_not_the_narrowest():
    sizes = {(100 + n, 100 + 7 * n % 1000): 1 for n in range(5000)} | {(50, 3000): 9}
    found = shapes_of(sizes).typical(400)
    assert len(found) == len(set(found)) == 400
    assert {(50, 3000, 9), (5099, 100 + 7 * 4999 % 1000, 1)} <= set(found)
    widths = sorted(width for width, *_ in found)
    assert widths[200] == pytest.approx(2600, rel=0.15)
    assert shapes_of({(1, 2): 3}).typical(400) == [(1, 2, 3)]


def test_typical_sizes_are_the_ends_where_there_is_room_for_nothing_else():
    sizes = {(1, 20): 1, (50, 21): 1, (20, 2): 1, (22, 60): 1, (30, 30): 5, (31, 31): 1}
    assert set(shapes_of(sizes).typical(4)) == {(1, 20, 1), (50, 21, 1), (20, 2, 1), (22, 60, 1)}


def test_images_of_one_color_have_no_sharpness():
    assert [one.name for one in spreads(pixel_statistics(np.full((3, 8, 8, 3), 9, dtype=np.uint8)))] == [
        "brightness",
        "contrast",
    ]


def test_shapes():
    found = shapes_of({(40, 30): 3, (30, 40): 1, (20, 20): 2, (900, 30): 1})
    assert found.sizes[0] == (40, 30, 3)
    assert (found.portrait, found.square, found.landscape, found.images) == (1, 2, 4, 7)
    assert found.median() == (40, 30)
    assert found.ratios.sum() == 7
    assert len(found.ratios) == RATIO_BINS
    assert found.ratios[-1] == 1
    assert shapes_of({}) is None


def test_formats():
    found = formats_of([facts(size=10), facts(size=30, orientation=6), facts("PNG", "L", 500)])
    assert found.formats == (("JPEG", 2), ("PNG", 1))
    assert found.modes == (("RGB", 2), ("L", 1))
    assert (found.rotated, found.median_bytes, found.largest_bytes, found.total_bytes) == (1, 30, 500, 540)
    assert formats_of([]) is None


@pytest.mark.slow
@pytest.mark.parametrize(("count", "votes"), [(3, 3), (5, 5)])
def test_an_image_among_another_class_is_marked(count, votes):
    features = np.array([[0, x] for x in range(7)] + [[50, x] for x in range(7)], dtype=np.float32)
    labels = [0, 0, 1, 0, 0, 0, 0, *[1] * 7]
    other, found, compared = majority_of_neighbors(features, image_set(noise(14), labels), count)
    assert np.flatnonzero(other >= 0).tolist() == [2]
    assert (other[2], found[2], compared) == (0, votes, count)


@pytest.mark.slow
def test_neighbors_of_several_other_classes_mark_nothing():
    features = np.arange(9, dtype=np.float32)[:, None]
    labels = [1, 2, 3, 1, 0, 2, 3, 1, 2]
    other, votes, _ = majority_of_neighbors(features, image_set(noise(9), labels, ("a", "b", "c", "d")), 4)
    assert other[4] == -1
    assert votes[4] == 0


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 4, 9, 40])
def test_a_map_of_few_images(count):
    images = image_set(noise(count, 32), [place % 2 for place in range(count)])
    found = map_data(DataSet("noise", images, None, None, "x"), np.arange(count, dtype=np.int64))
    assert found.points.shape == (count, 2)
    assert found.points.min() >= 0
    assert found.points.max() <= 1
    assert found.neighbors == min(10, count - 1)


@pytest.mark.long
def test_equal_images_have_a_map():
    images = image_set(np.full((12, 32, 32, 3), 80, dtype=np.uint8), [0, 1] * 6)
    found = map_data(DataSet("flat", images, None, None, "x"), np.arange(12, dtype=np.int64))
    assert np.isfinite(found.points).all()


@pytest.mark.long
def test_similar_images_with_another_label_are_marked():
    random = np.random.default_rng(0)
    rows = np.linspace(0, 255, 32, dtype=np.uint8)
    stripes = np.where(np.arange(32) // 4 % 2, 255, 0).astype(np.uint8)
    smooth = np.broadcast_to(rows[:, None, None], (32, 32, 3)).astype(np.int64)
    striped = np.broadcast_to(stripes[None, :, None], (32, 32, 3)).astype(np.int64)
    kinds = np.stack([smooth] * 15 + [striped] * 15) + random.integers(-25, 25, (30, 32, 32, 3))
    labels = [0] * 15 + [1] * 15
    labels[4] = 1
    data = DataSet("two", image_set(np.clip(kinds, 0, 255).astype(np.uint8), labels), None, None, "x")
    found = survey_data(Subject(data))
    assert [int(found.sample[place]) for place in found.map.crossing] == [4]
    assert found.map.other[found.map.crossing].tolist() == [0]
    assert found.splits == {"train": 30}
    assert found.side == 32
    assert found.formats is None


@pytest.mark.long
def test_positions_of_the_sample_are_bounded():
    data = DataSet("noise", image_set(noise(30, 32), [place % 2 for place in range(30)]), None, None, "x")
    assert len(survey_data(Subject(data), most=8).sample) == 8
