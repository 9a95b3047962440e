# SPDX-License-Identifier: Apache-2.0
"""Verify the parsing of Flow Service's JSON."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import (
    DeltaColumn,
    Flow,
    FlowRun,
    FlowRunStatus,
    RunError,
    SourceConnection,
)
from airflow_flowservice.exceptions import ConfigurationError, UnreadableAnswerError
from airflow_flowservice.windows.window import IngestionWindow


def utc(*parts):
    return datetime(*parts, tzinfo=timezone.utc)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["-1", "1651584991", "9" * 40, 10**400, "Copy", "success", -1, 0, float("nan")]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)

RUN_KEYS = [
    "id",
    "flowId",
    "status",
    "metrics",
    "statusSummary",
    "durationSummary",
    "startedAtUTC",
    "recordSummary",
    "inputRecordCount",
    "activities",
    "extensions",
    "windowStart",
    "windowEnd",
    "errors",
    "code",
    "message",
    "params",
    "windowStartTime",
    "windowEndTime",
    "targetInfo",
    "reference",
    "ids",
    "scheduleParams",
    "frequency",
    "transformations",
    "name",
    "deltaColumn",
    "items",
    "_links",
    "next",
    "href",
]
"""Keys of real responses, so that generated values reach the inner parsers."""

LIKE_A_RESPONSE = st.recursive(
    ANYTHING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(RUN_KEYS), inner, max_size=6),
    max_leaves=25,
)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("scheduled", FlowRunStatus.SCHEDULED),
        ("SCHEDULED", FlowRunStatus.SCHEDULED),
        ("QUEUED", FlowRunStatus.SCHEDULED),
        ("inProgress", FlowRunStatus.IN_PROGRESS),
        ("IN_PROGRESS", FlowRunStatus.IN_PROGRESS),
        ("in-progress", FlowRunStatus.IN_PROGRESS),
        ("in progress", FlowRunStatus.IN_PROGRESS),
        ("success", FlowRunStatus.SUCCESS),
        ("COMPLETED", FlowRunStatus.SUCCESS),
        ("partialSuccess", FlowRunStatus.PARTIAL_SUCCESS),
        ("PARTIAL_SUCCESS", FlowRunStatus.PARTIAL_SUCCESS),
        ("failed", FlowRunStatus.FAILED),
        ("Failed", FlowRunStatus.FAILED),
        ("PARTIAL_FAILURE", FlowRunStatus.FAILED),
        ("perhaps", FlowRunStatus.UNKNOWN),
        ("unknown", FlowRunStatus.UNKNOWN),
        ("", FlowRunStatus.UNKNOWN),
        (None, FlowRunStatus.UNKNOWN),
        (7, FlowRunStatus.UNKNOWN),
    ],
)
def test_status_words(word, status):
    """All documented spellings are parsed; any other word is neither a success nor an end."""
    assert status is FlowRunStatus.parse(word)


@pytest.mark.parametrize(
    ("status", "ended", "succeeded", "failed"),
    [
        (FlowRunStatus.SCHEDULED, False, False, False),
        (FlowRunStatus.IN_PROGRESS, False, False, False),
        (FlowRunStatus.SUCCESS, True, True, False),
        (FlowRunStatus.PARTIAL_SUCCESS, True, True, False),
        (FlowRunStatus.FAILED, True, False, True),
        (FlowRunStatus.UNKNOWN, False, False, False),
    ],
)
def test_status_states_whether_and_how_a_run_ended(status, ended, succeeded, failed):
    assert (ended, succeeded, failed) == (status.ended, status.succeeded, status.failed)


FULL_RUN = {
    "id": "3fb0418e-1804-45d6-8d56-dd51f05c0baf",
    "flowId": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
    "createdAt": 1670444654000,
    "updatedAt": 1670444685999,
    "createdClient": "client-1",
    "parentFlowRunId": "parent-1",
    "etag": '"1"',
    "params": {"windowStartTime": "1651584991", "windowEndTime": 1651585991},
    "metrics": {
        "durationSummary": {"startedAtUTC": 1670444654036, "completedAtUTC": 1670444685},
        "sizeSummary": {"inputBytes": 124, "outputBytes": -1},
        "recordSummary": {"inputRecordCount": 100, "outputRecordCount": 97, "failedRecordCount": "3"},
        "fileSummary": {"inputFileCount": 1, "outputFileCount": 0},
        "statusSummary": {
            "status": "partialSuccess",
            "errors": [{"code": "CONNECTOR-2001-500", "message": "Three records were skipped."}],
        },
    },
    "activities": [
        {
            "id": "copyActivity",
            "durationSummary": {"extensions": {"windowStart": 1, "windowEnd": 2}},
            "statusSummary": {
                "status": "success",
                "errors": [{"code": "CONNECTOR-2001-500", "message": "Three records were skipped."}],
                "extensions": {"errors": [{"code": 9, "message": "host db.example"}]},
            },
        },
        {"targetInfo": [{"reference": {"type": "Batch", "ids": ["b1", "b2"]}}]},
        {"targetInfo": [{"reference": {"ids": ["b2", "b3"]}}]},
    ],
}


def test_full_run():
    """Every field of a run is found at Adobe's places."""
    assert FlowRun(
        id="3fb0418e-1804-45d6-8d56-dd51f05c0baf",
        flow_id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
        status=FlowRunStatus.PARTIAL_SUCCESS,
        status_word="partialSuccess",
        created_at=utc(2022, 12, 7, 20, 24, 14),
        updated_at=utc(2022, 12, 7, 20, 24, 45, 999000),
        started_at=utc(2022, 12, 7, 20, 24, 14, 36000),
        completed_at=utc(2022, 12, 7, 20, 24, 45),
        created_client="client-1",
        window=IngestionWindow(utc(2022, 5, 3, 13, 36, 31), utc(2022, 5, 3, 13, 53, 11)),
        input_records=100,
        output_records=97,
        failed_records=3,
        input_bytes=124,
        output_bytes=None,
        input_files=1,
        output_files=0,
        errors=(
            RunError(code="CONNECTOR-2001-500", message="Three records were skipped."),
            RunError(code="9", message="host db.example"),
        ),
        batch_ids=("b1", "b2", "b3"),
        parent_id="parent-1",
        etag='"1"',
    ) == FlowRun.parse(FULL_RUN)


