# SPDX-License-Identifier: Apache-2.0
"""The result of a flow run, as trigger events and the XCom `flow_run` carry it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.catalog import BatchError, BatchStatus, CatalogBatch
from airflow_flowservice.api.flow_runs import error_texts
from airflow_flowservice.api.models import FlowRunStatus, RunError, bounded_errors
from airflow_flowservice.exceptions import (
    FlowRunBatchFailedError,
    FlowRunFailedError,
    FlowRunIncompleteError,
    FlowRunOutcomeUnknownError,
)
from airflow_flowservice.plain_text import ID_LENGTH, TEXT_LENGTH, URL_LENGTH, clean_text
from airflow_flowservice.windows.window import END, START, IngestionWindow, window_from_json, window_to_json

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun

CREATED, UNKNOWN, ENDED_UNCLEAR = "created", "unknown", "ended_unclear"
_SUCCEEDED = frozenset({"success", "partial_success"})
_EVENT_NAMES = (
    "flow_id",
    "status",
    "window_start",
    "window_end",
    "input_records",
    "output_records",
    "failed_records",
)
_COUNTS = (
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
)


# The largest integers of the databases have 64 bits.
_MAX_COUNT = 10**18
_MAX_BATCHES = 20
_COPY_ERROR = "CONNECTOR-1001"
_BATCH_COUNTS = ("input_records", "output_records", "failed_records", "threshold_percent")


@dataclass(frozen=True, kw_only=True)
class FlowRunSummary:
    """Status, window, counts and errors of a flow run.

    :param flow_id: the dataflow, if it is known.
    :param status: a value of `FlowRunStatus`, or `created` for a run that was not read yet. If batches of a succeeded
        run failed in the catalogue, the status is `failed` (all of them) or `partial_success` (some of them).
    :param window: the requested window, else the one that Flow Service shows. None if neither is known.
    :param input_records: records read; None if Flow Service does not report it, as with all counts.
    :param failed_records_derived: True if Flow Service does not report `failed_records`, and they are derived from
        the other counts (see `FlowRun`).
    :param errors: the errors that the run reports. They may contain the customer's host names.
    :param url: the run's page in Experience Platform.
    :param part_of: the task's window, if the run is one of several of the task, or ingests only a part of its window.
    :param batches: the run's batches in the catalogue, failed ones first, at most 20. Empty if they were not read,
        which only a task with `wait_for_batch` does.
    """

    id: str
    flow_id: str | None = None
    status: str = UNKNOWN
    window: IngestionWindow | None = None
    input_records: int | None = None
    output_records: int | None = None
    failed_records: int | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    input_files: int | None = None
    output_files: int | None = None
    updated_records: int | None = None
    skipped_records: int | None = None
    deleted_records: int | None = None
    failed_records_derived: bool = False
    errors: tuple[RunError, ...] = ()
    url: str | None = None
    batches: tuple[CatalogBatch, ...] = ()
    part_of: IngestionWindow | None = None

    @classmethod
    def of_new(cls, flow_run_id: str, *, flow_id: str, window: IngestionWindow | None, url: str) -> FlowRunSummary:
        """Return the summary of a run that was just created and not read yet."""
        return cls(id=flow_run_id, flow_id=flow_id, status=CREATED, window=window, url=url)

    @classmethod
    def of(
        cls, run: FlowRun, *, flow_id: str | None = None, window: IngestionWindow | None = None, url: str | None = None
    ) -> FlowRunSummary:
        """Return the summary of a run as Flow Service reports it.

        :param flow_id: the dataflow of a run that does not show it.
        :param window: the requested window; without it, the summary has the one that the run shows.
        """
        return cls(
            id=run.id,
            flow_id=run.flow_id or flow_id,
            status=_status(run),
            window=window or run.window,
            failed_records_derived=run.failed_records_derived,
            errors=run.errors,
            url=url,
            batches=_shown_batches(run.batches),
            **{name: getattr(run, name) for name in _COUNTS},
        )

    @classmethod
    def from_json(cls, value: Any) -> FlowRunSummary | None:
        """Parse a JSON object as `to_json` returns it, also of another version of this package.

        A key that is missing or has an unexpected value is read as not known. Texts are cleaned and bounded as those
        of a response, because a user or another version may have written the object.
        Return None if the value is not an object with an id, for example because it is another package's XCom.
        """
        if not isinstance(value, Mapping) or not isinstance(value.get("id"), str):
            return None
        return cls(
            id=clean_text(value["id"], length=ID_LENGTH),
            flow_id=_text(value.get("flow_id"), length=ID_LENGTH),
            status=_text(value.get("status"), length=ID_LENGTH) or UNKNOWN,
            window=window_from_json(value),
            failed_records_derived=value.get("failed_records_derived") is True,
            errors=_errors(value.get("errors")),
            url=_url(value.get("url")),
            batches=_batches(value.get("batches")),
            part_of=_window(value.get("part_of")),
            **{name: _count(value.get(name)) for name in _COUNTS},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of the XCom `flow_run` and of the trigger's event.

        Its keys are `id`, `flow_id`, `status`, `window_start`, `window_end`, `input_records`, `output_records`,
        `failed_records`, `input_bytes`, `output_bytes`, `input_files`, `output_files`, `updated_records`,
        `skipped_records`, `deleted_records`, `failed_records_derived` (a boolean), `errors`, `url` and `batches`.
        Times are ISO 8601 in UTC, and each error is `{"code", "message"}`. Each batch is `{"id", "status", "errors",
        "input_records", "output_records", "failed_records", "threshold_percent"}`, with Adobe's own status and errors
        `{"code", "message", "records"}`. Only the flow run of a part has `part_of`: the window as ISO 8601 interval.
        """
        part_of = {"part_of": str(self.part_of)} if self.part_of else {}
        return {
            **part_of,
            "id": self.id,
            "flow_id": self.flow_id,
            "status": self.status,
            **window_to_json(self.window),
            **{name: getattr(self, name) for name in _COUNTS},
            "failed_records_derived": self.failed_records_derived,
            "errors": [{"code": error.code, "message": error.message} for error in self.errors],
            "url": self.url,
            "batches": [_batch_to_json(batch) for batch in self.batches],
        }

    def event_facts(self) -> dict[str, Any]:
        """Return the facts of an asset's event, without those that are not known."""
        values = self.to_json()
        facts = {"flow_run_id": self.id, **{name: values[name] for name in _EVENT_NAMES}}
        return {name: value for name, value in facts.items() if value is not None}

    @property
    def succeeded(self) -> bool:
        """Return whether the run ended as a success or a partial success."""
        return self.status in _SUCCEEDED

    @property
    def error_fields(self) -> dict[str, Any]:
        """Return the fields of a `FlowServiceError` about this run."""
        return {"flow_id": self.flow_id, "window": self.window, "flow_run_id": self.id, "url": self.url}

    @property
    def has_copy_error(self) -> bool:
        """Return whether the run failed to copy from the source (`CONNECTOR-1001-500` and its kin)."""
        return not self.succeeded and any((error.code or "").startswith(_COPY_ERROR) for error in self.errors)

    @property
    def error_texts(self) -> list[str]:
        """Return the errors for messages, each sentence once, after its codes."""
        return error_texts(self.errors)

    @property
    def failed_ratio(self) -> float | None:
        """Return the share of the records that failed, from 0 to 1, or None if it is not known.

        The share is failed over input records. If the number of input records is not known, it is failed over output
        plus failed records. Counts are those of `metrics.recordSummary`:
        https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/monitor
        """
        failed, read, written = self.failed_records, self.input_records, self.output_records
        if not failed:
            return None if failed is None else 0.0
        if read is None and written is None:
            return None
        records = (written or 0) + failed if read is None else read
        return min(1.0, failed / records) if records > 0 else 1.0

    @property
    def is_empty(self) -> bool:
        """Return whether a full success had no records: none written, or none read if the number written is not known.

        Without counts of records, bytes and files decide in the same way; both have to be zero. Unknown counts are not
        zero. A run that updated or deleted records, or whose records all failed, is not empty.
        """
        if self.status != "success" or self.failed_records or self.updated_records or self.deleted_records:
            return False
        records = self.input_records if self.output_records is None else self.output_records
        if records is not None:
            return records == 0
        size = self.input_bytes if self.output_bytes is None else self.output_bytes
        files = self.input_files if self.output_files is None else self.output_files
        return size == 0 and files == 0

    def require_success(self) -> None:
        """Raise unless the run succeeded fully or in part, and none of its batches failed.

        :raises FlowRunFailedError: with the run's own errors in the message.
        :raises FlowRunOutcomeUnknownError: the run ended without a status.
        :raises FlowRunBatchFailedError: all batches failed, so nothing is ingested.
        :raises FlowRunIncompleteError: some batches failed, and the records of the others are ingested.
        """
        self._require_batches()
        if self.succeeded:
            return
        errors = "; ".join(self.error_texts)
        if self.status == ENDED_UNCLEAR:
            reported = f"; it reports {errors}" if errors else ""
            raise FlowRunOutcomeUnknownError(
                f"the flow run ended, and Flow Service does not report whether it succeeded{reported}",
                **self.error_fields,
            )
        raise FlowRunFailedError(
            f"the flow run ended as {self.status}: {errors or 'Flow Service gives no reason'}",
            code=next((error.code for error in self.errors if error.code), None),
            **self.error_fields,
        )

    def _require_batches(self) -> None:
        failed = [batch for batch in self.batches if batch.status is BatchStatus.FAILED]
        if not failed:
            return
        code = next((error.code for batch in failed for error in batch.errors if error.code), None)
        texts = "; ".join(batch.describe() for batch in failed)
        fields = {"code": code, **self.error_fields}
        if self.status == FlowRunStatus.FAILED.value:
            raise FlowRunBatchFailedError(f"the flow run succeeded, and its data is not ingested: {texts}", **fields)
        raise FlowRunIncompleteError(
            f"the flow run succeeded, and {len(failed)} of its {len(self.batches)} batches failed: {texts}", **fields
        )

    def describe(self) -> str:
        """Return one line for the log: id, status, window and the known counts of records."""
        counts = (
            (self.input_records, "read"),
            (self.output_records, "written"),
            (
                self.failed_records,
                "failed (derived from the other counts)" if self.failed_records_derived else "failed",
            ),
            (self.updated_records or None, "updated"),
            (self.skipped_records or None, "skipped"),
            (self.deleted_records or None, "deleted"),
        )
        parts = [f"Flow run {self.id} ended as {self.status}"]
        if self.window:
            parts.append(f"window {self.window}")
        parts.extend(f"{count:,} records {verb}" for count, verb in counts if count is not None)
        return ", ".join(parts)


