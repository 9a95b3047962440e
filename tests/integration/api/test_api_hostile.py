# SPDX-License-Identifier: Apache-2.0
"""Verify requests to servers that send invalid, slow, endless or very large responses."""

from __future__ import annotations

import gzip
import json
import logging
import random
import time
import tracemalloc
import zlib
from datetime import datetime, timedelta, timezone
from functools import cache
from itertools import count

import pytest
from hypothesis import settings
from raw_server import RawServer, flood, trickle

from airflow_flowservice.api import http_session, response_limits
from airflow_flowservice.api.client import MAX_EMPTY_PAGES, MAX_PAGES, FlowServiceClient
from airflow_flowservice.api.failed_records import DiagnosticFile
from airflow_flowservice.exceptions import (
    ApiError,
    FlowServiceError,
    NoAnswerError,
    NotSentError,
    ServerError,
    UnreadableAnswerError,
)
from airflow_flowservice.windows.window import IngestionWindow

RUN = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
ORDER = {"flow_id": "flow", "window": IngestionWindow(BEGIN, BEGIN + timedelta(days=1)), "start_time": BEGIN}
HEAD = b"HTTP/1.1 200 OK\r\n"
UNKNOWN = (NoAnswerError, ServerError, UnreadableAnswerError)
MARGIN = 30
"""Seconds that a busy machine may need. Without a limit, the response continues for minutes."""
EXAMPLES = settings().max_examples * (100 if settings().max_examples < 100 else 200)


@pytest.fixture
def raw():
    """Run a raw server; its script is set by the test."""
    with RawServer(time_limit=240) as server:
        yield server


@pytest.fixture
def client_of(raw, caplog):
    """Return a function that creates a client of the raw server."""
    # urllib3 logs a traceback for each invalid header.
    caplog.set_level(logging.CRITICAL, logger="urllib3")
    clients = []

    def create(**options):
        given = {"client_id": "c", "access_token": "ready-token", "org_id": "O@AdobeOrg", "pause": lambda _: None}
        urls = {"base_url": raw.url, "ims_url": raw.url}
        clients.append(FlowServiceClient(**{**given, **urls, "timeout_s": 5, "max_attempts": 1, **options}))
        return clients[-1]

    yield create
    for client in clients:
        client.close()


def answer(body, *headers):
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


CREATED = json.dumps({"items": [{"id": RUN}]}).encode()
FRAGMENTS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 201 Created\r\n",
    b"HTTP/1.1 302 Go\r\nLocation: http://[\r\n",
    b"HTTP/9.9 99999999999 \xff\r\n",
    b"HTTP/1.1 500 No\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"Content-Length: 5, 7\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: \xb2\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Content-Encoding: deflate, gzip\r\n",
    b"Content-Encoding: gzip, gzip, gzip, gzip\r\n",
    b"Content-Encoding: br\r\n",
    b"Date: Fri, 31 Dec 9999 23:59:59 -2359\r\n",
    b"Date: Thu, 01 Jan 1970 00:00:00 +9999\r\n",
    b"Retry-After: 1e9\r\n",
    b"Set-Cookie: a=b; expires=Fri, 31 Dec 99999 23:59:59 GMT\r\n",
    b"Content-Type: text/html; charset=\x00\r\n",
    b": no name\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"5\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
    b"0\r\n\r\n",
    CREATED,
    b'{"items": [{"id": 1}, {"id": 2}]}',
    b'{"items": [',
    b"[" * 5000,
    b"9" * 5000,
    b"\x00",
    b"\xed\xa0\x80",
    gzip.compress(CREATED),
    gzip.compress(CREATED)[:-9],
    zlib.compress(CREATED),
]


def random_answers(seed, number):
    """Yield byte strings: pure noise, or fragments of responses in any order with changed bytes."""
    source = random.Random(seed)
    for _ in range(number):
        if source.random() < 0.1:
            yield source.randbytes(source.randrange(200))
            continue
        head = [FRAGMENTS[0]] if source.random() < 0.7 else []
        parts = bytearray(b"".join(head + source.choices(FRAGMENTS, k=source.randrange(1, 9))))
        for _ in range(source.choice([0, 0, 0, 1, 3])):
            parts[source.randrange(len(parts))] = source.randrange(256)
        yield bytes(parts)


def outcome_of(call, *args, **options):
    """Return the result of a call, or its typed error."""
    try:
        return call(*args, **options)
    except FlowServiceError as error:
        return error


