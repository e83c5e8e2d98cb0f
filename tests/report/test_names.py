"""Class names as people have them: any script, and long ones."""

from __future__ import annotations

import json
import logging
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from thirtytwo.images import fonts
from thirtytwo.report import charts
from thirtytwo.report.card import card
from thirtytwo.report.figures import draw_confusion, save_figures
from thirtytwo.report.page import render
from thirtytwo.report.run_record import read_run_record
from thirtytwo.text import abbreviate, readable, readable_names

LONG = [f"{'a very long name of a class of mushrooms, as of botanists, no ' * 2}{end}"[-62:] for end in ("one", "two")]
FRONT = [f"{end} {'name of a class of mushrooms, as botanists write them in full'}" for end in ("one", "two")]


@pytest.mark.parametrize(
    "names",
    [LONG, FRONT, ["x" * 62, "x" * 61, "x" * 60], ["cat", "dog"], [], [f"{'a' * 40}{i}{'b' * 40}" for i in range(30)]],
)
@pytest.mark.parametrize("most", [12, 30])
def test_abbreviations_distinguish(names: list[str], most: int) -> None:
    short = abbreviate(names, most)
    assert len(set(short)) == len(names)
    assert all(len(name) <= most + 5 for name in short)
    assert [label for label, name in zip(short, names, strict=True) if len(name) <= most] == [
        name for name in names if len(name) <= most
    ]


@pytest.mark.parametrize(
    ("names", "package"),
    [
        (["猫"], "fonts-noto-cjk"),
        (["고양이"], "fonts-noto-cjk"),
        (["ねこ"], "fonts-noto-cjk"),
        (["ᚠ", "𒀀"], "fonts-noto-core"),
    ],
)
def test_missing_characters_are_named_with_a_package(
    names: list[str], package: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_installed", list)
    monkeypatch.setattr(fonts, "_characters", lambda path: frozenset())
    with caplog.at_level(logging.WARNING):
        assert fonts.font_families(names) == [fonts.DEFAULT]
    assert package in caplog.text
    assert names[0][0] in caplog.text


@pytest.mark.parametrize("name", ["кошка", "قطة", "cat", "größe"])
def test_own_font_is_enough(name: str, caplog: pytest.LogCaptureFixture) -> None:
    assert fonts.font_families([name]) == [fonts.DEFAULT]
    assert not caplog.text


def test_an_installed_font_is_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: [("Other", "other"), ("Noto Sans CJK JP", "cjk")])
    monkeypatch.setattr(fonts, "_characters", lambda path: frozenset("猫고양이") if path == "cjk" else frozenset())
    assert fonts.font_families(["猫", "고양이"]) == [fonts.DEFAULT, "Noto Sans CJK JP"]
    assert not caplog.text


def test_names_that_would_look_the_same_stay_as_they_are() -> None:
    assert readable_names(["sweet_pepper", "oak", "red_fox"]) == ["sweet pepper", "oak", "red fox"]
    assert readable_names(["sweet_pepper", "sweet pepper", "a_b"]) == ["sweet_pepper", "sweet pepper", "a b"]


@pytest.mark.slow
def test_people_read_names_without_underscores(make_run, images_of) -> None:  # type: ignore[no-untyped-def]
    classes = ("sweet_pepper", "lawn_mower", "oak_tree", "bee", "ant", "cow")
    groups = dict.fromkeys(classes, "small_things") | {"cow": "large_things"}
    run, given = make_run(classes, superclasses=groups)
    record = read_run_record(run)
    card_text = card(record).split("---\n", 2)[2]
    page = re.sub(r"<pre>.*?</pre>", "", render(record, images_of(given)), flags=re.DOTALL)
    for name in (*classes, "small_things", "large_things"):
        for output in (page, card_text) if name in classes else (page,):
            assert readable(name) in output
            assert name not in output or "_" not in name, output[max(0, output.find(name) - 80) :][:160]
    assert [row["class"] for row in run.read_json(run.metrics)["per_class"]] == list(classes)


@pytest.mark.slow
def test_matrix_keeps_its_size_beside_long_names(make_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    record = read_run_record(make_run()[0])
    own, widths = record.classes, []
    for names in (None, LONG[:1]):
        classes = tuple(f"{name} {'x' * 58 if names else ''}".strip() for name in own)
        object.__setattr__(record.predictions, "classes", classes)
        figure = draw_confusion(record)
        save_figures(tmp_path, [("confusion", lambda figure=figure: figure)])
        axes = figure.axes[0]
        widths.append(float(np.ptp(axes.get_window_extent().get_points()[:, 0])))
    assert widths[1] > 0.7 * widths[0]


@pytest.mark.slow
def test_control_characters_leave_figures_readable(make_run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from thirtytwo.report.figures import drawings_of
    from thirtytwo.report.run_record import read_run_record

    record = read_run_record(make_run(("a\x1bb", "c\u202ed", "e--f -->"))[0])
    for path in save_figures(tmp_path, drawings_of(record), record.classes, [".svg"]):
        ElementTree.parse(path)


@pytest.mark.slow
def test_numbers_are_readable_on_every_cell(make_run) -> None:  # type: ignore[no-untyped-def]
    from matplotlib.colors import to_rgb

    def luminance(color: tuple[float, ...]) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    axes = draw_confusion(read_run_record(make_run()[0])).axes[0]
    assert axes.texts
    for text in axes.texts:
        column, row = map(int, text.get_position())
        images = [one for one in axes.images if not np.ma.getmaskarray(one.get_array())[row, column]]
        assert len(images) == (text.get_text() != "0")
        colors = [image.cmap(image.norm(image.get_array()[row, column])) for image in images]
        cell = luminance(to_rgb((colors or [axes.get_facecolor()])[0][:3]))
        low, high = sorted((cell, luminance(to_rgb(text.get_color()))))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_numbers_of_the_page_are_readable_on_every_cell() -> None:
    style = (Path(charts.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
    for scheme, block in zip(charts.CELLS, style.split("prefers-color-scheme: dark", 1), strict=True):
        for name, color in zip(("accent", "warm", "card"), charts.CELLS[scheme], strict=True):
            assert f"--{name}: {color};" in block
    assert charts._number_tone(True, 0.1) == "light-black dark-white"
    assert charts._number_tone(True, 1.0) == "light-white dark-black"


def test_fonts_of_placeholders_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    """Matplotlib brings a font that has a box for every character."""
    unassigned = "\U0003abcd"
    assert fonts.font_families([unassigned]) == [fonts.DEFAULT]
    assert "fonts-noto-core" in caplog.text


def test_cells_of_names_with_invisible_characters_lead_to_their_images(make_run, images_of) -> None:  # type: ignore[no-untyped-def]
    """The script of the page finds classes of the matrix among those of the images by their name."""
    classes = ("a\u202eb", "soft\u00adhyphen", "a\x1bb", "cat")
    groups = dict.fromkeys(classes, "zero\u200bwidth") | {"cat": "beasts"}
    run, given = make_run(classes, superclasses=groups)
    page = render(read_run_record(run), images_of(given))
    album = json.loads(re.search(r'id="album">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    for of in ("classes", "groups"):
        (names,) = re.findall(rf'data-of="{of}" data-names="([^"]*)"', page)
        assert sorted(json.loads(unescape(names))) == sorted(album[of])
