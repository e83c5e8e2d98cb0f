"""Learning-rate schedules, as factors on the peak learning rate."""

from __future__ import annotations

import math
from typing import Any

import lightning

from thirtytwo.config.optimization import ScheduleSettings

ONE_CYCLE_START = 1 / 25


def lr_factor(schedule: ScheduleSettings, role: str, step: int, total: int, until: float = 1.0) -> float:
    """Factor on the peak learning rate of the parameter group `role` in `step` of `total` steps.

    It rises during warm-up, then follows the schedule. The stem's bias falls to 0 at `stem_bias_until` and stays there.
    A group that is trained up to the fraction `until` of the steps only has the whole schedule within them, then 0.
    """
    if role == "stem_bias":
        progress = step / max(1, total)
        return max(0.0, 1 - progress / schedule.stem_bias_until) if schedule.stem_bias_until else 0.0
    if until < 1:
        if step >= until * total:
            return 0.0
        total = math.ceil(until * total)
    progress = step / max(1, total)
    if schedule.name == "one-cycle":
        return _one_cycle(schedule, step, total)
    if progress < schedule.warmup:
        return (step + 1) / (schedule.warmup * total + 1)
    if schedule.name == "step":
        passed = sum(progress >= milestone for milestone in schedule.milestones)
        return max(schedule.final, schedule.drop**passed)
    if schedule.name in ("constant", "plateau"):
        return 1.0
    left = (1 - progress) / (1 - schedule.warmup)
    if schedule.name == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return schedule.final + (1 - schedule.final) * left


def _one_cycle(schedule: ScheduleSettings, step: int, total: int) -> float:
    """Rise to 1 at the last step of the warm-up, fall to `final` at the last step, as torch's OneCycleLR."""
    peak, last = max(0.0, schedule.warmup * total - 1), max(1, total - 1)
    if step < peak:
        return _cosine(ONE_CYCLE_START, 1.0, step / peak)
    return _cosine(1.0, schedule.final, min(1.0, (step - peak) / max(last - peak, 1e-9)))


def _cosine(start: float, end: float, progress: float) -> float:
    """Interpolate from `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


class Plateau(lightning.Callback):
    """Reduces every learning rate when the monitored validation metric stops improving.

    Like torch's ReduceLROnPlateau with a threshold of 0, but on top of the schedule of steps, which allows a warm-up.
    The training module multiplies its learning rates by `scale`.
    """

    def __init__(self, schedule: ScheduleSettings, monitor: str) -> None:
        self.scale = 1.0
        self._schedule, self._monitor = schedule, monitor
        self._best: float | None = None
        self._checks_without_gain = 0

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "best": self._best, "looks": self._checks_without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.scale, self._best, self._checks_without_gain = (state_dict[key] for key in ("scale", "best", "looks"))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        change = self.update(float(trainer.callback_metrics[self._monitor]))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:  # the learning rate of the next step is set already
                group["lr"] *= change

    def update(self, value: float) -> float:
        """Record one value of the monitored metric; return the factor on the learning rates from here on."""
        sign = -1 if self._monitor == "val_loss" else 1
        if self._best is None or sign * value > sign * self._best:
            self._best, self._checks_without_gain = value, 0
            return 1.0
        self._checks_without_gain += 1
        if self._checks_without_gain < self._schedule.patience:
            return 1.0
        before, self._checks_without_gain = self.scale, 0
        self.scale = min(before, max(self._schedule.final, before * self._schedule.drop))
        return self.scale / before
