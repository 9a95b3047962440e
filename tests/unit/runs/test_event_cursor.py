# SPDX-License-Identifier: Apache-2.0
"""Progress of events: each flow run that ends is taken once, in any order of ends, over restarts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.runs.event_cursor import MAX_OPEN, MAX_SETTLED, OVERLAP, EventCursor

T0 = datetime(2026, 1, 9, tzinfo=timezone.utc)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def flow_run(run_id: str, created: float | None, *, status: str = "success", ended: float | None = None) -> FlowRun:
    return FlowRun(
        id=run_id,
        status=FlowRunStatus.parse(status),
        created_at=None if created is None else at(created),
        completed_at=None if ended is None else at(ended),
    )


def ids(runs) -> list[str]:
    return [run.id for run in runs]


def test_two_flow_runs_of_the_same_second_are_both_taken():
    """The second one becomes visible after the first one was taken."""
    first = EventCursor.at(T0).take([flow_run("a", 1)], now=at(2))
    second = first.cursor.take([flow_run("a", 1), flow_run("b", 1)], now=at(3))
    assert (["a"], ["b"]) == (ids(first.ended), ids(second.ended))


def test_flow_run_in_progress_does_not_hold_back_later_ones():
    """It stays open after `since` has passed its creation, and is read by its id."""
    cursor = EventCursor.at(T0)
    first = cursor.take([flow_run("slow", 1, status="inProgress"), flow_run("fast", 2)], now=at(3))
    second = first.cursor.take([flow_run("later", 600)], now=at(601))
    assert (["fast"], ["later"]) == (ids(first.ended), ids(second.ended))
    assert at(1) < second.cursor.created_since
    assert ["slow"] == second.cursor.unlisted([])
    third = second.cursor.take([flow_run("later", 600), flow_run("slow", 1, ended=700)], now=at(701))
    assert (["slow"], {}) == (ids(third.ended), third.cursor.open)
    assert [] == ids(third.cursor.take([flow_run("slow", 1, ended=700)], now=at(702)).ended)


def test_events_have_the_order_of_the_ends():
    """The order of creation does not matter."""
    runs = [flow_run("a", 1, ended=9), flow_run("b", 2, ended=8), flow_run("c", 3, ended=9)]
    assert ["b", "a", "c"] == ids(EventCursor.at(T0).take(runs, now=at(10)).ended)


@pytest.mark.parametrize(
    "run",
    [
        flow_run("before", -1),
        flow_run("undated", None),
        flow_run("not an id", 1),
        flow_run("x" * 201, 1),
        FlowRun(id="y3000", status=FlowRunStatus.SUCCESS, created_at=datetime(3000, 1, 1, tzinfo=timezone.utc)),
    ],
    ids=["before", "undated", "spaces", "long", "y3000"],
)
def test_flow_run_that_cannot_be_placed_is_ignored(run):
    """A service that ignores the filter causes no event, and does not move the progress."""
    step = EventCursor.at(T0).take([run], now=at(2))
    assert ((), EventCursor.at(T0)) == (step.ended, step.cursor)


def test_flow_run_of_the_future_does_not_hide_later_ones():
    """Its event comes once, and the progress follows this machine's clock."""
    first = EventCursor.at(T0).take([flow_run("future", 60 * 24 * 365)], now=at(5))
    second = first.cursor.take([flow_run("future", 60 * 24 * 365), flow_run("now", 6)], now=at(7))
    assert (["future"], ["now"]) == (ids(first.ended), ids(second.ended))


def test_incomplete_list_continues_at_its_last_flow_run():
    """The next poll lists the rest, also if all flow runs were created within an hour."""
    runs = [flow_run(f"run-{number}", number / 100) for number in range(100)]
    first = EventCursor.at(T0).take(runs[:60], now=at(90), is_complete=False)
    assert runs[59].created_at == first.cursor.created_since
    assert {"run-59"} == set(first.cursor.settled)
    assert ids(runs[60:]) == ids(first.cursor.take(runs[59:], now=at(90)).ended)


