"""A comparison: what it finds in runs, and its page, Markdown and JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import DataError, ModelFileError, OutputError, RunError, ThirtytwoError
from thirtytwo.evaluation.metrics import METRICS
from thirtytwo.evaluation.statistics import mcnemar
from thirtytwo.report.charts import Row, interval_chart
from thirtytwo.report.comparison_tables import (
    answers,
    metrics_table,
    pairs_table,
    seeds_verdict,
    verdict,
)
from thirtytwo.report.seeds import summarize, write_summary
from thirtytwo.rundir import RunDir
from thirtytwo.text import percent
from thirtytwo.workflows.compare import compare

VOID = {"meta", "br", "img", "link", "input", "hr"}
NASTY = ("<b>red</b>", "gr|een & `co`", "</script><script>alert(1)</script>")
Maker = Callable[..., Path]


class Page(HTMLParser):
    """Checks that tags close in order; gathers tags and text."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.problems == []
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing, at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def two(finished_run: Maker, tmp_path: Path) -> list[Path]:
    """A weak run and a good one, with recipes that differ."""
    weak = finished_run(tmp_path / "weak", seed=1, skill=1.0)
    return [weak, finished_run(tmp_path / "good", seed=2, skill=3.0, settings={"augment": {"cutout": 8}})]


@pytest.mark.long
def test_two_runs(two: list[Path], tmp_path: Path) -> None:
    found = compare(two, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "comparison.html",
        "comparison.json",
        "comparison.md",
    ]
    assert [(run.letter, run.name) for run in found.runs] == [("A", "good"), ("B", "weak")], "the best comes first"
    (pair,) = found.pairs
    right = [run.predictions.predicted == run.predictions.truth for run in found.runs]
    counts = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    assert (pair.test.only_first, pair.test.only_second) == counts
    assert pair.test.p_value == pair.p_adjusted == mcnemar(*counts)[0]
    assert pair.test.difference == pytest.approx(found.runs[0].accuracy - found.runs[1].accuracy)
    assert found.settings == {"seed": [2, 1], "augment.cutout": [8, 0]}
    assert found.groups == ()
    assert verdict(found).startswith("A is more accurate than B: +")
    assert found.page is not None
    page = Page(found.page)
    text = (tmp_path / "out" / "comparison.md").read_text()
    for run in found.runs:
        for value in (
            percent(run.accuracy),
            "1.97\u00a0million",
            "81.00\u00a0million",
            "1\u00a0min 41\u00a0s",
            run.name,
        ):
            assert value in page.text
            assert value.replace("\u00a0", " ") in text.replace("\u00a0", " ")
    assert "augment.cutout" in page.text
    assert verdict(found) in page.text


@pytest.mark.slow
def test_json_holds_all_numbers(two: list[Path], tmp_path: Path) -> None:
    found = compare(two, out=tmp_path / "out")
    numbers = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert numbers == json.loads(json.dumps(found.as_dict()))
    assert numbers["n"] == 240
    scores = RunDir(two[1]).read_json(RunDir(two[1]).metrics)
    assert numbers["runs"][0]["accuracy"] == scores["accuracy"]
    assert {"parameters", "flops", "seconds_train", "model_bytes", "milliseconds"} <= numbers["runs"][0].keys()
    assert numbers["pairs"][0]["mcnemar_mid_p"] == found.pairs[0].test.p_value


@pytest.mark.slow
def test_verdict_without_significant_difference(finished_run: Maker, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"run{seed}", seed=seed, skill=2.0) for seed in (3, 4)]
    found = compare(runs, out=tmp_path / "out")
    assert found.pairs[0].test.p_value > 0.05
    assert verdict(found).startswith("No significant difference between A and B on 240 images: ")


@pytest.mark.slow
def test_best_of_each_metric_is_marked(two: list[Path], tmp_path: Path) -> None:
    found = compare(two, out=tmp_path / "out")
    lower = {metric.name for metric in METRICS if metric.lower_is_better}
    assert len(lower) == 3
    for row in metrics_table(found).rows:
        values = [cell.value for cell in row[1:] if cell.value is not None]
        best = min(values) if row[0].text in lower else max(values)
        assert [cell.value for cell in row[1:] if cell.best] == [best]


