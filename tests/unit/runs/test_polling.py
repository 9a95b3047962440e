# SPDX-License-Identifier: Apache-2.0
"""Poll many runs with shared requests: the poller with an in-memory service, in real but short time."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import pytest

from airflow_flowservice.api.models import FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import (
    AuthenticationError,
    ConfigurationError,
    FlowRunVanishedError,
    FlowServiceError,
    RunNotFoundError,
    RunRefusedError,
    ServerError,
)
from airflow_flowservice.runs import polling
from airflow_flowservice.runs.polling import BatchReader, Poller, wait_together
from airflow_flowservice.runs.watch import RunWatch

RUNNING, SUCCESS = FlowRunStatus.IN_PROGRESS, FlowRunStatus.SUCCESS


def run_id(number: int) -> str:
    """Return an id as long as Adobe's ids."""
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Service:
    """In-memory Flow Service; `on_list` and `on_get` may raise, or change the runs."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    listed: list[list[str]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    on_list: Callable[[list[FlowRun]], list[FlowRun]] = lambda found: found
    on_get: Callable[[list[FlowRun]], list[FlowRun]] = lambda found: found
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int, *, reads: int = 0) -> list[str]:
        """Add runs that succeed after this number of reads. Return their ids."""
        ids = [run_id(len(self.runs) + number) for number in range(count)]
        for each in ids:
            self.runs[each] = FlowRun(id=each, status=RUNNING, status_word="inProgress", output_records=reads)
        return ids

    def get_run(self, flow_run_id: str, **_: Any) -> FlowRun:
        self.read.append(flow_run_id)
        if flow_run_id not in self.runs:
            raise RunNotFoundError("unknown", http_status=404)
        return self.on_get([self._read_run(flow_run_id)])[0]

    def list_runs(self, *, ids: Any, **_: Any) -> list[FlowRun]:
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            self.listed.append(list(ids))
            return self.on_list([self._read_run(each) for each in ids if each in self.runs])
        finally:
            with self.lock:
                self.in_flight -= 1

    def _read_run(self, flow_run_id: str) -> FlowRun:
        run = self.runs[flow_run_id]
        reads = (run.output_records or 0) - 1
        status = RUNNING if reads >= 0 else SUCCESS
        self.runs[flow_run_id] = replace(run, status=status, status_word=status.value, output_records=reads)
        return self.runs[flow_run_id]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_BATCH_DELAY_S", 0.002)
    monkeypatch.setattr(polling, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("airflow_flowservice.runs.watch._MIN_DELAY_S", 0.02)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wait_for(service: Service) -> Callable[..., list[Any]]:
    """Return a function that waits for runs together, and returns a run or an error for each."""

    def wait(ids: list[str], *, connect: Any = None, sleep: Any = asyncio.sleep, **settings: Any) -> list[Any]:
        async def connected() -> Service:
            return service

        async def together() -> list[Any]:
            poller = Poller(connect or connected, sleep=sleep)
            watches = [RunWatch(flow_run_id=each, **{"poll_interval": 0.05, **settings}) for each in ids]
            waits = [wait_together(watch, poller) for watch in watches]
            return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 30)

        return asyncio.run(together())

    return wait


class TestTogether:
    def test_each_waiter_gets_its_own_run(self, service: Service, wait_for: Any) -> None:
        """The order of the responses does not matter."""
        ids = service.add(250)
        random.shuffle(ids)
        assert ids == [run.id for run in wait_for(ids)]

    def test_a_hundred_runs_need_at_most_two_requests_per_poll(self, service: Service, wait_for: Any) -> None:
        """The runs are not read singly."""
        wait_for(service.add(100, reads=5))
        assert len(service.listed) <= 2 * 6 + 4
        assert [] == service.read

    def test_address_is_shorter_than_four_kilobytes(self, service: Service, wait_for: Any) -> None:
        """Commas are quoted, as `requests` sends them."""
        wait_for(service.add(1000))
        assert max(len("%2C".join(ids)) for ids in service.listed) < 3600
        assert len(service.listed) <= 1000 // 85 + 2

    def test_only_one_request_is_in_flight(self, service: Service, wait_for: Any) -> None:
        """Waiters that join during a request wait for the next one."""
        wait_for(service.add(500, reads=2))
        assert 1 == service.most_in_flight

    def test_a_shared_run_is_requested_once(self, service: Service, wait_for: Any) -> None:
        """For example, two sensors wait for one run."""
        [each] = service.add(1)
        assert [each, each, each] == [run.id for run in wait_for([each] * 3)]
        assert all(ids == [each] for ids in service.listed)

    def test_runs_that_ended_are_not_requested_again(self, service: Service, wait_for: Any) -> None:
        short, long = service.add(20), service.add(20, reads=6)
        wait_for([*short, *long])
        assert set(long) >= set(service.listed[-1])

    def test_late_waiter_is_served_soon(self, service: Service) -> None:
        """Waiters whose next poll is an hour away do not delay it."""
        old, new = service.add(1, reads=1000), service.add(1)

        async def scenario() -> FlowRun:
            poller = Poller(lambda: asyncio.sleep(0, service))
            waiting = asyncio.ensure_future(poller.ask(old[0], within=3600))
            await asyncio.sleep(0.05)
            found = await asyncio.wait_for(poller.ask(new[0], within=0.01), 10)
            assert not waiting.done()
            waiting.cancel()
            return found

        assert new[0] == asyncio.run(scenario()).id

    @pytest.mark.parametrize(("waiters", "times"), [(9, 0), (10, 1), (39, 2), (40, 3)])
    def test_collector_skips_the_objects_of_many_waiters(
        self, service: Service, wait_for: Any, monkeypatch: pytest.MonkeyPatch, waiters: int, times: int
    ) -> None:
        """It skips them at each doubling, and no longer after the last wait."""
        frozen: list[int] = []
        monkeypatch.setattr(polling, "_FREEZE_FROM", 10)
        monkeypatch.setattr(polling.gc, "freeze", lambda: frozen.append(1))
        monkeypatch.setattr(polling.gc, "unfreeze", lambda: frozen.append(-1))
        wait_for(service.add(waiters, reads=3))
        assert times == len([each for each in frozen if each > 0])
        assert ([-1] if times else []) == frozen[-1:]
        assert times == 0 or 1 == frozen.count(-1)

    def test_idle_poller_ends(self, service: Service) -> None:
        """Its task ends, and a new question starts another."""
        ids = service.add(2)

        async def scenario() -> list[str]:
            poller = Poller(lambda: asyncio.sleep(0, service))
            found = []
            for each in ids:
                found.append((await poller.ask(each, within=0)).id)
                await asyncio.sleep(0.1)
                assert {asyncio.current_task()} == asyncio.all_tasks()
            return found

        assert ids == asyncio.run(scenario())

    def test_run_of_a_cancelled_waiter_is_not_requested(self, service: Service) -> None:
        """A trigger that was stopped causes no requests."""
        gone, here = service.add(1), service.add(1)

        async def scenario() -> None:
            poller = Poller(lambda: asyncio.sleep(0, service))
            waiting = asyncio.ensure_future(poller.ask(gone[0], within=0.03))
            await asyncio.sleep(0)
            waiting.cancel()
            await poller.ask(here[0], within=0.05)

        asyncio.run(scenario())
        assert [here] == service.listed


class TestTrouble:
    def test_errors_do_not_end_waiting(self, service: Service, wait_for: Any) -> None:
        """Within the error budget, no error of a request ends the wait."""
        errors = iter([ServerError("500"), ServerError("502"), AuthenticationError("401")])

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) in (2, 3, 4):
                raise next(errors)
            return found

        service.on_list = fail
        ids = service.add(20, reads=5)
        assert ids == [run.id for run in wait_for(ids)]
        assert [] == list(errors)

    def test_each_error_has_the_waiters_own_run(self, service: Service, wait_for: Any) -> None:
        """One error response is copied for each waiter."""

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            raise ServerError("503")

        service.on_list = fail
        ids = service.add(5)
        service.on_get = fail
        assert ids == [error.flow_run_id for error in wait_for(ids, error_budget=0.1)]

    def test_pauses_grow_after_errors(self, service: Service, wait_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A valid response ends the pauses."""
        pauses: list[float] = []

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if 2 <= len(service.listed) <= 6:
                raise ServerError("503")
            return found

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0.001)

        monkeypatch.setattr(polling, "_MAX_PAUSE_S", 0.05)
        service.on_list = fail
        wait_for(service.add(1, reads=5), sleep=sleep)
        assert [0.002, 0.01, 0.02, 0.04, 0.05, 0.05, 0.002] == pauses[:7]

    def test_connection_is_looked_up_again_after_a_refusal(self, service: Service, wait_for: Any) -> None:
        """A user may have changed the secret."""
        looked_up = []

        async def connect() -> Service:
            looked_up.append(len(service.listed))
            return service

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) == 2:
                raise AuthenticationError("401")
            return found

        service.on_list = fail
        wait_for(service.add(3, reads=3), connect=connect)
        assert [0, 2] == looked_up

    def test_missing_connection_ends_all_waits(self, service: Service, wait_for: Any) -> None:
        """It ends them immediately, because waiting cannot fix it."""

        async def connect() -> Service:
            raise ConfigurationError("the connection 'x' does not exist")

        assert {ConfigurationError} == {type(error) for error in wait_for(service.add(3), connect=connect)}

    def test_unexpected_error_reaches_each_waiter(self, service: Service, wait_for: Any) -> None:
        """No waiter waits forever after an error in this package."""

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            raise ZeroDivisionError

        service.on_list = fail
        [error] = wait_for(service.add(1), error_budget=0.05)
        assert isinstance(error, FlowServiceError)
        assert "ZeroDivisionError" in error.message

    def test_new_run_that_shows_late_is_waited_for(self, service: Service, wait_for: Any) -> None:
        """If several runs are not readable yet, only one of them is read singly."""
        ids = service.add(30)
        later, service.runs = service.runs, {}

        def appear(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) == 3:
                service.runs = later
            return found

        service.on_list = appear
        assert ids == [run.id for run in wait_for(ids)]
        assert len(service.read) <= 4

    def test_vanished_run_is_an_error(self, service: Service, wait_for: Any) -> None:
        """The list omits a run that could be read before, and a single read confirms that it is gone."""
        ids = service.add(2, reads=4)

        def vanish(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) == 2:
                del service.runs[ids[0]]
            return found

        service.on_list = vanish
        gone, there = wait_for(ids)
        assert (FlowRunVanishedError, ids[1]) == (type(gone), there.id)


