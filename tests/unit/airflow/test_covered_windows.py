# SPDX-License-Identifier: Apache-2.0
"""Verify that windows of a schedule inside an ingested span can be skipped without changing the coverage."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_flowservice._airflow import dag_runs
from airflow_flowservice._airflow.choose_window import window_of_run
from airflow_flowservice._airflow.dag_coverage import coverage_of
from airflow_flowservice._airflow.dag_plan import Plan, ScheduleDates
from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import Coverage, KnownRun, State, cover
from airflow_flowservice.coverage.fleet import merged_runs
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def timetables() -> dict[str, Any]:
    from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
    from airflow.timetables.trigger import CronTriggerTimetable, DeltaTriggerTimetable

    return {
        "daily": CronTriggerTimetable("0 0 * * *", timezone="UTC"),
        "daily in Berlin": CronTriggerTimetable("30 2 * * *", timezone="Europe/Berlin"),
        "weekdays": CronTriggerTimetable("0 6 * * 1-5", timezone="Europe/Berlin"),
        "monthly": CronTriggerTimetable("0 0 1 * *", timezone="UTC"),
        "weekday intervals": CronDataIntervalTimetable("0 0 * * 1-5", timezone="America/New_York"),
        "office hours": CronDataIntervalTimetable("0 9-17 * * 1-5", timezone="UTC"),
        "month intervals": CronDataIntervalTimetable("0 0 1 * *", timezone="UTC"),
        "delta": DeltaTriggerTimetable(timedelta(hours=7)),
        "delta intervals": DeltaDataIntervalTimetable(timedelta(hours=31)),
    }


def open_spans(coverage: Coverage) -> list[tuple[IngestionWindow, State]]:
    """Return the spans that are not ingested."""
    return [(span.window, span.state) for span in coverage.spans if span.state is not State.INGESTED]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(timetables()))
@given(
    gaps=st.sets(st.integers(0, 139), max_size=4),
    length=st.integers(1, 3),
    until=st.integers(0, 139),
    offset=st.sampled_from([timedelta(0), timedelta(hours=3), -DAY]),
)
@settings(max_examples=10)
def test_skipped_windows_make_no_difference(
    name: str, gaps: set[int], length: int, until: int, offset: timedelta
) -> None:
    """The windows that are not ingested, and their states, are the same."""
    timetable = timetables()[name]
    # Nine windows a day need fewer days.
    now = BEGIN + (35 if name == "office hours" else 140) * DAY
    dates = list(dag_runs.dates_between(timetable, earliest=BEGIN, latest=now + 40 * DAY))
    windows = [window_of_run(timetable=timetable, dates=each, offset=offset or None) for each in dates]
    missing = {index for gap in gaps for index in range(gap, gap + length)}
    ingested = [each for index, each in enumerate(windows) if index < until and index not in missing]
    plan = Plan(dag_id="d", timetable=timetable, start=BEGIN, offset=offset or None)
    single = [KnownRun(id=str(index), window=each, status=FlowRunStatus.SUCCESS) for index, each in enumerate(ingested)]
    common: dict[str, Any] = {"plans": [plan], "within": IngestionWindow(BEGIN, now), "now": now}
    expected = _without_skipping(single, common)
    assert open_spans(expected) == open_spans(coverage_of([], ingested=single, **common))
    assert open_spans(expected) == open_spans(coverage_of([], ingested=list(merged_runs(ingested)), **common))


def _without_skipping(runs: list[KnownRun], common: dict[str, Any]) -> Coverage:
    """Return the coverage if all windows of the schedule are expected."""
    every = coverage_of([], **common)
    expected = [each for span in every.spans for each in span.expected]
    return cover(expected, runs, within=common["within"])


def test_long_window_after_short_ones_is_expected() -> None:
    """An ingested span that ends inside a weekend does not hide the window over this weekend."""
    plan = Plan(dag_id="d", timetable=timetables()["office hours"], start=BEGIN, offset=None)
    spans = [
        IngestionWindow(BEGIN, datetime(2026, 1, 17, tzinfo=timezone.utc)),
        IngestionWindow(datetime(2026, 1, 19, 9, tzinfo=timezone.utc), datetime(2026, 1, 19, 17, tzinfo=timezone.utc)),
    ]
    runs = [KnownRun(id=str(index), window=each, status=FlowRunStatus.SUCCESS) for index, each in enumerate(spans)]
    until = datetime(2026, 1, 19, 17, tzinfo=timezone.utc)
    found = coverage_of([], ingested=runs, plans=[plan], within=IngestionWindow(BEGIN, until), now=until)
    weekend = IngestionWindow(datetime(2026, 1, 17, tzinfo=timezone.utc), datetime(2026, 1, 19, 9, tzinfo=timezone.utc))
    assert [(weekend, State.MISSING)] == open_spans(found)


def test_shared_dates_are_those_of_the_schedule() -> None:
    """Two readers that continue alternately get all dates, and the schedule is computed once."""
    timetable = timetables()["daily"]
    shared = ScheduleDates()
    arguments: dict[str, Any] = {"earliest": BEGIN, "latest": BEGIN + 5 * DAY}
    first, second = (shared.between(timetable, **arguments) for _ in range(2))
    mixed = [(next(first), next(second)) for _ in range(6)]
    expected = list(dag_runs.dates_between(timetable, **arguments))
    assert [(each, each) for each in expected] == mixed
    assert (None, None) == (next(first, None), next(second, None))
