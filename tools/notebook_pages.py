"""The notebooks as pages of the documentation site, with the outputs that are committed: nothing is executed."""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
_LINK = re.compile(r"\]\(\.\./notebooks/([\w-]+)\.ipynb\)")
_CONTROL = re.compile(r"\x1b\[[0-9;]*m")
"""Sequences by which terminals color text."""
MOST_LINES = 8
"""Lines of output that are shown at once."""
_PLACE = "notebook-output-{}"


def page_of(notebook: Path) -> str:
    """Path of the page of a notebook below docs/."""
    return f"notebooks/{notebook.stem}.md"


def with_links_to_pages(text: str) -> str:
    """Markdown of docs/ in which links to notebooks are links to their pages."""
    return _LINK.sub(r"](notebooks/\1.md)", text)


def as_markdown(notebook: Path) -> str:
    """The cells of a notebook as Markdown, with an empty element for their outputs, which `with_outputs` fills."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else _fenced(source))
        if cell.get("outputs"):
            parts.append(f'<div class="{_PLACE.format(number)}"></div>')
        if number == 0:
            parts.append(
                f"This page is a notebook with its outputs. [Download {notebook.name}]({notebook.name}) to run it in "
                "Jupyter or Colab."
            )
    return "\n\n".join(parts) + "\n"


def with_outputs(html: str, notebook: Path) -> str:
    """The HTML of a page with the outputs of its notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        if cell.get("outputs"):
            shown = "".join(_shown(cell["outputs"]))
            place = f'<div class="{_PLACE.format(number)}"></div>'
            html = html.replace(place, f'<div class="notebook-output">{shown}</div>')
    return html


def _fenced(source: str) -> str:
    language = "bash" if source.startswith("!") else "python"
    return f"```{language}\n{source}\n```"


def _shown(outputs: list[Mapping[str, Any]]) -> Iterator[str]:
    """The HTML of outputs: the richest form of each."""
    for output in outputs:
        data = output.get("data", {})
        if "text/html" in data:
            yield f"<div>{''.join(data['text/html'])}</div>"
        elif "image/png" in data:
            encoded = "".join(data["image/png"]).replace("\n", "")
            yield f'<img src="data:image/png;base64,{encoded}" alt="Output of the code above">'
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            yield _folded(escape(_CONTROL.sub("", text)).rstrip())


def _folded(text: str) -> str:
    """Lines of output; many of them, as training logs, are shown on a click."""
    lines = text.count("\n") + 1
    shown = f"<pre>{text}</pre>"
    return shown if lines <= MOST_LINES else f"<details><summary>{lines} lines of the log</summary>{shown}</details>"
