# SPDX-License-Identifier: Apache-2.0
"""Poll many flow runs with shared requests, over one connection.

A `Poller` collects the questions of its waiters and has at most one request in flight. A `BatchReader` reads many runs
with one request. Each waiter evaluates its own result with a `RunWatch`.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from airflow_flowservice.api.validation import validate_identifier
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    BatchNotFoundError,
    FlowServiceError,
    RunNotFoundError,
    from_dict,
)
from airflow_flowservice.runs.batch_reader import (
    FLOW_RUNS,
    BatchReader,
    Item,
    ItemKind,
    RunReader,
    as_service_error,
)

if TYPE_CHECKING:
    from airflow_flowservice.api.catalog import CatalogBatch
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.batch_watch import BatchResults
    from airflow_flowservice.runs.watch import RunWatch

    PollResult = FlowRun | FlowServiceError

log = logging.getLogger(__name__)

# Waiters that received a result ask again within this time, so that the next request includes them.
_BATCH_DELAY_S = 0.05
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
# Limit of the requests that answer one set of questions. A slow server would otherwise keep all waiters for an hour.
MAX_READ_S = 120.0
# Questions from which the garbage collector skips all objects that exist, as in Airflow's LocalExecutor. Otherwise, its
# longest collections stop the event loop for longer, the more tasks wait: 0.2 s with 10,000. Airflow's triggerer takes
# 1,000 triggers by default.
_FREEZE_FROM = 2000
_CREDENTIAL_REFUSED = (AccessDeniedError, AuthenticationError)
_NOT_FOUND = (RunNotFoundError, BatchNotFoundError)


class _Question(NamedTuple):
    """A waiter's question, in a heap by due time. A tuple, because comparing tuples is fast."""

    due: float
    number: int
    flow_run_id: str
    asked_at: float
    seen: bool
    result: asyncio.Future[Any]

    def can_be_answered(self, now: float) -> bool:
        """Return whether half of the time until the due time has passed, so that it can join other questions."""
        return now - self.asked_at >= self.due - now


