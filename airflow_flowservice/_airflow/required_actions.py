# SPDX-License-Identifier: Apache-2.0
"""Airflow's page Required Actions (human in the loop): show a question, and wait for the answer without a worker.

From Airflow 3.3 on, a task waits in the state `awaiting_input`; before, in the triggerer. `HITLOperator` of Airflow's
standard provider does the same.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_flowservice.runs.intent import Order
    from airflow_flowservice.runs.question import Question

log = logging.getLogger(__name__)

URL_KEY = "required_actions_url"
RESUME = "execute_after_answer"


def require_support(on_uncertain: str) -> None:
    """Raise an error if a task must ask a person, and this Airflow has no Required Actions.

    :raises ConfigurationError: this is Airflow 3.0.
    """
    if on_uncertain == "ask" and not versions.supports_required_actions():
        raise ConfigurationError(
            "on_uncertain is 'ask', which needs Airflow 3.1 or later",
            remedy="upgrade Airflow, or use one of ('fail', 'adopt', 'create')",
        )


def notifiers_of(value: Any) -> tuple[Callable[[Any], Any], ...]:
    """Return the functions to call with the context when a task asks.

    :param value: one notifier or function, or several.
    :raises ConfigurationError: a value cannot be called.
    """
    found = (value,) if callable(value) else tuple(value)
    for each in found:
        if not callable(each):
            raise ConfigurationError(
                f"ask_notifiers contains {each!r}", remedy="use notifiers, or functions that take the context"
            )
    return found


def page_of(ti: Any) -> str:
    """Return the address of the task instance's Required Actions page."""
    return f"{str(ti.log_url).partition('?')[0].rstrip('/')}/required_actions"


def show(question: Question, *, ti: Any, order: Order) -> list[str]:
    """Show the question in Airflow, and return the options that Airflow shows.

    If the task instance has had a question, Airflow keeps its options and its text, and removes its answer.
    Source: `airflow.api_fastapi.execution_api.routes.hitl`.
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import CreateHITLDetailPayload

    from airflow_flowservice.runs.question import FAIL

    window = order.window or "unknown"
    response: Any = task_runner.SUPERVISOR_COMMS.send(
        CreateHITLDetailPayload(
            ti_id=ti.id,
            options=question.options,
            subject=f"Which flow run ingests the window {window} of dataflow {order.flow_id}?",
            body=_body(question, order=order, page=page_of(ti)),
            # Without an answer in time, Airflow answers, so that a later click is refused.
            defaults=[FAIL],
            multiple=False,
            params={},
            assigned_users=[],
        )
    )
    return list(getattr(response, "options", None) or question.options)


def notify(notifiers: Iterable[Callable[[Any], Any]], context: Mapping[str, Any]) -> None:
    """Log the address of the page, and call the notifiers with it in the context. Only log their errors."""
    url = page_of(context["ti"])
    log.warning("A person must decide which flow run is of this window. Answer here: %s", url)
    for each in notifiers:
        try:
            each({**context, URL_KEY: url})
        except Exception as error:  # The question is shown anyway.
            log.warning("The notification about the question failed: %s: %s", type(error).__name__, error)


def wait(task: BaseOperator, question: Question, *, is_new: bool, ti: Any, order: Order) -> NoReturn:
    """Wait for the answer, then resume in the method `RESUME`.

    :param is_new: this attempt asks the question. Otherwise, the answer may have been given before.
    """
    from airflow_flowservice.runs.question import FAIL, time_left

    seconds = time_left(question, now=versions.utc_now())
    arguments = {"question": question.to_json(), "order": order.to_json()}
    if is_new and versions.supports_awaiting_input():
        awaiting: Any = versions.airflow_exception("TaskAwaitingInput")
        raise awaiting(method_name=RESUME, kwargs=arguments, timeout=timedelta(seconds=seconds))
    from airflow.providers.standard.triggers.hitl import HITLTrigger

    from airflow_flowservice._airflow.answer_trigger import AnswerTrigger

    trigger_class = HITLTrigger if is_new else AnswerTrigger
    trigger = trigger_class(
        ti_id=ti.id,
        options=question.options,
        params={},
        defaults=[FAIL],
        multiple=False,
        timeout_datetime=versions.utc_now() + timedelta(seconds=seconds),
    )
    task.defer(trigger=trigger, method_name=RESUME, kwargs=arguments)


def _body(question: Question, *, order: Order, page: str) -> str:
    """Return the text of the page in Markdown."""
    until = datetime.fromtimestamp(question.until, tz=timezone.utc).isoformat(timespec="seconds")
    lines = [
        "The response to the request that creates a flow run was lost. The dataflow has new flow runs, and Flow "
        "Service does not show their windows. One of them may be the flow run of this window:",
        "",
        *(
            f"- [{_escaped(each.flow_run_id)}](<{each.url}>), created {_escaped(each.created)}, {_escaped(each.status)}"
            for each in question.candidates
        ),
        "",
    ]
    if question.omitted:
        lines += [f"There are {question.omitted} later flow runs, which are no options.", ""]
    lines += [
        f"Dataflow: {_escaped(order.flow_id)}. Window: {_escaped(str(order.window or 'unknown'))}. Check which of them "
        "is of this window, then choose:",
        "",
        "- A flow run, if it is of this window. The task uses it.",
        "- `create`, if none of them is. The task creates another flow run. If one of them was of this window, "
        "the window is ingested twice.",
        f"- `fail`, to fail the task. Without an answer, it fails at {_escaped(until)}.",
        "",
        f"The address of this page is <{page}>",
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return a text without Markdown and HTML."""
    return re.sub(r"([^\w\s:.,/-])", r"\\\1", text)