class TestFallingBack:
    @pytest.mark.parametrize(
        "on_list",
        [
            pytest.param(lambda found: [], id="ignores the filter"),
            pytest.param(lambda found: found[: len(found) // 2], id="omits half"),
        ],
    )
    def test_list_that_omits_runs(self, service: Service, wait_for: Any, caplog: Any, on_list: Any) -> None:
        """After three lists that omit existing runs, each run is read singly; the log has one line."""
        service.on_list = on_list
        ids = service.add(40, reads=4)
        assert ids == [run.id for run in wait_for(ids)]
        assert 1 == caplog.text.count("with a separate request")
        assert len(service.listed) <= 8

    def test_refused_filter(self, service: Service, wait_for: Any, caplog: Any) -> None:
        """The reader halves the list until two readable runs are refused, then reads each run once."""

        def refuse(found: list[FlowRun]) -> list[FlowRun]:
            raise RunRefusedError("property id is not supported", http_status=400)

        service.on_list = refuse
        ids = service.add(40)
        assert ids == [run.id for run in wait_for(ids)]
        assert 7 == len(service.listed)
        assert 40 == len(service.read)
        assert "refuses to list runs by their ids (property id is not supported)" in caplog.text

    def test_small_pages_are_not_omissions(self, service: Service) -> None:
        """Pages of twenty runs are read in turn, regardless of the requested size."""
        ids = service.add(90, reads=9)
        pages: list[int] = []

        def paged(found: list[FlowRun]) -> Any:
            for first in range(0, len(found), 20):
                pages.append(first)
                yield from found[first : first + 20]

        service.on_list = paged
        reader = BatchReader(service)
        answers = reader.read(dict.fromkeys(ids, True))
        assert ids == [getattr(answers[each], "id", None) for each in ids]
        assert (5, [], True) == (len(pages), service.read, reader.together)

    @pytest.mark.parametrize("flow_run_id", [run_id(1), "a.b_c~d-e", "a/b c", "é", "%2C"])
    def test_share_of_an_id_is_its_quoted_length(self, service: Service, flow_run_id: str) -> None:
        """The length includes the comma; one address holds 3,500 characters of ids."""
        assert len(quote(f"{flow_run_id},", safe="")) == round(3500 * BatchReader(service).share(flow_run_id))

    def test_single_reads_are_limited_to_ten(self, service: Service) -> None:
        """A new waiter does not wait for hundreds of requests."""
        reader = BatchReader(service)
        reader.together = False
        assert 10 == round(1 / reader.share(run_id(1)))

    def test_list_that_lags_does_not_cause_a_fallback(self, service: Service) -> None:
        """The list omits a new run twice, then shows it, so the counter starts again."""
        [each] = service.add(1, reads=100)
        reader = BatchReader(service)
        for lists in ([], [], [1], [], [], [1]):
            service.on_list = lambda found, lists=lists: found if lists else []
            assert each == reader.read({each: True})[each].id
        assert reader.together