@pytest.mark.slow
def test_seeds_are_grouped(finished_run: Maker, tmp_path: Path) -> None:
    for name, skill in (("one", 3.0), ("two", 1.5)):
        for seed in (0, 1, 2):
            settings = {"augment": {"cutout": 8 if name == "one" else 0}}
            finished_run(
                tmp_path / name / f"seed{seed}", seed=seed + (name == "two") * 10, skill=skill, settings=settings
            )
        write_summary(tmp_path / name, summarize(tmp_path / name, "colours", [0, 1, 2], {}))
    finished_run(tmp_path / "two" / "seed3", seed=99)
    (tmp_path / "two" / "seed3" / "metrics.json").unlink()
    write_summary(tmp_path / "two", summarize(tmp_path / "two", "colours", [0, 1, 2, 3], {}))
    found = compare([tmp_path / "two", tmp_path / "one"], out=tmp_path / "out")
    assert {run.name for run in found.runs[:3]} == {"one/seed0", "one/seed1", "one/seed2"}
    assert [len(group.members) for group in found.groups] == [3, 3]
    values = [run.accuracy for run in found.runs if run.name.startswith("one/")]
    first = found.groups[0].statistics["accuracy"]
    assert (first.mean, first.std, first.n) == pytest.approx((np.mean(values), np.std(values, ddof=1), 3))
    assert len(found.pairs) == 15
    assert seeds_verdict(found).startswith(
        "Over seeds, fast (A, B, C) has a higher mean accuracy than fast (D, E, F): +"
    )
    assert "seed 3" in found.notices[0]
    assert found.page is not None
    text = Page(found.page).text
    for part in ("n = 3", "Welch", "p, Holm", "Accuracy over seeds"):
        assert part in text, part
    assert re.search(r"Only [A-F] is wrong: ", text)
    assert "± " in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.slow
def test_names_are_escaped(finished_run: Maker, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"a <i>{seed}", seed=seed, classes=NASTY, skill=0.5) for seed in (0, 1)]
    found = compare(runs, out=tmp_path / "out")
    assert found.page is not None
    page = Page(found.page)
    assert len(page.all("script")) == 1
    html = found.page.read_text()
    assert "<b>red" not in html
    assert "<script>alert" not in html
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "<b>" not in re.sub(r"\\<", "", text)
    assert "gr\\|een" in text
    for name in NASTY:
        assert name in page.text


@pytest.mark.slow
def test_page_loads_nothing_from_the_network(two: list[Path], tmp_path: Path) -> None:
    found = compare(two, out=tmp_path / "out")
    assert found.page is not None
    page = Page(found.page)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "xlink:href", "srcset"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("data:image/png;base64,", "#")), attributes
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {(link["href"] or "").removeprefix("#") for link in page.all("a")} <= ids


@pytest.fixture
def runs_with_images(finished_run: Maker, tmp_path: Path) -> list[Path]:
    """Three runs on the embedded digits, whose images are available."""
    data = load_dataset("digits")
    assert data.test is not None
    record: dict[str, Any] = {"spec": "digits", "name": "digits", "fingerprint": data.fingerprint}
    return [
        finished_run(
            tmp_path / f"run{seed}",
            seed=seed,
            classes=data.classes,
            truth=data.test.labels,
            rows=data.test.rows,
            data=record,
        )
        for seed in range(3)
    ]


@pytest.mark.slow
def test_images_of_disagreements_are_shown(runs_with_images: list[Path], tmp_path: Path) -> None:
    found = compare(runs_with_images, out=tmp_path / "out")
    assert found.images is not None
    assert (found.images.labels == found.runs[0].predictions.truth).all()
    assert found.page is not None
    images = Page(found.page).all("img")
    assert len(images) == sum(min(12, len(group.positions)) for group in found.disagreements)
    assert {group.kind for group in found.disagreements} == {"only_right", "only_wrong", "all_wrong"}
    assert found.page.stat().st_size < 1_000_000


