"""Versions of Ray and Python: those of this process and of a cluster have to be the same."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any, NamedTuple

from thirtytwo.scale.address import Address

VERSIONS_SECONDS = 30.0
"""Time for a cluster to say which versions it runs, for which it starts a process."""
ATTEMPTS = 3
"""How often it is asked."""
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")


class Versions(NamedTuple):
    """Versions of Ray and Python of a process."""

    ray: str
    python: str

    @property
    def release(self) -> tuple[str, str]:
        """What has to be equal: Ray, and Python's minor version."""
        return self.ray, ".".join(self.python.split(".")[:2])

    def __str__(self) -> str:
        return f"Ray {self.ray} and Python {self.python}"


def same_versions(there: Versions, here: Versions) -> str:
    """How to make the versions equal."""
    if there.ray == here.ray:
        return f"Use Python {there.python} here, or start the cluster with Python {here.python}."
    python = "" if there.release[1] == here.release[1] else f"under Python {there.release[1]} "
    return f'Install the same versions, for example here {python}with: pip install "ray=={there.ray}"'


def versions_in(error: BaseException) -> tuple[Versions, Versions] | None:
    """Versions of the cluster and of this process, where an error says that they differ."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        chain.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    found = [Versions(*pair) for pair in _VERSIONS.findall("\n".join(chain))]
    return (found[0], found[1]) if len(found) > 1 else None


def ask_versions(address: Address) -> Versions | None:
    """The versions of a client server; None if it does not say them.

    The server starts a process for each client, which can fail on a busy machine, so that it is asked again.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(1)
        try:
            found = _ask_once(f"{address.host}:{address.port}")
        except Exception:  # another protocol, or no access: the error that led here is reported
            return None
        if found is not None:
            return found
    return None


def _ask_once(place: str) -> Versions | None:
    """The versions of a client server; None if it starts no process for this client.

    The messages are protocol buffers alone, which all versions understand, while `ray.init` also sends pickled objects.
    """
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import ray_client_pb2, ray_client_pb2_grpc

    messages: Any = ray_client_pb2  # generated modules, without types
    stubs: Any = ray_client_pb2_grpc
    sent = [
        messages.DataRequest(req_id=1, init=messages.InitRequest(ray_init_kwargs="{}")),
        messages.DataRequest(req_id=2, connection_info=messages.ConnectionInfoRequest()),
        messages.DataRequest(req_id=3, connection_cleanup=messages.ConnectionCleanupRequest()),
    ]
    client = [("client_id", uuid.uuid4().hex), ("reconnecting", "False")]
    channel = init_grpc_channel(place, asynchronous=False)  # with the user's token or TLS
    try:
        ask = stubs.RayletDataStreamerStub(channel).Datapath
        for answer in ask(iter(sent), metadata=client, timeout=VERSIONS_SECONDS):
            if answer.WhichOneof("type") == "connection_info":
                return Versions(answer.connection_info.ray_version, answer.connection_info.python_version)
    finally:
        channel.close()
    return None
