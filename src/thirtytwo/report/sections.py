"""Sections of the report and of the model card: what evaluators describe, and the members of an ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.sections import Cell, Picked, Section, Table
from thirtytwo.images.render import data_uri, is_pixelated
from thirtytwo.report.charts import reliability_chart
from thirtytwo.report.enlarged import Enlarged, Photographs, enlarge
from thirtytwo.report.gallery import locate
from thirtytwo.report.run_record import RunRecord
from thirtytwo.text import SPACE, as_markdown, duration, interval, percent, quantity

MAX_SHOWN = 24
"""Maximum number of images in a section."""


def section_context(
    key: str, title: str, section: Section, record: RunRecord, images: Mapping[str, ImageSet | None]
) -> dict[str, Any]:
    """A section for the macro `evaluation` of the template, which escapes all text.

    Args:
        key: id of the section.
        title: its heading.
        section: the description.
        record: the run whose predictions `Section.images` refers to.
        images: the images of each split, None where they are not available.
    """
    return {
        "key": key,
        "title": title,
        "text": " ".join([*section.sentences, *(section.legend if section.charts else ())]),
        "charts": [(chart.title, reliability_chart(chart.data, chart.title.lower())) for chart in section.charts],
        "tables": [table for table in section.tables if not table.folded],
        "folded": [table for table in section.tables if table.folded],
        "notes": " ".join(section.notes),
        "images": _shown(section.images, record, images),
    }


def _shown(wanted: Sequence[Picked], record: RunRecord, images: Mapping[str, ImageSet | None]) -> list[dict[str, Any]]:
    """The first images that are available, as data URIs."""
    found = []
    for split in dict.fromkeys(one.split for one in wanted):
        of_split = [(number, one) for number, one in enumerate(wanted) if one.split == split]
        part = images.get(split)
        positions = np.array([one.position for _, one in of_split], dtype=np.int64)
        places, _ = locate(record.out_of_sample[split], part, positions)
        if part is not None and places is not None:
            found += [(number, one, part, int(place)) for (number, one), place in zip(of_split, places, strict=True)]
    found.sort(key=lambda entry: entry[0])
    shown = found[:MAX_SHOWN]
    large: dict[int, Enlarged | None] = {}
    for split in dict.fromkeys(one.split for _, one, _, _ in shown):
        of_part = [(number, part, place) for number, one, part, place in shown if one.split == split]
        copies = enlarge(of_part[0][1], [place for _, _, place in of_part], Photographs.of(record))
        large |= {number: copy for (number, _, _), copy in zip(of_part, copies, strict=True)}
    return [_thumbnail(one, part.images[place], large[number]) for number, one, part, place in shown]


def _thumbnail(one: Picked, image: npt.NDArray[np.uint8], large: Enlarged | None) -> dict[str, Any]:
    return {
        "large": large,
        "source": data_uri(image),
        "pixelated": is_pixelated(image),
        "lines": one.lines,
        "notes": one.notes,
    }


def section_markdown(title: str, section: Section) -> str:
    """A section of the model card: heading, sentences and tables, escaped; charts and images are left out."""
    tables = [
        "\n\n".join([*([f"**{_escaped(table.title)}**"] if table.title else []), table_markdown(table)])
        for table in section.tables
        if not table.folded
    ]
    texts = [_escaped(" ".join(section.sentences)), *tables, _escaped(" ".join(section.notes))]
    return "\n\n".join([f"## {_escaped(title)}", *(text for text in texts if text)])


def table_markdown(table: Table, names: int = 1) -> str:
    """A Markdown table; numbers are right-aligned, but not the first `names` columns."""
    ruler = ["---" if table.words or number < names else "---:" for number in range(len(table.columns))]
    lines = [
        [_escaped(column) for column in table.columns],
        ruler,
        *([_cell(cell) for cell in row] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
    return f"{text} ({_escaped(cell.note)})" if cell.note else text


def _escaped(text: str) -> str:
    """Escape a text for Markdown; spaces that do not break lines are kept."""
    return SPACE.join(as_markdown(part) for part in text.split(SPACE))


COMPARISON = "comparison"
"""Directory of the comparison with the members, inside the run directory of an ensemble."""


def members_table(record: RunRecord) -> dict[str, Any] | None:
    """Rows of the members and of the combined model; None where the run was not combined from others.

    `soup` is true for averaged weights; `page` is the comparison with the members, if there is one beside the report.
    """
    members = record.environment.get("members")
    if not members:
        return None
    page = Path(COMPARISON) / "comparison.html"
    combined = {
        "run": "combined",
        "in_it": True,
        "accuracy": record.metrics and record.metrics.get("accuracy"),
        "parameters": record.environment.get("parameters"),
        "flops": record.environment.get("flops"),
        "seconds_train": (record.environment.get("seconds") or {}).get("train"),
    }
    return {
        "rows": [_row(member) for member in members],
        "together": _row(combined),
        "soup": record.recipe.model.name != "ensemble",
        "kept": sum(bool(member["in_it"]) for member in members),
        "page": page.as_posix() if not record.passed_on and (record.run.path / page).is_file() else "",
    }


def _row(member: dict[str, Any]) -> dict[str, str]:
    accuracy = member.get("accuracy")
    made_by = [f"{member['recipe']}, seed {member['seed']}" if "recipe" in member else "", member.get("network") or ""]
    return {
        "run": str(member["run"]),
        "made_by": "; ".join(part for part in made_by if part),
        "left_out": "" if member["in_it"] else "left out",
        "accuracy": percent(accuracy["value"]) if accuracy else "not evaluated",
        "interval": interval(accuracy["ci95"]) if accuracy else "",
        "parameters": quantity(member.get("parameters")),
        "flops": quantity(member.get("flops")),
        "seconds": duration(member.get("seconds_train")),
    }
