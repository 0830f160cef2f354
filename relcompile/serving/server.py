"""One process that serves explainers until it is told to end."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass

import uvicorn

from relcompile.errors import InputSpecError
from relcompile.serving.application import Limits, Server
from relcompile.serving.model import Model

_CLOSING = 30  # seconds for answers that are under way


@dataclass(frozen=True)
class Address:
    """Where to listen; port 0: any that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    def open(self) -> socket.socket:
        """The socket; what is sent on its connections is sent at once.

        asyncio sees to that for sockets that it makes itself alone. Without it, an answer of two packets takes 40 ms:
        the second waits until the client confirms the first.

        Raises:
            InputSpecError: the address is taken, or not this machine's.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            listening = socket.create_server((self.host, self.port), family=family)
        except (OSError, OverflowError) as error:
            raise InputSpecError(f"cannot listen on {self.host}:{self.port}: {error}") from error
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening


def serve(models: Mapping[str, Model], limits: Limits, listening: socket.socket, connections: int) -> None:
    """Answer requests until SIGTERM or SIGINT; then no new ones are taken, and those under way are answered.

    Args:
        models: by name.
        limits: of one request.
        listening: where.
        connections: at most so many at a time; further ones are answered 503.
    """
    config = uvicorn.Config(
        Server(models, limits).application(),
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=_CLOSING,
    )
    uvicorn.Server(config).run([listening])
