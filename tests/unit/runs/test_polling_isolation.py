# SPDX-License-Identifier: Apache-2.0
"""Verify that an error which one flow run causes never reaches the waiters of other flow runs."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_flowservice import exceptions
from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import (
    ApiError,
    ConfigurationError,
    FlowServiceError,
    NotSentError,
    RateLimitedError,
    RunRefusedError,
)
from airflow_flowservice.runs import batch_reader, polling
from airflow_flowservice.runs.batch_reader import BatchReader
from airflow_flowservice.runs.polling import Poller, wait_together
from airflow_flowservice.runs.watch import RunWatch

INNOCENTS = [f"00000000-0000-4000-8000-{number:012}" for number in range(60)]
BAD = "bad"
# A request that was not sent, or was refused as one of too many, is not caused by a run.
ERRORS = [each for each in exceptions.tree() if not issubclass(each, (NotSentError, RateLimitedError))]
UNEXPECTED = [
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    MemoryError,
    OSError,
    TimeoutError,
    UnicodeEncodeError,
    AssertionError,
    StopIteration,
    StopAsyncIteration,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    BaseException,
]


def create_error(kind: type[BaseException]) -> BaseException:
    if kind is UnicodeEncodeError:
        return UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")
    return kind("made for this test")


@dataclass
class Service:
    """In-memory Flow Service that fails at one step of each request that contains a bad id.

    :param step: `list`, `page` (after the first run of the list) or `list and read`.
    """

    kind: type[BaseException] | None = None
    step: str = "list"
    bad: frozenset[str] = frozenset({BAD})
    polls: int = 3
    lists: list[list[str]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)

    def list_runs(self, *, ids: Iterable[str], **_: Any) -> Iterable[FlowRun]:
        ids = list(ids)
        self.lists.append(ids)
        if self.step == "page":
            return self._iterate(ids)
        self._fail(ids)
        return [self._run(each) for each in ids]

    def get_run(self, flow_run_id: str, **_: Any) -> FlowRun:
        self.reads.append(flow_run_id)
        if self.step == "list and read":
            self._fail([flow_run_id])
        return self._run(flow_run_id)

    def _iterate(self, ids: list[str]) -> Iterable[FlowRun]:
        yield self._run(ids[0])
        self._fail(ids)
        yield from map(self._run, ids[1:])

    def _fail(self, ids: list[str]) -> None:
        if self.kind and self.bad.intersection(ids):
            raise create_error(self.kind)

    def _run(self, flow_run_id: str) -> FlowRun:
        self.seen[flow_run_id] = self.seen.get(flow_run_id, 0) + 1
        has_ended = self.seen[flow_run_id] > self.polls
        status = FlowRunStatus.SUCCESS if has_ended else FlowRunStatus.IN_PROGRESS
        return FlowRun(id=flow_run_id, status=status, status_word=status.value)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_BATCH_DELAY_S", 0.002)
    monkeypatch.setattr(polling, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(polling, "_MAX_PAUSE_S", 0.02)
    monkeypatch.setattr("airflow_flowservice.runs.watch._MIN_DELAY_S", 0.02)


def wait_for(ids: list[Any], service: Service, **settings: Any) -> dict[Any, Any]:
    """Wait for runs with one poller. Return a run or an error for each id."""

    async def connect() -> Service:
        return service

    async def together() -> list[Any]:
        poller = Poller(settings.pop("connect", connect), **settings)
        waits = [wait_together(RunWatch(flow_run_id=each, poll_interval=0.05), poller) for each in ids]
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 60)

    return dict(zip(map(str, ids), asyncio.run(together()), strict=True))


def require_success(results: dict[Any, Any]) -> None:
    """Verify that each of the innocent waiters received its own run."""
    assert INNOCENTS == [getattr(results[each], "id", results[each]) for each in INNOCENTS]


@pytest.mark.parametrize("step", ["list", "page", "list and read"])
@pytest.mark.parametrize("kind", [*ERRORS, *UNEXPECTED], ids=lambda kind: kind.__name__)
def test_error_of_one_run_does_not_reach_other_waiters(
    kind: type[BaseException], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty waiters continue, whatever is raised at any step of a request that contains the bad run."""

    service = Service(kind=kind, step=step)
    ids = [*INNOCENTS[:30], BAD, *INNOCENTS[30:]]

    async def scenario() -> list[Any]:
        async def connect() -> Service:
            return service

        poller = Poller(connect)
        watches = [RunWatch(flow_run_id=each, poll_interval=0.05, error_budget=60) for each in ids]
        waits = [asyncio.ensure_future(wait_together(watch, poller)) for watch in watches]
        innocent = [wait for wait, each in zip(waits, ids, strict=True) if each != BAD]
        runs = await asyncio.wait_for(asyncio.gather(*innocent, return_exceptions=True), 60)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return runs

    assert INNOCENTS == [getattr(each, "id", each) for each in asyncio.run(scenario())]
    assert len(service.lists) < 120


