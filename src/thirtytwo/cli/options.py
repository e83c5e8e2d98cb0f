"""Options that several commands share, and options built from the fields of a settings class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="cifar10, cifar100, digits, hf:owner/name, a CSV file, an archive of CIFAR, or a folder of images or "
        "parquet files.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory: the last output line of thirtytwo train.")]
NewRun = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Run directory to write.", show_default="a new one under ./runs")
]
Split = Literal["test", "val"]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Device to compute on.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder in which known data sets are looked up first.", show_default="THIRTYTWO_DATA"),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|RUN|FILE|hf:OWNER/NAME", help="Model to use.", show_default="imagenet, else the newest run"
    ),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Leave out images that cannot be read instead of stopping.")
]
Apply = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Plan of images to drop, relabel or move: see thirtytwo data doctor --fix-plan."),
]
Devices = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes on each machine, one for each GPU; on a CPU they share its cores.",
        show_default="1, or as many as torchrun or SLURM started",
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="M", help="Machines that train together.", show_default="1, or as many as torchrun or SLURM use"
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="CLUSTER",
        help="Ray cluster to work on: ray (one on this machine), auto, ray://HOST:PORT or HOST:PORT.",
        show_default="this process",
    ),
]
LimitTrain = Annotated[int | None, typer.Option(min=1, help="Train on at most this many images.")]


def options_from(
    settings: type[BaseModel], *, without: Collection[str] = (), defaults: Mapping[str, str] | None = None
) -> list[inspect.Parameter]:
    """One keyword parameter for Typer per field, with the field's type, default, bounds, description and variable.

    Args:
        settings: a settings class; its `env_prefix`, if any, gives the environment variables.
        without: fields that get no option.
        defaults: what the help shows for the default of a field instead of its value.
    """
    prefix = str(settings.model_config.get("env_prefix", ""))
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[field.annotation, _option(name, field, prefix, (defaults or {}).get(name, True))],
        )
        for name, field in settings.model_fields.items()
        if name not in without
    ]


def _option(name: str, field: FieldInfo, prefix: str, shown: str | bool) -> Any:
    bounds = {key: getattr(bound, key) for bound in field.metadata for key in ("ge", "le") if hasattr(bound, key)}
    return typer.Option(
        f"--{name.replace('_', '-')}",
        min=bounds.get("ge"),
        max=bounds.get("le"),
        envvar=f"{prefix}{name}".upper() if prefix else None,
        help=field.description,
        show_default=shown,
    )


def add_settings_command(
    app: typer.Typer, function: Callable[..., None], load_options: Callable[[], list[inspect.Parameter]]
) -> None:
    """Add a command with the options of `function` and those that `load_options` returns.

    `load_options` is called when the command is used, because settings classes are slow to import. `function` takes
    the values of these options as `**settings`.
    """

    class SettingsCommand(TyperCommand):
        complete = False

        def get_params(self, ctx: Any) -> list[Any]:
            if not self.complete:
                inner = typer.Typer(add_completion=False)
                inner.command()(_with_options(function, load_options()))
                command = typer.main.get_command(inner)
                self.params, self.callback, self.complete = command.params, command.callback, True
            return super().get_params(ctx)

    app.command(function.__name__, help=inspect.getdoc(function), cls=SettingsCommand)(_no_options)


def _no_options() -> None:
    """What Typer inspects before the options are known."""


def _with_options(function: Callable[..., None], options: list[inspect.Parameter]) -> Callable[..., None]:
    """`function` with a signature in which `options` stand for its `**settings`."""

    @wraps(function)
    def command(**values: Any) -> None:
        function(**values)

    signature = inspect.signature(function, eval_str=True)
    named = [value for value in signature.parameters.values() if value.kind is not inspect.Parameter.VAR_KEYWORD]
    command.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return command
