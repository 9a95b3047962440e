# SPDX-License-Identifier: Apache-2.0
"""Tests of the differences between Airflow versions, which only `versions.py` contains."""

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
VERSION_CHECK = re.compile(r"except \(?ImportError|\bversion\(\) *[<>=]|airflow.__version__")


def utc(*parts):
    return datetime(*parts, tzinfo=timezone.utc)


def test_no_other_module_checks_the_version():
    """The exceptions are the plugin, which must import very little, and libraries that may not be installed."""
    found = {
        file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if VERSION_CHECK.search(file.read_text())
    }
    others = {"_airflow/cache_settings.py", "ledger/sql_engine.py", "plugins/plugin.py"}
    assert {"_airflow/versions.py", *others} == found


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
def test_worker_of_3_2_computes_the_start_of_its_partition(offset, run_after, expected, run_type):
    """The worker receives only the partition's key, in the format of the DAG's author.

    The start is also correct across a clock change.
    """
    timetable = airflow_versions.CronPartitionTimetable("0 0 * * *", timezone="Europe/Zurich", run_offset=offset)
    assert expected == task_context.dates_of(run_of_3_2(run_after, run_type), timetable=timetable).partition_date


def test_run_of_3_2_without_partition_has_no_partition_date():
    """A run of an unknown timetable has none, either."""
    daily = airflow_versions.CronTriggerTimetable("0 0 * * *", timezone="UTC")
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28), "scheduled"), timetable=daily).partition_date is None
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28), "scheduled")).partition_date is None


@pytest.mark.needs_airflow(3, 2, "partitions")
def test_manual_run_of_3_2_has_no_partition_date():
    """The date of a manual run is not a run date of the schedule."""
    timetable = airflow_versions.CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1)
    assert task_context.dates_of(run_of_3_2(utc(2026, 3, 28, 7), "manual"), timetable=timetable).partition_date is None


@pytest.mark.parametrize(
    "runner", [lambda: versions.in_thread, versions.dedicated_thread], ids=["any thread", "dedicated thread"]
)
def test_look_ups_from_a_thread_run_in_the_event_loop(runner):
    """Before Airflow 3.2, the triggerer has one connection to its supervisor, with a lock of the event loop.

    Later versions have a separate connection for threads, so look-ups need not wait for the event loop.
    """
    from asgiref.sync import async_to_sync

    async def loop():
        return asyncio.get_running_loop()

    async def loops():
        return await loop(), await runner()(look_up)

    def look_up():
        return async_to_sync(loop)()  # as `TriggerCommsDecoder.send`

    own, of_look_up = asyncio.run(loops())
    assert (own is of_look_up) == (versions.version() < (3, 2))


def test_dedicated_thread_is_reused_and_ends_with_its_function():
    """A triggerer runs for months, and must not keep threads of unused connections."""

    async def names():
        in_dedicated_thread = versions.dedicated_thread()
        return [await in_dedicated_thread(threading.current_thread) for _ in range(3)]

    thread, *others = asyncio.run(names())
    thread.join(10)
    assert [thread] * 2 == others
    assert not thread.is_alive()


def run_of_3_2(run_after, run_type):
    """Return a DAG run of 3.2's task runner, which has no `partition_date`."""
    return SimpleNamespace(
        run_after=run_after, logical_date=None, data_interval_start=None, data_interval_end=None, run_type=run_type
    )
