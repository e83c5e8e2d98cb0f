"""The documentation site builds strictly, its links hold, and it loads nothing from other hosts."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def tool(name: str) -> ModuleType:
    """A script of tools/."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "tools"))


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"(?:: |- )([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    notebooks = [f"notebooks/{notebook.stem}.md" for notebook in (ROOT / "notebooks").glob("*.ipynb")]
    assert sorted(listed) == sorted([*(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")), *notebooks])


def luminance(color: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    values = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["--md-primary-fg-color", "--md-typeset-a-color"])
def test_links_and_the_header_have_enough_contrast(name: str) -> None:
    """With white, and with the gray behind linked code."""
    css = (DOCS / "stylesheets" / "site.css").read_text(encoding="utf-8")
    found = re.search(rf"{name}: (#[0-9a-f]{{6}});", css)
    assert found
    for other in ("#ffffff", "#f5f5f5"):
        assert (luminance(other) + 0.05) / (luminance(found[1]) + 0.05) >= 4.5


def test_photographs_are_one_click_from_the_start() -> None:
    assert "[Train on my photographs](my-photographs.md)" in (DOCS / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_become_pages_with_their_outputs(path: Path) -> None:
    pages = tool("notebook_pages")
    text = pages.as_markdown(path)
    assert text.startswith("# ")
    assert f"({path.name})" in text
    html = pages.with_outputs(text, path)
    assert html.count('<div class="notebook-output">') == text.count('<div class="notebook-output-') > 3
    assert "data:image/png;base64," in html
    assert "notebook-output-" not in html


def test_links_to_notebooks_are_links_to_their_pages() -> None:
    pages = tool("notebook_pages")
    assert pages.with_links_to_pages("[a](../notebooks/x-y.ipynb)") == "[a](notebooks/x-y.md)"


def test_the_number_of_checks_is_current() -> None:
    found = re.search(r"(\d+) coded checks", (DOCS / "alternatives.md").read_text(encoding="utf-8"))
    assert found
    assert int(found[1]) == len(tool("check_pages").ours())


def test_pages_of_checks_are_current() -> None:
    pages = tool("check_pages")
    for path, text in pages.pages().items():
        assert path.is_file(), f"write it with: make docs: {path.name}"
        assert path.read_text(encoding="utf-8") == text, f"regenerate it with: make docs: {path.name}"
    assert pages.stale() == []


def test_navigation_and_diagram_are_current() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert tool("write_docs").with_navigation(text) == text
    diagram = tool("architecture")
    assert diagram.OUT.read_text(encoding="utf-8") == diagram.draw()


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="gone.html">x</a>', "gone.html does not exist"),
        ('<a href="other.html#gone">x</a>', "other.html#gone has no such anchor"),
        ('<a href="#gone">x</a>', "#gone has no such anchor"),
        ('<img src="gone.png">', "gone.png does not exist"),
        ('<script src="https://example.org/x.js"></script>', "from another host"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "from another host"),
        ('<a href="https://example.org">x</a><a href="other.html#there">x</a>', None),
    ],
)
def test_problems_of_pages_are_found(tmp_path: Path, body: str, problem: str | None) -> None:
    (tmp_path / "index.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    (tmp_path / "other.html").write_text('<h2 id="there">x</h2>', encoding="utf-8")
    found = list(tool("build_site").problems_of(tmp_path))
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def needs_the_extra() -> None:
    missing = [name for name in tool("build_site").NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install '.[docs]'")


@pytest.mark.slow
@pytest.mark.long
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    needs_the_extra()
    assert tool("build_site").build(tmp_path / "site") == []
    page = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in __import__("thirtytwo").__all__:
        assert name.startswith("_") or f"thirtytwo.{name}" in page, f"{name} is not in the reference"