def test_any_bytes_after_a_post_never_mean_that_nothing_was_sent(raw, client_of):
    """A POST that arrived is sent one time, and its outcome is a run, a refusal by status, or unknown."""
    client = client_of()
    seen = set()
    for number, raw.script in enumerate(random_answers(1, EXAMPLES), 1):
        outcome = outcome_of(client.create_run, **ORDER)
        seen.add(type(outcome).__name__)
        assert len(raw.requests) == number, raw.script
        if isinstance(outcome, FlowServiceError):
            assert isinstance(outcome, ApiError), raw.script
            assert not isinstance(outcome, NotSentError), raw.script
            assert "nothing was sent" not in str(outcome), raw.script
            assert isinstance(outcome, UNKNOWN) or outcome.http_status in range(400, 500), raw.script
    assert raw.count("POST") == EXAMPLES
    assert {"CreatedRun", "NoAnswerError", "UnreadableAnswerError", "ServerError"} <= seen


def test_any_bytes_while_waiting_count_against_the_error_budget(raw, client_of):
    """Any response to a read is a run, or an error after which waiting continues."""
    client = client_of()
    for raw.script in random_answers(2, EXAMPLES // 4):
        outcome = outcome_of(client.get_run, RUN)
        if isinstance(outcome, FlowServiceError):
            assert isinstance(outcome, ApiError), raw.script
            assert outcome.retryable or outcome.http_status in range(400, 500), raw.script


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"),
        pytest.param(HEAD + b"Content-Length: 1, 2\r\n\r\nab", id="two lengths in a header"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot hexadecimal\r\n", id="chunk size"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", id="status"),
        pytest.param(HEAD + b"A: b\r\n" * 200 + b"\r\n", id="too many headers"),
        pytest.param(HEAD + b"A: " + b"b" * 70_000 + b"\r\n\r\n", id="long header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9, id="TLS"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_invalid_responses_to_a_post(raw, client_of, reply):
    """If bytes of a POST may have left, an error of any class means that the outcome is unknown."""
    raw.script = reply

    with pytest.raises(NoAnswerError, match="the request was sent") as caught:
        client_of(max_attempts=3).create_run(**ORDER)

    assert raw.count("POST") == 1
    assert "nothing was sent" not in str(caught.value)


@pytest.mark.parametrize("interim", [b"102 Processing", b"103 Early Hints", b"199 Other"])
def test_interim_responses_are_skipped(raw, client_of, interim):
    """A status 1xx is not the response to a request; otherwise, the next request would receive that response."""
    raw.script = b"HTTP/1.1 %s\r\nLink: </a>\r\n\r\n" % interim * 2 + answer(CREATED)
    client = client_of()

    assert RUN == client.create_run(**ORDER).id
    assert RUN == client.get_run(RUN).id
    assert (1, 1) == (raw.count("POST"), raw.count("GET"))


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(trickle(HEAD + b"Content-Length: 9999\r\n\r\n", b" ", pause=0.1), id="body"),
        pytest.param(trickle(HEAD + b"\r\n", b" ", pause=0.1), id="body without a length"),
        pytest.param(trickle(b"", b"HTTP/1.1 200 OK", pause=0.1), id="status line"),
        pytest.param(trickle(HEAD, b"A: b\r\n", pause=0.1), id="headers"),
        pytest.param(trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.02), id="100 Continue"),
        pytest.param(trickle(CHUNKED, b"1\r\na\r\n", pause=0.1), id="chunks"),
        pytest.param(trickle(CHUNKED, b"1", pause=0.1), id="chunk size"),
        pytest.param(trickle(CHUNKED + b"0\r\n", b"A: b\r\n", pause=0.1), id="trailers"),
        pytest.param(flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99), id="100 Continue, fast"),
        pytest.param(trickle(b"HTTP/1.1 302 Go\r\nLocation: /x\r\n\r\n", b" ", pause=0.1), id="redirect"),
        pytest.param(trickle(b"HTTP/1.1 503 No\r\n\r\n", b" ", pause=0.1), id="503"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_slow_responses_end_at_the_deadline(raw, client_of, script, method):
    """An attempt takes at most twice `timeout_s` as a whole, however slowly the response arrives."""
    raw.script = script
    client = client_of(timeout_s=0.4)
    began = time.monotonic()

    with pytest.raises((NoAnswerError, UnreadableAnswerError)):
        client.create_run(**ORDER) if method == "POST" else client.get_run(RUN)

    client.close()
    assert time.monotonic() - began < 0.8 + MARGIN
    assert raw.count(method) == 1


def test_all_attempts_together_have_a_deadline(raw, client_of):
    """All attempts take at most `max_attempts + 1` times `timeout_s`."""
    raw.script = trickle(HEAD + b"Content-Length: 9999\r\n\r\n", b" ", pause=0.1)
    began = time.monotonic()

    with pytest.raises(NoAnswerError, match="no complete response arrived within"):
        client_of(timeout_s=0.4, max_attempts=4).get_run(RUN)

    assert time.monotonic() - began < 2 + MARGIN
    # Without the common limit, there are four attempts. A busy machine may make fewer than three.
    assert raw.count("GET") <= 3


@pytest.mark.parametrize("call", ["get_run", "list_runs"])
def test_limit_of_the_caller(raw, client_of, call):
    """`within_s` limits all attempts and pauses of a read."""
    raw.script = b"HTTP/1.1 503 No\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"
    client = client_of(max_attempts=5)

    with pytest.raises(ServerError):
        client.get_run(RUN, within_s=30) if call == "get_run" else list(client.list_runs(within_s=30))

    assert raw.count("GET") == 1


def test_slow_token(raw, client_of):
    """The request for a token has the same limits; without a token, the POST is not sent."""
    raw.script = trickle(HEAD + b"Content-Length: 9999\r\n\r\n", b" ", pause=0.1)
    client = client_of(timeout_s=0.3, access_token=None, client_secret="p8e-secret-of-a-slow-token")
    began = time.monotonic()

    with pytest.raises(NotSentError, match="no token could be fetched"):
        client.create_run(**ORDER)

    assert time.monotonic() - began < 0.6 + MARGIN
    assert all(b"/runs" not in request for request in raw.requests)


def page(items, token):
    body = {"items": items, "_links": {"next": {"href": f"/runs?continuationToken={token}"}}}
    return answer(json.dumps(body).encode(), b"Connection: close")


@pytest.mark.parametrize(
    ("pages", "message", "most"),
    [
        pytest.param(lambda n: page([], f"t{n}"), f"{MAX_EMPTY_PAGES} consecutive pages are empty", 20, id="empty"),
        pytest.param(
            lambda n: page([{"id": f"r{n}"}], f"t{n}"),
            f"more than {MAX_PAGES} pages",
            1000,
            id="items",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda n: page([{"id": "r"}], "t" * 5000), "more than 4096 characters", 1, id="long token"),
    ],
)
def test_endless_pages_end_with_an_error(raw, client_of, pages, message, most):
    """Pages that never end have a bound."""
    numbers = count()
    raw.script = lambda request: [pages(next(numbers))]

    with pytest.raises(UnreadableAnswerError, match=message):
        list(client_of(timeout_s=60).list_runs())

    assert raw.count("GET") == most


def test_slow_pages_have_a_deadline(raw, client_of):
    """All pages of a list together have a limit of time: 20 times `timeout_s`, or less."""
    numbers = count()
    raw.script = lambda request: [0.1, page([{"id": "r"}], f"t{next(numbers)}")]
    client = client_of(timeout_s=3)
    assert client._list_limit_s == 60
    began = time.monotonic()

    with pytest.raises((NoAnswerError, NotSentError), match=r"did not end within 1 s|(arrived|made) within"):
        list(client.list_runs(within_s=1))

    assert 0.9 < time.monotonic() - began < 1 + MARGIN


@cache
def bomb(levels):
    """Return 128 MiB of zeros that are compressed one time or several times."""
    if levels > 1:
        return gzip.compress(bomb(levels - 1), 9)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(bytes(2**20)) for _ in range(128)] + [packer.flush()])


