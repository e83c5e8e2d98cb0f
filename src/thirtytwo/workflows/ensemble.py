"""Combine trained runs: an ensemble averages their probabilities, a soup averages their weights."""

from __future__ import annotations

import copy
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from thirtytwo.arguments import optional_path
from thirtytwo.config.recipe import ModelSettings, Recipe, TrainSettings
from thirtytwo.config.settings import Choice
from thirtytwo.data.run_data import RunData, split_record, unused_of
from thirtytwo.data.split import Parts, covering_sample
from thirtytwo.data.types import ImageSet
from thirtytwo.errors import DataError, RunError, ThirtytwoError, check_choice
from thirtytwo.evaluation.scoring import Scorer
from thirtytwo.io import expand_home
from thirtytwo.models import Network
from thirtytwo.models.ensemble import (
    NAME,
    Ensemble,
    EnsembleSettings,
    MemberSettings,
    averaged_weights,
    renew_statistics,
)
from thirtytwo.report.sections import COMPARISON
from thirtytwo.report.seeds import expanded_runs
from thirtytwo.run_paths import default_path
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import even_batches, normalize, preserve_torch_state, scored_batch_size
from thirtytwo.text import percent
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import Hardware, UsageMeter, choose_hardware
from thirtytwo.workflows.compare import compare
from thirtytwo.workflows.finish import Run, score_and_export
from thirtytwo.workflows.loading import LoadedRun, load_run
from thirtytwo.workflows.members import Soup, check_compatible, member_record
from thirtytwo.workflows.prepare import Plan, write_combination
from thirtytwo.workflows.provenance import Provenance, check_members
from thirtytwo.workflows.records import progress_logger, record
from thirtytwo.workflows.report import write_pages
from thirtytwo.workflows.scoring import MEANS_FROM