class Poller(Generic[Item]):
    """Read runs for many waiters in one event loop, over one connection; or the catalogue's batches.

    Works while there are questions. After errors it pauses, longer each time, up to a minute.

    :param connect: returns the service; called before the first request, and after the credential was refused.
    :param kind: kind of the objects that the service reads.
    :param in_thread: runs a blocking call outside of the event loop.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[RunReader[Item]]],
        *,
        kind: ItemKind = FLOW_RUNS,
        in_thread: Callable[..., Awaitable[Any]] = asyncio.to_thread,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect = connect
        self._kind = kind
        self._in_thread = in_thread
        self._monotonic = monotonic
        self._sleep = sleep
        self._reader: BatchReader[Item] | None = None
        self._is_connected = False
        self._questions: list[_Question] = []
        self._numbers = count()
        self._sooner = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._freeze_at = _FREEZE_FROM

    @property
    def service(self) -> RunReader[Item] | None:
        """Return the service that `connect` returned last; None before the first request."""
        return self._reader.service if self._reader else None

    async def ask(self, flow_run_id: str, *, within: float, seen: bool = False) -> Item:
        """Return the current state of the run.

        :param within: seconds until the question is due; it may be answered after half of them.
        :param seen: the run could be read before.
        :raises ConfigurationError: the id is not an identifier; it never becomes a part of a shared request.
        :raises FlowServiceError: the error from reading the run.
        """
        validate_identifier(flow_run_id, "flow_run_id")
        loop = asyncio.get_running_loop()
        now = self._monotonic()
        # A due time that is not a number would break the order of all questions.
        within = max(0.0, within) if math.isfinite(within) else _MAX_PAUSE_S
        question = _Question(now + within, next(self._numbers), flow_run_id, now, seen, loop.create_future())
        heapq.heappush(self._questions, question)
        if self._questions[0] is question:
            self._sooner.set()
        if len(self._questions) >= self._freeze_at:
            gc.freeze()
            self._freeze_at *= 2
        self._ensure_serving()
        result: Item = await question.result
        return result

    def _ensure_serving(self) -> None:
        """Start the serving task if there is none and a waiter is left."""
        if self._serving is not None and not self._serving.done():
            return
        if all(question.result.done() for question in self._questions):
            return
        # A separate context, because log lines of shared requests do not belong to one waiter's task log.
        self._serving = contextvars.Context().run(asyncio.get_running_loop().create_task, self._serve())

    async def _serve(self) -> None:
        try:
            while self._questions:
                try:
                    await self._wait_until_due()
                    await self._answer_due()
                    await self._sleep(max(self._pause, _BATCH_DELAY_S))
                except Exception as unexpected:
                    self._fail_due(as_service_error(unexpected))
                    await asyncio.sleep(max(self._pause, _BATCH_DELAY_S))
        finally:
            if self._questions:  # only this task was cancelled, and not its waiters
                asyncio.get_running_loop().call_later(_BATCH_DELAY_S, self._ensure_serving)
            elif self._freeze_at > _FREEZE_FROM:
                gc.unfreeze()
                self._freeze_at = _FREEZE_FROM

    async def _wait_until_due(self) -> None:
        while (delay := self._questions[0].due - self._monotonic()) > 0:
            self._sooner.clear()
            try:
                await asyncio.wait_for(self._sooner.wait(), delay)
            except asyncio.TimeoutError:
                return

    async def _answer_due(self) -> None:
        error = await self._connect_reader()
        reader = None if error else self._reader
        questions = self._take(reader)
        results: dict[str, Item | FlowServiceError] = {}
        if reader is not None and questions:
            try:
                results = await self._in_thread(partial(reader.read, _wanted(questions), within_s=MAX_READ_S))
            except Exception as unexpected:  # otherwise its waiters would wait forever
                error = as_service_error(unexpected)
            except BaseException:
                self._ask_again(questions)
                raise
        self._update_pause([*results.values(), *([error] if error else [])])
        for question in questions:
            result = results.get(question.flow_run_id, error)
            if result is None:
                self._ask_again([question])
            else:
                _deliver(question.result, result)

    def _fail_due(self, error: FlowServiceError) -> None:
        """Deliver an unexpected error of this class, so that no waiter waits forever."""
        self._update_pause([error])
        for question in self._take(None):
            _deliver(question.result, error)

    def _ask_again(self, questions: Iterable[_Question]) -> None:
        for question in questions:
            heapq.heappush(self._questions, question)

    async def _connect_reader(self) -> FlowServiceError | None:
        """Look the service up if necessary; return the error of the look-up."""
        if self._is_connected:
            return None
        try:
            service = await self._connect()
        except Exception as error:
            return as_service_error(error)
        if self._reader is None:
            self._reader = BatchReader(service, kind=self._kind)
        self._reader.service, self._is_connected = service, True
        return None

    def _take(self, reader: BatchReader[Item] | None) -> list[_Question]:
        """Remove and return the questions for one request; without a reader, all that can be answered."""
        now, space = self._monotonic(), 1.0
        questions: list[_Question] = []
        while self._questions and self._questions[0].can_be_answered(now):
            space -= reader.share(self._questions[0].flow_run_id) if reader else 0.0
            if space < 0 and questions:
                break
            question = heapq.heappop(self._questions)
            if not question.result.done():  # a done result means that its waiter was cancelled
                questions.append(question)
        return questions

    def _update_pause(self, results: Sequence[Item | FlowServiceError]) -> None:
        """Pause if all results are errors; look the connection up again if its credential was refused."""
        errors = [result for result in results if isinstance(result, FlowServiceError)]
        if any(isinstance(error, _CREDENTIAL_REFUSED) for error in errors):
            self._is_connected = False
        if errors and len(errors) == len(results) and not all(isinstance(e, _NOT_FOUND) for e in errors):
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE_S), _MAX_PAUSE_S)
        else:
            self._pause = 0.0


async def wait_together(
    watch: RunWatch, poller: Poller[FlowRun], batch_poller: Poller[CatalogBatch] | None = None
) -> FlowRun:
    """Wait until the run has ended, and return it.

    :param batch_poller: for a watch that also waits for the run's batches.
    :raises FlowServiceError: as `RunWatch.poll`.
    """
    while True:
        if batch_poller is not None and watch.pending_batches:
            batches = await _ask_for_batches(watch, batch_poller)
            run = watch.poll_batches(partial(_known_batches, batches))
        else:
            try:
                result: PollResult = await poller.ask(watch.flow_run_id, within=watch.delay, seen=watch.seen)
            except FlowServiceError as error:
                result = error
            run = watch.poll(partial(_run_or_raise, result))
        if run is not None:
            return run


async def _ask_for_batches(
    watch: RunWatch, poller: Poller[CatalogBatch]
) -> Mapping[str, CatalogBatch | FlowServiceError]:
    """Return the state of each batch that the watch waits for, or the error from reading it."""
    within, wanted = watch.delay, watch.pending_batches
    questions = [poller.ask(batch_id, within=within, seen=seen) for batch_id, seen in wanted.items()]
    results = await asyncio.gather(*questions, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, FlowServiceError):
            raise result
    return dict(zip(wanted, results, strict=True))  # type: ignore[arg-type]


def _known_batches(batches: BatchResults, _: Mapping[str, bool], *, within_s: float | None) -> BatchResults:
    return batches


def _run_or_raise(result: PollResult, _: str, *, within_s: float | None) -> FlowRun:
    if isinstance(result, FlowServiceError):
        raise result
    return result


def _wanted(questions: Iterable[_Question]) -> dict[str, bool]:
    """Return the ids of the questions, and whether any waiter could read the run before."""
    wanted: dict[str, bool] = {}
    for question in questions:
        wanted[question.flow_run_id] = question.seen or wanted.get(question.flow_run_id, False)
    return wanted


def _deliver(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, FlowServiceError):
        # Each waiter adds its own run to its copy of the error.
        future.set_exception(from_dict(result.to_dict()))
    else:
        future.set_result(result)