def combined(summaries: Sequence[FlowRunSummary], *, window: IngestionWindow) -> FlowRunSummary:
    """Return the summary of a window that several runs ingested, with the sums of their counts.

    Id, dataflow and page are those of the last run. A count is None if one of the runs does not show it. The status is
    the first one that is not `success`.

    :param summaries: at least one.
    """
    last = summaries[-1]
    values = {name: [getattr(summary, name) for summary in summaries] for name in _COUNTS}
    counts: dict[str, Any] = {name: None if None in each else sum(each) for name, each in values.items()}
    return FlowRunSummary(
        id=last.id,
        flow_id=last.flow_id,
        status=next((summary.status for summary in summaries if summary.status != "success"), "success"),
        window=window,
        failed_records_derived=any(summary.failed_records_derived for summary in summaries),
        url=last.url,
        **counts,
    )


def has_only_failed_batches(batches: Iterable[CatalogBatch]) -> bool:
    """Return whether there are batches, and all of them failed, so that nothing is ingested."""
    return {batch.status for batch in batches} == {BatchStatus.FAILED}


def _status(run: FlowRun) -> str:
    if not any(batch.status is BatchStatus.FAILED for batch in run.batches):
        return str(run.status.value)
    is_failed = has_only_failed_batches(run.batches)
    return str((FlowRunStatus.FAILED if is_failed else FlowRunStatus.PARTIAL_SUCCESS).value)