def test_scheduled_run():
    """A run that has only an id is scheduled; nothing else is known."""
    run = FlowRun.parse({"id": "run-1"})

    assert FlowRun(id="run-1", status=FlowRunStatus.SCHEDULED) == run
    assert run.window is None


def test_window_of_an_activity():
    """Without `params`, an activity may have the window, in milliseconds."""
    activity = {"durationSummary": {"extensions": {"windowStart": 1651584991000, "windowEnd": 1651585991000}}}

    run = FlowRun.parse({"id": "run-1", "activities": [{}, activity]})

    assert IngestionWindow(utc(2022, 5, 3, 13, 36, 31), utc(2022, 5, 3, 13, 53, 11)) == run.window


def test_window_of_an_activity_before_others():
    """An activity without a window does not hide the window of an earlier one."""
    copy = {"durationSummary": {"extensions": {"windowStart": 1651584991000, "windowEnd": 1651585991000}}}
    run = FlowRun.parse({"id": "run-1", "activities": [copy, {"durationSummary": {"startedAtUTC": 1651584991000}}]})
    assert IngestionWindow(utc(2022, 5, 3, 13, 36, 31), utc(2022, 5, 3, 13, 53, 11)) == run.window


def test_window_without_end_is_unknown():
    assert FlowRun.parse({"id": "run-1", "params": {"windowStartTime": "1651584991"}}).window is None


@pytest.mark.parametrize(("start", "end"), [(0, 0), (1651585991, 1651584991), (1651584991, 1651584991.5)])
def test_invalid_window_is_unknown(start, end):
    """An empty or reversed window cannot be compared with a DAG run's window, so it is None."""
    params = {"windowStartTime": start, "windowEndTime": end}
    assert FlowRun.parse({"id": "run-1", "params": params}).window is None


def test_window_may_start_in_1970():
    """Zero is an instant for a window; a zero `completedAtUTC` is None."""
    run = FlowRun.parse(
        {
            "id": "run-1",
            "params": {"windowStartTime": 0, "windowEndTime": "86400"},
            "metrics": {"durationSummary": {"completedAtUTC": 0}},
        }
    )

    assert (IngestionWindow(utc(1970, 1, 1), utc(1970, 1, 2)), None) == (run.window, run.completed_at)


def test_misprint_of_the_tutorial_is_an_instant():
    """Eleven digits are seconds in the year 2493, not milliseconds."""
    params = {"windowStartTime": "1651584991", "windowEndTime": "16515859567"}

    assert utc(2493, 5, 13, 18, 46, 7) == FlowRun.parse({"id": "run-1", "params": params}).window.end


@pytest.mark.parametrize("instant", [-1, 0, True, None, "soon", 10**17, "9" * 17, 10**400, float("inf"), [], {}])
def test_invalid_instants(instant):
    """An invalid instant, or one that a datetime cannot represent, is None."""
    assert FlowRun.parse({"id": "run-1", "createdAt": instant}).created_at is None


@pytest.mark.parametrize("count", [-1, "-1", True, None, "many", 1.5, float("nan"), 10**30, [1], {}])
def test_unknown_counts(count):
    """Adobe writes -1 for unknown; an unexpected value is None."""
    metrics = {"recordSummary": {"inputRecordCount": count}}

    assert FlowRun.parse({"id": "run-1", "metrics": metrics}).input_records is None


