"""What a run writes down of itself, and where it lies."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.config.recipe import Recipe, format_override
from thirtytwo.data.load import absolute
from thirtytwo.data.parts import Parts
from thirtytwo.data.run_data import PARTS
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.models import Net
from thirtytwo.rundir import RunDir
from thirtytwo.training.callbacks import tell
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import Hardware, describe_machine
from thirtytwo.training.usage import Meter

LIBRARIES = ("thirtytwo", "torch", "lightning", "timm", "numpy", "onnx", "onnxruntime", "scikit-learn", "pillow")


def record(
    dataset: DataSet,
    spec: str,
    parts: Parts,
    recipe_name: str | Path,
    changes: Mapping[str, Any],
    hardware: Hardware,
    started: datetime,
    path: str | None = None,
) -> dict[str, Any]:
    """Content of `environment.json` as far as it is known before training; `path` is where the data of `spec` is."""
    words = ["thirtytwo", "train", spec, "--recipe", str(recipe_name)]
    for key, value in changes.items():
        words += ["--set", format_override(key, value)]
    return {
        "command": shlex.join(words),
        "started": started.isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in LIBRARIES} | {"python": sys.version.split()[0]},
        "hardware": describe_machine(hardware.device),
        "device": hardware.device.type,
        "choices": [vars(choice) for choice in hardware.choices],
        "data": {
            "spec": spec,
            "path": path or absolute(spec),
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "classes": list(dataset.classes),
            "superclasses": dict(dataset.superclasses) if dataset.superclasses else None,
            "train": len(parts.train),
            "val": len(parts.val) if parts.val is not None else 0,
            "test": len(parts.test),
            "skipped": [*dataset.skipped, *parts.notes],
        },
        "interrupted": True,
    }


def ending(fitted: Fitted, image_size: int, parity: Mapping[str, Any], meter: Meter) -> dict[str, Any]:
    """What `environment.json` gains when the run has ended."""
    peak, how = meter.peak_memory
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {"train": round(fitted.seconds, 2), "total": round(meter.seconds, 2)},
        "sessions": meter.sessions,
        "epochs": fitted.epochs,
        "parameters": sum(parameter.numel() for parameter in fitted.net.parameters()),
        "flops": flops(fitted.net, image_size),
        "onnx_largest_difference": parity["probabilities"]["difference"],
        "onnx_parity": dict(parity),
        "peak_memory_mb": peak,
        "peak_memory_measured": how,
        "interrupted": False,
    }


def touch_test(run: RunDir) -> int:
    """Record one more look at test; how many there have been."""
    record = run.read_json(run.split)
    record["test_evaluations"] += 1
    run.write_json(run.split, record)
    return int(record["test_evaluations"])


def tell_start(
    say: Callable[[str], None], dataset: DataSet, parts: Parts, recipe: Recipe, hardware: Hardware, run: RunDir
) -> None:
    """Say what will be trained on what, and every automatic choice with its reason."""
    held = f"{len(parts.val):,} held out for validation" if parts.val is not None else "nothing held out"
    say(
        f"{dataset.name}: {len(dataset.classes)} classes, {len(parts.train):,} pictures to train on, {held}, "
        f"{len(parts.test):,} for test"
    )
    for note in parts.notes:
        say(f"left out {note}")
    for skipped in dataset.skipped[:10]:
        say(f"skipped {skipped}")
    if len(dataset.skipped) > 10:
        say(f"skipped {len(dataset.skipped) - 10:,} more files")
    say(f"recipe {recipe.name}, seed {recipe.seed}, {recipe.schedule.epochs} epochs; run directory {run.path}")
    for choice in hardware.choices:
        say(f"{choice.what}: {choice.value} ({choice.reason})")


def begun_as(run: RunDir, now: Mapping[str, Any]) -> dict[str, Any]:
    """What `environment.json` of a run that was stopped says of its beginning, where `now` says what it says today."""
    if not run.environment.is_file():
        return {}
    before = run.read_json(run.environment)
    first = {choice["what"]: choice for choice in before.get("choices") or ()}
    choices = [first.get("precision", choice) if choice["what"] == "precision" else choice for choice in now["choices"]]
    return {key: before[key] for key in ("command", "started") if key in before} | {"choices": choices}


def write_session(run: RunDir, meter: Meter) -> None:
    """Note in `environment.json` of a run that has not ended how many sessions it took so far, and how long."""
    if run.environment.is_file():
        noted = {"seconds": {"total": round(meter.seconds, 2)}, "sessions": meter.sessions}
        run.write_json(run.environment, run.read_json(run.environment) | noted)


def resume_meter(run: RunDir, meter: Meter) -> None:
    """Have `meter` go on from what the sessions before noted; the checkpoint may know more (`Meter`)."""
    if run.environment.is_file():
        before = run.read_json(run.environment)
        meter.resume(float((before.get("seconds") or {}).get("total") or 0.0), int(before.get("sessions", 1)))


def names_its_data(run: RunDir, data: str) -> bool:
    """Whether `data` is the run's data by its name or place."""
    if not run.environment.is_file():
        return False
    about = run.read_json(run.environment)["data"]
    if not about.get("path"):
        return bool(data == about["spec"])
    try:
        return bool(absolute(data) == about["path"])
    except ThirtytwoError:  # no such data: reading it tells more
        return False


