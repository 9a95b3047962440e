"""What operators and the sensor share once a flow run exists: showing it, deferring, ending the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import task_context, versions
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY
from airflow_flowservice.exceptions import ConfigurationError, FlowRunEmptyError, FlowRunError, from_dict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

log = logging.getLogger(__name__)

_ATTEMPT_KEY = "flowservice_attempt"
_ON_EMPTY = ("succeed", "skip", "fail")
_TOLERANCE: dict[str, Any] = {"max_failed_records": None, "max_failed_ratio": None, "on_empty": "succeed"}


def show(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Push a run's summary, and its page for the task's button."""
    ti = context["ti"]
    task.flow_run_summary = dict(summary)
    ti.xcom_push(key=task_context.FLOW_RUN_KEY, value=dict(summary))
    show_page(task, context, summary["url"])


def show_page(task: Any, context: Mapping[str, Any], url: str | None) -> None:
    """Push a run's page for the task's buttons, so that it is there while the task goes on."""
    if url is None:
        return
    show_dataflow(task, context, dataflow_page(url))
    task.flow_run_url = url
    context["ti"].xcom_push(key=URL_KEY, value=url)


def dataflow_page(url: str) -> str:
    """Return the page of the dataflow, from that of one of its runs (see `FlowServiceHook.run_url`)."""
    return url.partition("/activity/")[0]


def show_dataflow(task: Any, context: Mapping[str, Any], url: str) -> None:
    """Push a dataflow's page for the task's button."""
    if task.dataflow_url == url:
        return
    task.dataflow_url = url
    context["ti"].xcom_push(key=DATAFLOW_KEY, value=url)


def finish(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """End the task with what its run came to; the run's id.

    Everything is pushed before the task fails or is skipped, so that callbacks and later tasks can look.

    :raises FlowRunFailedError: the run failed.
    :raises FlowRunIncompleteError: more records failed than the task allows.
    :raises FlowRunEmptyError: there were no records, and `on_empty` is `fail`.
    :raises AirflowSkipException: there were no records, and `on_empty` is `skip`.
    """
    from airflow_flowservice.runs.summary import describe, require_success
    from airflow_flowservice.runs.tolerance import Tolerance

    show(task, context, summary)
    try:
        require_success(summary)
        Tolerance(**{name: getattr(task, name) for name in _TOLERANCE}).judge(summary)
    except FlowRunError as error:
        push_return_value(task, context, summary["id"])
        if isinstance(error, FlowRunEmptyError) and task.on_empty == "skip":
            error.remedy = None
            raise versions.airflow_exception("AirflowSkipException")(str(error)) from error
        raise
    log.info(describe(summary))
    tell_outlets(task, context, summary)
    for reported in summary["errors"]:
        log.warning("Flow run %s reports %s: %s", summary["id"], reported["code"], reported["message"])
    return str(summary["id"])


def tell_outlets(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Have the events of the task's outlets carry the window, the flow run, and its counts as far as they are known.

    A DAG that is scheduled on such an asset takes its window from there.
    """
    names = ("flow_id", "status", "window_start", "window_end", "input_records", "output_records", "failed_records")
    facts = {"flow_run_id": summary["id"], **{name: summary[name] for name in names}}
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
    from airflow_flowservice.runs.summary import SUCCEEDED

    return isinstance(event, dict) and "flow_run" in event and event["flow_run"]["status"] in SUCCEEDED


def summary_from_event(context: Mapping[str, Any], event: Any) -> dict[str, Any]:
    """The summary in a trigger's event.

    `dag.test()` hands over the bare state of a trigger that ended the task; the summary is then in the XCom.

    :raises FlowServiceError: the trigger's own error.
    """
    if not isinstance(event, dict):
        summary: dict[str, Any] = task_context.read_xcom(context["ti"], key=task_context.FLOW_RUN_KEY)
        return summary
    if "error" in event:
        raise from_dict(event["error"])
    return dict(event["flow_run"])


def say_that_it_goes_on(flow_run_id: str, url: str | None) -> None:
    """What the log of a killed task says."""
    log.warning(
        "Adobe cannot cancel flow run %s, so it continues; see %s. The next attempt of this task waits for it.",
        flow_run_id,
        url or "Experience Platform",
    )


def tolerate(task: Any, *, max_failed_records: int | None, max_failed_ratio: float | None, on_empty: str) -> None:
    """Give a task what `runs.tolerance.Tolerance` has, checked when the DAG is parsed.

    :raises ConfigurationError: a limit is no number or out of its range, or `on_empty` is an unknown word.
    """
    limits = {"max_failed_records": (max_failed_records, int), "max_failed_ratio": (max_failed_ratio, int | float)}
    for name, (value, kind) in limits.items():
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or not value >= 0):
            raise ConfigurationError(f"{name} is {value!r}", remedy=f"set {name} to a number of at least 0, or to None")
    if max_failed_ratio is not None and max_failed_ratio > 1:
        raise ConfigurationError(
            f"max_failed_ratio is {max_failed_ratio!r}", remedy="set max_failed_ratio to a share from 0 to 1"
        )
    if on_empty not in _ON_EMPTY:
        raise ConfigurationError(f"on_empty is {on_empty!r}", remedy=f"use one of {_ON_EMPTY}")
    task.max_failed_records, task.max_failed_ratio, task.on_empty = max_failed_records, max_failed_ratio, on_empty


def tolerance_of(task: Any) -> dict[str, Any]:
    """What a task tolerates, for its trigger; what has its default is left out, as earlier triggers do not know it."""
    given = {name: getattr(task, name) for name in _TOLERANCE}
    return {name: value for name, value in given.items() if value != _TOLERANCE[name]}


def positive_seconds(value: float | timedelta, *, name: str) -> float:
    """A number of seconds, checked when the DAG is parsed.

    :raises ConfigurationError: it is not a positive number.
    """
    seconds = value if isinstance(value, int | float) else getattr(value, "total_seconds", lambda: None)()
    if seconds is None or isinstance(value, bool) or not 0 < seconds < float("inf"):
        raise ConfigurationError(f"{name} is {value!r}", remedy=f"set {name} to a positive number of seconds")
    return float(seconds)
