# SPDX-License-Identifier: Apache-2.0
"""Events of a `FlowRunsTrigger`: poll a dataflow's flow runs, and keep the progress in an Airflow Variable.

Progress is stored after the events. Airflow's triggerer sends events to its supervisor at least once a second, if its
event loop is not busy. The supervisor handles one message at a time, and stores its events before it handles
the next message (`TriggerRunnerSupervisor.run`, Airflow 3.0 to 3.3). The message with the progress is sent some
seconds after the events, so a progress that is stored never contains an event that is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from airflow_flowservice._airflow import metrics, versions
from airflow_flowservice._airflow.cursor_variable import CursorVariable
from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.models import FlowRun
from airflow_flowservice.exceptions import FlowServiceError, LedgerUnavailableError, UnreadableAnswerError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.runs.batch_reader import BatchReader, as_service_error
from airflow_flowservice.runs.event_cursor import FIRST_LOOK_BACK, EventCursor
from airflow_flowservice.runs.polling import MAX_READ_S
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import parse_instant

T = TypeVar("T")

log = logging.getLogger(__name__)

# Time until the triggerer has sent an event to its supervisor, also if it starts many triggers, in seconds.
_SENT_AFTER_S = 10.0
# The supervisor sends no heartbeat while it stores events, so it receives few of them at a time.
_BURST, _BURST_PAUSE_S = 100, 5.0
_MAX_RUNS = 1000
_MAX_FIRST_LISTS = 50
_CLIENT_AGE_S = 600.0
_MAX_PAUSE_S = 900.0
_ERROR_LOG_INTERVAL_S = 3600.0
_NEXT_PAGE_PAUSE_S = 1.0
# By event loop and connection id. Only events keep a source alive.
_sources: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, FlowRunSource]] = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class FlowRunListing:
    """Flow runs of one poll.

    :param is_complete: False if there are later ones.
    :param client_id: client id of the connection.
    """

    runs: list[FlowRun]
    is_complete: bool
    client_id: str
    pages: ExperiencePages


class FlowRunSource:
    """Reads flow runs over one connection, for all watchers of an event loop, one request at a time."""

    def __init__(self, conn_id: str) -> None:
        self._conn_id = conn_id
        self._in_thread = versions.dedicated_thread()
        self._lock = asyncio.Lock()
        self._client: FlowServiceClient | None = None
        self._reader: BatchReader[FlowRun] | None = None
        self._until = 0.0

    @classmethod
    def of(cls, conn_id: str) -> FlowRunSource:
        """Return the source of a connection in this event loop."""
        sources = _sources.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
        source = sources.get(conn_id)
        if source is None:
            source = sources[conn_id] = cls(conn_id)
        return source

    async def read(self, flow_id: str, cursor: EventCursor) -> FlowRunListing:
        """Return the flow runs that were created since the cursor, oldest first, and those that it has as open.

        :raises FlowServiceError: the connection or the list cannot be read.
        """
        async with self._lock:
            client, reader = await self._connected()
        try:
            listing: FlowRunListing = await self._in_thread(_read, client, reader, flow_id, cursor)
        except FlowServiceError as error:
            if not error.retryable:
                self._until = 0.0  # The connection may be corrected.
            raise
        return listing

    async def _connected(self) -> tuple[FlowServiceClient, BatchReader[FlowRun]]:
        if self._client is None or self._reader is None or time.monotonic() >= self._until:
            hook = await FlowServiceHook.connected(self._conn_id)
            former, self._client = self._client, await self._in_thread(hook.get_conn)
            self._reader = BatchReader(self._client)
            self._until = time.monotonic() + _CLIENT_AGE_S
            if former is not None:
                await self._in_thread(former.close)
        return self._client, self._reader


class FlowRunEvents:
    """Events of the flow runs of one dataflow.

    :param since: ISO 8601 text; None to begin with flow runs that end after the first poll.
    :param has_failures: whether flow runs that did not succeed are events.
    :param has_own: whether flow runs of the connection's client id are events.
    """

    def __init__(
        self,
        *,
        flow_id: str,
        conn_id: str,
        poll_interval: float,
        since: str | None,
        has_failures: bool,
        has_own: bool,
        sleep: Callable[[float], Any] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._flow_id, self._conn_id, self._poll_interval = flow_id, conn_id, poll_interval
        self._since = None if since is None else parse_instant(since, name="since")
        self._has_failures, self._has_own = has_failures, has_own
        self._sleep, self._monotonic = sleep, monotonic
        # Without the interval, so that a change of it continues with the same progress.
        self._variable = CursorVariable(
            {
                "flow_id": flow_id.lower(),
                "conn_id": conn_id,
                "since": since,
                "failures": has_failures,
                "own": has_own,
            },
            description=f"Progress of FlowRunsTrigger for dataflow {flow_id}, connection {conn_id}.",
        )
        self._cursor: EventCursor | None = None
        self._stored: EventCursor | None = None
        self._failures = 0
        self._error_logged_at: float | None = None

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the payloads of events, without end. Errors are logged, and the next poll continues."""
        log.info("Following dataflow %s; the Variable %s has the progress", self._flow_id, self._variable.key)
        source = FlowRunSource.of(self._conn_id)
        while True:
            pause = self._poll_interval
            try:
                summaries, cursor, is_complete = await self._poll(source)
            except Exception as error:
                pause = self._pause_after(as_service_error(error))
            else:
                self._failures = 0
                for number, summary in enumerate(summaries, start=1):
                    yield {**summary.event_facts(), "url": summary.url}
                    if number % _BURST == 0:
                        await self._sleep(_BURST_PAUSE_S)
                if summaries:
                    await self._sleep(_SENT_AFTER_S)
                self._cursor = cursor
                await self._store()
                pause = pause if is_complete else min(pause, _NEXT_PAGE_PAUSE_S)
            await self._sleep(pause)

    async def _poll(self, source: FlowRunSource) -> tuple[list[FlowRunSummary], EventCursor, bool]:
        """Return the events, the progress after them, and whether the list of flow runs was complete."""
        if self._cursor is None:
            self._cursor = self._stored = await versions.in_thread(self._variable.read)
        if self._cursor is None:
            self._cursor = await self._first_cursor(source)
        listing = await source.read(self._flow_id, self._cursor)
        step = self._cursor.take(listing.runs, now=versions.utc_now(), is_complete=listing.is_complete)
        for run_id in step.dropped:
            log.warning("Flow run %s has not ended, and is not followed any more, so it will be no event", run_id)
        return list(self._events(step.ended, listing)), step.cursor, listing.is_complete

    async def _first_cursor(self, source: FlowRunSource) -> EventCursor:
        """Return the progress of the first start, in which the flow runs that have ended are no events."""
        now = versions.utc_now()
        cursor = EventCursor.at(self._since or now - FIRST_LOOK_BACK)
        if self._since is None:
            cursor = await self._after_ended_runs(source, cursor, now=now)
        # Before Airflow 3.3, a Variable may be reported as missing because of an error that has passed.
        self._stored = await versions.in_thread(self._variable.read)
        if self._stored is not None:
            return self._stored
        log.info("Dataflow %s has no progress: %s", self._flow_id, _first_start_text(self._since))
        return cursor

    async def _after_ended_runs(self, source: FlowRunSource, cursor: EventCursor, *, now: datetime) -> EventCursor:
        """Return the progress after all flow runs that have ended."""
        for _ in range(_MAX_FIRST_LISTS):
            listing = await source.read(self._flow_id, cursor)
            cursor = cursor.take(listing.runs, now=now, is_complete=listing.is_complete).cursor
            if listing.is_complete:
                return cursor
        raise UnreadableAnswerError("the list of flow runs never ends")

    def _events(self, ended: Iterable[FlowRun], listing: FlowRunListing) -> Iterator[FlowRunSummary]:
        for run in ended:
            url = listing.pages.flow_run(self._flow_id, run.id)
            if not self._has_own and run.created_client == listing.client_id:
                continue
            if run.status.succeeded or self._has_failures:
                yield FlowRunSummary.of(run, flow_id=self._flow_id, url=url)
            else:
                log.warning("Flow run %s ended as %s, and is no event; see %s", run.id, run.status.value, url)

    async def _store(self) -> None:
        """Store the progress if it has changed. After an error, the next poll stores it."""
        cursor = self._cursor
        if cursor is None or cursor == self._stored:
            return
        try:
            await versions.in_thread(self._variable.write, cursor)
        except LedgerUnavailableError as error:
            log.warning("The progress of dataflow %s could not be stored; trying again: %s", self._flow_id, error)
        else:
            self._stored = cursor

    def _pause_after(self, error: FlowServiceError) -> float:
        """Log an error, and return the seconds until the next poll."""
        error.about(flow_id=self._flow_id)
        self._failures += 1
        longest = max(self._poll_interval, _MAX_PAUSE_S)
        pause = min(longest, self._poll_interval * 2.0 ** min(self._failures - 1, 20))
        now = self._monotonic()
        is_due = self._error_logged_at is None or now - self._error_logged_at >= _ERROR_LOG_INTERVAL_S
        is_error = is_due and not error.retryable
        if is_error:
            self._error_logged_at = now
        log.log(
            logging.ERROR if is_error else logging.WARNING,
            "The flow runs of dataflow %s could not be polled %s time(s); polling again in %.0f s: %s",
            self._flow_id,
            self._failures,
            pause,
            error,
        )
        return pause


