"""The PDF report: complete for every kind of run, short, and safe from names that look like markup."""

from __future__ import annotations

import json
import re
import string
import sys
import tomllib
from dataclasses import replace
from html import unescape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import thirtytwo
from thirtytwo.cli.main import run_command
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import MissingExtraError, OutputError
from thirtytwo.report import paper
from thirtytwo.report.figures import draw_confusion
from thirtytwo.report.paper import compose, is_own, typeset, write_paper
from thirtytwo.report.paper_blocks import Block, Material, code, encode
from thirtytwo.report.paper_sections import MAX_ERRORS, MAX_EXAMPLES, MAX_ROWS, sections
from thirtytwo.report.paper_words import load_words
from thirtytwo.report.run_record import RunRecord, read_run_record
from thirtytwo.text import interval, percent, readable

REPORT = Path(paper.__file__).parent
HOSTILE = (
    '#read("/etc/passwd")',
    "$x^2$ *b* _i_ `raw` @ref <tag>",
    "= head // note /* and */ more",
    '#panic("no") \\ "quoted" [x] {y}',
    "日本語の猫",
    "قطة سوداء",
    "a\u202eb\x1bc",
    "antidisestablishmentarianism_" * 4,
)


def blocks_of(record: RunRecord, images: dict[str, ImageSet | None] | None = None) -> tuple[list[Block], Material]:
    """The blocks of a run, without its figures, which take long to draw."""
    material = Material(record, images or {}, (), load_words())
    return sections(material), material


def titles(blocks: list[Block]) -> list[str]:
    return [block["text"] for block in blocks if block["kind"] == "heading"]


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return list(chain.from_iterable(map(texts, inner)))


def pages(pdf: bytes) -> int:
    found = re.search(rb"<xmpTPg:NPages>(\d+)<", pdf)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("root", ["/home/anna/pets", r"C:\anna\pets"])
def test_it_names_no_local_folder(make_run, root):
    run, given = make_run()
    mark = "\\" if "\\" in root else "/"
    files = tuple(mark.join((root, ("dog", "cat")[row % 2], f"{row}.jpg")) for row in given.rows.tolist())
    run.write_predictions("test", replace(given, files=files))
    environment = run.read_json(run.environment)
    environment["data"] |= {"spec": "/home/anna/pets", "path": "/home/anna/pets"}
    run.write_json(run.environment, environment)
    recipe = run.recipe.read_text().replace('pretrained = ""', 'pretrained = "/home/anna/runs/first"')
    assert "anna" in recipe
    run.recipe.write_text(recipe)
    content, _ = compose(read_run_record(run), {})
    assert "anna" not in json.dumps(content)
    assert 'pretrained = "first"' in json.dumps(content, ensure_ascii=False).replace('\\"', '"')


@pytest.mark.slow
def test_sections_of_a_complete_run(make_run, images_of):
    run, given = make_run(("ant", "bee", "cow"))
    record, images = read_run_record(run), images_of(given)
    blocks, material = blocks_of(record, {"train": images, "test": images})
    names = ["Data", "Method", "Results", "Classes", "Confusions", "Mistakes", "Calibration", "Label issues", "Limits"]
    assert titles(blocks) == [*names, "Reproduction", "Complete recipe"]
    shown = " ".join(texts(blocks))
    for value in (percent(record.metrics["accuracy"]["value"]), interval(record.metrics["accuracy"]["ci95"])):
        assert value in shown
    assert "skipped Thumbs.db" in shown
    assert "thirtytwo train 'my pets' --recipe recipe.toml" in shown
    assert str(run.path) not in shown
    galleries = [block for block in blocks if block["kind"] == "images"]
    assert len(galleries[0]["items"]) == 3
    assert len(galleries[1]["items"]) == min(MAX_ERRORS, int((~given.correct).sum()))
    assert {item["file"] for block in galleries for item in block["items"]} == set(material.files)


