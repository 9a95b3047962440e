# SPDX-License-Identifier: Apache-2.0
"""Verify that PostgreSQL and MySQL can store, and a terminal can print, each value from a response or an XCom.

PostgreSQL refuses NUL, lone surrogates and NaN in JSON. MySQL's utf8mb4 stores every character that UTF-8 encodes.
"""

from __future__ import annotations

import json
import time

import pytest
from foreign_json import JSON, OBJECTS, PARSERS, TEXT, received, run_with
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.auth import parse_token
from airflow_flowservice.api.http_session import HttpResponse
from airflow_flowservice.api.models import MAX_RUN_ERRORS, Flow, FlowRun
from airflow_flowservice.api.redaction import excerpt
from airflow_flowservice.api.responses import (
    Call,
    parse_created_run,
    parse_error_body,
    parse_item,
    parse_page,
    raise_for_status,
)
from airflow_flowservice.checks import findings
from airflow_flowservice.exceptions import ApiError, FlowServiceError, RunRefusedError, from_dict
from airflow_flowservice.runs.summary import FlowRunSummary

LONGEST_TEXT = 10_000


def texts_in(value):
    """Yield all texts of a model, an error or a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            yield from texts_in(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from texts_in(each)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from texts_in(getattr(value, name))


def require_harmless(value, *, longest=LONGEST_TEXT):
    for text in texts_in(value):
        assert text.isprintable(), text
        assert text.encode("utf-8").decode("utf-8") == text
        assert len(text) <= longest


def require_storable(value):
    """Require JSON that PostgreSQL and MySQL store, of at most 50,000 characters."""
    stored = json.dumps(value, allow_nan=False, ensure_ascii=False)
    assert len(stored) <= 50_000
    require_harmless(value)


def outcome_of(parse):
    try:
        return parse()
    except ApiError as error:
        require_harmless([str(error), *error.args], longest=LONGEST_TEXT + 5_000)
        require_storable(error.to_dict())
        return None


@given(OBJECTS, TEXT, st.sampled_from([200, 400, 404, 500]))
def test_any_response_can_be_stored_and_printed(value, header, status):
    """Each model, its XCom and event, its log line and each error of any JSON is printable, storable and bounded."""
    response = received(value, status, **{"x-request-id": header})
    for call, parse in PARSERS:
        model = outcome_of(lambda call=call, parse=parse: parse(parse_item(response, call)))
        # `Flow.raw` is cleaned but not bounded.
        require_harmless(model, longest=20_000)
        if isinstance(model, FlowRun):
            summary = FlowRunSummary.of(model, window=None, url=None)
            require_storable(summary.to_json())
            require_harmless([summary.describe(), str(findings.of_newest_run(model))], longest=25_000)
            assert FlowRunSummary.from_json(summary.to_json()) == summary
        if isinstance(model, Flow):
            json.dumps(model.raw, allow_nan=False)
            require_harmless([str(each) for each in findings.of_flow(model, needs_delta_column=None)])
    require_harmless(outcome_of(lambda: parse_created_run(response, Call.CREATE_RUN)))
    page = outcome_of(lambda: parse_page(response, Call.LIST_RUNS))
    require_harmless(page and page.continuation, longest=100_000)
    outcome_of(lambda: parse_token(response, now=0.0, client_id="client", host="ims"))


@given(OBJECTS)
def test_any_xcom_can_be_stored_and_printed(value):
    """A user or another version may have written the XCom, the event or its error."""
    summary = FlowRunSummary.from_json(value)
    if summary is not None:
        require_storable(summary.to_json())
        require_harmless(summary.describe())
    error = from_dict(value)
    require_storable(error.to_dict())
    require_harmless([str(error), *error.args], longest=LONGEST_TEXT + 5_000)


@given(st.dictionaries(st.sampled_from(["flow_id", "window", "code", "http_status", "url", "remedy"]), JSON))
def test_any_field_of_an_error_can_be_stored_and_printed(fields):
    """Fields are cleaned by the constructor and by `about`."""
    for error in (FlowServiceError("it\nbroke", **fields), FlowServiceError("it\nbroke").about(**fields)):
        require_storable(error.to_dict())
        assert str(error).isprintable()


def test_two_megabytes_of_message():
    """A message is cut at 1,000 characters, an error at 10,000."""
    run = FlowRun.parse(run_with("x" * 2_000_000))
    assert {len(error.message) for error in run.errors} == {1000}
    assert (len(run.id), len(run.status_word), len(run.etag), len(run.errors[0].code)) == (200, 200, 200, 200)
    assert len(FlowServiceError("x" * 2_000_000).message) == 10_000


def test_cut_ids_are_not_valid():
    """An id that was changed cannot be the id of another flow run."""
    from airflow_flowservice.api.validation import validate_identifier
    from airflow_flowservice.exceptions import ConfigurationError

    for text in ("x" * 201, "run\0", "run\n1", "run\ud8001"):
        with pytest.raises(ConfigurationError):
            validate_identifier(FlowRun.parse({"id": text}).id, "flow_run_id")


def test_twenty_thousand_errors():
    """At most 20 errors are kept; the last one states the number of the others, also in the XCom."""
    errors = [{"code": f"C-{number}", "message": "bad"} for number in range(20_000)]
    run = FlowRun.parse({"id": "run-1", "metrics": {"statusSummary": {"status": "failed", "errors": errors * 2}}})
    summary = FlowRunSummary.of(run)

    assert len(run.errors) == MAX_RUN_ERRORS == 20
    assert str(run.errors[18]) == "C-18: bad"
    assert str(run.errors[19]) == "19,981 more errors are omitted"
    assert FlowRunSummary.from_json(summary.to_json()) == summary
    xcom = FlowRunSummary.from_json({"id": "run-1", "errors": errors})
    assert xcom.errors == run.errors


def test_raw_json_without_changes_is_the_same_object():
    raw = {"id": "flow-1", "x": [{"y": [1, 2.5, None, "text"]}]}
    assert Flow.parse(raw).raw is raw


def test_raw_json_is_cleaned():
    """Names and texts are cleaned. NaN, infinity and a value that is nested too deeply become None."""
    deep = []
    for _ in range(50_000):
        deep = [deep]
    raw = {"id": "f", "a\0": "b\ud800", "n": [float("nan"), float("inf"), 1.5], "deep": deep}
    cleaned = Flow.parse(raw).raw
    assert {**cleaned, "deep": 0} == {"id": "f", "a\ufffd": "b\ufffd", "n": [None, None, 1.5], "deep": 0}
    json.dumps(cleaned)


@pytest.mark.parametrize("depth", [10, 900, 100_000])
def test_nested_error_body(depth):
    """The parser of error bodies reads a few levels only."""
    value = {"message": "deep"}
    for _ in range(min(depth, 900)):
        value = [value]
    body = json.dumps(value).encode() if depth <= 900 else b"[" * depth + b"]" * depth
    response = HttpResponse(status=400, body=body)
    assert parse_error_body(response).code is None
    with pytest.raises(RunRefusedError, match="the response was"):
        raise_for_status(response, Call.CREATE_RUN)


def test_nested_error_body_beyond_the_limit_of_recursion(monkeypatch):
    """The parser does not depend on the limit of the JSON parser, which newer Pythons do not have."""
    value = []
    for _ in range(20_000):
        value = [value]
    monkeypatch.setattr(HttpResponse, "json", lambda self: value)
    assert parse_error_body(HttpResponse(status=400, body=b"x")).message == "the response was 'x'"


def seconds_of(call):
    """Return the processor seconds of the fastest of some calls."""

    def once():
        begun = time.process_time()
        call()
        return time.process_time() - begun

    return min(once() for _ in range(5))


@pytest.mark.parametrize(
    "pattern",
    ["eyJ", "eyJeyJ.", "eyJa.b.", "eyJ-", "Bearer ", "client_secret=", '"access_token"', '"access_token" ', "\x1b\0"],
)
def test_excerpts_take_linear_time(pattern):
    """Four times the text takes about four times as long. A quadratic expression would take 16 times as long."""
    short, long = (pattern * (length // len(pattern)) for length in (16_000, 64_000))
    assert seconds_of(lambda: excerpt(long)) < 9 * max(seconds_of(lambda: excerpt(short)), 0.0005)


@pytest.mark.parametrize(
    "text", ["eyJhbGciOi.JzdWIiOi.abc", "token_eyJhbGciOi.JzdWIiOi", "eyJ.eyJhbGciOi.JzdWIiOi", "x.eyJa.JzdWIiOi-_"]
)
def test_tokens_are_hidden(text):
    assert "JzdWIiOi" not in excerpt(f"before {text} after")
    assert excerpt(f"before {text} after").endswith(" after")


def test_words_that_are_no_tokens_are_kept():
    assert excerpt("eyJ eyJ. heyJude eyJa. keyJar") == "eyJ eyJ. heyJude eyJa. keyJar"
