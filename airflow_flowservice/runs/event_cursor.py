# SPDX-License-Identifier: Apache-2.0
"""Progress of the events for the flow runs of one dataflow: which flow runs have ended, and which are still open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.validation import is_identifier
from airflow_flowservice.windows.window import EPOCH, epoch_milliseconds

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun

# Flow Service may list a flow run some minutes after its creation.
OVERLAP = timedelta(hours=1)
# The first poll also reads flow runs of this time that have not ended.
FIRST_LOOK_BACK = timedelta(days=7)
MAX_OPEN_AGE = timedelta(days=30)
MAX_OPEN = 500
MAX_SETTLED = 2000
_FORMAT = 1
_HOUR_MS = OVERLAP // timedelta(milliseconds=1)
_LATEST_MS = 4_102_444_800_000  # the year 2100


@dataclass(frozen=True, kw_only=True)
class CursorStep:
    """Result of a poll.

    :param ended: flow runs that have ended since the poll before, in the order of their ends.
    :param cursor: progress after the events of `ended`.
    :param dropped: ids of flow runs that had not ended, and are not followed any more.
    """

    ended: tuple[FlowRun, ...]
    cursor: EventCursor
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EventCursor:
    """Progress by the time of creation; times are epoch milliseconds of Flow Service's clock.

    A flow run that was created before `since` is settled, unless it is open. Flow runs can have the same time of
    creation, can end in any order, and can become visible up to an hour after their creation.

    :param settled: flow runs created at `since` or later that had ended, and the times of their creation.
    :param open: flow runs that had not ended, and the times of their creation.
    """

    since: int
    settled: Mapping[str, int] = field(default_factory=dict)
    open: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def at(cls, since: datetime) -> EventCursor:
        """Return the progress before the first flow run that was created at this aware datetime or later."""
        return cls(since=epoch_milliseconds(max(since, EPOCH)))

    @property
    def created_since(self) -> datetime:
        """Return the earliest time of creation to list, as aware UTC datetime."""
        return EPOCH + timedelta(milliseconds=self.since)

    def unlisted(self, listed: Iterable[FlowRun]) -> list[str]:
        """Return the open flow runs that a list omits, so that they must be read by their ids."""
        shown = {run.id for run in listed}
        return [run_id for run_id in self.open if run_id not in shown]

    def take(self, runs: Iterable[FlowRun], *, now: datetime, is_complete: bool = True) -> CursorStep:
        """Return the flow runs that have ended, and the progress after their events.

        A flow run without a valid id or a time of creation is ignored.

        :param runs: flow runs created at `created_since` or later, and the open ones.
        :param now: aware datetime.
        :param is_complete: whether the list has all flow runs. Otherwise it has the oldest ones.
        """
        now_ms = epoch_milliseconds(now)
        settled, still_open = dict(self.settled), dict(self.open)
        ended: list[FlowRun] = []
        newest = self.since
        # A time in the future would hide the flow runs that are created until then. But a list that is cut must
        # continue, also if Flow Service's clock is ahead of this machine's.
        latest = now_ms if is_complete else now_ms + _HOUR_MS
        for run in runs:
            created = self._creation(run)
            if created is None or run.id in settled:
                continue
            newest = max(newest, min(created, latest))
            if run.status.ended:
                still_open.pop(run.id, None)
                settled[run.id] = created
                ended.append(run)
            else:
                still_open[run.id] = created
        kept = _newest_open(still_open, now_ms=now_ms)
        since = max(self.since, newest - _HOUR_MS if is_complete else newest)
        return CursorStep(
            ended=tuple(sorted(ended, key=_end)),
            cursor=_bounded(since, settled, kept, now_ms=now_ms),
            dropped=tuple(run_id for run_id in still_open if run_id not in kept),
        )

    def _creation(self, run: FlowRun) -> int | None:
        """Return the time of creation; None if the flow run is settled or cannot be placed."""
        if run.id in self.open:
            return self.open[run.id]
        if run.created_at is None or not is_identifier(run.id):
            return None
        created = epoch_milliseconds(run.created_at)
        return created if self.since <= created <= _LATEST_MS else None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"format": _FORMAT, "since": self.since, "settled": dict(self.settled), "open": dict(self.open)}

    @classmethod
    def from_json(cls, values: Any) -> EventCursor:
        """Parse the values of `to_json`.

        :raises ValueError: the values have another form, or the format of a later version.
        """
        if not isinstance(values, Mapping) or values.get("format") != _FORMAT:
            raise ValueError("not the progress of events")
        since: Any = values.get("since")
        if not _is_time(since):
            raise ValueError("since is not a time")
        return cls(since=since, settled=_times(values.get("settled")), open=_times(values.get("open")))


def _end(run: FlowRun) -> tuple[datetime, str]:
    return run.completed_at or run.updated_at or run.created_at or EPOCH, run.id


def _newest_open(still_open: Mapping[str, int], *, now_ms: int) -> dict[str, int]:
    """Return the open flow runs to follow further: those of 30 days, at most 500."""
    earliest = now_ms - MAX_OPEN_AGE // timedelta(milliseconds=1)
    recent = [(created, run_id) for run_id, created in still_open.items() if created >= earliest]
    return {run_id: created for created, run_id in sorted(recent)[-MAX_OPEN:]}


def _bounded(since: int, settled: Mapping[str, int], kept: Mapping[str, int], *, now_ms: int) -> EventCursor:
    """Return the progress with at most 2,000 settled flow runs.

    If there are more, a later `since` covers the earlier ones. Then less than an hour is left for flow runs that Flow
    Service lists late.
    """
    listed = sorted((created, run_id) for run_id, created in settled.items() if created >= since)
    if len(listed) > MAX_SETTLED:
        since = max(since, min(listed[-MAX_SETTLED - 1][0] + 1, now_ms))
        listed = [(created, run_id) for created, run_id in listed if created >= since][-MAX_SETTLED:]
    return EventCursor(since=since, settled={run_id: created for created, run_id in listed}, open=dict(kept))


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LATEST_MS


def _times(values: Any) -> dict[str, int]:
    if not isinstance(values, Mapping) or len(values) > MAX_SETTLED:
        raise ValueError("not the times of flow runs")
    if not all(is_identifier(run_id) and _is_time(created) for run_id, created in values.items()):
        raise ValueError("not the times of flow runs")
    return dict(values)
