"""Parameters that stop training before the others: the bias of the whitening stem, and the first layers."""

from __future__ import annotations

from torch import nn

from thirtytwo.config.optimization import ScheduleSettings
from thirtytwo.errors import RecipeError
from thirtytwo.models.base import Network


def trained_until(net: Network, schedule: ScheduleSettings) -> dict[nn.Parameter, float]:
    """Fraction of all steps up to which each parameter that stops before the others is trained.

    Raises:
        RecipeError: the network has fewer layers than `schedule.freeze` names.
    """
    layers, parameters = net.layers(), dict(net.named_parameters())
    found = dict.fromkeys(net.parameter_groups().get("stem_bias", []), schedule.stem_bias_until)
    for stage in schedule.freeze:
        if stage.layers > len(layers):
            raise RecipeError(
                f"schedule.freeze names {stage.layers} layers, but the network has {len(layers)} before its head.",
                f"Write at most layers = {len(layers)}.",
            )
        for name in (name for layer in layers[: stage.layers] for name in layer):
            if (parameter := parameters[name]).requires_grad:  # the filters of a whitening stem are never trained
                found[parameter] = min(found.get(parameter, 1.0), stage.until)
    return found
