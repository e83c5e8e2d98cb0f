"""The command `thirtytwo`: its verbs, exit codes and error messages.

Exit codes: 0 success, 1 a bug (with traceback), 2 invalid user input (one message), 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from thirtytwo.cli.app import app as open_app
from thirtytwo.cli.console import log, show, show_error
from thirtytwo.cli.data import cache
from thirtytwo.cli.evaluators import EvaluateCommand, evaluator_options, show_evaluations
from thirtytwo.cli.serve import serve
from thirtytwo.cli.train import tune
from thirtytwo.errors import ThirtytwoError
from thirtytwo.process import own_process

BUG, USER, INTERRUPTED = 1, 2, 130
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

app = typer.Typer(
    name="thirtytwo",
    help="Train, evaluate and run image classifiers.",
    epilog="Start with: thirtytwo demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Show or check a data set.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="cifar10, cifar100, digits, hf:owner/name, or a folder of images or parquet files.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, printed last by train.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Device to compute on.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder to look for known data sets in first.", show_default="THIRTYTWO_DATA"),
]


@app.callback(invoke_without_command=True)
def _thirtytwo(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        import thirtytwo

        show(f"thirtytwo {thirtytwo.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        show(context.get_help())


@app.command()
def train(
    data: Data,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Training recipe: see thirtytwo recipes.", show_default="fast"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of the recipe; may be repeated."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory to write.", show_default="a new one under ./runs"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Train one run per seed and summarize them.")
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Train N runs with consecutive seeds, starting at --seed.", show_default="1"
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --run.")] = False,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on at most this many images.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX|COLUMN",
            help="Column, or pattern on file paths such as '/(patient\\d+)_', that groups samples; a "
            "group is never split between train, validation and test.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="timm|TAG|FILE|RUN", help="Initial weights.", show_default="those of the recipe"),
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Run the learning-rate finder only (about 100 steps); writes nothing.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Train, evaluate once on the test split, write the report and model.onnx; prints the run directory last."""
    import thirtytwo
    from thirtytwo.cli.compare import parse_seeds, train_seeds
    from thirtytwo.cli.models import show_metrics
    from thirtytwo.config.recipe import parse_overrides
    from thirtytwo.rundir import holds_seeds

    overrides = parse_overrides(settings or [])
    if pretrained is not None:
        overrides["transfer.pretrained"] = pretrained
    if group_by is not None:
        overrides["data.group_by"] = group_by
    if find_lr:
        from thirtytwo.cli.train import find_learning_rate

        if resume or run or seeds or repeat or epochs:
            raise typer.BadParameter("--find-lr writes no run: remove --run, --resume, --seeds, --repeat and --epochs.")
        finder_options = {"seed": seed, "limit_train": limit_train, "device": device, "data_root": data_root}
        find_learning_rate(data, recipe=recipe, overrides=overrides, **finder_options)
        return
    seed_list = parse_seeds(seeds, repeat, seed, recipe)
    options: dict[str, Any] = {
        "recipe": recipe,
        "overrides": overrides,
        "run": run,
        "epochs": epochs,
        "resume": resume,
        "limit_train": limit_train,
        "device": device,
        "data_root": data_root,
    }
    if seed_list is not None or (resume and run is not None and holds_seeds(run)):
        train_seeds(data, seed_list, seed, **options)
        return
    trained = thirtytwo.train(data, seed=seed, **options)
    if trained.metrics:
        show_metrics(trained.metrics)
    show(str(trained.path))


