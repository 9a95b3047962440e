# SPDX-License-Identifier: Apache-2.0
"""Fakes in memory: Flow Service, the store of a task, and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import CreatedRun, Flow, FlowRun, FlowRunStatus
from airflow_flowservice.exceptions import RunNotFoundError
from airflow_flowservice.runs.create_once import CreateOnce
from airflow_flowservice.runs.intent import Attempt, Order, Outcome
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 2, 1, tzinfo=timezone.utc)


class Died(BaseException):
    """The process was killed."""


@dataclass
class Time:
    """Clock that advances only in `sleep`; the worker's wall clock differs by `skew`.

    :param suspended: seconds in which the worker's machine was suspended, so that its monotonic clock stood still.
    """

    passed: float = 0.0
    skew: timedelta = timedelta(0)
    suspended: float = 0.0

    def true(self) -> datetime:
        return BEGIN + timedelta(seconds=self.passed)

    def now(self) -> datetime:
        return self.true() + self.skew

    def monotonic(self) -> float:
        return self.passed - self.suspended

    def suspend(self, seconds: float) -> None:
        """Suspend the worker's machine."""
        self.passed += seconds
        self.suspended += seconds

    def sleep(self, seconds: float) -> None:
        self.passed += max(seconds, 0.001)


@dataclass
class Service:
    """Flow Service in memory.

    :param plan: results of the next POSTs: None, `("lost", error)` before the flow run is recorded, or
        `("recorded", error)` after it.
    :param on_call: called before and after each call, with its name; may raise.
    """

    time: Time
    runs: list[FlowRun] = field(default_factory=list)
    plan: list[tuple[str, Exception] | None] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    list_plan: list[Exception | None] = field(default_factory=list)
    lag: float = 0.0
    hides_windows: bool = False
    on_call: Callable[[str], None] = lambda name: None
    flow: Flow = field(default_factory=lambda: Flow(id="flow"))
    flows_read: int = 0

    def get_flow(self, flow_id: str) -> Flow:
        self.flows_read += 1
        return self.flow

    def create_run(self, **asked: Any) -> CreatedRun:
        return self._post(
            asked,
            flow_id=asked["flow_id"],
            window=asked["window"],
            start_time=asked["start_time"],
        )

    def retrigger_run(self, flow_run_id: str) -> CreatedRun:
        return self._post({"retrigger": flow_run_id}, flow_id="flow", parent_id=flow_run_id)

    def get_run(self, flow_run_id: str, *, within_s: float | None = None) -> FlowRun:
        self.on_call("get before")
        found = [run for run in self._shown() if run.id == flow_run_id]
        self.on_call("get after")
        if not found:
            raise RunNotFoundError("unknown", http_status=404)
        return found[0]

    def list_runs(
        self,
        *,
        flow_id: str | None = None,
        created_since: datetime | None = None,
        limit: int = 100,
        only_ids: bool = False,
    ) -> Iterator[FlowRun]:
        self.on_call("list before")
        if (error := self.list_plan.pop(0) if self.list_plan else None) is not None:
            raise error
        shown = [run for run in self._shown() if run.flow_id == flow_id]
        self.on_call("list after")
        if only_ids:
            shown = [FlowRun(id=run.id, flow_id=run.flow_id, created_at=run.created_at) for run in shown]
        return iter([run for run in reversed(shown) if created_since is None or run.created_at >= created_since])

    def add(self, **fields: Any) -> FlowRun:
        """Add a flow run, and return it."""
        run = FlowRun(
            id=f"run-{len(self.runs) + 1}",
            status=FlowRunStatus.IN_PROGRESS,
            status_word="inProgress",
            created_at=self.time.true(),
            **{"flow_id": "flow", **fields},
        )
        self.runs.append(run)
        return run

    def end(self, flow_run_id: str, status: FlowRunStatus) -> None:
        self.runs = [
            replace(run, status=status, status_word=status.value) if run.id == flow_run_id else run for run in self.runs
        ]

    def _post(self, asked: dict[str, Any], **fields: Any) -> CreatedRun:
        self.on_call("post before")
        self.posted.append(asked)
        when, error = (self.plan.pop(0) if self.plan else None) or ("", None)
        if when == "lost" and error:
            raise error
        run = self.add(created_client="ours", **fields)
        self.on_call("post after")
        if error:
            raise error
        return CreatedRun(id=run.id)

    def _shown(self) -> list[FlowRun]:
        hidden = {"window": None, "start_time": None} if self.hides_windows else {}
        return [replace(run, **hidden) for run in self.runs if self.shows(run)]

    def shows(self, run: FlowRun) -> bool:
        """Return whether the flow run is old enough to be listed."""
        return run.created_at is not None and run.created_at <= self.time.true() - timedelta(seconds=self.lag)


