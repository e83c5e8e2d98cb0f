"""The command `thirtytwo`: verbs, exit codes, and what a user sees when something is wrong.

Exit codes: 0 done, 1 a bug (with traceback), 2 the user's input (one message), 130 interrupted.
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
from thirtytwo.cli.cache import cache
from thirtytwo.cli.console import say, show, show_error
from thirtytwo.cli.serve import serve
from thirtytwo.cli.tune import tune
from thirtytwo.errors import ThirtytwoError
from thirtytwo.process import owned

BUG, USER, INTERRUPTED = 1, 2, 130
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

app = typer.Typer(
    name="thirtytwo",
    help="Train, judge and run image classifiers for small pictures.",
    epilog="Start with: thirtytwo demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Look at a data set, or check it before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="cifar10, cifar100, digits, hf:owner/name, or a folder of pictures or of parquet files.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory, as printed last by training.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="What computes.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Where known data sets are looked for first.", show_default="THIRTYTWO_DATA"),
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
        typer.Option(metavar="NAME|FILE", help="How to train: see thirtytwo recipes.", show_default="fast"),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the recipe; may be repeated."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory to write.", show_default="a new one under ./runs"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes everything random.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="One run for each of these seeds, and a summary.")
    ] = None,
    repeat: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The same for N seeds, from --seed on.", show_default="1")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training pictures.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run in --run.")] = False,
    limit_train: Annotated[int | None, typer.Option(min=1, help="Train on this many pictures only.")] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX|COLUMN",
            help="Keep together what belongs together when validation and test are set aside: a pattern on files' "
            "paths, such as '/(patient\\d+)_', or a column.",
        ),
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(metavar="timm|TAG|FILE|RUN", help="Start from these weights.", show_default="the recipe's"),
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Only look for a good rate: a hundred steps, nothing is written.")
    ] = False,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Train, score once on test, and write the report and model.onnx; prints the run directory last."""
    import thirtytwo
    from thirtytwo.cli.compare import parse_seeds, train_seeds
    from thirtytwo.cli.listings import show_metrics
    from thirtytwo.config.recipe import parse_overrides
    from thirtytwo.rundir import holds_seeds

    overrides = parse_overrides(settings or [])
    if pretrained is not None:
        overrides["transfer.pretrained"] = pretrained
    if group_by is not None:
        overrides["data.group_by"] = group_by
    if find_lr:
        from thirtytwo.cli.find_lr import find_rate

        if resume or run or seeds or repeat or epochs:
            raise typer.BadParameter("--find-lr writes no run: leave out --run, --resume, --seeds, --repeat, --epochs.")
        look = {"seed": seed, "limit_train": limit_train, "device": device, "data_root": data_root}
        find_rate(data, recipe=recipe, overrides=overrides, **look)
        return
    several = parse_seeds(seeds, repeat, seed, recipe)
    how: dict[str, Any] = {
        "recipe": recipe,
        "overrides": overrides,
        "run": run,
        "epochs": epochs,
        "resume": resume,
        "limit_train": limit_train,
        "device": device,
        "data_root": data_root,
    }
    if several is not None or (resume and run is not None and holds_seeds(run)):
        train_seeds(data, several, seed, **how)
        return
    trained = thirtytwo.train(data, seed=seed, **how)
    if trained.metrics:
        show_metrics(trained.metrics)
    show(str(trained.path))


