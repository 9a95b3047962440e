# SPDX-License-Identifier: Apache-2.0
"""Verify requests that create a run, and that no such request is repeated if it may have arrived."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise

import pytest

from airflow_flowservice.api.models import CreatedRun, DeltaColumn
from airflow_flowservice.exceptions import (
    ApiError,
    ConfigurationError,
    NoAnswerError,
    NotSentError,
    RateLimitedError,
    ServerError,
    UnreadableAnswerError,
)
from airflow_flowservice.windows.window import IngestionWindow

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
RUN = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"
ETAG = '"1100c53e-0000-0200-0000-627138980000"'
CREATED = {"items": [{"id": RUN, "etag": ETAG}]}


def at(seconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)


TUTORIAL = {
    "flow_id": FLOW,
    "start_time": at(1663735590),
    "window": IngestionWindow(at(1651584991), at(16515859567)),
}


def test_body_for_a_table_based_source(server, client):
    """The body is that of Adobe's tutorial, with the same values in the same order."""
    server.then(server.answer(CREATED))

    created = client.create_run(**TUTORIAL, delta_column="DOB")

    assert CreatedRun(id=RUN, etag=ETAG) == created
    assert server.requests[0].body == (
        b'{"flowId":"3abea21c-7e36-4be1-bec1-d3bad0e3e0de","params":{"startTime":"1663735590",'
        b'"windowStartTime":"1651584991","windowEndTime":"16515859567","deltaColumn":{"name":"DOB"}}}'
    )


def test_body_for_a_file_based_source(server, client):
    """The body has no delta column."""
    server.then(server.answer(CREATED))

    client.create_run(**TUTORIAL)

    assert server.requests[0].body == (
        b'{"flowId":"3abea21c-7e36-4be1-bec1-d3bad0e3e0de","params":{"startTime":"1663735590",'
        b'"windowStartTime":"1651584991","windowEndTime":"16515859567"}}'
    )


def test_times_as_integers(server, make_client):
    """`epoch_format="integer"` sends times as in the OpenAPI file."""
    server.then(server.answer(CREATED))

    make_client(epoch_format="integer").create_run(**TUTORIAL)

    assert server.requests[0].json["params"] == {
        "startTime": 1663735590,
        "windowStartTime": 1651584991,
        "windowEndTime": 16515859567,
    }


def test_delta_column_with_format_and_timezone(server, client):
    """Format and timezone of a delta column are sent if they are set."""
    server.then(server.answer(CREATED))
    column = DeltaColumn(name="updated", date_format="yyyy-MM-dd HH:mm:ss", timezone="UTC")

    client.create_run(**TUTORIAL, delta_column=column)

    assert server.requests[0].json["params"]["deltaColumn"] == {
        "name": "updated",
        "dateFormat": "yyyy-MM-dd HH:mm:ss",
        "timezone": "UTC",
    }


def test_start_time_is_rounded_up(server, client):
    """`startTime` is never rounded into the past."""
    server.then(server.answer(CREATED))

    client.create_run(**{**TUTORIAL, "start_time": at(1663735590) + timedelta(microseconds=1)})

    assert server.requests[0].json["params"]["startTime"] == "1663735591"