def _read(client: FlowServiceClient, reader: BatchReader[FlowRun], flow_id: str, cursor: EventCursor) -> FlowRunListing:
    ends_at = time.monotonic() + MAX_READ_S
    listed = metrics.counted(client.list_runs)(
        flow_id=flow_id, created_since=cursor.created_since, order_by="createdAt", limit=100, within_s=MAX_READ_S
    )
    runs = list(islice(listed, _MAX_RUNS + 1))
    is_complete = len(runs) <= _MAX_RUNS
    if not is_complete and any(one > other for one, other in pairwise(_creations(runs))):
        raise UnreadableAnswerError("Flow Service ignored the order of the list of flow runs, and the list is too long")
    runs = runs[:_MAX_RUNS]
    for ids in _groups(reader, cursor.unlisted(runs)):
        within_s = max(1.0, ends_at - time.monotonic())
        results = reader.read(dict.fromkeys(ids, False), within_s=within_s)
        metrics.count("polls")
        runs += [each for each in results.values() if isinstance(each, FlowRun)]
    return FlowRunListing(
        runs=[run for run in runs if run.flow_id is None or run.flow_id.lower() == flow_id.lower()],
        is_complete=is_complete,
        client_id=client.client_id,
        pages=ExperiencePages(organization=client.org_id, sandbox=client.sandbox),
    )


def _creations(runs: Iterable[FlowRun]) -> Iterator[datetime]:
    return (run.created_at for run in runs if run.created_at is not None)


def _groups(reader: BatchReader[FlowRun], ids: Iterable[str]) -> Iterator[list[str]]:
    """Yield ids that fit into one request together."""
    group: list[str] = []
    space = 1.0
    for run_id in ids:
        space -= reader.share(run_id)
        if space < 0 and group:
            yield group
            group, space = [], 1.0 - reader.share(run_id)
        group.append(run_id)
    if group:
        yield group


def _first_start_text(since: datetime | None) -> str:
    if since is None:
        return "events begin with flow runs that end from now on"
    return f"events begin with flow runs created since {since.isoformat()}"
