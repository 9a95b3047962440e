# SPDX-License-Identifier: Apache-2.0
"""Hide the differences between Airflow versions: import paths and features. No other module checks the version.

Heavy imports are inside functions, so a DAG file that imports the operators imports only `airflow.sdk` from Airflow.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timezone
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

try:
    from airflow.sdk import BaseHook
except ImportError:  # before 3.1
    from airflow.hooks.base import BaseHook  # type: ignore[no-redef,attr-defined,unused-ignore]

__all__ = ["BaseHook"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

_Result = TypeVar("_Result")

# Calls in the triggerer that wait for a response of Airflow.
_running: set[asyncio.Task[Any]] = set()


@cache
def version() -> tuple[int, int]:
    """Return Airflow's major and minor version."""
    from importlib.metadata import version as installed

    major, minor = installed("apache-airflow-core").split(".")[:2]
    return int(major), int(minor)


def default_deferrable() -> bool:
    """Return Airflow's setting `[operators] default_deferrable`."""
    return bool(_conf().getboolean("operators", "default_deferrable", fallback=False))


def setting(name: str) -> str | None:
    """Return a setting of Airflow's section `[flowservice]`; None if it is not set."""
    value = _conf().get("flowservice", name, fallback=None)
    return str(value).strip() or None if value is not None else None


def fernet_key() -> str:
    """Return Airflow's setting `[core] fernet_key`; empty if it is not set.

    Since Airflow 3.2, a worker without the setting has the unexpanded default, which is no valid key.
    """
    return str(_conf().get("core", "fernet_key", fallback=None) or "")


def has_task_state() -> bool:
    """Return whether this Airflow keeps values between the attempts of a task (`task_state_store`)."""
    return version() >= (3, 3)


def _conf() -> Any:
    try:
        from airflow.sdk.configuration import conf
    except ImportError:  # before 3.2
        from airflow.configuration import conf  # type: ignore[no-redef,unused-ignore]
    return conf


def stats() -> Any:
    """Return Airflow's metrics client, with methods such as `incr` and `gauge`."""
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # before 3.2
        from airflow.stats import Stats  # type: ignore[no-redef,unused-ignore]
    return Stats


def start_stats() -> None:
    """Configure Airflow's metrics client in the process of a command.

    Airflow does this in its components and in tasks. Before 3.3, the client configures itself.
    """
    if version() < (3, 3):
        return
    from airflow.sdk.observability import stats as module
    from airflow.sdk.observability.metrics import stats_utils

    module.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


def supports_rerendered_fields() -> bool:
    """Return whether a task may send its rendered templates again when it has ended.

    Before 3.3, Airflow refuses them after an attempt that is retried. Before 3.2, it then also does not call
    `on_retry_callback`.
    """
    return version() >= (3, 3)


def retries_resume_after_deferral() -> bool:
    """Return whether a retry may begin at the method in which the failed attempt resumed after its deferral.

    Airflow before 3.1.1 does this. Source: apache/airflow issue 56704.
    """
    return version() < (3, 2)


def dag_bag(*args: Any, **kwargs: Any) -> Any:
    """Return Airflow's `DagBag`: the DAGs of a file or folder."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef,attr-defined,unused-ignore]
    return DagBag(*args, **kwargs)


def core_timetable(timetable: Any) -> Any:
    """Convert a DAG file's timetable to the scheduler's timetable."""
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # before 3.2, a DAG file uses the scheduler's timetable
        return timetable
    return coerce_to_core_timetable(timetable)


def decode_timetable(value: Any) -> Any:
    """Return the timetable of a serialized DAG.

    :param value: the JSON value of the DAG's key `timetable`.
    """
    # This module is imported first, because the decoders depend on it.
    from airflow.serialization import serialized_objects

    try:
        from airflow.serialization.decoders import decode_timetable as decode
    except ImportError:  # before 3.2
        decode = getattr(serialized_objects, "decode_timetable")  # noqa: B009 not exported later
    return decode(value)


def backfills_by_partition(timetable: Any) -> bool:
    """Return whether a backfill's dates are partition dates; in Airflow 3.2 they are the dates of the runs."""
    return version() >= (3, 3) and bool(getattr(timetable, "partitioned", False))


def run_infos(timetable: Any, *, earliest: Any, latest: Any) -> Iterator[Any]:
    """Yield the runs of a timetable, like `iter_dagrun_infos_between` of Airflow's DAG.

    Airflow's method hides errors of the timetable; this function raises them.

    :param timetable: a timetable of Airflow's core.
    :param earliest: pendulum datetime, inclusive.
    :param latest: pendulum datetime, inclusive, or None.
    """
    from airflow.timetables.base import TimeRestriction

    if backfills_by_partition(timetable):
        yield from timetable.iter_partition_dagrun_infos(earliest=earliest, latest=latest)
        return
    restriction = TimeRestriction(earliest, latest, catchup=True)
    last = None
    while info := _next_info(timetable, last, restriction):
        yield info
        last = info


def next_run_info(timetable: Any, *, start: Any, end: Any) -> Any:
    """Return the run of a timetable after the one that has a data interval; None if there is none.

    :param timetable: a timetable of Airflow's core, without partitions.
    :param start: pendulum datetime; equal to `end` if the data interval is empty.
    :param end: pendulum datetime, the time of the run.
    """
    from airflow.timetables.base import DagRunInfo, TimeRestriction

    return _next_info(timetable, DagRunInfo.interval(start, end), TimeRestriction(None, None, catchup=True))


def _next_info(timetable: Any, last: Any, restriction: Any) -> Any:
    if hasattr(timetable, "next_dagrun_info_v2"):
        return timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    interval = last.data_interval if last else None  # before 3.2
    return timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)


