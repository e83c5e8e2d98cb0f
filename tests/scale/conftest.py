"""A local Ray cluster of two nodes for all tests."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import thirtytwo

EXTRA = 'needs the extra scale: pip install "thirtytwo[scale]"'


@dataclass(frozen=True)
class Running:
    """A cluster: the module `ray`, its address inside and, through Ray's client, outside."""

    ray: Any
    address: str
    client: str


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster of two nodes with one CPU core each, to which this process is connected."""
    pytest.importorskip("ray", reason=EXTRA)
    from thirtytwo.scale.cluster import import_ray

    ray = import_ray()
    from ray.cluster_utils import Cluster

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    own: Any = Cluster()
    try:
        own.add_node(**node, include_dashboard=False, ray_client_server_port=port)
        own.add_node(**node)
        ray.init(address=own.address, logging_level="ERROR", log_to_driver=False)
        yield Running(ray, own.address, f"ray://127.0.0.1:{port}")
    finally:
        ray.shutdown()
        own.shutdown()


@pytest.fixture(scope="session")
def read_rows() -> Callable[..., list[dict[str, Any]]]:
    """Reads the rows of the results in an output folder, in order."""
    parquet = pytest.importorskip("pyarrow.parquet")

    def read(out: Path, folder: str = "predictions") -> list[dict[str, Any]]:
        parts = sorted((out / folder).glob("*.parquet")) if (out / folder).is_dir() else []
        return [row for part in parts for row in parquet.read_table(part).to_pylist()]

    return read


@pytest.fixture(scope="session")
def process_environment() -> dict[str, str]:
    """The environment of a process that runs this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(thirtytwo.__file__).parent.parent)}
