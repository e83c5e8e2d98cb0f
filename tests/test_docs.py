"""Every code block of README and docs is run, or checked against the command line, the Makefile and the recipe schema.

A bash block after a line `<!-- run -->` and every Python block is run, top to bottom, one page in one directory that
holds `my-images/` and `photo.jpg`; training there takes one epoch.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import thirtytwo
from thirtytwo.cli.main import app, run_command
from thirtytwo.config.recipe import Recipe
from thirtytwo.config.settings import parse_settings

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCK = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str
    run: bool

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        lines = self.code.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("language")) + 1
        yield Block(page, line, found["language"], found["code"], bool(found["run"]) or found["language"] == "python")


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
RUN = [page for page in PAGES if page.name != "serve.md" and any(block.run for block in blocks_of(page))]
"""`serve.md` is run by the tests of the service, which start one."""


def parses(arguments: list[str]) -> None:
    """The command line accepts these arguments; nothing is run."""
    command = typer.main.get_command(app)
    leaves = [command]
    for leaf in leaves:
        below = getattr(leaf, "commands", {})
        leaves.extend(below.values())
        leaf.callback = None
        if not below:  # some take their callback with their options, once they are used
            leaf.invoke = lambda context: None
    command.main(arguments, prog_name="thirtytwo", standalone_mode=False)


def make_knows(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), target


def can_be_installed(what: str) -> None:
    found = re.fullmatch(r"(?:thirtytwo|\.)(?:\[(?P<extras>[\w,]+)\])?", what)
    assert found is not None, what
    assert set((found["extras"] or "train").split(",")) <= set(PROJECT["optional-dependencies"]), what


def is_read_somewhere(variable: str) -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert any(variable in source for source in sources), f"nothing reads {variable}"


def check_command(words: list[str], page: str = "") -> None:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        is_read_somewhere(words.pop(0).partition("=")[0])
    match words:
        case ["thirtytwo", *arguments]:
            parses(arguments)
        case ["make", *targets]:
            for target in targets:
                make_knows(target)
        case ["pip", "install", what]:
            can_be_installed(what)
        case ["curl", *_] | ["docker", "run", *_] | ["ray", "start" | "stop" | "status", *_]:
            pass
        case ["docker", "build", *_, "."]:
            assert (ROOT / "Dockerfile").is_file()
        case ["docker", "compose", "-f", file, "up", *_] | ["kubectl", "apply", "-f", file]:
            assert (ROOT / file).is_file(), file  # tests/test_deploy.py checks what it holds
        case ["kubectl", "create", "secret", *_] | ["ray", "start" | "stop" | "get-auth-token", *_]:
            pass
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case ["source", ".venv/bin/activate"]:
            pass
        case ["npm" | "tar" | "mkdir" | "cp", *_] if page == "browser.md":
            pass  # run by tests/inference/test_browser.py
        case _:
            pytest.fail(f"test_docs.py has no check for this command: {shlex.join(words)}")


@pytest.mark.parametrize(
    "line",
    [
        "thirtytwo train",
        "thirtytwo train cifar10 --bogus 1",
        "thirtytwo fly",
        "make coffee",
        "pip install thirtytwo[fly]",
        "python gone.py",
        "THIRTYTWO_FLY=1 thirtytwo demo",
        "rm -r runs",
    ],
)
def test_invalid_commands_fail(line: str) -> None:
    with pytest.raises((AssertionError, typer.TyperException, pytest.fail.Exception)):
        check_command(shlex.split(line))


def check_recipe(code: str) -> None:
    needed = {"name": "own", "model": {"name": "fastnet"}}
    parse_settings(Recipe, {**needed, **tomllib.loads(code)}, "recipe")


CHECKS: dict[str, Callable[[Block], Any]] = {
    "bash": lambda block: [check_command(words, block.page.name) for words in block.commands],
    "python": lambda block: compile(block.code, str(block), "exec"),
    "json": lambda block: json.loads(block.code),
    "html": lambda block: None,
    "nginx": lambda block: None,
    "dockerfile": lambda block: None,
    "javascript": lambda block: None,
    "toml": lambda block: check_recipe(block.code),
    "text": lambda block: None,
}


@pytest.mark.long
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_valid(block: Block) -> None:
    assert block.language in CHECKS, f"{block}: name the language of this block"
    CHECKS[block.language](block)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with three classes of images, in which training takes one epoch."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "parrot")):
        (tmp_path / "my-images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = random.integers(0, 120, (36, 48, 3)) + np.eye(3, dtype=np.int64)[number] * 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "my-images" / name / f"{index}.jpg")
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    workflow = pytest.importorskip("thirtytwo.workflows.train")
    train = workflow.train

    def train_briefly(data: str, **settings: Any) -> Any:
        return train(data, **{**settings, "epochs": 1, "device": "cpu"})

    monkeypatch.setattr(workflow, "train", train_briefly)
    monkeypatch.setattr("thirtytwo.workflows.series.train", train_briefly)
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_page_runs_top_to_bottom(page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks_of(page):
        if block.run and block.language == "python":
            exec(compile(block.code, str(block), "exec"), names)
        elif block.run:
            for program, *arguments in block.commands:
                assert program == "thirtytwo", f"{block}: only thirtytwo commands are run"
                code = run_command(arguments)
                assert code == 0, (
                    f"{block}: thirtytwo {shlex.join(arguments)} ended with {code}\n{capsys.readouterr().err}"
                )


def headings(page: Path) -> set[str]:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Path) -> None:
    for found in LINK.finditer(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if found["target"].startswith("https://"):
            continue  # tests use no network
        file, _, heading = found["target"].partition("#")
        target = (page.parent / file) if file else page
        assert target.exists(), found["target"]
        assert not heading or heading in headings(target), found["target"]


def write_docs() -> ModuleType:
    """The tool that regenerates the documentation."""
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert write_docs().current(text) == text, "regenerate them with: make docs"


def test_cards_of_bundled_models_state_their_metrics_on_photographs() -> None:
    tool = write_docs()
    for card in tool.cards():
        text = card.read_text(encoding="utf-8")
        assert tool.with_photographs(text, card.stem) == text, f"{card.name}: regenerate it with: make docs"
        assert ("## Photographs" in text) == card.stem.startswith("cifar")


def test_every_artefact_and_score_is_documented() -> None:
    from thirtytwo.rundir import RunDir

    text = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    run = RunDir(Path("run"))
    artefacts = [value for name in dir(RunDir) if isinstance(value := getattr(run, name), Path) and name != "path"]
    for artefact in artefacts:
        assert f"`{artefact.name}" in text, artefact.name


def names_in_page() -> list[str]:
    """Dotted names in backticks whose first part is a package or module of thirtytwo."""
    text = BLOCK.sub("", (ROOT / "docs" / "one-training.md").read_text(encoding="utf-8"))
    parts = {path.stem for path in (ROOT / "src" / "thirtytwo").iterdir()}
    return sorted({name for name in re.findall(r"`([a-z_]+(?:\.\w+)+)`", text) if name.partition(".")[0] in parts})


def defined_in(body: list[ast.stmt]) -> Iterator[tuple[str, list[ast.stmt]]]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.body
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                yield target.id, []


@pytest.mark.parametrize("name", [name for name in names_in_page() if not name.endswith((".json", ".csv"))])
def test_walkthrough_names_exist(name: str) -> None:
    place, parts = ROOT / "src" / "thirtytwo", name.split(".")
    while parts and (place / parts[0]).is_dir():
        place /= parts.pop(0)
    file = place / f"{parts.pop(0)}.py"
    assert file.is_file(), f"no module for {name}"
    body = ast.parse(file.read_text(encoding="utf-8")).body
    for part in parts:
        found = dict(defined_in(body))
        assert part in found, f"{file} does not define {part}"
        body = found[part]


def test_version_is_in_the_changelog() -> None:
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert thirtytwo.__version__ == PROJECT["version"]


OF_OTHERS = ("Permission denied", "Argument list too long", "environment.json", "split.json")
"""Messages of the operating system, and names of files, in headings of the page on problems."""


def test_headings_on_problems_quote_messages() -> None:
    """So that people find them by what they were shown."""
    source = "".join(file.read_text(encoding="utf-8") for file in Path(thirtytwo.__file__).parent.rglob("*.py"))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [words for line in page.splitlines() if line.startswith("### ") for words in re.findall('"([^"]+)"', line)]
    pieces = [piece for words in quoted for piece in re.split(f" ?…,? ?|{'|'.join(OF_OTHERS)}", words)]
    assert len(quoted) > 10
    assert not [piece for piece in pieces if piece.strip() not in source]
