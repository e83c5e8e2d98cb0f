"""Text from files and people, made harmless for where it is shown: Markdown, HTML, a terminal."""

from __future__ import annotations

import re
import unicodedata
from html import escape

_MEANS = re.compile(r"[\\`*_\[\]|#$~]|:(?=\S)|&(?=[#\w])")
"""What means something to Markdown anywhere in a line; the rest does only at its start, or to `_LATE`."""
_STARTS = re.compile(r"^(?:[-+](?=[\s-]|$)|=(?==*$)|\d+(?=[.)](?:\s|$)))")
_LATE = re.compile(
    r"(?<=\bhttp)(?=:)|(?<=\bhttps)(?=:)|(?<=\bftp)(?=:)|(?<=\bwww)(?=\.)|(?<=@)|(?<=:)(?=[+\w-]+:)|(?<=[-<>~])(?=[-=>])",
    re.I,
)
"""Where links, addresses, emoji and arrows are made of parsed text, so that no escape keeps them from it."""
_JOINER = "\u2060"
_ICON = ":material/"  # Streamlit replaces it before it parses
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_FINE = frozenset("\u200c\u200d")
"""Joiners that emoji and some scripts are written with."""


def as_markdown(text: object) -> str:
    """Any text as one line of Markdown, with GitHub's, a hub's and Streamlit's additions, that means only itself.

    Where no escape helps, an invisible word joiner does.
    """
    line = _LATE.sub(_JOINER, " ".join(as_printable(text).split()))
    line = _MEANS.sub(r"\\\g<0>", line.replace(_ICON, _ICON.replace("/", "\0")))
    line = _STARTS.sub(lambda found: _started(found[0]), line)
    return line.replace("\0", "\\/").replace("<", "&lt;").replace(">", "&gt;")


def as_html(text: object) -> str:
    """Any text for HTML, as content or within an attribute's quotes."""
    return escape(as_printable(text), quote=True)


def as_printable(text: object) -> str:
    r"""Any text with what a terminal or a reader would not show written out, such as `\x1b`; lines stay lines.

    Control characters, a change of writing direction and the like can hide or forge what is shown.
    """
    return "".join(sign if _is_shown(sign) else _written_out(sign) for sign in str(text))


def _started(found: str) -> str:
    return f"{found}\\" if found[0].isdigit() else f"\\{found}"


def _is_shown(sign: str) -> bool:
    return sign in "\n\t" or sign in _FINE or unicodedata.category(sign) not in _HIDDEN


def _written_out(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")
