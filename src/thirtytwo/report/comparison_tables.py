"""Tables and sentences of a comparison, shared by HTML page, Markdown and command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from thirtytwo.evaluation.metrics import METRICS, Metric
from thirtytwo.evaluation.sections import Cell, Table
from thirtytwo.evaluation.statistics import Disagreement
from thirtytwo.inference.timing import BATCH
from thirtytwo.report.comparison import LEVEL, ComparedRun, Comparison, Group, Pair
from thirtytwo.report.seeds import SECONDS, spread_texts
from thirtytwo.text import duration, percent, points, quantity, readable
from thirtytwo.text import p_value as format_p

METHODS = (
    "All runs were evaluated on the same images, so tests are paired. p is from McNemar’s test of equal accuracy, its "
    "mid-p version (Fagerland, Lydersen and Laake 2013), which is less conservative than the exact test beside it. "
    "Intervals of differences are percentiles of 10,000 paired bootstrap resamples of the images. p, Holm is corrected "
    "for the number of pairs. The tests compare the trained networks on images of this kind. They do not include seed "
    "variance; that needs several seeds."
)


def runs_table(found: Comparison) -> Table:
    """The run, recipe, network and seed of each letter."""
    rows = [
        (
            Cell(run.letter),
            Cell(run.name),
            Cell(run.record.recipe.name),
            Cell(run.record.recipe.model.architecture),
            Cell(str(run.record.recipe.seed)),
        )
        for run in found.runs
    ]
    return Table(("", "Run", "Recipe", "Network", "Seed"), tuple(rows), words=True)


def metrics_table(found: Comparison) -> Table:
    """Every metric of every run with its interval."""
    rows = []
    for metric in METRICS:
        values = [run.metric(metric.key) for run in found.runs]
        known = [value["value"] for value in values if value is not None]
        if not known:
            continue
        best = min(known) if metric.lower_is_better else max(known)
        rows.append((Cell(metric.name), *(_metric_cell(metric, value, best) for value in values)))
    return Table(("Metric", *_letters(found.runs)), tuple(rows))


def cost_table(found: Comparison) -> Table:
    """The cost of each run: parameters, FLOPs, training, and latency of `model.onnx` where it was measured."""
    runs = found.runs
    rows = [
        _cost_row("Parameters", [run.parameters for run in runs], quantity),
        _cost_row("FLOPs per image", [run.flops for run in runs], quantity),
        _cost_row("Training time", [run.seconds for run in runs], duration),
        (Cell("Trained on"), *(Cell(run.trained_on or "not recorded") for run in runs)),
        _cost_row("Size of model.onnx", [run.model_bytes for run in runs], lambda size: f"{size / 1e6:.1f} MB"),
    ]
    if found.timed_on is not None:
        alone = [None if run.timing is None else run.timing.alone for run in runs]
        batched = [None if run.timing is None else run.timing.batched for run in runs]
        rows.append(_cost_row("Milliseconds per image, one at a time", alone, _milliseconds))
        rows.append(_cost_row(f"Milliseconds per image, {BATCH} at a time", batched, _milliseconds))
    return Table(("Cost", *_letters(runs)), tuple(rows))


def pairs_table(found: Comparison) -> Table:
    """McNemar's test and the bootstrapped difference of every pair of runs."""
    several = len(found.pairs) > 1
    columns = ("Pair", "Difference", "95\u00a0% interval", "Only first correct", "Only second correct", "Both wrong")
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
                Cell(percent(test.same_answer / test.count), value=test.same_answer),
                Cell(format_p(test.p_value), value=test.p_value),
                Cell(format_p(test.p_exact), value=test.p_exact),
                *([Cell(format_p(pair.p_adjusted), value=pair.p_adjusted)] if several else []),
            )
        )
    return Table((*columns, "Same prediction", "p", "p, exact", *(["p, Holm"] if several else [])), tuple(rows))


def seeds_table(found: Comparison) -> Table:
    """Mean, standard deviation and n of each metric over the seeds of each recipe."""
    rows = []
    for key, name in (*((metric.key, metric.name) for metric in METRICS), (SECONDS, "Training time")):
        spreads = [group.statistics.get(key) for group in found.groups]
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
    """Differences of mean accuracy between recipes with several seeds."""
    rows = [
        (
            Cell(f"{group_name(found, found.groups[pair.first])} − {group_name(found, found.groups[pair.second])}"),
            Cell(points(pair.test.difference)),
            Cell(_ends(pair.test.ci95)),
            Cell(format_p(pair.test.p_value)),
        )
        for pair in found.group_pairs
    ]
    return Table(("Recipes", "Difference of means", "95\u00a0% interval", "p, Welch"), tuple(rows))


