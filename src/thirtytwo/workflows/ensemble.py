"""Combine trained runs: an ensemble averages their probabilities, a soup averages their weights."""

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
from thirtytwo.workflows.combine import Combined, average_probabilities, build_soup
from thirtytwo.workflows.finish import Plan, Run, begin, score_and_export, write_pages
from thirtytwo.workflows.leakage import Provenance, check_members
from thirtytwo.workflows.members import Member, Soup, check_compatible, load_member, member_record
from thirtytwo.workflows.records import progress_logger, record, slug


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
    """Combine finished runs on the same data into a new run directory, with report, comparison and model.onnx.

    Without `soup` the calibrated probabilities of the members are averaged; prediction costs as much as all members
    together. With `soup` their weights are averaged (Wortsman et al. 2022, arXiv 2203.05482); prediction costs as much
    as one member. Averaging weights works only for runs that start from the same weights, such as one pretrained
    network.

    Args:
        runs: two or more run directories; a directory of seeds stands for every finished run in it.
        run: the run directory to create; a new one under `runs/` by default.
        soup: `uniform` averages the weights of all members; `greedy` starts with the most accurate on validation and
            adds each that does not lower the accuracy; None averages probabilities.
        device: device to compute on: `auto`, `cpu`, `cuda` or `mps`.
        data_root: directory searched first for known data sets; the environment variable THIRTYTWO_DATA by default.
        show: log progress on standard error.

    Returns:
        The new run directory and the content of its `metrics.json`.

    Raises:
        RunError: a run is missing, not finished or damaged, or the runs cannot be combined.
        DataError: fewer than two runs, a run named twice, or their data is missing or has changed.
    """
    log = progress_logger(show)
    started = datetime.now(UTC)
    if run is not None:
        RunDir.refuse_used(Path(run))
    with ExitStack() as stack:
        meter = stack.enter_context(Meter())
        paths, notices = expanded_runs([runs] if isinstance(runs, str | Path) else runs)
        if len(paths) < 2:
            raise DataError(f"An ensemble needs at least 2 runs; found {len(paths)}.", "Name another run.")
        for notice in notices:
            log(notice)
        members = [load_member(path) for path in paths]
        check_compatible(members, soup)
        root = Path(data_root) if data_root is not None else None
        data = _load_data(members[0], root)
        dataset, parts = data.dataset, data.parts
        origins = check_members([member.run for member in members], dataset, parts)
        hardware = choose_hardware(TrainSettings(precision="float32"), device)
        log(f"{len(members)} runs on {dataset.name}: {'averaging weights' if soup else 'averaging probabilities'}")
        combined = build_soup(members, parts, soup, hardware, log) if soup else average_probabilities(members)
        plan = _plan(members, combined, soup, data, origins, hardware, root, started)
        kind = "soup" if soup else "ensemble"
        directory = stack.enter_context(RunDir.create_locked(run, Path("runs") / f"{slug(plan.spec)}-{kind}"))
        begin(plan, directory)
        seconds = sum(float(members[at].environment["seconds"]["train"]) for at in combined.kept)
        epochs = sum(int(members[at].environment["epochs"]) for at in combined.kept)
        fitted = Fitted(combined.net.eval().to(hardware.device), combined.mean, combined.std, epochs, seconds)
        metrics = score_and_export(plan, fitted, directory, log, meter)
        _compare_with_members(directory, paths, root, log)
        _warn_if_member_is_better(directory, paths, log)
        write_pages(plan, directory)
        return Run(directory.path, metrics)


def _load_data(first: Member, root: Path | None) -> RunData:
    """Load the data of the members as it was when they were trained.

    Raises:
        DataError: it is missing, or some of its images are.
    """
    found = load_run_data(first.run, root, image_size=first.info.input_size)
    if any(found.missing.values()):
        raise DataError(f"{next(found.changes())}.", "Restore the files, or train the runs again.")
    return found


def _plan(
    members: Sequence[Member],
    combined: Combined,
    soup: Soup | None,
    data: RunData,
    origins: Provenance,
    hardware: Hardware,
    root: Path | None,
    started: datetime,
) -> Plan:
    about, parts = members[0].environment["data"], data.parts
    spec, dataset = about["spec"], replace(data.dataset, fingerprint=about["fingerprint"])
    chosen = replace(hardware, choices=combined.choices)
    words = [
        "thirtytwo",
        "ensemble",
        *(str(member.run.path) for member in members),
        *(["--soup", soup] if soup else []),
    ]
    written = record(dataset, spec, parts, combined.recipe.name, {}, chosen, started, about.get("path"))
    written |= {
        "command": shlex.join(words),
        "members": [member_record(member, index in combined.kept) for index, member in enumerate(members)],
    }
    if parts.val is None:
        no_calibration = Choice("calibration", "none", "the members have no validation images to fit it on")
        written["choices"] = [*written["choices"], vars(no_calibration)]
    split = split_record(parts, combined.recipe, unused_of(dataset, parts), origins.as_dict())
    return Plan(spec, dataset, parts, combined.recipe, chosen, None, written, split, root)


def _warn_if_member_is_better(directory: RunDir, paths: Sequence[Path], log: Callable[[str], None]) -> None:
    """Log a member that is more accurate on validation than the combined model."""

    def accuracy(run: RunDir) -> float:
        predictions = run.read_predictions("val")
        return float((predictions.predicted == predictions.truth).mean())

    scored = [run for run in map(RunDir, paths) if run.predictions("val").is_file()]
    if not scored or not directory.predictions("val").is_file():
        return
    together, best = accuracy(directory), max(scored, key=accuracy)
    if accuracy(best) > together:
        log(
            f"{best.path} alone has a validation accuracy of {100 * accuracy(best):.2f} %, the combined model of "
            f"{100 * together:.2f} %; combining helps runs of similar accuracy, and weaker members lower the result"
        )


def _compare_with_members(
    directory: RunDir, paths: Sequence[Path], root: Path | None, log: Callable[[str], None]
) -> None:
    """Compare the new run with its members, where they have test predictions."""
    log("comparing the combined model with its members")
    try:
        compare([directory.path, *paths], out=directory.path / COMPARISON, timed=True, data_root=root)
    except ThirtytwoError as error:
        log(f"no comparison with the members: {error.message}")
