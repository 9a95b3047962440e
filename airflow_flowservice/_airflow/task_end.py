# SPDX-License-Identifier: Apache-2.0
"""Airflow exceptions that end a task, and Airflow's state of a task that a trigger waits for."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_flowservice import exceptions
from airflow_flowservice._airflow import task_context, versions
from airflow_flowservice.exceptions import FlowRunTimeoutError, FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Maximum delay of a stopping triggerer, in seconds.
PATIENCE_WITH_AIRFLOW = 5.0


async def is_deferred(ti: Any) -> bool:
    """Return whether a task is still deferred; False if its DAG run was deleted.

    If another triggerer has ended the task, or a user has marked or cleared it, its trigger is cancelled only some
    seconds later.

    :raises Exception: Airflow does not respond. The kinds of errors differ by version.
    """
    states = await versions.until_done(_read_states(ti))
    return bool(states) and all(state == "deferred" for state in states)


async def was_undeferred(ti: Any) -> bool:
    """Return whether a deferred task is not deferred any more; False if Airflow does not respond.

    For triggers that are cancelled before Airflow 3.3. A triggerer that stops leaves its tasks deferred; marking or
    clearing a task does not. Google's provider uses the same check to cancel its jobs.
    """
    if ti is None:
        return False
    response = versions.keep_running(_read_states(ti))
    done, _ = await asyncio.wait({response}, timeout=PATIENCE_WITH_AIRFLOW)
    if not done or response.exception() is not None:
        return False
    states = response.result()
    return bool(states) and all(state != "deferred" for state in states)


async def _read_states(ti: Any) -> list[str]:
    """Return Airflow's state of a task instance as a list with one text; empty if it does not exist."""
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    request = GetTaskStates(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=task_context.task_instance_key(ti)["map_index"],
    )
    response = await task_runner.SUPERVISOR_COMMS.asend(request)
    states: Any = getattr(response, "task_states", {}).get(ti.run_id, {})
    return [task_context.text_of(state) for state in states.values()]


def call_after_success(context: Any, callback: Callable[[Any], Any]) -> None:
    """Call a function once with the context after Airflow has stored that the task succeeded or was skipped."""
    task = context["ti"].task
    for name in ("on_success_callback", "on_skipped_callback"):
        callbacks = getattr(task, name, None) or []
        callbacks = list(callbacks) if isinstance(callbacks, list | tuple) else [callbacks]
        if callback not in callbacks:
            # A new list: copies of the task share the old one.
            setattr(task, name, [*callbacks, callback])


def has_listeners() -> bool:
    """Return whether a listener, such as OpenLineage's, receives ends of tasks."""
    return bool(versions.listener_manager().has_listeners)


def must_end_on_worker(task: Any) -> bool:
    """Return whether only a worker can end this task, because Airflow does more there than in the triggerer.

    The table in docs/waiting.md has each step of Airflow's task runner, with the decision. The caller
    decides about `execute_complete` and `resume_execution`, since it knows whether a subclass overrides them.

    :param task: a task of a DAG file, or the scheduler's copy of it, which shows only that it has a callback.
    """
    has_callback = getattr(task, "on_success_callback", None) or getattr(task, "has_on_success_callback", False)
    has_hook = getattr(task, "_post_execute_hook", None) or _overrides(task, "post_execute")
    return bool(
        has_callback
        or has_hook
        or task.outlets
        or getattr(task, "map_index_template", None)
        or getattr(task, "multiple_outputs", False)
        or _is_mapped_over(task)
        or versions.clears_task_state()
    )


def must_start_on_worker(task: Any) -> bool:
    """Return whether only a worker can start this task: a hook, a callback or inlets come before `execute`."""
    has_hook = getattr(task, "_pre_execute_hook", None) or _overrides(task, "pre_execute")
    return bool(has_hook or task.on_execute_callback or task.inlets)


def is_overridden(method: Any, original: Callable[..., Any]) -> bool:
    """Return whether a task's method is not the original, but a subclass's or one that was set on the task."""
    return getattr(method, "__func__", None) is not original


def _overrides(task: Any, name: str) -> bool:
    from airflow.sdk import BaseOperator

    return isinstance(task, BaseOperator) and is_overridden(getattr(task, name), getattr(BaseOperator, name))


def _is_mapped_over(task: Any) -> bool:
    """Return whether a mapped task expands over this task's result, which Airflow checks only on a worker."""
    if task.get_dag() is None or getattr(task, "_BaseOperator__from_mapped", False):
        return False
    return next(iter(task.iter_mapped_dependants()), None) is not None


@contextmanager
def task_errors(*final: type[FlowServiceError]) -> Iterator[None]:
    """Turn errors that a retry cannot fix into errors of the same class that are also `AirflowFailException`.

    :param final: errors after which a retry of this task cannot help, although they are retryable.
    """
    try:
        yield
    except FlowServiceError as error:
        if error.retryable and not isinstance(error, final):
            raise
        raise _ending(error, "AirflowFailException").with_traceback(error.__traceback__) from error.__cause__


@contextmanager
def constructor_errors(task: Any, **fields: Any) -> Iterator[None]:
    """Turn a constructor's errors into errors without a retry if the task is mapped.

    Airflow makes a mapped task on the worker, before `execute`, where a retry would repeat the error.

    :param fields: fields of the error, as the DAG file gives them; those that are not text are omitted.
    """
    with exceptions.error_context(**{name: value for name, value in fields.items() if isinstance(value, str)}):
        if not getattr(task, "_BaseOperator__from_mapped", False):
            yield
            return
        with task_errors():
            yield


@contextmanager
def skips(*, soft_fail: bool, never_fail: bool) -> Iterator[None]:
    """Turn errors of a sensor into skips with the error's text, in every mode.

    :param soft_fail: skip on time limits and on errors that a retry cannot fix.
    :param never_fail: skip on any error.
    """
    skip = versions.airflow_exception("AirflowSkipException")
    try:
        yield
    except (skip, versions.airflow_exception("AirflowRescheduleException")):
        raise
    except Exception as error:
        final = isinstance(error, (FlowRunTimeoutError, versions.airflow_exception("AirflowException")))
        if never_fail or (soft_fail and final):
            raise skip(str(error)) from error
        raise


def as_sensor_timeout(error: FlowServiceError) -> FlowServiceError:
    """Return the error as one that is also Airflow's `AirflowSensorTimeout`, which is not retried."""
    return _ending(error, "AirflowSensorTimeout")


def _ending(error: FlowServiceError, ending: str) -> FlowServiceError:
    made = _ending_class(type(error).__name__, ending)(error.message)
    made.__dict__.update(error.__dict__)
    return made


@cache
def _ending_class(name: str, ending: str) -> type[FlowServiceError]:
    """Return the class of this name that is also one of Airflow's exceptions that end a task without a retry."""
    cls: type[FlowServiceError] = getattr(exceptions, name)
    return type(
        cls.__name__, (cls, versions.airflow_exception(ending)), {"__module__": cls.__module__, "__doc__": cls.__doc__}
    )
