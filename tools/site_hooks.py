"""Hooks of the documentation site's builder.

What the theme loads from another host is loaded from the site itself, and the notebooks become pages.
"""

from typing import Any

from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url
from notebook_pages import NOTEBOOKS, as_markdown, page_of, with_links_to_pages, with_outputs

ELSEWHERE = "https://unpkg.com/iframe-worker/shim"
HERE = "javascripts/iframe-worker.min.js"
"""The same file (iframe-worker 1.0.4, MIT): search from a folder needs a worker that browsers allow there."""
PAGES = {page_of(notebook): notebook for notebook in NOTEBOOKS}


def on_files(files: Any, *, config: Any) -> Any:
    """Add the page of each notebook, and the notebook itself beside it."""
    for page, notebook in PAGES.items():
        files.append(File.generated(config, page, content=as_markdown(notebook)))
        files.append(File.generated(config, f"notebooks/{notebook.name}", abs_src_path=str(notebook)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Link to the pages of notebooks."""
    return with_links_to_pages(markdown)


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """Show the outputs of notebooks."""
    notebook = PAGES.get(page.file.src_uri)
    return html if notebook is None else with_outputs(html, notebook)


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Name the file of the site in a page."""
    return output.replace(ELSEWHERE, get_relative_url(HERE, page.url))


def on_post_template(output: str, *, template_name: str, config: Any) -> str:
    """The same for pages that are no Markdown, such as that of a missing address."""
    return output.replace(ELSEWHERE, get_relative_url(HERE, template_name))
