# SPDX-License-Identifier: Apache-2.0
"""Verify that tokens are fetched once, kept in memory, renewed in time, and never shown."""

from __future__ import annotations

import logging
import pickle
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs

import pytest

from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    NoAnswerError,
    NotSentError,
    RateLimitedError,
    ServerError,
    UnreadableAnswerError,
)
from airflow_flowservice.windows.window import IngestionWindow

RUN = {"items": [{"id": "run-1"}]}
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
WINDOW = {
    "flow_id": "flow-1",
    "window": IngestionWindow(NOON, NOON + timedelta(hours=1)),
    "start_time": NOON,
}


class Ims:
    """Server that answers token requests with numbered tokens, and other requests like Flow Service."""

    def __init__(self, server, *, life=86399, valid=lambda token: True):
        self.fetched = 0
        self.life = life
        self.valid = valid
        self.server = server
        server.then(self)

    def __call__(self, request):
        if request.target.startswith("/ims/"):
            self.fetched += 1
            answer = {
                "access_token": f"token-{self.fetched}",
                "token_type": "bearer",
                "expires_in": self.life,
            }
            return self.server.answer(answer)
        if self.valid(request.headers["authorization"].removeprefix("Bearer ")):
            return self.server.answer(RUN)
        return self.server.answer({"error_code": "401013", "message": "Oauth token is not valid"}, 401)

    def tokens_used(self):
        return [
            request.headers["authorization"].removeprefix("Bearer ")
            for request in self.server.requests
            if not request.target.startswith("/ims/")
        ]


def test_token_request(server, make_client, secret):
    """Credentials are in the form body, not in the URL."""
    Ims(server)

    assert make_client(client_secret=secret).fetch_token() == "token-1"

    request = server.requests[0]
    assert (request.method, request.target) == ("POST", "/ims/token/v3")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in request.headers
    assert {
        "grant_type": ["client_credentials"],
        "client_id": ["client-1"],
        "client_secret": [secret],
        "scope": ["openid,AdobeID,session,additional_info.projectedProductContext,read_organizations"],
    } == parse_qs(request.body.decode(), strict_parsing=True)


def test_clients_share_a_token(server, make_client, secret):
    """Clients with the same credential share a token; each calls its own `on_token`."""
    ims = Ims(server)
    announced = []

    for _ in range(3):
        make_client(client_secret=secret, on_token=announced.append).get_run("run-1")

    assert (ims.fetched, announced) == (1, ["token-1"] * 3)


def test_other_credentials_have_other_tokens(server, make_client, secret):
    """Clients with another secret or other scopes have another token."""
    ims = Ims(server)

    make_client(client_secret=secret).fetch_token()
    make_client(client_secret=f"{secret}2").fetch_token()
    make_client(client_secret=secret, scopes="openid").fetch_token()

    assert ims.fetched == 3


def test_many_threads_fetch_one_token(server, make_client, secret):
    """One thread fetches the token while the other threads wait."""
    ims = Ims(server)
    client = make_client(client_secret=secret)
    together = threading.Barrier(16)

    def fetch(_):
        together.wait()
        return client.fetch_token()

    with ThreadPoolExecutor(16) as threads:
        tokens = set(threads.map(fetch, range(16)))

    assert (ims.fetched, tokens) == (1, {"token-1"})


def test_many_threads_share_a_failure(server, make_client, secret):
    """If the request fails, each waiting thread raises its own error; there is one request."""
    waiting = threading.Event()

    def refuse(request):
        waiting.wait(60)
        return server.answer({"error": "invalid_client"}, 401)

    server.then(refuse)
    client = make_client(client_secret=secret)
    errors = []

    def fetch():
        try:
            client.fetch_token()
        except ApiError as error:
            errors.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not server.requests:
        time.sleep(0.01)
    time.sleep(1)  # The other threads start to wait, also on a busy machine.
    waiting.set()
    for thread in threads:
        thread.join(60)

    assert [AuthenticationError] * 4 == [type(error) for error in errors]
    assert (len(server.requests), len({id(error) for error in errors})) == (1, 4)


