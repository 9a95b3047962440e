# SPDX-License-Identifier: Apache-2.0
"""Data model of the emulator: flows, flow runs and their outcomes.

The status of a flow run is not stored. It is computed from the run's dates and the current time.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_flowservice.emulator.ledger import MinuteSpan, minutes

FlowKind = Literal["table", "file", "streaming"]
StatusPlace = Literal["metrics", "state", "activities", "nowhere"]
RunPhase = Literal["scheduled", "running", "ended"]

_SUCCEEDED = frozenset({"success", "completed"})
_PARTIAL = frozenset({"partialsuccess", "partialfailure"})
_FAILED = frozenset({"failed"})
_INGESTED_BATCH = frozenset({"success", "active"})
# Digits of the ids of batches, as in Adobe's samples.
_BASE_32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ERRORS_OF_ROWS = ({"code": "MAPPER-3700-400", "message": "The made-up field amount is not a number."},)


@dataclass(kw_only=True, slots=True)
class EmulatedFlow:
    """A dataflow.

    `created_at` is in epoch seconds. The first run of a table-based flow sets `delta_column`. From `state_until` on
    (epoch seconds; None is never), the state is `next_state`. If `source_works` is False, the test of the source's
    connection fails.
    """

    id: str
    name: str
    kind: FlowKind
    created_at: float
    frequency: str = "once"
    state: str = "enabled"
    state_until: float | None = None
    next_state: str = "enabled"
    delta_column: dict[str, Any] | None = None
    dataset_id: str = "5f0000000000000000000001"
    source_works: bool = True

    def state_at(self, now: float) -> str:
        """Return the state at `now` (epoch seconds)."""
        return self.state if self.state_until is None or now < self.state_until else self.next_state

    def related_id(self, role: str) -> str:
        """Return the id of a related resource; it is always the same for the same flow and role."""
        return str(uuid.uuid5(uuid.UUID(int=0), f"{self.id}/{role}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """Outcome of a flow run.

    Attributes:
        status: the final status. A run with an unknown status keeps it forever and never counts as ended.
        errors: objects with `code` and `message`, shown in `metrics.statusSummary.errors`.
        records: number of source records in the window; None means one for each whole minute.
        failed_records: number of records, beginning with the earliest, that are not ingested.
            None means 1 if `status` is partial, otherwise 0.
        unknown_counts: if True, the ended run shows record counts of -1 (unknown).
        vanish: if True, the run can be read only once, by id or in a list. Later reads get a 404 response.
        queue_s: seconds in `scheduled`; None means the value in the settings.
        run_s: seconds in progress; None means the value in the settings.
        in_progress_status: the status shown while the run is in progress.
        status_place: where the run shows its status. `metrics` is `metrics.statusSummary.status`. `state` is the
            top-level `state` of older documents (`inProgress`, `succeeded`, `failed`). An ended run with `activities`
            shows the status only in its activities, and one with `nowhere` shows only its completion time.
        extension_errors: objects with `code` and `description`, shown in `metrics.statusSummary.extensions.errors`.
        error_detail: text shown in `statusSummary.extensions.errorDetail` of the ended run's copy activity.
        record_summary: keys to replace in the ended run's `metrics.recordSummary`; a key with None is omitted.
        batch_status: the final status of the run's batch in the catalogue. A run ingests its records when its batch
            is `success` or `active`.
        batch_s: seconds from the end of the run to the end of its batch; None means the value in the settings.
        batch_in_progress_status: the status of the batch until then.
        batch_errors: objects with `code`, `description` and optionally `recordCount`, shown by the ended batch.
        batch_hidden_s: seconds from the end of the run until the catalogue shows the batch.
        row_errors: objects with `code` and `message`, which the failed records have in turn in the error diagnostics.
            If it is empty, each has one default error, and a run that fails has no batch.
        failed_files: names of source files that failed.
        diagnostics: if False, error diagnostics are not enabled, so that failed records cannot be listed.
        manifest: if True, the run shows the address of its failed records. If False, it shows only its batch.
    """

    status: str = "success"
    errors: tuple[dict[str, Any], ...] = ()
    records: int | None = None
    failed_records: int | None = None
    unknown_counts: bool = False
    vanish: bool = False
    queue_s: float | None = None
    run_s: float | None = None
    in_progress_status: str = "inProgress"
    status_place: StatusPlace = "metrics"
    extension_errors: tuple[dict[str, Any], ...] = ()
    error_detail: str | None = None
    record_summary: Mapping[str, Any] = field(default_factory=dict)
    batch_status: str = "success"
    batch_s: float | None = None
    batch_in_progress_status: str = "staging"
    batch_errors: tuple[dict[str, Any], ...] = ()
    batch_hidden_s: float = 0.0
    row_errors: tuple[dict[str, Any], ...] = ()
    failed_files: tuple[str, ...] = ()
    diagnostics: bool = True
    manifest: bool = True

    @property
    def errors_of_rows(self) -> tuple[dict[str, Any], ...]:
        """Return the errors that the failed records have in turn."""
        return self.row_errors or _ERRORS_OF_ROWS

    @property
    def word(self) -> str:
        """Return the final status in lower case, without separators."""
        return self.status.lower().replace("_", "").replace("-", "")

    @property
    def failed(self) -> bool:
        """Return whether the run fails and ingests nothing."""
        return self.word in _FAILED

    @property
    def partial(self) -> bool:
        """Return whether the run ingests only a part of its records."""
        return self.word in _PARTIAL

    @property
    def known(self) -> bool:
        """Return whether the final status is one of Adobe's status values."""
        return self.word in _SUCCEEDED | _PARTIAL | _FAILED