def test_method_path_and_headers(server, make_client):
    """The request has credential, organization and sandbox, and its own connection."""
    server.then(server.answer(CREATED))

    make_client(sandbox="dev").create_run(**TUTORIAL)

    request = server.requests[0]
    assert (request.method, request.target) == ("POST", "/data/foundation/flowservice/runs")
    expected = {
        "authorization": "Bearer ready-token",
        "x-api-key": "client-1",
        "x-gw-ims-org-id": "ORG@AdobeOrg",
        "x-sandbox-name": "dev",
        "content-type": "application/json",
        "connection": "close",
    }
    assert expected == {name: request.headers[name] for name in expected}
    assert request.headers["user-agent"].startswith("airflow-flowservice/")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(CREATED, 200, id="items list, as in the tutorial"),
        pytest.param({"id": RUN, "etag": ETAG}, 201, id="flat, as in the OpenAPI file"),
        pytest.param({"items": {"id": RUN, "etag": ETAG}}, 202, id="a lone item"),
    ],
)
def test_formats_of_success(server, client, body, status):
    """Both documented formats are read, with any 2xx status."""
    server.then(server.answer(body, status))

    assert CreatedRun(id=RUN, etag=ETAG) == client.create_run(**TUTORIAL)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        pytest.param("reset", NoAnswerError, id="reset"),
        pytest.param("hang up", NoAnswerError, id="closed without a response"),
        pytest.param(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{", NoAnswerError, id="half a body"),
        pytest.param(
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n50\r\n{",
            NoAnswerError,
            id="half a chunk",
        ),
        pytest.param(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", ServerError, id="500"),
        pytest.param(
            b"HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n",
            ServerError,
            id="503, Retry-After",
        ),
        pytest.param(b"HTTP/1.1 504 No\r\nContent-Length: 0\r\n\r\n", ServerError, id="504"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", UnreadableAnswerError, id="empty 200"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", UnreadableAnswerError, id="other JSON"),
        pytest.param(b"HTTP/1.1 302 Go\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", UnreadableAnswerError, id="302"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
            UnreadableAnswerError,
            id="broken gzip",
        ),
    ],
)
def test_request_that_may_have_arrived_is_not_repeated(server, client, reply, error):
    """If a run may have been created, the server receives one request, and the error has the window."""
    server.then(reply)

    with pytest.raises(error) as caught:
        client.create_run(**TUTORIAL)

    assert len(server.requests) == 1
    assert caught.value.retryable
    assert (caught.value.flow_id, caught.value.window) == (FLOW, "2022-05-03T13:36:31Z/2493-05-13T18:46:07Z")


def test_request_is_not_repeated_after_a_read_timeout(server, make_client, pauses):
    """After a read timeout, the outcome is unknown: one request, no pause."""
    server.then(server.SILENCE)

    with pytest.raises(NoAnswerError, match="no complete response"):
        make_client(timeout_s=0.3).create_run(**TUTORIAL)

    assert (len(server.requests), pauses) == (1, [])


def test_refused_connections_are_repeated(closed_port, make_client, pauses):
    """Nothing was sent, so all attempts are made, with growing pauses; a retry is safe."""
    client = make_client(base_url=f"http://127.0.0.1:{closed_port}", max_attempts=4)

    with pytest.raises(NotSentError, match=r"no connection to 127\.0\.0\.1") as caught:
        client.create_run(**TUTORIAL)

    assert len(pauses) == 3
    assert all(0 < pause <= 2 for pause in pauses)
    assert "a retry is safe" in str(caught.value)


def test_unresolvable_host(make_client, pauses):
    """Nothing was sent to a host that cannot be resolved."""
    client = make_client(base_url="https://flowservice.invalid", max_attempts=2)

    with pytest.raises(NotSentError, match=r"flowservice\.invalid"):
        client.create_run(**TUTORIAL)

    assert len(pauses) == 1


def test_request_was_not_sent_after_a_failed_handshake(make_client):
    """If the server closes the connection during TLS, no run was created."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        client = make_client(base_url=f"https://127.0.0.1:{listener.getsockname()[1]}", max_attempts=1)

        with pytest.raises(NotSentError, match=r"no connection to 127\.0\.0\.1"):
            client.create_run(**TUTORIAL)
        thread.join(5)


def test_request_was_not_sent_after_a_handshake_timeout(make_client):
    """After a timeout of the handshake, no run was created."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        client = make_client(base_url=f"https://127.0.0.1:{port}", max_attempts=1, timeout_s=0.2)

        with pytest.raises(NotSentError, match="timed out"):
            client.create_run(**TUTORIAL)


def test_certificates_are_verified(make_client, monkeypatch, tmp_path):
    """With an untrusted certificate the handshake fails, and nothing is sent."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(variable, raising=False)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(self_signed(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with suppress(OSError), listener.accept()[0] as connection:
                server_side.wrap_socket(connection, server_side=True).recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        client = make_client(base_url=f"https://127.0.0.1:{listener.getsockname()[1]}", max_attempts=1)

        with pytest.raises(NotSentError, match="CERTIFICATE_VERIFY_FAILED") as caught:
            client.create_run(**TUTORIAL)
        thread.join(5)
    assert "set REQUESTS_CA_BUNDLE (not set) to a file with its CA certificate" in caught.value.remedy
    assert "the connection's host" in caught.value.remedy


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_missing_ca_bundle(make_client, monkeypatch, tmp_path, variable):
    """A missing file of CA certificates is named, with the variable; nothing is sent."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "ca.pem"))
    client = make_client(base_url="https://127.0.0.1:9", max_attempts=1)
    for request in (lambda: client.create_run(**TUTORIAL), lambda: client.get_run("run-1")):
        with pytest.raises(NotSentError, match=r"no connection to 127\.0\.0\.1:9 could be made .*ca\.pem") as caught:
            request()
        assert f"set {variable} ({tmp_path}/ca.pem) to an existing file" in caught.value.remedy


def test_ca_bundle_without_certificates(make_client, monkeypatch, tmp_path):
    """The error names the variable, and not only the host and the network."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text("nothing")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = make_client(base_url=f"https://127.0.0.1:{listener.getsockname()[1]}", max_attempts=1)
        with pytest.raises(NotSentError) as caught:
            client.create_run(**TUTORIAL)
    assert f"set REQUESTS_CA_BUNDLE ({bundle})" in caught.value.remedy


def self_signed(folder):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    pem = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unencrypted)
    path = folder / "server.pem"
    path.write_bytes(pem + certificate.public_bytes(encoding))
    return path


@pytest.mark.parametrize(
    ("headers", "shortest", "longest"),
    [
        pytest.param({}, 0.2, 0.5, id="none: the backoff"),
        pytest.param({"Retry_After": "7"}, 7, 7.7, id="seconds"),
        pytest.param({"Retry_After": "86400"}, 120, 120, id="bounded"),
        pytest.param({"Retry_After": "soon"}, 0.2, 0.5, id="invalid: the backoff"),
        pytest.param(
            {
                "Date": format_datetime(at(1700000000), usegmt=True),
                "Retry_After": format_datetime(at(1700000030), usegmt=True),
            },
            30,
            33,
            id="date, by the service's own clock",
        ),
    ],
)
def test_429_is_repeated(server, client, pauses, headers, shortest, longest):
    """After a 429 nothing was created; the pause is that of `Retry-After`."""
    server.then(server.answer(b"", 429, **headers), server.answer(CREATED))

    assert client.create_run(**TUTORIAL).id == RUN

    assert len(server.requests) == 2
    assert [pytest.approx(pauses[0])] == pauses
    assert shortest <= pauses[0] <= longest


def test_each_attempt_has_its_own_connection(server, client):
    """The server may close the connection during the pause; the outcome of a POST on it would be unknown."""
    server.then(server.answer(b"", 429), server.answer(b"", 429), server.answer(CREATED))

    client.create_run(**TUTORIAL)

    assert 3 == len({request.connection for request in server.requests})


def test_429_is_not_repeated_after_a_long_pause(server, make_client, pauses, monkeypatch):
    """Another task waits for a limited time before it creates the flow run, so a later POST would be a second one."""
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(pauses))
    answers = [server.answer(b"", 429, **{"Retry-After": "60"})] * 4
    server.then(*answers, server.answer(CREATED))

    with pytest.raises(RateLimitedError):
        make_client().create_run(**TUTORIAL)

    assert len(server.requests) <= 3
    assert sum(pauses) <= 150


def test_429_after_all_attempts(server, make_client, pauses):
    """After `max_attempts`, the error has Adobe's code and message."""
    server.then(server.answer({"error_code": "429050", "message": "Too many requests"}, 429))

    with pytest.raises(RateLimitedError, match="Too many requests") as caught:
        make_client(max_attempts=3).create_run(**TUTORIAL)

    assert (len(server.requests), len(pauses), caught.value.code) == (3, 2, "429050")


def test_each_post_has_its_own_connection(server, client):
    """After a reset of a kept-alive connection, the outcome would be unknown."""
    run = {"items": [{"id": RUN}]}
    server.then(server.answer(run), server.answer(run), server.answer(run), server.answer(run))

    client.get_run(RUN)
    client.create_run(**TUTORIAL)
    client.create_run(**TUTORIAL)
    client.get_run(RUN)

    first, second, third, fourth = (request.connection for request in server.requests)
    assert first == fourth
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"start_time": datetime(2026, 1, 1)}, "start_time 2026-01-01T00:00:00 has no timezone"),  # noqa: DTZ001
        ({"start_time": "2026-01-01"}, "start_time must be a datetime, not str"),
        ({"start_time": 1663735590}, "start_time must be a datetime, not int"),
        ({"start_time": at(-1)}, "start_time 1969-12-31T23:59:59+00:00 is before 1970"),
        ({"flow_id": ""}, "flow_id is empty"),
        ({"flow_id": "a,b"}, "flow_id is not an identifier: 'a,b'"),
        ({"delta_column": {"name": "a", "format": "b"}}, "unknown key format"),
        ({"delta_column": ""}, "its name is empty"),
    ],
)
def test_invalid_arguments(server, client, wrong, message):
    """An invalid argument is refused before anything is sent."""
    with pytest.raises(ConfigurationError) as caught:
        client.create_run(**{**TUTORIAL, **wrong})

    assert message in caught.value.message
    assert caught.value.remedy
    assert server.requests == []