def settings_table(found: Comparison) -> Table:
    """Settings that differ between the recipes."""
    rows = [(Cell(key), *(Cell(_setting(value)) for value in values)) for key, values in found.settings.items()]
    return Table(("Setting", *_letters(found.runs)), tuple(rows), words=True)


def classes_table(found: Comparison) -> Table:
    """Recall of each class by each run, largest difference first."""
    recalls = [{row["class"]: row["recall"] for row in run.metrics["per_class"]} for run in found.runs]
    rows = []
    for name in found.runs[0].predictions.classes:
        values = [recall.get(name) for recall in recalls]
        known = [value for value in values if value is not None]
        if not known:
            continue
        difference = max(known) - min(known)
        cells = [
            Cell("–")
            if value is None
            else Cell(percent(value), best=difference > 0 and value == max(known), value=value)
            for value in values
        ]
        rows.append((Cell(readable(name)), *cells, Cell(points(difference, signed=False), value=difference)))
    rows.sort(key=lambda row: -(row[-1].value or 0.0))
    return Table(("Class", *_letters(found.runs), "Difference"), tuple(rows))


def verdict(found: Comparison) -> str:
    """Whether the best run is better than the second, in one sentence."""
    return pair_text(found, found.pairs[0])


def pair_text(found: Comparison, pair: Pair) -> str:
    """The result of the test of a pair, in one sentence."""
    test, many = pair.test, len(found.pairs) > 1
    first, second = found.runs[pair.first].letter, found.runs[pair.second].letter
    p_value = pair.p_adjusted if many else test.p_value
    result = f"95\u00a0% interval {_ends(test.ci95)}, p {_relation(p_value)}{', Holm-corrected' if many else ''}"
    if p_value < LEVEL:
        return f"{first} is more accurate than {second}: {points(test.difference)} ({result})."
    return (
        f"No significant difference between {first} and {second} on {test.count:,} images: "
        f"{points(test.difference)} ({result})."
    )


def seeds_verdict(found: Comparison) -> str:
    """Whether the best recipe with several seeds is better than the second; empty without such recipes."""
    if not found.group_pairs:
        return ""
    pair = found.group_pairs[0]
    first, second = (group_name(found, found.groups[place]) for place in (pair.first, pair.second))
    result = (
        f"{points(pair.test.difference)}, 95\u00a0% interval {_ends(pair.test.ci95)}, p {_relation(pair.test.p_value)}"
    )
    if pair.test.p_value < LEVEL:
        return f"Over seeds, {first} has a higher mean accuracy than {second}: {result} (Welch’s test)."
    return f"Over seeds, no significant difference in mean accuracy of {first} and {second}: {result} (Welch’s test)."


def group_name(found: Comparison, group: Group) -> str:
    """A recipe's name with the letters of its runs."""
    return f"{group.name} ({', '.join(found.runs[place].letter for place in group.members)})"


def disagreement_title(found: Comparison, group: Disagreement) -> str:
    """The kind of disagreement, in words."""
    letters = [run.letter for run in found.runs]
    if group.kind == "divided":
        return "Two or more correct, two or more wrong"
    if group.kind == "all_wrong":
        return f"{'Both' if len(letters) == 2 else 'All'} wrong, with different predictions"
    if group.run is None:
        raise AssertionError("only_right and only_wrong are about a run")
    if group.kind == "only_wrong":
        return f"Only {letters[group.run]} is wrong"
    if len(letters) == 2:
        return f"{letters[group.run]} is correct, {letters[1 - group.run]} is wrong"
    return f"Only {letters[group.run]} is correct"


def answers(found: Comparison, position: int) -> list[tuple[str, str, bool, str]]:
    """The distinct predictions of an image: letters, class, whether correct, mean confidence; most common first."""
    by_class: dict[int, list[int]] = {}
    for place, run in enumerate(found.runs):
        by_class.setdefault(int(run.predictions.predicted[position]), []).append(place)
    first = found.runs[0].predictions
    rows = []
    for answer, places in sorted(by_class.items(), key=lambda item: -len(item[1])):
        confidence = sum(float(found.runs[place].predictions.confidence[position]) for place in places) / len(places)
        letters = " ".join(found.runs[place].letter for place in places)
        right = answer == int(first.truth[position])
        rows.append((letters, readable(first.classes[answer]), right, percent(confidence)))
    return rows


def _relation(p_value: float) -> str:
    return format_p(p_value) if p_value < 0.001 else f"= {format_p(p_value)}"


def _letters(runs: Sequence[ComparedRun]) -> tuple[str, ...]:
    return tuple(run.letter for run in runs)


def _metric_cell(metric: Metric, found: dict[str, Any] | None, best: float) -> Cell:
    if found is None:
        return Cell("–")
    value, ends = found["value"], found.get("ci95")
    return Cell(metric.text(value), metric.interval(ends) if ends else "", best=value == best, value=value)


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
