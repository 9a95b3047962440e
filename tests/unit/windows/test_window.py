# SPDX-License-Identifier: Apache-2.0
"""Tests of windows and of parsing instants."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.plain_text import remedy_for_list
from airflow_flowservice.windows.window import CLOCK_SKEW, IngestionWindow, iso, parse_instant

UTC = timezone.utc
MIDNIGHT = datetime(2026, 1, 31, tzinfo=UTC)
DAY = timedelta(days=1)
AWARE = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, ZoneInfo("Europe/Zurich"), ZoneInfo("Asia/Kathmandu"), ZoneInfo("Pacific/Apia")]),
)


def day(number: int) -> datetime:
    return MIDNIGHT + number * DAY


def refusal(value: Any) -> WindowError:
    with pytest.raises(WindowError) as caught:
        parse_instant(value, name="window_end")
    return caught.value


EMPTY_REMEDY = (
    "check the template of window_end; this DAG run may not have the value that the template uses; to use conf or "
    "params only if they have window_start and window_end, omit both arguments: the task reads conf and params "
    "without templates"
)


class TestWindow:
    def test_edges_are_in_utc(self) -> None:
        """The window converts its edges from any time zone to UTC."""
        window = IngestionWindow(datetime(2026, 1, 31, 1, tzinfo=ZoneInfo("Europe/Zurich")), day(1))
        assert (window.start, window.start.tzinfo) == (MIDNIGHT, UTC)

    def test_edges_are_plain_datetimes(self) -> None:
        """A pendulum edge becomes a plain datetime, which pickles and renders the same everywhere."""
        window = IngestionWindow(pendulum.datetime(2026, 1, 31), pendulum.datetime(2026, 2, 1))
        assert (type(window.start), type(window.end)) == (datetime, datetime)

    def test_fractions_are_truncated(self) -> None:
        """A fraction of a second is never rounded up."""
        window = IngestionWindow(MIDNIGHT + timedelta(microseconds=999_999), day(1))
        assert window.start == MIDNIGHT

    @given(edges=st.lists(AWARE, min_size=3, max_size=3))
    def test_truncation_keeps_contiguity(self, edges: list[datetime]) -> None:
        """Windows that share an edge also share it after truncation, and do not overlap."""
        first, second, third = sorted(edge.astimezone(UTC) for edge in edges)
        if first + timedelta(seconds=1) > second or second + timedelta(seconds=1) > third:
            return
        before, after = IngestionWindow(first, second), IngestionWindow(second, third)
        assert (before.meets(after), before.overlaps(after)) == (True, False)

    def test_empty_window_is_refused(self) -> None:
        """An empty window contains no data."""
        with pytest.raises(WindowError) as caught:
            IngestionWindow(MIDNIGHT, MIDNIGHT)
        assert caught.value.message == "the window is empty: it starts and ends at 2026-01-31T00:00:00Z"

    def test_window_within_one_second_is_refused_as_empty(self) -> None:
        """Flow Service takes whole seconds, so a shorter window is empty."""
        with pytest.raises(WindowError, match="the window is empty"):
            IngestionWindow(MIDNIGHT, MIDNIGHT + timedelta(milliseconds=999))

    def test_reversed_window_is_refused(self) -> None:
        """The error states both edges, and that they must be swapped."""
        with pytest.raises(WindowError) as caught:
            IngestionWindow(day(1), MIDNIGHT)
        assert caught.value.message == (
            "the window is reversed: it starts at 2026-02-01T00:00:00Z and ends at 2026-01-31T00:00:00Z"
        )
        assert caught.value.remedy == "swap window_start and window_end"

    def test_window_before_1970_is_refused(self) -> None:
        """Flow Service counts seconds since 1970."""
        with pytest.raises(WindowError) as caught:
            IngestionWindow(datetime(1969, 12, 31, tzinfo=UTC), MIDNIGHT)
        assert caught.value.message == "window_start is 1969-12-31T00:00:00+00:00, which is before 1970"

    def test_first_instant_of_1970_is_accepted(self) -> None:
        """Zero epoch seconds are valid."""
        assert IngestionWindow(datetime(1970, 1, 1, tzinfo=UTC), MIDNIGHT).start.timestamp() == 0

    def test_naive_edge_is_refused(self) -> None:
        """No zone is assumed, and the error names the edge."""
        with pytest.raises(WindowError) as caught:
            IngestionWindow(MIDNIGHT, datetime(2026, 2, 1))  # noqa: DTZ001
        assert caught.value.message == "window_end is 2026-02-01T00:00:00, which has no time zone"

    def test_text_is_an_iso_interval(self) -> None:
        """The text of a window is the ISO 8601 interval that errors and logs show."""
        assert str(IngestionWindow(MIDNIGHT, day(1))) == "2026-01-31T00:00:00Z/2026-02-01T00:00:00Z"

    @given(start=AWARE, seconds=st.integers(1, 10**6))
    def test_text_round_trip(self, start: datetime, seconds: int) -> None:
        """`parse` restores a window from its `str`."""
        start = min(start.astimezone(UTC), datetime(9999, 1, 1, tzinfo=UTC))
        window = IngestionWindow(start, start + timedelta(seconds=seconds))
        assert IngestionWindow.parse(str(window)) == window

    @pytest.mark.parametrize("text", ["", "/", "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z/", "a/b"])
    def test_parsing_other_text_is_refused(self, text: str) -> None:
        """Text that `str` cannot return raises a WindowError."""
        with pytest.raises(WindowError):
            IngestionWindow.parse(text)

    def test_pickle_round_trip(self) -> None:
        """A window survives pickling."""
        window = IngestionWindow(MIDNIGHT, day(1))
        assert pickle.loads(pickle.dumps(window)) == window

    def test_seconds(self) -> None:
        """The length is in whole seconds."""
        assert IngestionWindow(MIDNIGHT, day(1)).seconds == 86_400

    def test_windows_sort_by_start(self) -> None:
        """Windows are ordered by time."""
        later, earlier = IngestionWindow(day(1), day(2)), IngestionWindow(day(0), day(1))
        assert sorted([later, earlier]) == [earlier, later]


class TestNeighbours:
    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [(1, 2, True), (0, 1, False), (2, 3, False), (-1, 0, False)],
        ids=["next", "same", "after a gap", "before"],
    )
    def test_meets(self, start: int, end: int, expected: bool) -> None:
        """A window meets only a window that begins where it ends."""
        assert IngestionWindow(day(0), day(1)).meets(IngestionWindow(day(start), day(end))) is expected

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [(0, 2, True), (1, 3, True), (-1, 5, True), (2, 3, False), (-1, 0, False)],
        ids=["same", "part", "around", "next", "before"],
    )
    def test_overlaps(self, start: int, end: int, expected: bool) -> None:
        """Windows overlap if both contain an instant; a shared edge is in only one of them."""
        one, other = IngestionWindow(day(0), day(2)), IngestionWindow(day(start), day(end))
        assert (one.overlaps(other), other.overlaps(one)) == (expected, expected)


class TestRequirePast:
    WINDOW = IngestionWindow(MIDNIGHT - DAY, MIDNIGHT)

    def test_window_that_has_ended_is_accepted(self) -> None:
        """A window that ends now has ended."""
        assert self.WINDOW.require_past(now=MIDNIGHT) is None

    def test_one_minute_of_clock_skew_is_accepted(self) -> None:
        """A worker's clock may be 60 seconds behind."""
        assert timedelta(seconds=60) == CLOCK_SKEW
        assert self.WINDOW.require_past(now=MIDNIGHT - timedelta(seconds=60)) is None

    def test_window_that_ends_later_is_refused(self) -> None:
        """The error shows the window, the current time, and the remedy."""
        with pytest.raises(WindowError) as caught:
            self.WINDOW.require_past(now=MIDNIGHT - timedelta(seconds=61))
        assert caught.value.window == str(self.WINDOW)
        assert caught.value.message == "the window ends in the future: it is now 2026-01-30T23:58:59Z"
        assert caught.value.remedy is not None
        assert caught.value.remedy.startswith("wait until the window has ended")


