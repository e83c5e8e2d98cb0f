"""The machine that the program runs on: processor, cores, memory, network addresses, and installed packages."""

from __future__ import annotations

import os
import platform
import sys
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from thirtytwo.errors import ServiceError

if TYPE_CHECKING:
    import socket

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Names of the address that only this machine can reach."""


def cpu_name() -> str:
    """Name of the processor, such as `AMD EPYC 7763 64-Core Processor`."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cpu_count(most: int | None = None) -> int:
    """Number of CPU cores that this process may use, at least 1 and at most `most`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (quota := cpu_quota()) is not None:
        available = min(available, ceil(quota))
    return max(1, available if most is None else min(most, available))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU cores that the control groups of this process allow, as in a container; None without a limit.

    Args:
        root: directory that holds `proc` and `sys`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    mounted, quotas = root / "sys/fs/cgroup", []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:  # version 2
            quotas += [_quota_v2(place) for place in _groups(mounted, group)]
        elif "cpu" in controllers.split(","):
            for name in ("cpu", "cpu,cpuacct"):
                quotas += [_quota_v1(place) for place in _groups(mounted / name, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _groups(mounted: Path, group: str) -> list[Path]:
    """The directories of a control group and of those that it is in; a container sees its own one as the root."""
    inner = Path(group.lstrip("/"))
    return [mounted / parent for parent in (inner, *inner.parents)]


def _quota_v2(place: Path) -> float | None:
    """Quota in `cpu.max`, such as `150000 100000`; None without one (`max 100000`)."""
    try:
        quota, period = (place / "cpu.max").read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(place: Path) -> float | None:
    """Quota in `cpu.cfs_quota_us`; None without one (-1)."""
    try:
        quota, period = (
            int((place / f"cpu.cfs_{what}_us").read_text(encoding="ascii")) for what in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def memory_gb() -> float | None:
    """Main memory in GB (10⁹ bytes); None where the system does not report it.

    Without psutil, which the plain install lacks.
    """
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def peak_memory_mb() -> float | None:
    """Peak memory of this process since its start in MB (10⁶ bytes); None where the system does not report it."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def listen(host: str, port: int, tried: int = 1) -> socket.socket:
    """A socket bound to the first free port of `tried` ports, starting at `port`; port 0 picks a free one.

    Raises:
        ServiceError: the address is invalid or in use.
    """
    import socket  # takes a while

    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServiceError(
            f"Cannot resolve the address {host!r}: {error.strerror or error}.", "Check --host."
        ) from None
    # on Windows, SO_REUSEADDR takes a port that another program listens on
    option: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    reason = ""
    for candidate in range(port, min(port + tried, 65_536)):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
            listener.bind((place[0], candidate, *place[2:]))
            return listener
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
    raise ServiceError(f"Cannot listen on {host}, port {port}: {reason}.", "Choose another with --port or --host.")


def address(host: str, port: int) -> str:
    """The URL of a local server, with an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
"""Addresses to listen on that mean every address of this machine."""


def network_address() -> str | None:
    """The IPv4 address of this machine in its local network; None without one.

    Nothing is sent: the system only chooses the address that it would send from.
    """
    import socket  # takes a while

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737)
            found = str(asking.getsockname()[0])
    except OSError:
        return None
    return None if found.startswith("127.") or found in ANY_ADDRESS else found


def as_prefix(path: str) -> str:
    """The path prefix of a service behind a proxy, with a slash at its start and none at its end; empty without one."""
    return "/" + path.strip("/") if path.strip("/") else ""


def package_version(name: str) -> str:
    """The installed version of a package; `0+unknown` where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # takes a while to import

    try:
        return version(name)
    except PackageNotFoundError:
        return "0+unknown"
