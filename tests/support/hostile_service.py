# SPDX-License-Identifier: Apache-2.0
"""Flow Service on a raw server: poisoned texts in flow runs, and responses that are huge."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterable
from itertools import chain, repeat
from typing import Any
from urllib.parse import parse_qs, urlsplit

from raw_server import Piece, RawServer

MIB = 2**20
POISON = "a\0b\ud83d\x1b[31m\nERROR forged"
"""NUL, half an emoji, an escape sequence and a line break."""
CLEANED = "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}[31m ERROR forged"
"""The poison as the package returns it."""
_HEAD = b"HTTP/1.1 200 OK\r\n"
_ENDED_AFTER = 3


class HostileService:
    """Flow Service and IMS, as a script of a `RawServer`. The id of a flow run decides its state and its response.

    - `innocent_1`, ...: in progress until `released` is set, then a success.
    - `nul_success`, `nul_failed`, ...: ended at the third read, with poison in every text.
    - `huge_gzip`, `huge_endless`, `huge_values`: each response that shows this flow run is too large.

    A `POST` creates `nul_operator`. The name of each dataflow is poison.
    """

    def __init__(self) -> None:
        self.released = threading.Event()
        self.reads: Counter[str] = Counter()
        bomb = _twice_compressed_zeros(128)
        self._huge: dict[str, tuple[bytes, Iterable[bytes]]] = {
            "huge_gzip": (b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb), [bomb]),
            "huge_endless": (b"\r\n", repeat(b'{"items": [' + b"[" * 65_536)),
            "huge_values": (b"\r\n", [b'{"items": [', *repeat(b"[]," * 20_000, 200), b"0]}"]),
        }

    def server(self, *, time_limit: float) -> RawServer:
        """Return a server of this script."""
        return RawServer(self, time_limit=time_limit)

    def __call__(self, request: bytes) -> Iterable[Piece]:
        """Return the pieces of a response."""
        method, target = request.split(b" ", 2)[:2]
        url = urlsplit(target.decode())
        if url.path == "/ims/token/v3":
            return [_json({"access_token": "token-of-the-hostile-service", "expires_in": 86_399})]
        if method == b"POST":
            return [_json({"items": [{"id": "nul_operator", "etag": POISON}]}, status=b"201 Created")]
        if "/runs" not in url.path:
            return [_json({"items": [_flow(url.path.rpartition("/")[2])]})]
        ids = self._requested_ids(url.path, parse_qs(url.query))
        self.reads.update(ids)
        for name in ids:
            if name in self._huge:
                headers, pieces = self._huge[name]
                return chain([_HEAD, headers], pieces)
        return [_json({"items": [self._run(name) for name in ids]})]

    def _requested_ids(self, path: str, query: dict[str, list[str]]) -> list[str]:
        name = path.rpartition("/runs")[2].lstrip("/")
        if name:
            return [name]
        conditions = [each for each in query.get("property", []) if each.startswith("id==")]
        return conditions[0][4:].split(",") if conditions else []

    def _run(self, name: str) -> dict[str, Any]:
        is_ended = self.released.is_set() if name.startswith("innocent") else self.reads[name] >= _ENDED_AFTER
        summary: dict[str, Any] = {"status": "inProgress"}
        if is_ended:
            summary = {"status": "failed" if name == "nul_failed" else "success"}
        if is_ended and not name.startswith("innocent"):
            summary["errors"] = [{"code": POISON, "message": POISON}]
        return {
            "id": name,
            "flowId": "flow-1",
            "etag": POISON,
            "createdClient": POISON,
            "metrics": {"statusSummary": summary},
            "activities": [],
        }


def _flow(name: str) -> dict[str, Any]:
    return {"id": name, "name": POISON, "state": "enabled", "scheduleParams": {"frequency": "once"}, POISON: POISON}


def _json(value: Any, *, status: bytes = b"200 OK") -> bytes:
    body = json.dumps(value).encode()
    headers = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"HTTP/1.1 " + status + b"\r\nx-request-id: a\x1b[31mb\r\n" + headers + body


def _twice_compressed_zeros(members: int) -> bytes:
    """Return about 10 kB that are `members` x 4 MiB after two decompressions."""
    return gzip.compress(gzip.compress(bytes(4 * MIB), mtime=0) * members)
