"""Scoring a finished run again, and writing its report again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thirtytwo.data.load import load_dataset
from thirtytwo.errors import DataError
from thirtytwo.fit.hardware import choose_hardware
from thirtytwo.judge.metrics import compute_metrics
from thirtytwo.judge.score import Scorer
from thirtytwo.pipeline.parts import pictures_of
from thirtytwo.pipeline.records import slug, teller, touch_test
from thirtytwo.pipeline.scoring import load_net, score
from thirtytwo.report.card import write_card
from thirtytwo.report.page import write_report
from thirtytwo.rundir import RunDir


def evaluate(
    run: Path | str,
    *,
    data: str | None = None,
    split: str = "test",
    tta: bool = False,
    device: str = "auto",
    data_root: Path | str | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a finished run again, on its own test or validation rows or on other `data` with the same class names.

    Its own test rewrites `metrics.json` and the report and counts one more touch of test; anything else writes its
    own `predictions-….parquet` and leaves `metrics.json` alone. Gives the content of a `metrics.json`.

    Raises:
        RunError: no such run, or not finished.
        DataError: the classes do not match, or there is no such split.
    """
    say = teller(show)
    directory = RunDir.open(Path(run))
    recipe = directory.read_recipe()
    environment = directory.read_json(directory.environment)
    hardware = choose_hardware(recipe.train, device)
    net, info = load_net(directory, recipe)
    spec = data or environment["data"]["spec"]
    root = Path(data_root) if data_root is not None else None
    dataset = load_dataset(
        spec, data_root=root, image_size=info.input_size, resize=info.resize, seed=recipe.data.split_seed
    )
    own = dataset.fingerprint == environment["data"]["fingerprint"]
    pictures = pictures_of(dataset, split, info, directory if own else None)
    say(f"scoring {len(pictures):,} pictures of {dataset.name} ({split})")
    scorer = Scorer(net.to(hardware.device), info.mean, info.std, hardware.device)
    single, averaged = score(scorer, pictures, info.temperature, recipe.evaluate.tta_shift if tta else None)
    name = split if own else f"{slug(spec)}-{split}"
    touches = touch_test(directory) if own and split == "test" else 0
    metrics = compute_metrics(
        single,
        dataset=dataset.name,
        split=split,
        superclasses=dataset.superclasses,
        tta=averaged,
        test_evaluations=touches or int(directory.read_json(directory.split)["test_evaluations"]),
    )
    directory.write_predictions(name, single)
    if own and split == "test":
        if averaged is None and directory.metrics.is_file():
            metrics["accuracy_tta"] = directory.read_json(directory.metrics).get("accuracy_tta")
        directory.write_json(directory.metrics, metrics)
        write_report(directory, pictures)
        write_card(directory)
    return metrics


def report(run: Path | str, *, data_root: Path | str | None = None) -> Path:
    """Write `report.html`, the figures and the model card of a run again; the path of the page.

    The pictures come from the run's data where it can still be read; without it the page says so.
    """
    directory = RunDir.open(Path(run))
    recipe = directory.read_recipe()
    pictures = None
    if directory.environment.is_file() and directory.predictions("test").is_file():
        info = directory.read_json(directory.environment)["data"]
        root = Path(data_root) if data_root is not None else None
        try:
            dataset = load_dataset(
                info["spec"],
                data_root=root,
                image_size=recipe.data.image_size,
                resize=recipe.data.resize,
                seed=recipe.data.split_seed,
            )
        except DataError:
            dataset = None
        if dataset is not None and dataset.fingerprint == info["fingerprint"]:
            pictures = dataset.test
    page = write_report(directory, pictures)
    write_card(directory)
    return page