@dataclass
class Memory:
    """Store of a task. `failing` has the names of the calls that fail."""

    values: dict[str, Any] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    on_call: Callable[[str], None] = lambda name: None

    def get(self, key: str) -> Any:
        return self._call("get", lambda: self.values.get(key))

    def set(self, key: str, value: Any) -> None:
        self._call("set", lambda: self.values.__setitem__(key, value))

    def delete(self, key: str) -> None:
        self._call("delete", lambda: self.values.pop(key, None))

    def _call(self, name: str, act: Callable[[], Any]) -> Any:
        self.on_call(f"store {name} before")
        if name in self.failing:
            raise RuntimeError(f"the store cannot {name}")
        result = act()
        self.on_call(f"store {name} after")
        return result


@dataclass
class World:
    """Task and its Flow Service."""

    time: Time = field(default_factory=Time)
    store: Memory | None = field(default_factory=Memory)
    retries: int = 5
    Died: type[Died] = Died

    def __post_init__(self) -> None:
        self.service = Service(self.time)

    def order(self, *, day: int = 0, **fields: Any) -> Order:
        end = BEGIN - timedelta(days=day)
        return Order(**{"flow_id": "flow", "window": IngestionWindow(end - timedelta(days=1), end), **fields})

    def attempt(
        self,
        order: Order | None = None,
        *,
        number: int = 1,
        clears: int = 0,
        began: datetime = BEGIN,
        again: bool = False,
        **options: Any,
    ) -> Outcome:
        """Perform one attempt of the task. A clear adds `retries` to the tries that are allowed.

        :param number: the attempt's number, not reset by a clear.
        :param again: Airflow starts the attempt a second time under the same number.
        """
        tries = {"try_number": number, "max_tries": self.retries + clears, "retries": self.retries}
        attempt = Attempt(**tries, began=began, started_before=again)
        create_once = CreateOnce(
            service=self.service,
            store=self.store,
            attempt=attempt,
            now=self.time.now,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            link=lambda flow_run_id: f"https://adobe.test/{flow_run_id}",
            **options,
        )
        return create_once(order or self.order())

    @property
    def intent(self) -> dict[str, Any] | None:
        """Return the stored intent, or None."""
        assert self.store is not None
        return next(iter(self.store.values.values()), None)

    def dies_at(self, name: str, *, count: int = 1) -> None:
        """Kill the process at the n-th call of this name."""
        calls = iter(range(1, 1000))

        def on_call(called: str) -> None:
            if called == name and next(calls) == count:
                self.stop_listening()
                raise Died(name)

        self.listen(on_call)

    def listen(self, on_call: Callable[[str], None]) -> None:
        """Call a function before and after every call of the service and the store."""
        self.service.on_call = on_call
        if self.store:
            self.store.on_call = on_call

    def stop_listening(self) -> None:
        """Remove the function that `listen` set."""
        self.listen(lambda name: None)


@pytest.fixture
def make_world() -> type[World]:
    return World


@pytest.fixture
def world() -> World:
    """Return a task whose Airflow keeps task state."""
    return World()


@pytest.fixture
def old_world() -> World:
    """Return a task whose Airflow keeps no task state (before 3.3)."""
    return World(store=None)


@pytest.fixture
def clock() -> Time:
    return Time()
