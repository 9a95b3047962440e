# SPDX-License-Identifier: Apache-2.0
"""Summaries of flow runs: as JSON, as errors and as log lines."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus, RunError
from airflow_flowservice.exceptions import FlowRunFailedError, FlowRunOutcomeUnknownError
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
START, END = datetime(2026, 1, 30, tzinfo=UTC), datetime(2026, 1, 31, tzinfo=UTC)
WINDOW = IngestionWindow(START, END)
URL = "https://experience.adobe.com/run-1"
KEYS = [
    "id",
    "flow_id",
    "status",
    "window_start",
    "window_end",
    "input_records",
    "output_records",
    "failed_records",
    "input_bytes",
    "output_bytes",
    "input_files",
    "output_files",
    "updated_records",
    "skipped_records",
    "deleted_records",
    "failed_records_derived",
    "errors",
    "url",
    "batches",
]


def run(**fields: Any) -> FlowRun:
    return FlowRun(**{"id": "run-1", "flow_id": "flow-1", "status": FlowRunStatus.SUCCESS, **fields})


def failure(*errors: RunError) -> FlowRunFailedError:
    summary = FlowRunSummary.of(run(status=FlowRunStatus.FAILED, errors=errors), window=WINDOW, url=URL)
    with pytest.raises(FlowRunFailedError) as caught:
        summary.require_success()
    return caught.value


class TestToJson:
    def test_keys_and_values(self) -> None:
        """The JSON object has everything that the run reports, in exactly these keys and this order."""
        counts = {name: number for number, name in enumerate(KEYS[5:15])}
        errors = (RunError(code="C-1", message="bad"),)
        summary = FlowRunSummary.of(run(errors=errors, **counts), window=WINDOW, url=URL).to_json()
        assert list(summary) == KEYS
        assert summary == {
            "id": "run-1",
            "flow_id": "flow-1",
            "status": "success",
            "window_start": "2026-01-30T00:00:00Z",
            "window_end": "2026-01-31T00:00:00Z",
            "input_records": 0,
            "output_records": 1,
            "failed_records": 2,
            "input_bytes": 3,
            "output_bytes": 4,
            "input_files": 5,
            "output_files": 6,
            "updated_records": 7,
            "skipped_records": 8,
            "deleted_records": 9,
            "failed_records_derived": False,
            "errors": [{"code": "C-1", "message": "bad"}],
            "url": URL,
            "batches": [],
        }

    def test_result_is_json(self) -> None:
        """XComs and trigger events carry it unchanged."""
        errors = (RunError(code=None, message="bad"),)
        summary = FlowRunSummary.of(run(errors=errors), window=WINDOW, url=URL).to_json()
        assert json.loads(json.dumps(summary)) == summary

    @pytest.mark.parametrize("name", KEYS[5:15])
    def test_unknown_counts_are_none(self, name: str) -> None:
        """A count that Flow Service does not report is None, never zero."""
        assert FlowRunSummary.of(run()).to_json()[name] is None

    def test_unknown_window_is_none(self) -> None:
        """Both edges are None if the run shows no window."""
        summary = FlowRunSummary.of(run())
        values = summary.to_json()
        assert (values["window_start"], values["window_end"], summary.window) == (None, None, None)

    def test_new_run_has_the_same_keys(self) -> None:
        """The summary of a run that was not read yet has the same shape."""
        new = FlowRunSummary.of_new("run-1", flow_id="flow-1", window=WINDOW, url=URL)
        assert list(new.to_json()) == KEYS


class TestValues:
    def test_requested_window_comes_first(self) -> None:
        """The window that the run shows does not replace the requested one."""
        other = IngestionWindow(END, END + (END - START))
        assert FlowRunSummary.of(run(window=other), window=WINDOW).window == WINDOW

    def test_without_a_requested_window_the_runs_own_is_used(self) -> None:
        """The sensor waits for runs of other tasks, and does not know the requested window."""
        assert FlowRunSummary.of(run(window=WINDOW)).window == WINDOW

    def test_missing_flow_is_filled_in(self) -> None:
        """A run that does not show its dataflow gets the requested one."""
        assert FlowRunSummary.of(run(flow_id=None), flow_id="flow-2").flow_id == "flow-2"

    def test_runs_own_flow_comes_first(self) -> None:
        """The dataflow that the run shows is not replaced."""
        assert FlowRunSummary.of(run(), flow_id="flow-2").flow_id == "flow-1"

    def test_new_run_has_no_counts_and_no_errors(self) -> None:
        """Only id, dataflow, window and page are known."""
        new = FlowRunSummary.of_new("run-1", flow_id="flow-1", window=WINDOW, url=URL)
        assert (new.status, new.window, new.errors) == ("created", WINDOW, ())
        assert [getattr(new, name) for name in KEYS[5:15]] == [None] * 10

    def test_new_run_may_have_no_window(self) -> None:
        """The repetition of a run whose window is unknown has none."""
        assert FlowRunSummary.of_new("r", flow_id="f", window=None, url=URL).window is None


class TestFromJson:
    @pytest.mark.parametrize("window", [WINDOW, None])
    @pytest.mark.parametrize("errors", [(), (RunError(code=None, message="a"), RunError(code="C-2", message="b"))])
    def test_reads_what_to_json_wrote(self, window: IngestionWindow | None, errors: tuple[RunError, ...]) -> None:
        """A summary passes through an XCom without a change."""
        summary = FlowRunSummary.of(run(output_records=7, errors=errors), window=window, url=URL)
        assert FlowRunSummary.from_json(json.loads(json.dumps(summary.to_json()))) == summary

    @pytest.mark.parametrize("value", [{}, {"id": 5}, {"id": None}, "text", None, ["a"]])
    def test_other_values_are_no_summary(self, value: Any) -> None:
        """Another package may use the same XCom key."""
        assert FlowRunSummary.from_json(value) is None

    def test_missing_keys_are_not_known(self) -> None:
        """An id is enough, so that XComs of other versions can be read."""
        assert FlowRunSummary.from_json({"id": "a", "later": 1}) == FlowRunSummary(id="a")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("window_start", "yesterday"),
            ("window_end", None),
            ("window_start", "2026-01-31T00:00:00Z"),
            ("window_end", 5),
        ],
    )
    def test_unreadable_window_is_none(self, field: str, value: Any) -> None:
        """The other fields are still read."""
        values = FlowRunSummary.of(run(), window=WINDOW).to_json()
        assert FlowRunSummary.from_json({**values, field: value}) == FlowRunSummary.of(run())

    @pytest.mark.parametrize("value", [-1, None, "7", True, 1.5])
    @pytest.mark.parametrize("name", KEYS[5:15])
    def test_unreadable_count_is_none(self, name: str, value: Any) -> None:
        """Flow Service reports -1 for a count that is not known."""
        summary = FlowRunSummary.from_json({"id": "a", name: value})
        assert summary is not None
        assert getattr(summary, name) is None

    @pytest.mark.parametrize("name", ["flow_id", "url"])
    def test_unreadable_text_is_none(self, name: str) -> None:
        assert FlowRunSummary.from_json({"id": "a", name: 5}) == FlowRunSummary(id="a")

    @pytest.mark.parametrize("value", [None, "text", [5], {}])
    def test_unreadable_errors_are_omitted(self, value: Any) -> None:
        assert FlowRunSummary.from_json({"id": "a", "errors": value}) == FlowRunSummary(id="a")

    def test_unreadable_status_is_unknown(self) -> None:
        """An unknown status is not a success."""
        summary = FlowRunSummary.from_json({"id": "a", "status": 5})
        assert summary is not None
        assert (summary.status, summary.succeeded) == ("unknown", False)


class TestRequireSuccess:
    @pytest.mark.parametrize("status", [FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS])
    def test_success_passes(self, status: FlowRunStatus) -> None:
        """A full or partial success raises nothing."""
        assert FlowRunSummary.of(run(status=status)).require_success() is None

    @pytest.mark.parametrize(
        "status",
        [status for status in FlowRunStatus if status.value not in ("success", "partial_success", "ended_unclear")],
    )
    def test_any_other_status_is_a_failure(self, status: FlowRunStatus) -> None:
        """The error has the status."""
        with pytest.raises(FlowRunFailedError, match=f"the flow run ended as {status.value}"):
            FlowRunSummary.of(run(status=status)).require_success()

    def test_message_has_the_runs_errors_with_codes(self) -> None:
        """All errors of the run are in the message, each with its code if it has one."""
        error = failure(RunError(code="CONNECTOR-1001-500", message="no host"), RunError(code=None, message="gone"))
        assert error.message == "the flow run ended as failed: CONNECTOR-1001-500: no host; gone"

    def test_error_fields(self) -> None:
        """Flow, window, run and page are in the error's fields."""
        error = failure()
        assert (error.flow_id, error.window, error.flow_run_id, error.url) == ("flow-1", str(WINDOW), "run-1", URL)

    def test_code_is_the_first_known_one(self) -> None:
        """An error without a code does not hide the code of the next."""
        assert failure(RunError(code=None, message="a"), RunError(code="C-2", message="b")).code == "C-2"

    def test_message_without_errors(self) -> None:
        """A failed run without errors has a message that states it, and a remedy."""
        error = failure()
        assert (error.message, error.code) == ("the flow run ended as failed: Flow Service gives no reason", None)
        assert error.remedy == FlowRunFailedError.default_remedy