ZIPPED = b"Content-Encoding: gzip"
TWICE = b"Content-Encoding: gzip, gzip"
HUGE_NAME = b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"n" * 2**26


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(answer(bomb(1), ZIPPED), id="gzip"),
        pytest.param(answer(bomb(2), TWICE), id="gzip twice"),
        pytest.param(answer(bomb(3), TWICE + b", gzip"), id="gzip three times"),
        pytest.param(answer(gzip.compress(HUGE_NAME, 1), TWICE), id="gzip without output"),
        pytest.param(answer(gzip.compress(b"") * 50_000, ZIPPED), id="gzip in many parts"),
        pytest.param(answer(bomb(2), b"Content-Encoding: " + b"gzip," * 99), id="99 encodings"),
        pytest.param(answer(bomb(1), ZIPPED).replace(b"200 OK", b"302 Go\r\nLocation: /x"), id="redirect"),
        pytest.param(answer(bomb(2), TWICE).replace(b"200 OK", b"503 No"), id="503"),
        pytest.param(flood(HEAD + b"\r\n", bytes(65_536)), id="endless body"),
        pytest.param(flood(CHUNKED, b"10000\r\n" + bytes(65_536) + b"\r\n"), id="endless chunks"),
        pytest.param(flood(CHUNKED, b"1" * 65_536), id="endless chunk size"),
        pytest.param(flood(CHUNKED + b"0\r\n", b"A: " + b"1" * 65_536), id="endless trailer"),
        pytest.param(flood(HEAD, b"A: " + b"1" * 65_536), id="endless header"),
        pytest.param(answer(b'{"items": [' + b"{}," * 4_000_000 + b"{}]}"), id="many objects"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_large_responses_end_at_a_limit(raw, client_of, script, method):
    """Memory stays below a multiple of the maximum size, and the outcome of a POST is unknown."""
    raw.script = script
    client = client_of(timeout_s=60)
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises((UnreadableAnswerError, NoAnswerError)):
            client.create_run(**ORDER) if method == "POST" else client.get_run(RUN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 * response_limits.MAX_BODY_BYTES
    assert time.monotonic() - began < 60
    assert raw.count(method) == 1


@pytest.mark.parametrize(
    ("packed", "header"),
    [
        (lambda body: body, b"X-Nothing: 1"),
        (lambda body: body, b"Content-Encoding: identity"),
        (gzip.compress, ZIPPED),
        (lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]), ZIPPED),
        (lambda body: gzip.compress(body) + b"\0\0", ZIPPED),
        (zlib.compress, b"Content-Encoding: Deflate"),
        (lambda body: zlib.compress(body)[2:-4], b"Content-Encoding: deflate"),
        (lambda body: gzip.compress(zlib.compress(body)), b"Content-Encoding: deflate, x-gzip"),
    ],
)
def test_encodings(raw, client_of, packed, header):
    """A large page is read in each encoding."""
    items = [{"id": f"run-{number}", "note": random.Random(number).randbytes(500).hex()} for number in range(1000)]
    body = packed(json.dumps({"items": items}).encode())
    raw.script = lambda request: [answer(body[:0], header).replace(b"Length: 0", b"Length: %d" % len(body)), body]

    assert [run.id for run in client_of().list_runs()] == [item["id"] for item in items]


