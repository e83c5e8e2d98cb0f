"""Members made into one network: by the mean of what they say, or the mean of their weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thirtytwo.config.recipe import ModelSettings, Recipe
from thirtytwo.data.batches import normalised
from thirtytwo.data.parts import Parts
from thirtytwo.data.split import limit
from thirtytwo.data.types import ImageSet
from thirtytwo.evaluation.scoring import SCORE_BATCH, Scorer
from thirtytwo.models import Net
from thirtytwo.models.ensemble import NAME, Ensemble, EnsembleSettings, MemberSettings
from thirtytwo.models.soup import averaged_weights, renew_statistics
from thirtytwo.training.hardware import Choice, Hardware
from thirtytwo.workflows.members import Given, Soup
from thirtytwo.workflows.scoring import MEANS_FROM


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


def averaged(given: Sequence[Given]) -> Mixed:
    """One network that says the mean of what the members say."""
    table = EnsembleSettings(
        size=given[0].info.input_size,
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
    return Mixed(Ensemble([one.net for one in given], table), (0.0,) * 3, (1.0,) * 3, recipe, tuple(range(len(given))))


def soup_of(given: Sequence[Given], parts: Parts, soup: Soup, hardware: Hardware, say: Callable[[str], None]) -> Mixed:
    """One network with the mean of the members' weights, of all or of those that help on validation."""
    pot = Pot(given, parts, hardware)
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


class Pot:
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
    pot: Pot, given: Sequence[Given], val: ImageSet | None, say: Callable[[str], None]
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
