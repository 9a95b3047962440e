"""Poll many flow runs with shared requests, over one connection.

A `Poller` collects the questions of its waiters and has at most one request in flight. A `BatchReader` reads many runs
with one request, and falls back to single requests if Flow Service does not support that. Each waiter evaluates its
own result with a `RunWatch`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    FlowServiceError,
    RunNotFoundError,
    RunRefusedError,
    UnreadableAnswerError,
    from_dict,
)

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.watch import RunWatch

    PollResult = FlowRun | FlowServiceError

log = logging.getLogger(__name__)

# Waiters that received a result ask again within this time, so that the next request includes them.
_BATCH_DELAY_S = 0.05
_FIRST_PAUSE_S, _MAX_PAUSE_S = 1.0, 60.0
_CREDENTIAL_REFUSED = (AccessDeniedError, AuthenticationError)

# Maximum length of the ids in an address of 4 KiB; the rest is for the host, the path and other parameters.
_MAX_IDS_LENGTH = 3500
_COMMA_LENGTH = len("%2C")
_UNRESERVED = re.compile(r"[\w.~-]*", re.ASCII)
_MAX_SINGLE_READS = 10
# Flow Service may return fewer runs per page than requested. If it ignores the filter, the pages do not end.
_MAX_PAGES = 5
# A list may lag behind. A list that omits existing runs several times in a row ignores its filter.
_MAX_OMISSIONS = 3


class RunReader(Protocol):
    """Read access to flow runs, for example `api.client.FlowServiceClient`."""

    def get_run(self, flow_run_id: str, /) -> FlowRun:
        """Read one run."""

    def list_runs(
        self, *, ids: Iterable[str], order_by: str | None, limit: int | None, max_pages: int | None, briefly: bool
    ) -> Iterable[FlowRun]:
        """Read these runs; if briefly, only id, dataflow and status of runs that have not ended."""


@dataclass
class BatchReader:
    """Read many runs with one request. Blocks; only one thread at a time may use it.

    Falls back to one request per run permanently if Flow Service refuses the filter by id, or if its list omits
    an existing run `_MAX_OMISSIONS` times in a row.
    """

    service: RunReader
    together: bool = field(default=True, init=False)
    _omissions: int = field(default=0, init=False)

    def share(self, flow_run_id: str) -> float:
        """Return the share of one request that this id needs; the sum over one request must not exceed 1."""
        if not self.together:
            return 1 / _MAX_SINGLE_READS
        # Almost all ids are UUIDs, and each id is measured before each poll.
        quoted = flow_run_id if _UNRESERVED.fullmatch(flow_run_id) else quote(flow_run_id, safe="")
        return (len(quoted) + _COMMA_LENGTH) / _MAX_IDS_LENGTH

    def read(self, wanted: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """Return each run, or the error from reading it.

        :param wanted: ids, and whether the run could be read before. If so, its absence from a list is verified.
        """
        if self.together:
            try:
                found = self._listed(wanted)
            except RunRefusedError as error:
                self._fall_back(f"refuses to list runs by their ids ({error.message})")
            except ApiError as error:
                return dict.fromkeys(wanted, error)
            else:
                return found | self._absent({run_id: seen for run_id, seen in wanted.items() if run_id not in found})
        return {run_id: self._single(run_id) for run_id in wanted}

    def _listed(self, wanted: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """Return the runs that a list shows; read further pages only while runs are missing."""
        found: dict[str, FlowRun | ApiError] = {}
        # Hundreds of runs are read each minute, and most have not changed, so they are read briefly.
        runs = self.service.list_runs(ids=wanted, order_by=None, limit=len(wanted), max_pages=_MAX_PAGES, briefly=True)
        for run in runs:
            if run.id in wanted:
                found[run.id] = run
            if len(found) == len(wanted):
                break
        return found

    def _absent(self, absent: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """Return results for runs that the list omits: new runs, vanished runs, or runs that the filter missed.

        Runs that could be read before are read singly; if there are none, one of the other runs is.
        """
        verified = [run_id for run_id, seen in absent.items() if seen] or list(absent)[:1]
        results: dict[str, FlowRun | ApiError] = {
            run_id: RunNotFoundError("the flow run does not show in the list of runs", flow_run_id=run_id)
            for run_id in absent
        }
        singles = {run_id: self._single(run_id) for run_id in verified}
        is_omission = any(not isinstance(result, ApiError) for result in singles.values())
        self._omissions = self._omissions + 1 if is_omission else 0
        if self._omissions >= _MAX_OMISSIONS:
            self._fall_back("omits existing runs when it lists them by their ids")
        return results | singles

    def _single(self, flow_run_id: str) -> FlowRun | ApiError:
        try:
            return self.service.get_run(flow_run_id)
        except ApiError as error:
            return error

    def _fall_back(self, reason: str) -> None:
        self.together = False
        log.warning("Flow Service %s; reading each flow run with a separate request", reason)


class _Question(NamedTuple):
    """A waiter's question, in a heap by due time. A tuple, because comparing tuples is fast."""

    due: float
    number: int
    flow_run_id: str
    asked_at: float
    seen: bool
    result: asyncio.Future[FlowRun]

    def can_be_answered(self, now: float) -> bool:
        """Return whether half of the time until the due time has passed, so that it can join other questions."""
        return now - self.asked_at >= self.due - now


