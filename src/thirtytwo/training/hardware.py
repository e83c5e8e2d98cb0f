"""Device, precision and layout: detects the hardware and resolves every `auto` setting, each with its reason."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import psutil
import torch

from thirtytwo.config.recipe import TrainSettings
from thirtytwo.config.settings import Choice
from thirtytwo.errors import RecipeError, ThirtytwoError
from thirtytwo.machine import cpu_count, cpu_name, memory_gb, peak_memory_mb
from thirtytwo.process import is_own_process
from thirtytwo.training.processes import current

MALLOC_MAX_FAST = 1
MALLOC_MMAP_MAX = -4
MALLOC_TRIM_THRESHOLD = -1


@dataclass(frozen=True)
class Hardware:
    """Device, precision and layout of the computation, with the choices for the log."""

    device: torch.device
    precision: torch.dtype
    channels_last: bool
    compile: bool
    cuda_graphs: bool
    threads: int
    choices: tuple[Choice, ...]

    @property
    def lightning_precision(self) -> str:
        """The precision by Lightning's name."""
        return {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}[self.precision]

    @property
    def matrix_arithmetic(self) -> torch.dtype:
        """Dtype of the optimizer's matrix products: bfloat16 only where the hardware supports it."""
        return torch.bfloat16 if self.precision == torch.bfloat16 else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory layout by torch's name."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


REASONS = {
    "memory format": "convolutions are faster in this layout on CPU and GPU",
    "compile": "compilation takes longer than it saves in a short run",
}
"""Why a setting has its value where it is `auto`."""


