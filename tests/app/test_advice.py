"""Advice in the app can be followed in it: no options, commands or settings of recipes, wherever a text comes from."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("streamlit")

import thirtytwo
from thirtytwo.app.advice import in_technical_terms, title_of, what_to_do, what_was_found, why_it_matters
from thirtytwo.app.problems import advice_in_app, explained, in_app, is_for_app
from thirtytwo.config.resolve import recipe_names
from thirtytwo.data.decoding import UnreadableImagesError
from thirtytwo.data.load import load_dataset
from thirtytwo.doctor import CHECKS, Subject
from thirtytwo.errors import DataError, ImageError, MissingExtraError, OfflineError, ThirtytwoError, require
from thirtytwo.images.formats import HEIF_INSTALL
from thirtytwo.rundir import RunDir

SOURCE = Path(thirtytwo.__file__).parent
OWN = [code for code in CHECKS if CHECKS.get(code).__module__.startswith("thirtytwo.")]
READ_BY_THE_APP = ("data", "images", "inference", "fewshot", "export", "report", "config")
FILES = [
    *(SOURCE / name for name in ("io.py", "inputs.py", "rundir.py", "predictions.py", "registry.py", "machine.py")),
    *(path for part in READ_BY_THE_APP for path in sorted((SOURCE / part).rglob("*.py"))),
]


@pytest.mark.parametrize("code", OWN)
def test_what_is_said_of_a_finding_can_be_followed_in_the_app(code: str) -> None:
    check = CHECKS.get(code)
    advice = what_to_do(check.finding("Something was found."), None)
    assert is_for_app(advice)
    assert is_for_app(why_it_matters(check))
    assert bool(advice) == bool(check.fix), "it says what to do where the check does"
    assert "\N{RIGHTWARDS ARROW}" not in advice


def test_the_checks_own_words_are_for_the_command_line() -> None:
    named = {code for code in OWN if not (is_for_app(CHECKS.get(code).fix) and is_for_app(CHECKS.get(code).why))}
    assert {"T113", "T201", "T305", "T413", "T414"} <= named
    assert "photos" in recipe_names(), "which the advice names"


def test_advice_depends_on_the_data(tmp_path: Path, shade: Callable[..., list[Path]]) -> None:
    for seed, name in enumerate(("cat", "dog")):
        shade(tmp_path / name, (90 * seed, 200, 30), 6, seed=seed)
    data = load_dataset(str(tmp_path))
    assert data.test_is_cut
    groups, alone = (replace(data, train=replace(data.train, near=near)) for near in (np.arange(len(data.train)), None))
    near, drift = (CHECKS.get(code) for code in ("T113", "T611"))
    assert "stay together" in what_to_do(near.finding(""), Subject(groups))
    assert "stay together" not in what_to_do(near.finding(""), Subject(alone))
    cut = drift.finding("", severity="note", fix="try another data.split_seed before you train.")
    assert "in the same way" in what_to_do(cut, Subject(data))
    assert "in the same way" not in what_to_do(drift.finding(""), Subject(data))


def test_a_file_that_cannot_be_read_and_data_that_cannot_be_used_keep_their_advice() -> None:
    found = CHECKS.get("T201").finding("a.jpg is empty.", fix="Copy it again.")
    assert what_to_do(found, None).startswith("Copy it again. To leave it out,")
    found = CHECKS.get("T200").finding("No images.", fix="Add images. Or use --group-by.")
    assert what_to_do(found, None) == "Add images."


def test_findings_are_described_without_statistics() -> None:
    shortcut = CHECKS.get("T601").finding("1 class is predictable: 'cat' (AUROC 0.995; 98 % found at 95 % precision).")
    assert what_was_found(shortcut) == "1 class is predictable: 'cat'."
    labels = CHECKS.get("T501").finding(
        "By a linear layer on features, whose predictions agree with 93.0 % of the labels, 2 of 90 labels may be wrong."
    )
    assert what_was_found(labels).startswith("By a comparison with the other images, which agrees with 93.0 % of")


def raised(path: Path) -> Iterator[tuple[int, str]]:
    """Line and advice of each error that a module raises; what it fills in stands as `X`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")
        if isinstance(node, ast.Call) and named and len(node.args) == 2:
            yield node.lineno, text_of(node.args[1])


