"""A whole training beside a whole training of airbench94, in turns on the same core.

    python benchmarks/turns.py NAME [--seeds 0] [--data-root DIR] [--turn 10] [--cores 0]

On a machine that is slower in some minutes than in others, trainings one after the other cannot be compared. Here,
`record.py train NAME --final` and the same for airbench94 are two processes on the same core: each runs for `--turn`
seconds while the other is stopped, until both have ended. Their times are processor seconds of the whole training,
with the augmentation and what PyTorch and the system do for it; those of NAME also contain building the network and
the checkpoints. Not timed: imports, reading data, evaluation. The result is `results/record-turns-<data>.json`:
time and accuracy of each training, and the ratio of the mean times. Needs the signals of Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from gpu import SWEEP
from record import RESULTS, write
from sides import PORT

from thirtytwo.config.resolve import read_recipe_values
from thirtytwo.errors import ThirtytwoError

RECORD = Path(__file__).with_name("record.py")


def main(words: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if words is None else words)
    if options.data_root is None or not (Path(options.data_root) / options.data).is_dir():
        print(f"skipped: {options.data} was not found; set THIRTYTWO_DATA or give --data-root")
        return 0
    asked_to_end = threading.Event()  # so that both trainings end as well
    signal.signal(signal.SIGTERM, lambda number, frame: asked_to_end.set())
    with tempfile.TemporaryDirectory(prefix="thirtytwo-turns-") as place:
        outs = {name: Path(place) / str(number) for number, name in enumerate((options.name, PORT))}
        turns = take_turns({name: start(name, out, options) for name, out in outs.items()}, options.turn, asked_to_end)
        runs = {name: found(out) for name, out in outs.items()}
    means = {name: statistics.fmean(run["processor_seconds"] for run in all_of) for name, all_of in runs.items()}
    ratio = round(means[options.name] / means[PORT], 4)
    content = {"kind": "turns", "data": options.data, "name": options.name, "ratio": ratio, "turns": turns}
    out = options.out / f"record-turns-{options.data}.json"
    write(out, content | {"turn_seconds": options.turn, "runs": runs}, options)
    print(f"{options.name}: {means[options.name]:.0f} s, {PORT}: {means[PORT]:.0f} s, ratio {ratio}. {out}")
    return 0


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", metavar="NAME", help="as of record.py")
    parser.add_argument("--data", choices=("cifar10", "cifar100"), default="cifar10")
    parser.add_argument("--data-root", default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--seeds", default="0", help="of NAME, separated by commas; airbench94 is trained once")
    parser.add_argument("--turn", type=float, default=10, help="seconds of a turn")
    parser.add_argument("--cores", default="0", help="number of the core to use")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tiny", action="store_true", help="a trial run: tiny networks, a few hundred images")
    options = parser.parse_args(words)
    if options.name == PORT:
        parser.error(f"NAME is compared with {PORT}")
    if not hasattr(signal, "SIGSTOP"):
        parser.error("this system cannot stop a process for a while")
    if not 0 < options.turn < float("inf"):
        parser.error(f"--turn must be more than 0 seconds; found {options.turn}")
    if options.tiny and options.out == RESULTS:
        parser.error("give --out with --tiny: its times are no results")
    if options.name not in SWEEP:
        try:
            read_recipe_values(options.name)
        except ThirtytwoError as error:
            parser.error(f"{error.message} Or give one of: {', '.join(SWEEP)}.")
    return options


def start(name: str, out: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Start the trainings of a name, stopped."""
    seeds = "0" if name == PORT else options.seeds
    words = [sys.executable, str(RECORD), "train", name, "--final", "--seeds", seeds, "--data", options.data]
    words += ["--data-root", str(options.data_root), "--cores", options.cores]
    words += ["--out", str(out), "--runs", str(out / "runs"), *(["--tiny"] if options.tiny else [])]
    process = subprocess.Popen(words, stdout=sys.stderr)
    process.send_signal(signal.SIGSTOP)
    return process


def take_turns(
    processes: Mapping[str, subprocess.Popen[bytes]], seconds: float, asked_to_end: threading.Event | None = None
) -> int:
    """Let one process at a time run until all have ended; returns the number of turns.

    Raises:
        SystemExit: one of them failed, or `asked_to_end` was set; all are ended.
    """
    turns = 0
    try:
        while running := [one for one in processes.items() if one[1].poll() is None]:
            for name, process in running:
                turns += 1
                process.send_signal(signal.SIGCONT)
                end = time.monotonic() + seconds
                while process.poll() is None and time.monotonic() < end:
                    if asked_to_end is not None and asked_to_end.is_set():
                        raise SystemExit(128 + signal.SIGTERM)
                    time.sleep(min(0.05, seconds / 4))
                if process.poll() is None:
                    process.send_signal(signal.SIGSTOP)
                elif process.returncode:
                    raise SystemExit(f"turns.py: the training of {name} ended with {process.returncode}")
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    return turns


def found(out: Path) -> list[dict[str, Any]]:
    """The trainings that `record.py` wrote."""
    (file,) = out.glob("record-*.json")
    runs: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["runs"]
    return [{key: value for key, value in run.items() if key not in ("recipe", "epochs")} for run in runs]


if __name__ == "__main__":
    sys.exit(main())
