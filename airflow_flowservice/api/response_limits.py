# SPDX-License-Identifier: Apache-2.0
"""Limits of time and size of a response, and whether its request was sent.

`requests` reports neither: a failed TLS handshake and an incomplete response raise the same classes, and a read
timeout begins again with each received byte. After a failed handshake, a POST created nothing; after an incomplete
response, its outcome is unknown.

All bytes of a response pass through one reader: the status line, `100 Continue`, headers, chunks and the body, and
also the response of a proxy to `CONNECT`. urllib3 before 2.6 decompresses without a limit, so this module decompresses
the transferred bytes.
"""

from __future__ import annotations

import http.client
import io
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from requests import Session
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from requests.utils import prepend_scheme_if_needed, select_proxy
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from requests import PreparedRequest, Response
    from urllib3.response import BaseHTTPResponse

MAX_RECEIVED_BYTES = 32 * 2**20
"""Maximum size of a response as transferred, with its headers and the framing of chunks."""


class ResponseTooLargeError(Exception):
    """The response exceeds a limit of size."""


@dataclass(kw_only=True)
class SendAttempt:
    """One attempt to send a request and to receive its response.

    :param limit_s: seconds for the whole attempt.
    :param ends_at: end of the attempt, in seconds of the monotonic clock.
    :param sent: True if a byte of the request may have left this machine.
    :param received: number of received bytes.
    :param streams: open streams of responses.
    :param max_bytes: maximum size of the response as transferred.
    """

    limit_s: float
    ends_at: float
    max_bytes: int = MAX_RECEIVED_BYTES
    sent: bool = False
    received: int = 0
    streams: list[io.BufferedReader] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Return True if the time of the attempt is used up."""
        return time.monotonic() >= self.ends_at

    def remaining_s(self) -> float:
        """Return the seconds until the attempt ends.

        :raises TimeoutError: the attempt is over.
        """
        remaining = self.ends_at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError(f"timed out: the limit for a request is {self.limit_s:g} s")
        return remaining

    def extend(self, *, seconds: float, max_bytes: int) -> None:
        """Apply other limits to the rest of the response, from now on."""
        self.limit_s, self.ends_at, self.max_bytes = seconds, time.monotonic() + seconds, max_bytes

    def count(self, received: int) -> None:
        """Add received bytes.

        :raises ResponseTooLargeError: the response exceeds `max_bytes`.
        """
        self.received += received
        if self.received > self.max_bytes:
            raise ResponseTooLargeError(f"more than {self.max_bytes >> 20} MiB were received")

    def close(self) -> None:
        """Close the streams after an error. urllib3 leaves them open after some errors."""
        for stream in self.streams:
            with suppress(OSError):
                stream.close()


class _Current(threading.local):
    attempt: SendAttempt | None = None


_current = _Current()


@contextmanager
def limited_attempt(seconds: float) -> Iterator[SendAttempt]:
    """Apply a limit of time to the requests that this thread sends inside, and record whether they were sent."""
    _current.attempt = attempt = SendAttempt(limit_s=seconds, ends_at=time.monotonic() + seconds)
    try:
        yield attempt
    finally:
        _current.attempt = None


class TrackingAdapter(HTTPAdapter):
    """Adapter whose connections apply `limited_attempt`, with and without a proxy. It never repeats a request."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _track(self.poolmanager)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """Send a request.

        :raises InvalidProxyURL: the proxy's address has no host; for one with a password, `requests` has a `TypeError`.
        """
        proxy = select_proxy(str(request.url), kwargs.get("proxies"))
        if proxy and not _has_host(proxy):
            raise InvalidProxyURL("the address of the proxy has no host")
        return super().send(request, *args, **kwargs)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        _track(manager)
        return manager


class SessionWithoutRedirects(Session):
    """Session that ignores `Location`. Otherwise, `requests` reads the body of a redirect without a limit."""

    def get_redirect_target(self, resp: Response) -> None:
        return None


def _has_host(proxy: str) -> bool:
    prepare: Any = prepend_scheme_if_needed
    try:
        prepare(proxy, "http")
    except TypeError:
        return False
    except ValueError:  # `requests` raises it again
        pass
    return True


def _track(manager: Any) -> None:
    pools = manager.pool_classes_by_scheme.items()
    manager.pool_classes_by_scheme = {scheme: _tracking_pool(pool_class) for scheme, pool_class in pools}


@cache
def _tracking_pool(pool_class: type[Any]) -> type[Any]:
    """Return a pool class with tracking connections; urllib3 has classes for http, https and SOCKS proxies."""
    if issubclass(pool_class.ConnectionCls, _TrackingConnection):
        return pool_class
    connection = type("TrackingConnection", (_TrackingConnection, pool_class.ConnectionCls), {})
    return type("TrackingPool", (pool_class,), {"ConnectionCls": connection})


class _LimitedReader(io.RawIOBase):
    """Stream of a socket that ends with an error when the attempt's time or size is used up."""

    def __init__(self, stream: io.RawIOBase, sock: Any, attempt: SendAttempt) -> None:
        self._stream = stream
        self._sock = sock
        self._attempt = attempt

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._attempt.remaining_s()
        timeout = self._sock.gettimeout()
        if timeout is None or remaining < timeout:
            self._sock.settimeout(remaining)
        received: int | None = self._stream.readinto(buffer)
        self._attempt.count(received or 0)
        return received

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _LimitedResponse(http.client.HTTPResponse):
    """Response that is read through a `_LimitedReader`."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        if (attempt := _current.attempt) is not None:
            stream: Any = self.fp
            self.fp = io.BufferedReader(_LimitedReader(stream.detach(), sock, attempt))
            attempt.streams.append(self.fp)

    def _read_status(self) -> tuple[str, int, str]:
        """Return the status line; that of an interim response as 100, since `http.client` skips no other one.

        It would return a connection to the pool, on which the next request receives this request's response.
        """
        version, status, reason = super()._read_status()  # type: ignore[misc]
        # 101 ends HTTP on this connection.
        is_interim = http.client.SWITCHING_PROTOCOLS < status < http.client.OK
        return version, http.client.CONTINUE if is_interim else status, reason


class _TrackingConnection(HTTPConnection):
    """Connection that applies the current attempt's limits, and records whether bytes may have left."""

    response_class = _LimitedResponse

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            # `CONNECT` goes to the proxy only.
            _record_sent(False)

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        if (attempt := _current.attempt) is not None and not attempt.sent:
            # A host with many addresses that do not respond takes a connect timeout for each.
            attempt.remaining_s()
        _record_sent(True)
        super().send(data)


