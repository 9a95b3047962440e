# SPDX-License-Identifier: Apache-2.0
"""Split a span of time into contiguous windows of a maximum length."""

from __future__ import annotations

import re
from bisect import bisect_right
from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import WindowError
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATTERN = re.compile(r"([1-9]\d{0,3})(h|d|w|mo)", re.ASCII)
_MONTHS_OF_A_YEAR = 12


@dataclass(frozen=True, kw_only=True)
class ChunkLength:
    """Maximum length of a chunk.

    Hours have a fixed length. Days, weeks and months follow the wall clock of a time zone, so a chunk of one day can
    have 23 or 25 hours.
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> ChunkLength:
        """Parse a number and a unit: `h`, `d`, `w` or `mo`, such as `31d`.

        :raises WindowError: the text is no length.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise WindowError(
                f"{text[:40]!r} is no length of a chunk", remedy="give a number and h, d, w or mo, such as 31d or 1mo"
            )
        return cls(count=int(match[1]), unit=match[2])

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    def end(self, start: datetime, *, zone: tzinfo = timezone.utc) -> datetime:
        """Return the latest end of a chunk, in UTC.

        :param start: aware.
        :param zone: time zone of days, weeks and months.
        """
        if self.unit == "h":
            return start + timedelta(hours=self.count)
        local = start.astimezone(zone).replace(tzinfo=None)
        if self.unit == "mo":
            later = _add_months(local, self.count)
        else:
            later = local + timedelta(days=self.count * (7 if self.unit == "w" else 1))
        return later.replace(tzinfo=zone).astimezone(timezone.utc)


def _add_months(local: datetime, count: int) -> datetime:
    """Return the same day of a later month, or the last day of that month if it is shorter."""
    years, month = divmod(local.month - 1 + count, _MONTHS_OF_A_YEAR)
    year = local.year + years
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day)


def chunks_of(
    windows: Sequence[IngestionWindow], *, length: ChunkLength, zone: tzinfo = timezone.utc
) -> Iterator[IngestionWindow]:
    """Yield contiguous windows with the same total span, each at most as long as the length.

    A chunk ends at the end of a window. Only a window that is longer than the length is split.

    :param windows: contiguous, sorted.
    :param zone: as in `ChunkLength.end`.
    """
    ends = [window.end for window in windows]
    start = windows[0].start
    while start < ends[-1]:
        latest = length.end(start, zone=zone)
        count = bisect_right(ends, latest)
        end = ends[count - 1] if count and ends[count - 1] > start else latest
        yield IngestionWindow(start, end)
        start = end