@dataclass(kw_only=True, slots=True)
class EmulatedRun:
    """A flow run.

    Instants are in epoch seconds. The window includes its start and excludes its end.
    """

    id: str
    etag: str
    flow_id: str
    client_id: str
    params: dict[str, Any]
    window_start: int
    window_end: int
    created_at: float
    visible_at: float
    starts_at: float
    ends_at: float
    outcome: RunOutcome
    batch_ends_at: float = 0.0
    parent_id: str | None = None
    child_ids: list[str] = field(default_factory=list)
    times_shown: int = 0

    def phase(self, now: float) -> RunPhase:
        """Return the phase of the run at `now`."""
        if now < self.starts_at:
            return "scheduled"
        return "running" if now < self.ends_at else "ended"

    def status(self, now: float) -> str:
        """Return the status that Flow Service shows at `now`."""
        statuses = {
            "scheduled": "scheduled",
            "running": self.outcome.in_progress_status,
            "ended": self.outcome.status,
        }
        return statuses[self.phase(now)]

    @property
    def batch_id(self) -> str:
        """Return the id of the run's batch; it is always the same for the same run."""
        number = uuid.UUID(self.id).int
        return "01" + "".join(_BASE_32[(number >> (5 * digit)) & 31] for digit in range(24))

    def has_batch(self, now: float) -> bool:
        """Return whether the run shows a batch at `now`: it has ended, and has written records or error diagnostics."""
        first, end = self.source_records
        is_written = not self.outcome.failed and end - self.failed_records > first
        is_diagnosed = self.outcome.known and bool(self.diagnosed_records or self.outcome.failed_files)
        return self.phase(now) == "ended" and (is_written or is_diagnosed)

    def batch_status(self, now: float) -> str | None:
        """Return the status of the batch in the catalogue at `now`; None if the catalogue does not show it."""
        if not self.has_batch(now) or now < self.ends_at + self.outcome.batch_hidden_s:
            return None
        if now < self.batch_ends_at:
            return self.outcome.batch_in_progress_status
        return "failed" if self.outcome.failed else self.outcome.batch_status

    def updated_at(self, now: float) -> float:
        """Return the time of the last status change before `now`."""
        dates = {"scheduled": self.created_at, "running": self.starts_at, "ended": self.ends_at}
        return dates[self.phase(now)]

    def has_ended(self, now: float) -> bool:
        """Return whether the run has ended at `now` with a known status."""
        return self.outcome.known and self.phase(now) == "ended"

    @property
    def vanished(self) -> bool:
        """Return whether clients can no longer read the run."""
        return self.outcome.vanish and self.times_shown > 0

    def is_visible(self, now: float) -> bool:
        """Return whether clients can read the run at `now`."""
        return self.visible_at <= now and not self.vanished

    @property
    def source_records(self) -> MinuteSpan:
        """Return the span of the source records in the run's window."""
        first, end = minutes(self.window_start, self.window_end)
        if self.outcome.records is None:
            return first, end
        return first, min(end, first + self.outcome.records)

    @property
    def failed_records(self) -> int:
        """Return the number of source records that the run does not ingest."""
        first, end = self.source_records
        if self.outcome.failed:
            return end - first
        default = 1 if self.outcome.partial else 0
        chosen = self.outcome.failed_records
        return min(end - first, default if chosen is None else chosen)

    @property
    def diagnosed_records(self) -> int:
        """Return the number of failed records that reached the batch. A failed copy reaches none."""
        return 0 if self.outcome.failed and not self.outcome.row_errors else self.failed_records

    def ingested(self, now: float) -> MinuteSpan:
        """Return the span of the records ingested at `now`; the span is empty if there are none."""
        first, end = self.source_records
        if self.outcome.vanish or not self.has_ended(now) or not self._batch_ingests(now):
            return first, first
        return first + self.failed_records, end

    def _batch_ingests(self, now: float) -> bool:
        return now >= self.batch_ends_at and self.outcome.batch_status in _INGESTED_BATCH