@pytest.mark.parametrize("bad", [1, 2, 7, 60])
@pytest.mark.parametrize("kind", [RunRefusedError, exceptions.AccessDeniedError, ConfigurationError])
def test_several_refused_runs_end_only_their_own_waits(bad: int, kind: type[FlowServiceError]) -> None:
    """Each refused waiter receives its own error, with its own run if the error is Flow Service's."""
    names = [f"bad-{number}" for number in range(bad)]
    service = Service(kind=kind, step="list and read", bad=frozenset(names))
    mixed = [each for pair in zip(INNOCENTS, [*names, *[None] * (60 - bad)], strict=True) for each in pair if each]
    results = wait_for(mixed, service)
    require_success(results)
    assert {kind} == {type(results[each]) for each in names}
    if issubclass(kind, ApiError):
        assert names == [results[each].flow_run_id for each in names]


@pytest.mark.parametrize(
    "flow_run_id", ["a/b", "x" * 201, "{'id': 'a'}", "", "a,b", "a\x00b", "\ud800", "é", "a b", "../flows", None, 7, {}]
)
def test_invalid_id_is_never_requested(flow_run_id: Any) -> None:
    """The waiter receives a typed error before a request; the other waiters never see the id."""
    service = Service()
    results = wait_for([*INNOCENTS, flow_run_id], service)
    require_success(results)
    assert isinstance(results[str(flow_run_id)], ConfigurationError)
    assert not service.reads
    assert all(set(ids) <= set(INNOCENTS) for ids in service.lists)


@pytest.mark.parametrize("within", [float("nan"), float("inf"), -5.0])
def test_unusual_delay_does_not_stop_other_waiters(within: float) -> None:
    """A delay that is not a number would otherwise break the order of the questions."""
    service = Service(polls=0)

    async def scenario() -> list[FlowRun]:
        async def connect() -> Service:
            return service

        poller = Poller(connect)
        unusual = asyncio.ensure_future(poller.ask("unusual", within=within))
        await asyncio.sleep(0)
        asked = [poller.ask(each, within=0.02) for each in INNOCENTS]
        runs = await asyncio.wait_for(asyncio.gather(*asked), 10)
        unusual.cancel()
        return runs

    assert INNOCENTS == [run.id for run in asyncio.run(scenario())]


@pytest.mark.parametrize("step", ["connect", "in_thread", "sleep"])
@pytest.mark.parametrize("kind", [*UNEXPECTED[:12], asyncio.CancelledError], ids=lambda kind: kind.__name__)
def test_failing_step_of_the_poller_ends_no_wait(step: str, kind: type[BaseException]) -> None:
    """All waiters continue after the step failed several times."""
    failures = iter(range(5))

    def failing(call: Callable[..., Any]) -> Callable[..., Any]:
        async def step_or_fail(*arguments: Any) -> Any:
            if next(failures, None) is not None:
                raise create_error(kind)
            return await call(*arguments)

        return step_or_fail

    service = Service(polls=10)

    async def connect() -> Service:
        return service

    calls = {"connect": connect, "in_thread": asyncio.to_thread, "sleep": asyncio.sleep}
    require_success(wait_for(INNOCENTS, service, **{step: failing(calls[step])}))
    assert next(failures, None) is None


