"""The tables and sentences of a comparison, as texts that page, Markdown and command line share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from thirtytwo.evaluation.statistics import Disagreement
from thirtytwo.inference.timing import BATCH
from thirtytwo.report.comparison import LEVEL, Comparison, Contender, Group, Pair
from thirtytwo.report.page import FIGURES, PLAIN_NUMBERS
from thirtytwo.report.run_record import duration, interval, percent, quantity
from thirtytwo.report.seeds import SECONDS, spread_texts

LOWER_IS_BETTER = frozenset({"nll", "brier", "ece"})
METHODS = (
    "Every run answered the same pictures, so tests are paired. p is McNemar’s test of “both are right equally often”, "
    "mid-p version (Fagerland, Lydersen and Laake 2013); the exact version stands beside it. Intervals of differences "
    "are percentiles of 10,000 bootstrap draws of the pictures, the same ones for both runs. Holm’s p allows for all "
    "pairs having been looked at. These tests are about these trained networks and other pictures of this kind; what "
    "training again with another seed would change, only several seeds tell."
)


@dataclass(frozen=True)
class Cell:
    """A text, something to say beside it, whether it is the best of its kind, and what it sorts by."""

    text: str
    note: str = ""
    best: bool = False
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; the first column names the row. `words`: cells are text, not numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: bool = False


def runs_table(found: Comparison) -> Table:
    """What each letter stands for."""
    rows = [
        (
            Cell(run.letter),
            Cell(run.name),
            Cell(run.facts.recipe.name),
            Cell(run.facts.recipe.model.name),
            Cell(str(run.facts.recipe.seed)),
        )
        for run in found.runs
    ]
    return Table(("", "Run", "Recipe", "Network", "Seed"), tuple(rows), words=True)


def figures_table(found: Comparison) -> Table:
    """Every figure of every run with its interval."""
    rows = []
    for key, name, _ in FIGURES:
        figures = [run.figure(key) for run in found.runs]
        given = [figure["value"] for figure in figures if figure is not None]
        if not given:
            continue
        top = min(given) if key in LOWER_IS_BETTER else max(given)
        rows.append((Cell(name), *(_figure_cell(key, figure, top) for figure in figures)))
    return Table(("Figure", *_letters(found.runs)), tuple(rows))


def cost_table(found: Comparison) -> Table:
    """What each run costs: size, work, training, and time through `model.onnx` where that was measured."""
    runs = found.runs
    rows = [
        _cost_row("Parameters", [run.parameters for run in runs], quantity),
        _cost_row("FLOPs a picture", [run.flops for run in runs], quantity),
        _cost_row("Training took", [run.seconds for run in runs], duration),
        (Cell("Trained on"), *(Cell(run.trained_on or "not recorded") for run in runs)),
        _cost_row("Size of model.onnx", [run.model_bytes for run in runs], lambda size: f"{size / 1e6:.1f} MB"),
    ]
    if found.timed_on is not None:
        alone = [None if run.timing is None else run.timing.alone for run in runs]
        batched = [None if run.timing is None else run.timing.batched for run in runs]
        rows.append(_cost_row("Milliseconds a picture, alone", alone, _milliseconds))
        rows.append(_cost_row(f"Milliseconds a picture, {BATCH} at once", batched, _milliseconds))
    return Table(("Cost", *_letters(runs)), tuple(rows))


def pairs_table(found: Comparison) -> Table:
    """McNemar's test and the bootstrapped difference of every two runs."""
    several = len(found.pairs) > 1
    columns = ("Pair", "Difference", "95% interval", "Only first right", "Only second right", "Both wrong")
    rows = []
    for pair in found.pairs:
        test = pair.test
        rows.append(
            (
                Cell(f"{found.runs[pair.first].letter} − {found.runs[pair.second].letter}"),
                Cell(points(test.difference), value=test.difference),
                Cell(_ends(test.ci95)),
                Cell(f"{test.only_first:,}", value=test.only_first),
                Cell(f"{test.only_second:,}", value=test.only_second),
                Cell(f"{test.both_wrong:,}", value=test.both_wrong),
                Cell(percent(test.same_answer / test.count, 1), value=test.same_answer),
                Cell(p_text(test.p_value), value=test.p_value),
                Cell(p_text(test.p_exact), value=test.p_exact),
                *([Cell(p_text(pair.p_adjusted), value=pair.p_adjusted)] if several else []),
            )
        )
    return Table((*columns, "Same answer", "p", "p, exact", *(["p, Holm"] if several else [])), tuple(rows))


