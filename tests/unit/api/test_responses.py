# SPDX-License-Identifier: Apache-2.0
"""Verify that a response of any shape becomes a value or a typed error."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice import exceptions
from airflow_flowservice.api import json_values
from airflow_flowservice.api.auth import ImsToken, parse_token
from airflow_flowservice.api.http_session import HttpResponse
from airflow_flowservice.api.models import CreatedRun
from airflow_flowservice.api.redaction import may_contain
from airflow_flowservice.api.responses import (
    Call,
    Page,
    parse_created_run,
    parse_error_body,
    parse_item,
    parse_page,
    raise_for_status,
    refuses_action,
    refuses_times,
)
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    BatchNotFoundError,
    CreateNotAllowedError,
    DataConnectionNotFoundError,
    DeltaColumnDiffersError,
    DeltaColumnMissingError,
    FlowChangingError,
    FlowNotFoundError,
    NoAnswerError,
    NotOnDemandError,
    OrganizationError,
    RateLimitedError,
    RetriggerNotYetError,
    RetriggerRefusedError,
    RunNotFoundError,
    RunRefusedError,
    SandboxError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
    WindowRefusedError,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "id",
                    "items",
                    "_links",
                    "next",
                    "href",
                    "code",
                    "message",
                    "report",
                    "errors",
                    "error",
                    "x",
                    "error_code",
                    "error-chain",
                    "type",
                    "title",
                    "access_token",
                    "expires_in",
                    "etag",
                    "400",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)

NO_RESPONSE = {408, 460, 499}
"""Statuses of a gateway that gave a request up, although Flow Service may have received it."""


def response(body=b"", status=200, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, body=content, headers={"x-request-id": "r-1", **headers})


@pytest.mark.parametrize(
    ("status", "code", "call", "error"),
    [
        (400, "1360", Call.CREATE_RUN, StartTimeInPastError),
        (400, "1380", Call.CREATE_RUN, RunRefusedError),
        (400, "1381", Call.CREATE_RUN, WindowRefusedError),
        (400, "1382", Call.CREATE_RUN, DeltaColumnDiffersError),
        (400, "1383", Call.CREATE_RUN, DeltaColumnMissingError),
        (400, "1384", Call.CREATE_RUN, RunRefusedError),
        (400, "1385", Call.CREATE_RUN, NotOnDemandError),
        (400, "1386", Call.CREATE_RUN, NotOnDemandError),
        (400, "1387", Call.RETRIGGER_RUN, RetriggerNotYetError),
        (400, "1388", Call.RETRIGGER_RUN, RetriggerRefusedError),
        (400, "1401", Call.RETRIGGER_RUN, RunRefusedError),
        (400, "1401", Call.LIST_RUNS, RunRefusedError),
        (400, "1427", Call.CREATE_RUN, CreateNotAllowedError),
        (403, "1427", Call.CREATE_RUN, CreateNotAllowedError),
        (400, "1430", Call.CREATE_RUN, FlowNotFoundError),
        (404, "1439", Call.GET_FLOW, FlowNotFoundError),
        (400, "1446", Call.CREATE_RUN, FlowNotFoundError),
        (404, "1101", Call.CREATE_RUN, FlowNotFoundError),
        (404, "1101", Call.GET_FLOW, FlowNotFoundError),
        (404, "1101", Call.GET_RUN, RunNotFoundError),
        (404, "1101", Call.RETRIGGER_RUN, RunNotFoundError),
        (404, "1101", Call.READ_BATCHES, BatchNotFoundError),
        (404, "1101", Call.LIST_RUNS, UnreadableAnswerError),
        (404, "1101", Call.GET_SOURCE, DataConnectionNotFoundError),
        (404, "", Call.GET_TARGET, DataConnectionNotFoundError),
        (404, "1439", Call.CREATE_RUN, FlowNotFoundError),
        (400, "1403", Call.CREATE_RUN, RunRefusedError),
        (401, "2000", Call.GET_RUN, OrganizationError),
        (401, "2002", Call.CREATE_RUN, OrganizationError),
        (404, "2100", Call.GET_RUN, SandboxError),
        (400, "2105", Call.CREATE_RUN, SandboxError),
        (404, "2101", Call.GET_RUN, SandboxError),
        (404, "2103", Call.GET_FLOW, SandboxError),
        (403, "2111", Call.GET_FLOW, SandboxError),
        (400, "2115", Call.GET_FLOW, AuthenticationError),
        (403, "2118", Call.CREATE_RUN, AccessDeniedError),
        (403, "2120", Call.GET_FLOW, AccessDeniedError),
        (403, "2121", Call.CREATE_RUN, AccessDeniedError),
        (401, "401013", Call.GET_RUN, AuthenticationError),
        (403, "403010", Call.GET_RUN, AuthenticationError),
        (403, "403000", Call.GET_RUN, AccessDeniedError),
        (403, "403003", Call.GET_RUN, AccessDeniedError),
        (403, "403025", Call.GET_RUN, AccessDeniedError),
        (403, "403027", Call.CREATE_RUN, AccessDeniedError),
        (400, "400003", Call.GET_RUN, RunRefusedError),
        (429, "429050", Call.CREATE_RUN, RateLimitedError),
        (500, "1102", Call.CREATE_RUN, ServerError),
        (503, "1103", Call.GET_RUN, ServerError),
        (504, "1104", Call.GET_RUN, ServerError),
        (500, "1382", Call.CREATE_RUN, ServerError),
        (500, "1427", Call.CREATE_RUN, ServerError),
        *((status, "", Call.CREATE_RUN, NoAnswerError) for status in NO_RESPONSE),
        *((status, "", Call.GET_RUN, NoAnswerError) for status in NO_RESPONSE),
        (409, "", Call.CREATE_RUN, RunRefusedError),
        (422, "1383", Call.GET_RUN, RunRefusedError),
        (307, "", Call.CREATE_RUN, UnreadableAnswerError),
        (100, "", Call.CREATE_RUN, UnreadableAnswerError),
    ],
)
@pytest.mark.parametrize("spelled", ["{}", "{}-400", "FLOW-{}-400"])
def test_error_responses(status, code, call, error, spelled):
    """The status decides first, then the code in each of its spellings; all fields are filled."""
    sent_code = spelled.format(code) if code else None
    body = {"code": sent_code, "message": "Adobe says no."}

    with pytest.raises(ApiError) as caught:
        raise_for_status(response(body, status), call)

    found = caught.value
    assert (error, status, "r-1") == (type(found), found.http_status, found.request_id)
    assert found.remedy
    if status >= 400:
        assert (sent_code, True) == (found.code, "Adobe says no." in found.message)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"error_code": "403010", "message": "Oauth token is missing"}, "403010", "Oauth token is missing"),
        ({"code": 1382, "message": "Other column"}, "1382", "Other column"),
        ({"code": "1382-400", "message": "Other column"}, "1382-400", "Other column"),
        ({"errorMessage": "Other column", "errorCode": "1382"}, "1382", "Other column"),
        ({"errors": [{"code": "1382", "message": "Other column"}]}, "1382", "Other column"),
        ({"errors": {"400": [{"code": "1382", "message": "Other column"}]}}, "1382", "Other column"),
        ({"error": {"code": "1382", "message": "Other column"}}, "1382", "Other column"),
        ([{"code": "1382", "message": "Other column"}], "1382", "Other column"),
        (
            {
                "type": "http://ns.adobe.com/aep/errors/FLOW-1382-400",
                "title": "Other column",
                "status": 400,
                "report": {"tenantInfo": {"sandboxName": "prod"}, "additionalContext": None},
                "error-chain": [{"serviceId": "FS", "errorCode": "FS-1382", "unixTimeStampMs": 1}],
            },
            "FLOW-1382-400",
            "Other column",
        ),
        (
            {"type": "x:FLOW-1382-400", "title": "Bad Request", "report": {"detailed-message": "Other column"}},
            "FLOW-1382-400",
            "Other column",
        ),
        ({"code": "1382", "title": "Bad Request", "errorDetails": "Other column"}, "1382", "Other column"),
        ({"code": "1382", "errorMessage": "Other column", "errorDetails": "Other column"}, "1382", "Other column"),
        (
            {
                "type": "about:blank",
                "status": 400,
                "report": {"detailed-message": "Other column"},
                "error-chain": [{"errorCode": "1382"}],
            },
            "1382",
            "Other column",
        ),
    ],
)
def test_formats_of_error_responses(body, code, message):
    """Code and message are found in every published format."""
    problem = parse_error_body(response(body, 400))

    assert (code, message) == (problem.code, problem.message)
    assert problem.number in (1382, 403010)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>Bad request</html>", b'{"code": "13', b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000],
)
def test_error_responses_without_message(body):
    """The message has an excerpt of the body."""
    with pytest.raises(RunRefusedError) as caught:
        raise_for_status(response(body, 400), Call.CREATE_RUN)

    assert (caught.value.http_status, caught.value.code) == (400, None)
    assert "the response was " in caught.value.message
    assert len(caught.value.message) < 400


def test_error_responses_to_posts_are_certain():
    """A POST with a 4xx response created nothing, so its error never means an unknown outcome."""
    uncertain = (UnreadableAnswerError, ServerError)
    for status in set(range(400, 500)) - NO_RESPONSE:
        for body in (b"", b"<html>", b'{"code": "1101-404"}'):
            with pytest.raises(ApiError) as caught:
                raise_for_status(response(body, status), Call.CREATE_RUN)
            assert not isinstance(caught.value, uncertain), status


@pytest.mark.parametrize(
    ("status", "code", "call", "words"),
    [
        (400, "1384", Call.CREATE_RUN, "epoch_format"),
        (400, "1361", Call.CREATE_RUN, "remove interval and backfill"),
        (400, "1364", Call.CREATE_RUN, "remove interval and backfill"),
        (400, "1366", Call.CREATE_RUN, "before its start time only"),
        (400, "1369", Call.CREATE_RUN, "remove deltaColumn"),
        (400, "1403", Call.CREATE_RUN, "before the start time only"),
        (400, "1385", Call.CREATE_RUN, "before its start time only"),
        (403, "403000", Call.GET_FLOW, "API key"),
        (403, "403003", Call.CREATE_RUN, "API key"),
        (403, "403025", Call.LIST_RUNS, "org_id"),
        (404, "1439", Call.GET_FLOW, "access label"),
        (404, "1439", Call.CREATE_RUN, "access label"),
        (400, "1439", Call.CREATE_RUN, "check flow_id"),
        (400, "1384", Call.GET_RUN, RunRefusedError.default_remedy),
    ],
)
def test_remedies_of_codes(status, code, call, words):
    """The remedy is that of the code, where the class is too general for one."""
    for error_shape in ({"code": code}, {"type": f"https://ns.adobe.com/aep/errors/FLOW-{code}-{status}"}):
        with pytest.raises(ApiError) as caught:
            raise_for_status(response({**error_shape, "title": "No"}, status), call)
        assert words in caught.value.remedy


@pytest.mark.parametrize("state", ["updating", "enabling", "enabled-finalizing", "initializing", "pending"])
def test_refusals_because_of_a_passing_state_are_retryable(state):
    """Adobe's message states the dataflow's state, also below a general title."""
    body = {"title": "Bad Request", "report": {"detailed-message": f"The flow=f is in state={state}."}}
    for code, call, kind in (
        ("1380", Call.CREATE_RUN, FlowChangingError),
        ("1388", Call.RETRIGGER_RUN, RetriggerNotYetError),
    ):
        with pytest.raises(ApiError) as caught:
            raise_for_status(response({**body, "code": code}, 400), call)
        assert (kind, True) == (type(caught.value), caught.value.retryable)
    with pytest.raises(ServerError):
        raise_for_status(response({**body, "code": "1380"}, 500), Call.CREATE_RUN)


@pytest.mark.parametrize("status", [400, 409, 423])
@pytest.mark.parametrize(
    "body",
    [
        {"message": "Run already in progress for flow f with run id r"},
        {"code": "FLOW-1380-400", "message": "Failed to create flow run. Error message: another flow run is active"},
        {"title": "Conflict", "detail": "The flow run r is in progress"},
        {"message": "The dataflow is currently running."},
    ],
    ids=["already", "1380", "detail", "currently"],
)
def test_refusals_because_of_an_active_run_are_retryable(body, status):
    """Adobe documents such a message only for another API. Nothing was created, and the active run ends."""
    for call, kind in ((Call.CREATE_RUN, FlowChangingError), (Call.RETRIGGER_RUN, RetriggerNotYetError)):
        with pytest.raises(ApiError) as caught:
            raise_for_status(response(body, status), call)
        assert (kind, True) == (type(caught.value), caught.value.retryable)
        assert "max_active_runs" in caught.value.remedy


@pytest.mark.parametrize(
    ("code", "status", "message"),
    [
        ("1384", 400, "The params={} provided for creating flow run are invalid or empty."),
        ("1386", 400, "A run is already in progress, and the frequency is hour"),
        ("1380", 400, "The run is not active"),
        (None, 404, "No flow run in progress"),
    ],
    ids=["1384", "1386", "1380", "404"],
)
def test_other_refusals_about_runs_are_final(code, status, message):
    with pytest.raises(ApiError) as caught:
        raise_for_status(response({"code": code, "message": message}, status), Call.CREATE_RUN)
    assert not caught.value.retryable


@pytest.mark.parametrize("state", ["disabled", "draft", "my-updating", "appending"])
def test_refusals_because_of_another_state_are_final(state):
    """A disabled dataflow has to be enabled by a user."""
    body = {"code": "1380-400", "message": f"No run was created: the flow is {state}."}
    with pytest.raises(RunRefusedError) as caught:
        raise_for_status(response(body, 400), Call.CREATE_RUN)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"code": "1384-400", "message": "invalid or empty"}, 400, True),
        ({"type": "https://ns.adobe.com/aep/errors/FLOW-1384-400", "title": "Bad Request"}, 400, True),
        ({"title": "Invalid", "validation": [{"code": "type", "message": "must be integer"}]}, 422, True),
        ({"message": "params.windowEndTime is not valid"}, 400, True),
        (b"startTime must be integer", 400, True),
        ({"type": "about:blank", "title": "Bad Request"}, 400, False),
        ({"message": "A valid content-type must be specified"}, 400, False),
        ({"type": "/placeholder/type/uri", "detail": "A valid content-type must be specified"}, 400, False),
        ({"message": "/params/windowStartTime is of another form"}, 400, True),
        ({"code": "1360-400", "message": "startTime is in the past"}, 400, False),
        ({"code": "1381-400", "message": "windowEndTime must be after windowStartTime"}, 400, False),
        ({"code": "1427-400", "message": "startTime"}, 400, False),
        ({"code": "1384-500", "message": "startTime must be integer"}, 500, False),
        ({"code": "1384", "message": "startTime must be integer"}, 409, False),
        ({"message": "startTime must be integer"}, 408, False),
        ({"message": "startTime must be integer"}, 429, False),
        (b"<html>startTime must be integer</html>", 400, False),
        ({"items": [{"id": "a"}]}, 200, False),
    ],
)
def test_refusals_of_the_type_of_times(body, status, expected):
    """Only a 400 or 422 that can mean the type of a time is one: after it, nothing was created."""
    assert expected is refuses_times(response(body, status))


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [("1401", 400, True), ("1401", 500, False), ("1333", 400, False), ("1387", 400, False), ("1401", 200, False)],
)
def test_refusals_of_the_action(code, status, expected):
    """Only 1401 with a 4xx means that the action's name is unknown."""
    assert expected is refuses_action(response({"code": f"FLOW-{code}-400", "message": "no"}, status))


