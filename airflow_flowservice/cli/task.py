"""Whose windows are shown: the settings of a DAG's tasks that move its runs' windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.errors import CommandError
from airflow_flowservice.operators import OnDemandFlowRunOperator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """What a task does to the windows of its DAG's runs.

    :param offset: moves them.
    :param since_last_success: lets them reach further back.
    """

    offset: timedelta | None = None
    since_last_success: bool = False

    def __str__(self) -> str:
        return f"window_offset={self.offset}, window={'since_last_success' if self.since_last_success else 'period'}"


def settings_of(dag: Any, *, task_id: str | None = None) -> WindowSettings | None:
    """The settings of the DAG's tasks that create flow runs, if they agree; None without such tasks.

    :param task_id: only this task's.
    :raises CommandError: they differ, or there is no such task, or it sets its window itself.
    """
    tasks = {task.task_id: task for task in dag.tasks if issubclass(_class(task), OnDemandFlowRunOperator)}
    if task_id is not None:
        if task_id not in tasks:
            raise CommandError(
                f"DAG {dag.dag_id!r} has no OnDemandFlowRunOperator {task_id!r}; it has: {', '.join(tasks) or 'none'}"
            )
        tasks = {task_id: tasks[task_id]}
    found = {name: None if _sets_window(task) else _settings(task) for name, task in tasks.items()}
    if len(set(found.values())) > 1:
        listed = "".join(f"\n  {name}: {settings or 'sets its window itself'}" for name, settings in found.items())
        raise CommandError(f"the tasks of DAG {dag.dag_id!r} differ, so choose one with --task-id:{listed}")
    if None in found.values():
        raise CommandError(
            f"window_start and window_end are arguments of {' and '.join(map(repr, found))} in DAG {dag.dag_id!r}, so "
            "its runs do not tell the windows"
        )
    return next(iter(found.values()), None)


def _class(task: Any) -> type:
    return getattr(task, "operator_class", None) or type(task)


def _sets_window(task: Any) -> bool:
    names = ("window_start", "window_end")
    return any(name in _mapped(task) or _argument(task, name) is not None for name in names)


def _settings(task: Any) -> WindowSettings:
    for name in ("window_offset", "window"):
        if name in _mapped(task):
            raise CommandError(f"{task.task_id!r} maps {name}, so one DAG run has several windows")
    return WindowSettings(
        offset=_argument(task, "window_offset") or None,
        since_last_success=_argument(task, "window") == "since_last_success",
    )


def _argument(task: Any, name: str) -> Any:
    if not hasattr(task, "partial_kwargs"):
        return getattr(task, name, None)
    sources = (task.partial_kwargs, getattr(task.task_group, "default_args", None) or {}, task.dag.default_args or {})
    return next((source[name] for source in sources if name in source), None)


def _mapped(task: Any) -> set[str]:
    """The arguments that a mapped task has one value of for each of its instances."""
    values = getattr(getattr(task, "expand_input", None), "value", None) or {}
    if isinstance(values, dict):
        return set(values)
    if not isinstance(values, list | tuple):
        return set()
    dictionaries: list[Mapping[str, Any]] = [value for value in values if isinstance(value, dict)]
    return {name for dictionary in dictionaries for name in dictionary}
