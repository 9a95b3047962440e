# SPDX-License-Identifier: Apache-2.0
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

from airflow_flowservice.windows.contiguity import clock_change_note, find_breaks, length_text, uncovered
from airflow_flowservice.windows.window import IngestionWindow

UTC = timezone.utc
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
repeatable = settings(derandomize=True, deadline=None)

edges = st.lists(st.integers(0, 300), min_size=2, max_size=12, unique=True).map(sorted)
spans = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda span: (span[0], sum(span)))


def window(start: int, end: int) -> IngestionWindow:
    """Return the window between two hours after EPOCH."""
    return IngestionWindow(EPOCH + start * HOUR, EPOCH + end * HOUR)


def hours(found: Any) -> set[int]:
    """Return the hours of a break, counted from EPOCH."""
    return set(range(int((found.start - EPOCH) / HOUR), int((found.end - EPOCH) / HOUR)))


class TestUncovered:
    @repeatable
    @given(whole=spans, parts=st.lists(spans, max_size=6))
    def test_pieces_are_the_hours_that_no_part_contains(self, whole: tuple[int, int], parts: list[Any]) -> None:
        """The pieces are contiguous, ordered by time, and as few as possible."""
        pieces = uncovered(window(*whole), [window(*part) for part in parts])
        expected = set(range(*whole)).difference(*(range(*part) for part in parts))
        assert expected == set().union(*map(hours, pieces))
        assert all(one.end < other.start for one, other in pairwise(pieces))


class TestFindBreaks:
    @repeatable
    @given(edges=edges, data=st.data())
    def test_contiguous_windows_have_no_breaks(self, edges: list[int], data: st.DataObject) -> None:
        """The order of the windows does not matter."""
        windows = data.draw(st.permutations([window(*pair) for pair in pairwise(edges)]))
        assert [] == find_breaks(windows)

    @repeatable
    @given(edges=edges, data=st.data())
    def test_removed_window_is_a_gap(self, edges: list[int], data: st.DataObject) -> None:
        """A window that is removed from contiguous windows is the gap."""
        # Add a window at each end: a removed first or last window leaves no gap.
        edges = [-1, *edges, 301]
        windows = [window(*pair) for pair in pairwise(edges)]
        out = data.draw(st.integers(1, len(windows) - 2))
        [found] = find_breaks(windows[:out] + windows[out + 1 :])
        assert ("gap", out, windows[out]) == (found.kind, found.index, IngestionWindow(found.start, found.end))

    @repeatable
    @given(edges=edges, data=st.data())
    def test_duplicated_window_is_an_overlap(self, edges: list[int], data: st.DataObject) -> None:
        """The overlap is the whole window."""
        windows = [window(*pair) for pair in pairwise(edges)]
        duplicate = data.draw(st.sampled_from(windows))
        [found] = find_breaks([*windows, duplicate])
        assert ("overlap", duplicate.start, duplicate.end) == (found.kind, found.start, found.end)
        assert len(windows) == found.index

    @repeatable
    @given(spans=st.lists(spans, max_size=12))
    @example(spans=[(0, 10), (2, 5), (5, 12)])
    @example(spans=[(0, 2), (4, 6), (4, 6)])
    def test_breaks_match_a_count_of_each_hour(self, spans: list[tuple[int, int]]) -> None:
        """An hour in no window is in a gap, an hour in several windows is in an overlap, and others are in neither."""
        windows = [window(*span) for span in spans]
        times = Counter(hour for span in spans for hour in range(*span))
        found = find_breaks(windows)
        missing = {hour for one in found if one.kind == "gap" for hour in hours(one)}
        duplicated = {hour for one in found if one.kind == "overlap" for hour in hours(one)}
        assert {hour for hour in range(min(times, default=0), max(times, default=0)) if not times[hour]} == missing
        assert {hour for hour, count in times.items() if count > 1} == duplicated
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
def test_length_text(length: timedelta, text: str) -> None:
    """One day is shown as 24 h, so that it can be compared with 23 h and 25 h."""
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
def test_clock_change_note(zone: str, start: str, end: str, note: str) -> None:
    """Windows of whole local days with a clock change have a note; shorter windows have none."""
    place = ZoneInfo(zone)
    local = IngestionWindow(*(datetime.fromisoformat(text).replace(tzinfo=place) for text in (start, end)))
    assert note == clock_change_note(local, zone=place)
