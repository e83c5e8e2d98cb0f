"""Where the processes of a training meet: they check that they fit together before any of them waits for the others."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from thirtytwo.errors import ProcessError
from thirtytwo.machine import package_version
from thirtytwo.training.layout import Layout

JOIN_SECONDS = 600.0
"""How long the processes wait for each other."""
LOG_SECONDS = 5.0
"""After how long process 0 logs what it waits for."""
_POLL_SECONDS = 0.1


def meet(layout: Layout, log: Callable[[str], None], problem: Callable[[], str | None]) -> Store:
    """Wait until all processes are there and agree; returns the store through which they form a process group.

    Args:
        layout: the processes.
        log: logs what process 0 waits for.
        problem: what happened to a process that this one watches, or None.

    Raises:
        ProcessError: a process was started with other options or is missing.
    """
    host, port = layout.environment.main_address, layout.environment.main_port
    store = PrefixStore(f"thirtytwo {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", _open(layout, host, port))
    mine = {"--devices": layout.devices, "--nodes": layout.nodes, "version": package_version("thirtytwo")}
    if store.add(f"count {layout.rank}", 1) > 1:
        _refuse(store, f"Two processes have the number {layout.rank}.", "Give each machine a NODE_RANK of its own.")
    if layout.rank == 0:
        store.set("expected", json.dumps(mine))
        _wait_for_all(layout, store, f"{host}, port {port}", log, problem)
        store.set("complete", "yes")
        return PrefixStore("group", store)
    try:
        expected = json.loads(store.get("expected"))
        _check_same(layout, store, mine, expected)
        store.set(f"here {layout.rank}", "yes")
        store.wait(["complete"], timedelta(seconds=JOIN_SECONDS))
    except RuntimeError:  # DistStoreError: no answer, or process 0 is gone
        reason = f"{_name(layout)} waited for {host}, port {port}, but process 0 did not start the training."
        raise ProcessError(reason, "See what process 0 reports, and start all processes again.") from None
    return PrefixStore("group", store)


def _name(layout: Layout) -> str:
    return f"process {layout.rank} of {layout.world_size} on {socket.gethostname()}"


def _open(layout: Layout, host: str, port: int) -> Store:
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun listens itself
    listens = layout.rank == 0 and not agent
    try:
        wait = timedelta(seconds=JOIN_SECONDS)
        return TCPStore(host, port, None, listens, wait, wait_for_workers=False, multi_tenant=True)
    except RuntimeError as error:
        if listens:
            reason = " ".join(str(error).split("\n")[0].split())
            raise ProcessError(
                f"Process 0 cannot listen on {host}, port {port}: {reason}.",
                "Set MASTER_ADDR to an address of this machine and MASTER_PORT to a free port.",
            ) from None
        raise ProcessError(
            f"{_name(layout)} could not reach process 0 at {host}, port {port}.",
            "Start process 0, and check MASTER_ADDR, MASTER_PORT and the firewall of the first machine.",
        ) from None


def _check_same(layout: Layout, store: Store, mine: dict[str, Any], expected: dict[str, Any]) -> None:
    for what, value in mine.items():
        if value != expected.get(what):
            _refuse(
                store,
                f"{_name(layout)} has {what} {value}, but process 0 has {expected.get(what)}.",
                "Start all processes with the same options and the same version of thirtytwo.",
            )


def _refuse(store: Store, message: str, fix: str) -> None:
    store.set("refused", json.dumps([message, fix]))
    raise ProcessError(message, fix)


def _wait_for_all(
    layout: Layout, store: Store, place: str, log: Callable[[str], None], problem: Callable[[], str | None]
) -> None:
    start, logged = time.monotonic(), False
    missing = set(range(1, layout.world_size))
    while missing := {rank for rank in missing if not store.check([f"here {rank}"])}:
        found = problem()
        if store.check(["refused"]):  # after that: who refuses ends
            raise ProcessError(*json.loads(store.get("refused")))
        if found:
            raise ProcessError(f"The training could not start: {found}.", "See what that process reports.")
        waited = time.monotonic() - start
        if waited > JOIN_SECONDS:
            raise ProcessError(
                f"Of {layout.world_size} processes, number {', '.join(map(str, sorted(missing)))} did not connect to "
                f"{place} within {JOIN_SECONDS:.0f} seconds.",
                "Start them, or correct --devices and --nodes.",
            )
        if waited > LOG_SECONDS and not logged and layout.nodes > 1:
            log(f"waiting at {place} for {len(missing)} of {layout.world_size} processes")
            logged = True
        time.sleep(_POLL_SECONDS)
