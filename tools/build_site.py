"""Build the documentation site into site/ and check every link and reference of it: `make docs`.

    python tools/build_site.py [--out FOLDER]

Needs the extra `docs`. The builder reports broken links of the Markdown and of the navigation; then the finished HTML
is read: every link, anchor, image, style and script must exist in the folder, and nothing may be loaded from another
host.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "mkdocs.yml"
NEEDED = ("material", "mkdocstrings_handlers", "pymdownx")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
"""Elements that load something, and the attribute that names it; links that readers follow are `a`."""
NOT_LOADED = {"canonical", "next", "prev", "edit", "alternate"}
"""Values of `rel` of `link` that only name an address."""
ALSO_BUILT = ("404.html",)
"""Pages whose links are those of a server, not of a folder."""


class Page(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the references of one element."""
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        address = given.get(LOADED.get(tag, ""))
        if address and not (tag == "link" and set(given.get("rel", "").split()) & NOT_LOADED):
            self.loaded.append(address)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site")
    options = parser.parse_args()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"The site needs {', '.join(missing)}: pip install '.[docs]'", file=sys.stderr)
        return 2
    problems = build(options.out)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems", file=sys.stderr)
        return 1
    pages = sum(1 for _ in options.out.rglob("*.html"))
    print(f"written: {options.out} ({pages} pages; start with {options.out / 'index.html'})")
    return 0


def build(out: Path) -> list[str]:
    """Build the site into `out`; returns what is wrong with it, nothing if it is sound."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "--config-file", str(CONFIG)]
    command += ["--site-dir", str(out.resolve())]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()
        return [line for line in lines if line and not line.startswith("INFO")]
    return list(problems_of(out))


def problems_of(site: Path) -> Iterator[str]:
    """Broken links and anchors, missing files and foreign hosts in the HTML of a folder."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if site / "index.html" not in pages:
        yield f"{site} has no index.html"
    for path, page in pages.items():
        if path.name in ALSO_BUILT:
            continue
        where = path.relative_to(site)
        for address in page.loaded:
            if urlsplit(address).scheme in {"http", "https"} or address.startswith("//"):
                yield f"{where}: loads {address} from another host"
        for address in (*page.links, *page.loaded):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{where}: {address} does not exist"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where}: {address} has no such anchor"


if __name__ == "__main__":
    sys.exit(main())
