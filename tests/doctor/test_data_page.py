"""The page of a data set: well-formed, self-contained, escaped and bounded."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from thirtytwo.data.channels import ChannelLevels
from thirtytwo.data.explore import balanced_sample, class_counts, class_means, cut_ends
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor.data_map import DataMap
from thirtytwo.doctor.data_page import SHOWN, original_positions, render_data_page
from thirtytwo.doctor.overview import Overview
from thirtytwo.doctor.shapes import Formats, shapes_of
from thirtytwo.doctor.spread import spreads
from thirtytwo.doctor.statistics import pixel_statistics

NAMES = ("ant", "<b>bee</b>", "</script><script>alert(1)</script>", 'a "cow" & \u202e', "naïve 猫")
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, text and ids of a page, and what is wrong with it."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.problems, self.tags, self.text, self.data = [], [], [], "", None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and self.tags[-1][1].get("type") == "application/json":
            self.data = json.loads(data)
        elif not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def make(classes=NAMES, count=60, side=16, *, superclasses=None, sizes=None, files=True, most=3000, marked=(0, 7)):
    """An overview of noise whose images form a grid on the map, and its training images."""
    random = np.random.default_rng(0)
    labels = np.arange(count, dtype=np.int64) % len(classes)
    images = random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    names = tuple(f"<i>{place}</i>.png" for place in range(count)) if files else None
    train = ImageSet(images, labels, tuple(classes), np.arange(count, dtype=np.int64), names)
    data = DataSet("in<sects>", train, None, train.take(np.arange(min(5, count))), "x", superclasses=superclasses)
    sample = balanced_sample(labels, most)
    shown = train.labels[sample]
    across = int(np.ceil(len(sample) ** 0.5))
    places = np.arange(len(sample))
    points = np.stack([places % across, places // across], axis=1) / max(1, across - 1)
    other = np.full(len(sample), -1)
    for place in marked:
        other[place] = (shown[place] + 1) % len(classes)
    found = DataMap(sample, points.astype(np.float32), other, np.where(other < 0, 0, 8), 10, "tiny")
    return (
        Overview(
            data.name,
            data.classes,
            superclasses or {},
            {name: len(part) for name, part in data.stored.items()},
            tuple(class_counts(data)),
            side,
            ChannelLevels.of(images),
            class_means(train),
            spreads(pixel_statistics(images)),
            shapes_of({(side, side): count + 5} if sizes is None else sizes),
            Formats((("JPEG", 60), ("PNG", 5)), (("RGB", 65),), 3, 2000, 9000, 130_000) if files else None,
            sample,
            found,
            ("skipped 3 <images>",),
            cut_ends(sizes or {}),
        ),
        train,
    )


def parsed(text):
    page = Page(text)
    assert page.problems == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    return page


def test_contents():
    page = parsed(render_data_page(*make()))
    for text in ("in<sects>", "60", "Test", "5 images", "Skipped 3 <images>", "Every class has 12 training images."):
        assert text in page.text
    assert all(name in page.text for name in NAMES if "\u202e" not in name)
    assert "\\u202e" in page.text
    assert [tag for tag in page.all("script") if "src" in tag] == []
    assert "JPEG" in page.text
    assert "3 files are turned upright" in page.text
    assert "Outlined, 2" in page.text
    images = [tag for tag in page.all("img") if tag.get("id", "").startswith("image-")]
    assert len(images) == 60
    assert all(tag["src"].startswith("data:image/") for tag in images)
    assert any("<i>0</i>.png" in tag["title"] for tag in images)
    assert len([tag for tag in page.all("img") if tag.get("alt", "").startswith("Mean of")]) == len(NAMES)


def test_names_are_escaped():
    text = render_data_page(*make())
    assert "<b>bee</b>" not in text
    assert "<script>alert(1)" not in text
    assert "<i>" not in text.replace("<i style", "")
    assert "\u202e" not in text


def test_channel_values():
    found, train = make()
    page = parsed(render_data_page(found, train))
    mean, std = train.images.mean(axis=(0, 1, 2)) / 255, train.images.std(axis=(0, 1, 2)) / 255
    for value in [*mean, *std]:
        assert f"{value:.4f}" in page.text


def test_the_map_lists_marked_images_with_their_neighbors():
    found, train = make(("ant", "bee"))
    page = parsed(render_data_page(found, train))
    assert page.data["marked"] == [0, 7]
    assert page.data["other"][0] == 1 - page.data["labels"][0]
    assert len(page.data["points"]) == 60
    assert "8 of 10" in page.text


def test_more_images_of_a_class_are_folded():
    page = parsed(render_data_page(*make(("ant",), count=40, marked=())))
    assert f"{40 - SHOWN} more" in page.text
    assert "more of" not in page.text
    assert len(page.all("details")) == 1
    assert "Outlined," not in page.text


def test_the_page_says_how_many_images_it_does_not_show():
    found, train = make(("ant",), count=40, marked=())
    row = replace(found.counts[0], counts={"train": 297})
    page = parsed(render_data_page(replace(found, counts=(row,)), train))
    assert f"{40 - SHOWN} more of 297" in page.text


def test_superclasses_form_a_tree():
    groups = {name: "insects" if name in ("ant", "bee") else "mammals" for name in ("ant", "bee", "cow")}
    page = parsed(render_data_page(*make(("ant", "cow", "bee"), superclasses=groups)))
    lists = [tag for tag in page.all("ul") if tag.get("class") == "tree"]
    assert len(lists) == 1
    assert "2 classes" in page.text
    assert "3 in 2 superclasses" in page.text


def test_photographs_of_many_sizes():
    page = parsed(render_data_page(*make(sizes={(400, 300): 30, (300, 400): 20, (500, 500): 15})))
    assert "Width and height in pixels" in page.text
    assert "3 different sizes" in page.text
    assert "Portrait" in page.text
    assert "400×300" in page.text
    assert "cuts off the ends of 50 of 65 images: 25\u00a0% of the longer side" in page.text


def test_sizes_that_are_all_different_are_described_by_their_range():
    page = parsed(render_data_page(*make(sizes={(300 + 7 * number, 200 + number): 1 for number in range(65)})))
    assert "Most frequent" not in page.text
    for text in ("Smallest", "300×200", "Median", "Largest", "748×264"):
        assert text in page.text
    page = parsed(render_data_page(*make(sizes={(300 + number, 200): 1 for number in range(500)})))
    assert "the chart shows 400 of them" in page.text


def test_the_first_images_of_a_class_are_shown_from_their_originals():
    found, train = make(("ant", "bee"), count=80, side=128)
    wanted = original_positions(found, train)
    assert len(wanted) == len(set(wanted))
    random = np.random.default_rng(1)
    smooth = random.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(75, 0).repeat(80, 1)  # 300×400
    gone = wanted[3]
    originals = {position: smooth for position in wanted if position != gone}
    page = parsed(render_data_page(found, train, originals=originals))
    assert "shown whole" in page.text
    position_of = {f"image-{place}": int(position) for place, position in enumerate(found.sample)}
    sides = {position_of[tag["id"]]: size_of(tag["src"]) for tag in page.all("img") if tag.get("id") in position_of}
    assert len(sides) == 80
    first = {*found.sample[:SHOWN].tolist(), *found.sample[40 : 40 + SHOWN].tolist()}
    assert first <= set(wanted)
    for position, size in sides.items():
        assert size == ((400, 300) if position in originals else (128, 128))
    assert "shown whole" not in parsed(render_data_page(found, train)).text


def size_of(source):
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, None),
        ({(32, 32): 9, (100, 95): 3}, None),
        ({(400, 300): 3, (300, 400): 2, (200, 200): 5}, (5, 10, 0.25, 0.25)),
        ({(400, 300): 1, (200, 100): 4, (100, 1000): 1}, (6, 6, 0.5, 0.9)),
    ],
)
def test_what_a_central_crop_cuts_off(sizes, expected):
    found = cut_ends(sizes)
    assert (found and (found.images, found.total, found.median, found.most)) == expected


def test_data_without_files_sizes_or_marked_images():
    found, train = make(("ant",), count=1, sizes={}, files=False, marked=())
    page = parsed(render_data_page(found, train))
    assert "row 0" in page.all("img")[1]["title"]


def test_augmented_samples():
    found, train = make(("ant", "bee"))
    samples = SimpleNamespace(
        originals=train.images[:2],
        augmented=np.stack([train.images[:3], train.images[3:6]]),
        targets=np.tile(np.array([0.75, 0.25], dtype=np.float32), (2, 3, 1)),
        labels=train.labels[:2],
    )
    page = parsed(render_data_page(found, train, samples=samples, recipe="<fast>"))
    assert "<fast>" in page.text
    assert "Augmented images" in page.text
    assert "75\u202f% ant" in page.text or "75 % ant" in page.text.replace("\u00a0", " ")


@pytest.mark.long
def test_a_large_data_set_stays_small():
    names = [f"kind {number}" for number in range(300)]
    groups = {name: f"group {number // 10}" for number, name in enumerate(names)}
    assert len(render_data_page(*make(names, count=1500, side=32, superclasses=groups))) < 15_000_000
    assert len(render_data_page(*make(names[:9], count=600, side=128))) < 15_000_000


@pytest.mark.long
@pytest.mark.parametrize("classes", [3, 60, 300])
def test_a_page_of_photographs_with_originals_stays_small(classes):
    """Of noise, which takes more bytes than any photograph."""
    names = [f"kind {number}" for number in range(classes)]
    groups = {name: f"group {number // 10}" for number, name in enumerate(names)}
    found, train = make(names, count=1000, side=128, superclasses=groups, marked=range(40))
    original = np.random.default_rng(2).integers(0, 256, (512, 384, 3), dtype=np.uint8)
    originals = dict.fromkeys(original_positions(found, train), original)
    text = render_data_page(found, train, originals=originals)
    assert 4_000_000 < len(text.encode()) < 15_000_000


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
def test_page_in_a_browser(tmp_path, chromium, width, accessibility):
    playwright = pytest.importorskip("playwright.sync_api")
    long = ["kind_" + "x" * 70, *(f"kind {number}" for number in range(29))]
    found, train = make(long, count=900, superclasses={name: f"{name[:20]} group" for name in long})
    path = tmp_path / "data.html"
    path.write_text(render_data_page(found, train), encoding="utf-8")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 760}, has_touch=width < 500)
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for link in page.locator("nav a").all():
            link.click()
            assert page.url.endswith(link.get_attribute("href"))
        names = page.locator("#classes tbody th")
        page.locator("#classes thead button").first.click()
        assert names.first.text_content().startswith("kind 0")
        page.locator("#classes thead button").first.click()
        assert names.last.text_content().startswith("kind 0")
        details = page.locator("details").first
        hidden = details.locator("img").first
        assert not hidden.is_visible()
        details.locator("summary").click()
        assert hidden.is_visible()
        place = 437
        _point_at(page, found, place, touch=width < 500)
        tip = page.locator("#map-tip")
        assert tip.is_visible()
        assert tip.locator("b").text_content() == long[int(train.labels[found.sample[place]])]
        assert tip.locator("span").first.text_content() == train.name_of(int(found.sample[place]))
        shown = page.locator(f"#image-{place}").get_attribute("src")
        assert tip.locator("img").get_attribute("src") == shown
        page.locator("svg.map").focus()
        page.keyboard.press("ArrowRight")
        assert "8 of 10 neighbors" in tip.text_content()
        page.select_option("#map-class", label="kind 3")
        assert page.locator("svg.map.dim #map-chosen path").count() == 2
        page.locator(".chips button.ring").click()
        assert page.locator(".chips button[aria-pressed=true]").count() == 1
        assert page.evaluate("document.getElementById('map-class').value") == ""
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert problems == []
        assert not accessibility(page)
        browser.close()


@pytest.mark.long
@pytest.mark.browser
def test_images_are_enlarged_by_the_keyboard(tmp_path, chromium):
    playwright = pytest.importorskip("playwright.sync_api")
    found, train = make(("ant", "bee"), count=80, side=128)
    original = np.zeros((300, 400, 3), dtype=np.uint8)
    originals = dict.fromkeys(original_positions(found, train), original)
    path = tmp_path / "data.html"
    path.write_text(render_data_page(found, train, originals=originals), encoding="utf-8")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.as_uri())
        dialog = page.locator("#enlarged")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.strip') !== null"):
                break
        first = page.evaluate("document.activeElement.id")
        assert first == "image-0"
        page.keyboard.press("Enter")
        assert dialog.is_visible()
        shown = dialog.locator("img")
        page.wait_for_function("document.querySelector('#enlarged img').naturalWidth === 400")
        assert shown.bounding_box()["width"] >= 400
        title = page.locator("#enlarged-title")
        before = title.inner_text()
        page.keyboard.press("ArrowRight")
        assert title.inner_text() != before
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert page.evaluate("document.activeElement.id") == "image-1"
        page.locator("details summary").first.click()
        page.locator("details").first.locator("img").last.click()
        page.wait_for_function("document.querySelector('#enlarged img').naturalWidth === 128")
        page.wait_for_function("document.querySelector('#enlarged img').clientWidth === 384")  # less blurred
        browser.close()


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_charts_are_legible_and_not_too_large(tmp_path, chromium, width):
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "data.html"
    path.write_text(render_data_page(*make(sizes={(400, 300): 30, (300, 400): 20, (500, 500): 15})), encoding="utf-8")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto(path.as_uri())
        widths = page.locator("svg.chart").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
        assert len(widths) == 7
        assert all(250 <= one <= 490 for one in widths), widths
        assert page.locator("svg.map").bounding_box()["height"] <= 800
        assert page.evaluate("document.documentElement.scrollWidth") == width
        browser.close()


def _point_at(page, found, place, *, touch):
    """Move the pointer to a point of the map, or tap it."""
    page.evaluate("document.querySelector('svg.map').scrollIntoView({ behavior: 'instant', block: 'center' })")
    box = page.locator("svg.map").bounding_box()
    x, y = (
        box[side] + (20 + float(found.map.points[place][axis]) * 960) * box["width"] / 1000
        for axis, side in enumerate("xy")
    )
    if touch:
        page.touchscreen.tap(x, y)
    else:
        page.mouse.move(x, y)
