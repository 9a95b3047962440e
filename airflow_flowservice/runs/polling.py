"""Many waiters, one request: runs that are waited for on one connection are asked for together.

A `Poller` gathers what its waiters want to know, and has at most one request in flight; what each of them makes
of its answer is `watching.RunWatch`'s.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    FlowServiceError,
    RunNotFoundError,
    UnreadableAnswerError,
    from_dict,
)
from airflow_flowservice.runs.batch import BatchReader

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.batch import Service
    from airflow_flowservice.runs.watch import RunWatch

    Answer = FlowRun | FlowServiceError

log = logging.getLogger(__name__)

# So that those who got an answer are back with their next question before the next request is put together.
_BREATH = 0.05
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_CREDENTIAL_REFUSED = (AccessDeniedError, AuthenticationError)


class _Question(NamedTuple):
    """In a heap by when it is due; a tuple, since a thousand waiters compare ten thousand times a poll."""

    due: float
    number: int
    flow_run_id: str
    asked_at: float
    seen: bool
    answer: asyncio.Future[FlowRun]

    def may_be_answered(self, now: float) -> bool:
        """When half of the time is over, it may as well be answered along with others."""
        return now - self.asked_at >= self.due - now


class Poller:
    """Answers questions about runs together, in one event loop and over one connection.

    Works while there are questions. After errors it pauses, longer each time, up to a minute.

    :param connect: gives the service; called before the first question, and after its credential was refused.
    :param in_thread: runs a blocking call beside the event loop.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Service]],
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
        """The run as it is by then.

        :param within: seconds until the question is due; it may be answered when half of them are over.
        :param seen: the run could be read before.
        :raises FlowServiceError: what reading it gave.
        """
        loop = asyncio.get_running_loop()
        now = self._monotonic()
        question = _Question(now + within, next(self._numbers), flow_run_id, now, seen, loop.create_future())
        heapq.heappush(self._questions, question)
        if self._questions[0] is question:
            self._sooner.set()
        if self._serving is None or self._serving.done():
            # In a context of its own: what is logged here belongs to no waiter.
            self._serving = contextvars.Context().run(loop.create_task, self._serve())
        return await question.answer

    async def _serve(self) -> None:
        while self._questions:
            await self._until_due()
            await self._answer_some()
            await self._sleep(max(self._pause, _BREATH))

    async def _until_due(self) -> None:
        while (delay := self._questions[0].due - self._monotonic()) > 0:
            self._sooner.clear()
            try:
                await asyncio.wait_for(self._sooner.wait(), delay)
            except asyncio.TimeoutError:
                return

    async def _answer_some(self) -> None:
        reader, error = await self._connected()
        questions = self._take(reader)
        answers: dict[str, FlowRun | ApiError] = {}
        if reader is not None and questions:
            wanted: dict[str, bool] = {}
            for question in questions:
                wanted[question.flow_run_id] = question.seen or wanted.get(question.flow_run_id, False)
            try:
                answers = await self._in_thread(reader.read, wanted)
            except Exception as unexpected:  # nobody may wait for ever for it
                error = _told(unexpected)
        self._consider([*answers.values(), *([error] if error else [])])
        for question in questions:
            _give(question.answer, answers.get(question.flow_run_id, error))

    async def _connected(self) -> tuple[BatchReader | None, FlowServiceError | None]:
        if self._reader is None:
            try:
                self._reader = BatchReader(await self._connect())
            except Exception as error:
                return None, _told(error)
        return self._reader, None

    def _take(self, reader: BatchReader | None) -> list[_Question]:
        """Questions for one request; without a reader, all that can be answered with an error."""
        now, room = self._monotonic(), 1.0
        questions: list[_Question] = []
        while self._questions and self._questions[0].may_be_answered(now):
            room -= reader.share(self._questions[0].flow_run_id) if reader else 0.0
            if room < 0 and questions:
                break
            question = heapq.heappop(self._questions)
            if not question.answer.done():  # else its waiter was cancelled
                questions.append(question)
        return questions

    def _consider(self, answers: list[Answer]) -> None:
        """Pause after errors; look the connection up again when its credential was refused."""
        errors = [answer for answer in answers if isinstance(answer, FlowServiceError)]
        if any(isinstance(error, _CREDENTIAL_REFUSED) for error in errors):
            self._reader = None
        if errors and len(errors) == len(answers) and not all(isinstance(e, RunNotFoundError) for e in errors):
            self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        else:
            self._pause = 0.0


async def wait_together(watch: RunWatch, poller: Poller) -> FlowRun:
    """Wait until the run has ended, and return it; raises what `RunWatch.look` raises."""
    while True:
        try:
            answer: Answer = await poller.ask(watch.flow_run_id, within=watch.delay, seen=watch.seen)
        except FlowServiceError as error:
            answer = error
        if (run := watch.look(partial(_run_of, answer))) is not None:
            return run


def _run_of(answer: Answer, _: str) -> FlowRun:
    if isinstance(answer, FlowServiceError):
        raise answer
    return answer


def _give(waiting: asyncio.Future[FlowRun], answer: Answer | None) -> None:
    if waiting.done():
        return
    if isinstance(answer, FlowServiceError):
        # Each waiter tells its own copy where it belongs.
        waiting.set_exception(from_dict(answer.to_dict()))
    elif answer is not None:
        waiting.set_result(answer)


def _told(error: Exception) -> FlowServiceError:
    if isinstance(error, FlowServiceError):
        return error
    log.exception("Polling failed unexpectedly")
    return UnreadableAnswerError(f"polling failed: {type(error).__name__}")
