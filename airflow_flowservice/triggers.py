# SPDX-License-Identifier: Apache-2.0
"""Wait for a flow run in the triggerer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from airflow_flowservice._airflow import intent_variable, metrics, task_context, task_end, versions
from airflow_flowservice._airflow.pages import dataflow_page
from airflow_flowservice._airflow.task_context import DATAFLOW_KEY, URL_KEY
from airflow_flowservice._airflow.tolerance import Tolerance
from airflow_flowservice.api.validation import is_identifier, validate_seconds
from airflow_flowservice.exceptions import ConfigurationError, FlowRunError, FlowServiceError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.runs.batch_reader import CATALOG_BATCHES
from airflow_flowservice.runs.batch_watch import CatalogReader
from airflow_flowservice.runs.polling import Poller, wait_together
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.runs.watch import ERROR_BUDGET, RunWatch
from airflow_flowservice.windows.window import IngestionWindow

if TYPE_CHECKING:
    from airflow_flowservice._airflow.pages import ExperiencePages
    from airflow_flowservice.api.catalog import CatalogBatch
    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.batch_reader import RunReader

_OPTIONAL: dict[str, Any] = {
    "flow_id": None,
    "window": None,
    "url": None,
    "seen": False,
    "ends_task": False,
    "is_alone": False,
    "error_budget": ERROR_BUDGET,
    "wait_for_batch": False,
}
# Time for which triggers share a look-up of the connection, in seconds. A changed connection is used after it.
_HOOK_AGE_S = 60.0
# Pollers by event loop and connection id. Only triggers keep a poller alive.
_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, Poller[FlowRun]]] = WeakKeyDictionary()
_batch_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, Poller[CatalogBatch]]] = (
    WeakKeyDictionary()
)


class FlowRunTrigger(BaseTrigger):
    """Fires one event when a flow run has ended, or when waiting for it fails.

    The event's payload is `{"status", "flow_run_id", "flow_run"}`, with `flow_run` as in the XCom of that
    name; or `{"status": "error", "flow_run_id", "error"}` with `FlowServiceError.to_dict()`.

    :param poll_interval: seconds between two polls of the run.
    :param flow_id: the run's dataflow, for messages and for runs that do not show it.
    :param window: the requested window, as `str(IngestionWindow)` returns it.
    :param url: the run's page in Experience Platform.
    :param seen: the run could be read before, so that a 404 means that it does not exist any more.
    :param ends_task: end a successful task in the triggerer, without a worker.
    :param error_budget: seconds without a valid response after which waiting ends with an error.
    :param max_failed_records: maximum number of failed records. A run that the task does not accept is left to a
        worker; the same applies to `max_failed_ratio` and `on_empty` (see `Tolerance`).
    :param wait_for_batch: after the run has succeeded, also wait until its batches have ended in the catalogue.
    :param is_alone: no worker ran before, so the trigger pushes everything that the task pushes.
    """

    def __init__(
        self,
        *,
        flow_run_id: str,
        flowservice_conn_id: str = "flowservice_default",
        poll_interval: float = 30.0,
        flow_id: str | None = None,
        window: str | None = None,
        url: str | None = None,
        seen: bool = False,
        ends_task: bool = False,
        is_alone: bool = False,
        error_budget: float = ERROR_BUDGET,
        max_failed_records: int | None = None,
        max_failed_ratio: float | None = None,
        on_empty: str = "succeed",
        wait_for_batch: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow_run_id = flow_run_id
        self.flowservice_conn_id = flowservice_conn_id
        self.poll_interval = poll_interval
        self.flow_id = flow_id
        self.window = window
        self.url = url
        self.seen = seen
        self.ends_task = ends_task
        self.is_alone = is_alone
        self.error_budget = error_budget
        self.wait_for_batch = wait_for_batch
        self.tolerance = Tolerance(
            max_failed_records=max_failed_records, max_failed_ratio=max_failed_ratio, on_empty=on_empty
        )
        self._dataflow_url = dataflow_page(url) if url else None
        self._reader: RunReader[FlowRun] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, which is stored in Airflow's database, and the arguments.

        Default values are omitted. During an upgrade, a triggerer of an earlier version, which knows fewer
        arguments, can then start this trigger.
        """
        always = {
            "flow_run_id": self.flow_run_id,
            "flowservice_conn_id": self.flowservice_conn_id,
            "poll_interval": self.poll_interval,
        }
        optional = {name: value for name, default in _OPTIONAL.items() if (value := getattr(self, name)) != default}
        return "airflow_flowservice.triggers.FlowRunTrigger", {**always, **optional, **self.tolerance.to_arguments()}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield one event."""
        try:
            with metrics.waiter():
                summary = await self._wait()
        except FlowServiceError as error:
            error.about(flow_id=self.flow_id, window=self.window, flow_run_id=self._known_id, url=self.url)
            yield self._event({"status": "error", "error": error.to_dict()})
            return
        except asyncio.CancelledError:
            await self._log_kill_before_3_3()
            raise
        if await self._end_task(summary):
            yield TaskSuccessEvent()
            return
        yield self._event({"status": summary.status, "flow_run": summary.to_json()})

    async def on_kill(self) -> None:
        """Log that the run continues.

        Airflow 3.3 and later call this when a user marks or clears the deferred task.
        """
        self.log.warning(
            "Adobe cannot cancel flow run %s, so it continues; see %s. If the task runs again, it waits for this run.",
            self.flow_run_id,
            self.url or "Experience Platform",
        )

    def _event(self, payload: dict[str, Any]) -> TriggerEvent:
        return TriggerEvent({"flow_run_id": self._known_id, **payload})  # type: ignore[no-untyped-call]

    @property
    def _known_id(self) -> str:
        """Return the id; if it is no id of a flow run, a text that every database can store."""
        return self.flow_run_id if is_identifier(self.flow_run_id) else _printable(self.flow_run_id)

    async def _wait(self) -> FlowRunSummary:
        self.flow_run_id = task_context.rendered_id(
            self.flow_run_id, name="flow_run_id", source="the creating task's output"
        )
        if not is_identifier(self.flow_run_id):
            raise ConfigurationError(
                f"flow_run_id is {_printable(self.flow_run_id)}",
                remedy="set flow_run_id to the creating task's output; if it is a template, check it",
            )
        watch = RunWatch(
            flow_run_id=self.flow_run_id,
            poll_interval=validate_seconds(self.poll_interval, "poll_interval"),
            error_budget=self.error_budget,
            url=self.url,
            wait_for_batch=self.wait_for_batch,
        )
        if self.seen:
            watch.mark_seen()
        batch_poller = _batch_poller_of(self.flowservice_conn_id) if self.wait_for_batch else None
        poller = _poller_of(self.flowservice_conn_id)
        run = await wait_together(watch, poller, batch_poller)
        # Not the poller, which ends with the last waiter.
        self._reader = poller.service
        window = IngestionWindow.parse(self.window) if self.window else None
        if self.url is None and run.flow_id:
            pages = await versions.in_thread(self._pages)
            self.url, self._dataflow_url = pages.flow_run(run.flow_id, run.id), pages.dataflow(run.flow_id)
        return FlowRunSummary.of(run, flow_id=self.flow_id, window=window, url=self.url)

    def _pages(self) -> ExperiencePages:
        """Return the pages of the connection's sandbox. Blocks, because it may look the connection up."""
        return self._recent_hook().pages

    def _recent_hook(self) -> FlowServiceHook:
        """Return the hook of the poller if it has looked the connection up recently, or else a new one."""
        if isinstance(self._reader, _CountedReader):
            return self._reader.recent_hook()
        return FlowServiceHook(self.flowservice_conn_id)

    async def _end_task(self, summary: FlowRunSummary) -> bool:
        """Push the XComs that a worker would push. Return whether the task can end in the triggerer.

        `TaskSuccessEvent(xcoms=...)` encodes its values twice (observed on Airflow 3.3.2), so they are pushed
        before. A second triggerer pushes the same values, so pushing twice is harmless. If the trigger is cancelled,
        the push of the current value is completed, since Airflow before 3.2 tolerates no unread response.
        """
        ti = self.task_instance
        if not self.ends_task or ti is None or not self._is_accepted(summary):
            return False
        # Callbacks, outlets and mapped tasks may have been added after the sensor's constructor.
        if self.is_alone and (task_end.has_listeners() or (self.task and task_end.must_end_on_worker(self.task))):
            return False
        xcoms: dict[str, Any] = {task_context.FLOW_RUN_KEY: summary.to_json()}
        if self.is_alone:
            xcoms |= {"return_value": summary.id, URL_KEY: summary.url, DATAFLOW_KEY: self._dataflow_url}
        # The task's log may lack what a trigger logs directly before its end.
        self.log.info(summary.describe())
        try:
            if not await task_end.is_deferred(ti):
                self.log.info(
                    "The task is not deferred: it was ended, marked or cleared. The triggerer does not end it"
                )
                return False
            for key, value in xcoms.items():
                await versions.in_thread(task_context.push_xcom, ti, key=key, value=value)
            await versions.in_thread(self._deliver, summary)
            await versions.in_thread(intent_variable.remove_before_success, ti)
        except Exception as error:
            self.log.warning("XComs could not be pushed in the triggerer (%s); a worker ends the task", error)
            return False
        return True

    def _deliver(self, summary: FlowRunSummary) -> None:
        """Record the success in the ledger. Blocks, because it reads the ledger, and may look the connection up."""
        from airflow_flowservice.runs.ledger_intents import deliver

        hook = self._recent_hook()
        if summary.flow_id is None or summary.window is None or (ledger := hook.ledger) is None:
            return
        deliver(
            ledger,
            dataflow=hook.dataflow_key(summary.flow_id),
            window=summary.window,
            flow_run_id=summary.id,
            # Only operators know the requested window.
            owner=task_context.owner_text(self.task_instance) if self.window else None,
            output_records=summary.output_records,
        )

    def _is_accepted(self, summary: FlowRunSummary) -> bool:
        try:
            summary.require_success()
            self.tolerance.require(summary)
        except FlowRunError:
            return False
        return True

    async def _log_kill_before_3_3(self) -> None:
        """Call `on_kill` before Airflow 3.3, which does not call it.

        A trigger is also cancelled when the triggerer stops; only a kill changes the task's state.
        """
        if not versions.supports_trigger_on_kill() and await task_end.was_undeferred(self.task_instance):
            await self.on_kill()