class TestOutcomeUnknown:
    def test_a_run_without_a_status_is_an_error_of_its_own(self) -> None:
        """It is neither a success nor a failure, and a retry may read it again."""
        ended = run(status=FlowRunStatus.ENDED_UNCLEAR, errors=(RunError(code="C-1", message="slow"),))
        summary = FlowRunSummary.of(ended, window=WINDOW, url=URL)
        with pytest.raises(FlowRunOutcomeUnknownError) as caught:
            summary.require_success()
        error = caught.value
        assert not summary.succeeded
        assert ("run-1", str(WINDOW), URL, True) == (error.flow_run_id, error.window, error.url, error.retryable)
        assert error.message.endswith("does not report whether it succeeded; it reports C-1: slow")
        assert "a retry creates none" in error.remedy

    def test_the_status_survives_json(self) -> None:
        restored = FlowRunSummary.from_json(FlowRunSummary.of(run(status=FlowRunStatus.ENDED_UNCLEAR)).to_json())
        assert restored is not None
        assert ("ended_unclear", False) == (restored.status, restored.succeeded)


class TestOtherCounts:
    def test_counts_and_the_mark_survive_json(self) -> None:
        """A derived number of failed records stays marked."""
        counts = {"updated_records": 3, "skipped_records": 2, "deleted_records": 1, "failed_records": 4}
        first = FlowRunSummary.of(run(failed_records_derived=True, **counts))
        assert FlowRunSummary.from_json(first.to_json()) == first
        assert first.to_json() | counts | {"failed_records_derived": True} == first.to_json()

    def test_summary_of_an_earlier_version_is_not_marked(self) -> None:
        old = FlowRunSummary.from_json({"id": "run-1", "status": "success", "failed_records": 4})
        assert old is not None
        assert (4, False, None) == (old.failed_records, old.failed_records_derived, old.updated_records)

    def test_describe_marks_derived_failures(self) -> None:
        """The log line names the counts that are not zero."""
        counts = {"input_records": 9, "failed_records": 4, "failed_records_derived": True, "updated_records": 3}
        text = FlowRunSummary.of(run(deleted_records=0, **counts)).describe()
        assert text.endswith("9 records read, 4 records failed (derived from the other counts), 3 records updated")


class TestDescribe:
    def test_known_facts(self) -> None:
        """The line has run, status, window and the counts of records."""
        summary = FlowRunSummary.of(run(input_records=12_345, output_records=12_340, failed_records=5), window=WINDOW)
        assert summary.describe() == (
            f"Flow run run-1 ended as success, window {WINDOW}, "
            "12,345 records read, 12,340 records written, 5 records failed"
        )

    def test_zero_is_included(self) -> None:
        assert FlowRunSummary.of(run(input_records=0)).describe() == "Flow run run-1 ended as success, 0 records read"

    def test_unknown_facts_are_omitted(self) -> None:
        assert FlowRunSummary.of(run()).describe() == "Flow run run-1 ended as success"
