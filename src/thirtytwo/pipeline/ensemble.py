"""Trained runs as one: their averaged probabilities, or their averaged weights."""

from __future__ import annotations

import copy
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from thirtytwo.data.batches import normalised
from thirtytwo.data.imageset import DataSet, ImageSet
from thirtytwo.data.splits import limit
from thirtytwo.errors import DataError, RunError, ThirtytwoError
from thirtytwo.fit.hardware import Choice, Hardware, choose_hardware
from thirtytwo.fit.train import Fitted
from thirtytwo.judge.score import SCORE_BATCH, Scorer
from thirtytwo.models import Net
from thirtytwo.models.ensemble import NAME, Ensemble, EnsembleSettings, Member, MemberSettings
from thirtytwo.models.soup import averaged_weights, renew_statistics
from thirtytwo.pipeline.finish import Plan, Run, begin, judge, tell
from thirtytwo.pipeline.parts import Parts, dataset_of, divide
from thirtytwo.pipeline.records import fresh_path, record, slug, teller
from thirtytwo.pipeline.scoring import MEANS_FROM, load_net
from thirtytwo.predict.modelfile import ModelInfo
from thirtytwo.recipe import ModelSettings, Recipe, TrainSettings
from thirtytwo.report.compare import compare
from thirtytwo.report.members import COMPARISON
from thirtytwo.report.seeds import expanded_runs
from thirtytwo.rundir import RunDir

Soup = Literal["greedy", "uniform"]


@dataclass(frozen=True)
class Given:
    """A finished run that is to be a member."""

    run: RunDir
    recipe: Recipe
    net: Net
    info: ModelInfo
    environment: dict[str, Any]
    split: dict[str, Any]


@dataclass(frozen=True)
class Mixed:
    """What became of the members: one network and how it is told.

    `kept` are the places of the members in it, `choices` how they were chosen.
    """

    net: Net
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    kept: tuple[int, ...]
    choices: tuple[Choice, ...] = ()


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
    clock, started = time.perf_counter(), datetime.now(UTC)
    if run is not None:
        RunDir.refuse_used(Path(run))
    paths, notices = expanded_runs([runs] if isinstance(runs, str | Path) else runs)
    if len(paths) < 2:
        raise DataError(f"An ensemble needs at least 2 runs; found {len(paths)}.", "Name another run.")
    for notice in notices:
        say(notice)
    given = [_opened(path) for path in paths]
    check_alike(given, soup)
    root = Path(data_root) if data_root is not None else None
    dataset, parts = _pictures(given[0], root)
    hardware = choose_hardware(TrainSettings(precision="float32"), device)
    say(f"{len(given)} runs on {dataset.name}: {'averaging weights' if soup else 'averaging probabilities'}")
    mixed = _soup(given, parts, soup, hardware, say) if soup else _averaged(given)
    plan = _plan(given, mixed, soup, dataset, parts, hardware, root, started)
    kind = "soup" if soup else "ensemble"
    directory = begin(
        plan, RunDir.create(Path(run) if run is not None else fresh_path(Path("runs") / f"{slug(plan.spec)}-{kind}"))
    )
    seconds = sum(float(given[at].environment["seconds"]["train"]) for at in mixed.kept)
    epochs = sum(int(given[at].environment["epochs"]) for at in mixed.kept)
    fitted = Fitted(mixed.net.eval().to(hardware.device), mixed.mean, mixed.std, epochs, seconds)
    metrics = judge(plan, fitted, directory, say, clock)
    _compared(directory, paths, root, say)
    _warned(directory, paths, say)
    tell(plan, directory)
    return Run(directory.path, metrics)


def _opened(path: Path) -> Given:
    run = RunDir.open(path)
    net, info = load_net(run)
    return Given(run, run.read_recipe(), net, info, run.read_json(run.environment), run.read_json(run.split))