def choose_hardware(settings: TrainSettings, device: str) -> Hardware:
    """Resolve every `auto` setting for this machine, and set the number of threads (see `preserve_torch_state`).

    The allocator is configured only in the command line's own process, since that cannot be undone.

    Args:
        settings: the recipe's `[train]`.
        device: `auto`, `cpu`, `cuda` or `mps`.

    Raises:
        ThirtytwoError: the device is unknown or not available.
        RecipeError: the device does not support the precision.
    """
    resolved, choices = _choose_device(device)
    precision, why_precision = _choose_precision(settings.precision, resolved)
    channels_last = settings.memory_format != "contiguous"
    compile_it = settings.compile == "on"
    nvidia = resolved.type == "cuda" and torch.version.hip is None
    graphs = settings.cuda_graphs == "auto" and nvidia and not (compile_it or current().several)
    threads, why_threads = _choose_threads(settings.threads)
    torch.set_num_threads(threads)
    resolved_values = {
        "memory format": (settings.memory_format, "channels_last" if channels_last else "contiguous"),
        "compile": (settings.compile, "on" if compile_it else "off"),
    }
    choices.append(Choice("precision", str(precision).removeprefix("torch."), why_precision))
    chosen = {"compile": "set in the recipe; the first step of each image size may take minutes"} if compile_it else {}
    choices += [
        Choice(what, value, REASONS[what] if setting == "auto" else chosen.get(what, "set in the recipe"))
        for what, (setting, value) in resolved_values.items()
    ]
    choices.append(Choice("threads", str(threads), why_threads))
    if resolved.type == "cpu" and is_own_process():
        choices += keep_freed_memory()
    return Hardware(resolved, precision, channels_last, compile_it, graphs, threads, tuple(choices))


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def _choose_threads(setting: int | Literal["auto"]) -> tuple[int, str]:
    """The number of threads and its reason; a number that the environment or the calling program set is kept."""
    if setting != "auto":
        return setting, "set in the recipe"
    threads, cores = torch.get_num_threads(), cpu_count()
    if named := [name for name in _THREAD_VARIABLES if os.environ.get(name)]:
        return threads, f"set by {named[0]}; this process may use {cores} cores"
    if current().devices > 1 and "SLURM_CPUS_PER_TASK" not in os.environ:  # there, each process has cores of its own
        share = max(1, cores // current().devices)
        return min(threads, share), f"{cores} cores for {current().devices} processes on this machine"
    if threads > cores:
        return cores, "one for each core this process may use"
    if threads < cores:
        return threads, f"as set by the program or chosen by PyTorch; this process may use {cores} cores"
    return threads, "one for each core this process may use"


def _choose_device(device: str) -> tuple[torch.device, list[Choice]]:
    if device == "auto":
        if torch.cuda.is_available():
            gpu = torch.device("cuda", current().local_rank)
            return gpu, [Choice("device", "cuda", f"found {torch.cuda.get_device_name(gpu)}")]
        if torch.backends.mps.is_available():
            return torch.device("mps"), [Choice("device", "mps", "found Apple's GPU")]
        return torch.device("cpu"), [Choice("device", "cpu", "no GPU that PyTorch can use")]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device not in there:
        raise ThirtytwoError(f"Unknown device {device!r}.", "Choose auto, cpu, cuda or mps.")
    if not there[device]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ThirtytwoError(
            f"Device {device!r} is not available; PyTorch finds only: {found}.",
            "Leave --device out, or choose one of these.",
        )
    return torch.device(device, current().local_rank) if device == "cuda" else torch.device(device), [
        Choice("device", device, "set by --device")
    ]


def _choose_precision(wanted: str, device: torch.device) -> tuple[torch.dtype, str]:
    if wanted == "float16" and device.type == "cpu":
        raise RecipeError(
            "train.precision is 'float16', which is not supported for training on CPUs.", "Set it to auto or bfloat16."
        )
    if wanted != "auto":
        dtype: torch.dtype = getattr(torch, wanted)
        return dtype, "set in the recipe"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this GPU supports it natively"
        return torch.float16, "this GPU has no native bfloat16"
    if device.type == "mps":
        return torch.float32, "reliable on Apple's GPU"
    features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if features.get("amx_bf16") or features.get("avx512_bf16"):
        name = "AMX" if features.get("amx_bf16") else "AVX512-BF16"
        return torch.bfloat16, f"this CPU has {name} instructions"
    return torch.float32, "this CPU has no bfloat16 instructions"


def keep_freed_memory() -> list[Choice]:
    """Configure glibc to keep freed memory in whole pieces: every training step allocates the same buffers again.

    The command line does the rest at its start: `cli.start.restart_without_small_caches`.
    """
    if not sys.platform.startswith("linux"):
        return []
    try:
        libc = ctypes.CDLL("libc.so.6")
        done = libc.mallopt(MALLOC_MMAP_MAX, 0) and libc.mallopt(MALLOC_TRIM_THRESHOLD, 2**31 - 1)
        done = done and libc.mallopt(MALLOC_MAX_FAST, 0)
    except (OSError, AttributeError):
        return []
    reason = "each step allocates the same memory again; saves page faults"
    return [Choice("allocator", "keeps freed memory", reason)] if done else []


def release_freed_memory() -> None:
    """Give memory that training no longer uses back to the system, so that what follows does not add to it."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, cores, memory in GB, GPU and operating system, for `environment.json`."""
    return {
        "cpu": cpu_name(),
        "cores": cpu_count(),
        "memory_gb": memory_gb(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


SAMPLE_INTERVAL = 0.1
"""Seconds between two samples of this process's memory."""
EXACT = "peak memory of this process as reported by the system"
SAMPLED = f"sampled every {SAMPLE_INTERVAL:g} s, since this process had used more memory before the run"


class UsageMeter:
    """Measures the time and memory of one session of a run as a context manager, and adds those of earlier sessions.

    Its state is stored in every checkpoint, so that a killed session counts up to its last complete epoch.
    """

    def __init__(self) -> None:
        self.sessions = 1
        self._before = 0.0
        self._start = time.perf_counter()
        self._peak_before: tuple[float, str] | None = None
        self._process = psutil.Process()
        self._high_water = peak_memory_mb()
        self._seen = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="thirtytwo memory", daemon=True)

    def __enter__(self) -> UsageMeter:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """Seconds of all sessions so far."""
        return self._before + time.perf_counter() - self._start

    @property
    def peak_memory(self) -> tuple[float, str]:
        """Peak memory in MB over the sessions so far, and how it was measured.

        The system reports the peak since the process started, which belongs to this session if it rose during it.
        """
        self._sample()
        now = peak_memory_mb()
        risen = now is not None and self._high_water is not None and now > self._high_water
        session = (now, EXACT) if now is not None and risen else (round(self._seen, 1), SAMPLED)
        return max(session, self._peak_before or session)

    def resume(self, seconds: float, sessions: int) -> None:
        """Continue after earlier sessions that took `seconds` in total."""
        self._before = max(self._before, seconds)
        self.sessions = sessions + 1

    def state_dict(self) -> dict[str, Any]:
        """State for a checkpoint."""
        return {"seconds": self.seconds, "peak_memory": list(self.peak_memory)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self._before = max(self._before, float(state["seconds"]))
        peak, how = state["peak_memory"]
        self._peak_before = (float(peak), str(how))

    def _sample(self) -> None:
        self._seen = max(self._seen, self._process.memory_info().rss / 1e6)

    def _poll(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL):
            self._sample()
