# SPDX-License-Identifier: Apache-2.0
"""Verify how runs of all published shapes are read: status, errors, batches and counts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from airflow_flowservice.api.flow_runs import error_texts
from airflow_flowservice.api.models import FlowRun, FlowRunStatus, RunError, bounded_errors

COPY = "Error in copying the data from Source."
HOST = "The host did not respond."
SUCCESS, FAILED, UNCLEAR = FlowRunStatus.SUCCESS, FlowRunStatus.FAILED, FlowRunStatus.ENDED_UNCLEAR


def ended(*statuses: str | None, **metrics: Any) -> FlowRun:
    """Parse a run with a completion time and no status, and one activity for each status."""
    activities = [{"statusSummary": {"status": status} if status else {}} for status in statuses]
    metrics = {"durationSummary": {"completedAtUTC": 1670444685455}, **metrics}
    return FlowRun.parse({"id": "run", "metrics": metrics, "activities": activities})


def success(records: dict[str, Any] | None = None, **metrics: Any) -> FlowRun:
    summaries = {"statusSummary": {"status": "success"}, "recordSummary": records or {}}
    return FlowRun.parse({"id": "run", "metrics": {**summaries, **metrics}})


def texts(run: FlowRun) -> list[str]:
    return [str(error) for error in run.errors]


def test_an_unknown_status_is_never_read_briefly() -> None:
    """Its completion time decides how long a task waits for another status."""
    metrics = {"statusSummary": {"status": "cancelled"}, "durationSummary": {"completedAtUTC": 1767225600000}}
    run = FlowRun.parse({"id": "run", "metrics": metrics}, briefly=True)
    assert ("unknown", "cancelled") == (run.status.value, run.status_word)
    assert run.completed_at is not None


class TestStatus:
    @pytest.mark.parametrize(
        ("state", "status"),
        [
            ("inProgress", FlowRunStatus.IN_PROGRESS),
            ("succeeded", SUCCESS),
            ("SUCCEEDED", SUCCESS),
            ("failed", FAILED),
            ("hibernating", FlowRunStatus.UNKNOWN),
        ],
    )
    def test_state_of_older_documents(self, state: str, status: FlowRunStatus) -> None:
        """A run without metrics shows its status in `state`, also if it is read briefly."""
        for briefly in (False, True):
            run = FlowRun.parse({"id": "run", "flowId": "flow", "state": state}, briefly=briefly)
            assert (status, state) == (run.status, run.status_word)

    def test_status_of_the_metrics_comes_first(self) -> None:
        raw = {"id": "run", "state": "inProgress", "metrics": {"statusSummary": {"status": "failed"}}}
        assert FAILED is FlowRun.parse(raw).status

    @pytest.mark.parametrize(
        ("activities", "status"),
        [
            (["success", "success"], SUCCESS),
            (["success", "partialSuccess"], FlowRunStatus.PARTIAL_SUCCESS),
            (["success", "failed"], FAILED),
            (["failed", None], FAILED),
            ([], UNCLEAR),
            ([None], UNCLEAR),
            (["success", None], UNCLEAR),
            (["success", "inProgress"], UNCLEAR),
            (["success", "hibernating"], UNCLEAR),
        ],
    )
    def test_completion_time_without_a_status(self, activities: list[str | None], status: FlowRunStatus) -> None:
        """The activities decide. If they do not, the run has ended, and is neither a success nor a failure."""
        run = ended(*activities)
        assert (status, True) == (run.status, run.status.ended)
        assert run.completed_at is not None

    @pytest.mark.parametrize("completed", [None, 0, -1, "soon"])
    def test_without_a_completion_time_the_run_is_scheduled(self, completed: Any) -> None:
        run = ended("success", durationSummary={"completedAtUTC": completed})
        assert (FlowRunStatus.SCHEDULED, "") == (run.status, run.status_word)

    def test_unknown_status_with_a_completion_time_is_still_unknown(self) -> None:
        """Adobe may add a status; only a missing status is read from other places."""
        assert ended("success", statusSummary={"status": "hibernating"}).status is FlowRunStatus.UNKNOWN

    def test_unclear_end_is_neither_success_nor_failure(self) -> None:
        assert (True, False, False) == (UNCLEAR.ended, UNCLEAR.succeeded, UNCLEAR.failed)
        assert UNCLEAR is FlowRunStatus.parse(UNCLEAR.value)


class TestErrors:
    def test_each_place_is_read(self) -> None:
        """General errors come first. A sentence that another place repeats is omitted."""
        summary = {
            "status": "failed",
            "errors": [{"code": "CONNECTOR-1001-500", "message": COPY}],
            "extensions": {"errors": [{"code": "INGEST-1", "description": "The field age does not exist."}]},
        }
        activity = {
            "recordSummary": {"failedInfo": [{"code": "2200", "message": HOST}]},
            "statusSummary": {
                "errors": [{"code": "CONNECTOR-1001-500", "message": COPY.rstrip(".")}],
                "extensions": {"errorDetail": "ErrorCode=Timeout,Message=no host", "errors": [{"message": HOST}]},
            },
        }
        metrics = {"statusSummary": summary, "recordSummary": {"failedInfo": [{"code": "2200", "message": HOST}]}}
        run = FlowRun.parse({"id": "run", "metrics": metrics, "activities": [activity]})
        assert [
            f"CONNECTOR-1001-500: {COPY}",
            "INGEST-1: The field age does not exist.",
            f"2200: {HOST}",
            "ErrorCode=Timeout,Message=no host",
        ] == texts(run)

    @pytest.mark.parametrize(
        ("errors", "expected"),
        [
            ([{"message": "General.", "description": "The cause."}], ["General: The cause."]),
            ([{"message": "Same.", "description": "same"}], ["Same."]),
            ([{"errorMessage": "Text", "errorCode": 7}], ["7: Text"]),
            ([{"code": "C-1"}, {"code": "C-2"}], ["C-1: no message", "C-2: no message"]),
            (["Plain text"], ["Plain text"]),
            ("Plain text", ["Plain text"]),
            ([{}, None, 7, "", {"message": " "}], []),
        ],
    )
    def test_shapes_of_an_error(self, errors: Any, expected: list[str]) -> None:
        assert expected == texts(success(statusSummary={"status": "success", "errors": errors}))

    def test_a_sentence_is_printed_once_with_its_codes(self) -> None:
        """An error with another code is kept, and its sentence is not repeated."""
        sentences = [(None, "Job  aborted"), ("C-1", "job aborted."), ("C-2", "Job aborted.")]
        errors = bounded_errors(RunError(code=code, message=message) for code, message in sentences)
        assert ["C-1", "C-2"] == [error.code for error in errors]
        assert ["C-1, C-2: job aborted."] == error_texts(errors)
        assert ["Alone"] == error_texts([RunError(code=None, message="Alone")])


class TestBatches:
    ADDRESS = "https://platform.adobe.io/data/foundation/export/batches/01ABC/meta?path=row_errors"

    @pytest.mark.parametrize(
        "activity",
        [
            {"targetInfo": [{"reference": {"type": "Batch", "ids": ["01ABC"]}}]},
            {"statusSummary": {"extensions": {"batchId": "01ABC"}}},
            {"statusSummary": {"extensions": {"manifest": {"failedRecords": ADDRESS, "sampleErrors": ADDRESS}}}},
            {"fileSummary": {"extensions": {"manifest": {"fileInfo": ADDRESS, "pathPrefix": "bucket/batches/"}}}},
            {"fileSummary": {"manifest": {"fileInfo": [{"path": ADDRESS, "pathPrefix": "/customers/a.csv"}]}}},
            {"fileSummary": {"manifest": {"fileInfo": "https://platform.adobe.io/x/batches/01ABC"}}},
        ],
    )
    def test_places_of_the_batch(self, activity: dict[str, Any]) -> None:
        """The batch is read once from an activity, and from the metrics except their targets."""
        assert ("01ABC",) == FlowRun.parse({"id": "run", "state": "succeeded", "activities": [activity]}).batch_ids
        expected = () if "targetInfo" in activity else ("01ABC",)
        assert expected == FlowRun.parse({"id": "run", "state": "succeeded", "metrics": activity}).batch_ids

    @pytest.mark.parametrize(
        "extensions",
        [
            {"batchId": ""},
            {"batchId": None},
            {"incremental.batchId": "01ABC"},
            {"manifest": "no address"},
            {"manifest": {"fileInfo": "https://platform.adobe.io/batches/../meta"}},
            {"manifest": [[[[["https://platform.adobe.io/batches/01ABC/meta"]]]]]},
        ],
    )
    def test_other_texts_are_no_batch(self, extensions: dict[str, Any]) -> None:
        """`incremental.batchId` names batches that a destination read."""
        run = FlowRun.parse({"id": "run", "state": "failed", "metrics": {"statusSummary": {"extensions": extensions}}})
        assert () == run.batch_ids

    def test_targets_come_first_and_lists_are_split(self) -> None:
        extensions = {"batchId": "01C, 01B", "manifest": {"failedRecords": self.ADDRESS}}
        targets = [{"reference": {"ids": ["01B", "01A"]}}]
        activity = {"targetInfo": targets, "statusSummary": {"extensions": extensions}}
        run = FlowRun.parse({"id": "run", "state": "succeeded", "activities": [activity]})
        assert ("01B", "01A", "01C", "01ABC") == run.batch_ids


class TestCounts:
    def test_updated_skipped_and_deleted_records(self) -> None:
        """A count may be text; a negative one is unknown."""
        records = {"updatedRecordCount": 3, "skippedRecordCount": "2", "deletedRecordCount": -1}
        run = success(records)
        assert (3, 2, None) == (run.updated_records, run.skipped_records, run.deleted_records)

    @pytest.mark.parametrize(
        ("records", "failed"),
        [
            ({"inputRecordCount": 100, "outputRecordCount": 70}, 30),
            ({"inputRecordCount": 100, "outputRecordCount": 70, "failedRecordCount": -1}, 30),
            ({"inputRecordCount": 100, "outputRecordCount": 70, "skippedRecordCount": 10}, 20),
            ({"inputRecordCount": 100, "outputRecordCount": 70, "skippedRecordCount": 30}, None),
            ({"inputRecordCount": 100, "outputRecordCount": 70, "createdRecordCount": 70}, 30),
            ({"inputRecordCount": 9, "outputRecordCount": 0, "createdRecordCount": 2, "updatedRecordCount": 7}, None),
            ({"inputRecordCount": 9, "outputRecordCount": 0, "deletedRecordCount": 4}, 5),
            ({"inputRecordCount": 70, "outputRecordCount": 100}, None),
            ({"inputRecordCount": 100}, None),
            ({"outputRecordCount": 100}, None),
        ],
    )
    def test_missing_count_of_failed_records_is_derived(self, records: dict[str, int], failed: int | None) -> None:
        """The derived number has a mark; records in another count have not failed."""
        run = success(records)
        assert (failed, failed is not None) == (run.failed_records, run.failed_records_derived)

    def test_reported_count_has_no_mark(self) -> None:
        run = success({"inputRecordCount": 100, "outputRecordCount": 70, "failedRecordCount": 0})
        assert (0, False) == (run.failed_records, run.failed_records_derived)

    @pytest.mark.parametrize("state", ["inProgress", "hibernating"])
    def test_nothing_is_derived_before_the_end(self, state: str) -> None:
        """The remaining records are not written yet."""
        records = {"inputRecordCount": 100, "outputRecordCount": 70}
        run = FlowRun.parse({"id": "run", "metrics": {"statusSummary": {"status": state}, "recordSummary": records}})
        assert (None, False) == (run.failed_records, run.failed_records_derived)


class TestSpellingOfIds:
    """The same flow run has the same id in each response; else, lists would omit a flow run that they show."""

    def test_uuids_are_in_lower_case(self) -> None:
        run_id, flow_id, parent_id = (str(uuid4()) for _ in range(3))
        raw = {"id": run_id.upper(), "flowId": f" {flow_id.upper()}", "parentFlowRunId": parent_id.upper()}

        run = FlowRun.parse(raw)

        assert (run_id, flow_id, parent_id) == (run.id, run.flow_id, run.parent_id)
        assert (run_id, flow_id) == (FlowRun.parse_id(raw).id, FlowRun.parse_id(raw).flow_id)

    def test_uuids_of_active_runs_are_in_lower_case(self) -> None:
        run_id, flow_id = str(uuid4()), str(uuid4())
        raw = {"id": run_id.upper(), "flowId": flow_id.upper(), "status": "inProgress"}

        run = FlowRun.parse(raw, briefly=True)

        assert (run_id, flow_id) == (run.id, run.flow_id)

    def test_other_ids_keep_their_case(self) -> None:
        assert "Run-A" == FlowRun.parse({"id": "Run-A"}).id