def _record_sent(value: bool) -> None:
    if _current.attempt is not None:
        _current.attempt.sent = value


# --- body ---

ACCEPT_ENCODING = "gzip, deflate"
MAX_BODY_BYTES = 16 * 2**20
"""Maximum size of a decompressed body. Adobe's longest sample of a run has 4.4 kB."""
MAX_BODY_VALUES = 1_000_000
"""Maximum number of JSON values in a body: in memory, each takes up to 72 bytes."""

_CODINGS = ("gzip", "x-gzip", "deflate")
_MAX_CODINGS = 3
_MAX_GZIP_MEMBERS = 1000
_PIECE_BYTES = 65_536


class DecompressionError(Exception):
    """The body cannot be decompressed."""


class IncompleteBodyError(Exception):
    """The compressed body has no end."""


def read_body(response: BaseHTTPResponse) -> bytes:
    """Return the decompressed body of a response that was requested as a stream.

    An unknown `Content-Encoding` leaves the body unchanged.

    :raises ResponseTooLargeError: the body, or a stage of its decompression, exceeds a limit.
    :raises DecompressionError: the body is not valid in its encoding.
    """
    body = b"".join(body_pieces(response, limit=MAX_BODY_BYTES))
    _require_few_values(body)
    return body


def body_pieces(response: BaseHTTPResponse, *, limit: int, needs_end: bool = False) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of at most 64 KiB.

    :param limit: maximum number of bytes of the body, and of each stage of its decompression.
    :param needs_end: True if the reader cannot see whether the body is complete. A cut JSON value is unreadable anyway.
    :raises IncompleteBodyError: the body needs its end, and its compression has none.
    :raises ResponseTooLargeError: the body, or a stage of its decompression, exceeds the limit.
    :raises DecompressionError: the body is not valid in its encoding.
    """
    pieces = _limited(response.stream(_PIECE_BYTES, decode_content=False), limit)
    named = response.headers.get("content-encoding", "").lower().split(",")
    codings = [coding.strip() for coding in named if coding.strip() in _CODINGS]
    if len(codings) > _MAX_CODINGS:
        raise DecompressionError(f"it has {len(codings)} encodings")
    for coding in reversed(codings):
        pieces = _limited(_inflate(pieces, coding, needs_end=needs_end), limit)
    yield from pieces


def _limited(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise ResponseTooLargeError(f"its body has more than {limit >> 20} MiB")
        yield piece


def _require_few_values(body: bytes) -> None:
    if len(body) > MAX_BODY_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_BODY_VALUES:
        raise ResponseTooLargeError(f"its body has more than {MAX_BODY_VALUES:,} values")


def _inflate(pieces: Iterable[bytes], coding: str, *, needs_end: bool) -> Iterator[bytes]:
    """Yield decompressed pieces of a limited size."""
    decoder = _Deflate() if coding == "deflate" else _Gzip()
    is_empty = True
    try:
        for piece in pieces:
            data, is_empty = piece, is_empty and not piece
            while True:
                decoded, data = decoder.decode(data)
                if decoded:
                    yield decoded
                elif not data:
                    break
    except zlib.error as error:
        raise DecompressionError(str(error)) from error
    if needs_end and not is_empty and not decoder.has_ended:
        raise IncompleteBodyError(f"its {coding} encoding has no end")


class _Gzip:
    """Decoder of gzip, which can consist of several members; anything else behind a member is ignored."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 1

    @property
    def has_ended(self) -> bool:
        """Return whether the data is complete."""
        return self._decoder.eof

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return decompressed bytes, and the data that is not decompressed yet."""
        if not self._decoder.eof:
            decoded = self._decoder.decompress(data, _PIECE_BYTES)
            return decoded, self._decoder.unconsumed_tail or self._decoder.unused_data
        if not data.startswith(b"\x1f"):
            return b"", b""
        self._members += 1
        if self._members > _MAX_GZIP_MEMBERS:
            raise DecompressionError(f"it has more than {_MAX_GZIP_MEMBERS} parts")
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return self.decode(data)


class _Deflate:
    """Decoder of deflate, with the zlib header of the standard or without it."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj()
        self._is_first = True

    @property
    def has_ended(self) -> bool:
        """Return whether the data is complete."""
        return self._decoder.eof

    def decode(self, data: bytes) -> tuple[bytes, bytes]:
        """Return decompressed bytes, and the data that is not decompressed yet."""
        if self._decoder.eof:
            return b"", b""
        is_first, self._is_first = self._is_first and bool(data), self._is_first and not data
        try:
            decoded = self._decoder.decompress(data, _PIECE_BYTES)
        except zlib.error:
            if not is_first:
                raise
            self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
            decoded = self._decoder.decompress(data, _PIECE_BYTES)
        return decoded, self._decoder.unconsumed_tail
