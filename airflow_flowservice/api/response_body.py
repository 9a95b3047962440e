# SPDX-License-Identifier: Apache-2.0
"""Read and decompress the body of a response, within limits of size.

urllib3 before 2.6 decompresses without a limit, so this module decompresses the transferred bytes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from airflow_flowservice.api.tracked_connections import ResponseTooLargeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from urllib3.response import BaseHTTPResponse

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


def read_body(response: BaseHTTPResponse) -> bytes:
    """Return the decompressed body of a response that was requested as a stream.

    An unknown `Content-Encoding` leaves the body unchanged.

    :raises ResponseTooLargeError: the body, or a stage of its decompression, exceeds a limit.
    :raises DecompressionError: the body is not valid in its encoding.
    """
    body = b"".join(body_pieces(response, limit=MAX_BODY_BYTES))
    _require_few_values(body)
    return body


def body_pieces(response: BaseHTTPResponse, *, limit: int) -> Iterator[bytes]:
    """Yield the decompressed body in pieces of at most 64 KiB.

    :param limit: maximum number of bytes of the body, and of each stage of its decompression.
    :raises ResponseTooLargeError: the body, or a stage of its decompression, exceeds the limit.
    :raises DecompressionError: the body is not valid in its encoding.
    """
    pieces = _limited(response.stream(_PIECE_BYTES, decode_content=False), limit)
    named = response.headers.get("content-encoding", "").lower().split(",")
    codings = [coding.strip() for coding in named if coding.strip() in _CODINGS]
    if len(codings) > _MAX_CODINGS:
        raise DecompressionError(f"it has {len(codings)} encodings")
    for coding in reversed(codings):
        pieces = _limited(_inflate(pieces, coding), limit)
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


def _inflate(pieces: Iterable[bytes], coding: str) -> Iterator[bytes]:
    """Yield decompressed pieces of a limited size."""
    decoder = _Deflate() if coding == "deflate" else _Gzip()
    try:
        for piece in pieces:
            data = piece
            while True:
                decoded, data = decoder.decode(data)
                if decoded:
                    yield decoded
                elif not data:
                    break
    except zlib.error as error:
        raise DecompressionError(str(error)) from error


class _Gzip:
    """Decoder of gzip, which can consist of several members; anything else behind a member is ignored."""

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._members = 1

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
