"""A dataflow's coverage out of Airflow's database, within what an API server can do for one request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice import _metadata, _runs
from airflow_flowservice._coverage import coverage_of, plan_of, rows_of_flow
from airflow_flowservice._filling import tasks_run_again
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.ingestion.coverage import window_of_summary
from airflow_flowservice.ingestion.window import EPOCH, IngestionWindow, parse_instant
from airflow_flowservice.plugins.error_responses import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from airflow_flowservice._metadata import Feed
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ingestion.coverage import Coverage

# What is computed and drawn in some seconds.
MOST_WINDOWS = 20_000
_MOST_ROWS = 60_000
_YEAR = timedelta(days=366)
_LONGEST = 20 * _YEAR
_COUNTED = 300
_SHORTER = "choose a shorter range with from and to"


@dataclass(frozen=True, kw_only=True)
class Range:
    """The time that is asked for; an edge that is None is chosen from what is known."""

    start: datetime | None
    end: datetime

    @classmethod
    def parse(cls, start: str | None, end: str | None, *, now: datetime) -> Range:
        """From the parameters `from` and `to`.

        :raises Problem: 400, with what to do.
        """
        try:
            last = parse_instant(end, name="to") if end else now
            first = parse_instant(start, name="from") if start else None
            if IngestionWindow(first or EPOCH, last).seconds > _LONGEST.total_seconds() and first:
                raise Problem(400, "The range is longer than 20 years", remedy=_SHORTER)
        except WindowError as error:
            raise Problem(400, _about_range(error), remedy=_remedy(error)) from error
        return cls(start=first, end=last)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A coverage, and what it was looked up in.

    :param again: tasks that the commands would run again although they have succeeded.
    """

    coverage: Coverage
    within: IngestionWindow
    dag_ids: tuple[str, ...]
    again: tuple[str, ...] = ()


class Reading:
    """What Airflow's database has of a dataflow.

    :param feeds: the tasks that feed it, of DAGs that the user may read; nothing else is looked at.
    :param asked: the range; where it does not begin, at most a year, from the first window that is known.
    :raises Problem: 400, more than can be looked at.
    """

    def __init__(self, session: Session, *, flow_id: str, feeds: Sequence[Feed], asked: Range, now: datetime) -> None:
        self._now = now
        self.dag_ids = tuple(sorted({feed.dag_id for feed in feeds}))
        since = asked.start or max(asked.end - _YEAR, EPOCH)
        rows = list(islice(_metadata.task_rows(session, dag_ids=self.dag_ids, since=since), _MOST_ROWS + 1))
        if len(rows) > _MOST_ROWS:
            raise Problem(400, f"Airflow has more than {_MOST_ROWS:,} task instances there", remedy=_SHORTER)
        self._all_rows = rows
        self._rows = rows_of_flow(rows, flow_id=flow_id, feeds=feeds)
        making = sorted({row.dag_id for row in self._rows if row.creates})
        self._plans = [plan_of(_metadata.schedule_of(session, each), dag_id=each) for each in making]
        self.within = self._within(asked, since=since)

    def coverage(self, found: Iterable[FlowRun] = ()) -> Found:
        """Join it with the runs that Flow Service has, if it was asked."""
        coverage = coverage_of(self._rows, plans=self._plans, within=self.within, now=self._now, found=found)
        again = tasks_run_again(coverage, self._all_rows)
        return Found(coverage=coverage, within=self.within, dag_ids=self.dag_ids, again=tuple(again))

    def _within(self, asked: Range, *, since: datetime) -> IngestionWindow:
        start, most = asked.start or self._first(since, asked.end), MOST_WINDOWS
        length = min((_typical_length(plan.timetable, since=start) for plan in self._plans), default=_YEAR)
        if (asked.end - start) / length <= most:
            return IngestionWindow(start, asked.end)
        if asked.start is None:
            return IngestionWindow(max(start, asked.end - most * length), asked.end)
        raise Problem(
            400,
            f"The range has more than {most:,} windows, which is more than a page can show",
            remedy=f"{_SHORTER}: {(most * length).days} days at most for this schedule",
        )

    def _first(self, since: datetime, end: datetime) -> datetime:
        earliest = min((row.flow_run for row in self._rows if row.flow_run), key=_start_text, default={})
        window = window_of_summary(earliest)
        first = window.start if window else since
        return first if since < first < end else since


def _start_text(summary: Mapping[str, Any]) -> str:
    """As text, ISO 8601 is in the order of time; where there is none, it comes last."""
    return str(summary.get("window_start") or "~")


def _typical_length(timetable: Any, *, since: datetime) -> timedelta:
    """The time from run to run, over some hundred of them."""
    if timetable is None or not timetable.periodic:
        return _YEAR
    dates = list(islice(_runs.dates_between(timetable, earliest=since, latest=since + _YEAR), _COUNTED))
    if len(dates) < 2 or dates[-1].run_after <= dates[0].run_after:
        return _YEAR
    return timedelta(seconds=(dates[-1].run_after - dates[0].run_after).total_seconds() / (len(dates) - 1))


def _about_range(error: WindowError) -> str:
    return error.message.replace("the window is", "the range is")


def _remedy(error: WindowError) -> str:
    return (error.remedy or "").replace("window_start", "from").replace("window_end", "to")
