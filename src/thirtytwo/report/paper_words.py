"""The words of the PDF report, from one file for each language."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from thirtytwo.text import SPACE

LANGUAGE = "en"


@dataclass(frozen=True)
class Words:
    """Words by dotted key, such as `headings.data`; values fill the names in braces."""

    language: str
    table: Mapping[str, Any]

    def __call__(self, key: str, **values: object) -> str:
        found: Any = self.table
        for part in key.split("."):
            found = found[part]
        return str(found).format(**values)


def load_words(language: str = LANGUAGE) -> Words:
    """Read the words of a language."""
    text = (files("thirtytwo.report") / "templates" / f"paper.{language}.toml").read_text(encoding="utf-8")
    return Words(language, tomllib.loads(text.replace(" %", f"{SPACE}%")))
