"""Output of `thirtytwo compare`, `thirtytwo train --seeds` and `thirtytwo train --folds`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thirtytwo.cli.console import log, show, show_table
from thirtytwo.cli.evaluators import show_cells
from thirtytwo.errors import RecipeError
from thirtytwo.text import interval, percent

if TYPE_CHECKING:
    from thirtytwo.report.comparison import ComparedRun, Comparison


def parse_seeds(seeds: str | None, repeat: int | None, seed: int | None, recipe: str | None = None) -> list[int] | None:
    """Seeds given by `--seeds`, or by `--repeat` starting at `--seed`; None if neither is given.

    Without `--seed`, `--repeat` starts at the recipe's seed.

    Raises:
        RecipeError: the options conflict, or a seed is not an integer.
    """
    if seeds is not None and (repeat is not None or seed is not None):
        other = "--repeat" if repeat is not None else "--seed"
        raise RecipeError(
            f"--seeds and {other} cannot be used together.", "List every seed with --seeds, or leave it out."
        )
    if repeat is not None:
        from thirtytwo.config.resolve import seed_of

        start = seed if seed is not None else 0 if recipe is None else seed_of(recipe, {})
        return list(range(start, start + repeat))
    if seeds is None:
        return None
    parts = [part.strip() for part in seeds.split(",")]
    wrong = next((part for part in parts if not _is_seed(part)), None)
    if wrong is not None:
        found = f"--seeds {seeds!r} contains {wrong!r}, which is not an integer from 0 to 10¹⁸."
        raise RecipeError(found, "Example: --seeds 0,1,2")
    return [int(part) for part in parts]


def _is_seed(text: str) -> bool:
    from thirtytwo.config.recipe import MAX_SEED  # takes a while to import

    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SEED)) and int(text) <= MAX_SEED


def train_seeds(data: str, seeds: list[int] | None, seed: int | None, **settings: Any) -> None:
    """Train several seeds; print each run, the summary and finally their common directory.

    Raises:
        RecipeError: `--seed` is given when a directory of several seeds is resumed.
    """
    import thirtytwo

    if seeds is None and seed is not None:
        raise RecipeError(
            f"{settings['run']} contains several seeds, but --seed {seed} selects one.",
            "Leave --seed out, or add seeds with --seeds.",
        )
    trained = thirtytwo.train_seeds(data, seeds=seeds, **settings)
    show_seeds(trained.summary)
    show(str(trained.path))


def refuse_several(seeds: str | None, repeat: int | None) -> None:
    """Check that a cross-validation has one seed.

    Raises:
        RecipeError: several are given.
    """
    other = "--seeds" if seeds is not None else "--repeat" if repeat is not None else None
    if other is not None:
        raise RecipeError(
            f"--folds and {other} cannot be used together.", "Cross-validate once for each seed, with --seed and --run."
        )


def holds_folds(run: Path) -> bool:
    """Whether a directory holds the folds of a cross-validation."""
    from thirtytwo.report.seeds import kind_of, read_summary
    from thirtytwo.run_paths import holds_seeds

    return holds_seeds(run) and kind_of(read_summary(run)) == "fold"


def train_folds(data: str, folds: int | None, **settings: Any) -> None:
    """Cross-validate a recipe; print each fold, the summary and finally the directory."""
    import thirtytwo
    from thirtytwo.report.seeds import cross_validation_sentences

    trained = thirtytwo.train_folds(data, folds=folds, **settings)
    show_seeds(trained.summary)
    show()
    for sentence in cross_validation_sentences(trained.summary):
        show(sentence)
    show(str(trained.path))


def show_seeds(summary: Mapping[str, Any]) -> None:
    """Show the accuracy of each run, then mean, standard deviation and n of every metric."""
    from thirtytwo.report.seeds import summary_rows

    rows = [(run["directory"], percent(run["accuracy"]), interval(run["accuracy_ci95"])) for run in summary["runs"]]
    show_table(["run", "accuracy", "95\u00a0% interval"], rows)
    show()
    show_table([f"{summary['data']}, {summary['split']}", "mean", "std", "n", "min", "max"], summary_rows(summary))


def compare(runs: Sequence[Path], **settings: Any) -> None:
    """Compare runs; print tables, conclusions and finally the page's path."""
    import thirtytwo

    found = thirtytwo.compare(runs, **settings)
    show_comparison(found)
    show(str(found.page))


def show_comparison(found: Comparison) -> None:
    """Show metrics and cost of each run, paired tests, seeds and conclusions."""
    from thirtytwo.report import comparison_tables as tables

    for notice in found.notices:
        log(notice)
    timing_column = ["ms per image"] if found.timed_on is not None else []
    columns = ["accuracy", "95\u00a0% interval", "NLL", "ECE", "parameters", "FLOPs", "training time", *timing_column]
    show(f"{found.dataset}, {found.split}, {found.count:,} images")
    show()
    show_table(["", "run", *columns], [_row(run) for run in found.runs])
    show()
    show_cells(tables.pairs_table(found))
    if found.groups:
        show()
        show_cells(tables.seeds_table(found))
    if found.group_pairs:
        show()
        show_cells(tables.recipes_table(found))
    show()
    show(tables.verdict(found))
    if found.group_pairs:
        show(tables.seeds_verdict(found))


def _row(run: ComparedRun) -> tuple[str, ...]:
    from thirtytwo.text import duration, quantity

    nll, ece = run.metric("nll"), run.metric("ece")
    return (
        run.letter,
        run.name,
        percent(run.accuracy),
        interval(run.metrics["accuracy"]["ci95"]),
        "" if nll is None else f"{nll['value']:.4f}",
        "" if ece is None else f"{ece['value']:.4f}",
        quantity(run.parameters),
        quantity(run.flops),
        duration(run.seconds),
        *([] if run.timing is None else [f"{run.timing.alone:.3g}"]),
    )
