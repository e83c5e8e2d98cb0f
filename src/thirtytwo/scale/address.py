"""Addresses of Ray clusters, and what responds there."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any, Literal

from thirtytwo.errors import ClusterError, require

EXTRA = "scale"
EXPECTED = "ray, auto, ray://HOST:PORT or HOST:PORT"
"""Addresses of a cluster, for messages."""
CLIENT_PORT, HEAD_PORT = 10001, 6379
"""Ports of Ray's defaults: of its client server, and of the head node (GCS)."""
REACH_SECONDS = 5.0
"""Time for a cluster's port to respond."""
_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call that every head node answers; an empty message is a request."""
CHECK = f"Check the address: ray://HOST:{CLIENT_PORT} from outside of the cluster, HOST:{HEAD_PORT} from inside."
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Address:
    """Where a cluster is.

    `kind` is `any` (one that runs on this machine, else a new one), `running` (one that runs), `client` (through Ray's
    client server, from outside of the cluster) or `head` (from a machine of the cluster); the last two have a host and
    a port.
    """

    kind: Literal["any", "running", "client", "head"]
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        names = {"any": "ray", "running": "auto"}
        place = f"{self.host}:{self.port}"
        return names.get(self.kind) or (f"ray://{place}" if self.kind == "client" else place)


def parse_address(text: str) -> Address:
    """The cluster that the option --on names.

    Raises:
        ClusterError: it is none of `EXPECTED`.
    """
    if text == "ray":
        return Address("any")
    if text == "auto":
        return Address("running")
    scheme, mark, place = text.rpartition("://")
    kind: Literal["client", "head"] = "client" if mark else "head"
    if mark and place and ":" not in place.rpartition("]")[2]:
        place = f"{place}:{CLIENT_PORT}"
    found = _HOST_PORT.fullmatch(place)
    if found is None or scheme != ("ray" if mark else "") or not 0 < int(found["port"]) < 2**16:
        raise ClusterError(f"{text!r} is not an address of a Ray cluster.", f"Expected {EXPECTED}.")
    return Address(kind, found["host"], int(found["port"]))


def check_reachable(address: Address) -> None:
    """Check within `REACH_SECONDS` that the port of a cluster responds as Ray does; Ray itself tries for longer.

    Raises:
        ClusterError: it does not.
    """
    _check_port(address)
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    place = f"{address.host}:{address.port}"
    if not _speaks_grpc(place):
        raise ClusterError(f"What responds at {address} is not a Ray cluster.", CHECK)
    answer = _ask_head(_channel(place))
    if answer == "UNAUTHENTICATED":
        answer = _ask_head_with_token(place)
    if answer == "UNAUTHENTICATED":
        raise ClusterError(
            f"The Ray cluster {address} asks for a token; this process has none, or another one.",
            "Copy ~/.ray/auth_token from its head node to this machine, or set RAY_AUTH_TOKEN.",
        )
    if address.kind == "client" and answer == "OK":
        raise ClusterError(
            f"What responds at {address} is a head node, not its client server.",
            f"Give --on {place} on a machine of the cluster, or ray://{address.host}:{CLIENT_PORT} outside of it.",
        )
    if address.kind == "head" and answer == "UNIMPLEMENTED":
        raise ClusterError(f"What responds at {address} is not the head node of a Ray cluster.", CHECK)


def _check_port(address: Address) -> None:
    """Check that a port accepts connections; raises like `check_reachable`."""
    host = address.host.strip("[]")
    try:
        socket.create_connection((host, address.port), timeout=REACH_SECONDS).close()
        return
    except TimeoutError:
        reason = f"no answer within {REACH_SECONDS:g} seconds"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    except UnicodeError:  # raised before the name is looked up
        reason = f"{host} is not a name of a machine"
    raise ClusterError(f"No Ray cluster can be reached at {address}: {reason}.", CHECK)


def _channel(place: str) -> Any:
    """A channel of gRPC without a token; not through a proxy of HTTP, as Ray's own."""
    from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS

    return require("grpc", EXTRA).insecure_channel(place, options=GLOBAL_GRPC_OPTIONS)


def _ask_head_with_token(place: str) -> str:
    """`_ask_head` with the user's token, which Ray reads once; not for a cluster that asks for none."""
    from ray._private.grpc_utils import init_grpc_channel

    try:
        return _ask_head(init_grpc_channel(place, asynchronous=False))
    except Exception:  # there is none, although RAY_AUTH_MODE asks for one
        return "UNAUTHENTICATED"


def _speaks_grpc(place: str) -> bool:
    """Whether a port accepts connections of gRPC, which Ray uses."""
    grpc = require("grpc", EXTRA)
    channel = _channel(place)
    try:
        grpc.channel_ready_future(channel).result(timeout=REACH_SECONDS)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True


def is_open(place: str) -> bool:
    """Whether the cluster whose head node responds there asks for no token."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return False
    return _ask_head(_channel(place)) == "OK"


def _ask_head(channel: Any) -> str:
    """How what responds answers a call to head nodes: OK, or the name of an error of gRPC; closes the channel."""
    grpc = require("grpc", EXTRA)
    try:
        channel.unary_unary(_CHECK_ALIVE)(b"", timeout=REACH_SECONDS)
    except grpc.RpcError as error:
        return str(error.code().name)
    finally:
        channel.close()
    return "OK"