class TestParseInstant:
    @pytest.mark.parametrize(
        "value",
        [
            datetime(2026, 1, 31, tzinfo=UTC),
            datetime(2026, 1, 31, 1, tzinfo=ZoneInfo("Europe/Zurich")),
            datetime(2026, 1, 31, 0, 0, 0, 999_999, tzinfo=UTC),
            pendulum.datetime(2026, 1, 31, 1, tz="Europe/Zurich"),
            "2026-01-31T00:00:00+00:00",
            "2026-01-31T01:00:00+01:00",
            "2026-01-30T18:30:00-05:30",
            "2026-01-31T00:00:00Z",
            "2026-01-31 00:00:00+00:00",
            "2026-01-31T00:00:00.999999Z",
            "20260131T000000Z",
            "  2026-01-31T00:00:00Z\n",
            1769817600,
            1769817600.9,
            "1769817600",
            "1769817600.9",
        ],
        ids=repr,
    )
    def test_all_forms_give_the_same_instant(self, value: Any) -> None:
        """All accepted forms of an instant give the same aware UTC datetime."""
        assert parse_instant(value, name="window_end") == MIDNIGHT

    def test_result_is_a_plain_utc_datetime(self) -> None:
        """A pendulum datetime in another zone is converted."""
        instant = parse_instant(pendulum.datetime(2026, 1, 31, tz="Asia/Kathmandu"), name="window_end")
        assert (type(instant), instant.tzinfo) == (datetime, UTC)

    @pytest.mark.parametrize("value", [16515859567, "16515859567", 16515859567.0], ids=repr)
    def test_number_in_adobes_sample_is_refused(self, value: Any) -> None:
        """Adobe's documentation shows 16515859567, a misprint. As seconds, it is in the year 2493."""
        error = refusal(value)
        assert f"window_end is {value}, which is 2493-05-13T18:46:07Z in epoch seconds" in error.message
        assert error.message.endswith("more than a year ahead")
        assert "2493-05-13T18:46:07Z" in str(error.remedy)

    @pytest.mark.parametrize("form", [int, float, str, lambda digits: f" {digits} ", lambda digits: f"{digits}.0"])
    @pytest.mark.parametrize(
        ("digits", "date"),
        [
            ("20260109", "2026-01-09T00:00:00"),
            ("19991231", "1999-12-31T00:00:00"),
            ("2026010912", "2026-01-09T12:00:00"),
            ("202601091230", "2026-01-09T12:30:00"),
            ("20260109123045", "2026-01-09T12:30:45"),
        ],
    )
    def test_date_in_digits_is_refused(self, digits: str, date: str, form: Any) -> None:
        """Digits that read as a date are not epoch seconds, as text or as a number."""
        error = refusal(form(digits))
        assert error.message == (
            f"window_end is {digits}, which reads as the date {date} in digits, which has no time zone"
        )
        assert error.remedy == (
            f"give window_end as ISO 8601 with an offset, for instance {date}+00:00; no zone is assumed"
        )

    @pytest.mark.parametrize("value", ["20260109123045123", 20260109123045123, "20260109123045123456"], ids=repr)
    def test_date_in_digits_with_fractions_is_refused(self, value: Any) -> None:
        """Digits with milliseconds or microseconds are a date, not epoch microseconds."""
        assert "which reads as the date 2026-01-09T12:30:45 in digits" in refusal(value).message

    @pytest.mark.parametrize("value", [0, 2026, "202601", 2026009, 86400.5, 946684799], ids=repr)
    def test_number_before_2000_is_refused(self, value: Any) -> None:
        """A year, a month or a day of the year in digits would be a second of 1970."""
        error = refusal(value)
        assert error.message.endswith("in epoch seconds, before the year 2000")
        assert "if this time is intended, give it as ISO 8601: 19" in str(error.remedy)

    def test_number_more_than_a_year_ahead_is_refused(self) -> None:
        """One year ahead is accepted, for `start_time`; later is not."""
        now = datetime.now(UTC)
        assert parse_instant((now + 365 * DAY).timestamp(), name="start_time") > now
        assert refusal((now + 367 * DAY).timestamp()).message.endswith("more than a year ahead")

    @pytest.mark.parametrize("text", ["1999-12-31T00:00:00Z", "1970-01-01T00:00:00Z", "2493-05-13T18:46:07Z"])
    def test_iso_8601_is_accepted_in_any_year(self, text: str) -> None:
        """A time that is written out cannot be a misread number."""
        assert iso(parse_instant(text, name="window_end")) == text

    @pytest.mark.parametrize(
        ("value", "unit", "divisor"),
        [(1769817600000, "milli", 1000), (1769817600000000, "micro", 10**6), (1769817600000000000, "nano", 10**9)],
    )
    def test_finer_units_are_refused_by_name(self, value: int, unit: str, divisor: int) -> None:
        """The remedy states the divisor of the unit."""
        error = refusal(value)
        assert error.message.endswith(f"which looks like {unit}seconds")
        assert error.remedy == f"give window_end in epoch seconds (divide by {divisor})"

    def test_naive_instant_is_refused_with_a_suggestion(self) -> None:
        """The remedy shows the same time with an offset."""
        error = refusal("2026-01-31T00:00:00")
        assert error.message == "window_end is 2026-01-31T00:00:00, which has no time zone"
        assert error.remedy == ("give window_end an offset, for instance 2026-01-31T00:00:00+00:00; no zone is assumed")

    @pytest.mark.parametrize(
        "value",
        [datetime(2026, 1, 31), "2026-01-31", "2026-01-31 00:00", "2026-W05", "20260131"],  # noqa: DTZ001
        ids=repr,
    )
    def test_instant_without_zone_is_refused(self, value: Any) -> None:
        """Naive datetimes and dates without time have no zone, and no zone is assumed."""
        assert "which has no time zone" in refusal(value).message

    @pytest.mark.parametrize("value", ["", "   ", "None"], ids=repr)
    def test_empty_template_is_refused(self, value: str) -> None:
        """The error names the template as the cause."""
        error = refusal(value)
        assert error.message == f"window_end is empty: its template rendered to {value.strip()!r}"
        assert error.remedy == EMPTY_REMEDY

    @pytest.mark.parametrize("value", [1769817600000, 1769817600000.0, "1769817600000"], ids=repr)
    def test_milliseconds_are_refused(self, value: Any) -> None:
        """As seconds, the number would be an implausible year."""
        error = refusal(value)
        assert error.message == "window_end is 1769817600000, which looks like milliseconds"
        assert error.remedy == "give window_end in epoch seconds (divide by 1000)"

    @pytest.mark.parametrize(
        "value",
        [float("nan"), float("inf"), float("-inf"), "nan", "inf", 10**400, -(10**5000), "9" * 400],
        ids=lambda value: str(value)[:8] if isinstance(value, str | float) else "huge",
    )
    def test_numbers_out_of_range_are_refused(self, value: Any) -> None:
        """NaN, infinity and numbers beyond any float raise a WindowError with a remedy."""
        assert refusal(value).remedy

    @pytest.mark.parametrize("value", [True, False, [], [1769817600], {}, None, b"1769817600", object], ids=repr)
    def test_other_types_are_refused(self, value: Any) -> None:
        """The error shows the value, and the accepted forms."""
        error = refusal(value)
        assert error.message == f"window_end is {value!r}, which is not a valid time"
        expected = "give window_end as aware datetime, ISO 8601 with an offset, or epoch seconds"
        expected += remedy_for_list(value)
        assert error.remedy == (expected if value is not None else f"{EMPTY_REMEDY}; otherwise {expected}")
        assert ("map_indexes" in error.remedy) is isinstance(value, list)

    @pytest.mark.parametrize(
        "value", ["yesterday", "2026-13-01T00:00:00Z", "31.01.2026", "{{ ds }}", "--1769817600", "²²²²²"], ids=repr
    )
    def test_unreadable_text_is_refused(self, value: str) -> None:
        """The error shows the text, and a valid example."""
        error = refusal(value)
        assert error.message == f"window_end is {value!r}, which is not a valid time"
        assert "2026-01-31T00:00:00+00:00" in str(error.remedy)

    def test_long_text_is_truncated_in_errors(self) -> None:
        """An error repeats at most 80 characters of the value."""
        assert "x" * 81 not in refusal("x" * 500).message

    @pytest.mark.parametrize("value", [-1, -1.5, "-1", "1969-12-31T23:59:59Z"], ids=repr)
    def test_before_1970_is_refused(self, value: Any) -> None:
        """Instants before 1970 have no epoch seconds that Flow Service accepts."""
        assert refusal(value).message.endswith("which is before 1970")

    def test_last_second_of_9999_is_accepted(self) -> None:
        """The last second that a datetime can represent is in range."""
        instant = parse_instant("9999-12-31T23:59:59Z", name="window_end")
        assert instant == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

    def test_beyond_9999_in_utc_is_refused(self) -> None:
        """An instant that is in 9999 only in its local zone is out of range."""
        assert refusal("9999-12-31T23:59:59-01:00").message.endswith("which is out of range in UTC")

    def test_before_year_1_in_utc_is_refused(self) -> None:
        """An instant that is in year 1 only in its local zone is out of range."""
        assert refusal("0001-01-01T00:00:00+01:00").message.endswith("which is out of range in UTC")

    @given(
        value=st.one_of(
            st.text(),
            st.text(alphabet="0123456789-+:.TZ eW²"),
            st.from_regex(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|[+-]\d\d:?\d\d)?", fullmatch=True),
            st.integers(),
            st.integers(-(10**12), 10**12),
            st.floats(),
            st.decimals().map(str),
            st.datetimes(timezones=st.none() | st.timezones()),
        )
    )
    @example(value="--1769817600")
    @example(value=10**400)
    @example(value="²²")
    def test_any_value_gives_an_instant_or_a_window_error(self, value: Any) -> None:
        """Any text, number or datetime gives a UTC datetime in whole seconds or raises a WindowError."""
        try:
            instant = parse_instant(value, name="window_end")
        except WindowError:
            return
        assert (type(instant), instant.tzinfo, instant.microsecond) == (datetime, UTC, 0)
