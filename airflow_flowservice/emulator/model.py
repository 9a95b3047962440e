"""Flows, runs and the fate of a run, as values and clockwork.

A run's status is never stored: it follows from the run's dates and the instant at which it is read.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_flowservice.emulator.ledger import MinuteSpan, minutes

FlowKind = Literal["table", "file", "streaming"]
RunPhase = Literal["scheduled", "running", "ended"]

_WHOLE = frozenset({"success", "completed"})
_PARTIAL = frozenset({"partialsuccess", "partialfailure"})
_FAILED = frozenset({"failed"})


@dataclass(kw_only=True, slots=True)
class EmulatedFlow:
    """A dataflow. `created_at` is epoch seconds; a table-based flow's first run sets `delta_column`."""

    id: str
    name: str
    kind: FlowKind
    created_at: float
    frequency: str = "once"
    state: str = "enabled"
    delta_column: dict[str, Any] | None = None
    dataset_id: str = "5f0000000000000000000001"

    def related_id(self, role: str) -> str:
        """The id of a connection of this flow, the same every time."""
        return str(uuid.uuid5(uuid.UUID(int=0), f"{self.id}/{role}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """How a run ends.

    Attributes:
        status: the last status word. Words that say neither success nor failure are shown forever.
        errors: `{"code", "message"}` each, for `metrics.statusSummary.errors`.
        records: how many records the source has for it; None: one for each whole minute of its window.
        failed_records: how many of them do not arrive, the earliest first; None: 1 when `status` is partial.
        unknown_counts: the run ends with record counts of -1, which means that nobody knows them.
        vanish: the run can be read once, by id or in a list, and is gone (404) after that.
        queue_s: seconds in `scheduled`; None: as in the settings.
        run_s: seconds in progress; None: as in the settings.
        in_progress_status: the word that is shown while the run is in progress.
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

    @property
    def word(self) -> str:
        return self.status.lower().replace("_", "").replace("-", "")

    @property
    def failed(self) -> bool:
        return self.word in _FAILED

    @property
    def partial(self) -> bool:
        return self.word in _PARTIAL

    @property
    def known(self) -> bool:
        return self.word in _WHOLE | _PARTIAL | _FAILED


@dataclass(kw_only=True, slots=True)
class EmulatedRun:
    """A flow run. Instants are epoch seconds; the window includes its start and excludes its end."""

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
    parent_id: str | None = None
    child_ids: list[str] = field(default_factory=list)
    times_shown: int = 0

    def phase(self, now: float) -> RunPhase:
        if now < self.starts_at:
            return "scheduled"
        return "running" if now < self.ends_at else "ended"

    def status(self, now: float) -> str:
        words = {
            "scheduled": "scheduled",
            "running": self.outcome.in_progress_status,
            "ended": self.outcome.status,
        }
        return words[self.phase(now)]

    def updated_at(self, now: float) -> float:
        dates = {"scheduled": self.created_at, "running": self.starts_at, "ended": self.ends_at}
        return dates[self.phase(now)]

    def has_ended(self, now: float) -> bool:
        return self.outcome.known and self.phase(now) == "ended"

    @property
    def vanished(self) -> bool:
        return self.outcome.vanish and self.times_shown > 0

    def is_visible(self, now: float) -> bool:
        return self.visible_at <= now and not self.vanished

    @property
    def source(self) -> MinuteSpan:
        """The records that the source has for this run."""
        first, end = minutes(self.window_start, self.window_end)
        if self.outcome.records is None:
            return first, end
        return first, min(end, first + self.outcome.records)

    @property
    def failed_records(self) -> int:
        first, end = self.source
        if self.outcome.failed:
            return end - first
        default = 1 if self.outcome.partial else 0
        chosen = self.outcome.failed_records
        return min(end - first, default if chosen is None else chosen)

    def ingested(self, now: float) -> MinuteSpan:
        """The records that have arrived at `now`; an empty span when none has."""
        first, end = self.source
        if self.outcome.vanish or not self.has_ended(now):
            return first, first
        return first + self.failed_records, end
