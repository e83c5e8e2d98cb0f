"""The sections of the PDF report, in their order; a section without content is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from thirtytwo.config.augmentation import ImageSettings
from thirtytwo.config.recipe import Recipe
from thirtytwo.evaluation.calibration import LEAST_IMAGES, was_not_calibrated
from thirtytwo.evaluation.evaluators import Evaluator
from thirtytwo.evaluation.sections import Cell, Picked, Section, Table, table_of
from thirtytwo.report.facts import class_rows, confused_pairs, data_facts, machine_facts, metric_rows, network_facts
from thirtytwo.report.gallery import worst_errors
from thirtytwo.report.paper_blocks import Block, Material, bullets, code, facts, figure, gallery, heading, table, text
from thirtytwo.report.paper_words import Words
from thirtytwo.report.sections import members_table
from thirtytwo.text import abbreviate, duration, listing, percent, points, readable_names, shorten

MAX_LETTERS = 31
"""Letters of a class name that tables and captions show."""
MAX_FILE = 60
"""Letters of the name of a file that captions show."""
MAX_NAMED = 20
"""Maximum number of classes that are named in a sentence."""
MAX_EXAMPLES, MAX_ERRORS, MAX_ISSUES = 18, 12, 6
"""Maximum number of images of each kind."""
MAX_ROWS = 120
"""Maximum number of classes in the table; of more, those with the lowest F1 are listed."""
SINGLE = 24
"""Maximum number of classes of a table that is not split into two columns."""
SMALL_TEST = 1000
"""Number of test images below which the width of the interval is stated among the limits."""

_OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD", "muon": "Muon", "lion": "Lion"}
"""Names of optimizers as papers write them."""
_RESIZE = {"crop": "resize_crop", "pad": "resize_pad", "squash": "resize_squash"}
"""Keys of the words for `data.resize`."""


def sections(material: Material) -> list[Block]:
    """All blocks of the paper after its abstract."""
    makers = (_data, _method, _training, _results, _mistakes, _evaluations, _limits, _reproduction)
    return [block for maker in makers for block in maker(material)]


def _names(material: Material) -> dict[str, str]:
    """The shown name of each class."""
    classes = material.record.classes
    return dict(zip(classes, abbreviate(readable_names(classes), MAX_LETTERS), strict=True))


def _data(material: Material) -> list[Block]:
    record, words = material.record, material.words
    count = len(record.classes)
    known = {"dataset": record.dataset, "count": count}
    named = words("data.classes", **known, names=", ".join(_names(material).values()))
    groups = len(set(record.superclasses.values()))
    notes = [str(note) for note in record.data.get("skipped") or []]
    rows = [fact for fact in data_facts(record) if fact[0] != "Data"]
    return [
        heading(words("headings.data")),
        *text(
            (named if count <= MAX_NAMED else words("data.classes_many", **known)) if count else "",
            words("data.superclasses", count=groups) if groups else "",
            words("data.splits"),
        ),
        *text(words("data.notes", notes=listing(notes, 5, quoted=False, separator="; ")) if notes else ""),
        *([facts(rows, words("data.facts"))] if rows else []),
        *_examples(material),
    ]


def _examples(material: Material) -> list[Block]:
    """An image of each class, of classes at equal distances where there are many."""
    train = material.images.get("train")
    if train is None or not len(train):
        return []
    present = np.flatnonzero(train.counts)
    chosen = present[np.linspace(0, len(present) - 1, min(MAX_EXAMPLES, len(present))).round().astype(np.int64)]
    names = abbreviate(readable_names(train.classes), MAX_LETTERS)
    items = []
    for label in chosen.tolist():
        first = int(np.flatnonzero(train.labels == label)[0])
        items.append((material.add_image(np.asarray(train.images[first])), (names[label],)))
    many = {"shown": len(chosen), "count": len(train.classes)}
    caption = material.words("data.examples" if len(chosen) == len(train.classes) else "data.examples_some", **many)
    return [gallery(items, caption, columns=6 if len(items) <= 6 else 10 if len(items) <= 10 else 9)]


def _method(material: Material) -> list[Block]:
    record, words = material.record, material.words
    members = members_table(record)
    rows = network_facts(record) + ([] if members else _settings(record.recipe, words))
    return [
        heading(words("headings.method")),
        *text("" if members else record.recipe.description),
        facts(rows, words("method.facts")),
        *([] if members is None else [_members(members, words)]),
    ]


def _members(members: dict[str, Any], words: Words) -> Block:
    keys = ("member", "made_by", "accuracy", "parameters", "time")
    columns = tuple(words(f"method.column_{key}") for key in keys)
    rows = [
        (
            Cell(row["run"], row["left_out"]),
            Cell(row["made_by"]),
            Cell(row["accuracy"], row["interval"]),
            Cell(row["parameters"]),
            Cell(row["seconds"]),
        )
        for row in (*members["rows"], members["together"])
    ]
    caption = words("method.members_soup" if members["soup"] else "method.members")
    return table(Table(columns, tuple(rows)), caption, names=2, size=8.5)


def _settings(recipe: Recipe, words: Words) -> list[tuple[str, str]]:
    """How the network was trained, as (name, value)."""
    optimizer, schedule, train = recipe.optimizer, recipe.schedule, recipe.train
    kept = words("method.kept_best", monitor=train.monitor) if train.keep == "best" else words("method.kept_last")
    weights = train.class_weights if isinstance(train.class_weights, str) else "from the recipe"
    loss = {
        "smoothing": words("method.smoothing", value=f"{train.label_smoothing:g}") if train.label_smoothing else "",
        "weights": words("method.weights", value=weights) if weights != "none" else "",
    }
    steps = {"name": schedule.name, "epochs": schedule.epochs, "batch": schedule.batch_size * schedule.accumulate}
    rates = {
        "name": _OPTIMIZERS.get(optimizer.name, optimizer.name),
        "lr": f"{optimizer.lr:g}",
        "decay": f"{optimizer.weight_decay:g}",
    }
    values = {
        "trained": _trained_layers(recipe, words),
        "input": words(
            "method.input_value", side=recipe.data.image_size, resize=words(f"method.{_RESIZE[recipe.data.resize]}")
        ),
        "augmentation": ", ".join(_augmentations(recipe.augment)) or words("method.no_augmentation"),
        "optimizer": words("method.optimizer_value", **rates),
        "schedule": words("method.schedule_value", **steps),
        "loss": words("method.loss_value", **loss),
        "kept": kept + (words("method.ema", value=f"{train.ema:g}") if train.ema else ""),
    }
    if recipe.data.image_size == "auto":  # a run that ended before it was resolved
        del values["input"]
    return [(words(f"method.{key}"), value) for key, value in values.items() if value]


def _trained_layers(recipe: Recipe, words: Words) -> str:
    """Which layers were trained, and for how long; empty without pretrained weights."""
    settings, head, epochs = recipe.transfer, recipe.head_epochs, recipe.schedule.epochs
    if not settings.pretrained:
        return ""
    if head >= epochs:
        return words("method.trained_head")
    if isinstance(settings.unfreeze, float):
        layers = words("method.layers_share", share=f"{100 * settings.unfreeze:g}")
    elif settings.unfreeze == "all":
        layers = words("method.layers_all")
    else:
        layers = words("method.layers_from", layer=settings.unfreeze.removeprefix("body."))
    if not head:
        return (
            words("method.trained_all") if settings.unfreeze == "all" else words("method.trained_part", layers=layers)
        )
    return words("method.trained_stages", head=head, epochs=epochs, layers=layers)


def _augmentations(settings: ImageSettings) -> list[str]:
    """The augmentations that are on, with the values of their keys."""
    strengths = ("translate", "cutout", "rotate", "zoom", "shear", "brightness", "contrast", "saturation", "hue")
    found = [f"flip {settings.flip}"] if settings.flip != "none" else []
    found += [f"crop {'–'.join(f'{end:g}' for end in settings.crop)}"] if settings.crop else []
    for key in (*strengths, "erase", "mixup", "cutmix"):
        if value := getattr(settings, key, 0):
            found.append(f"{key} {value:g}")
    return [*found, *settings.policies]


def _training(material: Material) -> list[Block]:
    record, words = material.record, material.words
    if not record.history or "curves" not in material.figures:
        return []
    seconds = (record.environment.get("seconds") or {}).get("train")
    time = "" if seconds is None else words("training.time", duration=duration(seconds))
    epochs = len(record.history)
    ran = words("training.one", time=time) if epochs == 1 else words("training.epochs", epochs=epochs, time=time)
    last = next((row["val_accuracy"] for row in reversed(record.history) if "val_accuracy" in row), None)
    return [
        heading(words("headings.training")),
        *text(
            ran,
            "" if last is None else words("training.validation", accuracy=percent(last)),
        ),
        figure("curves", words("training.curves"), 0.75),
    ]


def _results(material: Material) -> list[Block]:
    record, words = material.record, material.words
    if record.metrics is None:
        return []
    split = words(f"splits.{record.split}")
    columns = tuple(words(f"results.column_{key}") for key in ("metric", "value", "interval", "meaning"))
    rows = [[row[key] for key in ("name", "value", "interval", "meaning")] for row in metric_rows(record.metrics)]
    metrics = Table(columns, tuple(tuple(map(Cell, row)) for row in rows), words=True)
    caption = words("results.metrics", n=f"{record.metrics['n']:,}", split=split)
    return [
        heading(words("headings.results")),
        *text(words("results.intervals")),
        table(metrics, caption, size=8.5, wide=1),
        *_classes(material, split),
        *_confusions(material, split),
    ]


def _classes(material: Material, split: str) -> list[Block]:
    words, names = material.words, _names(material)
    found = class_rows(material.record)
    single = len(found) <= SINGLE
    rows = []
    for row in found[: MAX_ROWS // 2 if len(found) > MAX_ROWS else MAX_ROWS]:
        scores = [Cell("–" if row[key] is None else percent(row[key])) for key in ("precision", "recall", "f1")]
        if single:
            scores[1] = Cell(scores[1].text, row["recall_interval"])
        rows.append((Cell(names[row["class"]]), Cell(f"{row['support']:,}"), *scores))
    columns = tuple(words(f"results.column_{key}") for key in ("class", "support", "precision", "recall", "f1"))
    kind = "classes" if single else "classes_split" if len(rows) == len(found) else "classes_lowest"
    caption = words(f"results.{kind}", split=split, shown=len(rows), count=len(found))
    layout: dict[str, Any] = {"size": 9.0} if single else {"parts": 2, "size": 7.5, "tight": 1.9}
    return [heading(words("headings.classes"), 2), table(Table(columns, tuple(rows)), caption, **layout)]


def _confusions(material: Material, split: str) -> list[Block]:
    words, names, count = material.words, _names(material), len(material.record.classes)
    pairs = confused_pairs(material.record)
    columns = tuple(words(f"results.column_{key}") for key in ("true", "predicted", "count", "share"))
    rows = [
        (Cell(names[pair["true"]]), Cell(names[pair["predicted"]]), Cell(f"{pair['count']:,}"), Cell(pair["share"]))
        for pair in pairs
    ]
    width = 0.38 if count <= 4 else 0.5 if count <= 12 else 0.8 if count <= 30 else 1.0
    drawn = "confusion" in material.figures
    return [
        heading(words("headings.confusions"), 2),
        *([figure("confusion", words("results.confusion", split=split), width)] if drawn else []),
        *(
            [table(Table(columns, tuple(rows)), words("results.pairs"), names=2)]
            if rows
            else text(words("results.no_pairs"))
        ),
    ]


def _mistakes(material: Material) -> list[Block]:
    record, words = material.record, material.words
    predictions = record.predictions
    if predictions is None:
        return []
    wrong, shown = int((~predictions.correct).sum()), worst_errors(predictions, MAX_ERRORS)
    split, count = words(f"splits.{record.split}"), len(predictions.truth)
    known = {"wrong": f"{wrong:,}", "n": f"{count:,}", "split": split, "shown": len(shown)}
    kind = "none" if not wrong else "one" if wrong == 1 else "all" if wrong == len(shown) else "lead"
    lead = words(f"mistakes.{kind}", **known)
    blocks = [heading(words("headings.mistakes")), *text(lead)]
    if not wrong:
        return blocks
    names, pixels = _names(material), material.pixels(record.split, shown)
    errors = [
        (
            names[predictions.classes[int(predictions.truth[place])]],
            names[predictions.classes[int(predictions.predicted[place])]],
            percent(float(predictions.confidence[place]), 1),
            shorten(predictions.name_of(place), MAX_FILE),
        )
        for place in shown.tolist()
    ]
    if pixels is None:
        columns = [words(f"mistakes.column_{key}") for key in ("file", "confidence")]
        columns[1:1] = [words(f"results.column_{key}") for key in ("true", "predicted")]
        rows = [(file, true, predicted, confidence) for true, predicted, confidence, file in errors]
        return [*blocks, table(table_of(columns, rows), words("mistakes.table"), names=3, size=8.5)]
    items = [
        (
            material.add_image(np.asarray(image)),
            (true, words("mistakes.predicted", predicted=predicted, confidence=confidence), file),
        )
        for image, (true, predicted, confidence, file) in zip(pixels, errors, strict=True)
    ]
    return [*blocks, gallery(items, words("mistakes.images"))]


def _evaluations(material: Material) -> list[Block]:
    """What each evaluator measured, as in the report."""
    return [block for evaluator, found in material.record.sections for block in _evaluation(material, evaluator, found)]


def _evaluation(material: Material, evaluator: Evaluator, found: Section) -> list[Block]:
    words, figures = material.words, material.figures
    reliability = figure("reliability", words("calibration.figure"), 0.75 if len(found.charts) > 1 else 0.45)
    return [
        heading(evaluator.title),
        *text(*found.sentences),
        *([reliability] if found.charts and "reliability" in figures else []),
        *([figure(evaluator.key, f"{evaluator.title}.", 1.0)] if found.figure and evaluator.key in figures else []),
        *(table(one, f"{one.title or evaluator.title}.", size=8.5) for one in found.tables if not one.folded),
        *text(*found.notes),
        *_picked(material, found.images[:MAX_ISSUES], evaluator.title),
    ]


def _picked(material: Material, wanted: Sequence[Picked], caption: str) -> list[Block]:
    """Images that an evaluator picked, those that are available."""
    items = []
    for one in wanted:
        pixels = material.pixels(one.split, np.array([one.position], dtype=np.int64))
        if pixels is not None:
            items.append((material.add_image(np.asarray(pixels[0])), (*one.lines, *one.notes)))
    return [gallery(items, f"{caption}.")] if items else []


def _limits(material: Material) -> list[Block]:
    record, words = material.record, material.words
    items = [words("limits.images"), words("limits.classes"), words("limits.labels")]
    if not record.environment.get("members"):
        items.insert(1, words("limits.seeds"))
    if record.metrics is not None:
        count, used = record.metrics["n"], int(record.metrics.get("test_evaluations") or 0)
        low, high = record.metrics["accuracy"]["ci95"]
        if count < SMALL_TEST:
            width = points(high - low, 1, signed=False)
            items.insert(0, words("limits.small", n=f"{count:,}", width=width))
        if record.split != "test":
            items.insert(0, words("limits.validation"))
        elif used > 1:
            items.insert(0, words("limits.evaluations", count=used))
    if was_not_calibrated((record.metrics or {}).get("calibration") or {}):
        items.append(words("limits.uncalibrated", least=LEAST_IMAGES))
    elif record.splits.get("train_on") == "all":
        items.append(words("limits.all"))
    return [heading(words("headings.limits")), bullets([*items, words("limits.automatic")])]


def _reproduction(material: Material) -> list[Block]:
    record, words = material.record, material.words
    combined = bool(record.environment.get("members"))
    machine, choices = machine_facts(record), record.environment.get("choices") or []
    columns = tuple(words(f"reproduction.column_{key}") for key in ("what", "value", "reason"))
    rows = [[str(choice[key]) for key in ("what", "value", "reason")] for choice in choices]
    chosen = Table(columns, tuple(tuple(map(Cell, row)) for row in rows), words=True)
    return [
        heading(words("headings.reproduction")),
        *text(words("reproduction.command_members" if combined else "reproduction.command")),
        code(record.command_with("recipe.toml")),
        *([facts(machine, words("reproduction.facts"))] if machine else []),
        *([table(chosen, words("reproduction.choices"), size=8.0, wide=2)] if rows else []),
        heading(words("headings.recipe"), 2),
        code(record.recipe_text.rstrip(), 6.2, columns=3),
    ]