@pytest.mark.slow
def test_images_of_other_data_are_not_shown(runs_with_images: list[Path], tmp_path: Path) -> None:
    for run in runs_with_images:
        directory = RunDir(run)
        environment = directory.read_json(directory.environment)
        environment["data"]["fingerprint"] = "another"
        directory.write_json(directory.environment, environment)
    found = compare(runs_with_images, out=tmp_path / "out")
    assert found.images is None
    assert "images were not available" in found.notices[-1]
    assert found.page is not None
    assert Page(found.page).all("img") == []


@pytest.mark.slow
def test_predictions_are_grouped_by_run(runs_with_images: list[Path], tmp_path: Path) -> None:
    found = compare(runs_with_images, out=tmp_path / "out")
    group = next(group for group in found.disagreements if group.kind == "only_wrong")
    rows = answers(found, int(group.positions[0]))
    assert [right for _, _, right, _ in rows] == [True, False]
    assert len(rows[0][0].split()) == 2


@pytest.mark.slow
def test_milliseconds_are_measured_when_asked(two: list[Path], tmp_path: Path) -> None:
    found = compare(two, out=tmp_path / "out", timed=True)
    for run in found.runs:
        assert run.timing is not None
        assert run.timing.alone > 0
        assert run.timing.rounds >= 3
    assert found.page is not None
    assert "Milliseconds per image, one at a time" in Page(found.page).text
    assert found.timed_on is not None
    assert found.timed_on in (tmp_path / "out" / "comparison.md").read_text()


@pytest.mark.slow
def test_another_split(finished_run: Maker, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"run{seed}", seed=seed, split="val") for seed in (0, 1)]
    found = compare(runs, out=tmp_path / "out", split="val")
    assert found.split == "val"
    assert "metrics are on val" in found.notices[0]


@pytest.mark.slow
def test_limits_of_the_comparison_are_noted(finished_run: Maker, tmp_path: Path) -> None:
    one = finished_run(tmp_path / "one", seed=0)
    other = finished_run(
        tmp_path / "other", seed=1, data={"train": 90}, hardware={"cpu": "Other CPU", "cores": 64, "gpu": None}
    )
    scores = RunDir(one).read_json(RunDir(one).metrics)
    RunDir(one).write_json(RunDir(one).metrics, scores | {"test_evaluations": 4})
    notices = " ".join(compare([one, other], out=tmp_path / "out").notices)
    for part in ("More than one test evaluation", "4 times", "training times are not comparable", "numbers of images"):
        assert part in notices


def changed(run: Path, **entries: Any) -> None:
    directory = RunDir(run)
    directory.write_json(directory.metrics, directory.read_json(directory.metrics) | entries)


def remove_predictions(run: Path) -> None:
    RunDir(run).predictions("test").unlink()


def remove_model(run: Path) -> None:
    RunDir(run).onnx.unlink()


