# SPDX-License-Identifier: Apache-2.0
"""Tests of windows that are requested in mappings and asset events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.requested import merge_windows, requested_window, window_of_events
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
instants = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda instant: instant.replace(microsecond=0)
)
edges = st.lists(instants, min_size=2, max_size=8, unique=True).map(sorted)


def windows_between(chosen: list[datetime]) -> list[IngestionWindow]:
    return [IngestionWindow(*pair) for pair in pairwise(chosen)]


@given(edges, st.randoms())
def test_contiguous_windows_merge_in_any_order(chosen, random):
    """Duplicated windows do not matter."""
    windows = windows_between(chosen)
    mixed = [*windows, random.choice(windows)]
    random.shuffle(mixed)
    assert IngestionWindow(chosen[0], chosen[-1]) == merge_windows(set(mixed))


@given(st.lists(instants, min_size=4, max_size=8, unique=True).map(sorted), st.data())
def test_missing_window_is_a_gap(chosen, data):
    """The error names the edge of the gap."""
    windows = windows_between(chosen)
    removed = windows.pop(data.draw(st.integers(1, len(windows) - 2)))
    with pytest.raises(WindowError, match="leave a gap") as caught:
        merge_windows(windows)
    assert str(removed.end)[:10] in str(caught.value)


@given(edges, st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_shifted_windows_stay_contiguous(chosen, offset):
    """The offset may have fractions of a second."""
    moved = [window.shifted(offset) for window in windows_between(chosen)]
    assert all(one.meets(other) for one, other in pairwise(moved))


@pytest.mark.parametrize(
    "values",
    [{}, {"window_start": None, "window_end": None}, {"window_start": "", "window_end": ""}, {"windowStart": 1}],
)
def test_mapping_without_window_returns_none(values):
    """Empty values count as missing."""
    assert None is requested_window(values, where="the conf")


def test_mapping_takes_all_forms_of_instants():
    """The forms are those of the task's arguments."""
    values = {"window_start": 1767312000, "window_end": "2026-01-02T01:00:00+01:00"}
    with pytest.raises(WindowError, match="empty"):
        requested_window(values, where="the conf")
    values["window_end"] = datetime(2026, 1, 3, tzinfo=UTC)
    assert "2026-01-02T00:00:00Z/2026-01-03T00:00:00Z" == str(requested_window(values, where="the conf"))


def test_event_without_window_is_ignored():
    """For example, a user creates such an event with the button in Airflow's UI."""
    assert None is window_of_events([("orders", {}), ("orders", {"rows": 3})])


def test_dates_in_digits_are_refused():
    """Numbers in a conf are refused as arguments are, and the error names the conf."""
    with pytest.raises(WindowError, match=r"window_start in the run's conf is 20260109, which reads as the date"):
        requested_window({"window_start": 20260109, "window_end": 20260110}, where="the run's conf")
