"""Escaping of untrusted text for Markdown, HTML and terminals, and lists of names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from html import escape

_SPECIAL = re.compile(r"[\\`*_\[\]|#$~]|:(?=\S)|&(?=[#\w])")
"""Characters that Markdown interprets anywhere in a line; see `_LINE_START` and `_AUTOLINK` for the others."""
_LINE_START = re.compile(r"^(?:[-+](?=[\s-]|$)|=(?==*$)|\d+(?=[.)](?:\s|$)))")
_AUTOLINK = re.compile(
    r"(?<=\bhttp)(?=:)|(?<=\bhttps)(?=:)|(?<=\bftp)(?=:)|(?<=\bwww)(?=\.)|(?<=@)|(?<=:)(?=[+\w-]+:)|(?<=[-<>~])(?=[-=>])",
    re.I,
)
"""Positions where links, addresses, emoji and arrows are recognized after parsing, so that escapes have no effect."""
_JOINER = "\u2060"
_ICON = ":material/"  # Streamlit replaces it before it parses
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_ALLOWED = frozenset("\u200c\u200d")
"""Joiners that emoji and some scripts need."""


def as_markdown(text: object) -> str:
    """Escape any text as one line of Markdown, including the extensions of GitHub, the Hugging Face hub and Streamlit.

    Where a backslash has no effect, an invisible word joiner is inserted.
    """
    line = _AUTOLINK.sub(_JOINER, " ".join(as_printable(text).split()))
    line = _SPECIAL.sub(r"\\\g<0>", line.replace(_ICON, _ICON.replace("/", "\0")))
    line = _LINE_START.sub(lambda match: _escape_start(match[0]), line)
    return line.replace("\0", "\\/").replace("<", "&lt;").replace(">", "&gt;")


def as_html(text: object) -> str:
    """Escape any text for HTML, as content or inside a quoted attribute."""
    return escape(as_printable(text), quote=True)


def as_printable(text: object) -> str:
    r"""Replace invisible characters by escape sequences such as `\x1b`; newlines and tabs are kept.

    Control characters, changes of the writing direction and similar characters can hide or forge displayed text.
    """
    return "".join(char if _is_visible(char) else _escape_sequence(char) for char in str(text))


def listing(names: Iterable[str], limit: int = 10) -> str:
    """The first `limit` names, quoted and separated by commas, and the number of the others."""
    all_names = list(names)
    more = f" and {len(all_names) - limit} more" if len(all_names) > limit else ""
    return ", ".join(map(repr, all_names[:limit])) + more


def _escape_start(found: str) -> str:
    return f"{found}\\" if found[0].isdigit() else f"\\{found}"


def _is_visible(char: str) -> bool:
    return char in "\n\t" or char in _ALLOWED or unicodedata.category(char) not in _HIDDEN


def _escape_sequence(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