def test_html_page_with_404_to_a_post():
    """A 404 page of a gateway is a refusal with a remedy about the host."""
    with pytest.raises(RunRefusedError) as caught:
        raise_for_status(response(b"<html>", 404), Call.CREATE_RUN)

    assert "host" in caught.value.remedy


def test_empty_list_instead_of_an_item():
    """`{"items": []}` for one run means that the run does not exist."""
    with pytest.raises(RunNotFoundError):
        parse_item(response({"items": []}), Call.GET_RUN)


def test_item_in_a_list_or_not():
    """The object may be in a list of one."""
    assert parse_item(response({"items": [{"id": "a"}]}), Call.GET_RUN) == {"id": "a"}
    assert parse_item(response({"id": "a"}), Call.GET_RUN) == {"id": "a"}


def test_a_created_run_with_two_ids_is_unreadable():
    """With two runs for one request, the created run is unknown."""
    with pytest.raises(UnreadableAnswerError):
        parse_created_run(response({"items": [{"id": "a"}, {"id": "b"}]}), Call.CREATE_RUN)


@pytest.mark.parametrize("run_id", ["a/b", "x" * 201, "a,b", "a\x00b", "\ud800", "../flows", "{'id': 'a'}"])
def test_a_created_run_with_an_invalid_id_is_unreadable(run_id):
    """The run may exist, but its id cannot be requested."""
    with pytest.raises(UnreadableAnswerError):
        parse_created_run(response({"items": [{"id": run_id}]}), Call.CREATE_RUN)


