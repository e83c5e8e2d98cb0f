"""`fast` and changes of it on CIFAR beside the published airbench94: time of a whole training, and its accuracy.

    python benchmarks/record.py steps [NAME]... [--data-root DIR] [--rounds 5] [--cores 0]
    python benchmarks/record.py train NAME [--seeds 0,1,2] [--val | --final] [--cores 0]

NAME is `airbench94` (`benchmarks/airbench.py`), a bundled recipe, a recipe file, or one of the changes of `fast` in
`SWEEP` of `benchmarks/gpu.py`; `--set KEY=VALUE` changes each of them further. `--cores 0,1` keeps the process on these
cores.

`steps` measures training steps of all names in turns, each name in its own process, with airbench94 among them, and
multiplies the median of each stage by the number of its steps in a training on all 50,000 images. A stage is a
resolution, with the bias of the stem trained or not, and the first layers frozen or not. Timed: augmentation, forward
and backward pass, optimizer. Not timed: imports, reading data, building the network, the first step of each stage,
which also counts the FLOPs. The result is `results/record-steps-<data>.json`, with `-float32` where that is the
precision, written again after each round.
airbench94 is there twice: with the memory of PyTorch as it is, and keeping freed memory as thirtytwo does, which saves
page faults (Linux with glibc only).

`train` trains once for each seed and writes `results/record-<data>-<name>.json` after each of them: accuracy of one
view and with test-time augmentation, seconds, FLOPs, hardware, versions, hash of the source. Seeds that are there
already are not trained again, and a training that was cut off continues from its last epoch (airbench94 starts again).
Two processes with other seeds and cores may write the same file.
Timed: all epochs, each with its augmentation; not timed: imports, reading data, building the network, checkpoints,
evaluation. `processor_seconds` are those of all threads, and contain building the network and checkpoints as well.
By default it holds out validation as the recipe says and evaluates on test; `--val` evaluates on validation instead,
for choices; `--final` trains on all 50,000 images and evaluates on test.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from gpu import ALL_IMAGES, SWEEP, TINY, TINY_NETWORKS
from sides import KEEPING, PORT, PORTS, Candidate, Port, Stage, flops_of, name_of, seconds_of, side

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
SOURCE = HERE.parent / "src" / "thirtytwo"
SCRIPTS = ("airbench.py", "record.py", "sides.py")
TRAINING = ("augment", "config", "data", "evaluation/scoring.py", "models", "tensors.py", "training")
"""What of the source decides how a training goes; its hash is in the results."""


def main() -> int:
    source_hash()  # of what this process will import, whatever is changed while it runs
    options = parse(sys.argv[1:])
    if options.data_root is None or not (Path(options.data_root) / options.data).is_dir():
        print(f"skipped: {options.data} was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    if options.cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})  # before torch starts its threads
    from thirtytwo.cli.start import restart_without_small_caches
    from thirtytwo.process import own_process

    own = options.what != "steps" and options.names[:1] != [PORT]
    if own:
        restart_without_small_caches()
    with own_process() if own else contextlib.nullcontext():  # with the command line's settings of memory
        return {"steps": measure_steps, "train": train_seeds, "side": take_steps}[options.what](options)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("steps", "train", "side"), default="steps", metavar="steps | train")
    parser.add_argument("names", nargs="*", metavar="NAME", help="fast by default")
    parser.add_argument("--data", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="changes of every recipe")
    parser.add_argument("--name", help="name of a single recipe in the results")
    parser.add_argument("--cores", help="numbers of the cores to use, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps of each stage in a round")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--val", action="store_true", help="evaluate on validation, for choices")
    parser.add_argument("--final", action="store_true", help="train on all training images")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="run directories of unfinished trainings")
    parser.add_argument("--tiny", action="store_true", help="a trial run: tiny networks, a few hundred images")
    options = parser.parse_intermixed_args(words)
    if options.val and options.final:
        parser.error("--val and --final exclude each other: with --final there are no validation images")
    if options.name and len(options.names) > 1:
        parser.error("--name is for one NAME")
    if options.what != "steps" and len(options.names) > 1:
        parser.error(f"{options.what} takes one NAME")
    return options


def candidate(name: str, options: argparse.Namespace) -> Candidate:
    from thirtytwo.config.resolve import parse_overrides

    if name in PORTS:
        return Candidate(name, None, {})
    recipe, changes = ("fast", SWEEP[name]) if name in SWEEP else (name, {})
    changes = {**changes, **parse_overrides(options.set)}
    if options.tiny:
        changes |= TINY | TINY_NETWORKS["fast"]
    shown = options.name or ", ".join([Path(name).stem if name.endswith(".toml") else name, *options.set])
    return Candidate(shown, recipe, changes)


class Worker:
    """A side in its own process: what it does to memory, threads and PyTorch is not done to the others.

    Args:
        name: the NAME.
        options: those of this process.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        words = [sys.executable, __file__, "side", name, "--data", options.data, "--data-root", str(options.data_root)]
        words += [word for change in options.set for word in ("--set", change)]
        words += ["--cores", options.cores] if options.cores is not None else []
        words += ["--tiny"] if options.tiny else []
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self) -> None:
        """Wait until the process can take steps."""
        about = self._read()
        self.stages = [Stage(**stage) for stage in about["stages"]]
        self.flops: dict[str, int] = about["flops"]
        self.batch_size: int = about["batch_size"]
        self.precision: str = about["precision"]

    def seconds(self, place: int, steps: int) -> float:
        """Mean seconds of a step of the stage at `place`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([place, steps]) + "\n")
        self._process.stdin.flush()
        return float(self._read()["seconds"])

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"record.py: the process of a side ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found


def take_steps(options: argparse.Namespace) -> int:
    """Be the process of a `Worker`: describe the side, then take the steps that lines of standard input ask for."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    one = side(candidate(options.names[0], options), options)
    about = {"stages": [asdict(stage) for stage in one.stages], "flops": {s.name: flops_of(one, s) for s in one.stages}}
    print(json.dumps(about | {"batch_size": one.batch_size, "precision": one.precision}), file=answers, flush=True)
    for line in sys.stdin:
        place, steps = json.loads(line)
        print(json.dumps({"seconds": seconds_of(one, one.stages[place], steps)}), file=answers, flush=True)
    return 0