@preserve_torch_state()
def ensemble(
    runs: Path | str | Sequence[Path | str],
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
        ArgumentError: there is no such soup.
        RunError: a run is missing, not finished or damaged, or the runs cannot be combined.
        DataError: fewer than two runs, a run named twice, or their data is missing or has changed.
    """
    if soup is not None:
        check_choice("soup", soup, get_args(Soup))
    log = progress_logger(show)
    started = datetime.now(UTC)
    run, root = optional_path("run", run), optional_path("data_root", data_root)
    if run is not None:
        RunDir.refuse_used(run, combining=True)
    with ExitStack() as stack:
        meter = stack.enter_context(UsageMeter())
        paths = _find_members(runs, log)
        members = [load_run(path, root) for path in paths]
        check_compatible(members, soup)
        data = _complete_data(members[0])
        origins = check_members([member.directory for member in members], data.dataset, data.parts)
        hardware = choose_hardware(TrainSettings(precision="float32"), device)
        log(f"{len(members)} runs on {data.dataset.name}: averaging {'weights' if soup else 'probabilities'}")
        combined = build_soup(members, data.parts, soup, hardware, log) if soup else average_probabilities(members)
        plan = _plan(members, combined, soup, data, origins, hardware, root, started)
        kind = "soup" if soup else "ensemble"
        path = default_path(plan.spec, kind)
        if run is not None:
            _refuse_other_combination(RunDir(expand_home(run)), plan)
        directory = stack.enter_context(RunDir.create_locked(run, path, combining=True))
        stack.enter_context(_log_command(log, directory))
        write_combination(plan, directory)
        metrics = score_and_export(plan, _fitted(members, combined, hardware), directory, log, meter)
        _compare_with_members(directory, paths, root, log)
        _warn_if_member_is_better(directory, paths, log)
        write_pages(directory, plan.recipe, plan.parts)
        return Run(directory.path, metrics)


@contextmanager
def _log_command(log: Callable[[str], None], directory: RunDir) -> Iterator[None]:
    """Log how to combine the runs again after an interruption."""
    try:
        yield
    except KeyboardInterrupt:
        if directory.is_combined():
            log(f"interrupted. Start again with: {directory.resume_command()}")
        raise


def _refuse_other_combination(found: RunDir, plan: Plan) -> None:
    """Check that a directory does not hold another combination, which lost a file after it was finished.

    Raises:
        RunError: it does.
    """
    if found.is_combined() and found.metrics.is_file() and found.recorded_command() != plan.record["command"]:
        again = f"Write its missing files again with: {found.resume_command()}"
        raise RunError(f"{found.path} holds another combination of runs.", f"{again}, or choose another --run.")


def _find_members(runs: Path | str | Sequence[Path | str], log: Callable[[str], None]) -> list[Path]:
    """The paths of the runs, with those in directories of seeds.

    Raises:
        DataError: fewer than two.
    """
    paths, notices = expanded_runs(runs)
    if len(paths) < 2:
        left_out = "".join(f" {notice}" for notice in notices)
        raise DataError(f"An ensemble needs at least 2 runs; found {len(paths)}.{left_out}", "Name more finished runs.")
    for notice in notices:
        log(notice)
    return paths


def _fitted(members: Sequence[LoadedRun], combined: Combined, hardware: Hardware) -> Fitted:
    """The combined network as if trained, with the time and the epochs of the members in it."""
    environments = [members[index].environment for index in combined.kept]
    seconds = sum(float(environment["seconds"]["train"]) for environment in environments)
    epochs = sum(int(environment["epochs"]) for environment in environments)
    return Fitted(combined.net.eval().to(hardware.device), combined.mean, combined.std, epochs, seconds)


def _complete_data(first: LoadedRun) -> RunData:
    """The data of the members as it was when they were trained.

    Raises:
        DataError: it is missing, or some of its images are.
    """
    found = first.data
    if any(found.lost.values()):
        raise DataError(f"{next(found.changes())}.", "Restore the files, or train the runs again.")
    return found


def _plan(
    members: Sequence[LoadedRun],
    combined: Combined,
    soup: Soup | None,
    data: RunData,
    origins: Provenance,
    hardware: Hardware,
    root: Path | None,
    started: datetime,
) -> Plan:
    about, parts = members[0].environment["data"], data.parts
    spec = about["spec"]
    # with the classes of the members: data as stored can have more of them by now, or another order
    dataset = replace(
        data.dataset,
        train=parts.train,
        val=parts.val,
        test=parts.test,
        fingerprint=about["fingerprint"],
        superclasses=about.get("superclasses", data.dataset.superclasses),
    )
    chosen = replace(hardware, choices=combined.choices)
    words = [
        "thirtytwo",
        "ensemble",
        *(str(member.directory.path) for member in members),
        *(["--soup", soup] if soup else []),
        *(["--data-root", str(root)] if root is not None else []),
    ]
    written = record(dataset, spec, parts, combined.recipe.name, {}, chosen, started, about.get("path"))
    written |= {
        "command": shlex.join(words),
        "members": [member_record(member, index in combined.kept) for index, member in enumerate(members)],
    }
    if parts.val is None:
        no_calibration = Choice("calibration", "none", "the members have no validation images to fit it on")
        written["choices"] = [*written["choices"], vars(no_calibration)]
    written["data"] |= {"fixes": about.get("fixes")}
    own_val = bool(members[0].split.get("own_val"))
    split = split_record(parts, combined.recipe, unused_of(data.dataset, parts), origins.as_dict(), own_val=own_val)
    applied = members[0].directory.fixes
    fixes = applied.read_bytes() if applied.is_file() else None
    return Plan(spec, dataset, parts, combined.recipe, chosen, None, written, split, root, fixes=fixes)


def _warn_if_member_is_better(directory: RunDir, paths: Sequence[Path], log: Callable[[str], None]) -> None:
    """Log a member that is more accurate on validation than the combined model."""

    def accuracy(run: RunDir) -> float:
        predictions = run.read_predictions("val")
        return float(predictions.correct.mean())

    scored = [run for run in map(RunDir, paths) if run.predictions("val").is_file()]
    if not scored or not directory.predictions("val").is_file():
        return
    together, best = accuracy(directory), max(scored, key=accuracy)
    if accuracy(best) > together:
        log(
            f"{best.path} alone has a validation accuracy of {percent(accuracy(best))}, the combined model of "
            f"{percent(together)}; combining helps runs of similar accuracy, and weaker members lower the result"
        )


def _compare_with_members(
    directory: RunDir, paths: Sequence[Path], root: Path | None, log: Callable[[str], None]
) -> None:
    """Compare the new run with its members, where they have test predictions."""
    log("comparing the combined model with its members")
    shutil.rmtree(directory.path / COMPARISON, ignore_errors=True)  # of an interrupted combination
    try:
        compare([directory.path, *paths], out=directory.path / COMPARISON, timed=True, data_root=root)
    except ThirtytwoError as error:
        log(f"no comparison with the members: {error.message}")


@dataclass(frozen=True)
class Combined:
    """The combined network, its normalization and its recipe.

    `kept` are the indices of the members in it, `choices` say how they were chosen.
    """

    net: Network
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    kept: tuple[int, ...]
    choices: tuple[Choice, ...] = ()


def average_probabilities(members: Sequence[LoadedRun]) -> Combined:
    """Build one network that averages the calibrated probabilities of the members."""
    table = EnsembleSettings(
        size=members[0].info.input_size,
        members=tuple(
            MemberSettings(
                name=member.recipe.model.name,
                options=member.recipe.model.options,
                mean=member.info.mean,
                std=member.info.std,
                temperature=member.info.temperature,
                curvature=member.info.curvature,
            )
            for member in members
        ),
    )
    first = members[0].recipe
    views = first.evaluate.model_copy(update={"tta": all(member.recipe.evaluate.tta for member in members)})
    recipe = first.model_copy(
        update={
            "name": "ensemble",
            "description": f"Averaged probabilities of {len(members)} runs; training settings of the first.",
            "model": ModelSettings(name=NAME, options=table.model_dump(mode="json")),
            "evaluate": views,
        }
    )
    return Combined(
        Ensemble([member.network for member in members], table),
        (0.0,) * 3,
        (1.0,) * 3,
        recipe,
        tuple(range(len(members))),
    )


def build_soup(
    members: Sequence[LoadedRun], parts: Parts, soup: Soup, hardware: Hardware, log: Callable[[str], None]
) -> Combined:
    """Build one network with the averaged weights of all members, or of those that improve validation accuracy."""
    builder = SoupBuilder(members, parts, hardware)
    if soup == "uniform":
        kept = tuple(range(len(members)))
        choices: tuple[Choice, ...] = ()
    else:
        kept, choices = _greedy(builder, members, parts.val, log)
    net = builder.average(kept)
    first = members[kept[0]]
    recipe = first.recipe.model_copy(
        update={
            "name": f"{soup}-soup",
            "description": f"Averaged weights of {len(kept)} of {len(members)} runs; other settings of the first.",
        }
    )
    return Combined(net, first.info.mean, first.info.std, recipe, kept, choices)


class SoupBuilder:
    """Averages weights of members; renews normalization statistics on training images; measures accuracy."""

    def __init__(self, members: Sequence[LoadedRun], parts: Parts, hardware: Hardware) -> None:
        self._members, self._hardware = members, hardware
        seed = members[0].recipe.data.split_seed
        self._train = covering_sample(parts.train, MEANS_FROM, seed)
        self._order = np.random.default_rng(seed).permutation(len(self._train))  # folders come class by class

    def average(self, indices: Sequence[int]) -> Network:
        """The averaged weights of these members; a single member is returned unchanged."""
        if len(indices) == 1:
            return self._members[indices[0]].network.to(self._hardware.device)
        net = copy.deepcopy(self._members[indices[0]].network)
        net.load_state_dict(averaged_weights([self._members[index].network.cpu().state_dict() for index in indices]))
        net.to(self._hardware.device)
        renew_statistics(net, self._batches())
        return net

    def accuracy(self, net: Network, images: ImageSet) -> float:
        """Accuracy of `net` on labeled images, a fraction."""
        info = self._members[0].info
        scorer = Scorer(net, info.mean, info.std, self._hardware.device)
        return float((scorer.logits(images.images).argmax(axis=1) == images.labels).mean())

    def _batches(self) -> Iterator[Tensor]:
        info = self._members[0].info
        size = scored_batch_size(self._train.images.shape[1])
        for part in even_batches(len(self._train), size):
            pixels = torch.from_numpy(self._train.images[self._order[part]])
            yield normalize(pixels.to(self._hardware.device), info.mean, info.std)


def _greedy(
    builder: SoupBuilder, members: Sequence[LoadedRun], val: ImageSet | None, log: Callable[[str], None]
) -> tuple[tuple[int, ...], tuple[Choice, ...]]:
    """Start with the most accurate member on validation; add each further one that does not lower the accuracy."""
    assert val is not None  # check_compatible has refused it
    alone = [builder.accuracy(builder.average([index]), val) for index in range(len(members))]
    order = sorted(range(len(members)), key=lambda index: -alone[index])
    kept, best = [order[0]], alone[order[0]]
    choices = [
        Choice(
            "soup",
            str(members[order[0]].directory.path),
            f"highest validation accuracy of a single run: {percent(best)}",
        )
    ]
    for index in order[1:]:
        found = builder.accuracy(builder.average([*kept, index]), val)
        better = found >= best
        reason = f"validation accuracy {percent(found)} with it, {percent(best)} without"
        choices.append(Choice("soup", f"{members[index].directory.path} {'added' if better else 'left out'}", reason))
        if better:
            kept, best = [*kept, index], found
    for choice in choices:
        log(f"{choice.what}: {choice.value} ({choice.reason})")
    if len(kept) == 1:
        log(
            "no other run improved validation accuracy, so the soup is that single run; averaging helps only where the "
            "runs start from the same weights, such as one pretrained network"
        )
    return tuple(kept), tuple(choices)