def _printable(value: Any) -> str:
    return ascii(value)[:200]


def _poller_of(conn_id: str) -> Poller[FlowRun]:
    """Return the shared poller of a connection in this event loop."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    poller = pollers.get(conn_id)
    if poller is None:
        in_thread = versions.dedicated_thread()
        poller = pollers[conn_id] = Poller(partial(_connect, conn_id, in_thread), in_thread=in_thread)
    return poller


def _batch_poller_of(conn_id: str) -> Poller[CatalogBatch]:
    """Return the shared poller of the catalogue's batches, of a connection in this event loop."""
    pollers = _batch_pollers.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    poller = pollers.get(conn_id)
    if poller is None:
        in_thread = versions.dedicated_thread()
        connect = partial(_connect_catalog, conn_id, in_thread)
        poller = pollers[conn_id] = Poller(connect, kind=CATALOG_BATCHES, in_thread=in_thread)
    return poller


async def _connect_catalog(conn_id: str, in_thread: Callable[..., Awaitable[Any]]) -> RunReader[CatalogBatch]:
    hook = await FlowServiceHook.connected(conn_id)
    client: FlowServiceClient = await in_thread(hook.get_conn)
    return CatalogReader(metrics.counted(client.list_batches))


async def _connect(conn_id: str, in_thread: Callable[..., Awaitable[Any]]) -> RunReader[FlowRun]:
    hook = await FlowServiceHook.connected(conn_id)
    return _CountedReader(hook, await in_thread(hook.get_conn))


class _CountedReader:
    """Reads flow runs, and counts the requests as `flowservice.polls`."""

    def __init__(self, hook: FlowServiceHook, client: FlowServiceClient) -> None:
        self._hook = hook
        self._hook_until = time.monotonic() + _HOOK_AGE_S
        self.get_run = metrics.counted(client.get_run)
        self.list_runs = metrics.counted(client.list_runs)

    def recent_hook(self) -> FlowServiceHook:
        """Return a hook that has looked its connection up at most a minute ago, for all triggers of the poller."""
        if time.monotonic() > self._hook_until:
            # Two triggers may both create a hook, which is harmless.
            self._hook, self._hook_until = (
                FlowServiceHook(self._hook.flowservice_conn_id),
                time.monotonic() + _HOOK_AGE_S,
            )
        return self._hook