@pytest.mark.parametrize(
    ("damage", "settings", "kind", "named"),
    [
        (remove_predictions, {}, RunError, "weak"),
        (lambda run: changed(run, n=7), {}, RunError, "weak/metrics.json"),
        (lambda run: RunDir(run).metrics.write_text("{"), {}, RunError, "weak/metrics.json"),
        (lambda run: RunDir(run).predictions("test").write_text("x"), {}, RunError, "predictions-test.parquet"),
        (remove_model, {"timed": True}, ModelFileError, "weak/model.onnx"),
        (lambda run: None, {"split": "val"}, RunError, "'val'"),
    ],
)
def test_damaged_runs_are_named(
    damage: Callable[[Path], object],
    settings: dict[str, Any],
    kind: type[ThirtytwoError],
    named: str,
    two: list[Path],
    tmp_path: Path,
) -> None:
    damage(two[0])
    with pytest.raises(kind) as refused:
        compare(two, out=tmp_path / "out", **settings)
    assert named in refused.value.message
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_runs_that_do_not_match_are_refused(two: list[Path], finished_run: Maker, tmp_path: Path) -> None:
    other = {
        "classes": finished_run(tmp_path / "classes", classes=("red", "green", "pink")),
        "rows": finished_run(tmp_path / "rows", truth=[0, 1, 2] * 20),
        "truth": finished_run(tmp_path / "truth", truth=[2, 1, 0] * 80),
    }
    for run, found in (
        (other["classes"], ("'blue'", "'pink'")),
        (other["rows"], ("60", "240")),
        (other["truth"], ("160", "240")),
        (two[0], (str(two[0]), "twice")),
        (two[0] / ".." / two[0].name, (str(two[0].name), "twice")),
    ):
        with pytest.raises(DataError) as caught:
            compare([two[0], run], out=tmp_path / "out")
        assert all(value in caught.value.message for value in found)
    with pytest.raises(DataError) as caught:
        compare([two[0]], out=tmp_path / "out")
    assert str(two[0]) in caught.value.message
    with pytest.raises(DataError):
        compare([], out=tmp_path / "out")
    with pytest.raises(RunError) as missing:
        compare([two[0], tmp_path / "nothing"], out=tmp_path / "out")
    assert str(tmp_path / "nothing") in missing.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_existing_files_are_not_overwritten(two: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(OutputError) as caught:
            compare(two, out=out)
        assert str(out) in caught.value.message
        assert "--out" in caught.value.fix
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    monkeypatch.chdir(tmp_path)
    pages = [compare(two).page for _ in range(2)]
    assert [str(page) for page in pages] == ["runs/comparison/comparison.html", "runs/comparison-2/comparison.html"]


@pytest.mark.slow
def test_runs_of_the_same_name_are_distinguished(finished_run: Maker, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / name / "seed0", seed=seed) for seed, name in enumerate(("one", "two"))]
    assert {run.name for run in compare(runs, out=tmp_path / "out").runs} == {"one/seed0", "two/seed0"}


@pytest.mark.long
def test_many_runs_get_letters_and_their_page_stays_small(finished_run: Maker, tmp_path: Path) -> None:
    runs = [finished_run(tmp_path / f"run{seed}", seed=seed, skill=1.0, truth=[0, 1, 2] * 20) for seed in range(28)]
    found = compare(runs, out=tmp_path / "out")
    assert [run.letter for run in found.runs][25:] == ["Z", "AA", "AB"]
    assert len(pairs_table(found).rows) == 28 * 27 / 2
    assert found.page is not None
    assert found.page.stat().st_size < 1_000_000
    Page(found.page)


@pytest.mark.long
def test_writing_twice_gives_the_same(two: list[Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        compare(two, out=tmp_path / name)
    for name in ("comparison.html", "comparison.md", "comparison.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.long
def test_comparing_needs_no_pytorch(two: list[Path], tmp_path: Path) -> None:
    code = "import sys, thirtytwo; thirtytwo.compare(sys.argv[2:], out=sys.argv[1]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "out"), *map(str, two)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_chart_of_one_value_and_of_negative_ones() -> None:
    chart = interval_chart("Difference", [Row("A − B", 0.0, 0.0, 0.0, "nothing <at> all")], unit="", zero=True)
    assert "nan" not in chart
    assert "&lt;at&gt;" in chart
    assert "−" in interval_chart("Difference", [Row("A − B", -0.02, -0.03, -0.01, "worse")], unit="", zero=True)


@pytest.mark.long
@pytest.mark.browser
def test_page_in_a_browser_on_a_phone(
    runs_with_images: list[Path], tmp_path: Path, chromium: str, accessibility: Callable[[Any], list[str]]
) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    found = compare(runs_with_images, out=tmp_path / "out")
    assert found.page is not None
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(found.page.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        shown = "[...document.querySelectorAll('.gallery img')].every(image => image.naturalWidth > 0)"
        assert page.evaluate(shown)
        page.locator("table.sortable th button", has_text=re.compile("^Class")).click()
        assert page.evaluate("document.querySelector('table.sortable tbody th').textContent") == "0"
        assert problems == []
        assert not accessibility(page)
        browser.close()
