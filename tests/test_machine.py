"""Facts about the machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from thirtytwo.errors import ServiceError
from thirtytwo.machine import address, cpu_count, cpu_name, cpu_quota, listen, memory_gb, peak_memory_mb


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


def cgroup(root: Path, lines: str, files: dict[str, str]) -> Path:
    for name, text in {
        "proc/self/cgroup": lines,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V1 = "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n"


@pytest.mark.parametrize(
    ("lines", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        (
            "0::/pod/one\n",
            {"cpu.max": "max 100000", "pod/cpu.max": "400000 100000", "pod/one/cpu.max": "max 100000"},
            4.0,
        ),
        ("0::/pod/one\n", {"pod/cpu.max": "400000 100000", "pod/one/cpu.max": "50000 100000"}, 0.5),
        ("0::/elsewhere\n", {"cpu.max": "200000 100000"}, 2.0),
        (V1, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        (
            V1,
            {"cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000", "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/\n", {"cpu.max": "100000 0"}, None),
        ("", {}, None),
    ],
)
def test_quota_of_containers(lines: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cpu_quota(cgroup(tmp_path, lines, files)) == quota


def test_no_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.0, 1), (1e9, None), (None, None)])
def test_cores_within_the_quota(quota: float | None, cores: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = cpu_count()
    monkeypatch.setattr("thirtytwo.machine.cpu_quota", lambda: quota)
    assert cpu_count() == (cores or unlimited)


def test_where_the_system_shares_ports_they_are_taken_exclusively(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, SO_REUSEADDR would take a port that another program listens on."""
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)  # stands for it elsewhere
    with listen("127.0.0.1", 0) as taken:
        assert taken.getsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE)
        assert not taken.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
