# SPDX-License-Identifier: Apache-2.0
"""Verify reading of flows and runs: retries, pages, paths and invalid responses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowNotFoundError,
    NoAnswerError,
    NotSentError,
    RunNotFoundError,
    ServerError,
    UnreadableAnswerError,
)

RUN = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"
ROOT = "/data/foundation/flowservice"
RESPONSE = {"items": [{"id": RUN, "metrics": {"statusSummary": {"status": "inProgress"}}}]}


def query_of(request):
    return parse_qsl(urlsplit(request.target).query)


def runs(*ids, href=None):
    links = {"next": {"href": href}} if href else {}
    return {"items": [{"id": run_id} for run_id in ids], "_links": links}


@pytest.mark.parametrize("status", [408, 425, 429, 460, 499, 500, 502, 503, 504])
def test_passing_errors_are_repeated(server, client, pauses, status):
    """A read is repeated after 429, 5xx and a timeout of a gateway, after a pause."""
    server.then(server.answer(b"", status), server.answer(b"<html>", status), server.answer(RESPONSE))

    assert client.get_run(RUN).status is FlowRunStatus.IN_PROGRESS
    assert (len(server.requests), len(pauses)) == (3, 2)


@pytest.mark.parametrize("cut", ["reset", "hang up", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_broken_connections_are_repeated(server, client, pauses, cut):
    """A read is repeated if its connection breaks, before or during the response."""
    server.then(cut, cut, server.answer(RESPONSE))

    assert client.get_run(RUN).id == RUN
    assert (len(server.requests), len(pauses)) == (3, 2)


def test_incomplete_responses_count_as_attempts(server, make_client, pauses):
    server.then(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

    with pytest.raises(NoAnswerError) as caught:
        make_client(max_attempts=3).get_run(RUN)

    assert (len(server.requests), len(pauses)) == (3, 2)
    assert caught.value.flow_run_id == RUN


def test_retry_after_seconds(server, client, pauses):
    """The pause after a 503 is that of `Retry-After`."""
    server.then(server.answer(b"", 503, Retry_After="11"), server.answer(RESPONSE))

    client.get_run(RUN)

    assert 11 <= pauses[0] <= 12.1


def test_read_timeout(server, make_client):
    """`timeout_s` limits each attempt."""
    server.then(server.SILENCE)

    with pytest.raises(NoAnswerError, match=r"127\.0\.0\.1.*timed out"):
        make_client(timeout_s=0.2, max_attempts=2).get_run(RUN)

    assert len(server.requests) == 2


def test_refused_connection(closed_port, make_client):
    """The error has host and remedy."""
    client = make_client(base_url=f"http://localhost:{closed_port}", max_attempts=1)

    with pytest.raises(NotSentError, match=f"localhost:{closed_port}.*refused") as caught:
        client.get_run(RUN)

    assert "check the connection's host" in caught.value.remedy


def test_error_after_all_attempts(server, make_client):
    """The error has status, code, message and request id of the last response."""
    server.then(server.answer({"code": "1103-503", "message": "Try later"}, 503))

    with pytest.raises(ServerError, match="Try later") as caught:
        make_client(max_attempts=2).get_run(RUN)

    error = caught.value
    assert (error.http_status, error.code, error.request_id, error.flow_run_id) == (
        503,
        "1103-503",
        "request-1",
        RUN,
    )


def test_reads_share_a_connection(server, client):
    server.then(server.answer(RESPONSE))

    for _ in range(3):
        client.get_run(RUN)

    assert [request.connection for request in server.requests] == [1, 1, 1]


def test_redirects_are_not_followed(server, other_server, client):
    """The token is not sent to another host, even if the service redirects to it."""
    server.then(server.answer(b"", 302, Location=other_server.url))

    with pytest.raises(UnreadableAnswerError, match="redirected") as caught:
        client.get_run(RUN)

    assert caught.value.http_status == 302
    assert other_server.requests == []


def test_headers_of_a_read(server, client):
    """A read has the same headers as a POST, without content type."""
    server.then(server.answer(RESPONSE))

    client.get_run(RUN)

    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer ready-token"
    assert (headers["x-api-key"], headers["x-gw-ims-org-id"], headers["x-sandbox-name"]) == (
        "client-1",
        "ORG@AdobeOrg",
        "prod",
    )
    assert "content-type" not in headers


@pytest.mark.parametrize(
    "identifier",
    [
        "../x",
        "a/b",
        "a?b",
        "a#b",
        "%2e%2e",
        "..",
        ".",
        "",
        " ",
        " a",
        "a b",
        "a\nb",
        "a\\b",
        "a,b",
        "ä",
        None,
        7,
    ],
)
def test_ids_reach_no_other_endpoint(server, client, identifier):
    """An invalid identifier is refused, and no request is sent."""
    server.then(server.answer(RESPONSE))

    with pytest.raises(ConfigurationError, match="flow_id"):
        client.get_flow(identifier)
    with pytest.raises(ConfigurationError, match="flow_run_id"):
        client.get_run(identifier)
    with pytest.raises(ConfigurationError, match="flow_run_id"):
        client.retrigger_run(identifier)
    with pytest.raises(ConfigurationError, match="flow_run_id"):
        list(client.list_runs(ids=[identifier]))

    assert server.requests == []


@pytest.mark.parametrize("identifier", [RUN, "M-3d17-incremental-0:cd0ab404", "a..b", "a=b@c+d~e"])
def test_ids_arrive_as_one_segment(server, client, identifier):
    """Identifiers with harmless characters are sent unchanged."""
    server.then(server.answer({"items": [{"id": identifier}]}))

    assert client.get_run(identifier).id == identifier
    assert server.requests[0].target == f"{ROOT}/runs/{quote(identifier, safe='~')}"


def test_another_run_than_requested(server, client):
    """A response with another run is refused."""
    server.then(server.answer({"items": [{"id": "other"}]}))

    with pytest.raises(UnreadableAnswerError, match="returned another flow run"):
        client.get_run(RUN)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Sign in</body></html>",
        b'{"items": [{"id": ',
        b"[1, 2]",
        b"7",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b'{"items": 5}',
        b'{"items": [1]}',
        b'{"items": [{}]}',
        b"[" * 100_000,
        b'{"items": [{"id": "a"}, {"id": "b"}]}',
    ],
)
def test_unreadable_responses(server, client, body):
    """Any 200 without a run raises the same error, with a short excerpt."""
    server.then(server.answer(body))

    with pytest.raises(UnreadableAnswerError) as caught:
        client.get_run(RUN)

    error = caught.value
    assert (error.http_status, error.request_id, error.flow_run_id) == (200, "request-1", RUN)
    assert len(error.message) < 320


def test_html_404_is_not_a_missing_run(server, client):
    """A 404 in HTML is sent by a wrong host, not by Flow Service."""
    server.then(server.answer(b"<html>not here</html>", 404, Content_Type="text/html"))

    with pytest.raises(UnreadableAnswerError) as caught:
        client.get_run(RUN)

    assert "host" in caught.value.remedy


def test_missing_flow_and_run(server, client):
    """The error of a 404 has the missing object and its id."""
    server.then(server.answer({"code": "1101-404", "message": "Not found"}, 404))

    with pytest.raises(FlowNotFoundError) as missing_flow:
        client.get_flow("flow-1")
    with pytest.raises(RunNotFoundError) as missing_run:
        client.get_run(RUN)

    assert missing_flow.value.flow_id == "flow-1"
    assert missing_run.value.flow_run_id == RUN


def test_filters_of_runs(server, client):
    """Filters are properties, combined with AND; `count` is never sent."""
    server.then(server.answer(runs()))
    since = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))

    assert list(client.list_runs(flow_id="flow-1", ids=["a", "b", "a"], created_since=since, limit=50)) == []

    assert query_of(server.requests[0]) == [
        ("property", "flowId==flow-1"),
        ("property", "id==a,b"),
        ("property", "createdAt>=1767222000000"),
        ("orderby", "-createdAt"),
        ("limit", "50"),
    ]


def test_no_ids_means_no_runs(server, client):
    """An empty list of ids is not a request for all runs."""
    assert list(client.list_runs(ids=[])) == []
    assert server.requests == []


@pytest.mark.parametrize(
    ("spelled", "sent"),
    [
        pytest.param("abc==", "abc==", id="equals signs"),
        pytest.param("a%3D%3D%2Bb%2Fc", "a%3D%3D%2Bb%2Fc", id="percent-encoded"),
        pytest.param("a+b/c=", "a+b/c=", id="base64"),
        pytest.param("x#y", "x%23y", id="hash"),
        pytest.param('[{"token":"+RID:~a#RT:1"}]', "[{%22token%22:%22+RID:~a%23RT:1%22}]", id="JSON as it is"),
        pytest.param("100%", "100%25", id="lone percent sign"),
    ],
)
@pytest.mark.parametrize("address", ["/runs", "https://elsewhere.example/v2/runs", ""])
def test_continuation_token_is_sent_unchanged(server, client, spelled, sent, address):
    """The token is neither cut at `=` nor decoded; only invalid characters of a URL are quoted."""
    href = f"{address}?limit=2&continuationToken={spelled}"
    server.then(server.answer(runs("a", "b", href=href)), server.answer(runs("c")))

    assert [run.id for run in client.list_runs(limit=2)] == ["a", "b", "c"]

    first, second = (urlsplit(request.target) for request in server.requests)
    assert second.path == first.path == f"{ROOT}/runs"
    decoded = second.query.replace("%5B", "[").replace("%5D", "]").replace("%7B", "{").replace("%7D", "}")
    assert decoded == f"{first.query}&continuationToken={sent}"


def test_empty_page_is_not_the_last(server, client):
    """A list ends at the page without a next page."""
    server.then(
        server.answer(runs("a", href="/runs?continuationToken=1")),
        server.answer(runs(href="/runs?continuationToken=2")),
        server.answer(runs("b")),
    )

    assert [run.id for run in client.list_runs()] == ["a", "b"]


def test_pages_are_read_when_needed(server, client):
    """The newest run needs one page; `max_pages` limits the number of pages."""
    server.then(lambda request: server.answer(runs("a", href=f"?continuationToken={len(server.requests)}")))

    assert next(client.list_runs()).id == "a"
    assert len(server.requests) == 1

    assert len(list(client.list_runs(max_pages=3))) == 3
    assert len(server.requests) == 4


def test_pages_that_repeat(server, client):
    """A repeated continuation token raises an error, so the list cannot be endless."""
    server.then(server.answer(runs("a", href="/runs?continuationToken=same")))

    with pytest.raises(UnreadableAnswerError, match="a page links to an earlier page"):
        list(client.list_runs(flow_id="flow-1"))

    assert len(server.requests) == 2


def test_next_page_without_a_token(server, client):
    """An incomplete list raises an error."""
    server.then(server.answer(runs("a", href="/runs?start=5")))

    with pytest.raises(UnreadableAnswerError, match="continuationToken"):
        list(client.list_runs())


@pytest.mark.parametrize("links", [{}, {"next": None}, {"next": {}}, {"next": {"href": ""}}, None])
def test_last_pages(server, client, links):
    """The links of the last page may be missing or empty."""
    server.then(server.answer({"items": [{"id": "a"}], "_links": links}))

    assert [run.id for run in client.list_runs()] == ["a"]


def test_flows_are_listed_with_filters(server, client):
    """Flows are read page by page, with the filters of the caller."""
    server.then(
        server.answer({"items": [{"id": "f1"}], "_links": {"next": {"href": "?continuationToken=t"}}}),
        server.answer({"items": [{"id": "f2", "scheduleParams": {"frequency": "once"}}]}),
    )

    flows = list(client.list_flows(properties=["state==enabled"], limit=1))

    assert [(flow.id, flow.one_time) for flow in flows] == [("f1", None), ("f2", True)]
    assert query_of(server.requests[0]) == [("property", "state==enabled"), ("limit", "1")]


def test_clock_offset(server, client):
    """`Date` shows the difference between the service's clock and this machine's."""
    there = datetime.now(timezone.utc) + timedelta(hours=1)
    server.then(server.answer(RESPONSE, Date=format_datetime(there, usegmt=True)))
    assert client.clock_offset is None

    client.get_run(RUN)

    assert abs(client.clock_offset - timedelta(hours=1)) <= timedelta(seconds=2)


def test_cached_response_has_no_clock_offset(server, client):
    """`Age` means that the response, and its `Date`, are cached."""
    server.then(server.answer(RESPONSE, Date="Mon, 01 Jan 2024 00:00:00 GMT", Age="500"))

    client.get_run(RUN)

    assert client.clock_offset is None


def test_path_of_a_gateway(server, make_client):
    """A gateway's path is kept, and Flow Service's own path is not duplicated."""
    server.then(server.answer(RESPONSE))

    make_client(base_url=f"{server.url}/gateway/").get_run(RUN)
    make_client(base_url=f"{server.url}{ROOT}/").get_run(RUN)

    assert [f"/gateway{ROOT}/runs/{RUN}", f"{ROOT}/runs/{RUN}"] == [r.target for r in server.requests]


def test_no_cookies_are_kept(server, client):
    """Requests do not depend on earlier responses."""
    server.then(server.answer(RESPONSE, Set_Cookie="session=1"))

    client.get_run(RUN)
    client.get_run(RUN)

    assert "cookie" not in server.requests[1].headers
