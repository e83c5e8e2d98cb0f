"""Text for people: numbers with units, lists of names, and escaping for Markdown, HTML and terminals."""

from __future__ import annotations

import csv
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, TextIO

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
_TRUTH, _WHOLE, _NUMBER = "true or false", "a whole number", "a number"
_EXPECTED = {
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "string_type": "text",
}
"""Expected values in plain words, by pydantic's error type."""


SPACE = "\u00a0"
"""Between a number and its unit: a space where lines do not break."""
NOT_RECORDED = "not recorded"


DIGITS = 1
"""Digits after the point of a percentage, wherever one is shown; results in files are not rounded."""


def percent(share: float, digits: int = DIGITS) -> str:
    """Format a share: 0.9342 is `93.4 %`; one just below 1 or above 0 is `> 99.9 %` or `< 0.1 %`.

    Args:
        share: a fraction, usually 0 to 1.
        digits: digits after the point.
    """
    return f"{_hundredfold(share, digits)}{SPACE}%"


def interval(ends: Sequence[float], *, as_percent: bool = True, digits: int | None = None) -> str:
    """Format both ends of an interval, with the unit once: `92.9–93.9 %` or `0.201–0.224`."""
    low, high = ends
    if as_percent:
        places = DIGITS if digits is None else digits
        return f"{100 * low:.{places}f}–{100 * high:.{places}f}{SPACE}%"
    places = 3 if digits is None else digits
    return f"{low:.{places}f}–{high:.{places}f}"


def points(difference: float, digits: int = 2, *, signed: bool = True) -> str:
    """Format a difference of two shares in percentage points: 0.0052 is `+0.52 points`, zero has no sign."""
    shown = f"{100 * difference:{'+' if signed else ''}.{digits}f}"
    return f"{shown.lstrip('+-') if float(shown) == 0 else shown}{SPACE}points".replace("-", "−")


def p_value(p: float) -> str:
    """Format a p value: `0.043`, or `< 0.001`."""
    return f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float | None) -> str:
    """Format seconds: `14.2 s`, `12 min 5 s`, `3 h 20 min`; None or NaN is `not recorded`."""
    if seconds is None or not math.isfinite(seconds):
        return NOT_RECORDED
    if seconds < 59.95:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{SPACE}h {minutes}{SPACE}min"


def quantity(value: float | None) -> str:
    """Format a large count: `2.00 million`, `1.30 billion`, `640`; None is `not recorded`."""
    if value is None:
        return NOT_RECORDED
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if value >= size:
            return f"{value / size:.2f}{SPACE}{name}"
    return f"{value:,.0f}"


