"""What differs between Airflow's versions: in `versions.py` alone, and each with its answer."""

from __future__ import annotations

import asyncio
import re
import threading
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import airflow_versions
import pytest

from airflow_flowservice._airflow import task_context, versions

PACKAGE = Path(versions.__file__).parents[1]
ASKS_FOR_A_VERSION = re.compile(r"except \(?ImportError|\bversion\(\) *[<>=]|airflow.__version__")


def utc(*parts):
    return datetime(*parts, tzinfo=timezone.utc)


def test_no_other_module_tells_versions_apart():
    """Whoever raises the oldest version has one file to look at, and the plugin, which may import next to nothing."""
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if ASKS_FOR_A_VERSION.search(file.read_text())
    }
    assert {"_airflow/versions.py", "plugins/plugin.py"} == found


@pytest.mark.needs_airflow(3, 2, "partitions")
@pytest.mark.parametrize(
    ("offset", "run_after", "expected"),
    [
        (-1, utc(2026, 3, 29, 22), utc(2026, 3, 28, 23)),
        (0, utc(2026, 3, 28, 23), utc(2026, 3, 28, 23)),
        (2, utc(2026, 3, 27, 23), utc(2026, 3, 29, 22)),
    ],
)
@pytest.mark.parametrize("run_type", ["scheduled", "backfill"])
def test_a_worker_of_3_2_counts_where_its_partition_begins(offset, run_after, expected, run_type):
    """It is told the partition's key alone, whose format is the DAG author's; also across a change of the clock."""
    timetable = airflow_versions.CronPartitionTimetable("0 0 * * *", timezone="Europe/Zurich", run_offset=offset)
    assert expected == task_context.dates_of(run_of_3_2(run_after, run_type), timetable=timetable).partition_date


def test_a_run_of_3_2_without_partition_has_no_date_of_one():
    """Nor has a run whose timetable is not known."""
    daily = airflow_versions.CronTriggerTimetable("0 0 * * *", timezone="UTC")
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28), "scheduled"), timetable=daily).partition_date is None
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28), "scheduled")).partition_date is None


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_a_run_of_3_2_by_hand_takes_no_partition():
    """Its date is not its schedule's."""
    timetable = airflow_versions.CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28, 7), "manual"), timetable=timetable).partition_date is None


@pytest.mark.parametrize("beside", [lambda: versions.in_thread, versions.own_thread], ids=["any thread", "own thread"])
def test_look_ups_from_a_thread_take_their_turn_in_the_event_loop(beside):
    """The triggerer before 3.2 has one connection to its supervisor, whose lock knows the event loop alone.

    Later ones have a way of their own, and look-ups need not wait for the loop.
    """
    from asgiref.sync import async_to_sync

    async def loop():
        return asyncio.get_running_loop()

    async def ask():
        return await loop(), await beside()(look_up)

    def look_up():
        return async_to_sync(loop)()  # as `TriggerCommsDecoder.send`

    own, of_look_up = asyncio.run(ask())
    assert (own is of_look_up) == (versions.version() < (3, 2))


def test_an_own_thread_is_one_and_ends_with_its_holder():
    """A triggerer lives for months, and the connections that are waited on come and go."""

    async def names():
        in_own_thread = versions.own_thread()
        return [await in_own_thread(threading.current_thread) for _ in range(3)]

    thread, *others = asyncio.run(names())
    thread.join(10)
    assert [thread] * 2 == others
    assert not thread.is_alive()


def run_of_3_2(run_after, run_type):
    """A DAG run as the task runner of 3.2 has it: without `partition_date`."""
    return SimpleNamespace(
        run_after=run_after, logical_date=None, data_interval_start=None, data_interval_end=None, run_type=run_type
    )