def _shown_batches(batches: tuple[CatalogBatch, ...]) -> tuple[CatalogBatch, ...]:
    """Return at most 20 batches, failed ones first."""
    return tuple(sorted(batches, key=lambda batch: batch.status is not BatchStatus.FAILED))[:_MAX_BATCHES]


def _batch_to_json(batch: CatalogBatch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "status": batch.status_word,
        "errors": [{"code": e.code, "message": e.message, "records": e.records} for e in batch.errors],
        **{name: getattr(batch, name) for name in _BATCH_COUNTS},
    }


def _batches(value: Any) -> tuple[CatalogBatch, ...]:
    return tuple(
        CatalogBatch(
            id=clean_text(each["id"], length=ID_LENGTH),
            status=BatchStatus.parse(word := _text(each.get("status"), length=ID_LENGTH) or ""),
            status_word=word,
            errors=tuple(
                BatchError(code=error.code, message=error.message, records=records)
                for error, records in _batch_errors(each.get("errors"))
            ),
            **{name: _count(each.get(name)) for name in _BATCH_COUNTS},
        )
        for each in (value if isinstance(value, list) else [])[:_MAX_BATCHES]
        if isinstance(each, Mapping) and isinstance(each.get("id"), str)
    )


def _batch_errors(value: Any) -> Iterator[tuple[RunError, int | None]]:
    errors = value if isinstance(value, list) else []
    for error in errors[:_MAX_BATCHES]:
        for parsed in _errors([error]):
            yield parsed, _count(error.get("records"))


def _text(value: Any, *, length: int = TEXT_LENGTH) -> str | None:
    return clean_text(value, length=length) if isinstance(value, str) else None


def _url(value: Any) -> str | None:
    """Return an address, or None if it would have to be changed, because it would be another address then."""
    return value if isinstance(value, str) and clean_text(value, length=URL_LENGTH) == value else None


def _window(value: Any) -> IngestionWindow | None:
    start, _, end = value.partition("/") if isinstance(value, str) else ("", "", "")
    return window_from_json({START: start, END: end})


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_COUNT else None


def _errors(value: Any) -> tuple[RunError, ...]:
    errors = value if isinstance(value, list) else []
    return bounded_errors(
        RunError(code=_text(error.get("code"), length=ID_LENGTH), message=_text(error.get("message")) or "no message")
        for error in errors
        if isinstance(error, Mapping)
    )
