"""Memory that a training keeps for its next step, and gives back before and after it."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest


def run(script: str, *words: str) -> str:
    """Run a script in its own process, whose allocator no other test has changed; returns what it prints."""
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ALLOCATOR = """
import ctypes, sys
from thirtytwo.cli.main import run_command
from thirtytwo.training.hardware import choose_hardware
from thirtytwo.process import own_process
from thirtytwo.config.recipe import TrainSettings

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd u f o k c".split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Mallinfo
libc.malloc.restype = ctypes.c_void_p

def mapped():
    before = libc.mallinfo2().hblkhd
    libc.malloc(ctypes.c_size_t(1 << 28))
    return libc.mallinfo2().hblkhd > before

choices = choose_hardware(TrainSettings(), "cpu").choices
assert mapped(), "the caller's allocator was changed"
assert "allocator" not in [choice.what for choice in choices]
with own_process():
    choices = choose_hardware(TrainSettings(), "cpu").choices
assert not mapped()
assert "allocator" in [choice.what for choice in choices]
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_allocator_is_changed_by_the_command_line_only() -> None:
    run(ALLOCATOR)


HOLES = """
import ctypes
from thirtytwo.cli.start import restart_without_small_caches
restart_without_small_caches()
import torch
from thirtytwo.config.recipe import TrainSettings
from thirtytwo.process import own_process
from thirtytwo.training.hardware import choose_hardware

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd u f o k c".split()]

libc = ctypes.CDLL("libc.so.6")
libc.mallinfo2.restype = Mallinfo

def step():
    large = []
    for number in range(30):
        large.append(torch.empty((1 + number % 7) * 2**18))  # 1 to 7 MiB
        small.extend([torch.empty(8), torch.empty(16)])
    del large
    small.extend(torch.empty(number % 24 + 1) for number in range(200))

torch.set_num_threads(1)
with own_process():
    choose_hardware(TrainSettings(), "cpu")
small = []
step()
first = libc.mallinfo2().arena
for _ in range(8):
    step()
print((libc.mallinfo2().arena - first) / 2**20)
"""


@pytest.mark.long
@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="glibc's allocator")
def test_memory_of_a_step_serves_the_next_one() -> None:
    assert float(run(HOLES, "train")) < 15


RELEASE = """
import psutil, torch
from thirtytwo.config.recipe import TrainSettings
from thirtytwo.process import own_process
from thirtytwo.training.hardware import choose_hardware, release_freed_memory

def resident():
    return psutil.Process().memory_info().rss / 2**20

with own_process():
    choose_hardware(TrainSettings(), "cpu")
before = resident()
buffers = [torch.ones(2**18) for _ in range(300)]  # 300 MiB
kept = buffers[150]
del buffers
assert resident() - before > 250, "freed memory is kept for the next step"
release_freed_memory()
assert resident() - before < 50
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_kept_for_the_next_step_is_released_after_training() -> None:
    run(RELEASE)


BEFORE_TRAINING = """
import psutil, torch
from pathlib import Path
from thirtytwo.process import own_process
from thirtytwo.rundir import RunDir
from thirtytwo.training.fit import fit
from thirtytwo.workflows.prepare import prepare

def resident():
    return psutil.Process().memory_info().rss / 2**20

def measure(row):
    sizes.append(resident())
    return False

sizes = []
with own_process():
    changes = {"schedule.epochs": 2, "schedule.batch_size": 50}
    plan = prepare("cifar10", "textbook-cnn", changes, "cpu", Path(DATA))
    buffers = [torch.ones(2**18) for _ in range(600)]  # 600 MiB
    kept = buffers[-1]
    del buffers
    before = resident()
    fit(plan.recipe, plan.parts.train, plan.parts.val, RunDir.create(RUN), plan.hardware, should_stop=measure)
assert len(sizes) == 2
assert sizes[0] < before - 200, (before, sizes)
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_that_was_freed_before_training_does_not_add_to_it(noise_cifar: Path, tmp_path: Path) -> None:
    script = f"DATA, RUN = {str(noise_cifar)!r}, {str(tmp_path / 'run')!r}{BEFORE_TRAINING}"
    run(script)


LARGER_IMAGES = """
import psutil, torch
from thirtytwo.config.recipe import TrainSettings
from thirtytwo.process import own_process
from thirtytwo.training.callbacks import MemoryRelease
from thirtytwo.training.hardware import choose_hardware

def resident():
    return psutil.Process().memory_info().rss / 2**20

def start_step(side):
    callback.on_train_batch_start(None, None, (torch.zeros(1, 3, side, side), torch.zeros(1)), 0)

with own_process():
    choose_hardware(TrainSettings(), "cpu")
callback = MemoryRelease()
start_step(20)
before = resident()
buffers = [torch.ones(2**18) for _ in range(300)]  # 300 MiB
kept = buffers[150]
del buffers
start_step(20)
assert resident() - before > 250, "freed memory is kept for steps on images of the same size"
start_step(24)
assert resident() - before < 50
"""


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_memory_of_steps_on_smaller_images_is_released_before_the_first_on_larger_ones() -> None:
    run(LARGER_IMAGES)
