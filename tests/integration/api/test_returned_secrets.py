# SPDX-License-Identifier: Apache-2.0
"""Verify that no text contains a secret, wherever in its response the server returns it."""

from __future__ import annotations

import json
import logging
import traceback
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import uuid4

import pytest

from airflow_flowservice.exceptions import FlowServiceError

RUN = {"id": "run-1", "flowId": "flow-1"}
BODY = json.dumps(RUN).encode()


def reply(status: bytes = b"HTTP/1.1 200 OK", headers: bytes = b"", body: bytes = BODY) -> bytes:
    """Return a response; the connection is closed after it."""
    length = str(len(body)).encode()
    return b"%b\r\nConnection: close\r\nContent-Length: %b\r\n%b\r\n%b" % (status, length, headers, body)


def chunked(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + body


POSITIONS = {
    "status line": lambda secret: b"HTTQ/1.1 " + secret + b"\r\n\r\n",
    "status": lambda secret: b"HTTP/1.1 " + secret + b" OK\r\n\r\n",
    "version": lambda secret: b"HTTP/" + secret + b" 200 OK\r\n\r\n",
    "reason phrase": lambda secret: reply(b"HTTP/1.1 400 " + secret),
    "reason phrase of 503": lambda secret: reply(b"HTTP/1.1 503 " + secret, body=b""),
    "header name": lambda secret: reply(headers=secret + b": x\r\n", body=b"x"),
    "header value": lambda secret: reply(headers=b"X-Request-Id: id " + secret + b"\r\n", body=b"x"),
    "other request id": lambda secret: reply(headers=b"X-Adobe-Request-Id: " + secret + b"\r\n", body=b"x"),
    "invalid header": lambda secret: reply(headers=b"no colon " + secret + b"\r\nX: y\r\n", body=b"x"),
    "length": lambda secret: b"HTTP/1.1 200 OK\r\nContent-Length: " + secret + b"\r\n\r\nx",
    "location": lambda secret: reply(b"HTTP/1.1 302 Found", b"Location: http://127.0.0.1/" + secret + b"\r\n"),
    "encoding": lambda secret: reply(headers=b"Content-Encoding: gzip\r\n", body=secret),
    "content type": lambda secret: reply(headers=b"Content-Type: " + secret + b"\r\n", body=b"<html>"),
    "chunk size": lambda secret: chunked(secret + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk extension": lambda secret: chunked(b"z;" + secret + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "incomplete chunk": lambda secret: chunked(b"fff\r\n" + secret),
    "text": lambda secret: reply(body=b"it was " + secret),
    "text after spaces": lambda secret: reply(body=b" " * 65_530 + secret),
    "page": lambda secret: reply(b"HTTP/1.1 403 Forbidden", body=b"<html>" + secret.replace(b"&", b"&amp;")),
    "message": lambda secret: reply(b"HTTP/1.1 400 Bad", body=json.dumps({"message": secret.decode()}).encode()),
    "code": lambda secret: reply(b"HTTP/1.1 400 Bad", body=json.dumps({"code": secret.decode()}).encode()),
    "id": lambda secret: reply(body=json.dumps({"id": secret.decode()}).encode()),
    "quoted": lambda secret: reply(body=quote(secret, safe="").lower().encode()),
    "form": lambda secret: reply(b"HTTP/1.1 500 x", body=b"client_id=x&client_secret=" + quote_plus(secret).encode()),
}
every_position = pytest.mark.parametrize("position", POSITIONS)


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Any:
    """Return a function that returns all log messages of HTTP libraries at DEBUG, with their tracebacks."""
    for name in ("urllib3", "requests", "airflow_flowservice"):
        caplog.set_level(logging.DEBUG, logger=name)
    formatter = logging.Formatter()
    return lambda: "\n".join(formatter.format(record) for record in caplog.records)


def shown(error: BaseException) -> str:
    """Return everything that a log can show of an error."""
    chain = [error]
    while (behind := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(behind)
    texts = [*map(str, chain), *map(repr, chain), "".join(traceback.format_exception(error))]
    if isinstance(error, FlowServiceError):
        texts.append(json.dumps(error.to_dict(), ensure_ascii=False))
    return "\n".join(texts)


def require_hidden(text: str, secret: str) -> None:
    """Require that neither the secret nor a part of it is in the text, in any spelling."""
    latin = secret.encode().decode("latin-1")
    forms = {secret, latin, quote(secret, safe=""), quote_plus(secret), repr(secret.encode())[2:-1], repr(latin)[1:-1]}
    # Any spelling has the first characters, which are plain.
    assert [form for form in (*forms, secret[:20]) if form.lower() in text.lower()] == []


def outcome(call: Any) -> str:
    try:
        return repr(call())
    except FlowServiceError as error:
        return shown(error)


@every_position
@pytest.mark.parametrize("end", ["", "+/= &x", "ö'\"\\%"], ids=["plain", "quoted", "escaped"])
def test_secret_is_hidden(server, make_client, recorded, position, end):
    """Neither errors nor logs contain the secret that IMS, or a proxy, returns."""
    secret = f"p8e-{uuid4().hex}{end}"
    server.then(POSITIONS[position](secret.encode()))
    client = make_client(client_secret=secret, max_attempts=2)
    text = outcome(client.fetch_token) + recorded()
    require_hidden(text, secret)


@every_position
@pytest.mark.parametrize("method", ["get_run", "retrigger_run"])
def test_token_is_hidden(server, make_client, recorded, position, method):
    """Neither a GET nor a POST shows the token that Flow Service, or a proxy, returns."""
    token = f"tok.{uuid4().hex}-{uuid4().hex}"
    server.then(POSITIONS[position](token.encode()))
    client = make_client(access_token=token, max_attempts=2)
    text = outcome(lambda: getattr(client, method)("run-1")) + recorded()
    require_hidden(text, token)
    if position == "status line":
        assert "BadStatusLine" in text


@every_position
def test_flow_runs_have_no_token(server, make_client, recorded, position):
    """A successful response has no secret in any field."""
    token = f"tok.{uuid4().hex}-{uuid4().hex}"
    server.then(POSITIONS[position](token.encode()))
    client = make_client(access_token=token, max_attempts=1)
    require_hidden(outcome(lambda: list(client.list_runs(flow_id="flow-1"))) + recorded(), token)


def test_log_lines_of_libraries_cannot_be_forged(server, client, recorded):
    """A log message of urllib3 is one bounded line."""
    server.then(reply(headers=b"no colon \x1b[31mforged" + b"x" * 5000 + b"\r\nX: y\r\n"))
    client.get_run("run-1")
    lines = recorded().splitlines()
    assert any("Failed to parse headers" in line for line in lines)
    assert all(line.isprintable() and len(line) <= 1000 for line in lines)


def test_messages_of_other_requests_are_unchanged(server, client, caplog):
    """The filter concerns only the requests of this package."""
    client.close()
    server.then(reply())
    logger = logging.getLogger("urllib3.connectionpool")
    outcome(lambda: client.get_run("run-1"))
    with caplog.at_level(logging.WARNING, logger=logger.name):
        logger.warning("Bearer %s", "abc")
    assert caplog.messages[-1] == "Bearer abc"
