"""What a flow run came to, as JSON, as error and as a line of log."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus, RunError
from airflow_flowservice.exceptions import FlowRunFailedError
from airflow_flowservice.runs.summary import describe, require_success, summary_of, summary_of_new, window_text
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
    "errors",
    "url",
]


def run(**fields: Any) -> FlowRun:
    return FlowRun(**{"id": "run-1", "flow_id": "flow-1", "status": FlowRunStatus.SUCCESS, **fields})


def failure(*errors: RunError) -> FlowRunFailedError:
    summary = summary_of(run(status=FlowRunStatus.FAILED, errors=errors), window=WINDOW, url=URL)
    with pytest.raises(FlowRunFailedError) as caught:
        require_success(summary)
    return caught.value


class TestSummary:
    def test_a_full_run(self) -> None:
        """Everything that the run says is in the summary, in exactly these keys and this order."""
        counts = {name: number for number, name in enumerate(KEYS[5:12])}
        summary = summary_of(run(errors=(RunError(code="C-1", message="bad"),), **counts), window=WINDOW, url=URL)
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
            "errors": [{"code": "C-1", "message": "bad"}],
            "url": URL,
        }

    def test_it_is_json(self) -> None:
        """XCom and trigger events carry it unchanged."""
        summary = summary_of(run(errors=(RunError(code=None, message="bad"),)), window=WINDOW, url=URL)
        assert json.loads(json.dumps(summary)) == summary

    @pytest.mark.parametrize("name", KEYS[5:12])
    def test_unknown_counts_are_none(self, name: str) -> None:
        """A count that Flow Service does not give is None, never zero."""
        assert summary_of(run())[name] is None

    def test_the_window_that_was_asked_for_comes_first(self) -> None:
        """What the run shows does not replace what was asked for."""
        summary = summary_of(run(window_start=END, window_end=END), window=WINDOW)
        assert window_text(summary) == str(WINDOW)

    def test_without_one_it_is_the_runs_own(self) -> None:
        """A run that nobody here created shows its own window."""
        assert window_text(summary_of(run(window_start=START, window_end=END))) == str(WINDOW)

    def test_an_unknown_window_is_none(self) -> None:
        """A run that shows no window has none in the summary."""
        summary = summary_of(run())
        assert (summary["window_start"], summary["window_end"], window_text(summary)) == (None, None, None)

    def test_the_flow_is_filled_in(self) -> None:
        """A run that does not name its flow gets the one that was asked for."""
        assert summary_of(run(flow_id=None), flow_id="flow-2")["flow_id"] == "flow-2"

    def test_the_runs_own_flow_comes_first(self) -> None:
        """The flow that the run names is its flow."""
        assert summary_of(run(), flow_id="flow-2")["flow_id"] == "flow-1"

    def test_a_new_run_has_the_same_keys(self) -> None:
        """A run that was not read yet has a summary of the same shape."""
        new = summary_of_new(flow_run_id="run-1", flow_id="flow-1", window=WINDOW, url=URL)
        assert list(new) == KEYS

    def test_a_new_run_is_created_and_nothing_else_is_known(self) -> None:
        """It has its window, no counts and no errors."""
        new = summary_of_new(flow_run_id="run-1", flow_id="flow-1", window=WINDOW, url=URL)
        assert (new["status"], window_text(new), new["errors"]) == ("created", str(WINDOW), [])
        assert [new[name] for name in KEYS[5:12]] == [None] * 7

    def test_a_new_run_may_have_no_window(self) -> None:
        """The repetition of a run whose window is unknown has none."""
        assert window_text(summary_of_new(flow_run_id="r", flow_id="f", window=None, url=URL)) is None


class TestRequireSuccess:
    @pytest.mark.parametrize("status", [FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS])
    def test_success_passes(self, status: FlowRunStatus) -> None:
        """A run that has succeeded, wholly or in part, is no error."""
        assert require_success(summary_of(run(status=status))) is None

    @pytest.mark.parametrize(
        "status", [status for status in FlowRunStatus if status.value not in ("success", "partial_success")]
    )
    def test_everything_else_is_a_failure(self, status: FlowRunStatus) -> None:
        """Any other state is refused, and named."""
        with pytest.raises(FlowRunFailedError, match=f"the flow run ended as {status.value}"):
            require_success(summary_of(run(status=status)))

    def test_the_message_has_the_runs_errors_with_codes(self) -> None:
        """All errors of the run are in the message, each with its code if it has one."""
        error = failure(RunError(code="CONNECTOR-1001-500", message="no host"), RunError(code=None, message="gone"))
        assert error.message == "the flow run ended as failed: CONNECTOR-1001-500: no host; gone"

    def test_the_fields_say_which_run(self) -> None:
        """Flow, window, run and page are in the error's fields."""
        error = failure()
        assert (error.flow_id, error.window, error.flow_run_id, error.url) == ("flow-1", str(WINDOW), "run-1", URL)

    def test_the_code_is_the_first_that_there_is(self) -> None:
        """An error without code does not hide the code of the next."""
        assert failure(RunError(code=None, message="a"), RunError(code="C-2", message="b")).code == "C-2"

    def test_without_errors_it_says_so(self) -> None:
        """A failed run that gives no reason is told as such, with what to do."""
        error = failure()
        assert (error.message, error.code) == ("the flow run ended as failed: Flow Service gives no reason", None)
        assert error.remedy == FlowRunFailedError.default_remedy


class TestDescribe:
    def test_all_that_is_known(self) -> None:
        """The line has run, status, window and the counts of records, readable for people."""
        summary = summary_of(run(input_records=12_345, output_records=12_340, failed_records=5), window=WINDOW)
        assert describe(summary) == (
            f"Flow run run-1 ended as success, window {WINDOW}, "
            "12,345 records read, 12,340 records written, 5 records failed"
        )

    def test_zero_is_told(self) -> None:
        """A count of zero is news."""
        assert describe(summary_of(run(input_records=0))) == "Flow run run-1 ended as success, 0 records read"

    def test_the_unknown_is_left_out(self) -> None:
        """Nothing is said of what Flow Service does not say."""
        assert describe(summary_of(run())) == "Flow run run-1 ended as success"