def seeds_table(found: Comparison) -> Table:
    """Mean, standard deviation and n of each figure over the seeds of each recipe."""
    rows = []
    for key, name in (*((key, name) for key, name, _ in FIGURES), (SECONDS, "Training took")):
        spreads = [group.figures.get(key) for group in found.groups]
        if not any(spreads):
            continue
        cells = []
        for spread in spreads:
            if spread is None:
                cells.append(Cell("–"))
                continue
            mean, std, n, low, high = spread_texts(key, spread.as_dict())
            cells.append(Cell(f"{mean} ± {std}" if spread.std is not None else mean, f"n = {n}, {low} to {high}"))
        rows.append((Cell(name), *cells))
    return Table(("Mean ± standard deviation", *(group_name(found, group) for group in found.groups)), tuple(rows))


def recipes_table(found: Comparison) -> Table:
    """The difference of the mean accuracies of recipes that have several seeds."""
    rows = [
        (
            Cell(f"{group_name(found, found.groups[pair.first])} − {group_name(found, found.groups[pair.second])}"),
            Cell(points(pair.test.difference)),
            Cell(_ends(pair.test.ci95)),
            Cell(p_text(pair.test.p_value)),
        )
        for pair in found.group_pairs
    ]
    return Table(("Recipes", "Difference of means", "95% interval", "p, Welch"), tuple(rows))


def settings_table(found: Comparison) -> Table:
    """What the recipes set differently."""
    rows = [(Cell(key), *(Cell(_setting(value)) for value in values)) for key, values in found.settings.items()]
    return Table(("Setting", *_letters(found.runs)), tuple(rows), words=True)


def classes_table(found: Comparison) -> Table:
    """Recall of each class by each run, the classes on which they differ most first."""
    recalls = [{row["class"]: row["recall"] for row in run.metrics["per_class"]} for run in found.runs]
    rows = []
    for name in found.runs[0].predictions.classes:
        values = [recall.get(name) for recall in recalls]
        known = [value for value in values if value is not None]
        if not known:
            continue
        apart = max(known) - min(known)
        cells = [
            Cell("–") if value is None else Cell(percent(value, 1), best=apart > 0 and value == max(known), value=value)
            for value in values
        ]
        rows.append((Cell(name), *cells, Cell(points(apart, signed=False), value=apart)))
    rows.sort(key=lambda row: -(row[-1].value or 0.0))
    return Table(("Class", *_letters(found.runs), "Apart"), tuple(rows))


def verdict(found: Comparison) -> str:
    """Whether the best run is better than the next, in one sentence."""
    return pair_text(found, found.pairs[0])


def pair_text(found: Comparison, pair: Pair) -> str:
    """What a pair's test says, in one sentence."""
    test, many = pair.test, len(found.pairs) > 1
    first, second = found.runs[pair.first].letter, found.runs[pair.second].letter
    p_value = pair.p_adjusted if many else test.p_value
    told = f"95% interval {_ends(test.ci95)}, p {_relation(p_value)}{' after Holm' if many else ''}"
    if p_value < LEVEL:
        return f"{first} is right more often than {second}: {points(test.difference)} ({told})."
    return (
        f"No difference between {first} and {second} could be shown on {test.count:,} pictures: "
        f"{points(test.difference)} ({told})."
    )


