# SPDX-License-Identifier: Apache-2.0
"""Counting of ingested records, as arithmetic over spans of minutes.

The fictitious source has one record at each whole minute, in UTC. Minutes since the epoch identify a record.
A span of consecutive records is a half-open interval of such minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MinuteSpan = tuple[int, int]


def minutes(start_s: int, end_s: int) -> MinuteSpan:
    """Return the span of whole minutes m with `start_s <= 60 m < end_s` (epoch seconds)."""
    first, end = -(-start_s // 60), -(-end_s // 60)
    return first, max(first, end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Counts of records in a span.

    Attributes:
        expected: records of the source.
        ingested: records that were ingested at least once.
        duplicated: records that were ingested more than once.
    """

    expected: int
    ingested: int
    duplicated: int

    @property
    def missing(self) -> int:
        """Return the number of records that were not ingested."""
        return self.expected - self.ingested


def tally(spans: Iterable[MinuteSpan], *, within: MinuteSpan) -> Tally:
    """Count the records `within` a span that are covered by `spans`.

    The cost depends on the number of spans (n log n), not on their length.
    """
    low, high = within
    edges: list[tuple[int, int]] = []
    for start, end in spans:
        start, end = max(start, low), min(end, high)
        if start < end:
            edges += [(start, 1), (end, -1)]
    once, more = _sweep(sorted(edges))
    return Tally(expected=max(0, high - low), ingested=once + more, duplicated=more)


def _sweep(edges: list[tuple[int, int]]) -> tuple[int, int]:
    once = more = depth = last = 0
    for position, step in edges:
        if depth == 1:
            once += position - last
        elif depth > 1:
            more += position - last
        depth += step
        last = position
    return once, more


def enclosing_span(spans: Iterable[MinuteSpan]) -> MinuteSpan:
    """Return the smallest span that contains all spans; (0, 0) if there are none."""
    all_spans = list(spans)
    if not all_spans:
        return 0, 0
    return min(start for start, _ in all_spans), max(end for _, end in all_spans)
