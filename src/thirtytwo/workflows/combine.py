"""Combine members into one network: by averaging their probabilities, or their weights."""

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
from thirtytwo.workflows.members import Member, Soup
from thirtytwo.workflows.scoring import MEANS_FROM


@dataclass(frozen=True)
class Combined:
    """The combined network, its normalization and its recipe.

    `kept` are the indices of the members in it, `choices` say how they were chosen.
    """

    net: Net
    mean: tuple[float, ...]
    std: tuple[float, ...]
    recipe: Recipe
    kept: tuple[int, ...]
    choices: tuple[Choice, ...] = ()


def average_probabilities(members: Sequence[Member]) -> Combined:
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
        Ensemble([member.net for member in members], table), (0.0,) * 3, (1.0,) * 3, recipe, tuple(range(len(members)))
    )


def build_soup(
    members: Sequence[Member], parts: Parts, soup: Soup, hardware: Hardware, log: Callable[[str], None]
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

    def __init__(self, members: Sequence[Member], parts: Parts, hardware: Hardware) -> None:
        self._members, self._hardware = members, hardware
        seed = members[0].recipe.data.split_seed
        self._train = limit(parts.train, MEANS_FROM, seed) if len(parts.train) > MEANS_FROM else parts.train

    def average(self, indices: Sequence[int]) -> Net:
        """The averaged weights of these members; a single member is returned unchanged."""
        if len(indices) == 1:
            return self._members[indices[0]].net.to(self._hardware.device)
        net = copy.deepcopy(self._members[indices[0]].net)
        net.load_state_dict(averaged_weights([self._members[index].net.cpu().state_dict() for index in indices]))
        net.to(self._hardware.device)
        renew_statistics(net, self._batches())
        return net

    def accuracy(self, net: Net, images: ImageSet) -> float:
        """Accuracy of `net` on labeled images, a fraction."""
        info = self._members[0].info
        scorer = Scorer(net, info.mean, info.std, self._hardware.device)
        return float((scorer.logits(images.images).argmax(axis=1) == images.labels).mean())

    def _batches(self) -> Iterator[Tensor]:
        info = self._members[0].info
        for start in range(0, len(self._train), SCORE_BATCH):
            pixels = torch.from_numpy(self._train.images[start : start + SCORE_BATCH].copy())
            yield normalised(pixels.to(self._hardware.device), info.mean, info.std)


def _greedy(
    builder: SoupBuilder, members: Sequence[Member], val: ImageSet | None, log: Callable[[str], None]
) -> tuple[tuple[int, ...], tuple[Choice, ...]]:
    """Start with the most accurate member on validation; add each further one that does not lower the accuracy."""
    assert val is not None  # check_compatible has refused it
    alone = [builder.accuracy(builder.average([index]), val) for index in range(len(members))]
    order = sorted(range(len(members)), key=lambda index: -alone[index])
    kept, best = [order[0]], alone[order[0]]
    choices = [
        Choice(
            "soup", str(members[order[0]].run.path), f"highest validation accuracy of a single run: {100 * best:.2f} %"
        )
    ]
    for index in order[1:]:
        found = builder.accuracy(builder.average([*kept, index]), val)
        better = found >= best
        reason = f"validation accuracy {100 * found:.2f} % with it, {100 * best:.2f} % without"
        choices.append(Choice("soup", f"{members[index].run.path} {'added' if better else 'left out'}", reason))
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
