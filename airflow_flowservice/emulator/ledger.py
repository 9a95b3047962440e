"""Who was ingested how often. Pure arithmetic over spans of minutes.

The made-up source has one record at each whole minute, UTC. A record is known by its minute since the epoch,
a set of neighbouring records is a half-open span of such minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MinuteSpan = tuple[int, int]


def minutes(start_s: int, end_s: int) -> MinuteSpan:
    """The span of whole minutes m with `start_s <= 60 m < end_s` (epoch seconds)."""
    first, end = -(-start_s // 60), -(-end_s // 60)
    return first, max(first, end)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Counts of records over a span.

    Attributes:
        expected: records that the source has.
        ingested: records that arrived at least once.
        duplicated: records that arrived more than once.
    """

    expected: int
    ingested: int
    duplicated: int

    @property
    def missing(self) -> int:
        return self.expected - self.ingested


def tally(spans: Iterable[MinuteSpan], *, within: MinuteSpan) -> Tally:
    """How often the records `within` a span are covered by `spans`.

    One sweep over the spans' edges, so that a year of windows costs no more than their number.
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


def hull(spans: Iterable[MinuteSpan]) -> MinuteSpan:
    """The smallest span around all of them; empty when there is none."""
    known = list(spans)
    if not known:
        return 0, 0
    return min(start for start, _ in known), max(end for _, end in known)