def test_the_id_of_a_created_run_is_spelled_as_in_lists():
    """Otherwise, a flow run would have two ids in the ledger and in XComs."""
    run_id = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"

    assert run_id == parse_created_run(response({"id": run_id.upper()}, 201), Call.CREATE_RUN).id


def test_a_created_run_without_etag():
    """The etag is optional."""
    assert CreatedRun(id="a") == parse_created_run(response({"id": "a"}, 202), Call.CREATE_RUN)


def test_page():
    """A page has objects and the token of the next page in its original spelling."""
    body = {"items": [{"id": "a"}], "_links": {"next": {"href": "/runs?continuationToken=x%3D%3D&limit=1"}}}

    assert Page(items=({"id": "a"},), continuation="x%3D%3D") == parse_page(response(body), Call.LIST_RUNS)


def test_excerpts_are_short():
    """An excerpt is one printable line of at most 200 characters, without tokens."""
    body = b"Bearer abc.def-ghi \x1b[31m\r\nnext\x00 line " + b"x" * 1000

    assert response(body).excerpt.startswith("'Bearer *** [31m next line xxx")
    assert len(response(body).excerpt) == 202


@pytest.mark.parametrize(
    "text",
    [
        b'{"access_token": "eyJhbGciOi.JzdWIiOi.abc"}',
        b"client_secret=JzdWIiOi&x=1",
        b"token eyJhbGciOi.JzdWIiOi.abc",
        b"authorization: BEARER JzdWIiOi",
        b'{\\"client_secret\\": \\"JzdWIiOi\\"}',
    ],
)
def test_excerpts_hide_likely_secrets(text):
    """Tokens and secrets are hidden even if they are unknown."""
    assert "JzdWIiOi" not in response(text).excerpt


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
def test_excerpts_hide_known_secrets_in_every_encoding(encoding):
    """An excerpt is decoded in each encoding of JSON, as by the parser."""
    body = '{"error": "no tok.en-1, dröben"}'.encode(encoding)
    assert """'{"error": "no ***, dröben"}'""" == HttpResponse(status=400, body=body, secrets=("tok.en-1",)).excerpt


