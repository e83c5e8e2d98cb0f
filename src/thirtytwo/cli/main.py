"""The command `thirtytwo`: its verbs, exit codes and error messages.

Exit codes: 0 success, 1 a bug (with traceback), 2 invalid user input (one message), 3 errors that `data doctor` found,
130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from thirtytwo.cli.app import app as open_app
from thirtytwo.cli.app import app_options
from thirtytwo.cli.console import advice_on_file, brief_warnings, log, log_new_folder, show, show_error
from thirtytwo.cli.data import cache, show_data
from thirtytwo.cli.data_export import export as export_data
from thirtytwo.cli.doctor import checks, doctor, fix
from thirtytwo.cli.evaluate import evaluate
from thirtytwo.cli.evaluators import evaluator_options
from thirtytwo.cli.formats import BY_SUFFIX, DEFAULT_TOP, ResultFormat
from thirtytwo.cli.options import (
    DataRoot,
    Device,
    Model,
    NewRun,
    On,
    RunPath,
    Split,
    add_settings_command,
)
from thirtytwo.cli.push import push
from thirtytwo.cli.serve import serve, serve_options
from thirtytwo.cli.start import INTERRUPTED, prepare_streams
from thirtytwo.cli.train import train, tune
from thirtytwo.errors import ThirtytwoError
from thirtytwo.process import interrupted_by_sigterm, own_process, quiet_loggers
from thirtytwo.run_state import RunState
from thirtytwo.text import plain_reason

BUG, USER = 1, 2
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_PLACES = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of paths that users give, wherever they are noticed."""

_MAY_BE_EMPTY = ("--root-path", "--base-path")
"""Options of which an empty value means none."""
_IMAGES, _LISTS = (
    "IMAGE|FOLDER|GLOB|@LIST|-...",
    "; @FILE reads paths from a file, one a line, and - from standard input",
)

app = typer.Typer(
    name="thirtytwo",
    help="Train, evaluate, explain and serve image classifiers.",
    epilog="Start with: thirtytwo demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Show, check, fix or convert a data set.")
app.add_typer(data_app, name="data")


@app.callback(invoke_without_command=True)
def _thirtytwo(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        import thirtytwo

        show(f"thirtytwo {thirtytwo.__version__}")
        raise typer.Exit
    _show_help_without_command(context)


@data_app.callback(invoke_without_command=True)
def _show_help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        show(context.get_help())


app.command()(train)
add_settings_command(app, evaluate, evaluator_options)


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar=_IMAGES, help=f"Images to classify{_LISTS}.")],
    model: Model = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of classes to report.")] = DEFAULT_TOP,
    tta: Annotated[
        Literal["off", "auto", "all"],
        typer.Option(help="Images to classify mirrored and shifted as well: off (none), auto (those in doubt) or all."),
    ] = "off",
    format: Annotated[ResultFormat | None, typer.Option(help="Output format.", show_default=BY_SUFFIX)] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER", help="File to write the results to; with --on, a folder.", show_default="stdout"
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the file --out if it exists; with --on, start again.")
    ] = False,
    on: On = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --on: number of workers.", show_default="the cluster's CPU cores"),
    ] = None,
) -> None:
    """Classify images, without PyTorch: here, or with --on on a Ray cluster, from folders, parquet or object stores."""
    if on is not None:
        from thirtytwo.cli.predict_on import predict_on

        predict_on(images, on, model=model, top=top, tta=tta, format=format, out=out, force=force, workers=workers)
        return
    from thirtytwo.cli.predict import predict

    if workers is not None:
        raise ThirtytwoError("--workers is for a cluster.", "Name it with --on.")
    predict(images, model, top, format, None if out is None else Path(out), force, tta)


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(metavar=_IMAGES, help=f"Images to explain{_LISTS}.")],
    model: Model = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Directory to create.", show_default="explained")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cam, gradcam, integrated or occlusion.",
            show_default="the first available of gradcam, cam and occlusion",
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Class to explain.", show_default="the most probable one"),
    ] = None,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Measure the faithfulness of each heatmap against random ones.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files in an existing directory --out.")] = False,
) -> None:
    """Explain predictions with heatmaps over the images."""
    from thirtytwo.cli.explain import explain

    log_new_folder(out)
    explain(images, model=model, method=method, class_name=class_name, out=out, force=force, score=score)


