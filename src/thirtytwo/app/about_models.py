"""What a model suits, in plain words, and its technical details."""

from __future__ import annotations

from thirtytwo.app.library import BUNDLED, Entry, info_of
from thirtytwo.evaluation.calibration import is_calibrated
from thirtytwo.inference.model_file import ModelInfo
from thirtytwo.text import as_markdown, percent

_HUNDRED = "fruit, flowers, animals, vehicles, furniture and people among them"
_TEN = "planes, cars, birds, cats, deer, dogs, frogs, horses, ships and trucks"
_OTHERS = "It marks many images of other things as unknown; things that resemble one of these are mostly not noticed."
_SUITS = {
    "imagenet": "Suits photographs of everyday things and animals; it names no people. Its percentages are rough: "
    "it says “not sure” where no class has 50\u00a0%, but never “unknown”.",
    "cifar100": f"Suits photographs of 100 common things, {_HUNDRED}. {_OTHERS}",
    "cifar10": f"Suits photographs of {_TEN}. {_OTHERS}",
    "cifar100-tiny": f"A small model for images of 32 pixels and for web pages: 100 common things, {_HUNDRED}.",
    "cifar10-tiny": f"A small model for images of 32 pixels and for web pages: {_TEN}.",
}
_STATED = {
    "imagenet": (0.774, "by the authors of its weights, on ImageNet’s validation images; it was not measured here")
}
_EXAMPLES = {
    "imagenet": (
        *("banana", "espresso", "teapot", "laptop", "backpack", "running shoe", "sunglasses", "mountain bike"),
        *("tabby", "golden retriever", "ladybug", "castle"),
    ),
}
_DATASETS = {"imagenet-1k": "ImageNet", "cifar100": "CIFAR-100", "cifar10": "CIFAR-10"}
_NETWORKS = {"zero_shot": "network with a text encoder (zero_shot)"}
_SCORES = {
    "class_mean": "by the similarity of their features to the nearest class mean (class_mean)",
    "network": "by the log odds of the most probable class (network)",
    "max_logit": "by the largest logit (max_logit)",
}
_RULES = {
    "crop": "the central square, without the ends of the longer side",
    "pad": "the whole image with black borders",
    "squash": "the whole image, squeezed into a square",
}


def dataset_name(name: str) -> str:
    """The name of a data set as people write it."""
    return _DATASETS.get(name, name)


def suits(entry: Entry) -> str:
    """What a bundled model suits, as sentences; empty for other models."""
    return _SUITS.get(entry.path.stem, "") if entry.origin == BUNDLED else ""


def uncalibrated_note(info: ModelInfo) -> str:
    """What a model without calibration does not tell, as sentences; empty for others."""
    if is_calibrated(info):
        return ""
    return "Its percentages are not calibrated: they may be much too high or too low, and no image is marked unknown."


def about(entry: Entry) -> str:
    """What a model suits, or what it does not tell, as sentences; may be empty.

    Raises:
        ModelFileError: its file is gone or damaged.
    """
    return suits(entry) or uncalibrated_note(info_of(entry))


def stated_accuracy(entry: Entry) -> tuple[str, str]:
    """The accuracy that others state of a bundled model, and who; empty texts for other models."""
    if entry.origin != BUNDLED or entry.path.stem not in _STATED:
        return "", ""
    value, who = _STATED[entry.path.stem]
    return percent(value), f"stated {who}"


def examples(entry: Entry) -> tuple[str, ...]:
    """Some classes of a bundled model that people know; empty for other models."""
    return _EXAMPLES.get(entry.path.stem, ()) if entry.origin == BUNDLED else ()


def technical_details(info: ModelInfo) -> str:
    """The technical details of a model, as a list in Markdown."""
    calibrated = f"calibrated with temperature {info.temperature:.2f}" if is_calibrated(info) else "not calibrated"
    unknown = "not marked" if info.unknown_threshold is None else f"marked {_SCORES[info.unknown_score]}"
    rows = {
        "Input": f"{info.input_size}×{info.input_size} pixels, {_RULES[info.resize]} ({info.resize})",
        "Network": _NETWORKS.get(info.architecture, info.architecture),
        "Trained on": info.dataset,
        "Probabilities": calibrated,
        "Unknown images": unknown,
        "Made by": f"thirtytwo {info.version}",
    }
    return "\n".join(f"- {name}: {as_markdown(value)}" for name, value in rows.items())