def test_retrigger_has_no_body(server, client):
    """A re-trigger is a POST without body and content type, and returns a new run."""
    server.then(server.answer({"id": RUN, "etag": ETAG}))

    assert CreatedRun(id=RUN, etag=ETAG) == client.retrigger_run("old-run")

    request = server.requests[0]
    target = "/data/foundation/flowservice/runs/old-run/action?op=re-trigger"
    assert (request.method, request.target, request.body) == ("POST", target, b"")
    assert "content-type" not in request.headers


def test_retrigger_is_not_repeated(server, client):
    """The outcome of a re-trigger that may have arrived is unknown; the error has its run."""
    server.then(server.RESET)

    with pytest.raises(NoAnswerError) as caught:
        client.retrigger_run("old-run")

    assert (len(server.requests), caught.value.flow_run_id) == (1, "old-run")


def test_loopback_ignores_proxies(server, other_server, make_client, monkeypatch):
    """Plain http is used on this machine only, so a proxy of the environment never receives the secret."""
    monkeypatch.setenv("HTTP_PROXY", other_server.url)
    monkeypatch.setenv("http_proxy", other_server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.then(server.answer(CREATED))

    assert make_client().create_run(**TUTORIAL).id == RUN
    assert other_server.requests == []


def test_proxy_that_refuses_the_tunnel(other_server, make_client, monkeypatch):
    """Proxies of the environment serve https; if they refuse, nothing was sent."""
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, other_server.url)
    other_server.then(other_server.answer(b"", 407, Connection="close"))
    client = make_client(base_url="https://platform.adobe.io", max_attempts=1)

    with pytest.raises(NotSentError, match="407"):
        client.create_run(**TUTORIAL)

    assert [(r.method, r.target) for r in other_server.requests] == [("CONNECT", "platform.adobe.io:443")]


def test_backoff_grows(server, make_client, pauses):
    """The range of each pause is twice that of the earlier pause."""
    server.then(server.answer(b"", 429))

    with pytest.raises(ApiError):
        make_client(max_attempts=6).create_run(**TUTORIAL)

    assert all(earlier <= later for earlier, later in pairwise(pauses))
    assert all(0.25 * 2**n <= pause <= 0.5 * 2**n for n, pause in enumerate(pauses))