def text_of(node: ast.AST) -> str:
    """The constant parts of an expression that makes a text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return ""


def test_advice_of_every_error_can_be_followed_in_the_app() -> None:
    every = [(path, line, fix) for path in FILES for line, fix in raised(path)]
    technical = [fix for _, _, fix in every if not is_for_app(fix)]
    assert len(technical) > 20, "there is something to leave out"
    for path, line, fix in every:
        text = explained(ThirtytwoError("It is wrong.", fix))
        assert text.startswith("It is wrong."), (path, line)
        assert is_for_app(text), (path, line, text)
        assert in_app(f"It is wrong. {fix}".strip()) == text, (path, line)


@pytest.mark.parametrize(
    ("fix", "expected"),
    [
        (None, ""),
        ("Copy it again.", "Copy it again."),
        (HEIF_INSTALL, "Save it as JPEG or PNG."),
        ("Set --limit-train (data.limit_train) to at least 3.", "Set “Most training images” to at least 3."),
        ("Unpack it with: unzip -q a.zip -d a – then give a.", "Unpack it, then give a."),
        ("Add images, remove the class, or set data.keep_together to 'copies'.", "Add images, or remove the class."),
        ("Choose another directory with --run.", ""),
        ("For more, train a network: thirtytwo train FOLDER", "For more, train a model on the page Train."),
        ("Choose one: ?config=small", "Choose one by writing ?config=small after the name."),
        ("Check the file model.onnx in data/train.jpg-folder.", "Check the file model.onnx in data/train.jpg-folder."),
    ],
)
def test_advice_is_replaced_or_left_out(fix: str | None, expected: str) -> None:
    assert explained(DataError("It is wrong.", fix)) == f"It is wrong. {expected}".strip()


def test_kinds_of_errors_with_advice_of_their_own(tmp_path: Path) -> None:
    unreadable = UnreadableImagesError("pets", 9, {("train", 1): ImageError("a.jpg is empty.")}, "my pets")
    assert "The page Train can leave them out, and the page Data lists" in explained(unreadable)
    assert in_app(str(unreadable)) == explained(unreadable), "also in the log of a training"
    folder = DataError("It cannot be read.", "Correct its permissions, or leave it out with --skip-unreadable.")
    expected = "It cannot be read. Correct its permissions. The page Train can leave it out."
    assert explained(folder) == in_app(str(folder)) == expected
    message = "cifar10 is not on this machine (no data root is set), and the hub cannot be reached."
    offline = OfflineError(message, "Connect to the network.")
    assert explained(offline).startswith("cifar10 is not on this machine. The app downloads nothing")
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_library", "train")
    assert "pip" in str(caught.value)
    assert "pip" not in explained(caught.value)
    assert "no_such_library" in explained(caught.value)
    assert "which the page Train names" in explained(caught.value)
    with pytest.raises(MissingExtraError) as caught:
        require("no_such_library", "app")
    assert "Train" not in explained(caught.value)
    run = RunDir(tmp_path / "mine")
    assert advice_in_app(run.resume_hint()).startswith("Continue its training on the page Train")
    assert advice_in_app(run.restore_hint_for(run.metrics)).startswith("Continue its training")


TEXTS = {
    *("title", "markdown", "info", "warning", "error", "success", "caption", "button", "text_input", "checkbox"),
    *("toggle", "selectbox", "radio", "spinner", "toast", "metric", "file_uploader", "number_input", "download_button"),
}
FOR_PROGRAMMERS = {"export_menu.py", "snippets.py"}
"""The menu Export has code to copy."""


def shown(path: Path) -> Iterator[tuple[int, str]]:
    """Texts that a module shows, or raises as errors, as far as they are constant; code to copy is not among them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in TEXTS or called == "title" or called.endswith("Error") or called == "as_markdown":
            for part in [*node.args, *(one.value for one in node.keywords if one.arg in ("help", "label"))]:
                yield node.lineno, text_of(part)


def test_no_page_names_options_commands_or_variables() -> None:
    files = [path for path in (SOURCE / "app").rglob("*.py") if path.name not in FOR_PROGRAMMERS]
    texts = [(path.name, line, text) for path in files for line, text in shown(path)]
    assert sum(bool(text) for _, _, text in texts) > 150
    assert [one for one in texts if not is_for_app(one[2])] == []


def test_findings_are_in_plain_words_first() -> None:
    few = CHECKS.get("T305").finding(
        "The test set has 10 images: an accuracy of 90 % is measured to ±19.3 points (95 % interval)."
    )
    assert "only 10 test images" in what_was_found(few)
    assert "points" not in what_was_found(few)
    assert "±19.3 points" in in_technical_terms(few)
    sizes = CHECKS.get("T411").finding(
        "All images have 40×30 pixels; checked at 32×32. The recipe sets the size for training."
    )
    assert what_was_found(sizes) == "All images have 40×30 pixels."
    assert "32×32" in in_technical_terms(sizes)
    cut = CHECKS.get("T202").finding("No test split: 12 of 60 images were split off as test (seed 0).")
    assert what_was_found(cut) == "There is no folder test: 12 of 60 images were set aside at random."
    uneven = "test has 8 % of the images (1 of 12): each is drawn; --set data.split_seed=1 draws others, and folders"
    drawn = CHECKS.get("T202").finding(f"{uneven} train, val and test fix the split.")
    assert what_was_found(drawn).endswith("each is drawn; folders train, val and test fix the split.")
    assert in_technical_terms(CHECKS.get("T401").finding("2 images have a single color.")) == ""


def test_the_title_names_left_out_files_only_where_there_are_some() -> None:
    check = CHECKS.get("T202")
    cut = check.finding("No test split: 12 of 60 images were split off as test (seed 0).")
    assert "left out" not in title_of(check, [cut])
    assert "note" not in title_of(check, [cut]), "the heading begins with it"
    assert "left out" in title_of(check, [cut, check.finding("Skipped 2 files: .txt.")])
    assert title_of(CHECKS.get("T305"), [cut]) == CHECKS.get("T305").title
