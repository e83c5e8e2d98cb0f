"""Runs the examples of docs/serve.md against a service: curl, Python and JavaScript."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from thirtytwo.app.snippets import PYTHON, REST, SERVE

PAGE = Path(__file__).parent.parent.parent / "docs" / "serve.md"
ADDRESS = "http://127.0.0.1:8032"
BLOCK = re.compile(r"^```(?P<language>bash|python|javascript)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(found["language"], found["code"]) for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]


def of(language: str, only: str = "") -> str:
    """All code blocks in a language, joined."""
    code = [code for found, code in BLOCKS if found == language and only in code]
    assert code
    return "\n".join(code)


@pytest.fixture(scope="module")
def running(launch: Callable[..., Any]) -> Any:
    return launch()


@pytest.fixture
def workplace(tmp_path: Path, make: SimpleNamespace) -> Path:
    """A folder with the images that the examples name."""
    for name, colour in (("photo.jpg", "red"), ("my-images/cat/1.jpg", "green"), ("my-images/dog/1.jpg", "blue")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(make.image(colour, (60, 40), "JPEG"))
    return tmp_path


def run(code: str, running: Any, workplace: Path, *command: str, suffix: str) -> str:
    assert ADDRESS in code
    script = workplace / f"example{suffix}"
    script.write_text(code.replace(ADDRESS, running.url), encoding="utf-8")
    environment = os.environ | {"THIRTYTWO_API_KEY": "sesame"}
    done = subprocess.run([*command, str(script)], cwd=workplace, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python(running: Any, workplace: Path) -> None:
    lines = run(of("python"), running, workplace, sys.executable, suffix=".py").splitlines()
    assert re.fullmatch(r"photo\.jpg red 0\.\d+|photo\.jpg red 1\.0", lines[0])
    assert lines[1:] == ["1.jpg green", "1.jpg blue"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl(running: Any, workplace: Path) -> None:
    out = run(of("bash", only="curl"), running, workplace, "bash", "-e", suffix=".sh")
    assert re.findall(r'"top":"(\w+)"', out) == ["red", "green", "blue", "red"]
    assert '"dataset":"colours"' in out


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_javascript(running: Any, workplace: Path) -> None:
    out = run(of("javascript"), running, workplace, "node", suffix=".mjs")
    assert re.fullmatch(r"photo\.jpg red (0\.\d+|1)\n", out)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_code_that_the_app_offers(launch: Callable[..., Any], colour_model: Path, workplace: Path) -> None:
    (workplace / "model.onnx").write_bytes(colour_model.read_bytes())
    program, verb, *rest = shlex.split(SERVE)
    assert (program, verb, rest) == ("thirtytwo", "serve", ["--model", "model.onnx"])
    served = launch(models=[str(workplace / "model.onnx")])
    out = run(REST, served, workplace, "bash", "-e", suffix=".sh")
    assert [one["top"] for one in json.loads(out)] == ["red"]
    script = workplace / "snippet.py"
    script.write_text(PYTHON, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=workplace, capture_output=True, text=True)
    assert re.fullmatch(r"photo\.jpg red \d+\.\d% ?\n", done.stdout), done.stderr


def test_every_block_is_covered() -> None:
    commands = [
        line.split()[0] for language, code in BLOCKS if language == "bash" for line in code.splitlines() if line
    ]
    assert set(commands) <= {"pip", "thirtytwo", "curl", "docker", "THIRTYTWO_API_KEY=sesame"}
