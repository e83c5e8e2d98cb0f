"""The page of a diagnosis: complete, well-formed, escaped, small, and usable in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thirtytwo.cli.main import run_command
from thirtytwo.data.types import DataSet, ImageSet
from thirtytwo.doctor import CHECKS, Check, Diagnosis, Finding, Place, Subject, diagnose
from thirtytwo.doctor.checks.exact_conflicts import ExactConflicts
from thirtytwo.doctor.checks.left_out import LeftOut
from thirtytwo.doctor.checks.unreadable import Unreadable
from thirtytwo.doctor.page import (
    IMAGE_BUDGET,
    MAX_FILES,
    MAX_FINDINGS,
    MAX_GROUPS,
    MAX_MEMBERS,
    extent,
    render_diagnosis,
)

LARGEST = 15_000_000
VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Checks that tags close in order; gathers tags and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {str(link["href"]).removeprefix("#") for link in self.all("a")} <= set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())


def smooth(count: int, side: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Different images, uint8 `(N, side, side, 3)`, that compress about as photographs do."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in small])


def subject_of(count: int, side: int = 8, classes: tuple[str, ...] = ("ant", "bee"), files: bool = False) -> Subject:
    """A data set of `count` training and 10 test images, whose labels take turns."""

    def part(number: int, seed: int) -> ImageSet:
        labels = np.arange(number, dtype=np.int64) % len(classes)
        names = tuple(f"{classes[label]}/<b>{place}.png" for place, label in enumerate(labels)) if files else None
        return ImageSet(smooth(number, side, seed), labels, classes, np.arange(number, dtype=np.int64), names)

    return Subject(DataSet("insects", part(count, 0), None, part(10, 1), "x"))


def diagnosis_of(subject: Subject, *findings: Finding) -> Diagnosis:
    return Diagnosis("insects", subject, findings, tuple(CHECKS))


def pairs(count: int) -> list[tuple[Place, Place]]:
    return [(Place("train", 2 * number), Place("train", 2 * number + 1)) for number in range(count)]


@pytest.fixture
def folder(make: Any, tmp_path: Path) -> Path:
    """Three classes, one of them named like a tag; two pairs of equal images, one across splits and classes."""
    bad = "<script>alert(1)<"
    root = make.tree(
        tmp_path / "set",
        {"train/ant": 12, "train/bee": 12, f"train/{bad}": 12, "test/ant": 4, "test/bee": 4, f"test/{bad}": 4},
        side=24,
    )
    (root / "train/ant/<script>x.png").write_bytes((root / "train/bee/5.png").read_bytes())
    (root / "test/bee/copy.png").write_bytes((root / f"train/{bad}/7.png").read_bytes())
    return root


@pytest.mark.slow
def test_findings_with_their_images_side_by_side(folder: Path) -> None:
    diagnosis = diagnose(str(folder))
    page = Page(render_diagnosis(diagnosis))
    assert {"T101", "T102"} <= {finding.code for finding in diagnosis.findings}
    for finding in diagnosis.findings:
        assert finding.code in {section.get("id") for section in page.all("section")}
        for words in (finding.what, finding.fix, finding.check.why):
            assert " ".join(words.split()) in page.words
    shown = sum(len(group) for finding in diagnosis.findings for group in finding.groups)
    images = page.all("img")
    assert len(images) == shown
    assert all(str(image["src"]).startswith("data:image/") and "pixel" in str(image["class"]) for image in images)
    assert all(image["width"] == image["height"] == "24" for image in images)
    across = page.words[page.words.index("Exact duplicates across splits") :]
    assert re.search(r"1 labels differ · across splits.*train .*/7.png bee test .*bee/copy.png", across)
    assert "Images50 train 37, test 13" in page.text.replace("\n", "")
    for check in map(CHECKS.get, CHECKS):
        assert check.title.lower() in page.words.lower(), check.code


@pytest.mark.slow
def test_texts_of_the_data_are_escaped(folder: Path) -> None:
    text = render_diagnosis(diagnose(str(folder)))
    assert text.count("<script>") == 1
    assert "&lt;script&gt;x.png" in text
    assert "&lt;script&gt;alert(1)&lt;" in text

    class Rude(Check):
        code, title, severity = "X101", '</h2>"><script>1', "warning"
        why, fix = "<script>2", "<script>3"

        def run(self, subject: Subject) -> Iterator[Finding]:
            return iter(())

    subject = subject_of(4, classes=("</script><script>4", '"><img src=x>'), files=True)
    found = Rude.finding("<script>5", pairs(1), notes=["<script>6"], files=["<script>7"])
    single = Rude.finding("<script>8", [pairs(1)[0][:1]], notes=["<script>9"])
    page = render_diagnosis(Diagnosis("<script>", subject, (found, single), ()))
    assert page.count("<script>") == 1
    assert page.count("<img") == len(Page(page).all("img")) == 3
    for number in range(1, 10):
        assert f"&lt;script&gt;{number}" in page


@pytest.mark.slow
def test_nothing_comes_from_the_network(folder: Path) -> None:
    text = render_diagnosis(diagnose(str(folder)))
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=\"(?!data:image/|#)", text)
    assert not re.search(r"url\(|@import|https?://", text)


@pytest.mark.slow
def test_long_lists_are_cut_and_say_so() -> None:
    subject = subject_of(400)
    large = tuple(Place("train", position) for position in range(50))
    page = Page(
        render_diagnosis(
            diagnosis_of(
                subject,
                ExactConflicts.finding("Pairs.", pairs(120)),
                ExactConflicts.finding("One large group.", [large]),
                LeftOut.finding("Files.", files=[f"{number}.txt" for number in range(1234)]),
                *(Unreadable.finding(f"File {number}.") for number in range(1000)),
            )
        )
    )
    for words in (
        f"Showing {MAX_GROUPS} of 120 groups, all in the CSV (--format csv).",
        f"Showing {MAX_FILES} of 1,234 files, all in the CSV (--format csv).",
        f"Showing {MAX_FINDINGS} of 1,000 findings, all in the JSON (--format json).",
        f"{MAX_MEMBERS} of 50 images shown",
        "121 groups, 290 images",
    ):
        assert words in page.words
    assert len(page.all("img")) == 2 * MAX_GROUPS + MAX_MEMBERS


def test_clean_data_lists_the_checks_that_ran() -> None:
    page = Page(render_diagnosis(Diagnosis("insects", subject_of(20), (), ("T101", "T102", "T201"))))
    assert "No findings: 3 checks found nothing to correct." in page.words
    assert "All of these checks ran, and none of them found anything." in page.words
    assert page.words.index("exact duplicates across splits") < page.words.index("Not run")
    assert page.words.index("outliers (--thorough)") > page.words.index("Not run")
    assert page.all("img") == []


def test_data_that_cannot_be_used_has_a_page(make: Any, tmp_path: Path) -> None:
    page = Page(render_diagnosis(diagnose(str(make.tree(tmp_path / "set", {"a": 3})))))
    assert "This data cannot be used" in page.words
    assert "one class, 'a'" in page.words
    assert "Checks0 run" in page.text.replace("\n", "")


@pytest.mark.long
@pytest.mark.parametrize("side", [32, 320])
def test_a_page_full_of_findings_stays_small(side: int) -> None:
    name = "a long <name> " * 100
    subject = subject_of(2_000 if side == 32 else 300, side, classes=(name + "1", name + "2"), files=True)
    most = len(subject.splits["train"]) // 2
    groups = (pairs(most) * 100)[:2_000]
    findings = [
        CHECKS.get(code).finding("<what> " * 2000, groups, notes=[name] * len(groups), files=[name] * 500)
        for code in CHECKS
    ]
    text = render_diagnosis(diagnosis_of(subject, *findings))
    page = Page(text)
    assert sum(len(str(image["src"])) for image in page.all("img")) <= IMAGE_BUDGET
    assert len(page.all("img")) > 500
    assert len(text.encode()) < LARGEST


def test_images_are_shown_as_their_files_are(make: Any, tmp_path: Path) -> None:
    root = make.tree(tmp_path / "set", {"a": 12, "b": 12})
    wide = Image.fromarray(smooth(1, 400)[0]).resize((600, 200))
    for name in ("a/wide.jpg", "b/wide.jpg"):
        wide.save(root / name)
    page = Page(render_diagnosis(diagnose(str(root), only=["T102"])))
    shown = page.all("img")
    assert [(image["width"], image["height"]) for image in shown] == [("320", "107")] * 2
    assert all("pixel" not in str(image.get("class")) for image in shown)
    assert re.search(r"a (train|test) a/wide\.jpg", page.words)


def run(*arguments: object) -> int:
    return run_command(["data", "doctor", *map(str, arguments)])


@pytest.mark.slow
def test_command_writes_the_page_before_it_ends(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table = tmp_path / "new/page.html", tmp_path / "findings.csv"
    assert run(folder, "--only", "T102", "--fail-on", "warning", "--html", page) == 3
    output = capsys.readouterr()
    assert "T102" in output.out
    assert str(page) in output.err
    assert "T102" in Page(page.read_text(encoding="utf-8")).words
    before = page.read_bytes()
    assert run(folder, "--only", "T101", "--html", page) == 2
    assert page.read_bytes() == before
    assert run(folder, "--only", "T101", "--html", page, "--format", "csv", "--out", table, "--force") == 0
    assert page.read_bytes() != before
    assert table.read_text().startswith("code,severity")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", ["set", "set/train/ant/0.png/page.html", "same"])
def test_files_that_cannot_be_written_are_named_before_the_examination(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thirtytwo.doctor.diagnose", lambda *_, **__: pytest.fail("was examined"))
    more = ["--out", tmp_path / "same"] if name == "same" else []
    assert run(folder, "--html", tmp_path / name, *more) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_the_library_for_pages_is_needed_before_the_examination(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    monkeypatch.setattr("thirtytwo.doctor.diagnose", lambda *_, **__: pytest.fail("was examined"))
    assert run(folder, "--html", tmp_path / "page.html") == 2
    assert "thirtytwo[train]" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.fixture
def opened(folder: Path, tmp_path: Path, chromium: str) -> Iterator[Callable[..., Any]]:
    """A function that opens the page of the folder in a browser; nothing may be logged or requested."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "page.html"
    path.write_text(render_diagnosis(diagnose(str(folder))), encoding="utf-8")
    problems: list[str] = []
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])

        def open_page(**options: Any) -> Any:
            page = browser.new_page(**options)
            page.on("console", lambda message: problems.append(message.text))
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda request: problems.append(request.url) if "http" in request.url[:5] else None)
            page.goto(path.as_uri())
            return page

        yield open_page
        browser.close()
    assert problems == []


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(
    "options",
    [
        {"viewport": {"width": 1280, "height": 900}},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"},
    ],
    ids=["desktop", "phone"],
)
def test_page_in_a_browser(
    options: dict[str, Any], opened: Callable[..., Any], accessibility: Callable[[Any], list[str]]
) -> None:
    page = opened(**options)
    wide = options["viewport"]["width"]
    assert page.evaluate("document.documentElement.scrollWidth") == wide
    page.locator("table.contents a", has_text="exact duplicates with different labels").click()
    assert page.url.endswith("#T102")
    group = page.locator("#T102 .group", has_text="<script>x.png")
    boxes = group.locator("img").evaluate_all("images => images.map(image => image.getBoundingClientRect().toJSON())")
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["right"] <= boxes[1]["left"]
    group.locator("button").nth(1).click()
    viewer = page.locator("#viewer")
    assert viewer.is_visible()
    assert page.locator("#viewer-title").inner_text() == "T102 exact duplicates with different labels"
    assert page.locator("#viewer-count").inner_text() == "2 of 2 shown · labels differ"
    large = viewer.locator("img").nth(1).bounding_box()
    assert large["width"] > 1.4 * boxes[1]["width"]
    assert page.evaluate("[...document.querySelectorAll('#viewer img')].every(image => image.naturalWidth === 24)")
    assert viewer.locator("figcaption").first.inner_text().split() == ["ant", "train", "train/ant/<script>x.png"]
    assert page.evaluate("document.documentElement.scrollWidth") == wide
    viewer.get_by_text("Next").click()
    assert page.locator("#viewer-count").inner_text() == "1 of 2 shown · labels differ · across splits"
    page.keyboard.press("ArrowRight")
    assert page.locator("#viewer-count").inner_text().startswith("2 of 2")
    viewer.get_by_text("Close").click()
    assert not viewer.is_visible()
    dark = options.get("color_scheme") == "dark"
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", color))) < 384) == dark
    assert not accessibility(page)


