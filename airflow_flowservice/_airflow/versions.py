"""The one place that knows Airflow's versions: where each keeps things, and what it can do.

Heavy imports are inside functions: a DAG file that uses our operators pays for `airflow.sdk` alone.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime, timezone
from functools import cache, partial
from typing import TYPE_CHECKING, Any

try:
    from airflow.sdk import BaseHook
except ImportError:  # before 3.1
    from airflow.hooks.base import BaseHook  # type: ignore[no-redef,attr-defined,unused-ignore]

__all__ = ["BaseHook"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@cache
def version() -> tuple[int, int]:
    """Airflow's major and minor version."""
    from importlib.metadata import version as installed

    major, minor = installed("apache-airflow-core").split(".")[:2]
    return int(major), int(minor)


def default_deferrable() -> bool:
    """Airflow's `[operators] default_deferrable`."""
    return bool(_conf().getboolean("operators", "default_deferrable", fallback=False))


def _conf() -> Any:
    try:
        from airflow.sdk.configuration import conf
    except ImportError:  # before 3.2
        from airflow.configuration import conf  # type: ignore[no-redef,unused-ignore]
    return conf


def stats() -> Any:
    """Airflow's own metrics, with `incr`, `gauge` and their like."""
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:  # before 3.2
        from airflow.stats import Stats  # type: ignore[no-redef,unused-ignore]
    return Stats


def supports_rerendered_fields() -> bool:
    """Whether a task may tell its rendered templates again when it has ended.

    Before 3.3 that is refused after an attempt that is retried; before 3.2 its `on_retry_callback` is then not called.
    """
    return version() >= (3, 3)


def resumes_retries() -> bool:
    """Whether a retry of a task that failed after it was deferred may begin where that attempt resumed (before 3.1.1).

    Source: apache/airflow issue 56704.
    """
    return version() < (3, 2)


def dag_bag(*args: Any, **kwargs: Any) -> Any:
    """Airflow's `DagBag`: the DAGs of a file or folder."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef,attr-defined,unused-ignore]
    return DagBag(*args, **kwargs)


def core_timetable(timetable: Any) -> Any:
    """A DAG file's timetable as the scheduler has it."""
    try:
        from airflow.serialization.encoders import coerce_to_core_timetable
    except ImportError:  # before 3.2, a DAG file's timetable is the scheduler's
        return timetable
    return coerce_to_core_timetable(timetable)


def backfills_by_partition(timetable: Any) -> bool:
    """Whether a backfill's dates are those of partitions; Airflow 3.2 goes by the dates of their runs."""
    return version() >= (3, 3) and bool(getattr(timetable, "partitioned", False))


def run_infos(timetable: Any, *, earliest: Any, latest: Any) -> Iterator[Any]:
    """As `iter_dagrun_infos_between` of Airflow's DAG, which would hide a timetable's errors.

    :param timetable: the core's.
    :param earliest: pendulum's, inclusive; as `latest`, which may be None.
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


def _next_info(timetable: Any, last: Any, restriction: Any) -> Any:
    if hasattr(timetable, "next_dagrun_info_v2"):
        return timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=restriction)
    interval = last.data_interval if last else None  # before 3.2
    return timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)


def partition_date_of(run: Any, timetable: Any) -> datetime | None:
    """Where the partition of a schedule's run begins.

    :param run: one that a timetable would make, or the dates of one that is in the database.
    :param timetable: the core's. On the day after a change of the clock at midnight, 3.2's own steps back to no run.
    """
    from airflow_flowservice._airflow.timetables import counted_partition

    if version() < (3, 3):
        return counted_partition(run.run_after, timetable)
    date: datetime | None = run.partition_date
    return date


async def aget_connection(conn_id: str) -> Any:
    """As `BaseHook.get_connection`, without blocking the event loop."""
    if hasattr(BaseHook, "aget_connection"):
        return await BaseHook.aget_connection(conn_id)
    return await in_thread(BaseHook.get_connection, conn_id)  # before 3.1


def mask_secret(text: str) -> None:
    """Have Airflow replace exactly this text by `***`."""
    try:
        from airflow.sdk.log import mask_secret as mask
    except ImportError:  # before 3.1
        from airflow.sdk.execution_time.secrets_masker import mask_secret as mask  # type: ignore[no-redef,unused-ignore]
    mask(text)


async def in_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a blocking call beside the event loop, in one of its few threads; Airflow's own look-ups work from there too.

    Before 3.2 a look-up from any other thread reads the triggerer's answers out of order, which ends the triggerer
    (seen on 3.0.6). From asgiref's threads it takes its turn in the event loop.
    """
    return await _in_pool(None, partial(function, *args, **kwargs))


def own_thread() -> Callable[..., Awaitable[Any]]:
    """As `in_thread`, in a thread that nobody else takes up; it ends when this is not held any more.

    The event loop's threads may all be taken: each XCom that is pushed holds one until the supervisor answers.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flowservice")

    async def in_own_thread(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await _in_pool(pool, partial(function, *args, **kwargs))

    return in_own_thread


async def _in_pool(pool: ThreadPoolExecutor | None, call: Callable[[], Any]) -> Any:
    if version() >= (3, 2):
        return await asyncio.get_running_loop().run_in_executor(pool, copy_context().run, call)
    from asgiref.sync import sync_to_async

    return await sync_to_async(call, thread_sensitive=False, executor=pool)()


def starts_in_triggerer() -> bool:
    """Whether this Airflow can begin a task in the triggerer, and render its templates there."""
    return version() >= (3, 3)


def shows_pages() -> bool:
    """Whether this Airflow's UI shows pages of plugins."""
    return version() >= (3, 1)


def triggers_push_xcoms() -> bool:
    """Whether a trigger can be relied on to push XComs."""
    return version() >= (3, 3)


def listener_manager() -> Any:
    """Where Airflow keeps those who want to hear of tasks that end."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # before 3.2
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment,unused-ignore]
    return get_listener_manager()


def tells_triggers_of_kills() -> bool:
    """Whether this Airflow calls a trigger's `on_kill`."""
    return version() >= (3, 3)


def airflow_exception(name: str) -> type[BaseException]:
    """One of Airflow's exceptions, wherever this version keeps it."""
    from airflow.sdk import exceptions as places

    if not hasattr(places, name):  # before 3.1
        from airflow import exceptions as places  # type: ignore[no-redef,unused-ignore]
    found: type[BaseException] = getattr(places, name)
    return found


def utc_now() -> datetime:
    """Now, aware."""
    return datetime.now(timezone.utc)
