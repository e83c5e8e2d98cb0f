"""How a notebook opens on Google Colab: a badge, or in words as long as the repository has no public address."""

import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
BRANCH = "main"


def opening(notebook: str, urls: Mapping[str, str] | None = None) -> str:
    """The badge that opens `notebooks/NOTEBOOK.ipynb` of the repository on GitHub, or what to do without one.

    `urls` are by default the `[project.urls]` of pyproject.toml, whose `Repository` counts.
    """
    if urls is None:
        urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    found = GITHUB.fullmatch(urls.get("Repository", ""))
    if found is None:
        return "On [Colab](https://colab.research.google.com/), choose *Upload* and this file."
    address = f"https://colab.research.google.com/github/{found[1]}/blob/{BRANCH}/notebooks/{notebook}.ipynb"
    return f"[![Open in Colab]({BADGE})]({address})"


def part(notebook: str) -> str:
    """The generated part of a notebook."""
    return opening(notebook) + "\n"


PARTS = {f"colab-{path.stem}": partial(part, path.stem) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