def partition_date_of(run: Any, timetable: Any) -> datetime | None:
    """Return the start of the partition of a scheduled run, or None if it has no partition.

    :param run: a run that a timetable would create, or the dates of a run in the database.
    :param timetable: a timetable of Airflow's core.
    """
    from airflow_flowservice._airflow.timetables import partition_date_from_run_date

    if version() < (3, 3):
        # After a clock change at midnight, the method of 3.2's timetable steps back to a date without a run.
        return partition_date_from_run_date(run.run_after, timetable)
    date: datetime | None = run.partition_date
    return date


async def connection_of_base_hook(conn_id: str) -> Any:
    """Return the result of `BaseHook.get_connection`, without blocking the event loop."""
    if hasattr(BaseHook, "aget_connection"):
        return await until_done(BaseHook.aget_connection(conn_id))
    return await in_thread(BaseHook.get_connection, conn_id)  # before 3.1


def mask_secret(text: str) -> None:
    """Add a text to the secrets that Airflow replaces by `***` in logs."""
    try:
        from airflow.sdk.log import mask_secret as mask
    except ImportError:  # before 3.1
        from airflow.sdk.execution_time.secrets_masker import mask_secret as mask  # type: ignore[no-redef,unused-ignore]
    mask(text)


def keep_running(call: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
    """Start a call that sends a message to Airflow in the triggerer, as a task that must not be cancelled.

    Before Airflow 3.2, all triggers share one stream. If a call is cancelled before it has read its response, the next
    trigger reads that response as its own. The triggerer then ends (`Response read out of order`, seen on 3.0.6).
    """
    task = asyncio.ensure_future(call)
    # The event loop has only weak references.
    _running.add(task)
    task.add_done_callback(_forget)
    return task


async def until_done(call: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of a call that continues if the caller is cancelled. See `keep_running`."""
    return await asyncio.shield(keep_running(call))


def _forget(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled():
        # The caller may be gone; without this line, asyncio logs that the exception was never retrieved.
        task.exception()


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a blocking call in a thread of the event loop's pool, in which Airflow's look-ups also work.

    Before Airflow 3.2, a look-up from any other thread reads the triggerer's responses out of order, which ends the
    triggerer (seen on 3.0.6). A look-up from asgiref's threads waits for its turn in the event loop.

    If the caller is cancelled, the call continues.
    """
    return await _in_pool(None, partial(function, *args, **kwargs))


def dedicated_thread() -> Callable[..., Awaitable[Any]]:
    """Return a function like `in_thread` that uses a separate thread.

    The event loop's threads may all be busy: each XCom push occupies one until the supervisor responds. The separate
    thread ends when the returned function is garbage collected.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flowservice")

    async def in_dedicated_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await _in_pool(pool, partial(function, *args, **kwargs))

    return in_dedicated_thread


async def _in_pool(pool: ThreadPoolExecutor | None, call: Callable[[], Any]) -> Any:
    if version() >= (3, 2):
        return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, call)
    from asgiref.sync import sync_to_async

    # asgiref would also cancel the message that the thread has sent.
    return await until_done(sync_to_async(call, thread_sensitive=False, executor=pool)())


def supports_start_from_trigger() -> bool:
    """Return whether this Airflow can start a task in the triggerer and render its templates there."""
    return version() >= (3, 3)


def supports_required_actions() -> bool:
    """Return whether this Airflow's UI can ask a person (Required Actions, human in the loop)."""
    return version() >= (3, 1)


def supports_deadlines() -> bool:
    """Return whether this Airflow has deadline alerts of DAGs."""
    return version() >= (3, 1)


def supports_awaiting_input() -> bool:
    """Return whether a task can wait for a person without the triggerer."""
    return version() >= (3, 3)


def accepts_backfill_without_conf() -> bool:
    """Return whether a backfill may have no conf. Then it keeps the conf of DAG runs that run again."""
    return version() >= (3, 2)


def supports_plugin_pages() -> bool:
    """Return whether this Airflow's UI shows pages of plugins."""
    return version() >= (3, 1)


def supports_end_in_triggerer() -> bool:
    """Return whether a trigger may end a task without harm to other tasks.

    For each end, Airflow sends a callback to the DAG processor. Airflow 3.0 takes the callback for a parsing of the DAG
    file, so it regards the DAGs of the file as deleted. It schedules none of their tasks until it parses the file
    again. Source: apache/airflow issue 55315, fixed in 3.1.0.
    """
    return version() >= (3, 1)


def clears_task_state() -> bool:
    """Return whether a worker removes the task state of a task that succeeds: `[state_store] clear_on_success`."""
    return bool(_conf().getboolean("state_store", "clear_on_success", fallback=False))


def listener_manager() -> Any:
    """Return Airflow's manager of listeners, which receive the ends of tasks."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # before 3.2
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment,unused-ignore]
    return get_listener_manager()


def supports_trigger_on_kill() -> bool:
    """Return whether this Airflow calls a trigger's `on_kill`."""
    return version() >= (3, 3)


def airflow_exception(name: str) -> type[BaseException]:
    """Return an Airflow exception by its class name, from the module of this version."""
    from airflow.sdk import exceptions as module

    if not hasattr(module, name):  # before 3.1
        from airflow import exceptions as module  # type: ignore[no-redef,unused-ignore]
    found: type[BaseException] = getattr(module, name)
    return found


def utc_now() -> datetime:
    """Return the current time as aware datetime."""
    return datetime.now(timezone.utc)


def command_program() -> str:
    """Return the program that has the commands of this package, in this version of Airflow."""
    return "airflow flowservice" if version() >= (3, 2) else "python -m airflow_flowservice"
