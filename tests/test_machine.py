"""Facts about the machine."""

from __future__ import annotations

import os

from thirtytwo.machine import cpu_count, cpu_name, memory_gb, peak_memory_mb


def test_cores_are_those_this_process_may_use() -> None:
    assert cpu_count() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count() >= 1
    assert cpu_count(1) == 1
    assert cpu_count(10_000) == cpu_count()


def test_processor_and_memory_are_described() -> None:
    assert cpu_name()
    memory, peak = memory_gb(), peak_memory_mb()
    assert memory is None or memory > 0.1
    assert peak is None or 10 < peak < 1000 * (memory or 1e6)