def test_refused_run_costs_few_requests() -> None:
    """Sixty waiters stay at a handful of requests: one list and one separate read for each poll."""
    service = Service(kind=RunRefusedError, polls=1000)
    reader = BatchReader(service)
    wanted = dict.fromkeys([*INNOCENTS, BAD], True)
    for _ in range(2):
        results = reader.read(wanted)
    assert len(service.lists) <= 15
    service.lists.clear()
    service.reads.clear()
    for _ in range(10):
        results = reader.read(wanted)
    assert set(wanted) == {run.id for run in results.values() if isinstance(run, FlowRun)}
    assert (10, [BAD] * 10) == (len(service.lists), service.reads)


def test_separate_run_is_listed_with_others_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes, one list contains all runs."""
    clock = [0.0]
    service = Service(kind=RunRefusedError, polls=1000)
    reader = BatchReader(service, monotonic=lambda: clock[0])
    wanted = dict.fromkeys([*INNOCENTS, BAD], True)
    reader.read(wanted)
    service.kind = None
    clock[0] = batch_reader._FIRST_APART_S - 1
    reader.read(wanted)
    assert BAD not in service.lists[-1]
    clock[0] += 2
    service.reads.clear()
    reader.read(wanted)
    assert (set(wanted), []) == (set(service.lists[-1]), service.reads)


def test_single_reads_are_replaced_by_lists_again() -> None:
    """Lists are tried again after five minutes, then after ten, and at most an hour later."""
    clock = [0.0]
    service = Service(kind=RunRefusedError, bad=frozenset(INNOCENTS), polls=10**9)
    reader = BatchReader(service, monotonic=lambda: clock[0])
    wanted = dict.fromkeys(INNOCENTS, True)
    tried = []
    for minute in range(240):
        clock[0] = 60.0 * minute
        before = len(service.lists)
        reader.read(wanted)
        if len(service.lists) > before:
            tried.append(minute)
    assert [0, 5, 15, 35, 75, 135, 195] == tried
    service.kind = None
    clock[0] += 3600
    results = reader.read(wanted)
    assert reader.together
    assert set(wanted) == set(results)


def test_outage_is_not_halved() -> None:
    """While single reads fail also, each poll sends one list, and every third poll two single reads."""
    service = Service(kind=exceptions.ServerError, step="list and read", bad=frozenset(INNOCENTS))
    reader = BatchReader(service)
    for _ in range(9):
        results = reader.read(dict.fromkeys(INNOCENTS, True))
        assert {exceptions.ServerError} == {type(each) for each in results.values()}
    assert (9, 6) == (len(service.lists), len(service.reads))
    assert reader.together


def test_all_builtin_exceptions_are_converted() -> None:
    """An exception of any class becomes an error of this package that can pass."""
    kinds = [each for each in vars(builtins).values() if isinstance(each, type) and issubclass(each, BaseException)]
    for kind in kinds:
        error = kind.__new__(kind, "group", [ValueError()]) if kind.__name__.endswith("Group") else kind.__new__(kind)
        assert batch_reader.as_service_error(error).retryable, kind


@pytest.mark.parametrize("kind", [exceptions.NoAnswerError, exceptions.UnreadableAnswerError])
def test_slow_lists_end_with_the_time_of_a_read(kind: type[FlowServiceError]) -> None:
    """If every request takes a minute, a read of many runs ends after two, and attributes no error to one run."""
    clock, wanted = [0.0], dict.fromkeys(INNOCENTS, True)

    class Slow:
        requests = 0

        def list_runs(self, *, within_s: float, **_: Any) -> list[FlowRun]:
            self.requests += 1
            clock[0] += min(60.0, within_s)
            raise kind("slow")

        def get_run(self, flow_run_id: str, *, within_s: float) -> FlowRun:
            self.list_runs(within_s=within_s)
            raise AssertionError

    service = Slow()
    reader = BatchReader(service, monotonic=lambda: clock[0])
    for reads in range(1, 7):
        results = reader.read(wanted, within_s=120.0)
        assert clock[0] <= 120.0 * reads
        assert set(wanted) == set(results)
        assert all(isinstance(each, FlowServiceError) and each.retryable for each in results.values())
        clock[0] = 120.0 * reads
    assert service.requests <= 12
    assert {} == reader._separate_until