def test_incomplete_list_continues_if_the_clock_of_flow_service_is_ahead():
    """Otherwise, each poll would read the same list again."""
    runs = [flow_run(f"run-{number}", 5 + number) for number in range(4)]
    first = EventCursor.at(T0).take(runs[:2], now=at(3), is_complete=False)
    assert runs[1].created_at == first.cursor.created_since


def test_progress_is_bounded():
    """A backfill of thousands of flow runs in an hour fits into a Variable, and none is taken twice."""
    count = MAX_SETTLED + 500
    runs = [flow_run(f"run-{number}", number / count) for number in range(count)]
    step = EventCursor.at(T0).take(runs, now=at(2))
    assert (count, MAX_SETTLED) == (len(step.ended), len(step.cursor.settled))
    assert () == step.cursor.take(runs, now=at(3)).ended
    opened = [flow_run(f"open-{number}", number, status="inProgress") for number in range(MAX_OPEN + 2)]
    bounded = EventCursor.at(T0).take(opened, now=at(MAX_OPEN + 2))
    assert (MAX_OPEN, ("open-0", "open-1")) == (len(bounded.cursor.open), bounded.dropped)


def test_flow_run_that_never_ends_is_dropped_after_30_days():
    """It would otherwise be read at each poll without end."""
    cursor = EventCursor.at(T0).take([flow_run("lost", 1, status="inProgress")], now=at(2)).cursor
    assert ("lost",) == cursor.take([], now=T0 + timedelta(days=31)).dropped


def test_progress_is_equal_after_storing():
    """The Variable contains it as JSON."""
    cursor = EventCursor(since=1, settled={"a": 2}, open={"b": 0})
    assert cursor == EventCursor.from_json(json.loads(json.dumps(cursor.to_json())))


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"format": 2, "since": 1, "settled": {}, "open": {}},
        *(
            {"format": 1, "since": 1, "settled": {}, "open": {}} | change
            for change in (
                {"since": True},
                {"since": -1},
                {"since": "1"},
                {"since": 10**18},
                {"open": None},
                {"open": {"a b": 1}},
                {"settled": {"a": "1"}},
                {"settled": []},
            )
        ),
    ],
)
def test_other_values_are_refused(values):
    """A Variable that a person changed is not used."""
    with pytest.raises(ValueError, match="not"):
        EventCursor.from_json(values)


@dataclass(frozen=True)
class Life:
    """A flow run, in minutes: creation, delay until it is listed, and duration."""

    created: int
    delay: int
    duration: int

    def seen(self, run_id: str, now: float) -> FlowRun | None:
        if now < self.created + self.delay:
            return None
        has_ended = now >= self.created + self.duration
        return flow_run(
            run_id,
            self.created,
            status="success" if has_ended else "inProgress",
            ended=self.created + self.duration if has_ended else None,
        )


LIVES = st.lists(
    st.builds(
        Life,
        created=st.integers(0, 400),
        delay=st.integers(0, int(OVERLAP.total_seconds() // 60) - 1),
        duration=st.integers(0, 900),
    ),
    max_size=12,
)


@given(lives=LIVES, polls=st.lists(st.integers(0, 1500), max_size=15), is_lost=st.lists(st.booleans(), min_size=17))
def test_each_flow_run_is_taken_once(lives, polls, is_lost):
    """If the progress of a poll is lost, exactly the flow runs of this poll are taken again."""
    cursor, stored = EventCursor.at(T0), []
    for now, lost in zip([*sorted(polls), 2000, 2001], [*is_lost[: len(polls)], False, False], strict=True):
        visible = {f"run-{number}": life.seen(f"run-{number}", now) for number, life in enumerate(lives)}
        shown = [run for run in visible.values() if run is not None]
        listed = [run for run in shown if run.created_at >= cursor.created_since]
        reread = [visible[run_id] for run_id in cursor.unlisted(listed)]
        step = cursor.take([*listed, *reread], now=at(now))
        if lost:
            continue
        stored += ids(step.ended)
        cursor = EventCursor.from_json(json.loads(json.dumps(step.cursor.to_json())))
    assert Counter({f"run-{number}": 1 for number in range(len(lives))}) == Counter(stored)
