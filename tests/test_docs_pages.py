"""README and docs are consistent: links, generated parts, names in the code and messages that they quote."""

from __future__ import annotations

import ast
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import thirtytwo

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\((?P<target>[^)\s]+)\)")


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
