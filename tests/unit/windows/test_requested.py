"""Windows that somebody asked for, in mappings and asset events."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.requested import joined, named_window, window_of_events
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda moment: moment.replace(microsecond=0)
)
edges = st.lists(moments, min_size=2, max_size=8, unique=True).map(sorted)


def windows_between(chosen: list[datetime]) -> list[IngestionWindow]:
    return [IngestionWindow(*pair) for pair in pairwise(chosen)]


@given(edges, st.randoms())
def test_windows_that_tile_join_in_any_order(chosen, random):
    """Also when some of them are there twice."""
    windows = windows_between(chosen)
    mixed = [*windows, random.choice(windows)]
    random.shuffle(mixed)
    assert IngestionWindow(chosen[0], chosen[-1]) == joined(set(mixed))


@given(st.lists(moments, min_size=4, max_size=8, unique=True).map(sorted), st.data())
def test_a_window_that_is_missing_is_a_gap(chosen, data):
    """What lies between is told."""
    windows = windows_between(chosen)
    gone = windows.pop(data.draw(st.integers(1, len(windows) - 2)))
    with pytest.raises(WindowError, match="leave a gap") as caught:
        joined(windows)
    assert str(gone.end)[:10] in str(caught.value)


@given(edges, st.timedeltas(timedelta(days=-400), timedelta(days=400)))
def test_moved_windows_still_tile(chosen, offset):
    """By any offset, also one with fractions of a second."""
    moved = [window.shifted(offset) for window in windows_between(chosen)]
    assert all(one.meets(other) for one, other in pairwise(moved))


@pytest.mark.parametrize(
    "values",
    [{}, {"window_start": None, "window_end": None}, {"window_start": "", "window_end": ""}, {"windowStart": 1}],
)
def test_a_mapping_may_ask_for_nothing(values):
    """Empty values count as not given."""
    assert None is named_window(values, where="the conf")


def test_a_mapping_asks_in_any_form():
    """Moments in all forms that the task's own arguments take."""
    values = {"window_start": 1767312000, "window_end": "2026-01-02T01:00:00+01:00"}
    with pytest.raises(WindowError, match="empty"):
        named_window(values, where="the conf")
    values["window_end"] = datetime(2026, 1, 3, tzinfo=UTC)
    assert "2026-01-02T00:00:00Z/2026-01-03T00:00:00Z" == str(named_window(values, where="the conf"))


def test_a_windowless_event_is_left_out():
    """Somebody pressed the button that makes an event."""
    assert None is window_of_events([("orders", {}), ("orders", {"rows": 3})])
