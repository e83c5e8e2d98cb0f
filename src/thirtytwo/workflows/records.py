"""Records of a run: environment, sessions, test evaluations, and log lines."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from thirtytwo.config.recipe import Recipe
from thirtytwo.config.resolve import flatten, format_override
from thirtytwo.data.load import absolute
from thirtytwo.data.run_data import PARTS, changes_since
from thirtytwo.data.split import Parts
from thirtytwo.data.types import DataSet
from thirtytwo.errors import RunError, ThirtytwoError
from thirtytwo.evaluation.evaluators import evaluators
from thirtytwo.evaluation.ood import requested_data
from thirtytwo.machine import package_version
from thirtytwo.models import Network
from thirtytwo.rundir import RunDir
from thirtytwo.text import counted
from thirtytwo.training.callbacks import log_line
from thirtytwo.training.fit import Fitted
from thirtytwo.training.hardware import Hardware, UsageMeter, describe_machine
from thirtytwo.training.processes import current

LIBRARIES = ("thirtytwo", "torch", "lightning", "timm", "numpy", "onnx", "onnxruntime", "scikit-learn", "pillow")


def record(
    dataset: DataSet,
    spec: str,
    parts: Parts,
    recipe_name: str | Path | None,
    changes: Mapping[str, Any],
    hardware: Hardware,
    started: datetime,
    path: str | None = None,
) -> dict[str, Any]:
    """The content of `environment.json` that is known before training.

    `recipe_name` is None where the data chose the recipe; `path` is where the data of `spec` is.
    """
    words = ["thirtytwo", "train", spec, *([] if recipe_name is None else ["--recipe", str(recipe_name)])]
    for key, value in changes.items():
        words += ["--set", format_override(key, value)]
    words += current().options
    return {
        "command": shlex.join(words),
        "started": started.isoformat(timespec="seconds"),
        "versions": {name: package_version(name) for name in LIBRARIES} | {"python": sys.version.split()[0]},
        "hardware": describe_machine(hardware.device),
        "device": hardware.device.type,
        "processes": current().record(),
        "session_threads": [hardware.threads],
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
            "fixes": dict(dataset.fixes) or None,
        },
        "interrupted": True,
    }


def final_record(fitted: Fitted, image_size: int, parity: Mapping[str, Any], meter: UsageMeter) -> dict[str, Any]:
    """The entries that a finished run adds to `environment.json`."""
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


def count_test_evaluation(run: RunDir) -> int:
    """Count one more test evaluation in `split.json`; returns the new count."""
    return _write_test_evaluations(run, run.read_json(run.split)["test_evaluations"] + 1)


def count_final_evaluation(run: RunDir) -> int:
    """Count the test evaluation that ends a training in `split.json`; returns the new count.

    It counts once, however often it is repeated after an interruption: with the same weights on the same images.
    Where `split.json` was lost and written again, the count in `metrics.json` holds.
    """
    counts = run.read_json(run.split)["test_evaluations"], read_earlier_metrics(run).get("test_evaluations") or 0
    return _write_test_evaluations(run, max(1, *counts))


def read_earlier_metrics(run: RunDir) -> dict[str, Any]:
    """The metrics of a run that is finished again; empty where there are none, or where they are damaged."""
    try:
        return dict(run.read_json(run.metrics)) if run.metrics.is_file() else {}
    except RunError:
        return {}


def added_entries(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `metrics.json` that an evaluation writes where it is asked to, and keeps otherwise."""
    keys = ["accuracy_tta", *(one.key for one in evaluators() if one.options and one.store == "metrics")]
    return {key: metrics[key] for key in keys if metrics.get(key)}


