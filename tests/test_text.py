from __future__ import annotations

import csv
import html
import io
import re
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from thirtytwo.text import (
    CsvWriter,
    as_html,
    as_markdown,
    as_printable,
    csv_text,
    duration,
    first_line,
    for_terminal,
    image_rate,
    interval,
    listing,
    p_value,
    percent,
    plain_reason,
    points,
    quantity,
    shorten,
    size,
)

markdown_it = pytest.importorskip("markdown_it")

HOSTILE = [
    "![x](http://127.0.0.1:1/leak)",
    "![x][1]",
    "[x](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "<http://127.0.0.1>",
    "a\n\n# b\n\n| c | d |\n| --- | --- |",
    "# heading",
    "- item",
    "+ item",
    "1. item",
    "7) item",
    "---",
    "===",
    "> quote",
    "~~~ code",
    "`code` and ``code``",
    "*a* _b_ **c** ~d~ ~~e~~",
    "$a^2$ and $$b$$",
    "&lt;b&gt; &#33;",
    "\\[ \\! \\\\",
    "snow_white_and cat`s",
    '\'; " onload="x',
    ":red[red] :material/home: :small[] :cat:",
    "a -> b <- c -- d",
]


def shown(markdown: str) -> str:
    """The visible text of rendered Markdown; fails unless it is one paragraph of plain text."""
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = re.fullmatch(r"<p>([^<>]*)</p>\n?", parser.render(markdown))
    assert found, parser.render(markdown)
    return html.unescape(found[1]).replace("\u2060", "")


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_means_anything_to_markdown(text: str) -> None:
    assert shown(as_markdown(text)) == " ".join(text.split())
    assert shown(f"Trained on {as_markdown(text)}, once") == f"Trained on {' '.join(text.split())}, once"


@given(st.text(st.sampled_from("a1 \n\t\\`*_[]()<>|#$~:&;!+-=.@{}'\"/"), min_size=1).filter(str.strip))
def test_any_text_is_shown_as_it_is(text: str) -> None:
    assert shown(as_markdown(text)) == " ".join(text.split())


def test_what_streamlit_reads_before_or_after_markdown_is_broken_up() -> None:
    assert ":material/" not in as_markdown(":material/home:")
    assert ":red[" not in as_markdown(":red[x]")
    assert "$" not in as_markdown("$x$").replace("\\$", "")
    assert "http:" not in as_markdown("http://x")
    assert "HTTPS:" not in as_markdown("HTTPS://x")
    assert "www." not in as_markdown("www.x.org")
    assert "->" not in as_markdown("a -> b")


def test_plain_names_stay_readable() -> None:
    for name in ("cifar10-tiny", "my cat", "97.08%", "Größe 3, (x)", "+41.67 points", "3.14", "it: yes"):
        assert as_markdown(name) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\rb\bc\x7f\x9b", "a\\rb\\x08c\\x7f\\x9b"),
        ("txt\u202egpj.exe", "txt\\u202egpj.exe"),
        ("a\u200bb\u2028c", "a\\u200bb\\u2028c"),
        ("undecodable \udcff", "undecodable \\xff"),
        ("half a pair \ud800", "half a pair \\ud800"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("naïve 猫 👩‍👧 क्‍ष", "naïve 猫 👩‍👧 क्‍ष"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, expected: str) -> None:
    assert as_printable(text) == expected


def test_html_is_escaped_for_text_and_attributes() -> None:
    assert as_html("<a href=\"x\" b='y'>&\x1b") == "&lt;a href=&quot;x&quot; b=&#x27;y&#x27;&gt;&amp;\\x1b"


def spaced(text: str) -> str:
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.9312, 1, "93.1 %"),
        (0.93125, 2, "93.12 %"),
        (1.0, 1, "100.0 %"),
        (0.99999, 1, "> 99.9 %"),
        (0.99999, 2, "> 99.99 %"),
        (0.0, 1, "0.0 %"),
        (1e-6, 1, "< 0.1 %"),
        (1e-6, 2, "< 0.01 %"),
        (0.5, 0, "50 %"),
        (1.25, 0, "125 %"),
        (-0.02, 1, "-2.0 %"),
    ],
)
def test_shares(share: float, digits: int, text: str) -> None:
    assert spaced(percent(share, digits)) == text
    assert " " not in percent(share, digits), "the unit stays on the line of its number"