def test_request_ids_are_kept():
    """Adobe's support needs the `x-request-id`; it is shown on one line."""
    assert response(b"").request_id == "r-1"
    assert HttpResponse(status=200, headers={"x-request-id": "a\x00b" * 300}).request_id[:3] == "a b"
    assert HttpResponse(status=200).request_id is None


def test_request_id_of_the_body():
    """Without a header, the id is that of the body's report, without secrets."""
    body = json.dumps({"title": "No", "report": {"request-id": "r-2 tok.en-1"}}).encode()
    found = HttpResponse(status=400, body=body, secrets=("tok.en-1",))
    assert "r-2 ***" == found.request_id
    assert "r-1" == replace(found, headers={"x-request-id": "r-1"}).request_id
    with pytest.raises(RunRefusedError) as caught:
        parse_item(found, Call.LIST_RUNS)
    assert "r-2 ***" == caught.value.request_id
    for unusable in (b"", b"[]", b'{"report": "r-2"}', b'{"report": {"request-id": {}}}', b"<html>"):
        assert HttpResponse(status=400, body=unusable).request_id is None


@given(JSON, st.integers(100, 599), st.sampled_from(Call))
def test_any_json_is_a_value_or_a_typed_error(body, status, call):
    """For any JSON, the parsers raise only `ApiError`, with message and status."""
    for parse in (parse_item, parse_page, parse_created_run):
        found = outcome(lambda parse=parse: parse(response(body, status), call))
        assert not isinstance(found, ApiError) or (found.http_status == status and found.message)


