"""Running the service: its socket, its signals, and an end that leaves nobody without an answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from thirtytwo.errors import ServiceError
from thirtytwo.serve.api import create_app

if TYPE_CHECKING:
    from thirtytwo.serve.service import Service

_LINGER = 1.0  # seconds in which clients of open connections may still ask
_POLL = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(service: Service, started: Callable[[str], None]) -> bool:
    """Serve until SIGTERM or Ctrl-C, then finish what was accepted; whether it was Ctrl-C.

    Args:
        service: what answers; its settings say where.
        started: told the address once requests are taken.

    Raises:
        ServiceError: the address cannot be listened on.
    """
    settings = service.settings
    # What a client sends wrongly is told to the client; this parser would also log it.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    config = uvicorn.Config(
        create_app(service),
        log_level="info" if settings.access_log else "warning",
        access_log=settings.access_log,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=int(settings.timeout) + 5,
    )
    with contextlib.closing(_listen(settings.host, settings.port)) as listening:
        server = _Server(config, service, lambda: started(_address(settings.host, listening)))
        server.run(sockets=[listening])
    return server.interrupted


class _Server(uvicorn.Server):
    """Uvicorn, with an end on which no client finds its request cut off.

    Uvicorn by itself closes connections that are idle when it is told to stop, and a request may be on its way on any
    of them. Here those still get their answer, with the request to close the connection after it.
    """

    def __init__(self, config: uvicorn.Config, service: Service, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.ready = False  # from here on answers ask to close the connection
        await asyncio.sleep(0)  # connections that wait to be accepted are, before nobody listens
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + _LINGER
        while self.server_state.connections and loop.time() < end and not self.force_exit:
            await asyncio.sleep(_POLL)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT:
            self.force_exit = self.should_exit
            self.interrupted = True
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As Uvicorn's, but the signal is not raised again: the command line knows how it ends."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    """A socket bound to that address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServiceError(f"There is no address {host!r} here: {error.strerror or error}.", "Check --host.") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ServiceError(
            f"{host}, port {port} cannot be listened on: {error.strerror}.", "Choose another with --port or --host."
        ) from None
    return listening


def _address(host: str, listening: socket.socket) -> str:
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