@pytest.mark.parametrize(
    ("without", "absent"),
    [
        (("history",), "Training"),
        (("metrics", "predictions"), "Results"),
        (("metrics", "predictions"), "Calibration"),
        (("predictions",), "Mistakes"),
        (("metrics", "predictions", "history", "split", "environment"), "Results"),
    ],
)
def test_what_a_run_lacks_is_left_out(make_run, without, absent):
    run, _ = make_run(without=without)
    blocks, _ = blocks_of(read_run_record(run))
    assert absent not in titles(blocks)
    assert {"Data", "Method", "Limits", "Reproduction"} <= set(titles(blocks))


def test_without_images_mistakes_are_a_table(make_run):
    run, given = make_run()
    blocks, material = blocks_of(read_run_record(run))
    assert material.files == {}
    assert not [block for block in blocks if block["kind"] == "images"]
    place = int(np.flatnonzero(~given.correct)[given.confidence[~given.correct].argmax()])
    assert given.name_of(place) in texts(blocks)


def test_images_of_other_data_are_left_out(make_run, images_of):
    run, given = make_run()
    other = images_of(given)
    blocks, _ = blocks_of(read_run_record(run), {"test": replace(other, labels=np.roll(other.labels, 1))})
    assert not [block for block in blocks if block["kind"] == "images"]


def test_a_model_without_errors(make_run):
    run, given = make_run(without=("metrics",))
    run.write_predictions("test", replace(given, probabilities=np.eye(6, dtype=np.float32)[given.truth]))
    shown = texts(blocks_of(read_run_record(run))[0])
    assert "All 240 test images were classified correctly." in shown
    assert "No image was misclassified." in shown


def test_an_ensemble_names_its_members(make_run):
    member = {"recipe": "fast", "seed": 3, "network": "fastnet", "parameters": 100, "flops": None, "seconds_train": 2.0}
    accuracy = {"value": 0.5, "ci95": [0.4, 0.6]}
    members = [member | {"run": f"runs/{name}", "in_it": True, "accuracy": accuracy} for name in ("a", "b")]
    run, _ = make_run(without=("history",), members=members, command="thirtytwo ensemble runs/a runs/b")
    shown = " ".join(texts(blocks_of(read_run_record(run))[0]))
    assert "runs/a" in shown
    assert "thirtytwo ensemble runs/a runs/b" in shown
    assert "Another seed" not in shown


@pytest.mark.parametrize(
    ("pretrained", "head_until", "unfreeze", "expected"),
    [
        ("", 1.0, "all", ""),
        ("imagenet", 1.0, "all", "only the head, on a frozen base; starts from pretrained weights"),
        ("imagenet", 0.2, 0.75, "the head alone for 1 of 5 epochs, then with the last 75\u00a0% of the base; "),
        ("imagenet", 0.2, "layer3", "then with the base from layer3 on; "),
        ("imagenet", 0.0, "all", "all, starting from pretrained weights"),
    ],
)
def test_the_method_says_what_was_trained(make_run, pretrained, head_until, unfreeze, expected):
    run, _ = make_run()
    recipe = run.read_recipe()
    transfer = recipe.transfer.model_copy(
        update={"pretrained": pretrained, "head_until": head_until, "unfreeze": unfreeze}
    )
    schedule = recipe.schedule.model_copy(update={"epochs": 5})
    run.recipe.unlink()
    run.write_recipe(recipe.model_copy(update={"transfer": transfer, "schedule": schedule}))
    (method,) = (
        dict(block["rows"])
        for block in blocks_of(read_run_record(run))[0]
        if "The network" in str(block.get("caption"))
    )
    assert expected in method.get("Trained layers", "")
    assert bool(method.get("Trained layers")) == bool(expected)


def test_every_table_of_an_evaluation_has_a_caption(make_run):
    run, _ = make_run()
    tables = [block for block in blocks_of(read_run_record(run))[0] if block["kind"] == "table"]
    assert len(tables) > 3
    assert all(block["caption"] for block in tables)