@pytest.mark.parametrize("raw", [None, [], 5, "run", {}, {"id": ""}, {"id": None}, {"id": ["a"]}])
def test_run_without_an_id(raw):
    """An object without an id is refused."""
    with pytest.raises(UnreadableAnswerError, match="no id"):
        FlowRun.parse(raw)
    with pytest.raises(UnreadableAnswerError, match="no id"):
        Flow.parse(raw)


FULL_FLOW = {
    "id": "3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
    "name": "Orders",
    "state": "enabled",
    "scheduleParams": {"startTime": "1567411548", "frequency": "once"},
    "flowSpec": {"id": "14518937-270c-4525-bdec-c2ba7cce3860", "version": "1.0"},
    "sourceConnectionIds": ["s1"],
    "targetConnectionIds": ["t1", "t2"],
    "transformations": [
        {"name": "Mapping", "params": {"mappingId": "m"}},
        {
            "name": "Copy",
            "params": {"deltaColumn": {"name": "updated", "dateFormat": "yyyy", "timezone": "UTC", "x": 1}},
        },
    ],
}


def test_full_flow():
    """Every field of a flow is found, the delta column in its Copy transformation."""
    flow = Flow.parse(FULL_FLOW)

    assert (
        Flow(
            id="3abea21c-7e36-4be1-bec1-d3bad0e3e0de",
            name="Orders",
            state="enabled",
            frequency="once",
            delta_column=DeltaColumn(name="updated", date_format="yyyy", timezone="UTC"),
            flow_spec_id="14518937-270c-4525-bdec-c2ba7cce3860",
            source_connection_ids=("s1",),
            target_connection_ids=("t1", "t2"),
        )
        == flow
    )
    assert flow.raw is FULL_FLOW
    assert (flow.enabled, flow.one_time) == (True, True)
    assert "Mapping" not in repr(flow)


@pytest.mark.parametrize(
    ("raw", "enabled", "one_time"),
    [
        ({}, True, None),
        ({"state": "disabled", "scheduleParams": {"frequency": "hour", "interval": 1}}, False, False),
        ({"state": "draft"}, False, None),
        ({"state": "ENABLED", "scheduleParams": {"frequency": "Once"}}, True, True),
    ],
)
def test_enabled_and_one_time(raw, enabled, one_time):
    """A flow without state counts as enabled; without frequency, `one_time` is None."""
    flow = Flow.parse({"id": "flow-1", **raw})

    assert (enabled, one_time) == (flow.enabled, flow.one_time)


@pytest.mark.parametrize(
    ("given", "json"),
    [
        ("DOB", {"name": "DOB"}),
        ({"name": "DOB"}, {"name": "DOB"}),
        ({"name": "DOB", "dateFormat": None}, {"name": "DOB"}),
        (
            {"timezone": "UTC", "name": "DOB", "dateFormat": "yyyy"},
            {"name": "DOB", "dateFormat": "yyyy", "timezone": "UTC"},
        ),
        (DeltaColumn(name="DOB"), {"name": "DOB"}),
        (" DOB\n", {"name": "DOB"}),
        ({"name": " DOB ", "timezone": " UTC "}, {"name": "DOB", "timezone": "UTC"}),
        ("{'name': 'DOB', 'timezone': None}", {"name": "DOB"}),
        (' {"name": "DOB", "timezone": "UTC"}', {"name": "DOB", "timezone": "UTC"}),
        ('{"name": "DOB", "dateFormat": null}', {"name": "DOB"}),
        ("[date of birth]", {"name": "[date of birth]"}),
        ("None_of_these", {"name": "None_of_these"}),
    ],
)
def test_delta_columns(given, json):
    """A delta column is a name, or the mapping of the API."""
    column = DeltaColumn.parse(given)

    assert list(json.items()) == list(column.to_json().items())
    assert column == DeltaColumn.parse(column.to_json())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "name is empty"),
        ("  ", "name is empty"),
        ({}, "name is empty"),
        ({"name": 5}, "is not a string"),
        ({"name": "DOB", "dateFormat": 5}, "dateFormat is empty or is not a string"),
        ({"name": "DOB", "timezone": ""}, "timezone is empty"),
        ({"name": "DOB", "date_format": "x"}, "unknown key date_format"),
        (["DOB"], "type list"),
        (None, "type NoneType"),
        ("None", "its name is 'None', so its template has no value in this DAG run"),
        (" null ", "its name is 'null'"),
        ("NULL", "its name is 'NULL'"),
        ("undefined", "its name is 'undefined'"),
        ('""', "its name is '\"\"'"),
        ({"name": "None"}, "its name is 'None'"),
        ({"name": "DOB", "timezone": "None"}, "its timezone is 'None'"),
        ({"name": "DOB", "dateFormat": "null"}, "its dateFormat is 'null'"),
        (DeltaColumn(name="None"), "its name is 'None'"),
        ("{'name': None}", "name is empty or is not a string"),
        ('{"name": "null"}', "its name is 'null'"),
        ("{}", "name is empty"),
        ('{"column": "DOB"}', "unknown key column"),
        ('["DOB"]', "type list"),
        ("['DOB', 'x']", "type list"),
        ("('DOB',)", "type tuple"),
        ("[]", "type list"),
        ('{"name": "DOB"', "which is not readable as a mapping"),
        ("{{ params.column }}", "a template that was not rendered"),
        ({"name": "{{ params.column }}"}, "a template that was not rendered"),
    ],
)
def test_invalid_delta_columns(given, why):
    """The error states the problem, and the remedy has the format."""
    with pytest.raises(ConfigurationError) as caught:
        DeltaColumn.parse(given)

    assert why in caught.value.message
    assert "dateFormat" in caught.value.remedy