def test_intervals_have_the_unit_once() -> None:
    assert spaced(interval([0.9292, 0.9389])) == "92.9–93.9 %"
    assert spaced(interval([0.9292, 0.9389], digits=0)) == "93–94 %"
    assert interval([0.12345, 0.2], as_percent=False) == "0.123–0.200"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0123, "+1.23 points"), (-0.0123, "−1.23 points"), (-0.00001, "0.00 points"), (0, "0.00 points")],
)
def test_differences(value: float, text: str) -> None:
    assert spaced(points(value)) == text
    assert spaced(points(abs(value), signed=False)) == text.lstrip("+−")


@pytest.mark.parametrize(("value", "text"), [(0.0004, "< 0.001"), (0.03911, "0.039"), (1.0, "1.000")])
def test_p_values(value: float, text: str) -> None:
    assert spaced(p_value(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.04, "3.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (75, "1 min 15 s"),
        (7260, "2 h 1 min"),
        (None, "not recorded"),
        (float("nan"), "not recorded"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert spaced(duration(seconds)) == text


def test_counts_and_sizes() -> None:
    counts = [quantity(count) for count in (640, 1_970_000, 2.5e9, None)]
    assert [spaced(count) for count in counts] == ["640", "1.97 million", "2.50 billion", "not recorded"]
    sizes = [size(count) for count in (0, 1, 640, 12_000, 8_610_132, 1.2e9)]
    assert [spaced(one) for one in sizes] == ["0 bytes", "1 byte", "640 bytes", "12.0 kB", "8.6 MB", "1.2 GB"]


def test_lists_say_how_many_they_leave_out() -> None:
    assert listing(["a", "b"]) == "'a', 'b'"
    assert listing(["a", "b", "c"], 2) == "'a', 'b' and 1 more"
    assert listing(range(4), 3, quoted=False) == "0, 1, 2 and 1 more"
    assert listing([]) == ""
    assert listing(["A is bad", "B is bad"], 2, quoted=False, separator="; ") == "A is bad; B is bad"
    assert listing(["A is bad", "B", "C"], 1, quoted=False, separator="; ") == "A is bad; and 2 more"


def test_first_line_of_an_error() -> None:
    assert first_line(ValueError("\n it broke. \n and then")) == "it broke"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("x" * 1000))) == 200
    error = ValueError("Couldn't resolve host name no-such-bucket.s3")
    assert first_line(error, most=40) == "Couldn't resolve host name …"


@pytest.mark.parametrize("kind", [ValueError, AssertionError])
def test_reasons_of_pydantic_do_not_name_a_kind_of_exception(kind: type[Exception]) -> None:
    def check(value: int) -> int:
        raise kind("a reason")

    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Annotated[int, AfterValidator(check)]).validate_python(1)
    (problem,) = caught.value.errors()
    assert problem["msg"].endswith(", a reason")
    assert plain_reason(dict(problem)) == "a reason"


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (bool, "2", "must be true or false"),
        (int, "many", "must be a whole number"),
        (int, 1.5, "must be a whole number"),
        (float, "x", "must be a number"),
        (Annotated[int, Field(ge=1)], 0, "must be greater than or equal to 1"),
        (Literal["a", "b"], "c", "must be 'a' or 'b'"),
    ],
)
def test_reasons_of_pydantic_are_plain(kind: Any, value: object, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    assert plain_reason(dict(caught.value.errors()[0])) == reason


@given(st.text(), st.integers(2, 40))
def test_shortened_text_keeps_both_ends(text: str, most: int) -> None:
    short = shorten(text, most)
    assert len(short) <= most
    assert short == text or (short[0] == text[0] and "…" in short)


def test_terminals_get_ordinary_spaces() -> None:
    assert for_terminal(percent(0.5)) == "50.0 %"
    assert for_terminal("a\x1b\n") == "a\\x1b\n"


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@a", "\ta", "\ra", "'=1", "''@", "'", "", "it's", "'a", "a=1"])
def test_text_in_a_csv_file_is_no_formula_and_comes_back(text: str) -> None:
    stream = io.StringIO(newline="")
    CsvWriter(stream).writerow([text, 1])
    stream.seek(0)
    ((cell, number),) = csv.reader(stream)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert (csv_text(cell), number) == (text, "1")


@pytest.mark.parametrize(
    ("images", "seconds", "shown"),
    [
        (12_345, 10, "1,234 images/s"),
        (99, 9, "11 images/s"),
        (64, 10, "6.4 images/s"),
        (64, 291, "0.22 images/s"),
        (9.96, 1, "10.0 images/s"),
        (64, 100_000, "0.00064 images/s"),
        (0, 3, "0 images/s"),
    ],
)
def test_slow_rates_are_not_zero(images: float, seconds: float, shown: str) -> None:
    assert image_rate(images, seconds) == shown