def outcome(parse):
    try:
        return parse()
    except ApiError as error:
        return error


@given(st.binary(max_size=300), st.integers(100, 599), st.sampled_from(Call))
def test_any_bytes_are_a_value_or_a_typed_error(body, status, call):
    """For any bytes, the parsers raise only `ApiError`."""
    for parse in (parse_item, parse_page, parse_created_run):
        with pytest.raises(ApiError):
            parse(response(body, status), call)


@given(JSON | st.fixed_dictionaries({"access_token": st.text(), "expires_in": JSON}), st.integers(100, 599))
def test_any_response_of_ims_is_a_token_or_a_typed_error(body, status):
    """A token is valid for some time from now."""
    found = outcome(lambda: parse_token(response(body, status), now=100.0, client_id="c", host="ims"))

    if isinstance(found, ImsToken):
        assert 100.0 <= found.refresh_at <= found.expires_at
    else:
        assert "ims" in found.message


def test_every_class_of_api_errors_has_a_test():
    """Each subclass of `ApiError` is raised for a response or a connection."""
    made = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, ApiError) and name in globals()
    }
    every = {kind.__name__ for kind in exceptions.tree(ApiError)}

    assert every - made == {"NotSentError"}


def shortest_time(call):
    """Return the processor seconds of the fastest of some calls."""

    def once():
        begun = time.process_time()
        call()
        return time.process_time() - begun

    return min(once() for _ in range(20))