def seeds_verdict(found: Comparison) -> str:
    """Whether the best recipe with several seeds is better than the next, or empty."""
    if not found.group_pairs:
        return ""
    pair = found.group_pairs[0]
    first, second = (group_name(found, found.groups[place]) for place in (pair.first, pair.second))
    told = f"{points(pair.test.difference)}, 95% interval {_ends(pair.test.ci95)}, p {_relation(pair.test.p_value)}"
    if pair.test.p_value < LEVEL:
        return f"Over seeds, {first} has a higher mean accuracy than {second}: {told} (Welch’s test)."
    return f"Over seeds, no difference of mean accuracy between {first} and {second} could be shown: {told} (Welch)."


def group_name(found: Comparison, group: Group) -> str:
    """A recipe's name with the letters of its runs."""
    return f"{group.name} ({', '.join(found.runs[place].letter for place in group.members)})"


def disagreement_title(found: Comparison, group: Disagreement) -> str:
    """What kind of disagreement, in words."""
    letters = [run.letter for run in found.runs]
    if group.kind == "divided":
        return "Two or more right, two or more wrong"
    if group.kind == "all_wrong":
        return f"{'Both' if len(letters) == 2 else 'All'} wrong, and the answers differ"
    if group.run is None:
        raise AssertionError("only_right and only_wrong are about a run")
    if group.kind == "only_wrong":
        return f"Only {letters[group.run]} is wrong"
    if len(letters) == 2:
        return f"{letters[group.run]} is right, {letters[1 - group.run]} is wrong"
    return f"Only {letters[group.run]} is right"


def answers(found: Comparison, position: int) -> list[tuple[str, str, bool, str]]:
    """Each different answer to a picture: letters, class, whether it is right, mean confidence; the common first."""
    by_class: dict[int, list[int]] = {}
    for place, run in enumerate(found.runs):
        by_class.setdefault(int(run.predictions.predicted[position]), []).append(place)
    first = found.runs[0].predictions
    rows = []
    for answer, places in sorted(by_class.items(), key=lambda item: -len(item[1])):
        confidence = sum(float(found.runs[place].predictions.confidence[position]) for place in places) / len(places)
        letters = " ".join(found.runs[place].letter for place in places)
        right = answer == int(first.truth[position])
        rows.append((letters, first.classes[answer], right, percent(confidence, 1)))
    return rows


def picture_name(found: Comparison, position: int) -> str:
    """The file of a picture, or its row."""
    given = found.runs[0].predictions
    return given.files[position] if given.files is not None else f"row {int(given.rows[position])}"


def points(difference: float, *, signed: bool = True) -> str:
    """A difference of two shares: `+0.52 points`."""
    shown = f"{100 * difference:{'+' if signed else ''}.2f}"
    return f"{'0.00' if float(shown) == 0 else shown} points".replace("-", "−")


def p_text(p_value: float) -> str:
    """A p value as people print it."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _relation(p_value: float) -> str:
    return p_text(p_value) if p_value < 0.001 else f"= {p_text(p_value)}"


def _letters(runs: Sequence[Contender]) -> tuple[str, ...]:
    return tuple(run.letter for run in runs)


def _figure_cell(key: str, figure: dict[str, Any] | None, top: float) -> Cell:
    if figure is None:
        return Cell("–")
    share, value = key not in PLAIN_NUMBERS, figure["value"]
    ends = figure.get("ci95")
    return Cell(
        percent(value) if share else f"{value:.4f}",
        interval(ends, as_percent=share, digits=None if share else 4) if ends else "",
        best=value == top,
        value=value,
    )


def _cost_row(name: str, values: Sequence[float | None], shown: Callable[[float], str]) -> tuple[Cell, ...]:
    known = [value for value in values if value is not None]
    differ = len(set(known)) > 1
    return (
        Cell(name),
        *(
            Cell("not recorded")
            if value is None
            else Cell(shown(value), best=differ and value == min(known), value=value)
            for value in values
        ),
    )


def _milliseconds(value: float) -> str:
    return f"{value:.3g}"


def _ends(ci95: tuple[float, float]) -> str:
    low, high = (f"{100 * end:.2f}".replace("-", "−") for end in ci95)
    return f"{low} to {high}"


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
