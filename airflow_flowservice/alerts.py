# SPDX-License-Identifier: Apache-2.0
"""Callbacks that put dataflow, window, flow run and its page into the messages of Airflow's notifiers.

DAG files import this module, so it imports nothing heavy.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import task_context, versions
from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError
from airflow_flowservice.plain_text import clean_text

if TYPE_CHECKING:
    from airflow_flowservice.runs.summary import FlowRunSummary

__all__ = ["FlowRunAlert", "deadline_callback", "notify_missed_deadline"]

log = logging.getLogger(__name__)

MESSAGE_KEY = "flowservice_message"
"""Key of the message in the context of the notifiers."""
FLOW_RUNS_KEY = "flowservice_flow_runs"
"""Key of the flow runs in the context of the notifiers; each as in the XCom `flow_run`."""

_NOTIFY = "airflow_flowservice.alerts.notify_missed_deadline"
# A DAG run can have thousands of mapped tasks, and each needs a message to the API server.
_MAX_READ = 50
_MAX_SHOWN = 5
_MAPPED = re.compile(r"(.+)_(\d{1,6})", re.DOTALL)


class FlowRunAlert:
    """Callback of a task that calls Airflow's notifiers with a message about its flow run.

    For `on_failure_callback`, `on_retry_callback` and the other callbacks of a task. The notifiers find the message in
    the context as `flowservice_message`, for instance in a template of their text, and the flow runs as
    `flowservice_flow_runs`. An error of one notifier is logged, and the others are called.

    :param notifiers: notifiers, or functions that take the context.
    :raises ConfigurationError: a value cannot be called.
    """

    def __init__(self, *notifiers: Callable[[Any], Any]) -> None:
        if not notifiers or not all(map(callable, notifiers)):
            raise ConfigurationError(
                "FlowRunAlert has no notifier, or a value that cannot be called",
                remedy="give notifiers, or functions that take the context",
            )
        self.notifiers = notifiers

    def __call__(self, context: Mapping[str, Any]) -> None:
        """Call the notifiers."""
        ti = context["ti"]
        summaries = _read(_summary_of, ti.dag_id, ti.run_id, [(ti.task_id, ti.map_index)])
        state = task_context.text_of(getattr(ti, "state", None) or "failed")
        subject = f"Task {ti.task_id} of DAG {ti.dag_id} ({ti.run_id}) is {state}"
        message = _message(subject, summaries, error=context.get("exception"))
        for each in self.notifiers:
            try:
                each(_context(context, message, summaries))
            except Exception as error:
                log.warning("A notifier failed: %s. The message was: %s", type(error).__name__, message)


def deadline_callback(
    notifier: type | str | None = None,
    notifier_arguments: Mapping[str, Any] | None = None,
    *,
    task_ids: Sequence[str] = (),
) -> Any:
    """Return the callback for a `DeadlineAlert` of a DAG (Airflow 3.1 and later).

    The triggerer calls it when the deadline has passed. It logs the message, and calls the notifier.

    :param notifier: class of a notifier, or its path; None only logs the message.
    :param notifier_arguments: arguments of its constructor, as JSON values. Templates can use `flowservice_message`.
    :param task_ids: tasks that have flow runs; default: all tasks of the DAG run, at most 50.
    :raises ConfigurationError: this is Airflow 3.0, or the notifier has no path.
    """
    if not versions.supports_deadlines():
        raise ConfigurationError(
            "deadline_callback needs Airflow 3.1 or later, which has deadline alerts",
            remedy="upgrade Airflow, or use FlowFreshnessSensor in a monitoring DAG",
        )
    path = notifier if isinstance(notifier, str) or notifier is None else _path_of(notifier)
    arguments: dict[str, Any] = {"notifier": path, "notifier_arguments": dict(notifier_arguments or {})}
    # The class has another home since 3.2, and this module has it in every version.
    callback_class = import_module("airflow.sdk.definitions.deadline").AsyncCallback
    return callback_class(_NOTIFY, kwargs={**arguments, "task_ids": list(task_ids)})


async def notify_missed_deadline(
    *,
    notifier: str | None = None,
    notifier_arguments: Mapping[str, Any] | None = None,
    task_ids: Sequence[str] = (),
    context: Mapping[str, Any] | None = None,
) -> str:
    """Call a notifier with a message about the flow runs of a DAG run that has passed its deadline.

    :param context: Airflow's `dag_run` and `deadline`, as JSON values.
    :return: the message.
    """
    given = dict(context or {})
    dag_run = given.get("dag_run") or {}
    dag_id, run_id = str(dag_run.get("dag_id", "unknown")), str(dag_run.get("dag_run_id", "unknown"))
    summaries = await versions.in_thread(_read, _summaries_of_run, dag_id, run_id, list(task_ids))
    deadline = (given.get("deadline") or {}).get("deadline_time", "unknown")
    message = _message(f"DAG run {run_id} of DAG {dag_id} has passed its deadline {deadline}", summaries)
    log.warning("%s", message)
    if notifier is not None:
        await _notify(notifier, notifier_arguments or {}, _context(given, message, summaries))
    return message


async def _notify(path: str, arguments: Mapping[str, Any], context: dict[str, Any]) -> None:
    """Call a notifier: in the event loop if it can, or else in a thread."""
    module, _, name = path.rpartition(".")
    notifier_class = getattr(import_module(module), name)
    notifier = notifier_class(**arguments)
    if hasattr(notifier, "__await__"):
        notifier.context = context
        try:
            await notifier
            return
        except NotImplementedError:
            # The templates of this notifier are rendered. Rendering the result again could execute text from outside.
            notifier = notifier_class(**arguments)
    await versions.in_thread(notifier, context)


def _path_of(notifier: Any) -> str:
    name = getattr(notifier, "__qualname__", "<")
    if not callable(notifier) or "<" in name:
        raise ConfigurationError(
            "the notifier of deadline_callback is no class that the triggerer can import",
            remedy="give the class of a notifier or its path, and the arguments of its constructor",
        )
    return f"{notifier.__module__}.{name}"


def _read(read: Callable[..., list[FlowRunSummary]], *arguments: Any) -> list[FlowRunSummary]:
    """Return flow runs; none if they cannot be read, because an alert without them is better than none."""
    try:
        return read(*arguments)
    except Exception as error:
        log.warning("The flow runs for the message could not be read: %s", type(error).__name__)
        return []


def _summaries_of_run(dag_id: str, run_id: str, task_ids: list[str]) -> list[FlowRunSummary]:
    """Return the flow runs of a DAG run. Blocks."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    request = GetTaskStates(dag_id=dag_id, run_ids=[run_id], task_ids=task_ids or None)
    states: Any = task_runner.SUPERVISOR_COMMS.send(request)
    names = list(getattr(states, "task_states", {}).get(run_id, {}))[:_MAX_READ]
    return _summary_of(dag_id, run_id, [instance for name in names for instance in _instances(name)])


