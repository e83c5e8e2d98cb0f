"""The report: well-formed, self-contained, escaped, and complete for every kind of run."""

import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from thirtytwo.errors import RunError
from thirtytwo.evaluation.label_issues import find_label_issues
from thirtytwo.images.render import THUMBNAIL_SIDE, data_uri
from thirtytwo.report.card import card
from thirtytwo.report.charts import Line, Row, confusion_chart, interval_chart, line_chart, nice_ticks
from thirtytwo.report.facts import data_facts
from thirtytwo.report.gallery import most_confident_errors
from thirtytwo.report.page import render, write_page
from thirtytwo.report.run_record import for_others, read_run_record, typed_commands
from thirtytwo.rundir import RunDir
from thirtytwo.text import interval, percent

VOID = {"meta", "br", "img", "link", "input", "hr"}
SHAPES = {"line", "rect", "circle", "polyline", "path"}
HUNDRED = [f"kind {number:02d}" for number in range(100)]


class Page(HTMLParser):
    """Checks that tags close in order; gathers text, tags and ids."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.problems, self.tags, self.text, self.album = [], [], [], "", None
        self.feed(text)
        self.close()
        if self.open:
            self.problems.append(f"left open: {self.open}")

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if len({name for name, _ in attributes}) != len(attributes):
            self.problems.append(f"twice the same attribute: {tag} {attributes}")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID | SHAPES:
            self.problems.append(f"{tag} closes itself")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing, at {self.getpos()}")

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and self.tags[-1] == ("script", {"type": "application/json", "id": "album"}):
            self.album = json.loads(data)
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(run, images=None, split="test", figures=False):
    """The page of a run, checked; `figures` writes the slower files beside it as well."""
    if figures:
        write_page(run, images, split)
    else:
        run.report.write_text(render(read_run_record(run, split), images), encoding="utf-8")
    page = Page(run.report.read_text(encoding="utf-8"))
    assert page.problems == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"].removeprefix("#") for link in page.all("a")} <= set(ids)
    return page


@pytest.mark.parametrize("errors", [1, 2])
def test_counts_agree_with_their_nouns(make_run, images_of, errors):
    run, given = make_run()
    shares = np.full_like(given.probabilities, 0.1)
    shares[np.arange(len(shares)), given.truth] = 0.8
    shares[:errors] = np.roll(shares[:errors], 1, axis=1)
    shares /= shares.sum(axis=1, keepdims=True)
    one = replace(given, probabilities=shares.astype(np.float32))
    assert int((~one.correct).sum()) == errors
    run.write_predictions("test", one)
    page = written(run, images_of(one))
    assert f"All {errors} misclassified image{'s' if errors > 1 else ''}, the most confident first" in page.text
    assert f"all misclassified images ({errors})" in page.text
    assert not re.search(r"\b1 misclassified images", page.text)


@pytest.mark.slow
def test_a_finished_run(make_run, images_of):
    run, given = make_run()
    page = written(run, images_of(given), figures=True)
    scores = run.read_json(run.metrics)
    for name in ("accuracy", "accuracy_tta", "top5_accuracy", "macro_f1"):
        assert percent(scores[name]["value"]) in page.text
        assert interval(scores[name]["ci95"]) in page.text
    for text in (
        "n = 240",
        "Test evaluations1",
        "Learning rate",
        "no fast <bfloat16> here",
        "4\u00a0min 50\u00a0s",
        "1.97\u00a0million",
    ):
        assert text in page.text, text
    assert f"thirtytwo train 'my pets' --recipe {run.recipe}" in page.text
    wrong = int((given.predicted != given.truth).sum())
    issues = len(find_label_issues(given))
    assert len(page.all("img")) == min(24, wrong) + min(24, issues)
    assert {path.name for path in run.figures.iterdir()} == {
        f"{name}.{suffix}" for name in ("curves", "confusion", "reliability", "f1") for suffix in ("png", "svg")
    }


def test_shared_page_names_no_local_path(make_run):
    run, _ = make_run()
    page = render(read_run_record(run), None, passed_on=True)
    assert str(run.path) not in page
    assert "--recipe recipe.toml" in page
    assert "saved under that name" in page


@pytest.mark.parametrize("missing", [("metrics", "predictions"), ()])
def test_shared_page_of_an_interrupted_run_names_no_local_path(make_run, missing):
    run, _ = make_run(without=missing, interrupted=True)
    environment = run.read_json(run.environment)
    environment["data"] |= {"spec": "/home/anna/pets", "path": "/home/anna/pets"}
    run.write_json(run.environment, environment)
    assert str(run.path) in render(read_run_record(run), None)
    page = render(read_run_record(run), None, passed_on=True)
    assert "interrupted after 5 of 8 epochs" in page
    assert str(run.path) not in page
    assert "anna" not in page


@pytest.mark.parametrize("root", ["/home/anna/pets", r"C:\anna\pets", r"\\server\anna\pets"])
def test_shared_page_names_files_without_their_folder(make_run, root):
    run, given = make_run()
    mark = "\\" if "\\" in root else "/"
    files = tuple(mark.join((root, ("dog", "cat")[row % 2], f"{row}.jpg")) for row in given.rows.tolist())
    run.write_predictions("test", replace(given, files=files))
    page = render(read_run_record(run), None, passed_on=True)
    assert "anna" not in page
    wrong = int(np.flatnonzero(~given.correct)[0])
    assert f"{('dog', 'cat')[given.rows[wrong] % 2]}/{given.rows[wrong]}.jpg" in page
    mixed = ("cat/1.jpg", *files[1:])
    run.write_predictions("test", replace(given, files=mixed))
    record = for_others(read_run_record(run))
    assert record.predictions.files[0] == "cat/1.jpg"
    assert "anna" not in "".join(record.predictions.files)


def test_runs_it_builds_on_are_named(make_run, tmp_path):
    run, _ = make_run()
    recipe = run.read_recipe()
    typed = {"first": "thirtytwo train pets", "teacher": "thirtytwo train pets --seed 1"}
    for name, words in typed.items():
        origin = RunDir.create(tmp_path / name)
        origin.write_recipe(recipe)
        origin.write_json(origin.environment, run.read_json(run.environment) | {"command": words})
    start, teacher = (str(tmp_path / name) for name in typed)
    learned = recipe.train.model_copy(update={"distill": recipe.train.distill.model_copy(update={"run": teacher})})
    started = recipe.transfer.model_copy(update={"pretrained": start})
    run.write_recipe(recipe.model_copy(update={"train": learned, "transfer": started}))
    own = "thirtytwo train 'my pets' --recipe fast"
    wanted = [f"{words} --run {tmp_path / name}" for name, words in typed.items()] + [own]
    assert typed_commands(run) == wanted
    assert "\n".join(wanted) in written(run).text
    assert f"Started from{start}" in "".join(written(run).text.split("\n"))
    assert f"Distilled from{teacher}" in "".join(written(run).text.split("\n"))
    assert "smoothed by 0.2 and the outputs of a teacher" in written(run).text
    assert f"- Distilled from: `{teacher}`" in card(read_run_record(run))
    RunDir(tmp_path / "first").recipe.unlink()
    assert typed_commands(run) == wanted[1:]
    run.environment.unlink()
    assert typed_commands(run) == []


def test_the_architecture_of_an_option_is_named(make_run):
    run, _ = make_run()
    recipe = run.read_recipe()
    network = recipe.model.model_copy(update={"name": "timm", "options": {"architecture": "resnet18"}})
    started = recipe.transfer.model_copy(update={"pretrained": "imagenet"})
    run.write_recipe(recipe.model_copy(update={"model": network, "transfer": started}))
    text = "".join(written(run).text.split("\n"))
    assert "Networktimm resnet18" in text
    assert "Started fromimagenet weights of resnet18" in text


def test_page_loads_nothing_from_the_network(make_run, images_of):
    run, given = make_run()
    page = written(run, images_of(given))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#")), attributes
    text = run.report.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert [policy["content"] for policy in page.all("meta") if "http-equiv" in policy] == [
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    ]


def test_names_are_escaped(make_run, images_of):
    run, given = make_run()
    page = written(run, images_of(given))
    assert [script.get("type") for script in page.all("script")] == ["application/json", None]
    assert page.album["classes"] == list(given.classes)
    assert not [tag for tag, _ in page.tags if tag == "i" and not _.get("style")]
    text = run.report.read_text(encoding="utf-8")
    assert "<b>cow" not in text
    assert "<script>alert" not in text
    assert "pets <i>" not in text
    for name in given.classes:
        assert name in page.text


@pytest.mark.long
def test_a_hundred_classes_in_twenty_superclasses(make_run, images_of):
    groups = {name: f"group {number // 5:02d}" for number, name in enumerate(HUNDRED)}
    run, given = make_run(HUNDRED, superclasses=groups, count=2000)
    page = written(run, images_of(given), figures=True)
    assert run.report.stat().st_size < 2_000_000
    assert "Superclass accuracy" in page.text
    assert "group 07" in page.text
    cells = [attributes for attributes in page.all("rect") if "data-at" in attributes]
    pairs = {(true, predicted) for true, predicted in zip(given.truth.tolist(), given.predicted.tolist(), strict=True)}
    groups_of_pairs = {(true // 5, predicted // 5) for true, predicted in pairs}
    assert len(cells) == len(pairs) + len(groups_of_pairs)


@pytest.mark.long
@pytest.mark.parametrize(
    ("without", "present", "absent"),
    [
        (("history",), "Metrics", "Learning rate"),
        (("split",), "Metrics", "held out of train with seed"),
        (("environment",), "Metrics", "Automatic choices"),
        (("metrics",), "Top-5 accuracy", "With test-time augmentation"),
        (("predictions",), "Macro F1", "Most confident errors"),
        (("metrics", "predictions"), "Resume it with: thirtytwo train", "Macro F1"),
        (("metrics", "predictions", "history", "split", "environment"), "Reproduce", "Training time"),
    ],
)
def test_incomplete_run(make_run, without, present, absent):
    run, _ = make_run(without=without)
    page = written(run, figures=True)
    assert present in page.text
    assert absent not in page.text


@pytest.mark.parametrize("own_val", [True, False])
def test_where_the_validation_images_come_from(make_run, own_val):
    run, _ = make_run()
    run.write_json(run.split, run.read_json(run.split) | {"own_val": own_val})
    record = read_run_record(run)
    found = dict(data_facts(record))["Validation"]
    assert ("the data's own split" in found, "held out of train with seed 0" in found) == (own_val, not own_val)
    assert ("100 for validation (seed 0)" in card(record)) is not own_val


def test_interrupted_run_reports_its_epochs(make_run):
    run, _ = make_run(without=("metrics", "predictions"), interrupted=True)
    assert "after 5 of 8 epochs" in written(run).text


def test_history_without_validation_or_accuracy(make_run):
    run, _ = make_run()
    run.write_history(
        [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": float("nan")}], ["epoch", "train_loss"]
    )
    page = written(run)
    assert "Loss" in page.text
    assert "Last validation" not in page.text


def test_requested_split_is_shown(make_run):
    run, given = make_run()
    worse = replace(given, probabilities=np.roll(given.probabilities, 1, axis=1))
    run.write_predictions("val", worse)
    page = written(run, split="val")
    assert "metrics are on val" in page.text
    assert percent(float((worse.predicted == worse.truth).mean())) in page.text


def test_several_test_evaluations_are_noted(make_run):
    run, _ = make_run(test_evaluations=3)
    assert "3 test evaluations" in written(run).text


@pytest.mark.parametrize(("keep", "selects"), [("best", True), ("last", False)])
def test_validation_is_called_model_selection_only_where_it_selects(make_run, keep, selects):
    run, _ = make_run()
    recipe = re.sub(r'keep = "\w+"', f'keep = "{keep}"', run.recipe.read_text())
    assert f'keep = "{keep}"' in recipe
    run.recipe.write_text(recipe)
    assert ("used for model selection" in written(run).text) == selects


def test_training_on_all_of_train_is_noted(make_run):
    run, _ = make_run()
    run.write_json(run.split, run.read_json(run.split) | {"train_on": "all"})
    assert "calibration run" in written(run).text


@pytest.mark.long
def test_writing_twice_gives_the_same(make_run, images_of):
    run, given = make_run()
    images = images_of(given)
    first = [write_page(run, images).read_bytes(), *(path.read_bytes() for path in sorted(run.figures.iterdir()))]
    again = [write_page(run, images).read_bytes(), *(path.read_bytes() for path in sorted(run.figures.iterdir()))]
    assert first == again


def test_damaged_file_is_named(make_run):
    run, _ = make_run()
    run.metrics.write_text("{", encoding="utf-8")
    with pytest.raises(RunError) as caught:
        write_page(run, None)
    assert str(run.metrics) in caught.value.message


def test_errors_are_the_most_confident(make_run, images_of):
    _, given = make_run()
    images = images_of(given)
    errors, problem = most_confident_errors(given, images, most=10)
    assert problem == ""
    wrong = given.predicted != given.truth
    assert [error.confidence for error in errors] == pytest.approx(np.sort(given.confidence[wrong])[::-1][:10])
    place = int(np.flatnonzero(wrong)[given.confidence[wrong].argmax()])
    assert errors[0].source == data_uri(images.images[place])
    assert errors[0].name == f"row {place + 7}"


def test_images_of_other_data_are_not_shown(make_run, images_of):
    run, given = make_run()
    images = images_of(given)
    for other, reason in (
        (None, "without images"),
        (images.take(np.arange(3)), "lacks some"),
        (replace(images, labels=np.roll(images.labels, 1)), "labels differ"),
    ):
        errors, problem = most_confident_errors(given, other)
        assert reason in problem
        assert {error.source for error in errors} == {None}
    page = written(run)
    assert "thirtytwo report RUN" in page.text
    assert page.all("img") == []


def test_large_images_are_reduced():
    random = np.random.default_rng(0).integers(0, 256, (512, 256, 3), dtype=np.uint8)
    assert len(data_uri(random)) < 4 * THUMBNAIL_SIDE * THUMBNAIL_SIDE


def test_model_without_errors(make_run):
    run, given = make_run(without=("metrics",))
    run.write_predictions("test", replace(given, probabilities=np.eye(6, dtype=np.float32)[given.truth]))
    page = written(run)
    assert "every image was classified correctly" in page.text
    assert "100.0\u00a0%" in page.text


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 12, 13, 31, 150, 201])
def test_confusion_chart_at_every_size(width):
    matrix = np.random.default_rng(0).integers(0, 3, (width, width))
    chart = confusion_chart(matrix, [f"<{number}>" for number in range(width)])
    assert Page(chart).problems == []
    assert bool(chart) == (width <= 200)


def test_charts_show_no_hidden_characters():
    name = "a\u202eb\x1b"
    charts = [
        confusion_chart(np.eye(2, dtype=np.int64) + 1, [name, "c"]),
        line_chart(name, [Line(name, "train", [(1, 0.5)])]),
        interval_chart(name, [Row(name, 0.1, 0.0, 0.2, name)]),
    ]
    for chart in charts:
        assert "\u202e" not in chart
        assert "\x1b" not in chart
        assert r"a\u202eb\x1b" in chart
    names = re.search('data-names="(.*?)"', charts[0])
    assert json.loads(unescape(names[1])) == [r"a\u202eb\x1b", "c"]


def test_line_chart_of_one_point_and_of_none():
    assert line_chart("Loss", [Line("training", "train", [])]) == ""
    chart = line_chart("Loss", [Line("training", "train", [(1, 0.5)]), Line("validation", "val", [(1, 0.5)])])
    assert Page(chart).problems == []
    assert "nan" not in chart


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.25, 0.5, 0.75, 1.0]),
        (0.31, 0.93, [0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 3.0, None),
        (0.0, 0.0, None),
    ],
)
def test_nice_ticks(low, high, ticks):
    found = nice_ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    if ticks:
        assert found == ticks


@pytest.mark.long
@pytest.mark.browser
def test_page_in_a_browser_on_a_phone(make_run, images_of, chromium, accessibility):
    playwright = pytest.importorskip("playwright.sync_api")
    groups = {name: f"a rather long group name {number // 5:02d}" for number, name in enumerate(HUNDRED)}
    run, given = make_run(HUNDRED, superclasses=groups, count=500)
    path = write_page(run, images_of(given))
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=[*flags, "--disable-sync"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        first = "document.querySelector('table.sortable tbody th').textContent"
        page.locator("table.sortable th button", has_text=re.compile("^Class")).focus()
        page.keyboard.press("Enter")
        assert page.evaluate(first) == "kind 00"
        page.keyboard.press("Enter")
        assert page.evaluate(first) == "kind 99"
        page.locator("svg.matrix.large").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#readout-classes").text_content().startswith("kind 00 predicted as kind 01: ")
        assert problems == []
        assert not accessibility(page)
        page.locator("table.sortable button.open").first.click()
        page.wait_for_selector("#viewer-body img")
        assert not accessibility(page)
        browser.close()


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError):
        write_page(RunDir.open(tmp_path), None)