def check_alike(given: Sequence[Given], soup: Soup | None) -> None:
    """Look whether runs can be put together.

    Raises:
        RunError: names the two that cannot, and why.
    """
    first = given[0]
    for other in given[1:]:
        pair = f"{first.run.path} and {other.run.path}"
        if first.environment["data"]["fingerprint"] != other.environment["data"]["fingerprint"]:
            names = f"{first.environment['data']['spec']} and {other.environment['data']['spec']}"
            raise RunError(f"{pair} were trained on different data: {names}.", "Put together runs on the same data.")
        for what in ("input_size", "resize"):
            ours, theirs = getattr(first.info, what), getattr(other.info, what)
            if ours != theirs:
                key = "data.image_size" if what == "input_size" else "data.resize"
                raise RunError(
                    f"{pair} see pictures differently: {key} is {ours} and {theirs}.",
                    f"Train them with the same {key}.",
                )
        if first.split["val_rows"] != other.split["val_rows"]:
            raise RunError(
                f"{pair} held out different pictures for validation: one was trained on what would judge the other.",
                "Train them with the same data.split_seed, data.val_fraction, data.train_on and data.limit_train.",
            )
        if soup is None:
            continue
        if first.recipe.model != other.recipe.model:
            raise RunError(
                f"{pair} have different networks, so their weights cannot be averaged: {_network(first)} "
                f"and {_network(other)}.",
                "Leave out --soup to average what they say.",
            )
        if (first.info.mean, first.info.std) != (other.info.mean, other.info.std):
            raise RunError(
                f"{pair} normalise pictures differently, so their weights do not mean the same.",
                "Leave out --soup to average what they say.",
            )
    if soup == "greedy" and not first.split["n_val"]:
        raise RunError(
            f"{first.run.path} held nothing out, and a greedy soup is chosen on validation.",
            "Take --soup uniform, which chooses nothing.",
        )


def _network(one: Given) -> str:
    options = ", ".join(f"{key} {value!r}" for key, value in one.recipe.model.options.items())
    return one.recipe.model.name + (f" ({options})" if options else "")


def _pictures(first: Given, root: Path | None) -> tuple[DataSet, Parts]:
    """The members' data as they had it.

    Raises:
        DataError: it is not there, or has changed since.
    """
    spec = first.environment["data"]["spec"]
    dataset = dataset_of(spec, first.info, first.recipe, root)
    if dataset.fingerprint != first.environment["data"]["fingerprint"]:
        raise DataError(f"{spec} has changed since {first.run.path} was trained on it.", "Train the runs again.")
    return dataset, divide(dataset, first.recipe)


def _averaged(given: Sequence[Given]) -> Mixed:
    """One network that says the mean of what the members say."""
    size = given[0].info.input_size
    members = [Member(one.net, one.info.mean, one.info.std, one.info.temperature, one.info.curvature) for one in given]
    table = EnsembleSettings(
        size=size,
        members=tuple(
            MemberSettings(
                name=one.recipe.model.name,
                options=one.recipe.model.options,
                mean=one.info.mean,
                std=one.info.std,
                temperature=one.info.temperature,
                curvature=one.info.curvature,
            )
            for one in given
        ),
    )
    first = given[0].recipe
    views = first.evaluate.model_copy(update={"tta": all(one.recipe.evaluate.tta for one in given)})
    recipe = first.model_copy(
        update={
            "name": "ensemble",
            "description": f"The mean of what {len(given)} runs say; settings of training are the first one's.",
            "model": ModelSettings(name=NAME, options=table.model_dump(mode="json")),
            "evaluate": views,
        }
    )
    return Mixed(Ensemble(members, size), (0.0,) * 3, (1.0,) * 3, recipe, tuple(range(len(given))))


def _soup(given: Sequence[Given], parts: Parts, soup: Soup, hardware: Hardware, say: Callable[[str], None]) -> Mixed:
    """One network with the mean of the members' weights, of all or of those that help on validation."""
    pot = _Pot(given, parts, hardware)
    if soup == "uniform":
        kept = tuple(range(len(given)))
        choices: tuple[Choice, ...] = ()
    else:
        kept, choices = _greedy(pot, given, parts.val, say)
    net = pot.mixed(kept)
    first = given[kept[0]]
    recipe = first.recipe.model_copy(
        update={
            "name": f"{soup}-soup",
            "description": f"The mean weights of {len(kept)} of {len(given)} runs; the other settings are one run's.",
        }
    )
    return Mixed(net, first.info.mean, first.info.std, recipe, kept, choices)


