# SPDX-License-Identifier: Apache-2.0
"""Chunks of a span of time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.chunks import ChunkLength, chunks_of
from airflow_flowservice.windows.window import IngestionWindow

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
BEGIN = datetime(2025, 1, 1, tzinfo=timezone.utc)
ZURICH = ZoneInfo("Europe/Zurich")


def days(count: int, *, begin: datetime = BEGIN, length: timedelta = DAY) -> list[IngestionWindow]:
    """Return contiguous windows."""
    return [IngestionWindow(begin + number * length, begin + (number + 1) * length) for number in range(count)]


def chunk_lengths(text: str, windows: list[IngestionWindow], **options: ZoneInfo) -> list[timedelta]:
    return [each.end - each.start for each in chunks_of(windows, length=ChunkLength.parse(text), **options)]


def test_a_year_is_twelve_months() -> None:
    lengths = chunk_lengths("1mo", days(365))
    assert [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] == [length.days for length in lengths]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("31d", [31] * 11 + [24]), ("1w", [7] * 52 + [1]), ("48h", [2] * 182 + [1]), ("400d", [365])],
    ids=["days", "weeks", "hours", "longer than the span"],
)
def test_lengths(text: str, expected: list[int]) -> None:
    assert expected == [length.days for length in chunk_lengths(text, days(365))]


def test_months_follow_the_wall_clock() -> None:
    """Daily windows of Zurich start at midnight there; a month over a change of the clock is an hour shorter."""
    begin = datetime(2026, 3, 1, tzinfo=ZURICH)
    midnights = [datetime(2026, 3, 1 + number, tzinfo=ZURICH) for number in range(31)]
    midnights.append(datetime(2026, 4, 1, tzinfo=ZURICH))
    windows = [IngestionWindow(start, end) for start, end in pairwise(midnights)]
    assert [31 * DAY - HOUR] == chunk_lengths("1mo", windows, zone=ZURICH)
    assert begin.astimezone(timezone.utc) == windows[0].start


def test_a_short_month_limits_the_day() -> None:
    """A month after the 31st of January is the last day of February."""
    end = ChunkLength.parse("1mo").end(datetime(2026, 1, 31, tzinfo=timezone.utc))
    assert datetime(2026, 2, 28, tzinfo=timezone.utc) == end
    assert datetime(2027, 1, 31, tzinfo=timezone.utc) == ChunkLength.parse("12mo").end(end + 3 * DAY - 31 * DAY)


def test_a_window_is_split_only_if_it_is_longer_than_the_chunk() -> None:
    weekly = days(2, length=7 * DAY)
    assert [7 * DAY, 7 * DAY] == chunk_lengths("10d", weekly)
    assert [3 * DAY, 3 * DAY, DAY, 3 * DAY, 3 * DAY, DAY] == chunk_lengths("3d", weekly)


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=40),
    st.sampled_from(["1h", "36h", "1d", "3d", "1w", "1mo"]),
)
def test_chunks_are_contiguous_and_at_most_as_long(hours: list[int], text: str) -> None:
    """They have the same total span as the windows."""
    ends = [BEGIN + sum(hours[:number]) * HOUR for number in range(len(hours) + 1)]
    windows = [IngestionWindow(start, end) for start, end in pairwise(ends)]
    length = ChunkLength.parse(text)
    chunks = list(chunks_of(windows, length=length))
    assert (windows[0].start, windows[-1].end) == (chunks[0].start, chunks[-1].end)
    assert all(one.meets(other) for one, other in pairwise(chunks))
    assert all(each.end <= length.end(each.start) for each in chunks)


@pytest.mark.parametrize("text", ["", "0d", "31", "1y", "-1d", "1.5d", "d", "12345d", "1 mo"])
def test_invalid_length(text: str) -> None:
    with pytest.raises(WindowError, match="give a number and h, d, w or mo"):
        ChunkLength.parse(text)
