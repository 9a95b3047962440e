"""Many waiters, one request: the poller over a service in memory, in real but short time."""

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
from airflow_flowservice.runs.batch import BatchReader
from airflow_flowservice.runs.polling import Poller, wait_together
from airflow_flowservice.runs.watch import RunWatch

RUNNING, SUCCESS = FlowRunStatus.IN_PROGRESS, FlowRunStatus.SUCCESS


def run_id(number: int) -> str:
    """As long as Adobe's."""
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class Service:
    """Flow Service in memory; `on_list` may raise, or change what is found."""

    runs: dict[str, FlowRun] = field(default_factory=dict)
    listed: list[list[str]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    on_list: Callable[[list[FlowRun]], list[FlowRun]] = lambda found: found
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int, *, looks: int = 0) -> list[str]:
        """Runs that succeed when they have been looked at so often."""
        ids = [run_id(len(self.runs) + number) for number in range(count)]
        for each in ids:
            self.runs[each] = FlowRun(id=each, status=RUNNING, status_word="inProgress", output_records=looks)
        return ids

    def get_run(self, flow_run_id: str) -> FlowRun:
        self.read.append(flow_run_id)
        if flow_run_id not in self.runs:
            raise RunNotFoundError("unknown", http_status=404)
        return self._looked_at(flow_run_id)

    def list_runs(self, *, ids: Any, **_: Any) -> list[FlowRun]:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            self.listed.append(list(ids))
            return self.on_list([self._looked_at(each) for each in ids if each in self.runs])
        finally:
            with self.lock:
                self.at_once -= 1

    def _looked_at(self, flow_run_id: str) -> FlowRun:
        run = self.runs[flow_run_id]
        looks = (run.output_records or 0) - 1
        status = RUNNING if looks >= 0 else SUCCESS
        self.runs[flow_run_id] = replace(run, status=status, status_word=status.value, output_records=looks)
        return self.runs[flow_run_id]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "_BREATH", 0.002)
    monkeypatch.setattr(polling, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr("airflow_flowservice.runs.watch._FIRST_LOOK", 0.02)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def wait_for(service: Service) -> Callable[..., list[Any]]:
    """Wait for runs together; what came of each, a run or an error."""

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
    def test_all_get_their_own_run(self, service: Service, wait_for: Any) -> None:
        """However their answers come in, each waiter gets the run that it waits for."""
        ids = service.add(250)
        random.shuffle(ids)
        assert ids == [run.id for run in wait_for(ids)]

    def test_a_hundred_take_one_or_two_requests_a_poll(self, service: Service, wait_for: Any) -> None:
        """Not one request for each."""
        wait_for(service.add(100, looks=5))
        assert len(service.listed) <= 2 * 6 + 4
        assert [] == service.read

    def test_an_address_stays_under_four_kilobytes(self, service: Service, wait_for: Any) -> None:
        """With commas that are quoted, as `requests` sends them."""
        wait_for(service.add(1000))
        assert max(len("%2C".join(ids)) for ids in service.listed) < 3600
        assert len(service.listed) <= 1000 // 85 + 2

    def test_one_request_is_in_flight(self, service: Service, wait_for: Any) -> None:
        """Whatever joins meanwhile waits for the next."""
        wait_for(service.add(500, looks=2))
        assert 1 == service.most_at_once

    def test_the_same_run_is_asked_for_once(self, service: Service, wait_for: Any) -> None:
        """Two sensors on one run, for instance."""
        [each] = service.add(1)
        assert [each, each, each] == [run.id for run in wait_for([each] * 3)]
        assert all(ids == [each] for ids in service.listed)

    def test_runs_that_ended_are_dropped(self, service: Service, wait_for: Any) -> None:
        """Nobody asks for them again."""
        short, long = service.add(20), service.add(20, looks=6)
        wait_for([*short, *long])
        assert set(long) >= set(service.listed[-1])

    def test_a_waiter_that_joins_late_is_served_soon(self, service: Service) -> None:
        """Others whose next look is an hour away do not hold it up."""
        old, new = service.add(1, looks=1000), service.add(1)

        async def scenario() -> FlowRun:
            poller = Poller(lambda: asyncio.sleep(0, service))
            waiting = asyncio.ensure_future(poller.ask(old[0], within=3600))
            await asyncio.sleep(0.05)
            found = await asyncio.wait_for(poller.ask(new[0], within=0.01), 10)
            assert not waiting.done()
            waiting.cancel()
            return found

        assert new[0] == asyncio.run(scenario()).id

    def test_an_idle_poller_ends(self, service: Service) -> None:
        """Its task is gone, and a new question starts another."""
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

    def test_a_cancelled_waiter_is_not_asked_for(self, service: Service) -> None:
        """A trigger that was stopped costs nothing any more."""
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
    def test_errors_are_waited_out(self, service: Service, wait_for: Any) -> None:
        """Within the error budget nothing that a request can meet ends a wait."""
        errors = iter([ServerError("500"), ServerError("502"), AuthenticationError("401")])

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) in (2, 3, 4):
                raise next(errors)
            return found

        service.on_list = fail
        ids = service.add(20, looks=5)
        assert ids == [run.id for run in wait_for(ids)]
        assert [] == list(errors)

    def test_each_waiter_tells_its_own_run(self, service: Service, wait_for: Any) -> None:
        """One answer for all, and yet each error names the run that was waited for."""

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            raise ServerError("503")

        service.on_list = fail
        ids = service.add(5)
        assert ids == [error.flow_run_id for error in wait_for(ids, error_budget=0.1)]

    def test_it_pauses_after_errors_longer_each_time(
        self, service: Service, wait_for: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A service that is down is not hammered by those who wait; one good answer ends the pauses."""
        pauses: list[float] = []

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if 2 <= len(service.listed) <= 6:
                raise ServerError("503")
            return found

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0.001)

        monkeypatch.setattr(polling, "_LONGEST_PAUSE", 0.05)
        service.on_list = fail
        wait_for(service.add(1, looks=5), sleep=sleep)
        assert [0.002, 0.01, 0.02, 0.04, 0.05, 0.05, 0.002] == pauses[:7]

    def test_the_connection_is_looked_up_again_after_a_refusal(self, service: Service, wait_for: Any) -> None:
        """Somebody may have put a new secret into it."""
        looked_up = []

        async def connect() -> Service:
            looked_up.append(len(service.listed))
            return service

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) == 2:
                raise AuthenticationError("401")
            return found

        service.on_list = fail
        wait_for(service.add(3, looks=3), connect=connect)
        assert [0, 2] == looked_up

    def test_a_missing_connection_is_told_to_everybody(self, service: Service, wait_for: Any) -> None:
        """At once: waiting cannot mend it."""

        async def connect() -> Service:
            raise ConfigurationError("the connection 'x' does not exist")

        assert {ConfigurationError} == {type(error) for error in wait_for(service.add(3), connect=connect)}

    def test_a_bug_leaves_nobody_waiting(self, service: Service, wait_for: Any) -> None:
        """Whatever a request ends in, each waiter hears of it."""

        def fail(found: list[FlowRun]) -> list[FlowRun]:
            raise ZeroDivisionError

        service.on_list = fail
        [error] = wait_for(service.add(1), error_budget=0.05)
        assert isinstance(error, FlowServiceError)
        assert "ZeroDivisionError" in error.message

    def test_a_run_that_shows_late_is_waited_for(self, service: Service, wait_for: Any) -> None:
        """Of those that do not show yet, one is looked into, not all."""
        ids = service.add(30)
        later, service.runs = service.runs, {}

        def appear(found: list[FlowRun]) -> list[FlowRun]:
            if len(service.listed) == 3:
                service.runs = later
            return found

        service.on_list = appear
        assert ids == [run.id for run in wait_for(ids)]
        assert len(service.read) <= 4

    def test_a_run_that_vanishes_is_an_error(self, service: Service, wait_for: Any) -> None:
        """It was there, is not in the list, and reading it by itself says the same."""
        ids = service.add(2, looks=4)

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
            pytest.param(lambda found: found[: len(found) // 2], id="leaves half out"),
        ],
    )
    def test_a_list_that_lacks_runs(self, service: Service, wait_for: Any, caplog: Any, on_list: Any) -> None:
        """After three lists that lack runs which exist, each is read by itself; it is said once."""
        service.on_list = on_list
        ids = service.add(40, looks=4)
        assert ids == [run.id for run in wait_for(ids)]
        assert 1 == caplog.text.count("takes a request of its own")
        assert len(service.listed) <= 8

    def test_a_filter_that_is_refused(self, service: Service, wait_for: Any, caplog: Any) -> None:
        """At once, and nobody has to wait for it."""

        def refuse(found: list[FlowRun]) -> list[FlowRun]:
            raise RunRefusedError("property id is not supported", http_status=400)

        service.on_list = refuse
        ids = service.add(40)
        assert ids == [run.id for run in wait_for(ids)]
        assert 1 == len(service.listed)
        assert "refuses to list runs by their ids (property id is not supported)" in caplog.text

    def test_small_pages_are_no_reason(self, service: Service) -> None:
        """A service that gives twenty on a page, whatever was asked for, is read page after page."""
        ids = service.add(90, looks=9)
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
    def test_an_id_takes_the_room_that_it_has_in_the_address(self, service: Service, flow_run_id: str) -> None:
        """As it is quoted, with the comma behind it; whole addresses hold 3,500 characters of that."""
        assert len(quote(f"{flow_run_id},", safe="")) == round(3500 * BatchReader(service).share(flow_run_id))

    def test_one_by_one_a_reading_is_short(self, service: Service) -> None:
        """So that a waiter which joins does not have to wait for hundreds of requests."""
        reader = BatchReader(service)
        reader.together = False
        assert 10 == round(1 / reader.share(run_id(1)))

    def test_a_list_that_lags_is_no_reason(self, service: Service) -> None:
        """Twice it lacks a new run, then it has it: no strike is left."""
        [each] = service.add(1, looks=100)
        reader = BatchReader(service)
        for lists in ([], [], [1], [], [], [1]):
            service.on_list = lambda found, lists=lists: found if lists else []
            assert each == reader.read({each: True})[each].id
        assert reader.together