def measure_steps(options: argparse.Namespace) -> int:
    """Time steps of each name and of airbench94 in turns; write what they make of a whole training."""
    given = list(dict.fromkeys([*PORTS, *(options.names or ["fast"])]))
    candidates = [candidate(name, options) for name in given]
    sides = {one.name: Worker(name, options) for one, name in zip(candidates, given, strict=True)}
    for started in sides.values():
        started.wait()
    seconds: dict[str, dict[str, list[float]]] = {
        name: {stage.name: [] for stage in one.stages} for name, one in sides.items()
    }
    others = sorted({one.precision for one in sides.values()} - {"bfloat16"})
    out = options.out / f"{'-'.join(['record-steps', options.data, *others])}.json"
    for number in range(options.rounds):
        for name in sides if number % 2 == 0 else reversed(sides):
            for place, stage in enumerate(sides[name].stages):
                seconds[name][stage.name].append(sides[name].seconds(place, options.steps))
        found = {name: _projected(one, seconds[name]) for name, one in sides.items()}
        for one in found.values():
            for key, port in (("ratio", PORT), ("ratio_keeping", KEEPING)):
                pairs = list(zip(one["training_seconds"], found[port]["training_seconds"], strict=True))
                ratios = [own / other for own, other in pairs]
                one[key] = round(statistics.median(ratios), 4)
                one[f"{key}_range"] = [round(min(ratios), 4), round(max(ratios), 4)]
        recipes = {one.name: {"recipe": one.recipe, "changes": one.changes} for one in candidates}
        write(
            out, {"kind": "steps", "data": options.data, "n": number + 1, "sides": found, "recipes": recipes}, options
        )
        shown = {name: (round(one["seconds"]), one["ratio"], one["ratio_keeping"]) for name, one in found.items()}
        ratios_to = f"{PORT}, as it is and keeping memory"
        print(f"round {number + 1}: seconds of a training, ratios to {ratios_to}: {shown}", flush=True)
    for one in sides.values():
        one.close()
    return 0


