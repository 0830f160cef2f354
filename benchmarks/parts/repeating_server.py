"""A server that only repeats: what one waits for its answers is the client's, the network's and the machine's.

It asks the server at ADDRESS every request once, and knows the answer from then on.

    python -m benchmarks.parts.repeating_server HOST:PORT
"""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager


@contextmanager
def repeating(address: str) -> Generator[str]:
    """Such a server for the one at an address, as a process of its own; yields where it is."""
    command = [sys.executable, "-m", "benchmarks.parts.repeating_server", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Repeater:
    """Answers by the bodies of their requests.

    Args:
        address: of the server that is asked what is not known yet.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._known = dict[bytes, bytes]()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All requests of one connection."""
        with closing(writer):
            while head := await _head(reader):
                path, headers = head
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if body not in self._known:
                    self._known[body] = self._asked(path, body, headers)
                writer.write(self._known[body])

    def _asked(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        with closing(http.client.HTTPConnection(self._address)) as upstream:
            upstream.request("POST", path, body, headers)
            answer = upstream.getresponse()
            lines = (f"{name}: {value}" for name, value in answer.getheaders())
            return "\r\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *lines, "", ""]).encode() + answer.read()


async def _head(reader: asyncio.StreamReader) -> tuple[str, dict[str, str]] | None:
    """Path and headers of the next request; None at the end."""
    try:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    except asyncio.IncompleteReadError:
        return None
    fields = (line.split(": ", 1) for line in lines)
    return first.split()[1], {name.lower(): value for name, value in fields}


async def main(address: str) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(Repeater(address).answer, "127.0.0.1", 0, limit=2**26)
    host, port = server.sockets[0].getsockname()
    print(f"{host}:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