@pytest.mark.parametrize(
    ("life", "used_until", "renewed_from"),
    [
        pytest.param(86400, 86099, 86101, id="five minutes before a day is over"),
        pytest.param(600, 539, 541, id="a tenth before ten minutes are over"),
        pytest.param("600", 539, 541, id="as a string"),
        pytest.param(86400000, 86099, 86101, id="in milliseconds"),
        pytest.param(None, 3299, 3301, id="missing: an hour"),
        pytest.param("soon", 3299, 3301, id="invalid: an hour"),
    ],
)
def test_tokens_are_renewed_before_they_expire(server, make_client, secret, life, used_until, renewed_from):
    Ims(server, life=life)
    now = [1000.0]
    client = make_client(client_secret=secret, clock=lambda: now[0])

    tokens = [client.fetch_token()]
    for later in (used_until, renewed_from):
        now[0] = 1000.0 + later
        tokens.append(client.fetch_token())

    assert tokens == ["token-1", "token-1", "token-2"]


def test_valid_token_is_used_while_ims_fails(server, make_client, secret):
    """If a new token cannot be fetched, the old token is used until it expires."""
    Ims(server, life=1000)
    now = [0.0]
    client = make_client(client_secret=secret, clock=lambda: now[0], max_attempts=1)
    client.fetch_token()
    server.replies[:] = [server.answer(b"", 503)]

    now[0] = 950.0
    assert client.fetch_token() == "token-1"

    now[0] = 1001.0
    with pytest.raises(ServerError, match="IMS"):
        client.fetch_token()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.get_run("run-1"), id="get"),
        pytest.param(lambda client: client.create_run(**WINDOW), id="create"),
        pytest.param(lambda client: client.retrigger_run("run-1"), id="re-trigger"),
    ],
)
def test_rejected_token_is_replaced(server, make_client, secret, call):
    """After a 401 nothing was done, so the request is sent again with a new token."""
    ims = Ims(server, valid=lambda token: token == "token-2")
    announced = []

    assert call(make_client(client_secret=secret, on_token=announced.append)).id == "run-1"

    assert (ims.tokens_used(), announced) == (["token-1", "token-2"], ["token-1", "token-2"])


def test_a_post_is_not_sent_again_after_a_long_wait_for_a_token(server, make_client, secret, pauses, monkeypatch):
    """Another task waits for a limited time before it creates the flow run, so a later POST would be a second one."""
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(pauses))
    ims = Ims(server, valid=lambda token: token == "token-2")
    busy = [server.answer(b"", 429, **{"Retry-After": "60"})] * 4

    def answer(request):
        return busy.pop() if ims.fetched and busy and request.target.startswith("/ims/") else ims(request)

    server.then(answer)

    with pytest.raises(ApiError) as caught:
        make_client(client_secret=secret).create_run(**WINDOW)

    assert (ims.tokens_used(), caught.value.retryable) == (["token-1"], True)
    assert sum(pauses) <= 150


@pytest.mark.parametrize("method", ["get_run", "retrigger_run"])
def test_token_that_is_always_rejected(server, make_client, secret, method):
    """The third 401 is raised; there is no fourth request."""
    ims = Ims(server, valid=lambda token: False)

    with pytest.raises(AuthenticationError, match="Oauth token is not valid") as caught:
        getattr(make_client(client_secret=secret), method)("run-1")

    error = caught.value
    assert (error.http_status, error.code, error.request_id, error.flow_run_id) == (
        401,
        "401013",
        "request-1",
        "run-1",
    )
    assert ims.tokens_used() == ["token-1", "token-2", "token-3"]
    assert not error.retryable


@pytest.mark.parametrize("method", ["get_run", "retrigger_run"])
def test_rejected_fresh_token_is_replaced_after_a_pause(server, make_client, secret, method):
    """All tokens of a credential may expire together, and again before the new token is used."""
    ims = Ims(server, valid=lambda token: token == "token-3")
    pauses = []

    assert getattr(make_client(client_secret=secret, pause=pauses.append), method)("run-1").id == "run-1"

    assert (ims.tokens_used(), pauses) == (["token-1", "token-2", "token-3"], [1.0])


def test_many_rejected_requests_fetch_one_new_token(server, make_client, secret):
    """If a token is revoked, the threads that used it share the next token."""
    ims = Ims(server, valid=lambda token: token != "token-1")
    client = make_client(client_secret=secret)
    together = threading.Barrier(8)

    def fetch(_):
        together.wait()
        return client.get_run("run-1").id

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(fetch, range(8))) == {"run-1"}

    assert ims.fetched == 2


