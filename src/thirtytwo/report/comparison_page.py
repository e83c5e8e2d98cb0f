"""`comparison.html`: a comparison as one self-contained file, styled like the report of a run."""

from __future__ import annotations

from itertools import islice
from typing import Any

from thirtytwo.evaluation.sections import Table
from thirtytwo.images.render import data_uri, is_pixelated
from thirtytwo.report.charts import Row, interval_chart
from thirtytwo.report.comparison import Comparison
from thirtytwo.report.comparison_tables import (
    METHODS,
    answers,
    classes_table,
    cost_table,
    disagreement_title,
    group_name,
    metrics_table,
    pair_text,
    pairs_table,
    recipes_table,
    runs_table,
    seeds_table,
    seeds_verdict,
    settings_table,
    verdict,
)
from thirtytwo.report.sections import table_markdown
from thirtytwo.report.templating import render_template
from thirtytwo.text import DIGITS, as_markdown, counted, interval, percent, readable
from thirtytwo.text import p_value as format_p

MAX_IMAGES = 12
MAX_IMAGES_OF_MANY_GROUPS = 6
MANY_GROUPS = 8
MAX_CHARTED_PAIRS = 15


def render_comparison(found: Comparison) -> str:
    """Render the comparison as HTML. The template escapes all names; charts escape their own."""
    return render_template("comparison.html.j2", _context(found))


def _context(found: Comparison) -> dict[str, Any]:
    return {
        "dataset": found.dataset,
        "split": found.split,
        "count": found.count,
        "letters": [run.letter for run in found.runs],
        "notices": found.notices,
        "verdict": verdict(found),
        "seeds_verdict": seeds_verdict(found),
        "runs": runs_table(found),
        "accuracy_chart": _accuracy_chart(found),
        "difference_chart": _difference_chart(found),
        "metrics": metrics_table(found),
        "cost": cost_table(found),
        "timed_on": found.timed_on,
        "pairs": pairs_table(found),
        "methods": METHODS,
        "seeds": seeds_table(found) if found.groups else None,
        "seeds_chart": _seeds_chart(found),
        "recipes": recipes_table(found) if found.group_pairs else None,
        "settings": settings_table(found) if found.settings else None,
        "classes": classes_table(found),
        "disagreements": _disagreements(found),
        "disagreeing": found.disagreeing,
        "with_images": found.images is not None,
    }


def _accuracy_chart(found: Comparison) -> str:
    rows = []
    for run in found.runs:
        low, high = run.metrics["accuracy"]["ci95"]
        tooltip = f"{run.name}: {percent(run.accuracy)}, 95\u00a0% interval {interval([low, high])}"
        rows.append(Row(run.letter, run.accuracy, low, high, tooltip))
    return interval_chart("Accuracy", rows)


def _difference_chart(found: Comparison) -> str:
    """Differences of all pairs; with many runs only pairs with the best run."""
    pairs = found.pairs
    if len(pairs) > MAX_CHARTED_PAIRS:
        pairs = tuple(pair for pair in pairs if pair.first == 0)
    rows = [
        Row(
            f"{found.runs[pair.first].letter} − {found.runs[pair.second].letter}",
            pair.test.difference,
            *pair.test.ci95,
            f"{pair_text(found, pair)} p {format_p(pair.test.p_value)} uncorrected",
        )
        for pair in pairs
    ]
    return interval_chart("Difference in points", rows, unit="", zero=True)


def _seeds_chart(found: Comparison) -> str:
    rows = []
    for group in found.groups:
        accuracy = group.statistics["accuracy"]
        std = accuracy.std or 0.0
        values = tuple(found.runs[place].accuracy for place in group.members)
        deviation = f"standard deviation {percent(std, DIGITS + 1)}"
        tooltip = f"{group.name}: mean {percent(accuracy.mean)}, {deviation}, n = {accuracy.n}"
        name = group_name(found, group)
        rows.append(Row(name, accuracy.mean, accuracy.mean - std, accuracy.mean + std, tooltip, values))
    return interval_chart("Accuracy over seeds", rows) if rows else ""


def _disagreements(found: Comparison) -> list[dict[str, Any]]:
    """Each kind of disagreement with its images of largest difference in confidence."""
    most = MAX_IMAGES if len(found.disagreements) <= MANY_GROUPS else MAX_IMAGES_OF_MANY_GROUPS
    first = found.runs[0].predictions
    groups = []
    for group in found.disagreements:
        shown = [
            {
                "name": found.runs[0].predictions.name_of(position),
                "true": readable(first.classes[int(first.truth[position])]),
                "answers": [
                    {"letters": letters, "predicted": predicted, "right": right, "confidence": confidence}
                    for letters, predicted, right, confidence in answers(found, position)
                ],
                **_image(found, position),
            }
            for position in group.positions[:most].tolist()
        ]
        groups.append({"title": disagreement_title(found, group), "count": len(group.positions), "shown": shown})
    return groups


def _image(found: Comparison, position: int) -> dict[str, Any]:
    if found.images is None:
        return {"source": None, "pixelated": False}
    image = found.images.images[position]
    return {"source": data_uri(image), "pixelated": is_pixelated(image)}


MAX_CLASSES = 10
LISTED_IMAGES = 5


def comparison_text(found: Comparison) -> str:
    """Format the comparison as Markdown; all names are escaped."""
    parts = [
        f"# {as_markdown(found.dataset)}: {len(found.runs)} runs compared",
        f"On {as_markdown(found.split)}, n = {found.count:,} images. {as_markdown(verdict(found))}",
        *([as_markdown(seeds_verdict(found))] if found.group_pairs else []),
        *(f"> {as_markdown(notice)}" for notice in found.notices),
        table_markdown(runs_table(found)),
        "## Metrics",
        "95\u00a0% intervals in parentheses; the best value of a row is bold.",
        table_markdown(metrics_table(found)),
        "## Cost",
        table_markdown(cost_table(found)),
    ]
    if found.timed_on is not None:
        parts.append(f"Milliseconds were measured on {as_markdown(found.timed_on)}.")
    parts += ["## Tests", table_markdown(pairs_table(found)), as_markdown(METHODS)]
    if found.groups:
        parts += ["## Seeds", table_markdown(seeds_table(found))]
        if found.group_pairs:
            parts.append(table_markdown(recipes_table(found)))
    if found.settings:
        parts += ["## Settings that differ", table_markdown(settings_table(found))]
    classes = classes_table(found)
    shown = Table(classes.columns, classes.rows[:MAX_CLASSES])
    parts += [
        f"## Classes with the largest differences: {len(shown.rows)} of {len(classes.rows)}",
        table_markdown(shown),
    ]
    parts += ["## Disagreements", *_list_disagreements(found)]
    return "\n\n".join(parts) + "\n"


def _list_disagreements(found: Comparison) -> list[str]:
    if not found.disagreements:
        return ["None: all runs predict the same class for every image."]
    parts = []
    for group in found.disagreements:
        title, images = disagreement_title(found, group), counted(len(group.positions), "image")
        lines = [f"**{as_markdown(title)}**: {images}, for example", ""]
        for position in islice(group.positions.tolist(), LISTED_IMAGES):
            first = found.runs[0].predictions
            predicted = "; ".join(
                f"{letters} {as_markdown(name)} {confidence}"
                for letters, name, _, confidence in answers(found, position)
            )
            truth = readable(first.classes[int(first.truth[position])])
            lines.append(f"- {as_markdown(first.name_of(position))}, {as_markdown(truth)}: {predicted}")
        parts.append("\n".join(lines))
    return parts
