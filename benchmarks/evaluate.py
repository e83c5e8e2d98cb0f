"""Time of evaluating a finished run beyond the forward pass.

    python benchmarks/evaluate.py RUN... [--data-root DIR] [--repeats 3]

For each run, the bare forward pass over its test images is timed (the network, float32, batches as in evaluation), and
`thirtytwo evaluate RUN` from start to exit: reading, scoring, every metric with its interval, report, figures and card.
Medians of `--repeats`, in turns, to `benchmarks/results/evaluate.json`. The runs are copied first and not changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from thirtytwo.data.load import load_dataset
from thirtytwo.io import write_json
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir
from thirtytwo.tensors import normalize, scored_batch_size
from thirtytwo.training.hardware import choose_hardware, describe_machine
from thirtytwo.workflows.loading import load_run

RESULTS = Path(__file__).parent / "results" / "evaluate.json"


@own_process()  # with the command line's allocator setting
def main() -> int:
    parser = argparse.ArgumentParser(description="Time of evaluating a run beyond the forward pass.")
    parser.add_argument("runs", nargs="*", type=Path, help="finished run directories")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("THIRTYTWO_DATA"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if not options.runs or options.data_root is None:
        print("skipped: name run directories, and set THIRTYTWO_DATA or give --data-root")
        return 0
    rows = [measure(path, Path(options.data_root), options.repeats) for path in options.runs]
    machine = describe_machine(torch.device("cpu"))
    write_json(options.out, {"runs": rows, "hardware": machine, "date": datetime.now(UTC).date().isoformat()})
    for row in rows:
        print(
            f"{row['data']}: {row['n']:,} images, forward {row['forward_seconds']:.1f} s, evaluate "
            f"{row['evaluate_seconds']:.1f} s (1.5 × forward + {row['beyond_seconds']:.1f} s), {row['report_mb']} MB"
        )
    print(options.out)
    return 0


def measure(path: Path, root: Path, repeats: int) -> dict[str, Any]:
    """Both times of one run, in turns."""
    spec = RunDir.open(path).read_json(RunDir(path).environment)["data"]["spec"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(shutil.copytree(path, Path(folder) / "run", ignore=shutil.ignore_patterns("checkpoints"))))
        forward, evaluation = [], []
        for _ in range(repeats):
            forward.append(forward_seconds(run, spec, root))
            started = time.perf_counter()
            command = [sys.executable, "-m", "thirtytwo", "evaluate", str(run.path), "--data-root", str(root)]
            subprocess.run(command, check=True, capture_output=True)
            evaluation.append(time.perf_counter() - started)
        size = run.report.stat().st_size
        metrics = run.read_json(run.metrics)
    once, whole = median(forward), median(evaluation)
    return {
        "data": spec,
        "n": metrics["n"],
        "forward_seconds": round(once, 2),
        "evaluate_seconds": round(whole, 2),
        "beyond_seconds": round(whole - 1.5 * once, 2),
        "repeats": repeats,
        "report_mb": round(size / 1e6, 2),
    }


def forward_seconds(run: RunDir, spec: str, root: Path) -> float:
    """Seconds of the forward pass over the test images."""
    loaded = load_run(run)
    net, info = loaded.network, loaded.info
    hardware = choose_hardware(loaded.recipe.train, "cpu")
    test = load_dataset(spec, data_root=root, image_size=info.input_size, resize=info.resize).test
    assert test is not None
    pixels = torch.from_numpy(test.images.copy())
    net = net.to(memory_format=hardware.memory_format)
    total = 0.0
    with torch.inference_mode():
        size = scored_batch_size(pixels.shape[1])
        for start in range(0, len(pixels), size):
            batch = normalize(pixels[start : start + size], info.mean, info.std)
            batch = batch.contiguous(memory_format=hardware.memory_format)
            started = time.perf_counter()
            net(batch)
            total += time.perf_counter() - started
    return total


if __name__ == "__main__":
    sys.exit(main())