@pytest.mark.parametrize("cut", [1, 9, 300])
@pytest.mark.parametrize(("pack", "header"), [(gzip.compress, ZIPPED), (zlib.compress, b"Content-Encoding: deflate")])
def test_cut_file_of_failed_records_is_incomplete(raw, client_of, pack, header, cut):
    """If neither a length nor chunks show that a download was cut, its compression does."""
    rows = b"".join(b'{"row": "%s"}\n' % random.Random(number).randbytes(50).hex().encode() for number in range(99))
    body = pack(rows)[:-cut]
    listed = json.dumps({"items": [{"id": RUN, "metrics": {}}]}).encode()
    whole = answer(listed, b"Connection: close")
    raw.script = lambda request: [HEAD + header + b"\r\n\r\n" + body if b"/export/" in request else whole]
    file = DiagnosticFile(batch_id="batch-1", name="rows.json", path="/batches/batch-1/meta?path=rows.json")

    with pytest.raises(NoAnswerError, match="no complete response"):
        list(client_of().failed_records(RUN).rows(file))


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    "date",
    [
        b"Fri, 31 Dec 9999 23:59:59 GMT",
        b"Fri, 31 Dec 9999 23:59:59 -2359",
        b"Thu, 01 Jan 1970 00:00:00 GMT",
        b"Thu, 01 Jan 0001 00:00:00 +2359",
        b"Fri, 01 Jan 2100 00:00:00 GMT",
        b"Mon, 99 Foo -1 99:99:99 +99999999",
    ],
)
def test_any_date_is_read(raw, client_of, date, method):
    """A `Date` of any year does not change the result of a request."""
    raw.script = answer(CREATED, b"Date: " + date)
    client = client_of()

    found = client.create_run(**ORDER) if method == "POST" else client.get_run(RUN)

    assert found.id == RUN


def test_limits_are_stated():
    """The limits are those of the documentation."""
    assert (http_session.ATTEMPT_TIMEOUTS, response_limits.MAX_BODY_BYTES) == (2, 16 * 2**20)
