"""One page for each check of `data doctor`, in docs/checks/, from the attributes and docstrings of the checks."""

import inspect
from itertools import groupby
from pathlib import Path

from thirtytwo.doctor import CHECKS, Check
from thirtytwo.text import capitalized

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "checks"
TOPICS = {
    "T1": "copies",
    "T2": "files",
    "T3": "classes and splits",
    "T4": "images",
    "T5": "labels and outliers",
    "T6": "shortcuts and differences between splits",
}
"""What the checks are about, by the start of their codes."""
SUGGESTED = {
    "T101": "drop the copy in train, or that in val where the other is in test",
    "T102": "drop all of them, unless at least two of three agree on a label: then one image with it stays",
    "T103": "drop all but one",
    "T111": "drop the copy in train, or that in val where the other is in test",
    "T201": "drop",
    "T401": "drop",
    "T501": "relabel where the prediction is confident, drop where it is less so",
}
"""What `--fix-plan` suggests, for the checks for which it suggests something."""


def ours() -> list[type[Check]]:
    """The checks of thirtytwo itself, in the order of their codes."""
    found = [CHECKS.get(code) for code in CHECKS]
    return sorted((check for check in found if check.__module__.startswith("thirtytwo.")), key=lambda one: one.code)


def pages() -> dict[Path, str]:
    """The text of each page."""
    every = ours()
    return {FOLDER / f"{check.code}.md": page(check, every) for check in every}


def page(check: type[Check], every: list[type[Check]]) -> str:
    """Why it matters, how it is found, what to do, and the checks beside it."""
    severity = check.severity + (", only with `--thorough`" if check.costly else "")
    parts = [
        f"# {check.code}: {check.title}",
        f"Severity: **{severity}**. [All checks](../checks.md)",
        "## Why it matters",
        check.why,
        "## How it is found",
        " ".join(sentence for sentence in _docstrings(check) if sentence),
        "## What to do",
        check.fix or "Nothing, if it is intended.",
    ]
    if check.code in SUGGESTED:
        plan = f"`--fix-plan plan.csv` suggests: {SUGGESTED[check.code]}. Test images stay unless they cannot be read."
        parts.append(f"{plan} [Plans of fixes](../data.md#repair)")
    thorough = " --thorough" if check.costly else ""
    parts += [
        "Look at the images of this check alone, or leave the check out:",
    ]
    command = f"thirtytwo data doctor my-images{thorough}"
    parts.append(f"```bash\n{command} --only {check.code} --html findings.html\n{command} --mute {check.code}\n```")
    beside = [other for other in every if other.code[:2] == check.code[:2] and other is not check]
    if beside:
        links = [f"- [{other.code}]({other.code}.md): {other.title}" for other in beside]
        parts += [f"## Other checks of {TOPICS[check.code[:2]]}", "\n".join(links)]
    return "\n\n".join(parts) + "\n"


def _docstrings(check: type[Check]) -> list[str]:
    """What the class looks for, and what its `run` adds, each as sentences."""
    method = check.__dict__.get("run")
    texts = [inspect.getdoc(check) or "", (inspect.getdoc(method) or "") if method else ""]
    return [_sentence(text.split("\n\n")[0]) for text in texts]


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line and capitalized(line if line.endswith(".") else f"{line}.")


def navigation() -> list[str]:
    """Lines of the navigation in mkdocs.yml: the pages by topic."""
    lines = []
    for start, group in groupby(ours(), key=lambda check: check.code[:2]):
        lines.append(f"          - {capitalized(TOPICS[start])}:")
        lines += [f'              - "{check.code}: {check.title}": checks/{check.code}.md' for check in group]
    return lines


def stale() -> list[Path]:
    """Pages of checks that no longer exist."""
    return sorted(set(FOLDER.glob("*.md")) - set(pages()))


def write() -> list[Path]:
    """Write the pages that are not current and remove stale ones; returns them."""
    FOLDER.mkdir(exist_ok=True)
    changed = []
    for path, text in pages().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for path in stale():
        path.unlink()
        changed.append(path)
    return changed
