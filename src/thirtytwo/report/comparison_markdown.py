"""`comparison.md`: a comparison as Markdown, for issues, pull requests and notes."""

from __future__ import annotations

from itertools import islice

from thirtytwo.report.comparison import Comparison
from thirtytwo.report.comparison_tables import (
    METHODS,
    Cell,
    Table,
    answers,
    classes_table,
    cost_table,
    disagreement_title,
    metrics_table,
    pairs_table,
    picture_name,
    recipes_table,
    runs_table,
    seeds_table,
    seeds_verdict,
    settings_table,
    verdict,
)
from thirtytwo.text import as_markdown

MAX_CLASSES = 10
MAX_IMAGES = 5


def comparison_text(found: Comparison) -> str:
    """Format the comparison as Markdown; all names are escaped."""
    parts = [
        f"# {as_markdown(found.dataset)}: {len(found.runs)} runs compared",
        f"On {as_markdown(found.split)}, n = {found.count:,} images. {as_markdown(verdict(found))}",
        *([as_markdown(seeds_verdict(found))] if found.group_pairs else []),
        *(f"> {as_markdown(notice)}" for notice in found.notices),
        table_text(runs_table(found)),
        "## Metrics",
        "95% intervals in parentheses; the best value of a row is bold.",
        table_text(metrics_table(found)),
        "## Cost",
        table_text(cost_table(found)),
    ]
    if found.timed_on is not None:
        parts.append(f"Milliseconds were measured on {as_markdown(found.timed_on)}.")
    parts += ["## Tests", table_text(pairs_table(found)), as_markdown(METHODS)]
    if found.groups:
        parts += ["## Seeds", table_text(seeds_table(found))]
        if found.group_pairs:
            parts.append(table_text(recipes_table(found)))
    if found.settings:
        parts += ["## Settings that differ", table_text(settings_table(found))]
    classes = classes_table(found)
    shown = Table(classes.columns, classes.rows[:MAX_CLASSES])
    parts += [f"## Classes with the largest differences: {len(shown.rows)} of {len(classes.rows)}", table_text(shown)]
    parts += ["## Where they disagree", *_disagreements(found)]
    return "\n\n".join(parts) + "\n"


def table_text(table: Table) -> str:
    """Format a Markdown table; numbers are right-aligned."""
    ruler = ["---", *("---" if table.words else "---:" for _ in table.columns[1:])]
    lines = [
        _line([as_markdown(column) for column in table.columns]),
        _line(ruler),
        *(_line([_cell(cell) for cell in row]) for row in table.rows),
    ]
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    text = f"**{as_markdown(cell.text)}**" if cell.best else as_markdown(cell.text)
    return f"{text} ({as_markdown(cell.note)})" if cell.note else text


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _disagreements(found: Comparison) -> list[str]:
    if not found.disagreements:
        return ["None: all runs predict the same class for every image."]
    parts = []
    for group in found.disagreements:
        lines = [
            f"**{as_markdown(disagreement_title(found, group))}**: {len(group.positions):,} images, for example",
            "",
        ]
        for position in islice(group.positions.tolist(), MAX_IMAGES):
            first = found.runs[0].predictions
            predicted = "; ".join(
                f"{letters} {as_markdown(name)} {confidence}"
                for letters, name, _, confidence in answers(found, position)
            )
            truth = first.classes[int(first.truth[position])]
            lines.append(f"- {as_markdown(picture_name(found, position))}, {as_markdown(truth)}: {predicted}")
        parts.append("\n".join(lines))
    return parts
