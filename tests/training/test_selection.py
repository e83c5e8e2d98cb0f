"""Training on the images with the highest loss."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from thirtytwo.config.recipe import SelectionSettings
from thirtytwo.training import batches as module
from thirtytwo.training.batches import Batches, Selection
from thirtytwo.training.fit import Fitted

COUNT = 100


def selection(**changes: Any) -> Selection:
    """Losses of image i: i, so that the last images are the hardest."""
    made = Selection(
        SelectionSettings(**{"share": 0.5, "random": 0.2, "start": 1, **changes}), COUNT, torch.device("cpu")
    )
    made.record(torch.arange(COUNT), torch.arange(COUNT).float())
    return made


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_the_first_epochs_use_every_image_once() -> None:
    chosen = selection(start=2)
    for epoch in (0, 1):
        assert sorted(chosen.order(epoch, generator()).tolist()) == list(range(COUNT))
    assert len(set(chosen.order(2, generator()).tolist())) < COUNT


def test_the_hardest_and_some_others_fill_the_epoch() -> None:
    order = selection().order(1, generator()).tolist()
    assert len(order) == COUNT
    assert order[:50] != sorted(order[:50]), "the order is random"
    assert sorted(order[:50]) == sorted(order[50:]), "each chosen image comes up twice"
    chosen = set(order)
    assert len(chosen) == 50
    assert set(range(60, 100)) <= chosen, "the 40 with the highest loss"
    others = chosen - set(range(60, 100))
    assert len(others) == 10
    assert max(others) < 60
    assert others != chosen_others(2), "others are drawn anew"


def chosen_others(seed: int) -> set[int]:
    order = selection().order(1, torch.Generator().manual_seed(seed)).tolist()
    return set(order) - set(range(60, 100))


def test_images_without_a_loss_come_first() -> None:
    fresh = Selection(SelectionSettings(share=0.5, random=0.0), COUNT, torch.device("cpu"))
    fresh.record(torch.arange(60), torch.full((60,), 9.0))
    assert set(range(60, 100)) <= set(fresh.order(1, generator()).tolist())


def test_share_of_one_image() -> None:
    order = selection(share=0.001, random=0.0).order(1, generator())
    assert order.tolist() == [COUNT - 1] * COUNT


def test_batches_name_their_images() -> None:
    batches = Batches(COUNT, 8, 0, lambda positions, epoch, step: (positions, positions))
    assert all(torch.equal(positions, batches.positions) for positions, _ in batches)


def test_training_records_the_loss_of_each_image(
    train: Callable[..., Fitted], tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Selection] = []

    class Kept(Selection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(module, "Selection", Kept)
    recipe = tiny.recipe(train__selection__share=0.5, schedule__epochs=3, schedule__batch_size=8)
    train("run", recipe)
    losses = made[0].state_dict()["losses"]
    assert torch.isfinite(losses).all()
    assert len(losses.unique()) > 40, "an image each"
