# SPDX-License-Identifier: Apache-2.0
"""Server on raw sockets that sends any bytes at any pace, for tests of responses that no HTTP server would send.

It listens on loopback only, sends at most `MAX_SENT_BYTES` to a connection, and ends all connections after a time
limit.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

MAX_SENT_BYTES = 2**30

Piece = bytes | float
"""Bytes to send, or seconds to pause."""
Script = Callable[[bytes], Iterable[Piece]]


class RawServer:
    """Server that reads a request completely, sends the pieces of a script, and closes the connection.

    :param script: bytes, or a function that returns pieces for the bytes of a request; can be replaced at any time.
    :param time_limit: seconds after which every connection ends.
    """

    def __init__(self, script: bytes | Script = b"", *, time_limit: float = 60.0) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self._ends_at = time.monotonic() + time_limit
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(time_limit)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        # `close` does not end an `accept` that waits.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        # Otherwise, the thread could accept connections of the next server, whose socket has the same number.
        self._accepting.join(timeout=5)
        self._listener.close()

    def count(self, method: str) -> int:
        """Return the number of requests with a method."""
        return sum(request.startswith(f"{method} ".encode()) for request in self.requests)

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._stopped.is_set():
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(5)
            if not (request := self._read(connection)):
                return
            self.requests.append(request)
            script = self.script
            self._send(connection, [script] if isinstance(script, bytes) else script(request))
            connection.shutdown(socket.SHUT_WR)

    def _read(self, connection: socket.socket) -> bytes:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (received := connection.recv(65_536)):
                return b""
            request += received
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [line.lower() for line in head.split(b"\r\n")]
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        while len(body) < length and (received := connection.recv(65_536)):
            body += received
        return head + b"\r\n\r\n" + body

    def _send(self, connection: socket.socket, pieces: Iterable[Piece]) -> None:
        sent = 0
        for piece in pieces:
            if self._stopped.is_set() or time.monotonic() > self._ends_at or sent > MAX_SENT_BYTES:
                return
            if isinstance(piece, bytes):
                connection.sendall(piece)
                sent += len(piece)
            else:
                self._stopped.wait(min(piece, self._ends_at - time.monotonic()))


def trickle(prefix: bytes, text: bytes, *, pause: float) -> Script:
    """Return a script that sends a prefix at once, and then a text again and again, one byte at a time."""

    def pieces(request: bytes) -> Iterator[Piece]:
        yield prefix
        for byte in chain.from_iterable(repeat(text)):
            yield pause
            yield bytes([byte])

    return pieces


def flood(prefix: bytes, piece: bytes) -> Script:
    """Return a script that sends a prefix, and then a piece without end."""
    return lambda request: chain([prefix], repeat(piece))
