# SPDX-License-Identifier: Apache-2.0
"""Start a task in the triggerer, without a worker."""

from __future__ import annotations

from typing import Any

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError

_TASK_INSTANCE_NAMES = frozenset({"ti", "task_instance"})
_TASK_INSTANCE_ATTRIBUTES = frozenset({"dag_id", "task_id", "run_id", "map_index", "try_number"})
# Names in the triggerer's context whose values need no request.
_CONTEXT_NAMES = frozenset(
    {
        "dag_run",
        "data_interval_end",
        "data_interval_start",
        "ds",
        "ds_nodash",
        "logical_date",
        "params",
        "run_id",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
    }
)


def can_start_in_triggerer(task: Any) -> bool:
    """Return whether this Airflow can start the task in the triggerer; it starts no mapped task there (3.3.2)."""
    return versions.supports_start_from_trigger() and not getattr(task, "_BaseOperator__from_mapped", False)


def can_render_in_triggerer(template: str) -> bool:
    """Return whether the triggerer can render this template.

    It has the serialized DAG, without the DAG file's macros and filters, and it cannot look up most of Airflow's data.
    A template that requires more hangs there without a log (seen on 3.3.2: `ti.xcom_pull` without `map_indexes`), so
    only templates of known names are accepted.
    """
    import jinja2
    from jinja2 import meta, nodes

    try:
        tree = jinja2.Environment(autoescape=True).parse(template)
        names = meta.find_undeclared_variables(tree)
    except jinja2.TemplateSyntaxError:  # also an unknown filter
        return False  # A worker reports the error.
    if not names <= _CONTEXT_NAMES | _TASK_INSTANCE_NAMES:
        return False
    return _count_task_instances(tree) == sum(map(_is_simple_use, tree.find_all((nodes.Getattr, nodes.Call))))


def _count_task_instances(tree: Any) -> int:
    from jinja2 import nodes

    return sum(each.name in _TASK_INSTANCE_NAMES for each in tree.find_all(nodes.Name))


def _is_simple_use(node: Any) -> bool:
    """Return whether a node of a template is a plain attribute of the task instance, or a pull with a map index."""
    from jinja2 import nodes

    if isinstance(node, nodes.Call):
        is_pull = _attribute_of_task_instance(node.node) == "xcom_pull"
        return is_pull and any(argument.key == "map_indexes" for argument in node.kwargs)
    return _attribute_of_task_instance(node) in _TASK_INSTANCE_ATTRIBUTES


def _attribute_of_task_instance(node: Any) -> str | None:
    from jinja2 import nodes

    if not isinstance(node, nodes.Getattr) or not isinstance(node.node, nodes.Name):
        return None
    return str(node.attr) if node.node.name in _TASK_INSTANCE_NAMES else None


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
