"""Create the commands that ingest missing and failed windows.

These are `airflow backfill create` and, for windows that no backfill creates exactly, `airflow dags trigger`.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import TYPE_CHECKING

from airflow_flowservice.coverage.cover import gaps
from airflow_flowservice.windows.window import iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from airflow_flowservice._airflow.database import TaskRow
    from airflow_flowservice.coverage.cover import Coverage, ExpectedWindow, Span
    from airflow_flowservice.windows.window import IngestionWindow


def fill_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """Return the `airflow backfill create` commands for exactly the missing and failed windows.

    Airflow runs one backfill of a DAG at a time. Partly ingested windows are omitted; see `trigger_commands`.
    """
    groups = ([each for _, each in _with_windows(group, dag_id=dag_id) if each] for group in _groups(coverage))
    return [_command(group, dag_id=dag_id) for group in groups if group]


def trigger_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """Return the `airflow dags trigger` commands for missing and failed windows that no backfill creates exactly."""
    commands = []
    for group in _groups(coverage):
        for backfilled, spans in groupby(_with_windows(group, dag_id=dag_id), key=lambda pair: pair[1] is not None):
            if not backfilled:
                windows = [span.window for span, _ in spans]
                conf = json.dumps({"window_start": iso(windows[0].start), "window_end": iso(windows[-1].end)})
                commands.append(f"airflow dags trigger {shlex.quote(dag_id)} --conf {shlex.quote(conf)}")
    return commands


def tasks_run_again(coverage: Coverage, rows: Iterable[TaskRow]) -> list[str]:
    """Return the succeeded tasks that a command of `fill_commands` with `--reprocess-behavior` would run again.

    Airflow runs all tasks of a DAG run again, so these tasks would ingest their windows a second time.

    :param rows: of all dataflows of the DAG's tasks.
    """
    filled = [each for group in _groups(coverage) for span in group.spans for each in span.expected if each.dag_run_id]
    runs = {(each.dag_id, each.dag_run_id) for each in filled}
    wanted = {(each.dag_id, each.dag_run_id, each.task_id, each.map_index) for each in filled}
    return sorted(
        {
            row.task_id
            for row in rows
            if row.creates and row.state == "success" and (row.dag_id, row.run_id) in runs
            if (row.dag_id, row.run_id, row.task_id, row.map_index) not in wanted
        }
    )


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Contiguous spans that are missing or failed.

    :param begins: True if the group starts with the coverage, so that its first window may start earlier.
    :param ends: True if the group ends with the coverage, so that its last window may end later.
    """

    spans: tuple[Span, ...]
    begins: bool
    ends: bool

    def contains(self, window: IngestionWindow) -> bool:
        """Return True if no part of the window, within the coverage, is ingested."""
        first, last = self.spans[0].window, self.spans[-1].window
        return (self.begins or first.start <= window.start) and (self.ends or window.end <= last.end)


def _groups(coverage: Coverage) -> Iterator[_Group]:
    for spans in gaps(coverage):
        yield _Group(spans=spans, begins=spans[0] is coverage.spans[0], ends=spans[-1] is coverage.spans[-1])


def _with_windows(group: _Group, *, dag_id: str) -> list[tuple[Span, ExpectedWindow | None]]:
    """Return each span with the window of a DAG run that a backfill can create; None if it ingests more than gaps."""
    return [(span, _backfill_window(span, dag_id, group)) for span in group.spans]


def _backfill_window(span: Span, dag_id: str, group: _Group) -> ExpectedWindow | None:
    candidates = (each for each in span.expected if each.dag_id == dag_id and each.date)
    return next((each for each in candidates if group.contains(each.window)), None)


def _command(group: Sequence[ExpectedWindow], *, dag_id: str) -> str:
    dates = [each.date for each in group if each.date]
    parts = [
        "airflow backfill create",
        f"--dag-id {shlex.quote(dag_id)}",
        f"--from-date {_date_text(min(dates))}",
        f"--to-date {_date_text(max(dates))}",
    ]
    states = {each.dag_run_state for each in group if each.dag_run_id}
    if states:
        parts.append(f"--reprocess-behavior {'completed' if states - {'failed'} else 'failed'}")
    return " ".join(parts)


def _date_text(date: datetime) -> str:
    return date.astimezone(timezone.utc).isoformat()
