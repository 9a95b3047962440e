# SPDX-License-Identifier: Apache-2.0
"""Fixtures: a scripted server on loopback that records requests, and clients of it."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from contract import RECORDER

from airflow_flowservice.api.client import FlowServiceClient

RUN_ID = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"


@dataclass
class Request:
    """Request as received."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """Server that answers requests with a list of raw replies; the last reply is repeated.

    A reply is bytes, a callable that creates bytes from the request, or one of these:

    - `RESET`: read the request, then reset the connection.
    - `HANG_UP`: close the connection.
    - `SILENCE`: read the request, and never respond.
    """

    RESET = "reset"
    HANG_UP = "hang up"
    SILENCE = "silence"

    replies: list[Any] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def then(self, *replies: Any) -> Server:
        self.replies.extend(replies)
        return self

    @staticmethod
    def answer(body: Any = b"", status: int = 200, **headers: str) -> bytes:
        """Return a complete response; a body that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Content-Length": str(len(content)), "X-Request-Id": "request-1"}
        fields.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + content

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.append(connection)
                number = len(self._connections)
            threading.Thread(target=self._serve, args=(connection, number), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := self._read(stream, number)) is not None:
                    if not self._reply(connection, request):
                        return
        except OSError:
            return

    def _read(self, stream: Any, number: int) -> Request | None:
        first = stream.readline(2000).decode("latin-1").split()
        if len(first) < 3 or not first[2].startswith("HTTP/"):
            return None
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        return Request(first[0], first[1], headers, body, number)

    def _reply(self, connection: socket.socket, request: Request) -> bool:
        # The contract has no path of a gateway in front of Flow Service.
        target = request.target.removeprefix("/gateway")
        RECORDER.check(request.method, target, request.headers, request.body)
        with self._lock:
            self.requests.append(request)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = reply(request)
        if reply == self.RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply == self.HANG_UP:
            return False
        if reply == self.SILENCE:
            self._stopped.wait(30)
            return False
        connection.sendall(reply)
        return _is_whole(reply) and b"connection: close" not in reply.lower()


def _is_whole(reply: bytes) -> bool:
    head, _, body = reply.partition(b"\r\n\r\n")
    return f"content-length: {len(body)}\r\n" in f"{head.decode().lower()}\r\n"


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server whose replies are set by `server.then(...)`."""
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def other_server() -> Iterator[Server]:
    """Run another server."""
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def closed_port() -> int:
    """Return a port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def pauses() -> list[float]:
    """Return the list of seconds that clients would have waited."""
    return []


@pytest.fixture
def make_client(server: Server, pauses: list[float]) -> Iterator[Callable[..., FlowServiceClient]]:
    """Return a function that creates clients of the server with a ready token; pauses are recorded only."""
    made: list[FlowServiceClient] = []

    def make(**settings: Any) -> FlowServiceClient:
        if "client_secret" not in settings:
            settings.setdefault("access_token", "ready-token")
        defaults: dict[str, Any] = {
            "base_url": server.url,
            "ims_url": server.url,
            "client_id": "client-1",
            "org_id": "ORG@AdobeOrg",
            "timeout_s": 5,
            "pause": pauses.append,
        }
        made.append(FlowServiceClient(**{**defaults, **settings}))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., FlowServiceClient]) -> FlowServiceClient:
    """Return a client with a ready token."""
    return make_client()


@pytest.fixture
def secret() -> str:
    """Return a client secret that only this test uses, because clients share tokens in the process."""
    return f"p8e-{uuid4().hex}+/= &"