@app.command()
def teach(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder with one subfolder of images per class.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Model file to write.")] = Path("model.onnx"),
    base: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|RUN|FILE",
            help="Model whose features are used.",
            show_default="imagenet for photographs, cifar100 for small images",
        ),
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Views of each image.", show_default="by their number"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the cross-validation folds.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file --out if it exists.")] = False,
) -> None:
    """Make a model for new classes from a few images of each, without PyTorch. The last output line is its path."""
    from thirtytwo.cli.teach import teach

    teach(folder, out=out, base=base, views=views, seed=seed, force=force)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, or directories of several seeds.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Directory to create for the page, Markdown and JSON.", show_default="one under ./runs"
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Split whose predictions are compared.")] = "test",
    timed: Annotated[
        bool, typer.Option("--time", help="Also measure the milliseconds per image of each model.onnx.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Compare runs: metrics, cost, paired tests, and the images they classify differently."""
    from thirtytwo.cli.compare import compare

    log_new_folder(out)
    compare(runs, out=out, split=split, timed=timed, data_root=data_root)


@app.command()
def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, or directories of several seeds.")
    ],
    soup: Annotated[
        Literal["greedy", "uniform"] | None,
        typer.Option(help="Average weights instead of probabilities.", show_default="probabilities"),
    ] = None,
    run: NewRun = None,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Combine trained runs into one model. The last output line is the run directory."""
    import thirtytwo
    from thirtytwo.cli.models import show_members, show_metrics
    from thirtytwo.report.seeds import expanded_runs
    from thirtytwo.rundir import RunDir

    for path in expanded_runs(runs)[0]:
        RunDir.open(path)  # reports what is none before the slow imports
    found = thirtytwo.ensemble(runs, run=run, soup=soup, device=device, data_root=data_root)
    show_metrics(found.metrics)
    show_members(found.path)
    show(str(found.path))


@app.command()
def report(
    run: RunPath,
    images: Annotated[
        bool, typer.Option(" /--no-images", help="Omit images, for example to share the page.", show_default=False)
    ] = True,
    format: Annotated[
        Literal["html", "pdf"] | None,
        typer.Option(
            help="A page, or a PDF of a few pages: report.pdf.", show_default="by the suffix of --out, else html"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write only the report, to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Write the report of a run again, as the page report.html or as a PDF. The last output line is its path."""
    from thirtytwo.rundir import RunDir

    RunDir.open(run)  # before the slow imports
    log_new_folder(out)
    import thirtytwo

    path = thirtytwo.write_report(run, images=images, format=format, out=out, force=force, data_root=data_root)
    show(str(path))


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="RUN|FILE|NAME", help="Run directory, model.onnx, or bundled model.")],
    kind: Annotated[
        str,
        typer.Option(
            "--format", metavar="FORMAT", help="onnx-int8, onnx-float16, web-page, or a format from another package."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="beside the model")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Export a trained model to another format and compare the outputs. The last output line is the file's path."""
    import thirtytwo
    from thirtytwo.cli.models import show_export
    from thirtytwo.export.quantize import EXPORTS
    from thirtytwo.inference.hub import PREFIX
    from thirtytwo.inference.library import find_model

    EXPORTS.get(kind)
    if not model.startswith(PREFIX):
        find_model(model)  # reports it before the slow imports
    log_new_folder(out)
    found = thirtytwo.export_model(model, kind, out=out, force=force, data_root=data_root)
    show_export(found)
    show(str(found.path))


app.command()(push)


@app.command()
def models(
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Report FLOPs for images of this size.")] = 32,
) -> None:
    """List trained models and the networks that can be trained."""
    from thirtytwo.cli.models import show_models

    show_models(size)


@app.command()
def recipes() -> None:
    """List the bundled recipes."""
    from thirtytwo.cli.models import show_recipes

    show_recipes()


data_app.command("show")(show_data)
data_app.command()(doctor)
data_app.command()(checks)
data_app.command()(fix)
data_app.command("export")(export_data)
add_settings_command(app, open_app, app_options)
app.command()(cache)
app.command()(tune)
add_settings_command(app, serve, serve_options)


@app.command()
def demo(
    then_app: Annotated[bool, typer.Option("--app", help="Open the app with the model afterwards.")] = False,
) -> None:
    """Train, evaluate and use a small classifier in a few minutes, without a download."""
    from thirtytwo.demo import run_demo

    run = run_demo()
    if then_app:
        from thirtytwo.cli.app import start_app

        start_app([str(run.path)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    prepare_streams()
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are printed on stderr."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with own_process(), interrupted_by_sigterm(), brief_warnings(), quiet_loggers("matplotlib"):
            _refuse_empty(given)
            command = typer.main.get_command(_with_one_command(given[0]) if given else app)
            code = command.main(expand_paths(given), prog_name="thirtytwo", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer's result of Ctrl-C
            log("Interrupted.")
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return report_error(error, given)


def report_error(error: BaseException, given: Sequence[str]) -> int:
    """Print the error that ended the command line `given`; returns the exit code."""
    try:
        raise error
    except KeyboardInterrupt:
        log("Interrupted.")
        return INTERRUPTED
    except SystemExit as exit:
        # Typer turns a closed pipe into an exit; `thirtytwo … | head` is not an error.
        if isinstance(exit.__context__, BrokenPipeError):
            return _closed_pipe()
        return exit.code if isinstance(exit.code, int) else BUG
    except BrokenPipeError:
        return _closed_pipe()
    except typer.TyperException as error:
        show_error(*_usage_message(error, given))
        return USER
    except ThirtytwoError as error:
        show_error(error.message, error.fix)
        return USER
    except OSError as error:
        if error.errno in _PLACES and isinstance(error.filename, str | bytes):
            show_error(
                f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}.",
                "Check the path and its permissions.",
            )
            return USER
        if error.errno not in _DISK:
            return _bug()
        show_error(f"Cannot write the output: {error.strerror}.", "Free some space or write to another location.")
        _silence_stdout()
        return USER
    except Exception:
        return _bug()


def _refuse_empty(given: Sequence[str]) -> None:
    """Raise an error for an empty argument or value, such as an unset variable in quotes.

    As a path, it would be the current folder.
    """
    end = list(given).index("--") if "--" in given else len(given)  # of the options
    for place, (before, word) in enumerate(pairwise(["", *given])):
        option, sign, value = word.partition("=")
        if not word and before in _MAY_BE_EMPTY:
            continue
        if not word and before.startswith("--") and "=" not in before and place < end:
            problem = f"The value '' after {before} is empty."
        elif not word:
            problem = f"An argument of thirtytwo {given[0]} is empty." if given[0] else "The command is empty."
        elif option.startswith("--") and sign and not value and place < end and option not in _MAY_BE_EMPTY:
            problem = f"The value '' of {option} is empty."
        else:
            continue
        raise ThirtytwoError(problem, "Check whether a variable in the command line is unset.")


def _with_one_command(name: str) -> typer.Typer:
    """The application with the command of that name only, because building the others takes a while; else all of it."""
    named = [one for one in app.registered_commands if one.callback and (one.name or one.callback.__name__) == name]
    if not named:
        return app
    alone = copy(app)
    alone.registered_commands, alone.registered_groups = named, []
    return alone


def expand_paths(arguments: Sequence[str]) -> list[str]:
    """Expand `~` in values such as `--run=~/x`, which most shells leave unchanged, and in quoted paths."""
    return [_expand_path(argument) for argument in arguments]


def _expand_path(argument: str) -> str:
    option, sign, value = argument.partition("=")
    if argument == "~" or argument.startswith("~/"):
        return os.path.expanduser(argument)  # noqa: PTH111 (most values are not paths)
    if option.startswith("--") and value.startswith("~"):
        return option + sign + os.path.expanduser(value)  # noqa: PTH111
    return argument


def _usage_message(error: typer.TyperException, given: Sequence[str]) -> tuple[str, str]:
    """Message (with the value found and close matches) and fix of the invalid command line `given`."""
    cause: Any = error.__cause__
    if isinstance(error, typer.BadParameter) and hasattr(cause, "errors"):  # of pydantic's validation
        wrong = cause.errors()[0]
        reason, found = plain_reason(wrong), repr(str(wrong["input"]))
        error.message = reason if found in reason else f"{reason}; found {found}."
    message = error.format_message()
    close = getattr(error, "possibilities", None)
    if close:
        message = f"{error.message}. Did you mean {' or '.join(sorted(close))}?"
    elif not message.endswith((".", "?", "!")):
        message += "."  # as pydantic's and Click's messages of ranges have none
    context = getattr(error, "ctx", None)
    if getattr(getattr(error, "param", None), "name", "") == "data" and (run := _resumed_run(given)):
        return message, run.resume_hint()
    page = f"See: {context.command_path if context else _command_of(given)} --help"
    return message, advice_on_file(error, given) or page


def _resumed_run(given: Sequence[str]) -> RunState | None:
    """The run that a command line of `train` continues; None where it continues none."""
    if given[0] != "train" or "--resume" not in given:
        return None
    named = [after for before, after in pairwise(given) if before == "--run"]
    named += [word.removeprefix("--run=") for word in given if word.startswith("--run=")]
    return RunState(Path(named[-1])) if named else None


def _command_of(given: Sequence[str]) -> str:
    """The command of a command line that its parser refused, such as `thirtytwo data doctor`."""
    command, path = typer.main.get_command(app), ["thirtytwo"]
    for word in given:
        below = getattr(command, "commands", {})
        if word not in below:
            break
        command = below[word]
        path.append(word)
    return " ".join(path)


def _bug() -> int:
    import traceback

    traceback.print_exc()
    log("This is a bug. Please report it with the lines above.")
    return BUG


def _closed_pipe() -> int:
    _silence_stdout()
    return 0


def _silence_stdout() -> None:
    """Keep Python from failing again when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