@pytest.mark.parametrize("wrong", [1, 3])
def test_mistakes_say_nothing_about_labels(make_run, wrong):
    """The evaluation of labels does, with other words where it found none."""
    run, given = make_run(without=("metrics",))
    probabilities = np.eye(6, dtype=np.float32)[given.truth]
    probabilities[:wrong] = np.roll(probabilities[:wrong], 1, axis=1)
    run.write_predictions("test", replace(given, probabilities=probabilities))
    (lead,) = (
        text
        for text in texts(blocks_of(read_run_record(run))[0])
        if "240 test images were misc" in text or "240 test images was misc" in text
    )
    assert "label" not in lead


def test_the_abstract_has_the_false_alarm_rate(make_run):
    run, _ = make_run()
    alarms = {"called_unknown": {"value": 0.0375, "ci95": [0.02, 0.07]}, "n": 240}
    run.write_json(run.metrics, run.read_json(run.metrics) | {"unknown": {"threshold": 1.0, "test": alarms}})
    content = " ".join(paper._abstract(read_run_record(run), load_words()))
    assert f"{percent(0.0375)} of them were marked unknown" in content


def test_zeros_of_the_confusion_matrix_are_drawn(make_run):
    run, given = make_run(("ant", "bee"))
    run.write_predictions("test", replace(given, probabilities=np.eye(2, dtype=np.float32)[given.truth]))
    shown = [text.get_text() for text in draw_confusion(read_run_record(run)).axes[0].texts]
    assert sorted(shown, key=int)[:2] == ["0", "0"]
    assert len(shown) == 4


@pytest.mark.slow
def test_long_file_names_can_be_copied(make_run):
    """Places where a line may break are no characters of the text."""
    name = "photographs/from_the_garden/2026-06-01/a4c59e1b77d04f27b1e7f2d0c9a3b5e8_IMG.jpg"
    run, given = make_run(("ant", "bee"), without=("history",))
    run.write_predictions("test", replace(given, files=(name,) * 240))
    content, attached = compose(read_run_record(run), {})
    assert name[-25:] in unescape(typeset(content, attached, 0, "html").decode())


