"""Run the service: socket, signals and graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from thirtytwo.machine import address, listen
from thirtytwo.process import quiet_loggers
from thirtytwo.serve.api import create_app

if TYPE_CHECKING:
    from thirtytwo.serve.service import Backend

_LINGER = 1.0  # seconds during shutdown in which open connections may still send requests
_POLL = 0.02
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(service: Backend, on_start: Callable[[str], None]) -> bool:
    """Start the service, serve until SIGTERM or Ctrl-C, then finish accepted requests.

    Args:
        service: service to run; its settings contain the address.
        on_start: called with the address once requests are accepted.

    Returns:
        Whether it was stopped with Ctrl-C.

    Raises:
        ServiceError: the address is invalid or in use.
        ModelFileError: a model cannot predict.
    """
    settings = service.settings
    config = uvicorn.Config(
        create_app(service),
        log_level="info" if settings.access_log else "warning",
        access_log=settings.access_log,
        lifespan="on",
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=int(settings.timeout) + 5,
    )
    # Malformed bodies are reported to the client; this parser would also log them.
    with quiet_loggers("python_multipart"), contextlib.closing(listen(settings.host, settings.port)) as listener:
        service.start()  # not in the application's lifespan, whose errors Uvicorn logs with a traceback
        port = listener.getsockname()[1]
        server = _Server(config, service, lambda: on_start(address(settings.host, port)))
        server.run(sockets=[listener])
    return server.interrupted


class _Server(uvicorn.Server):
    """Uvicorn with a shutdown that loses no request.

    On shutdown Uvicorn closes idle connections, on any of which a request may be in flight. This server still
    responds to such requests, with the header `Connection: close`.
    """

    def __init__(self, config: uvicorn.Config, service: Backend, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._service, self._on_start = service, on_start
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.ready = False  # from now on responses close the connection
        await asyncio.sleep(0)  # accept pending connections before the socket closes
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
        """Like Uvicorn's, but does not raise the signal again: the command line sets the exit code."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