@app.command(cls=EvaluateCommand)  # with the options of the evaluators
def evaluate(
    context: typer.Context,
    run: RunPath,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Evaluate on other data.", show_default="the run's data")
    ] = None,
    split: Annotated[Literal["test", "val"], typer.Option(help="Split to evaluate on.")] = "test",
    tta: Annotated[bool, typer.Option("--tta", help="Also evaluate with test-time augmentation.")] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Evaluate a trained run again, or on other data."""
    import thirtytwo
    from thirtytwo.cli.models import show_metrics

    options = evaluator_options(context)
    metrics = thirtytwo.evaluate(run, data=data, split=split, tta=tta, device=device, data_root=data_root, **options)
    show_metrics(metrics)
    show_evaluations(metrics, options)


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Images to classify.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|RUN|FILE", help="Model to use.", show_default="bundled, else the newest run"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="Number of classes to report.")] = 5,
    format: Annotated[Literal["table", "json", "csv"], typer.Option(help="Output format.")] = "table",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write the results to.", show_default="stdout")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file --out if it exists.")] = False,
) -> None:
    """Classify images; does not need PyTorch."""
    from thirtytwo.cli.predict import predict

    predict(images, model, top, format, out, force)


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Images to explain.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|RUN|FILE", help="Model to use.", show_default="bundled, else the newest run"),
    ] = None,
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

    explain(images, model=model, method=method, class_name=class_name, out=out, force=force, score=score)


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
    split: Annotated[Literal["test", "val"], typer.Option(help="Split whose predictions are compared.")] = "test",
    timed: Annotated[
        bool, typer.Option("--time", help="Also measure the milliseconds per image of each model.onnx.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Compare runs: metrics, cost, paired tests, and the images they classify differently."""
    from thirtytwo.cli.compare import compare

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
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory to write.", show_default="a new one under ./runs"),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Combine trained runs into one model; prints the run directory last."""
    import thirtytwo
    from thirtytwo.cli.models import show_members, show_metrics

    found = thirtytwo.ensemble(runs, run=run, soup=soup, device=device, data_root=data_root)
    show_metrics(found.metrics)
    show_members(found.path)
    show(str(found.path))


@app.command()
def report(
    run: RunPath,
    images: Annotated[bool, typer.Option(" /--no-images", help="Omit images, for example to share the page.")] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write only the page, to this file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Write the report.html of a run again."""
    import thirtytwo

    show(str(thirtytwo.write_report(run, images=images, out=out, force=force, data_root=data_root)))


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="RUN|FILE|NAME", help="Run directory, model.onnx, or bundled model.")],
    kind: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="onnx-int8, onnx-float16, or a format from another package."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="beside the model")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it exists.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Export a trained model to another format and compare the outputs; prints the file's path last."""
    import thirtytwo
    from thirtytwo.cli.models import show_export

    found = thirtytwo.export_model(model, kind, out=out, force=force, data_root=data_root)
    show_export(found)
    show(str(found.path))


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


@data_app.command("show")
def data_show(
    data: Data,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a PNG with sample images of every class.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Instead write a PNG of training images with this recipe's augmentation."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of that recipe; may be repeated."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Show splits, classes and counts of a data set, or images with a recipe's augmentation."""
    if recipe is None and settings:
        raise typer.BadParameter("--set requires --recipe.")
    if recipe is not None:
        from thirtytwo.cli.data import show_augmented
        from thirtytwo.config.recipe import parse_overrides

        show_augmented(data, data_root, recipe, parse_overrides(settings or []), sheet)
        return
    from thirtytwo.cli.models import show_data

    show_data(data, data_root, sheet)


@data_app.command("doctor")
def data_doctor(data: Data, data_root: DataRoot = None) -> None:
    """Check a data set before training; exit code 2 if it has errors."""
    from thirtytwo.cli.models import show_diagnosis

    show_diagnosis(data, data_root)


app.command("app")(open_app)
app.command()(cache)
app.command()(tune)
app.command()(serve)


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
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # names that cannot be encoded must not end the run
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are printed on stderr."""
    command = typer.main.get_command(app)
    try:
        with own_process():
            code = command.main(arguments, prog_name="thirtytwo", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer's result of Ctrl-C
            log("Interrupted.")
        return code if isinstance(code, int) else 0
    except SystemExit as exit:
        # Typer turns a closed pipe into an exit; `thirtytwo … | head` is not an error.
        if isinstance(exit.__context__, BrokenPipeError):
            return _closed_pipe()
        return exit.code if isinstance(exit.code, int) else BUG
    except BrokenPipeError:
        return _closed_pipe()
    except typer.TyperException as error:
        show_error(*_usage_message(error))
        return USER
    except ThirtytwoError as error:
        show_error(error.message, error.fix)
        return USER
    except OSError as error:
        if error.errno not in _DISK:
            return _bug()
        show_error(f"Cannot write the output: {error.strerror}.", "Free some space or write to another location.")
        _silence_stdout()
        return USER
    except Exception:
        return _bug()


def _usage_message(error: typer.TyperException) -> tuple[str, str]:
    """Message (with close matches) and fix of an invalid command line."""
    message = error.format_message()
    close = getattr(error, "possibilities", None)
    if close:
        message = f"{error.message}. Did you mean {' or '.join(sorted(close))}?"
    context = getattr(error, "ctx", None)
    return message, f"See: {context.command_path if context else 'thirtytwo'} --help"


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
