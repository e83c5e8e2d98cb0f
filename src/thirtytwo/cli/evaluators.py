"""Options and output of the evaluators in `thirtytwo evaluate`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from thirtytwo.cli.console import show, show_table

if TYPE_CHECKING:
    from thirtytwo.evaluation.evaluators import Option
    from thirtytwo.evaluation.sections import Cell, Section, Table

_GIVEN = "thirtytwo.evaluators"


class EvaluateCommand(TyperCommand):
    """A command with the options of all evaluators, which are imported only when this command is used."""

    _complete = False

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own options, then those of the evaluators."""
        if not self._complete:
            self.params += _parameters()
            self._complete = True
        return list(super().get_params(ctx))


def evaluator_options(context: typer.Context) -> dict[str, Any]:
    """The values of the evaluators' options, as keyword arguments of `thirtytwo.evaluate`."""
    return dict(context.meta.get(_GIVEN, {}))


def show_evaluations(metrics: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Show what the requested evaluators measured.

    Args:
        metrics: the result of `thirtytwo.evaluate`.
        options: those of `evaluator_options`.
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


def _parameters() -> list[Any]:
    """The options of all evaluators; their values are kept in the context, not passed to the function."""
    from thirtytwo.evaluation.evaluators import evaluators

    options = [option for evaluator in evaluators() for option in evaluator.options]

    def command(**values: Any) -> None:
        """Takes the options."""

    command.__signature__ = inspect.Signature([_parameter(option) for option in options])  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: _parameter(option).annotation for option in options}
    holder = typer.Typer(add_completion=False)
    holder.command()(command)
    parameters = typer.main.get_command(holder).params
    for parameter in parameters:
        parameter.expose_value, parameter.callback = False, _keep
    return list(parameters)


def _parameter(option: Option) -> inspect.Parameter:
    several = isinstance(option.default, tuple)
    words = [f"--{option.name.replace('_', '-')}"] if option.kind is bool else []
    declared = typer.Option(*words, help=option.help, metavar=option.metavar, min=option.least)
    kind = list[option.kind] if several else option.kind  # type: ignore[name-defined]
    annotation = Annotated[kind if option.default is not None and not several else kind | None, declared]  # type: ignore[valid-type]
    default = None if several else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _keep(context: Any, parameter: Any, value: Any) -> Any:
    context.meta.setdefault(_GIVEN, {})[parameter.name] = tuple(value) if isinstance(value, list) else value
    return value
