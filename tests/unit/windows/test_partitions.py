# SPDX-License-Identifier: Apache-2.0
"""Tests of the partitions of a window: each whole hour or day of contiguous windows is named exactly once."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.windows.partitions import LENGTHS, extra_of_partition, keys_of
from airflow_flowservice.windows.window import IngestionWindow, iso

MIDNIGHT = datetime(2026, 3, 28, tzinfo=timezone.utc)
MINUTE = timedelta(minutes=1)


def window_of(start: float, end: float) -> IngestionWindow:
    """Return the window between two hours after midnight."""
    return IngestionWindow(MIDNIGHT + timedelta(hours=start), MIDNIGHT + timedelta(hours=end))


@pytest.mark.parametrize(
    ("window", "length", "expected"),
    [
        (window_of(1, 2), "hour", ["2026-03-28T01:00:00"]),
        (window_of(22, 25), "hour", ["2026-03-28T22:00:00", "2026-03-28T23:00:00", "2026-03-29T00:00:00"]),
        (window_of(0.5, 2.5), "hour", ["2026-03-28T01:00:00"]),
        (window_of(0.5, 1.5), "hour", []),
        (window_of(0.25, 0.75), "hour", []),
        (window_of(0, 48), "day", ["2026-03-28T00:00:00", "2026-03-29T00:00:00"]),
        (window_of(-1, 23), "day", []),
    ],
)
def test_each_whole_period_has_a_key(window, length, expected):
    """The day of a clock change in Europe also has 24 hours, since partitions are in UTC."""
    assert expected == keys_of(window, length=length)


@given(edges=st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=6, unique=True), length=st.sampled_from("hd"))
def test_contiguous_windows_name_no_partition_twice(edges, length):
    """The keys of the windows are those of the whole span, without those that an inner edge divides."""
    name = {"h": "hour", "d": "day"}[length]
    first, *rest = sorted(edges)
    starts = [MIDNIGHT + minutes * MINUTE for minutes in (first, *rest)]
    named = [
        key for start, end in itertools.pairwise(starts) for key in keys_of(IngestionWindow(start, end), length=name)
    ]
    whole = keys_of(IngestionWindow(starts[0], starts[-1]), length=name)
    assert sorted(set(named)) == named
    divided = {key for key in whole if any(_divides(edge, key, LENGTHS[name]) for edge in starts)}
    assert set(whole) - divided == set(named)


def _divides(edge: datetime, key: str, length: timedelta) -> bool:
    start = datetime.fromisoformat(f"{key}+00:00")
    return start < edge < start + length


@pytest.mark.parametrize("length", LENGTHS)
def test_event_of_a_partition_has_its_window(length):
    """The flow run may have ingested a longer window."""
    window = IngestionWindow(MIDNIGHT, MIDNIGHT + 3 * LENGTHS[length])
    extra = {"partitions": length, "window_start": iso(window.start), "window_end": iso(window.end), "records": 7}
    found = [extra_of_partition(extra, key=key) for key in keys_of(window, length=length)]
    edges = [MIDNIGHT + number * LENGTHS[length] for number in range(4)]
    expected = [(iso(start), iso(end), 7) for start, end in itertools.pairwise(edges)]
    assert expected == [(each["window_start"], each["window_end"], each["records"]) for each in found]


@pytest.mark.parametrize(
    ("extra", "key"),
    [
        ({"partitions": "hour"}, None),
        ({"partitions": "hour"}, "eu"),
        ({"partitions": "week"}, "2026-03-28T00:00:00"),
        ({"partitions": ["hour"]}, "2026-03-28T00:00:00"),
        ({}, "2026-03-28T00:00:00"),
    ],
)
def test_other_events_are_unchanged(extra, key):
    """Another system may have named the partition."""
    assert extra == extra_of_partition(extra, key=key)