class _Pot:
    """Members' weights, and the pictures by which soups of them are finished and tried."""

    def __init__(self, given: Sequence[Given], parts: Parts, hardware: Hardware) -> None:
        self._given, self._hardware = given, hardware
        seed = given[0].recipe.data.split_seed
        self._train = limit(parts.train, MEANS_FROM, seed) if len(parts.train) > MEANS_FROM else parts.train

    def mixed(self, places: Sequence[int]) -> Net:
        """The mean of these members; of one, that member as it is."""
        if len(places) == 1:
            return self._given[places[0]].net.to(self._hardware.device)
        net = copy.deepcopy(self._given[places[0]].net)
        net.load_state_dict(averaged_weights([self._given[place].net.cpu().state_dict() for place in places]))
        net.to(self._hardware.device)
        renew_statistics(net, self._batches())
        return net

    def accuracy(self, net: Net, pictures: ImageSet) -> float:
        """The part of labelled pictures that `net` calls right."""
        info = self._given[0].info
        scorer = Scorer(net, info.mean, info.std, self._hardware.device)
        return float((scorer.logits(pictures.images).argmax(axis=1) == pictures.labels).mean())

    def _batches(self) -> Iterator[Tensor]:
        info = self._given[0].info
        for start in range(0, len(self._train), SCORE_BATCH):
            pixels = torch.from_numpy(self._train.images[start : start + SCORE_BATCH].copy())
            yield normalised(pixels.to(self._hardware.device), info.mean, info.std)


def _greedy(
    pot: _Pot, given: Sequence[Given], val: ImageSet | None, say: Callable[[str], None]
) -> tuple[tuple[int, ...], tuple[Choice, ...]]:
    """The best member on validation, then each in turn with which the mean is no worse there."""
    assert val is not None  # check_alike has looked
    alone = [pot.accuracy(pot.mixed([place]), val) for place in range(len(given))]
    order = sorted(range(len(given)), key=lambda place: -alone[place])
    kept, best = [order[0]], alone[order[0]]
    choices = [Choice("soup", str(given[order[0]].run.path), f"alone the best on validation: {100 * best:.2f} %")]
    for place in order[1:]:
        found = pot.accuracy(pot.mixed([*kept, place]), val)
        better = found >= best
        said = f"{100 * found:.2f} % on validation with it, {100 * best:.2f} % without"
        choices.append(Choice("soup", f"{given[place].run.path} {'added' if better else 'left out'}", said))
        if better:
            kept, best = [*kept, place], found
    for choice in choices:
        say(f"{choice.what}: {choice.value} ({choice.reason})")
    if len(kept) == 1:
        say(
            "no other run's weights helped, so the soup is that run alone: weights mean something together only where "
            "they come from the same start, such as one pretrained network"
        )
    return tuple(kept), tuple(choices)


def _plan(
    given: Sequence[Given],
    mixed: Mixed,
    soup: Soup | None,
    dataset: DataSet,
    parts: Parts,
    hardware: Hardware,
    root: Path | None,
    started: datetime,
) -> Plan:
    spec = given[0].environment["data"]["spec"]
    chosen = replace(hardware, choices=mixed.choices)
    words = ["thirtytwo", "ensemble", *(str(one.run.path) for one in given), *(["--soup", soup] if soup else [])]
    written = record(dataset, spec, parts, mixed.recipe.name, {}, chosen, started)
    written |= {
        "command": shlex.join(words),
        "members": [_told(one, place in mixed.kept) for place, one in enumerate(given)],
    }
    if parts.val is None:
        nothing = Choice("calibration", "none", "the members held nothing out that it could be fitted on")
        written["choices"] = [*written["choices"], vars(nothing)]
    return Plan(spec, dataset, parts, mixed.recipe, chosen, None, written, root)


def _told(one: Given, kept: bool) -> dict[str, Any]:
    """What the ensemble's `environment.json` says of a member."""
    metrics = one.run.read_json(one.run.metrics) if one.run.metrics.is_file() else {}
    environment = one.environment
    return {
        "run": os.fspath(one.run.path),
        "recipe": one.recipe.name,
        "seed": one.recipe.seed,
        "network": one.info.architecture,
        "in_it": kept,
        "accuracy": metrics.get("accuracy") if metrics.get("split") == "test" else None,
        "parameters": environment.get("parameters"),
        "flops": environment.get("flops"),
        "seconds_train": environment["seconds"]["train"],
    }


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