@given(LIKE_A_RESPONSE, st.booleans())
def test_any_json_is_a_value_or_a_typed_error(value, with_id):
    """Parsing raises only `UnreadableAnswerError`."""
    if with_id and isinstance(value, dict):
        value = {**value, "id": "x"}
    for parse in (FlowRun.parse, Flow.parse):
        try:
            parse(value)
        except UnreadableAnswerError:
            assert not (with_id and isinstance(value, dict))


@given(ANYTHING)
def test_any_delta_column_is_a_value_or_a_typed_error(value):
    """Parsing raises only `ConfigurationError`."""
    with suppress(ConfigurationError):
        assert DeltaColumn.parse(value).name.strip()


@given(st.text())
def test_any_word_is_a_status(word):
    """Any word has a status; case, `_`, `-` and spaces are ignored."""
    assert FlowRunStatus.parse(word) is FlowRunStatus.parse(f" {word.replace('_', '-')}_")


def test_models_do_not_import_requests():
    """DAG files may import the models at low cost."""
    code = (
        "import sys, airflow_flowservice.api.models; "
        "print(sorted({'requests', 'urllib3', 'airflow', 'pendulum'} & set(sys.modules)))"
    )

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@given(raw=LIKE_A_RESPONSE)
def test_brief_parsing_keeps_the_status(raw):
    """A run that has ended or has an unknown status is parsed completely, any other only as far as a poll needs."""
    raw = {"id": "a", **raw} if isinstance(raw, dict) else raw
    try:
        whole = FlowRun.parse(raw)
    except UnreadableAnswerError:
        with pytest.raises(UnreadableAnswerError):
            FlowRun.parse(raw, briefly=True)
        return
    brief = FlowRun.parse(raw, briefly=True)
    if whole.status.ended or whole.status is FlowRunStatus.UNKNOWN:
        assert whole == brief
        return
    names = ("id", "flow_id", "status", "status_word")
    assert brief == FlowRun(**{name: getattr(whole, name) for name in names})


@given(raw=LIKE_A_RESPONSE)
def test_parsing_of_the_id_agrees(raw):
    """The id, the dataflow and the time of creation are those of the whole flow run."""
    raw = {"id": "a", **raw} if isinstance(raw, dict) else raw
    try:
        whole = FlowRun.parse(raw)
    except UnreadableAnswerError:
        with pytest.raises(UnreadableAnswerError):
            FlowRun.parse_id(raw)
        return
    assert FlowRun.parse_id(raw) == FlowRun(id=whole.id, flow_id=whole.flow_id, created_at=whole.created_at)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("inProgress", None), ("success", IngestionWindow(utc(2026, 1, 1), utc(2026, 1, 1, 1)))],
)
def test_brief_parsing_of_an_active_run_omits_the_window(word, expected):
    window = {"windowStartTime": "1767225600", "windowEndTime": "1767229200"}
    raw = {"id": "a", "params": window, "metrics": {"statusSummary": {"status": word}}}
    assert expected == FlowRun.parse(raw, briefly=True).window


@pytest.mark.parametrize("spec", ["spec-1", {"id": "spec-1", "version": "1.0"}], ids=["plain text", "object"])
def test_the_flow_specification_is_an_object_or_text(spec):
    """An example of Adobe's OpenAPI file has plain text; a source connection's specification is read the same way."""
    assert "spec-1" == Flow.parse({"id": "f-1", "flowSpec": spec}).flow_spec_id
    assert "spec-1" == SourceConnection.parse({"id": "s-1", "connectionSpec": spec}).connection_spec_id


@pytest.mark.parametrize("spec", [None, "", " ", [], {}, {"id": ""}, True, 1.5])
def test_a_flow_specification_of_another_type_is_unknown(spec):
    """Parsing is lenient."""
    assert Flow.parse({"id": "f-1", "flowSpec": spec}).flow_spec_id is None