@app.command()
def evaluate(
    run: RunPath,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Score on other data.", show_default="the run's own")
    ] = None,
    split: Annotated[Literal["test", "val"], typer.Option(help="Which part.")] = "test",
    tta: Annotated[bool, typer.Option("--tta", help="Also with test-time augmentation.")] = False,
    corruptions: Annotated[
        bool, typer.Option("--corruptions", help="Also under noise, blur, weather and the like, at five strengths.")
    ] = False,
    corruption_pictures: Annotated[
        int, typer.Option(min=1, metavar="N", help="Corrupt at most this many pictures.")
    ] = 2000,
    coverage: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Also prediction sets that hold the truth this often, such as 0.95."),
    ] = None,
    ood: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA", help="Also measure how data of none of its classes is told unknown; may be repeated."
        ),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Score a trained run again, or on other data."""
    import thirtytwo
    from thirtytwo.cli.listings import show_corruptions, show_metrics, show_sets, show_unknown

    metrics = thirtytwo.evaluate(
        run,
        data=data,
        split=split,
        tta=tta,
        corruptions=corruptions,
        corruption_pictures=corruption_pictures,
        coverage=coverage,
        ood=ood or (),
        device=device,
        data_root=data_root,
    )
    show_metrics(metrics)
    if coverage is not None:
        show_sets(metrics["conformal"])
    if ood:
        show_unknown(metrics["unknown"])
    if corruptions:
        show_corruptions(metrics["corruptions"])


@app.command()
def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Pictures to classify.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|RUN|FILE", help="Which model.", show_default="bundled, else the newest run"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="K", help="How many classes to tell.")] = 5,
    format: Annotated[Literal["table", "json", "csv"], typer.Option(help="How results are written.")] = "table",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write results to a new file.", show_default="stdout")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Let --out replace an existing file.")] = False,
) -> None:
    """Classify pictures; needs no PyTorch."""
    from thirtytwo.cli.predict import predict

    predict(images, model, top, format, out, force)


@app.command()
def explain(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|GLOB...", help="Pictures to explain.")],
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|RUN|FILE", help="Which model.", show_default="bundled, else the newest run"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="New directory to write to.", show_default="explained")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="cam, gradcam, integrated or occlusion.",
            show_default="the first that can be used of gradcam, cam and occlusion",
        ),
    ] = None,
    class_name: Annotated[
        str | None,
        typer.Option("--class", metavar="NAME", help="Explain this class.", show_default="the most probable one"),
    ] = None,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Measure what each map is worth, against random ones.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Let --out replace files in an existing directory.")] = False,
) -> None:
    """Show where a model looks: pictures with heat over them."""
    from thirtytwo.cli.explain import explain

    explain(images, model=model, method=method, class_name=class_name, out=out, force=force, score=score)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, or directories of several seeds.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="New directory for page, Markdown and JSON.", show_default="one under ./runs"),
    ] = None,
    split: Annotated[Literal["test", "val"], typer.Option(help="Which predictions.")] = "test",
    timed: Annotated[
        bool, typer.Option("--time", help="Also measure milliseconds a picture through each model.onnx.")
    ] = False,
    data_root: DataRoot = None,
) -> None:
    """Compare runs: figures, cost, paired tests, and the pictures on which they disagree."""
    from thirtytwo.cli.compare import compare

    compare(runs, out=out, split=split, timed=timed, data_root=data_root)


@app.command()
def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Run directories, or directories of several seeds.")
    ],
    soup: Annotated[
        Literal["greedy", "uniform"] | None,
        typer.Option(help="Average weights, not probabilities.", show_default="probabilities"),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run directory to write.", show_default="a new one under ./runs"),
    ] = None,
    device: Device = "auto",
    data_root: DataRoot = None,
) -> None:
    """Put trained runs together into one model; prints the run directory last."""
    import thirtytwo
    from thirtytwo.cli.listings import show_members, show_metrics

    found = thirtytwo.ensemble(runs, run=run, soup=soup, device=device, data_root=data_root)
    show_metrics(found.metrics)
    show_members(found.path)
    show(str(found.path))


@app.command()
def report(
    run: RunPath,
    pictures: Annotated[
        bool, typer.Option(" /--no-pictures", help="Leave pictures out, for a page that others may see.")
    ] = True,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the page here, and nothing else.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Write a run's report.html again."""
    import thirtytwo

    show(str(thirtytwo.workflows.report(run, pictures=pictures, out=out, force=force, data_root=data_root)))


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="RUN|FILE|NAME", help="Run directory, model.onnx, or bundled model.")],
    kind: Annotated[str, typer.Option("--format", metavar="FORMAT", help="onnx-int8, onnx-float16, or a package's.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="beside the model")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    data_root: DataRoot = None,
) -> None:
    """Write a trained model in another format, hold it against the first, and print the file's path last."""
    import thirtytwo
    from thirtytwo.cli.listings import show_export

    found = thirtytwo.workflows.export_model(model, kind, out=out, force=force, data_root=data_root)
    show_export(found)
    show(str(found.path))


@app.command()
def models(
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Tell FLOPs for pictures of this size.")] = 32,
) -> None:
    """List trained models and the networks that can be trained."""
    from thirtytwo.cli.listings import show_models

    show_models(size)


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from thirtytwo.cli.listings import show_recipes

    show_recipes()


@data_app.command("show")
def data_show(
    data: Data,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a PNG with pictures of every class.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Write a PNG of what training sees instead: pictures, augmented."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of that recipe; may be repeated."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Show splits, classes and counts of a data set, or pictures as a recipe augments them."""
    if recipe is None and settings:
        raise typer.BadParameter("--set changes a recipe: name one with --recipe.")
    if recipe is not None:
        from thirtytwo.cli.augmented import show_augmented
        from thirtytwo.config.recipe import parse_overrides

        show_augmented(data, data_root, recipe, parse_overrides(settings or []), sheet)
        return
    from thirtytwo.cli.listings import show_data

    show_data(data, data_root, sheet)


@data_app.command("doctor")
def data_doctor(data: Data, data_root: DataRoot = None) -> None:
    """Check a data set before training; exit code 2 where it has errors."""
    from thirtytwo.cli.listings import show_diagnosis

    show_diagnosis(data, data_root)


app.command("app")(open_app)
app.command()(cache)
app.command()(tune)
app.command()(serve)


@app.command()
def demo(
    then_app: Annotated[bool, typer.Option("--app", help="Open the app on it afterwards.")] = False,
) -> None:
    """Train, judge and use a small classifier in a few minutes, without any download."""
    from thirtytwo.demo import run_demo

    run = run_demo()
    if then_app:
        from thirtytwo.cli.app import start_app

        start_app([str(run.path)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name no terminal can show must not end the run
    sys.exit(run_command(arguments))


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error is told on stderr."""
    command = typer.main.get_command(app)
    try:
        with owned():
            code = command.main(arguments, prog_name="thirtytwo", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # Typer's answer to Ctrl-C
            say("Interrupted.")
        return code if isinstance(code, int) else 0
    except SystemExit as exit:
        # Typer turns a closed pipe into an exit; `thirtytwo … | head` is nobody's mistake.
        if isinstance(exit.__context__, BrokenPipeError):
            return _silenced()
        return exit.code if isinstance(exit.code, int) else BUG
    except BrokenPipeError:
        return _silenced()
    except typer.TyperException as error:
        show_error(*_usage_message(error))
        return USER
    except ThirtytwoError as error:
        show_error(error.message, error.fix)
        return USER
    except OSError as error:
        if error.errno not in _DISK:
            return _bug()
        show_error(f"The output could not be written: {error.strerror}.", "Free some space or write elsewhere.")
        _silence_stdout()
        return USER
    except Exception:
        return _bug()


def _usage_message(error: typer.TyperException) -> tuple[str, str]:
    """What was wrong with the command line, with close matches, and where its help is."""
    message = error.format_message()
    close = getattr(error, "possibilities", None)
    if close:
        message = f"{error.message}. Did you mean {' or '.join(sorted(close))}?"
    context = getattr(error, "ctx", None)
    return message, f"See: {context.command_path if context else 'thirtytwo'} --help"


def _bug() -> int:
    import traceback

    traceback.print_exc()
    say("This is a bug, please report it with the lines above.")
    return BUG


def _silenced() -> int:
    _silence_stdout()
    return 0


def _silence_stdout() -> None:
    """Keep Python from failing once more on the same stream when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
