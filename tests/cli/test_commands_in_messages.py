"""Every command that a message, page or docstring names exists, with the options that it names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

import thirtytwo
from thirtytwo.cli.main import app

SOURCE = Path(thirtytwo.__file__).parent
NAMED = re.compile(r"(?P<before>^|[`:]\s*|\n +)thirtytwo (?P<words>[a-z][a-z-]*(?: [a-z][a-z-]*)?)(?P<rest>[^`;\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
GROUP: Any = typer.main.get_command(app)


def texts() -> Iterator[tuple[str, str]]:
    """Place and content of every string in the package; what is filled in later is `X`."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            place = f"{file.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                yield place, "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield place, node.value


def commands() -> list[Any]:
    """Place, words after `thirtytwo` and the rest of the sentence of every command that is named."""
    found = []
    for place, text in texts():
        for match in NAMED.finditer(text):
            words = match["words"].split()
            if "`" not in match["before"] and words[0] not in GROUP.commands:
                continue  # the name of the product in a sentence
            rest = re.split(r"\.(?:\s|$)", match["rest"])[0]
            found.append(pytest.param(words, rest, id=f"{place} {match['words']}"))
    return found


def resolve(words: list[str]) -> Any:
    """The command of these words, of which only the first may be one."""
    command = GROUP
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"there is no command {word!r}; there are {sorted(command.commands)}"
        command = command.commands[word]
    return command


@pytest.mark.parametrize(("words", "rest"), commands())
def test_the_command_and_its_options_exist(words: list[str], rest: str) -> None:
    command = resolve(words)
    known = {name for option in command.get_params(typer.Context(command)) for name in option.opts}
    known |= {name for option in command.get_params(typer.Context(command)) for name in option.secondary_opts}
    named = set(OPTION.findall(rest))
    assert named <= known, f"unknown: {named - known}"


def test_commands_are_found() -> None:
    names = {tuple(param.values[0][:1]) for param in commands()}
    assert {("train",), ("evaluate",), ("report",), ("teach",)} <= names


def test_every_extra_in_a_message_exists() -> None:
    known = set(metadata("thirtytwo").get_all("Provides-Extra") or ())
    named = set()
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require" and len(node.args) == 2:
                extra = node.args[1]
                if isinstance(extra, ast.Constant):
                    named.add(str(extra.value))
    assert {"train", "app"} <= named
    assert named <= known


@pytest.mark.long
def test_the_command_to_log_in_to_the_hub_exists() -> None:
    assert any("hf auth login" in text for _, text in texts())
    command = [sys.executable, "-m", "huggingface_hub.cli.hf", "auth", "login", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
