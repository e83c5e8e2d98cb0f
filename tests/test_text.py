from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thirtytwo.text import as_html, as_markdown, as_printable

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
        ("undecodable \udcff", "undecodable \\udcff"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("naïve 猫 👩‍👧 क्‍ष", "naïve 猫 👩‍👧 क्‍ष"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, expected: str) -> None:
    assert as_printable(text) == expected


def test_html_is_escaped_for_text_and_attributes() -> None:
    assert as_html("<a href=\"x\" b='y'>&\x1b") == "&lt;a href=&quot;x&quot; b=&#x27;y&#x27;&gt;&amp;\\x1b"
