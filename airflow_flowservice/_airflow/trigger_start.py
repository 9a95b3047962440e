"""Start of a task in the triggerer, without a worker."""

from __future__ import annotations

from typing import Any

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError


def can_start_in_triggerer(task: Any) -> bool:
    """Return whether Airflow can start this task in the triggerer. It starts no mapped task there (seen on 3.3.2)."""
    return versions.supports_start_from_trigger() and not getattr(task, "_BaseOperator__from_mapped", False)


def start_trigger_args(*, trigger: str, arguments: dict[str, Any], next_method: str, timeout: float) -> Any:
    """Return Airflow's `StartTriggerArgs`; timeout in seconds."""
    from datetime import timedelta

    from airflow.triggers.base import StartTriggerArgs

    return StartTriggerArgs(
        trigger_cls=trigger, trigger_kwargs=arguments, next_method=next_method, timeout=timedelta(seconds=timeout)
    )


def as_template(value: Any) -> str:
    """Return a task's output as a template that the triggerer can render.

    `str(create.output)` pulls without a map index, by a message that the triggerer of 3.3.2 cannot decode.
    In a mapped task group, the template reads the output of the same copy of the group.

    :raises ConfigurationError: the value is neither text nor a task's plain output.
    """
    if isinstance(value, str):
        return value
    operator, key = getattr(value, "operator", None), getattr(value, "key", None)
    if operator is None or key is None:
        raise ConfigurationError(
            f"flow_run_id is {value!r}, which cannot be rendered in the triggerer",
            remedy="set flow_run_id to the creating task's output or a template, or omit start_from_trigger",
        )
    map_index = "-1" if operator.get_closest_mapped_task_group() is None else "ti.map_index"
    return f"{{{{ ti.xcom_pull(task_ids={operator.task_id!r}, key={key!r}, map_indexes={map_index}) }}}}"
