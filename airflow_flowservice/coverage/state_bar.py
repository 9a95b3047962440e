# SPDX-License-Identifier: Apache-2.0
"""Draw the states of spans of time as a bar of cells. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_flowservice.coverage.cover import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_flowservice.coverage.cover import Span
    from airflow_flowservice.windows.window import IngestionWindow

URGENCY = (
    State.DUPLICATED,
    State.FAILED,
    State.MISSING,
    State.UNKNOWN,
    State.RUNNING,
    State.OUTSIDE,
    State.RESTATED,
    State.INGESTED,
)
"""All states, the most urgent first. A cell with several states shows the first of these."""


def bar_of(spans: Iterable[Span], *, within: IngestionWindow, cells: int) -> list[State | None]:
    """Return the state of each cell of the time line; None for a cell without a span."""
    bar: list[State | None] = [None] * cells
    for span in spans:
        first = int((span.window.start - within.start).total_seconds() * cells // within.seconds)
        last = int(-((within.start - span.window.end).total_seconds() * cells // within.seconds))
        for cell in range(first, max(min(last, cells), first + 1)):
            bar[cell] = _more_urgent(bar[cell], span.state)
    return bar


def _more_urgent(one: State | None, other: State) -> State:
    return other if one is None or one is other else min(one, other, key=URGENCY.index)