def test_ready_token_is_unchanged(server, make_client):
    """A ready token is never fetched; a leading `Bearer ` is removed."""
    server.then(server.answer(RUN))
    announced = []
    client = make_client(access_token="Bearer mine", on_token=announced.append)

    client.get_run("run-1")

    assert [request.headers["authorization"] for request in server.requests] == ["Bearer mine"]
    assert (client.fetch_token(), announced) == ("mine", ["mine"])


def test_expired_ready_token(server, make_client):
    """The remedy of the 401 is to replace the token; the request is not repeated."""
    server.then(server.answer({"error_code": "401013", "message": "Oauth token is not valid"}, 401))

    with pytest.raises(AuthenticationError) as caught:
        make_client(access_token="mine").get_run("run-1")

    assert "replace access_token" in caught.value.remedy
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (401, {"error": "invalid_client", "error_description": "invalid client_secret"}, "invalid_client"),
        (400, {"error": "invalid_client", "error_description": "invalid client_secret"}, "invalid_client"),
        (400, {"error": "unauthorized_client"}, "unauthorized_client"),
        (401, b"", None),
    ],
)
def test_wrong_secret(server, make_client, secret, status, body, code):
    """The error has client id, host and a remedy."""
    server.then(server.answer(body, status))

    with pytest.raises(AuthenticationError) as caught:
        make_client(client_secret=secret).get_run("run-1")

    error = caught.value
    assert f"127.0.0.1:{server.port} returned no token for client id client-1" in error.message
    assert (error.http_status, error.code, error.retryable) == (status, code, False)
    assert "client secret" in error.remedy
    assert len(server.requests) == 1


def test_wrong_scope(server, make_client, secret):
    """The remedy names the scopes, not the secret."""
    server.then(server.answer({"error": "invalid_scope"}, 400))

    with pytest.raises(AuthenticationError) as caught:
        make_client(client_secret=secret).fetch_token()

    assert "scopes" in caught.value.remedy


@pytest.mark.parametrize(
    ("reply", "error", "requests"),
    [
        pytest.param((b"<html>Sign in</html>", 200), UnreadableAnswerError, 1, id="HTML"),
        pytest.param((b"", 200), UnreadableAnswerError, 1, id="empty"),
        pytest.param(({"token": "x"}, 200), UnreadableAnswerError, 1, id="no token"),
        pytest.param(({"access_token": "a\nb"}, 200), UnreadableAnswerError, 1, id="no header could carry it"),
        pytest.param((b"<html>404</html>", 404), UnreadableAnswerError, 1, id="wrong host"),
        pytest.param((b"<html>blocked</html>", 403), UnreadableAnswerError, 1, id="blocked"),
        pytest.param((b"", 302), UnreadableAnswerError, 1, id="redirect"),
        pytest.param((b"", 429), RateLimitedError, 3, id="429"),
        pytest.param((b"<html>", 502), ServerError, 3, id="502"),
        pytest.param("reset", NoAnswerError, 3, id="reset"),
    ],
)
def test_errors_of_ims(server, make_client, secret, reply, error, requests):
    """Each error of IMS has its class and the host; temporary errors are repeated."""
    server.then(reply if isinstance(reply, str) else server.answer(*reply))

    with pytest.raises(error, match=f"127.0.0.1:{server.port}"):
        make_client(client_secret=secret, max_attempts=3).get_run("run-1")

    assert len(server.requests) == requests


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"sesame-token-1", id="text"),
        pytest.param(b'"sesame-token-1"', id="JSON text"),
        pytest.param(b'[{"accessToken": "sesame-token-1"}]', id="list with another key"),
        pytest.param(b"<access_token>sesame-token-1</access_token>", id="XML"),
        pytest.param(b"access_token: sesame-token-1", id="YAML"),
        pytest.param(b'{"accessToken": "sesame-token-1"}', id="another key"),
    ],
)
def test_a_token_in_another_form_is_not_shown(server, make_client, secret, caplog, body):
    """The text of a success may be a token, which nothing else can recognize, so only its type is shown."""
    caplog.set_level(logging.DEBUG)
    server.then(server.answer(body, Content_Type="text/x-any"))

    with pytest.raises(UnreadableAnswerError, match=f"text/x-any.* {len(body)} bytes") as caught:
        make_client(client_secret=secret).get_run("run-1")

    assert "sesame" not in all_texts(caught.value) + caplog.text


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"\n<!DOCTYPE html>Log in"], ids=str)
def test_a_page_instead_of_a_token_is_shown(server, make_client, secret, body):
    """The page of a proxy states its cause."""
    server.then(server.answer(body))

    with pytest.raises(UnreadableAnswerError, match="Log in"):
        make_client(client_secret=secret).get_run("run-1")