@pytest.mark.parametrize(("count", "parts", "rows"), [(2, 1, 2), (10, 1, 10), (100, 2, 100), (150, 2, MAX_ROWS // 2)])
def test_classes_fit_the_page(make_run, images_of, count, parts, rows):
    run, given = make_run([f"kind {number:03d}" for number in range(count)], count=600)
    blocks, _ = blocks_of(read_run_record(run), {"train": images_of(given)})
    (found,) = (block for block in blocks if block["kind"] == "table" and block["columns"][0] == "Class")
    assert len(found["parts"]) == parts
    assert sum(map(len, found["parts"])) == rows
    (examples,) = (block for block in blocks if block["kind"] == "images")
    assert len(examples["items"]) == min(count, MAX_EXAMPLES)


def test_small_images_are_enlarged_and_photographs_reduced():
    random = np.random.default_rng(0)
    suffix, data = encode(random.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    assert (suffix, data[:4]) == (".png", b"\x89PNG")
    suffix, data = encode(random.integers(0, 256, (400, 300, 3), dtype=np.uint8))
    assert (suffix, data[:2]) == (".jpg", b"\xff\xd8")


@pytest.mark.parametrize(("lines", "long"), [(["x = 1"] * 100, False), (["x = 1"] * 300, True), (["y" * 9000], True)])
def test_long_code_is_broken(lines, long):
    assert code("\n".join(lines), 6.2, columns=3)["long"] == long


def test_every_word_is_used_and_exists():
    """So that a translation has nothing to spare and nothing is missing."""
    table = tomllib.loads((REPORT / "templates" / "paper.en.toml").read_text(encoding="utf-8"))
    known = {f"{key}.{inner}" for key, value in table.items() if isinstance(value, dict) for inner in value}
    source = "".join(file.read_text(encoding="utf-8") for file in REPORT.glob("paper*.py"))
    plain = set(re.findall(r'words\(\s*"([a-z_.]+)"', source)) | set(re.findall(r'"([a-z]+\.[a-z_0-9]+)" if', source))
    assert {key for key in plain if "." in key} <= known
    parts = set(re.findall(r"[a-z_0-9]+", source)) | {"train", "val", "test"}
    layout = (REPORT / "templates" / "paper.typ").read_text(encoding="utf-8")
    unused = {
        key
        for key in known
        if key.rpartition(".")[2].removeprefix("column_") not in parts and f"words.{key}" not in layout
    }
    assert unused == set()
    for text in texts(table):
        assert all(name is None or name.isidentifier() for _, name, _, _ in string.Formatter().parse(text)), text


@pytest.mark.slow
def test_names_are_never_markup(make_run, images_of):
    run, given = make_run(HOSTILE)
    values = run.read_json(run.environment)
    run.write_json(run.environment, values | {"data": values["data"] | {"spec": HOSTILE[0], "name": HOSTILE[0]}})
    run.write_json(run.metrics, run.read_json(run.metrics) | {"dataset": HOSTILE[0]})
    given = replace(given, files=tuple(f"{name}.png" for name in np.array(HOSTILE)[given.truth].tolist()))
    run.write_predictions("test", given)
    images = images_of(given)
    content, attached = compose(read_run_record(run), {"train": images, "test": images})
    assert typeset(content, attached, 0).startswith(b"%PDF-")
    html = unescape(typeset(content, attached, 0, "html").decode())
    shown = re.sub("<[^>]*data:[^>]*>", "", html)
    for name in HOSTILE[:6]:
        assert readable(name) in shown, name
    assert "root:x" not in shown
    assert "\u202e" not in shown
    assert r"a\u202eb\x1bc" in shown


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 10, 100])
def test_length_and_bytes(make_run, images_of, tmp_path, count):
    run, given = make_run([f"kind {number:03d}" for number in range(count)], count=600)
    images = images_of(given, 96 if count == 2 else 32)
    record, shown = read_run_record(run), {"train": images, "test": images, "val": None}
    first, again = (write_paper(tmp_path / f"{name}.pdf", record, shown).read_bytes() for name in ("first", "again"))
    assert first == again
    assert 4 <= pages(first) <= 8
    assert len(first) < 2_000_000


@pytest.mark.slow
def test_outputs_of_others_stay(make_run, tmp_path, capsys):
    run, _ = make_run(("ant", "bee"), without=("history", "predictions"))
    run.paper.write_bytes(b"%PDF-1.4 mine")
    with pytest.raises(OutputError):
        thirtytwo.write_report(run.path, format="pdf")
    assert run.paper.read_bytes() == b"%PDF-1.4 mine"
    run.paper.unlink()
    assert run_command(["report", str(run.path), "--format", "pdf"]) == 0
    assert capsys.readouterr().out == f"{run.paper}\n"
    assert is_own(run.paper)
    assert not run.report.exists()
    assert thirtytwo.write_report(run.path, format="pdf") == run.paper
    out = tmp_path / "deep" / "paper.PDF"
    assert thirtytwo.write_report(run.path, out=out) == out
    assert out.read_bytes() == run.paper.read_bytes()
    for format, name in (("html", "x.pdf"), ("pdf", "y.html")):
        assert run_command(["report", str(run.path), "--format", format, "--out", str(tmp_path / name)]) == 2
        assert not (tmp_path / name).exists()
    with pytest.raises(OutputError):
        thirtytwo.write_report(run.path, out=out)
    assert thirtytwo.write_report(run.path, out=out, force=True) == out


@pytest.mark.slow
def test_missing_typesetter_names_the_install_line(make_run, monkeypatch):
    run, _ = make_run()
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(MissingExtraError) as caught:
        thirtytwo.write_report(run.path, format="pdf")
    assert 'pip install "thirtytwo[pdf]"' in str(caught.value)
    assert not run.paper.exists()
