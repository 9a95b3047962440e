# SPDX-License-Identifier: Apache-2.0
"""Templates that people write for Airflow 2, or over a mapped task: the error names the way of Airflow 3."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice.exceptions import ConfigurationError, WindowError
from airflow_flowservice.operators import OnDemandFlowRunOperator, RetriggerFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
START, END = "{{ data_interval_start }}", "{{ data_interval_end }}"
NINTH, TENTH = (datetime(2026, 1, day, tzinfo=timezone.utc) for day in (9, 10))
OWN = "2026-01-09T00:00:00Z/2026-01-10T00:00:00Z"


@pytest.fixture
def ingest(worker, emulator):
    """Return a function that runs an ingesting task, and returns the end of its attempt."""

    def run(**arguments):
        return worker.task(
            OnDemandFlowRunOperator, flow_id=FLOW, retries=2, **{"delta_column": "updated_at", **arguments}
        ).run()

    return run


def data_interval_timetable():
    """Return a daily timetable whose DAG runs have data intervals."""
    try:
        from airflow.sdk import CronDataIntervalTimetable
    except ImportError:  # before 3.1
        from airflow.timetables.interval import CronDataIntervalTimetable
    return CronDataIntervalTimetable("0 0 * * *", timezone="UTC")


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (START, END),
        ("{{ data_interval_start.isoformat() }}", "{{ data_interval_end.isoformat() }}"),
        ("{{ data_interval_start.int_timestamp }}", "{{ data_interval_end.int_timestamp }}"),
        ("{{ dag_run.data_interval_start }}", "{{ dag_run.data_interval_end }}"),
        ("{{ ts }}", "{{ data_interval_end | ts }}"),
    ],
)
@pytest.mark.parametrize(
    ("schedule", "replacement"),
    [
        ("@daily", "CronDataIntervalTimetable('"),
        ("0 0 * * *", "CronDataIntervalTimetable('0 0 * * *', timezone='UTC')"),
        (timedelta(days=1), "DeltaDataIntervalTimetable(datetime.timedelta(days=1))"),
    ],
    ids=["preset", "cron", "timedelta"],
)
def test_empty_data_interval(ingest, emulator, native, start, end, schedule, replacement):
    """The remedy is to leave both arguments out, or to use a timetable with data intervals."""
    ended = ingest(window_start=start, window_end=end, native=native, schedule=schedule)
    assert ("failed", True) == (ended.state, isinstance(ended.error, WindowError))
    assert "the data interval of this DAG run is also empty" in ended.error.message
    assert f"remove window_start and window_end: the task then ingests the window of its DAG run, {OWN}" in str(
        ended.error.remedy
    )
    assert replacement in ended.error.remedy
    assert FLOW == ended.error.flow_id
    assert {} == emulator.ledger()["requests"]


def test_remedy_of_an_empty_data_interval_without_a_schedule(ingest, emulator):
    """If the DAG has no schedule, to leave both out would not help."""
    ended = ingest(window_start=START, window_end=END, schedule=None, run_type="manual")
    assert isinstance(ended.error, WindowError)
    assert "remove window_start" not in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


def test_data_intervals_of_airflow_2(ingest):
    """With the timetable that the remedy names, the templates give the window."""
    schedule = data_interval_timetable()
    ended = ingest(window_start=START, window_end=END, schedule=schedule, interval=(NINTH, TENTH))
    assert "success" == ended.state


def test_other_empty_window_keeps_its_error(ingest):
    """An empty window in a DAG run with a data interval is the author's own."""
    schedule = data_interval_timetable()
    ended = ingest(window_start=START, window_end=START, schedule=schedule, interval=(NINTH, TENTH))
    assert "the window is empty: it starts and ends at 2026-01-09T00:00:00Z" == ended.error.message


# --- a mapped task gives a list ---

LISTS = [
    "{{ ['a', 'b'] }}",
    "{{ ('a', 'b') }}",
    "{{ ti.xcom_pull(task_ids=['a', 'b']) }}",
    "LazyXComSequence([2 items])",
]


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("value", LISTS)
@pytest.mark.parametrize(
    ("operator", "field"),
    [
        (OnDemandFlowRunOperator, "flow_id"),
        (OnDemandFlowRunOperator, "window_start"),
        (OnDemandFlowRunOperator, "window_end"),
        (OnDemandFlowRunOperator, "start_time"),
        (OnDemandFlowRunOperator, "delta_column"),
        (RetriggerFlowRunOperator, "flow_run_id"),
        (FlowRunSensor, "flow_run_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_list_of_a_mapped_task(worker, emulator, operator, field, value, native):
    """The remedy names `.output` and `map_indexes`; the task fails without a retry and without a request."""
    others = {}
    if operator is OnDemandFlowRunOperator:
        others = {"flow_id": FLOW, "window_start": NINTH, "window_end": TENTH}
    arguments = {"retries": 2, "deferrable": False, **others, field: value}
    ended = worker.task(operator, native=native, **arguments).run()
    assert ("failed", True) == (ended.state, isinstance(ended.error, ConfigurationError | WindowError))
    assert field in ended.error.message
    assert "name one value by map_indexes, or expand this task over `.output`" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


@pytest.mark.parametrize("field", ["window_start", "window_end"])
@pytest.mark.parametrize("where", ["conf", "params"])
def test_list_in_a_requested_window(ingest, emulator, where, field):
    """`TriggerDagRunOperator` renders a conf, so it can contain such a list."""
    requested = {"window_start": NINTH.isoformat(), "window_end": TENTH.isoformat(), field: "['a', 'b']"}
    settings = {"conf": requested} if where == "conf" else {"dag_settings": {"params": requested}}
    ended = ingest(run_type="manual", **settings)
    assert isinstance(ended.error, WindowError)
    assert "map_indexes" in ended.error.remedy
    assert {} == emulator.ledger()["requests"]


def test_other_text_has_no_remedy_for_lists(ingest):
    """Text that is no list does not mention mapped tasks."""
    assert "map_indexes" not in ingest(window_start="yesterday", window_end=TENTH).error.remedy
    assert "map_indexes" not in ingest(delta_column=7).error.remedy