def on_the_same_images(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether both are metrics of all of the run's test images, so that entries of one hold for the other."""
    missing = [(metrics.get("changed") or {}).get("missing", 0) for metrics in (before, now)]
    return before.get("n") == now["n"] and not any(missing)


SAME_LOSS = 1e-4
"""Largest relative difference of the loss of the same weights, computed twice."""


def restored_entries(
    run: RunDir, before: Mapping[str, Any], now: Mapping[str, Any], log: Callable[[str], None]
) -> dict[str, Any]:
    """Entries that evaluations had added to `before`, the metrics of a run that is finished again, as `now`.

    They hold where both are of the same weights on the same images; otherwise they are left out, and `log` says how to
    measure them again.
    """
    added = added_entries(before)
    if on_the_same_images(before, now) and all(
        math.isclose(before[key]["value"], now[key]["value"], rel_tol=SAME_LOSS) for key in ("accuracy", "nll")
    ):
        return added
    words = _options_of(added)
    if words:
        again = shlex.join(["thirtytwo", "evaluate", str(run.path), *words])
        log(f"{run.metrics} held results of other weights or images, which are left out; measure them with: {again}")
    return {}


def _options_of(added: Mapping[str, Any]) -> list[str]:
    """The options of `thirtytwo evaluate` that measure these entries, beyond what training measures."""
    words = ["--coverage", str(added["conformal"]["coverage"])] if "conformal" in added else []
    for row in (added.get("unknown") or {}).get("against") or ():
        if spec := requested_data(row):
            words += ["--ood", spec]
    return words


def _write_test_evaluations(run: RunDir, count: int) -> int:
    run.write_json(run.split, run.read_json(run.split) | {"test_evaluations": count})
    return count


def log_start(
    log: Callable[[str], None], dataset: DataSet, parts: Parts, recipe: Recipe, hardware: Hardware, run: RunDir
) -> None:
    """Log the data, the recipe, and every automatic choice with its reason."""
    validation = f"{len(parts.val):,} for validation" if parts.val is not None else "none for validation"
    log(
        f"{dataset.name}: {len(dataset.classes)} classes, {len(parts.train):,} images for training, {validation}, "
        f"{len(parts.test):,} for test"
    )
    for note in (*parts.notes, *dataset.skipped[:10]):
        log(note)
    if len(dataset.skipped) > 10:
        log(f"{len(dataset.skipped) - 10:,} more notes on the data are in {run.environment}")
    epochs = counted(recipe.schedule.epochs, "epoch")
    log(f"recipe {recipe.name}, seed {recipe.seed}, {epochs}; run directory {run.path}")
    for choice in hardware.choices:
        log(f"{choice.what}: {choice.value} ({choice.reason})")


def first_session_record(run: RunDir, now: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of an interrupted run's `environment.json` to keep on resume; `now` is the record of this session."""
    if not run.environment.is_file():
        return {}
    before = run.read_json(run.environment)
    first = {choice["what"]: choice for choice in before.get("choices") or ()}
    choices = [first.get("precision", choice) if choice["what"] == "precision" else choice for choice in now["choices"]]
    if "recipe" in first:  # chosen by the data when the run was started
        choices.append(first["recipe"])
    kept = {key: before[key] for key in ("command", "started") if key in before}
    return kept | {"choices": choices, "session_threads": [*_session_threads(before), *now.get("session_threads", ())]}


def _session_threads(environment: Mapping[str, Any]) -> list[int]:
    """The number of CPU threads of each session of a run, from `environment.json`."""
    threads = environment.get("session_threads")
    if threads is None:  # written by an earlier version
        chosen = [choice["value"] for choice in environment.get("choices") or () if choice["what"] == "threads"]
        threads = [int(value) for value in chosen if value.isdigit()]
    return list(threads)


def session_changes(run: RunDir, now: Mapping[str, Any]) -> list[str]:
    """Sentences on what a resumed session computes with that can change the weights, compared with earlier sessions.

    `now` is the record of this session.
    """
    if not (run.environment.is_file() and any(run.checkpoints.glob("last.ckpt"))):
        return []
    before, threads = run.read_json(run.environment), now["session_threads"][-1]
    earlier = _session_threads(before)
    found = [
        (what, was, is_now)
        for what, was, is_now in (
            ("CPU threads", earlier[-1] if earlier else None, threads),
            ("the device", before.get("device"), now["device"]),
            ("processes", *((one.get("processes") or {"world_size": 1})["world_size"] for one in (before, now))),
            ("PyTorch", (before.get("versions") or {}).get("torch"), now["versions"]["torch"]),
        )
        if was is not None and was != is_now
    ]
    fix = f"; to continue with as many, set OMP_NUM_THREADS={earlier[-1]}" if earlier and earlier[-1] != threads else ""
    listed = ", ".join(f"{what} (was {was}, now {is_now})" for what, was, is_now in found)
    return [f"warning: weights can differ from those of uninterrupted training: {listed}{fix}"] if found else []


def write_session(run: RunDir, meter: UsageMeter, threads: Sequence[int] = ()) -> None:
    """Record in `environment.json` of an unfinished run the number of sessions so far and their total seconds.

    `threads` are the numbers of CPU threads of the sessions.
    """
    if run.environment.is_file():
        usage: dict[str, Any] = {"seconds": {"total": round(meter.seconds, 2)}, "sessions": meter.sessions}
        usage |= {"session_threads": list(threads)} if threads else {}
        run.write_json(run.environment, run.read_json(run.environment) | usage)


def resume_usage(run: RunDir, meter: UsageMeter) -> None:
    """Add the recorded usage of earlier sessions to `meter`; a checkpoint may hold later values (`UsageMeter`)."""
    if run.environment.is_file():
        before = run.read_json(run.environment)
        meter.resume(float((before.get("seconds") or {}).get("total") or 0.0), int(before.get("sessions", 1)))


def matches_data(run: RunDir, data: str) -> bool:
    """Whether `data` names the run's own data, by name or path."""
    if not run.environment.is_file():
        return False
    about = run.read_json(run.environment)["data"]
    if not about.get("path"):
        return bool(data == about["spec"])
    try:
        return bool(absolute(data) == about["path"])
    except ThirtytwoError:  # no such data: the reader raises the better error
        return False


def check_same(run: RunDir, recipe: Recipe, dataset: DataSet, spec: str, split: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the same recipe, data and split.

    `spec` names the data now, `split` is the content of `split.json` for it.

    Raises:
        RunError: the recipe, the data or the split differ; the message names the keys that do.
    """
    if run.environment.is_file():
        data = run.read_json(run.environment)["data"]
        if data["fingerprint"] != dataset.fingerprint:
            changed = "; ".join(changes_since(run, split)) or (
                f"it was {data['spec']!r} (fingerprint {data['fingerprint']}), "
                f"now {spec!r} (fingerprint {dataset.fingerprint})"
            )
            raise RunError(
                f"{run.path} was started on other data: {changed}.",
                "Resume with the same data, or start a new run with another --run.",
            )
    before, now = flatten(run.read_recipe().model_dump(mode="json")), flatten(recipe.model_dump(mode="json"))
    differ = sorted(key for key in before | now if before.get(key) != now.get(key))
    if differ:
        changed = ", ".join(f"{key} (was {before.get(key)!r}, now {now.get(key)!r})" for key in differ[:5])
        raise RunError(
            f"{run.path} was started with another recipe: {changed}.",
            f"Start a new run with another --run, or continue this one with: {run.resume_command(spec)}",
        )
    recorded = run.read_json(run.split) if run.split.is_file() else split
    if any(recorded.get(part, {}).get("hashes") != split[part]["hashes"] for part in PARTS):
        raise RunError(
            f"{run.path} was started with another split of its data, or by a version that did not record the split.",
            "Start a new run with another --run.",
        )


def flops(net: Network, size: int) -> int | None:
    """Floating-point operations of the forward pass of one image (a multiply-add counts as two)."""
    device = next(net.parameters()).device
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            net(torch.zeros((1, 3, size, size), device=device))
    except (RuntimeError, NotImplementedError):
        return None
    return int(counter.get_total_flops())


def discard(text: str) -> None:
    """Ignore a log line."""


def progress_logger(show: bool) -> Callable[[str], None]:
    """The function that logs progress: to standard error, or nowhere."""
    return log_line if show else discard
