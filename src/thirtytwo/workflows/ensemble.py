"""Trained runs as one: their averaged probabilities, or their averaged weights."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.data.run_data import RunData, load_run_data, split_record, unused_of
from thirtytwo.errors import DataError, ThirtytwoError
from thirtytwo.report.compare import compare
from thirtytwo.report.members import COMPARISON
from thirtytwo.report.seeds import expanded_runs
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import Choice, Hardware, choose_hardware, preserved
from thirtytwo.training.usage import Meter
from thirtytwo.workflows.combine import Mixed, averaged, soup_of
from thirtytwo.workflows.finish import Plan, Run, begin, judge, tell
from thirtytwo.workflows.leakage import Origins, check_members
from thirtytwo.workflows.members import Given, Soup, check_alike, opened, told
from thirtytwo.workflows.records import record, slug, teller


@preserved()
def ensemble(
    runs: Sequence[Path | str],
    *,
    run: Path | str | None = None,
    soup: Soup | None = None,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> Run:
    """Put finished runs on the same data together into a new run directory, with report, comparison and model.onnx.

    Without `soup` the members' calibrated probabilities are averaged, which costs what all of them cost together.
    With it their weights are (Wortsman et al. 2022, arXiv 2203.05482), which costs what one of them costs: `uniform`
    averages all, `greedy` takes the best on validation and then each that does not make it worse there. Only weights
    that come from the same start, such as one pretrained network, can be expected to mean something together.

    Args:
        runs: two or more run directories; a directory of seeds stands for every finished run in it.
        run: the new run directory; one under `runs/` when not given.
        soup: how weights are averaged; None: probabilities are.
        device: what computes.
        data_root: where known data sets are looked for first.
        show: tell progress on standard error.

    Raises:
        RunError: a run is missing, not finished or damaged, or the runs do not go together.
        DataError: fewer than two runs, one named twice, or their data is not at hand as it was.
    """
    say = teller(show)
    started = datetime.now(UTC)
    if run is not None:
        RunDir.refuse_used(Path(run))
    with ExitStack() as held:
        meter = held.enter_context(Meter())
        paths, notices = expanded_runs([runs] if isinstance(runs, str | Path) else runs)
        if len(paths) < 2:
            raise DataError(f"An ensemble needs at least 2 runs; found {len(paths)}.", "Name another run.")
        for notice in notices:
            say(notice)
        given = [opened(path) for path in paths]
        check_alike(given, soup)
        root = Path(data_root) if data_root is not None else None
        data = _pictures(given[0], root)
        dataset, parts = data.dataset, data.parts
        origins = check_members([one.run for one in given], dataset, parts)
        hardware = choose_hardware(TrainSettings(precision="float32"), device)
        say(f"{len(given)} runs on {dataset.name}: {'averaging weights' if soup else 'averaging probabilities'}")
        mixed = soup_of(given, parts, soup, hardware, say) if soup else averaged(given)
        plan = _plan(given, mixed, soup, data, origins, hardware, root, started)
        kind = "soup" if soup else "ensemble"
        directory = held.enter_context(RunDir.begun(run, Path("runs") / f"{slug(plan.spec)}-{kind}"))
        begin(plan, directory)
        seconds = sum(float(given[at].environment["seconds"]["train"]) for at in mixed.kept)
        epochs = sum(int(given[at].environment["epochs"]) for at in mixed.kept)
        fitted = Fitted(mixed.net.eval().to(hardware.device), mixed.mean, mixed.std, epochs, seconds)
        metrics = judge(plan, fitted, directory, say, meter)
        _compared(directory, paths, root, say)
        _warned(directory, paths, say)
        tell(plan, directory)
        return Run(directory.path, metrics)


def _pictures(first: Given, root: Path | None) -> RunData:
    """The members' data as they had it.

    Raises:
        DataError: it is not there, or lacks some of it.
    """
    found = load_run_data(first.run, root, image_size=first.info.input_size)
    if any(found.missing.values()):
        raise DataError(f"{next(found.told())}.", "Put them back, or train the runs again.")
    return found


def _plan(
    given: Sequence[Given],
    mixed: Mixed,
    soup: Soup | None,
    data: RunData,
    origins: Origins,
    hardware: Hardware,
    root: Path | None,
    started: datetime,
) -> Plan:
    about, parts = given[0].environment["data"], data.parts
    spec, dataset = about["spec"], replace(data.dataset, fingerprint=about["fingerprint"])
    chosen = replace(hardware, choices=mixed.choices)
    words = ["thirtytwo", "ensemble", *(str(one.run.path) for one in given), *(["--soup", soup] if soup else [])]
    written = record(dataset, spec, parts, mixed.recipe.name, {}, chosen, started, about.get("path"))
    written |= {
        "command": shlex.join(words),
        "members": [told(one, place in mixed.kept) for place, one in enumerate(given)],
    }
    if parts.val is None:
        nothing = Choice("calibration", "none", "the members held nothing out that it could be fitted on")
        written["choices"] = [*written["choices"], vars(nothing)]
    split = split_record(parts, mixed.recipe, unused_of(dataset, parts), origins.as_dict())
    return Plan(spec, dataset, parts, mixed.recipe, chosen, None, written, split, root)


def _warned(directory: RunDir, paths: Sequence[Path], say: Callable[[str], None]) -> None:
    """Say where a member alone does better on validation, as far as members have their answers there."""

    def right(run: RunDir) -> float:
        said = run.read_predictions("val")
        return float((said.predicted == said.truth).mean())

    scored = [run for run in map(RunDir, paths) if run.predictions("val").is_file()]
    if not scored or not directory.predictions("val").is_file():
        return
    together, best = right(directory), max(scored, key=right)
    if right(best) > together:
        say(
            f"{best.path} alone is right on {100 * right(best):.2f} % of validation, together they are on "
            f"{100 * together:.2f} %: members of like strength gain from each other, much weaker ones cost"
        )


def _compared(directory: RunDir, paths: Sequence[Path], root: Path | None, say: Callable[[str], None]) -> None:
    """Hold the new run against its members, where they were scored."""
    say("comparing it with its members")
    try:
        compare([directory.path, *paths], out=directory.path / COMPARISON, timed=True, data_root=root)
    except ThirtytwoError as error:
        say(f"no comparison with its members: {error.message}")