def _projected(one: Worker, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Seconds of a whole training in each round, and their median."""
    counts = {stage.name: stage.count for stage in one.stages}
    rounds = list(zip(*seconds.values(), strict=True))
    totals = [sum(count * value for count, value in zip(counts.values(), values, strict=True)) for values in rounds]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "seconds": round(sum(counts[name] * value for name, value in medians.items()), 2),
        "training_seconds": [round(total, 2) for total in totals],
        "steps": counts,
        "seconds_per_step": {name: round(value, 4) for name, value in medians.items()},
        "images_per_second": {name: round(one.batch_size / value, 1) for name, value in medians.items()},
        "batch_size": one.batch_size,
        "precision": one.precision,
        "flops": (total := sum(counts[name] * value for name, value in one.flops.items())),
        "pflop": round(total / 1e15, 4),
    }


def train_seeds(options: argparse.Namespace) -> int:
    """Train once for each seed that has no result yet."""
    chosen = candidate((options.names or ["fast"])[0], options)
    split = "val" if options.val else "final" if options.final else "test"
    out = options.out / f"record-{options.data}-{chosen.file_name}{'' if split == 'final' else f'-{split}'}.json"
    settings: dict[str, Any] = {"recipe": chosen.recipe, "changes": chosen.changes, "split": split}
    if chosen.recipe is not None and Path(chosen.recipe).is_file():
        settings["recipe"] = Path(chosen.recipe).name
        settings["recipe_hash"] = hashlib.sha256(Path(chosen.recipe).read_bytes()).hexdigest()[:16]
    content = _found(out, settings)
    if content["settings"] != json.loads(json.dumps(settings)):
        print(
            f"{out} holds results of other settings. Move it away, or choose another name with --name.", file=sys.stderr
        )
        return 2
    flops: dict[str, int | float] = {key: content[key] for key in ("flops", "pflop") if key in content}
    for seed in map(int, options.seeds.split(",")):
        if any(run["seed"] == seed for run in _found(out, settings)["runs"]):
            continue
        run = train_port(options, seed, split) if chosen.recipe is None else train_once(chosen, options, seed, split)
        flops = flops or flops_of_training(chosen, options)
        what = {"kind": "training", "data": options.data, "name": chosen.name, "settings": settings, **flops}
        add_run(out, run, what, options)
        print({key: run[key] for key in ("seed", "single", "tta", "seconds")}, flush=True)
    return 0


def add_run(out: Path, run: dict[str, Any], what: dict[str, Any], options: argparse.Namespace) -> None:
    """Add a training to the results; a process on other cores may add others at the same time."""
    from filelock import FileLock

    place = hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"thirtytwo-{place}.lock"):
        runs = [*_found(out, what["settings"])["runs"], run | machine() | {"source": source_hash()}]
        runs.sort(key=lambda one: int(one["seed"]))
        write(out, what | {"summary": summary(runs), "runs": runs}, options)


def flops_of_training(chosen: Candidate, options: argparse.Namespace) -> dict[str, int | float]:
    """Floating-point operations of a whole training, also in PFLOP."""
    one = side(chosen, options)
    total = sum(stage.count * flops_of(one, stage) for stage in one.stages)
    return {"flops": total, "pflop": round(total / 1e15, 4)}


def _found(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The results so far."""
    if out.is_file():
        content: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return content
    return {"settings": settings, "runs": []}


def train_once(chosen: Candidate, options: argparse.Namespace, seed: int, split: str) -> dict[str, Any]:
    """Train thirtytwo's recipe with one seed, from its last epoch where it was cut off."""
    import torch

    from thirtytwo.evaluation.scoring import Scorer
    from thirtytwo.rundir import RunDir
    from thirtytwo.training.fit import fit
    from thirtytwo.workflows.prepare import prepare, write_plan

    assert chosen.recipe is not None
    changes = {"train.validate_every": 1_000_000, **chosen.changes, "seed": seed}
    changes |= ALL_IMAGES if split == "final" else {}
    path = options.runs / f"record-{options.data}-{chosen.file_name}-{split}-seed{seed}"
    continued = (path / "recipe.toml").is_file()
    directory = RunDir.open(path) if continued else RunDir.create(path)
    precision = directory.read_recipe().train.precision if continued else None
    resumed = {"precision": precision, "resumed": directory} if continued else {}
    plan = prepare(options.data, chosen.recipe, changes, "auto", Path(options.data_root), **resumed)
    write_plan(plan, directory)
    before = time.process_time()
    fitted = fit(plan.recipe, plan.parts.train, plan.parts.val, directory, plan.hardware, resume=continued)
    processor = time.process_time() - before
    scored = plan.parts.val if split == "val" else plan.parts.test
    assert scored is not None
    device, layout = plan.hardware.device, plan.hardware.memory_format
    scorer = Scorer(fitted.net, fitted.mean, fitted.std, device, memory_format=layout)
    single = scorer.logits(scored.images)
    logits = {"single": single, "tta": scorer.tta_logits(scored.images, 1, single=single)}
    right = {name: round(float((found.argmax(1) == scored.labels).mean()), 6) for name, found in logits.items()}
    epochs = [{key: row[key] for key in ("epoch", "seconds")} for row in directory.read_history()]
    shutil.rmtree(path)
    return {
        "seed": seed,
        **right,
        "n": len(scored),
        "trained_on": len(plan.parts.train),
        "seconds": round(fitted.seconds, 2),
        "processor_seconds": None if continued else round(processor, 2),
        "epochs": epochs,
        "resumed": continued,
        "precision": name_of(plan.hardware.precision),
        "threads": torch.get_num_threads(),
        "recipe": plan.recipe.model_dump(mode="json", exclude_none=True),
    }


def train_port(options: argparse.Namespace, seed: int, split: str) -> dict[str, Any]:
    """Train airbench94 with one seed."""
    import torch

    from thirtytwo.tensors import as_tensor

    port = Port(options, split == "final")
    training = port.start(seed)
    before = time.process_time()
    seconds = training.train()
    processor = time.process_time() - before
    scored = port.parts.val if split == "val" else port.parts.test
    assert scored is not None
    return {
        "seed": seed,
        **training.accuracies(as_tensor(scored.images), as_tensor(scored.labels)),
        "n": len(scored),
        "trained_on": len(port.parts.train),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "resumed": False,
        "precision": port.precision,
        "threads": torch.get_num_threads(),
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, standard deviation and range over the seeds."""
    found: dict[str, Any] = {"n": len(runs), "seeds": [run["seed"] for run in runs]}
    for name in ("single", "tta", "seconds"):
        values = [run[name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        found[name] = {"mean": statistics.fmean(values), "std": spread, "range": [min(values), max(values)]}
    return found | {"standard_error_tta": found["tta"]["std"] / math.sqrt(len(runs)) if len(runs) > 1 else None}


def machine() -> dict[str, Any]:
    """Hardware, versions and date."""
    import torch

    from thirtytwo.machine import package_version
    from thirtytwo.training.hardware import describe_machine

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    libraries = ("thirtytwo", "torch", "lightning", "timm", "numpy")
    versions = {name: package_version(name) for name in libraries} | {"python": sys.version.split()[0]}
    return {
        "hardware": describe_machine(device),
        "versions": versions,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


@cache
def source_hash() -> str:
    """Hash of the source that decides how a training goes, and of the scripts, as it was at the first call."""
    digest = hashlib.sha256()
    for file in sorted([*_sources(), *(HERE / name for name in SCRIPTS)]):
        digest.update(file.relative_to(HERE.parent).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    for name in TRAINING:
        place = SOURCE / name
        yield from (one for one in place.rglob("*") if one.suffix in (".py", ".toml")) if place.is_dir() else [place]


def write(out: Path, content: dict[str, Any], options: argparse.Namespace) -> None:
    from thirtytwo.io import write_json

    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content | machine() | {"source": source_hash(), "cores": options.cores, "tiny": options.tiny})


if __name__ == "__main__":
    sys.exit(main())
