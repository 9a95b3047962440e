"""Tests of gaps, overlaps and local days of unusual length, compared with a count hour by hour."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_flowservice.windows.contiguity import breaks, length_text, uneven_day
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
repeatable = settings(derandomize=True, deadline=None)

edges = st.lists(st.integers(0, 300), min_size=2, max_size=12, unique=True).map(sorted)
spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda span: (span[0], sum(span)))


def window(start: int, end: int) -> IngestionWindow:
    """From one hour to another."""
    return IngestionWindow(EPOCH + start * HOUR, EPOCH + end * HOUR)


def hours(found: Any) -> set[int]:
    """The hours of a break."""
    return set(range(int((found.start - EPOCH) / HOUR), int((found.end - EPOCH) / HOUR)))


class TestBreaks:
    @repeatable
    @given(edges=edges, data=st.data())
    def test_windows_that_tile_have_none(self, edges: list[int], data: st.DataObject) -> None:
        """In any order."""
        windows = data.draw(st.permutations([window(*pair) for pair in pairwise(edges)]))
        assert [] == breaks(windows)

    @repeatable
    @given(edges=edges, data=st.data())
    def test_a_planted_gap_is_found(self, edges: list[int], data: st.DataObject) -> None:
        """A window that is left out of a row of windows is the gap."""
        # One more at either end, where nothing would be missing.
        edges = [-1, *edges, 301]
        windows = [window(*pair) for pair in pairwise(edges)]
        out = data.draw(st.integers(1, len(windows) - 2))
        [found] = breaks(windows[:out] + windows[out + 1 :])
        assert ("gap", out, windows[out]) == (found.kind, found.index, IngestionWindow(found.start, found.end))

    @repeatable
    @given(edges=edges, data=st.data())
    def test_a_planted_overlap_is_found(self, edges: list[int], data: st.DataObject) -> None:
        """A window that is there twice overlaps as a whole."""
        windows = [window(*pair) for pair in pairwise(edges)]
        twice = data.draw(st.sampled_from(windows))
        [found] = breaks([*windows, twice])
        assert ("overlap", twice.start, twice.end) == (found.kind, found.start, found.end)
        assert len(windows) == found.index

    @repeatable
    @given(spans=st.lists(spans, max_size=12))
    @example(spans=[(0, 10), (2, 5), (5, 12)])
    @example(spans=[(0, 2), (4, 6), (4, 6)])
    def test_any_windows(self, spans: list[tuple[int, int]]) -> None:
        """An hour in no window is in a gap, an hour in several in an overlap, and no other hour in either."""
        windows = [window(*span) for span in spans]
        times = Counter(hour for span in spans for hour in range(*span))
        found = breaks(windows)
        missing = {hour for one in found if one.kind == "gap" for hour in hours(one)}
        doubled = {hour for one in found if one.kind == "overlap" for hour in hours(one)}
        assert {hour for hour in range(min(times, default=0), max(times, default=0)) if not times[hour]} == missing
        assert {hour for hour, count in times.items() if count > 1} == doubled
        for one in found:
            assert (one.end if one.kind == "gap" else one.start) == windows[one.index].start


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=90), "1 min 30 s"),
        (timedelta(hours=23), "23 h"),
        (DAY, "24 h"),
        (timedelta(hours=25, minutes=30), "25 h 30 min"),
        (7 * DAY, "7 d"),
        (7 * DAY - HOUR, "167 h"),
    ],
)
def test_lengths_for_people(length: timedelta, text: str) -> None:
    """A day is 24 h, so that 23 h and 25 h show beside it."""
    assert text == length_text(length)


@pytest.mark.parametrize(
    ("zone", "start", "end", "note"),
    [
        ("Europe/Zurich", "2026-03-29", "2026-03-30", "local day of 23 h"),
        ("Europe/Zurich", "2026-10-25", "2026-10-26", "local day of 25 h"),
        ("Europe/Zurich", "2026-03-29T06:00", "2026-03-30T06:00", ""),
        ("Europe/Zurich", "2026-03-28T06:00", "2026-03-29T06:00", "local day of 23 h"),
        ("Europe/Zurich", "2026-03-23", "2026-03-30", "7 local days of 167 h"),
        ("Europe/Zurich", "2026-03-29T01:00", "2026-03-29T03:00", ""),
        ("Europe/Zurich", "2026-03-28", "2026-03-29", ""),
        ("Europe/Zurich", "2026-03-28T12:00", "2026-03-29T18:00", ""),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-05", "local day of 23 h 30 min"),
        ("UTC", "2026-03-29", "2026-03-30", ""),
    ],
)
def test_a_day_of_another_length(zone: str, start: str, end: str, note: str) -> None:
    """Whole local days are noted if the clocks change on them; shorter windows are not."""
    place = ZoneInfo(zone)
    local = IngestionWindow(*(datetime.fromisoformat(text).replace(tzinfo=place) for text in (start, end)))
    assert note == uneven_day(local, zone=place)
