# SPDX-License-Identifier: Apache-2.0
"""Tests of `create_once` with wrong clocks: of the worker, of Flow Service, or of a gateway that sets `Date`."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from creations import LOST, RECORDED, adopted, created, ids

from airflow_flowservice.exceptions import StartTimeInPastError

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
WRONG = [20 * MINUTE, -20 * MINUTE, 74 * 365 * DAY, -56 * 365 * DAY, 7973 * 365 * DAY, -2025 * 365 * DAY]
NAMES = ["20 minutes ahead", "20 minutes behind", "year 2100", "year 1970", "year 9999", "year 1"]


def start_after(world: Any, *, post: int = 0) -> float:
    """Return the seconds from the service's true time to the start time of a POST."""
    return (world.service.posted[post]["start_time"] - world.time.true()).total_seconds()


@pytest.mark.parametrize("skew", [-9 * MINUTE, 9 * MINUTE], ids=["slow", "fast"])
def test_a_small_difference_is_corrected(world: Any, skew: timedelta) -> None:
    """The start time is in the service's clock if the worker's clock differs by some minutes."""
    world.time.skew = skew
    world.attempt(clock_offset=lambda: -skew)
    assert 0 < start_after(world) <= 5


@pytest.mark.parametrize("offset", WRONG, ids=NAMES)
def test_a_large_difference_is_not_believed(world: Any, offset: timedelta, caplog: pytest.LogCaptureFixture) -> None:
    """The start time is in the worker's clock if `Date` differs by more than ten minutes. The log states it once."""
    with caplog.at_level(logging.WARNING):
        world.attempt(clock_offset=lambda: offset)
    assert 0 < start_after(world) <= 5
    assert 1 == caplog.text.count("differs from this machine's clock")


@pytest.mark.parametrize("offset", WRONG, ids=NAMES)
def test_a_wrong_date_creates_no_second_run(world: Any, offset: timedelta) -> None:
    """A flow run with a lost response is found, also if `Date` is wrong."""
    world.service.plan = [RECORDED]
    assert (world.attempt(clock_offset=lambda: offset), ids(world)) == (adopted(), ["run-1"])


@pytest.mark.parametrize("offset", WRONG, ids=NAMES)
@pytest.mark.parametrize("later", [None, timedelta(0)], ids=["unknown later", "correct later"])
def test_the_next_attempt_creates_no_second_run(world: Any, offset: timedelta, later: timedelta | None) -> None:
    """The next attempt finds the flow run, also if `Date` was wrong only before."""
    world.dies_at("post after")
    with pytest.raises(world.Died):
        world.attempt(clock_offset=lambda: offset)
    assert (world.attempt(number=2, clock_offset=lambda: later), ids(world)) == (adopted(), ["run-1"])


@pytest.mark.parametrize("minutes", [-9, 9])
def test_a_wrong_correction_creates_no_second_run(world: Any, minutes: int) -> None:
    """A difference that is believed although it is wrong is within the margin of the search."""
    world.time.skew = -minutes * MINUTE
    world.service.plan = [RECORDED]
    wrong = minutes * MINUTE
    assert (world.attempt(clock_offset=lambda: wrong), ids(world)) == (adopted(), ["run-1"])


def test_a_refused_start_time_confirms_the_difference(world: Any) -> None:
    """If Flow Service reports a start time in the past, the later one is in the service's clock."""
    world.time.skew = -HOUR
    world.service.plan = [("lost", StartTimeInPastError("1360"))]
    assert world.attempt(clock_offset=lambda: HOUR) == created()
    assert start_after(world) <= 0
    assert 50 <= start_after(world, post=1) <= 70


def test_a_refused_start_time_confirms_a_day_at_most(world: Any) -> None:
    """No start time is years ahead."""
    world.service.plan = [("lost", StartTimeInPastError("1360"))]
    world.attempt(clock_offset=lambda: 74 * 365 * DAY)
    assert start_after(world, post=1) <= DAY.total_seconds() + 70


def test_a_long_list_has_a_floor(world: Any) -> None:
    """With `Date` in 1970, the search begins at the oldest of the known flow runs."""
    since = []
    for _ in range(60):
        world.service.add(window=world.order(day=3).window)
        world.time.sleep(DAY.total_seconds())
    begin, list_runs = world.time.true(), world.service.list_runs

    def listed(**filters: Any) -> Any:
        since.append(filters.get("created_since"))
        return list_runs(**filters)

    world.service.list_runs = listed
    world.service.plan = [LOST]
    world.attempt(clock_offset=lambda: -56 * 365 * DAY)
    assert since[1] > begin - 52 * DAY


def test_an_old_run_is_not_adopted_without_a_store(old_world: Any) -> None:
    """Before Airflow 3.3, `Date` in 1970 does not make an old flow run of the window a candidate."""
    old_world.service.add(window=old_world.order().window)
    old_world.time.sleep(3 * DAY.total_seconds())
    wrong = {"began": old_world.time.true(), "clock_offset": lambda: -56 * 365 * DAY}
    assert old_world.attempt(number=2, **wrong) == created(2)
