"""What operators and the sensor share once a flow run exists: showing it, deferring, ending the task."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow_flowservice import _airflow
from airflow_flowservice.exceptions import ConfigurationError, from_dict
from airflow_flowservice.links import URL_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

log = logging.getLogger(__name__)


def show(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Push a run's summary, and its page for the task's button."""
    ti = context["ti"]
    ti.xcom_push(key=_airflow.FLOW_RUN_KEY, value=dict(summary))
    show_page(task, context, summary["url"])


def show_page(task: Any, context: Mapping[str, Any], url: str | None) -> None:
    """Push a run's page for the task's button, so that it is there while the task goes on."""
    if url is None:
        return
    task.flow_run_url = url
    context["ti"].xcom_push(key=URL_KEY, value=url)


def finish(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """End the task with what its run came to; the run's id.

    :raises FlowRunFailedError: the run failed.
    """
    from airflow_flowservice.ingestion.outcome import describe, require_success

    show(task, context, summary)
    require_success(summary)
    log.info(describe(summary))
    tell_outlets(task, context, summary)
    for error in summary["errors"]:
        log.warning("Flow run %s reports %s: %s", summary["id"], error["code"], error["message"])
    return str(summary["id"])


def tell_outlets(task: Any, context: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Have the events of the task's outlets carry the window, the flow run, and its counts as far as they are known.

    A DAG that is scheduled on such an asset takes its window from there.
    """
    names = ("flow_id", "status", "window_start", "window_end", "input_records", "output_records", "failed_records")
    facts = {"flow_run_id": summary["id"], **{name: summary[name] for name in names}}
    _airflow.tell_outlets(context, task, {name: value for name, value in facts.items() if value is not None})


def push_return_value(task: Any, context: Mapping[str, Any], flow_run_id: str) -> None:
    """What the task returns, pushed before it defers: the triggerer may end it."""
    if task.do_xcom_push:
        context["ti"].xcom_push(key="return_value", value=flow_run_id)


def summary_from_event(context: Mapping[str, Any], event: Any) -> dict[str, Any]:
    """The summary in a trigger's event.

    `dag.test()` hands over the bare state of a trigger that ended the task; the summary is then in the XCom.

    :raises FlowServiceError: the trigger's own error.
    """
    if not isinstance(event, dict):
        summary: dict[str, Any] = _airflow.read_xcom(context["ti"], key=_airflow.FLOW_RUN_KEY)
        return summary
    if "error" in event:
        raise from_dict(event["error"])
    return dict(event["flow_run"])


def say_that_it_goes_on(flow_run_id: str, url: str | None) -> None:
    """What the log of a killed task says."""
    log.warning(
        "Adobe cannot cancel flow run %s, so it goes on; see %s. The next attempt of this task waits for it.",
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