def is_finished(run: RunDir) -> bool:
    """Whether a run has everything that training leaves behind."""
    return all(artefact.is_file() for artefact in (run.metrics, run.onnx, run.report))


def check_same(run: RunDir, recipe: Recipe, dataset: DataSet, spec: str, split: Mapping[str, Any]) -> None:
    """A resumed run must go on as it began; `spec` names the data now, and `split` is how it is divided.

    Raises:
        RunError: names the keys that differ, the other data, or that the same data was divided otherwise.
    """
    if run.environment.is_file():
        data = run.read_json(run.environment)["data"]
        if data["fingerprint"] != dataset.fingerprint:
            raise RunError(
                f"{run.path} was begun on other data: DATA (was {data['spec']!r} as it was then, now {spec!r}).",
                "Resume with the same data, or start anew with another --run.",
            )
    before, now = _flat(run.read_recipe().model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    differ = sorted(key for key in before | now if before.get(key) != now.get(key))
    if differ:
        told = ", ".join(f"{key} (was {before.get(key)!r}, now {now.get(key)!r})" for key in differ[:5])
        raise RunError(
            f"{run.path} was begun with another recipe: {told}.",
            "Resume without --recipe, --set, --seed, --epochs and --limit-train, or start anew with another --run.",
        )
    began = run.read_json(run.split) if run.split.is_file() else split
    if any(began.get(part, {}).get("hashes") != split[part]["hashes"] for part in PARTS):
        raise RunError(
            f"{run.path} was begun on another division of its data, or by a version that did not record it.",
            "Start anew with another --run.",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def default_path(data: str, recipe: str | Path, seed: int) -> Path:
    """Where a run lies when no place was named."""
    return Path("runs") / f"{slug(data)}-{slug(Path(recipe).stem)}-seed{seed}"


def slug(text: str) -> str:
    """The last part of a name or path, fit for a file name."""
    last = text.rstrip("/").rsplit("/", 1)[-1] or "data"
    if last in (".", ".."):  # a hidden or misleading name
        last = Path(text).resolve().name or "data"
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in last)


def flops(net: Net, size: int) -> int | None:
    """Floating-point operations of one picture's forward pass (a multiply-add counts as two)."""
    device = next(net.parameters()).device
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            net(torch.zeros((1, 3, size, size), device=device))
    except (RuntimeError, NotImplementedError):
        return None
    return int(counter.get_total_flops())


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "0+unknown"


def silent(text: str) -> None:
    """Say nothing."""


def teller(show: bool) -> Callable[[str], None]:
    """Where progress is told: standard error, or nowhere."""
    return tell if show else silent
