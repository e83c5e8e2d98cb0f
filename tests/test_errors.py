from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import thirtytwo
from thirtytwo import errors
from thirtytwo.errors import ArgumentError, MissingExtraError, ThirtytwoError, did_you_mean, require

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, ThirtytwoError)]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_in_the_tree_and_drawn(kind: type[ThirtytwoError]) -> None:
    assert issubclass(kind, ThirtytwoError)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("message", "fix", "text"),
    [("a.png is empty.", None, "a.png is empty."), ("a.png is empty.", "Delete it.", "a.png is empty. Delete it.")],
)
def test_error_text_is_message_and_fix(message: str, fix: str | None, text: str) -> None:
    error = ThirtytwoError(message, fix)
    assert (error.message, error.fix, str(error)) == (message, fix, text)


@pytest.mark.parametrize(
    ("found", "known", "help"),
    [
        ("cifar1", ["cifar10", "digits"], "Did you mean 'cifar10'?"),
        ("CIFAR10", ["cifar10", "digits"], "Did you mean 'cifar10'?"),
        ("cifar", ["cifar10", "cifar100", "digits"], "Did you mean 'cifar10' or 'cifar100'?"),
        ("cat", ["crate", "Egyptian cat", "tiger_cat", "castle"], "Did you mean 'tiger_cat' or 'Egyptian cat'?"),
        ("Tiny", ["cifar10", "cifar10-tiny"], "Did you mean 'cifar10-tiny'?"),
        ("zebra", ["digits", "cifar10"], "Known: cifar10, digits."),
        ("zebra", [], "There are none."),
        ("", ["fast"], "Known: fast."),
        ("?", [f"{n:04}" for n in range(1000)], f"Known: {', '.join(f'{n:04}' for n in range(50))} and 950 more."),
    ],
)
def test_did_you_mean(found: str, known: list[str], help: str) -> None:
    assert did_you_mean(found, known) == help


def test_require_gives_the_module() -> None:
    assert require("json", "train") is sys.modules["json"]


@pytest.mark.parametrize("module", ["no_such_library_at_all", "no_such_library_at_all.part"])
def test_require_names_the_install_command(module: str) -> None:
    with pytest.raises(MissingExtraError, match="'no_such_library_at_all'") as caught:
        require(module, "train")
    assert 'pip install "thirtytwo[train]"' in (caught.value.fix or "")


def test_require_re_raises_import_errors_of_the_library(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("No module named 'its_own_part'", name="its_own_part")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="its_own_part"):
        require("some_library", "train")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: thirtytwo.compare(["runs/one", "runs/other"], split="train"), "split"),
        (lambda: thirtytwo.write_report("runs/none", format="doc"), "format"),  # type: ignore[arg-type]
        (lambda: thirtytwo.ensemble(["runs/one", "runs/other"], soup="best"), "soup"),  # type: ignore[arg-type]
        (lambda: thirtytwo.load_dataset("digits", resize="stretch"), "resize"),  # type: ignore[arg-type]
        (lambda: thirtytwo.load_dataset("digits", keep_together="all"), "keep_together"),  # type: ignore[arg-type]
    ],
)
def test_arguments_that_are_none_of_their_choices(
    call: Callable[[], object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match=f"{name} must be one of"):
        call()