class TestReturnedSecret:
    """If a server returns a secret, the parsed response has `***` in its place."""

    SECRET = "p@ss/wörd&x=1"

    def read(self, body: bytes) -> Any:
        return HttpResponse(status=200, body=body, secrets=(self.SECRET, "tok.en-1")).json()

    def test_in_any_text_at_any_depth(self):
        """Plain, URL and form spellings are replaced; names of fields and numbers are unchanged."""
        body = {"tok.en-1": [{"a": f"x {self.SECRET}"}, quote(self.SECRET, safe=""), "Bearer tok.en-1"], "n": [1, None]}
        expected = {"tok.en-1": [{"a": "x ***"}, "***", "Bearer ***"], "n": [1, None]}
        assert expected == self.read(json.dumps(body, ensure_ascii=False).encode())

    def test_json_escapes(self):
        """Escapes such as `\\u00f6` and `\\/` are resolved before the search."""
        escaped = "".join(f"\\u{ord(character):04x}" for character in self.SECRET)
        assert ["***"] == self.read(f'["{escaped}"]'.encode())

    @given(
        secret=st.sampled_from(['p@ss"w/r\\d&x=1', "tok.en-1"]),
        beside=st.tuples(st.text(), st.text()),
        ascii_only=st.booleans(),
        solidus=st.sampled_from(["/", "\\/"]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-32-be"]),
    )
    def test_encodings_and_adjacent_text(self, secret, beside, ascii_only, solidus, encoding):
        """The secret is found in every encoding that JSON may have."""
        body = json.dumps([secret.join(beside)], ensure_ascii=ascii_only).replace("/", solidus).encode(encoding)
        [text] = HttpResponse(status=200, body=body, secrets=(secret,)).json()
        assert secret not in text
        assert "***" in text

    def test_flow_runs_need_one_search(self):
        """Each flow run has escaped quotes in its etag, and hundreds are read each minute."""
        etag = '"{}-0000-0200-0000-67000000"'.format
        body = json.dumps({"items": [{"id": str(each), "etag": etag(each), "url": "a/b"} for each in range(3)]})
        secrets = (self.SECRET, "tok.en-1", 'quo"ted-')
        assert not may_contain(body.encode(), secrets=secrets)
        for text in ("tok.en-1", 'quo\\"ted-', "\\u0061", "\\\\", "\\/"):
            assert may_contain(body.replace("a/b", text).encode(), secrets=secrets)

    def test_search_costs_at_most_as_much_as_parsing_twice(self):
        """The fastest of several calls is measured, in processor time."""
        run = {"etag": '"2900c3f8"', "metrics": {"records": list(range(50)), "names": ["3abea21c"] * 50}}
        body = json.dumps({"items": [{"id": str(each), **run} for each in range(100)]}).encode()
        response = HttpResponse(status=200, body=body, secrets=(self.SECRET, "".join(map(str, range(300)))))
        assert shortest_time(response.json) < 3 * shortest_time(lambda: json_values.parse_json(body))

    def test_body_without_secret_is_unchanged(self):
        assert {"a": "tok.en-2"} == self.read(b'{"a": "tok.en-2"}')

    def test_short_secret_is_not_replaced(self):
        """An invented secret such as `s` is a part of `success`."""
        response = HttpResponse(status=200, body=b'{"status": "success"}', secrets=("s", ""))
        assert {"status": "success"} == response.json()

    def test_deep_nesting_is_unreadable(self):
        """Deep nesting raises no error."""
        assert self.read(b'["tok.en-1", ' + b"[" * 900 + b"]" * 900 + b"]") is not None
        assert json_values.UNREADABLE is self.read(b'["tok.en-1", ' + b"[" * 100_000 + b"]" * 100_000 + b"]")
