"""Facts about the machine."""

from __future__ import annotations

import os

import pytest

from thirtytwo.errors import ServiceError
from thirtytwo.machine import address, cpu_count, cpu_name, listen, memory_gb, peak_memory_mb


def test_cores_are_those_this_process_may_use() -> None:
    assert cpu_count() == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cpu_count() >= 1
    assert cpu_count(1) == 1
    assert cpu_count(10_000) == cpu_count()


def test_processor_and_memory_are_described() -> None:
    assert cpu_name()
    memory, peak = memory_gb(), peak_memory_mb()
    assert memory is None or memory > 0.1
    assert peak is None or 10 < peak < 1000 * (memory or 1e6)


def test_first_free_port_of_several_is_bound() -> None:
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError) as caught:
            listen("127.0.0.1", port)
        with listen("127.0.0.1", port, tried=20) as other:
            assert port < other.getsockname()[1] <= port + 19
    assert str(port) in caught.value.message


def test_unknown_host_is_an_error() -> None:
    with pytest.raises(ServiceError, match=r"256\.0\.0\.1"):
        listen("256.0.0.1", 0)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")])
def test_address_is_a_url(host: str, url: str) -> None:
    assert address(host, 80) == url