@pytest.mark.parametrize("reply", ["reset", "503", "<html>"])
def test_no_token_means_that_no_run_was_created(server, make_client, secret, reply):
    """If no token can be fetched, the outcome of the POST is known: it was not sent."""
    status = 503 if reply == "503" else 200
    server.then(reply if reply == "reset" else server.answer(reply.encode(), status))

    with pytest.raises(NotSentError, match="no token could be fetched") as caught:
        make_client(client_secret=secret, max_attempts=2).create_run(**WINDOW)

    assert caught.value.flow_id == "flow-1"
    assert all(request.target.startswith("/ims/") for request in server.requests)


def test_ims_and_platform_are_two_hosts(server, other_server, make_client, secret):
    """The secret is sent to IMS only, the token to the platform only."""
    ims = Ims(other_server)
    server.then(server.answer(RUN))

    make_client(client_secret=secret, ims_url=other_server.url).get_run("run-1")

    assert ims.fetched == 1
    assert [request.method for request in server.requests] == ["GET"]


def all_texts(error):
    """Return all texts of an error, its causes and its serialized form."""
    chain = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return f"{error!s} {error!r} {error.to_dict()} {pickle.dumps(error)!r} {chain}"


@pytest.mark.parametrize("status", [200, 302, 400, 403, 404, 429, 500])
def test_secrets_are_never_shown(server, make_client, secret, caplog, status):
    """Errors, logs and `repr` contain neither secret nor token, even if responses return them."""
    caplog.set_level(logging.DEBUG)

    def reply(request):
        if request.target.startswith("/ims/"):
            return server.answer({"access_token": "sesame-token", "expires_in": 100})
        echo = {"message": f"{request.headers['authorization']} {secret}", "access_token": "sesame-token"}
        return server.answer(echo, status)

    server.then(reply)
    client = make_client(client_secret=secret, max_attempts=2)

    errors = []
    for call in (lambda: client.get_run("run-1"), lambda: client.create_run(**WINDOW)):
        with pytest.raises(ApiError) as caught:
            call()
        errors.append(caught.value)

    everything = caplog.text + repr(client) + repr(vars(client)) + "".join(all_texts(error) for error in errors)
    assert [hidden for hidden in ("sesame-token", secret, secret[:20]) if hidden in everything] == []


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
def test_ims_that_returns_the_secret(server, make_client, secret, caplog, status):
    """If IMS or a proxy returns the form, its secret is not shown in any spelling."""
    caplog.set_level(logging.DEBUG)
    server.then(lambda request: server.answer(b"<html>" + request.body + secret.encode(), status))

    with pytest.raises(ApiError) as caught:
        make_client(client_secret=secret, max_attempts=1).get_run("run-1")

    assert secret[:20] not in caplog.text + all_texts(caught.value)


def test_connection_errors_have_no_secret(server, make_client, secret, caplog):
    """Errors of broken connections contain no secret."""
    caplog.set_level(logging.DEBUG)
    server.then(server.RESET)
    client = make_client(client_secret=secret, max_attempts=2)

    with pytest.raises(NoAnswerError) as caught:
        client.get_run("run-1")

    assert secret[:20] not in caplog.text + all_texts(caught.value)


def test_no_permission(server, make_client):
    """A 403 has the code and message of the gateway; no new token is fetched."""
    server.then(server.answer({"error_code": "403003", "message": "Api Key is invalid"}, 403))

    with pytest.raises(AccessDeniedError, match="Api Key is invalid") as caught:
        make_client().get_run("run-1")

    assert caught.value.code == "403003"
