"""`report.pdf`: the report of a run as a paper of a few pages, typeset with Typst.

The layout is `templates/paper.typ`, the words are `templates/paper.en.toml`. All content is data for the layout and
never parsed as markup, and Typst reads files only below its root, a temporary folder.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from thirtytwo.data.types import ImageSet
from thirtytwo.errors import require
from thirtytwo.evaluation.metrics import METRICS
from thirtytwo.images.fonts import font_families, font_file
from thirtytwo.io import write_bytes
from thirtytwo.report.facts import date_text, notices
from thirtytwo.report.figures import drawings_of, save_figures
from thirtytwo.report.paper_blocks import Material
from thirtytwo.report.paper_sections import sections
from thirtytwo.report.paper_words import Words, load_words
from thirtytwo.report.run_record import RunRecord, for_others
from thirtytwo.text import abbreviate, as_printable, interval, percent, readable, shorten

SERIF = "Libertinus Serif"
"""Font of the text, which Typst brings."""
MARK = "thirtytwo report"
"""Keyword in the metadata of every PDF that is written here."""


def require_typst() -> Any:
    """Import Typst.

    Raises:
        MissingExtraError: it is not installed.
    """
    return require("typst", "pdf")


def is_own(path: Path) -> bool:
    """Whether a file is a PDF report that was written here, which may be replaced."""
    return path.is_file() and MARK.encode() in path.read_bytes()


def write_paper(target: Path, record: RunRecord, images: Mapping[str, ImageSet | None]) -> Path:
    """Write the PDF report of a run to `target`; returns it.

    What a run has no data for is left out: curves, an evaluation, calibration, or images. Equal arguments give equal
    bytes on one machine.

    Args:
        target: the file, replaced if it exists.
        record: the files of the run.
        images: images of `train`, `val` and of the split of `record`, None where they are not available.

    Raises:
        MissingExtraError: Typst is not installed.
        OutputError: the file could not be written.
    """
    content, attached = compose(record, images)
    write_bytes(target, typeset(content, attached, _seconds(record)))
    return target


def compose(record: RunRecord, images: Mapping[str, ImageSet | None]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The content of the paper as JSON values, and the files that it refers to by name; it names no local folder."""
    record, words = for_others(record), load_words()
    figures = _figures(record)
    material = Material(record, images, [name.removesuffix(".svg") for name in figures], words)
    content = {
        **_front(record, words),
        "blocks": sections(material),
        "words": words.table,
        "language": words.language,
        "mark": MARK,
    }
    content["fonts"] = [SERIF, *font_families(_texts(content))]
    return _printable(content), figures | material.files