def size(count: float) -> str:
    """Format a number of bytes in decimal units: `8.6 MB`, `12.0 kB`, `640 bytes`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f}{SPACE}{name}"
    return f"{count:.0f}{SPACE}{'byte' if count == 1 else 'bytes'}"


def image_rate(images: float, seconds: float) -> str:
    """Format images per second, below 10 with two significant digits: `1,234 images/s`, `0.23 images/s`."""
    rate = images / max(seconds, 1e-9)
    digits = max(0, 1 - math.floor(math.log10(rate))) if rate > 0 else 0
    return f"{rate:,.{digits}f} images/s"


def counted(count: int, noun: str) -> str:
    """A number with a regular noun: `1 image`, `1,200 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listing(names: Iterable[object], limit: int = 10, *, quoted: bool = True, separator: str = ", ") -> str:
    """The first `limit` names, separated by commas and quoted by default, and the number of the others.

    With the separator `; `, for sentences, one also stands before the number.
    """
    all_names = list(names)
    more = f"{separator.rstrip(', ')} and {len(all_names) - limit} more" if len(all_names) > limit else ""
    return separator.join((quote(str(name)) if quoted else str(name)) for name in all_names[:limit]) + more


ITEM = "\n  "
"""Before each item of a list in a message; the command line keeps these line breaks, unlike others."""


def itemized(sentence: str, items: Iterable[str], limit: int = 20) -> str:
    """A sentence that ends with a colon, and below it the first `limit` items, one a line, and the number of others.

    A single item stays on the line of the sentence.
    """
    every = [" ".join(item.splitlines()) for item in items]
    if len(every) == 1:
        return f"{sentence} {every[0]}{'' if every[0].endswith('?') else '.'}"
    more = [f"and {len(every) - limit:,} more"] if len(every) > limit else []
    return "".join([sentence, *(f"{ITEM}{item}" for item in [*every[:limit], *more])])


def quote(name: str) -> str:
    """A name in quotes for a message, as by `repr`, but with single backslashes, as in names from `escape_bytes`."""
    return repr(name).replace("\\\\", "\\")


def escape_bytes(name: str) -> str:
    r"""A file name as text that can be encoded: bytes that are not UTF-8 become escape sequences such as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_utf8(name: str | os.PathLike[str]) -> bool:
    """Whether a file name is UTF-8; others have no form that browsers can show and send back."""
    return escape_bytes(os.fspath(name)) == os.fspath(name)


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of an error's message without its full stop; the error's type where it has no message.

    A line of more than `most` characters ends with … after a whole word, if it has one.
    """
    lines = str(error).strip().splitlines()
    line = lines[0].strip().rstrip(".") if lines else type(error).__name__
    if len(line) <= most:
        return line
    whole, _, _ = line[:most].rpartition(" ")
    return f"{whole.rstrip(' ,;:.')} …" if whole else f"{line[: most - 1]}…"


def expected_value(problem: Mapping[str, Any]) -> str | None:
    """What the value should be, by one of pydantic's errors; None where it says something else."""
    _, mark, rest = str(problem["msg"]).rpartition("should be ")
    return _EXPECTED.get(problem["type"]) or (rest if mark else None)


def plain_reason(problem: Mapping[str, Any]) -> str:
    """What is wrong by one of pydantic's errors, without the kind of exception that it puts before a reason."""
    reason = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    expected = None if reason != problem["msg"] else expected_value(problem)
    return f"must be {expected}" if expected else reason


def capitalized(phrase: str) -> str:
    """A phrase with a capital first letter; other letters are kept, unlike by `str.capitalize`."""
    return phrase[:1].upper() + phrase[1:]


def readable(name: str) -> str:
    """The name of a class for people: `sweet_pepper` as `sweet pepper`."""
    return " ".join(name.replace("_", " ").split()) or name


def readable_names(names: Iterable[str]) -> list[str]:
    """The names of classes for people, as by `readable`; names that would then look the same are kept as they are."""
    every = list(names)
    shown = [readable(name) for name in every]
    same = {text for text, count in Counter(shown).items() if count > 1}
    return [name if text in same else text for name, text in zip(every, shown, strict=True)]


def shorten(text: str, most: int) -> str:
    """Shorten a text in the middle to at most `most` characters: `a_very_long_name` as `a_ve…ame`."""
    if len(text) <= most:
        return text
    kept = max(1, most - 1)
    return f"{text[: -(-kept // 2)]}…{text[len(text) - kept // 2 :]}"


def abbreviate(names: Sequence[str], most: int) -> list[str]:
    """Shorten names so that different ones stay different: the part that distinguishes them is kept.

    Args:
        names: names, at most `most` characters of which are to be shown.
        most: number of characters; exceeded by a number where names still look alike.
    """
    short = [shorten(name, most) for name in names]
    if len(set(short)) < len(set(names)):
        long = [name for name in names if len(name) > most]
        start = next((place for place, letters in enumerate(zip(*long, strict=False)) if len(set(letters)) > 1), 0)
        kept = max(0, start - 4)
        short = [name if len(name) <= most else shorten(f"…{name[kept:]}" if kept else name, most) for name in names]
    taken: dict[str, str] = {}
    for place, name in enumerate(names):
        label, number = short[place], 2
        while taken.setdefault(label, name) != name:
            label, number = f"{short[place]} ({number})", number + 1
        short[place] = label
    return short


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


_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")


class CsvWriter:
    """Writes rows as CSV in which no text is a formula, which spreadsheets would compute when they open the file.

    Text that starts with `=`, `+`, `-`, `@`, a tab or a carriage return, or with apostrophes before one of these, gets
    an apostrophe before it (OWASP, CSV Injection); `csv_text` takes it away.
    """

    def __init__(self, stream: TextIO) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)

    def writerow(self, row: Iterable[object]) -> None:
        """Write one row; numbers are written as they are."""
        cells = [_without_formula(cell) for cell in row]
        returns = any(isinstance(cell, str) and "\r" in cell for cell in cells)  # not quoted by itself before 3.13
        (self._quoting if returns else self._writer).writerow(cells)


def csv_text(cell: str) -> str:
    """The text that `CsvWriter` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _may_be_formula(cell) else cell


def _without_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _may_be_formula(cell) else cell


def _may_be_formula(text: str) -> bool:
    """Whether a text, or what follows its apostrophes, starts like a formula."""
    return text.lstrip("'").startswith(_FORMULA_START)


def as_printable(text: object) -> str:
    r"""Replace invisible characters by escape sequences such as `\x1b`; newlines and tabs are kept.

    Control characters, changes of the writing direction and similar characters can hide or forge displayed text.
    """
    return "".join(char if _is_visible(char) else _escape_sequence(char) for char in str(text))


def for_terminal(text: object) -> str:
    """Text for a terminal or a pipe, where people search for ordinary spaces: `as_printable` without `SPACE`."""
    return as_printable(text).replace(SPACE, " ")


def _hundredfold(share: float, digits: int) -> str:
    text, nearest = f"{100 * share:.{digits}f}", 10.0**-digits
    if share < 1 and text == f"{100:.{digits}f}":
        return f">{SPACE}{100 - nearest:.{digits}f}"
    if share > 0 and text == f"{0:.{digits}f}":
        return f"<{SPACE}{nearest:.{digits}f}"
    return text


def _escape_start(found: str) -> str:
    return f"{found}\\" if found[0].isdigit() else f"\\{found}"


def _is_visible(char: str) -> bool:
    return char in "\n\t" or char in _ALLOWED or unicodedata.category(char) not in _HIDDEN


def _escape_sequence(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # a byte of a file name that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")