class Poller:
    """Read runs for many waiters in one event loop, over one connection.

    Works while there are questions. After errors it pauses, longer each time, up to a minute.

    :param connect: returns the service; called before the first request, and after the credential was refused.
    :param in_thread: runs a blocking call outside of the event loop.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[RunReader]],
        *,
        in_thread: Callable[..., Awaitable[Any]] = asyncio.to_thread,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect = connect
        self._in_thread = in_thread
        self._monotonic = monotonic
        self._sleep = sleep
        self._reader: BatchReader | None = None
        self._questions: list[_Question] = []
        self._numbers = count()
        self._sooner = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._pause = 0.0

    async def ask(self, flow_run_id: str, *, within: float, seen: bool = False) -> FlowRun:
        """Return the current state of the run.

        :param within: seconds until the question is due; it may be answered after half of them.
        :param seen: the run could be read before.
        :raises FlowServiceError: the error from reading the run.
        """
        loop = asyncio.get_running_loop()
        now = self._monotonic()
        question = _Question(now + within, next(self._numbers), flow_run_id, now, seen, loop.create_future())
        heapq.heappush(self._questions, question)
        if self._questions[0] is question:
            self._sooner.set()
        if self._serving is None or self._serving.done():
            # A separate context, because log lines of shared requests do not belong to one waiter's task log.
            self._serving = contextvars.Context().run(loop.create_task, self._serve())
        return await question.result

    async def _serve(self) -> None:
        while self._questions:
            await self._wait_until_due()
            await self._answer_due()
            await self._sleep(max(self._pause, _BATCH_DELAY_S))

    async def _wait_until_due(self) -> None:
        while (delay := self._questions[0].due - self._monotonic()) > 0:
            self._sooner.clear()
            try:
                await asyncio.wait_for(self._sooner.wait(), delay)
            except asyncio.TimeoutError:
                return

    async def _answer_due(self) -> None:
        reader, error = await self._connected()
        questions = self._take(reader)
        results: dict[str, FlowRun | ApiError] = {}
        if reader is not None and questions:
            try:
                results = await self._in_thread(reader.read, _wanted(questions))
            except Exception as unexpected:  # otherwise its waiters would wait forever
                error = _as_service_error(unexpected)
        self._update_pause([*results.values(), *([error] if error else [])])
        for question in questions:
            _deliver(question.result, results.get(question.flow_run_id, error))

    async def _connected(self) -> tuple[BatchReader | None, FlowServiceError | None]:
        if self._reader is None:
            try:
                self._reader = BatchReader(await self._connect())
            except Exception as error:
                return None, _as_service_error(error)
        return self._reader, None

    def _take(self, reader: BatchReader | None) -> list[_Question]:
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

    def _update_pause(self, results: list[PollResult]) -> None:
        """Pause if all results are errors; look the connection up again if its credential was refused."""
        errors = [result for result in results if isinstance(result, FlowServiceError)]
        if any(isinstance(error, _CREDENTIAL_REFUSED) for error in errors):
            self._reader = None
        if errors and len(errors) == len(results) and not all(isinstance(e, RunNotFoundError) for e in errors):
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE_S), _MAX_PAUSE_S)
        else:
            self._pause = 0.0


async def wait_together(watch: RunWatch, poller: Poller) -> FlowRun:
    """Wait until the run has ended, and return it.

    :raises FlowServiceError: as `RunWatch.poll`.
    """
    while True:
        try:
            result: PollResult = await poller.ask(watch.flow_run_id, within=watch.delay, seen=watch.seen)
        except FlowServiceError as error:
            result = error
        if (run := watch.poll(partial(_run_or_raise, result))) is not None:
            return run


def _run_or_raise(result: PollResult, _: str) -> FlowRun:
    if isinstance(result, FlowServiceError):
        raise result
    return result


def _wanted(questions: Iterable[_Question]) -> dict[str, bool]:
    """Return the ids of the questions, and whether any waiter could read the run before."""
    wanted: dict[str, bool] = {}
    for question in questions:
        wanted[question.flow_run_id] = question.seen or wanted.get(question.flow_run_id, False)
    return wanted


def _deliver(future: asyncio.Future[FlowRun], result: PollResult | None) -> None:
    if future.done():
        return
    if isinstance(result, FlowServiceError):
        # Each waiter adds its own run to its copy of the error.
        future.set_exception(from_dict(result.to_dict()))
    elif result is not None:
        future.set_result(result)


def _as_service_error(error: Exception) -> FlowServiceError:
    if isinstance(error, FlowServiceError):
        return error
    log.exception("Polling failed unexpectedly")
    return UnreadableAnswerError(f"polling failed: {type(error).__name__}")
