"""The commands that fill the gaps of a coverage: `airflow backfill create`, and `airflow dags trigger` for the rest."""

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
    from airflow_flowservice.coverage.cover import Asked, Coverage, Span
    from airflow_flowservice.windows.window import IngestionWindow


def fill_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """The `airflow backfill create` commands that make DAG runs for exactly what is missing or has failed.

    Airflow runs one backfill of a DAG at a time. A window that is in by a part is left to `trigger_commands`.
    """
    groups = ([each for _, each in _fills(group, dag_id=dag_id) if each] for group in _groups(coverage))
    return [_command(group, dag_id=dag_id) for group in groups if group]


def trigger_commands(coverage: Coverage, *, dag_id: str) -> list[str]:
    """The `airflow dags trigger` commands for what is missing or has failed and no backfill makes exactly."""
    commands = []
    for group in _groups(coverage):
        for filled, spans in groupby(_fills(group, dag_id=dag_id), key=lambda pair: pair[1] is not None):
            if not filled:
                windows = [span.window for span, _ in spans]
                conf = json.dumps({"window_start": iso(windows[0].start), "window_end": iso(windows[-1].end)})
                commands.append(f"airflow dags trigger {shlex.quote(dag_id)} --conf {shlex.quote(conf)}")
    return commands


def tasks_run_again(coverage: Coverage, rows: Iterable[TaskRow]) -> list[str]:
    """The tasks that a `fill_commands` with `--reprocess-behavior` runs again although they have succeeded.

    Airflow runs all tasks of a DAG run again, so these would ingest their windows a second time.

    :param rows: of all dataflows that the DAG's tasks feed.
    """
    filled = [each for group in _groups(coverage) for span in group.spans for each in span.asked if each.dag_run_id]
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
    """Spans that follow each other and are not in.

    :param begins: they begin where the coverage does, so that a window may stick out there.
    """

    spans: tuple[Span, ...]
    begins: bool
    ends: bool

    def holds(self, window: IngestionWindow) -> bool:
        """Whether no part of a window is in, as far as one looked."""
        first, last = self.spans[0].window, self.spans[-1].window
        return (self.begins or first.start <= window.start) and (self.ends or window.end <= last.end)


def _groups(coverage: Coverage) -> Iterator[_Group]:
    for spans in gaps(coverage):
        yield _Group(spans=spans, begins=spans[0] is coverage.spans[0], ends=spans[-1] is coverage.spans[-1])


def _fills(group: _Group, *, dag_id: str) -> list[tuple[Span, Asked | None]]:
    """For each span the DAG run that a backfill makes, if that ingests nothing else."""
    return [(span, _of_dag(span, dag_id, group)) for span in group.spans]


def _of_dag(span: Span, dag_id: str, group: _Group) -> Asked | None:
    asked = (each for each in span.asked if each.dag_id == dag_id and each.date)
    return next((each for each in asked if group.holds(each.window)), None)


def _command(group: Sequence[Asked], *, dag_id: str) -> str:
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
