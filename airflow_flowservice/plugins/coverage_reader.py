"""Read the coverage of a dataflow from Airflow's database, within limits that suit one request to the API server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import dag_runs, database
from airflow_flowservice._airflow.backfill_commands import tasks_run_again
from airflow_flowservice._airflow.dag_coverage import coverage_of, plan_of, rows_of_flow
from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.plugins.error_responses import PageRequestError
from airflow_flowservice.windows.window import EPOCH, IngestionWindow, parse_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

    from airflow_flowservice._airflow.database import Feed
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.coverage.cover import Coverage

# The server and the browser handle these numbers within a few seconds.
MAX_WINDOWS = 20_000
_MAX_ROWS = 60_000
# Airflow's timetables need about a quarter of a millisecond to compute the date of a window without a DAG run.
_MAX_COMPUTED = 6_000
# Maximum number of DAG runs, and of flow runs, that the response lists for one window.
MAX_ENTRIES = 20
_YEAR = timedelta(days=366)
_MAX_RANGE = 20 * _YEAR
_SAMPLED_RUNS = 300
_SHORTER_RANGE = "choose a shorter range with from and to"


@dataclass(frozen=True, kw_only=True)
class RequestedRange:
    """Time range of a request.

    :param start: None for the start of the first known window.
    """

    start: datetime | None
    end: datetime

    @classmethod
    def parse(cls, start: str | None, end: str | None, *, now: datetime) -> RequestedRange:
        """Parse the parameters `from` and `to`.

        :raises PageRequestError: 400, a parameter is invalid; the error has a remedy.
        """
        try:
            last = parse_instant(end, name="to") if end else now
            first = parse_instant(start, name="from") if start else None
            if IngestionWindow(first or EPOCH, last).seconds > _MAX_RANGE.total_seconds() and first:
                raise PageRequestError(400, "The range is longer than 20 years", remedy=_SHORTER_RANGE)
        except WindowError as error:
            raise PageRequestError(400, _range_error_text(error), remedy=_remedy(error)) from error
        return cls(start=first, end=last)


@dataclass(frozen=True, kw_only=True)
class CoverageResult:
    """Coverage of a dataflow with the range and the DAGs it was read for.

    :param again: succeeded tasks that the fill commands would run again.
    """

    coverage: Coverage
    within: IngestionWindow
    dag_ids: tuple[str, ...]
    again: tuple[str, ...] = ()


class CoverageReader:
    """Reader of a dataflow's windows in Airflow's database.

    :param feeds: tasks that ingest into the dataflow, limited to DAGs that the user may read; no other DAG is read.
    :param requested: if it has no start, the range starts at the first known window, at most a year before its end.
    :raises PageRequestError: 400, the range has too many task instances or windows.
    """

    def __init__(
        self, session: Session, *, flow_id: str, feeds: Sequence[Feed], requested: RequestedRange, now: datetime
    ) -> None:
        self._now = now
        self.dag_ids = tuple(sorted({feed.dag_id for feed in feeds}))
        since = requested.start or max(requested.end - _YEAR, EPOCH)
        rows = list(islice(database.task_rows(session, dag_ids=self.dag_ids, since=since), _MAX_ROWS + 1))
        if len(rows) > _MAX_ROWS:
            raise PageRequestError(
                400, f"Airflow has more than {_MAX_ROWS:,} task instances in this range", remedy=_SHORTER_RANGE
            )
        self._all_rows = rows
        self._rows = rows_of_flow(rows, flow_id=flow_id, feeds=feeds)
        creating_dags = sorted({row.dag_id for row in self._rows if row.creates})
        self._plans = [plan_of(database.dag_schedule_of(session, each), dag_id=each) for each in creating_dags]
        self.within = self._within(requested, since=since)

    def coverage(self, found: Iterable[FlowRun] = ()) -> CoverageResult:
        """Compute the coverage from the database and from the runs that Flow Service returned, if it was queried."""
        coverage = coverage_of(
            self._rows,
            plans=self._plans,
            within=self.within,
            now=self._now,
            found=found,
            most_entries=MAX_ENTRIES,
        )
        again = tasks_run_again(coverage, self._all_rows)
        return CoverageResult(coverage=coverage, within=self.within, dag_ids=self.dag_ids, again=tuple(again))

    def _within(self, requested: RequestedRange, *, since: datetime) -> IngestionWindow:
        start = requested.start or self._first_start(since, requested.end)
        rate = sum(_YEAR / _typical_length(plan.timetable, since=start) for plan in self._plans) or 1.0
        length = _YEAR / rate
        most = min(MAX_WINDOWS, _MAX_COMPUTED + len(self._rows))
        if (requested.end - start) / length <= most:
            return IngestionWindow(start, requested.end)
        if requested.start is None:
            return IngestionWindow(max(start, requested.end - most * length), requested.end)
        raise PageRequestError(
            400,
            f"The range has more than {most:,} windows, more than the page can show",
            remedy=f"{_SHORTER_RANGE}: {(most * length).days} days at most for this schedule",
        )

    def _first_start(self, since: datetime, end: datetime) -> datetime:
        starts = (row.flow_run.window.start for row in self._rows if row.flow_run and row.flow_run.window)
        first = min(starts, default=since)
        return first if since < first < end else since


def _typical_length(timetable: Any, *, since: datetime) -> timedelta:
    """Return the mean time between runs, sampled over the first `_SAMPLED_RUNS` runs."""
    if timetable is None or not timetable.periodic:
        return _YEAR
    dates = list(islice(dag_runs.dates_between(timetable, earliest=since, latest=since + _YEAR), _SAMPLED_RUNS))
    if len(dates) < 2 or dates[-1].run_after <= dates[0].run_after:
        return _YEAR
    return timedelta(seconds=(dates[-1].run_after - dates[0].run_after).total_seconds() / (len(dates) - 1))


def _range_error_text(error: WindowError) -> str:
    return error.message.replace("the window is", "the range is")


def _remedy(error: WindowError) -> str:
    return (error.remedy or "").replace("window_start", "from").replace("window_end", "to")