def typeset(content: Mapping[str, Any], attached: Mapping[str, bytes], seconds: int, format: str = "pdf") -> Any:
    """Lay out the paper.

    Args:
        content: the content, from `compose`.
        attached: the files that it refers to by name.
        seconds: time of creation in the metadata, in seconds since 1970.
        format: `pdf`, `html`, or `png` for a list of pages.
    """
    typst = require_typst()
    template = (files("thirtytwo.report") / "templates" / "paper.typ").read_bytes()
    data = json.dumps(content, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    folders = sorted({str(font_file(family).parent) for family in content["fonts"][1:]})
    fonts = typst.Fonts(include_system_fonts=False, include_embedded_fonts=True, font_paths=folders)
    with tempfile.TemporaryDirectory() as root:
        for name, content_of in {"main.typ": template, "paper.json": data, **attached}.items():
            (Path(root) / name).write_bytes(content_of)
        options = {"root": root, "font_paths": fonts, "format": format, "timestamp": seconds}
        made, _ = typst.compile_with_warnings(str(Path(root) / "main.typ"), **options)
    return made


def _front(record: RunRecord, words: Words) -> dict[str, Any]:
    """Title, lines below it, notices and abstract."""
    environment, recipe = record.environment, record.recipe
    made = {
        "date": date_text(environment.get("started")),
        "version": (environment.get("versions") or {}).get("thirtytwo"),
    }
    network = {"network": recipe.model.architecture, "recipe": recipe.name, "seed": recipe.seed}
    title = words("title", dataset=shorten(record.dataset, 60))
    return {
        "title": title,
        "title-short": shorten(title, 60),
        "byline": [words("byline", **network), *([words("made", **made)] if all(made.values()) else [])],
        "notices": notices(record),
        "abstract": " ".join(_abstract(record, words)),
        "headline": _headline(record, words),
    }


def _abstract(record: RunRecord, words: Words) -> Iterator[str]:
    members, train = record.environment.get("members"), record.data.get("train")
    known = {"classes": len(record.classes), "dataset": record.dataset, "recipe": record.recipe.name}
    if members:
        yield words("abstract.combined", **known, members=sum(bool(member.get("in_it")) for member in members))
    elif isinstance(train, int):
        yield words("abstract.trained", **known, train=f"{train:,}")
    else:
        yield words("abstract.trained_unknown", **known)
    metrics = record.metrics
    if metrics is None:
        yield words("abstract.unevaluated")
        return
    accuracy, split = metrics["accuracy"], words(f"splits.{record.split}")
    values = {"accuracy": percent(accuracy["value"]), "interval": interval(accuracy["ci95"])}
    yield words("abstract.accuracy", n=f"{metrics['n']:,}", split=split, **values)
    found = {metric.key: metric for metric in METRICS}
    if (f1 := metrics.get("macro_f1")) and f1["value"] is not None:
        ends = found["macro_f1"].interval(f1["ci95"]) if f1.get("ci95") else ""
        yield words("abstract.f1", f1=percent(f1["value"]), interval=ends)
    scored = [row for row in metrics["per_class"] if row["f1"] is not None]
    if len(scored) > 1:
        lowest = min(scored, key=lambda row: row["f1"])
        yield words("abstract.hardest", f1=percent(lowest["f1"]), name=abbreviate([readable(lowest["class"])], 31)[0])
    if (ece := metrics.get("ece")) and ece["value"] is not None:
        yield words("abstract.ece", ece=percent(ece["value"]))
    if (unknown := metrics.get("unknown")) and (test := unknown.get("test")):
        alarms = test["called_unknown"]
        yield words("abstract.false_alarms", value=percent(alarms["value"]), interval=interval(alarms["ci95"]))
    if record.split == "test" and (count := int(metrics.get("test_evaluations") or 0)):
        yield words("abstract.evaluations_one" if count == 1 else "abstract.evaluations", count=count)


def _headline(record: RunRecord, words: Words) -> dict[str, str] | None:
    if record.metrics is None:
        return None
    accuracy = record.metrics["accuracy"]
    return {
        "value": percent(accuracy["value"]),
        "what": words("accuracy_on", split=words(f"splits.{record.split}")),
        "interval": words("interval", interval=interval(accuracy["ci95"])),
    }


def _figures(record: RunRecord) -> dict[str, bytes]:
    """The figures of the run as SVG, by file name; those of which the paper has a table are left out."""
    wanted = [(name, draw) for name, draw in drawings_of(record) if name != "f1"]
    with tempfile.TemporaryDirectory() as folder:
        written = save_figures(Path(folder), wanted, record.classes, [".svg"])
        return {path.name: path.read_bytes() for path in written}


def _seconds(record: RunRecord) -> int:
    """When the run ended, in seconds since 1970; 0 where it is not recorded."""
    ended = record.environment.get("finished") or record.environment.get("started")
    try:
        return int(datetime.fromisoformat(str(ended)).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


def _texts(value: Any) -> Iterator[str]:
    """Every text in JSON values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _printable(value: Any) -> Any:
    """JSON values without invisible characters in their texts."""
    if isinstance(value, str):
        return as_printable(value)
    if isinstance(value, Mapping):
        return {key: _printable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return value
