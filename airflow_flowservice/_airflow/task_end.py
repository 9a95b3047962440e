"""How a task ends: by which of Airflow's exceptions, and whether a trigger may end it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_flowservice import exceptions
from airflow_flowservice._airflow import task_context, versions
from airflow_flowservice.exceptions import FlowRunTimeoutError, FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Seconds that a stopping triggerer may be held up.
PATIENCE_WITH_AIRFLOW = 5.0


def ends_in_triggerer(task: Any) -> bool:
    """Whether a trigger may end this task as a success without a worker.

    Airflow then leaves out asset events, listeners and `post_execute` (seen on 3.3.2), so only where
    there are none.
    """
    if not versions.supports_trigger_xcoms() or task.outlets or getattr(task, "_post_execute_hook", None):
        return False
    return not has_listeners()


async def was_undeferred(ti: Any) -> bool:
    """Whether a deferred task is deferred no longer; False where Airflow does not say.

    For triggers that are cancelled before Airflow 3.3: a triggerer that stops leaves its tasks deferred, while
    somebody who marks or clears a task does not. (Google's provider looks at the same, to cancel its jobs.)
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import GetTaskStates

    if ti is None:
        return False
    question = GetTaskStates(
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=task_context.task_instance_key(ti)["map_index"],
    )
    # Never cancelled in the middle of an answer, which other triggers in the process would then read as theirs.
    asking = asyncio.ensure_future(task_runner.SUPERVISOR_COMMS.asend(question))
    done, _ = await asyncio.wait({asking}, timeout=PATIENCE_WITH_AIRFLOW)
    if not done or asking.exception() is not None:
        return False
    states: Any = getattr(asking.result(), "task_states", {}).get(ti.run_id, {})
    return bool(states) and all(task_context.text_of(state) != "deferred" for state in states.values())


def has_listeners() -> bool:
    """Whether somebody, such as OpenLineage, wants to hear of tasks that end."""
    return bool(versions.listener_manager().has_listeners)


@contextmanager
def task_errors(*final: type[FlowServiceError]) -> Iterator[None]:
    """What goes wrong inside ends the task: still as the typed error, without retries where none can help.

    :param final: errors after which a retry of this very task cannot help, though they are retryable.
    """
    try:
        yield
    except FlowServiceError as error:
        if error.retryable and not isinstance(error, final):
            raise
        raise _ending(error, "AirflowFailException").with_traceback(error.__traceback__) from error.__cause__


@contextmanager
def skips(*, soft_fail: bool, never_fail: bool) -> Iterator[None]:
    """A sensor skips on what `soft_fail` and `never_fail` are for, in every mode, and says why.

    :param soft_fail: skip on time limits and on errors that no retry can mend.
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
    """The error as one that is also Airflow's `AirflowSensorTimeout`, which is not retried."""
    return _ending(error, "AirflowSensorTimeout")


def _ending(error: FlowServiceError, ending: str) -> FlowServiceError:
    made = _ending_class(type(error).__name__, ending)(error.message)
    made.__dict__.update(error.__dict__)
    return made


@cache
def _ending_class(name: str, ending: str) -> type[FlowServiceError]:
    """The class of this name as one of Airflow's exceptions that end a task without a retry."""
    cls: type[FlowServiceError] = getattr(exceptions, name)
    return type(
        cls.__name__, (cls, versions.airflow_exception(ending)), {"__module__": cls.__module__, "__doc__": cls.__doc__}
    )
