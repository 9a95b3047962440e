"""What operators and the sensor share once a flow run exists: showing it, deferring, ending the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import task_context, versions
from airflow_flowservice._airflow.pages import dataflow_page
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunEmptyError,
    FlowRunError,
    FlowServiceError,
    from_dict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from airflow_flowservice.runs.summary import FlowRunSummary

log = logging.getLogger(__name__)

_ATTEMPT_KEY = "flowservice_attempt"


def show(task: Any, context: Mapping[str, Any], summary: FlowRunSummary) -> None:
    """Push a run's summary, and its page for the task's button."""
    task.flow_run_summary = summary
    context["ti"].xcom_push(key=task_context.FLOW_RUN_KEY, value=summary.to_json())
    show_page(task, context, summary.url)


def show_page(task: Any, context: Mapping[str, Any], url: str | None) -> None:
    """Push a run's page for the task's buttons, so that it is there while the task goes on."""
    if url is None:
        return
    show_dataflow(task, context, dataflow_page(url))
    task.flow_run_url = url
    context["ti"].xcom_push(key=URL_KEY, value=url)


def show_dataflow(task: Any, context: Mapping[str, Any], url: str) -> None:
    """Push a dataflow's page for the task's button."""
    if task.dataflow_url == url:
        return
    task.dataflow_url = url
    context["ti"].xcom_push(key=DATAFLOW_KEY, value=url)


def finish(task: Any, context: Mapping[str, Any], summary: FlowRunSummary) -> str:
    """End the task with what its run came to; the run's id.

    Everything is pushed before the task fails or is skipped, so that callbacks and later tasks can look.

    :raises FlowRunFailedError: the run failed.
    :raises FlowRunIncompleteError: more records failed than the task allows.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`.
    :raises AirflowSkipException: there were no records, and `on_empty` is `skip`.
    """
    show(task, context, summary)
    try:
        summary.require_success()
        task.tolerance.require(summary)
    except FlowRunError as error:
        push_return_value(task, context, summary.id)
        if isinstance(error, FlowRunEmptyError) and task.tolerance.on_empty == "skip":
            error.remedy = None
            raise versions.airflow_exception("AirflowSkipException")(str(error)) from error
        raise
    log.info(summary.describe())
    tell_outlets(task, context, summary)
    for reported in summary.errors:
        log.warning("Flow run %s reports %s: %s", summary.id, reported.code, reported.message)
    return summary.id


def tell_outlets(task: Any, context: Mapping[str, Any], summary: FlowRunSummary) -> None:
    """Have the events of the task's outlets carry the window, the flow run, and its counts as far as they are known.

    A DAG that is scheduled on such an asset takes its window from there.
    """
    names = ("flow_id", "status", "window_start", "window_end", "input_records", "output_records", "failed_records")
    values = summary.to_json()
    facts = {"flow_run_id": summary.id, **{name: values[name] for name in names}}
    task_context.tell_outlets(context, task, {name: value for name, value in facts.items() if value is not None})


def push_return_value(task: Any, context: Mapping[str, Any], flow_run_id: str) -> None:
    """What the task returns, pushed before it defers: the triggerer may end it."""
    if task.do_xcom_push:
        context["ti"].xcom_push(key="return_value", value=flow_run_id)


def note_attempt(context: Mapping[str, Any]) -> None:
    """Leave word, before a task defers, of which attempt it is: see `is_another_attempts`."""
    if versions.resumes_retries():
        context["ti"].xcom_push(key=_ATTEMPT_KEY, value=context["ti"].try_number)


def is_another_attempts(context: Mapping[str, Any], next_kwargs: Mapping[str, Any] | None) -> bool:
    """Whether Airflow resumes this attempt with how an earlier one failed; it has to begin from its beginning.

    The news of a success is this attempt's too, whatever its number: the window is in.
    """
    if not versions.resumes_retries() or _tells_a_success((next_kwargs or {}).get("event")):
        return False
    deferred = task_context.read_xcom(context["ti"], key=_ATTEMPT_KEY)
    if deferred in (None, context["ti"].try_number):
        return False
    log.warning("Airflow resumes attempt %s of this task instead of beginning a new one; beginning it", deferred)
    return True


def _tells_a_success(event: Any) -> bool:
    from airflow_flowservice.runs.summary import FlowRunSummary

    summary = FlowRunSummary.from_json(event.get("flow_run")) if isinstance(event, dict) else None
    return summary is not None and summary.succeeded


def pushed_summary(context: Mapping[str, Any]) -> FlowRunSummary | None:
    """Return the summary that the task pushed before it deferred, or None if it cannot be read."""
    from airflow_flowservice.runs.summary import FlowRunSummary

    return FlowRunSummary.from_json(task_context.read_xcom(context["ti"], key=task_context.FLOW_RUN_KEY))


def summary_from_event(context: Mapping[str, Any], event: Any) -> FlowRunSummary:
    """The summary in a trigger's event.

    `dag.test()` hands over the bare state of a trigger that ended the task; the summary is then in the XCom.

    :raises FlowServiceError: the trigger's own error, or the summary cannot be read.
    """
    from airflow_flowservice.runs.summary import FlowRunSummary

    if isinstance(event, dict) and "error" in event:
        raise from_dict(event["error"])
    summary = FlowRunSummary.from_json(event.get("flow_run")) if isinstance(event, dict) else pushed_summary(context)
    if summary is None:
        raise FlowServiceError(
            "the result of the flow run cannot be read from the trigger's event or the XCom flow_run",
            remedy="clear the task",
        )
    return summary


def say_that_it_goes_on(flow_run_id: str, url: str | None) -> None:
    """What the log of a killed task says."""
    log.warning(
        "Adobe cannot cancel flow run %s, so it continues; see %s. The next attempt of this task waits for it.",
        flow_run_id,
        url or "Experience Platform",
    )


def positive_seconds(value: float | timedelta, *, name: str) -> float:
    """A number of seconds, checked when the DAG is parsed.

    :raises ConfigurationError: it is not a positive number.
    """
    seconds = value if isinstance(value, int | float) else getattr(value, "total_seconds", lambda: None)()
    if seconds is None or isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} is {value!r}", remedy=f"set {name} to a positive number of seconds")
    return float(seconds)
