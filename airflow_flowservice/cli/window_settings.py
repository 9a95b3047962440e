# SPDX-License-Identifier: Apache-2.0
"""Read the arguments of a DAG's tasks that change the windows of its DAG runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_flowservice.cli.output import CommandError
from airflow_flowservice.operators import OnDemandFlowRunOperator

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """Arguments of a task that change its windows.

    :param offset: the task's `window_offset`.
    :param since_last_success: True if a window starts at the end of the last successful window.
    """

    offset: timedelta | None = None
    since_last_success: bool = False

    def __str__(self) -> str:
        return f"window_offset={self.offset}, window={'since_last_success' if self.since_last_success else 'period'}"


def window_settings_of(dag: Any, *, task_id: str | None = None) -> WindowSettings | None:
    """Return the common settings of the DAG's tasks that create flow runs; None if there are no such tasks.

    :param task_id: return the settings of this task.
    :raises CommandError: the tasks differ, there is no such task, or a task sets its window explicitly.
    """
    tasks = {task.task_id: task for task in dag.tasks if issubclass(_class(task), OnDemandFlowRunOperator)}
    if task_id is not None:
        if task_id not in tasks:
            raise CommandError(
                f"DAG {dag.dag_id!r} has no OnDemandFlowRunOperator {task_id!r}; it has: {', '.join(tasks) or 'none'}"
            )
        tasks = {task_id: tasks[task_id]}
    settings = {name: None if _sets_window(task) else _settings(task) for name, task in tasks.items()}
    if len(set(settings.values())) > 1:
        listed = "".join(f"\n  {name}: {each or 'has window_start and window_end'}" for name, each in settings.items())
        raise CommandError(
            f"the tasks of DAG {dag.dag_id!r} have different windows. Choose one with --task-id:{listed}"
        )
    if None in settings.values():
        raise CommandError(
            f"window_start and window_end are arguments of {' and '.join(map(repr, settings))} in DAG {dag.dag_id!r}, "
            "so its windows do not depend on its DAG runs"
        )
    return next(iter(settings.values()), None)


def _class(task: Any) -> type:
    return getattr(task, "operator_class", None) or type(task)


def _sets_window(task: Any) -> bool:
    names = ("window_start", "window_end")
    return any(name in _mapped(task) or _argument(task, name) is not None for name in names)


def _settings(task: Any) -> WindowSettings:
    for name in ("window_offset", "window"):
        if name in _mapped(task):
            raise CommandError(f"{task.task_id!r} maps {name}, so a DAG run has several windows")
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
    """Return the names of the arguments that have a different value for each map index."""
    values = getattr(getattr(task, "expand_input", None), "value", None) or {}
    if isinstance(values, dict):
        return set(values)
    if not isinstance(values, list | tuple):
        return set()
    dictionaries: list[Mapping[str, Any]] = [value for value in values if isinstance(value, dict)]
    return {name for dictionary in dictionaries for name in dictionary}