def _instances(name: str) -> list[tuple[str, int]]:
    """Return the task instances that Airflow may mean by a name.

    Airflow names a mapped task instance by its task id and its map index, such as `ingest_3`.
    """
    mapped = _MAPPED.fullmatch(name)
    return [(name, -1), *([(mapped[1], int(mapped[2]))] if mapped else [])]


def _summary_of(dag_id: str, run_id: str, instances: Sequence[tuple[str, int | None]]) -> list[FlowRunSummary]:
    from airflow_flowservice.runs.summary import FlowRunSummary

    found: dict[str, FlowRunSummary] = {}
    for task_id, map_index in instances:
        ti = SimpleNamespace(dag_id=dag_id, run_id=run_id, task_id=task_id, map_index=map_index)
        summary = FlowRunSummary.from_json(task_context.read_xcom(ti, key=task_context.FLOW_RUN_KEY))
        if summary is not None:
            found[summary.id] = summary
    return list(found.values())


def _message(subject: str, summaries: Sequence[FlowRunSummary], *, error: Any = None) -> str:
    """Return the text of an alert, without the text of errors of other packages, which may have secrets."""
    lines = [f"{subject}."]
    if isinstance(error, FlowServiceError):
        lines.append(f"{type(error).__name__}: {error}")
    elif isinstance(error, BaseException):
        lines.append(f"The error is {type(error).__name__}; see the log of the task.")
    # An unfinished flow run is the reason for a missed deadline.
    ordered = sorted(summaries, key=lambda summary: summary.succeeded)
    lines += [
        f"Dataflow {each.flow_id or 'unknown'}, window {each.window or 'unknown'}: flow run {each.id}, "
        f"{each.status}, {each.url or 'page unknown'}"
        for each in ordered[:_MAX_SHOWN]
    ]
    if len(ordered) > _MAX_SHOWN:
        lines.append(f"There are {len(ordered) - _MAX_SHOWN} more flow runs.")
    if not ordered and error is None:
        lines.append("No flow run is known.")
    return "\n".join(clean_text(line, length=2000) for line in lines)


def _context(context: Mapping[str, Any], message: str, summaries: Sequence[FlowRunSummary]) -> dict[str, Any]:
    return {**context, MESSAGE_KEY: message, FLOW_RUNS_KEY: [each.to_json() for each in summaries]}
