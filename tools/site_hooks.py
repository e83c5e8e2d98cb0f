"""Hooks of the documentation site's builder: what the theme loads from another host is loaded from the site itself."""

from typing import Any

from mkdocs.utils import get_relative_url

ELSEWHERE = "https://unpkg.com/iframe-worker/shim"
HERE = "javascripts/iframe-worker.min.js"
"""The same file (iframe-worker 1.0.4, MIT): search from a folder needs a worker that browsers allow there."""


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Name the file of the site in a page."""
    return output.replace(ELSEWHERE, get_relative_url(HERE, page.url))


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    """The same for pages that are no Markdown, such as that of a missing address."""
    return output.replace(ELSEWHERE, get_relative_url(HERE, template_name))
