"""Options and output of the evaluators in `thirtytwo evaluate`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thirtytwo.cli.console import show, show_table

if TYPE_CHECKING:
    from thirtytwo.evaluation.evaluators import Option
    from thirtytwo.evaluation.sections import Cell, Section, Table


def evaluator_options() -> list[inspect.Parameter]:
    """The options of all evaluators, which are imported only when the command is used."""
    from thirtytwo.evaluation.evaluators import evaluators

    return [_parameter(option) for evaluator in evaluators() for option in evaluator.options]


def show_evaluations(metrics: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Show what the requested evaluators measured.

    Args:
        metrics: the result of `thirtytwo.evaluate`.
        options: the values of the evaluators' options, as given to `thirtytwo.evaluate`.
    """
    from thirtytwo.evaluation.evaluators import evaluators

    for evaluator in evaluators():
        if evaluator.options and evaluator.requested(options) and metrics.get(evaluator.key):
            show_section(evaluator.title, evaluator.describe(metrics[evaluator.key], metrics["split"]))


def show_section(title: str, section: Section) -> None:
    """Show a section: heading, tables and sentences; charts, images and folded tables are left out."""
    show(f"\n{title}")
    for table in section.tables:
        if not table.folded:
            show()
            show_cells(table)
    for sentences in (section.sentences, section.notes):
        if sentences:
            show("\n" + " ".join(sentences))


def show_cells(table: Table) -> None:
    """Show a table; notes are in parentheses."""
    show_table(table.columns, [[_text(cell) for cell in row] for row in table.rows])


def _text(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _parameter(option: Option) -> inspect.Parameter:
    several = isinstance(option.default, tuple)
    words = [f"--{option.name.replace('_', '-')}"] if option.kind is bool else []
    declared = typer.Option(*words, help=option.help, metavar=option.metavar, min=option.least)
    kind = list[option.kind] if several else option.kind  # type: ignore[name-defined]
    annotation = Annotated[kind if option.default is not None else kind | None, declared]  # type: ignore[valid-type]
    default = list(option.default) if several else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