def test_findings_of_text_alone_with_the_same_advice_are_one() -> None:
    files = [Unreadable.finding(f"{number}.png is damaged.", fix="Copy it again.") for number in range(3)]
    page = render_diagnosis(diagnosis_of(subject_of(4), *files, Unreadable.finding("x.png is empty.", fix="Drop it.")))
    assert page.count("is damaged.") == 3
    assert page.count("Copy it again.") == 1
    assert page.count('<article class="finding">') == 2


def test_further_groups_are_folded() -> None:
    page = render_diagnosis(diagnosis_of(subject_of(60), ExactConflicts.finding("Copies.", pairs(20))))
    before, folded = page.split("<summary>14 more groups</summary>")
    assert before.count('<li class="group') == 6
    assert folded.count('<li class="group') == 14
    assert "<summary>" not in render_diagnosis(diagnosis_of(subject_of(60), ExactConflicts.finding("Few.", pairs(8))))


def test_images_of_a_large_group_show_each_label_and_split() -> None:
    subject = subject_of(60)
    group = [*(Place("train", position) for position in range(0, 60, 2)), Place("train", 1), Place("test", 0)]
    chosen = subject.typical(group, 4)
    assert chosen == (Place("train", 0), Place("train", 2), Place("train", 1), Place("test", 0))
    assert subject.typical(group[:2], 4) == tuple(group[:2])


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ({"images": 60}, "60 images"),
        ({"classes": 2}, "2 classes"),
        ({"groups": [[Place("train", 0), Place("train", 1)]] * 2}, "2 groups, 4 images"),
        ({}, "1 finding"),
    ],
)
def test_every_problem_has_an_extent(finding: dict[str, Any], expected: str) -> None:
    assert extent([LeftOut.finding("Something.", **finding)]) == expected


@pytest.mark.slow
def test_the_table_of_problems_has_no_empty_cell(make: Any, tmp_path: Path) -> None:
    counts = {"train/a": 30, "train/b": 2, "train/B": 1, "test/a": 3, "test/b": 1, "test/B": 1}
    root = make.tree(tmp_path / "set", counts)
    Image.new("RGB", (60, 10), "red").save(root / "train/a/long.png")
    page = render_diagnosis(diagnose(str(root)))
    cells = re.findall(r'<td class="n">([^<]*)</td>', page)
    assert len(cells) > 5
    assert all(cells)
