# SPDX-License-Identifier: Apache-2.0
"""In random histories of several DAGs, faults and cleaned databases, a window is ingested as often as requested."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    FlowRunUncertainError,
    FlowServiceError,
    LedgerUnavailableError,
    NoAnswerError,
    RunRefusedError,
    ServerError,
)
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.ledger_intents import LedgerPolicy, deliver

PATIENCE = 180.0
DATAFLOW = DataflowKey("org", "prod", "flow")
OWNERS = ("first/scheduled/create/-1", "second/manual/create/-1", "renamed/backfill/create/3")

posts = st.sampled_from(
    [
        None,
        None,
        ("lost", NoAnswerError("reset")),
        ("recorded", NoAnswerError("timeout")),
        ("recorded", ServerError("502")),
        ("lost", RunRefusedError("400")),
    ]
)


class ObservedLedger(MemoryLedger):
    """Ledger that calls a function before and after each method, which may raise."""

    on_call: Callable[[str], None] = staticmethod(lambda name: None)

    def overlapping(self, *args: Any) -> Any:
        return self._observed("overlapping", super().overlapping, *args)

    def get(self, *args: Any) -> Any:
        return self._observed("get", super().get, *args)

    def put(self, *args: Any) -> Any:
        return self._observed("put", super().put, *args)

    def remove(self, *args: Any) -> Any:
        return self._observed("remove", super().remove, *args)

    def _observed(self, name: str, call: Any, *args: Any) -> Any:
        self.on_call(f"ledger {name} before")
        result = call(*args)
        self.on_call(f"ledger {name} after")
        return result


def histories(make_world: Any, *, keeps_state: bool, hides_windows: bool) -> type[RuleBasedStateMachine]:
    class LedgerHistories(RuleBasedStateMachine):
        """Attempts of three task instances with one window of one dataflow."""

        @initialize(lag=st.floats(0, PATIENCE - 1))
        def begin(self, lag: float) -> None:
            self.world = make_world() if keeps_state else make_world(store=None)
            self.world.service.lag = lag
            self.world.service.hides_windows = hides_windows
            self.ledger = ObservedLedger()
            self.stores = {owner: type(self.world.store)() if keeps_state else None for owner in OWNERS}
            self.numbers = dict.fromkeys(OWNERS, 0)
            self.clears = dict.fromkeys(OWNERS, 0)
            self.returned: dict[str, str] = {}
            self.cleared: set[str] = set()  # without a new attempt since
            self.requests = 1  # how often the window may be ingested

        def attempt(self, owner: str, *, restate: bool = False) -> str | Exception | None:
            """Return the flow run id, the typed error, or None if the process was killed."""
            self.numbers[owner] += 1
            self.cleared.discard(owner)
            self.world.store = self.stores[owner]
            self.world.listen(self.world.service.on_call)
            policy = LedgerPolicy(ledger=self.ledger, dataflow=DATAFLOW, owner=owner, restate=restate)
            try:
                outcome = self.world.attempt(
                    number=self.numbers[owner], clears=self.clears[owner], patience=PATIENCE, ledger=policy
                )
            except FlowServiceError as error:
                return error
            except self.world.Died:
                return None
            finally:
                self.world.stop_listening()
                self.ledger.on_call = lambda name: None
            self.returned[owner] = outcome.flow_run_id
            return outcome.flow_run_id

        @rule(
            owner=st.sampled_from(OWNERS),
            plan=st.lists(posts, max_size=3),
            death=st.none() | st.integers(0, 30),
            failure=st.none() | st.integers(0, 10),
            then=st.floats(0, 400),
        )
        def a_task_is_attempted(
            self, owner: str, plan: Any, death: int | None, failure: int | None, then: float
        ) -> None:
            self.world.service.plan = list(plan)
            calls, ledger_calls = iter(range(10_000)), iter(range(10_000))

            def on_call(name: str) -> None:
                if next(calls) == death:
                    raise self.world.Died(name)

            def on_ledger_call(name: str) -> None:
                on_call(name)
                if next(ledger_calls) == failure:
                    raise LedgerUnavailableError("the ledger cannot be reached")

            self.world.service.on_call, self.ledger.on_call = on_call, on_ledger_call
            self.attempt(owner)
            self.world.service.plan = []
            self.world.time.sleep(then)

        @rule(owner=st.sampled_from(OWNERS))
        def a_task_restates(self, owner: str) -> None:
            if owner in self.returned:
                return
            self.requests += 1
            self.attempt(owner, restate=True)

        @rule(
            owner=st.sampled_from(OWNERS),
            status=st.sampled_from([FlowRunStatus.SUCCESS, FlowRunStatus.FAILED]),
            delivers=st.booleans(),
        )
        def a_task_is_attempted_without_faults(self, owner: str, status: FlowRunStatus, delivers: bool) -> None:
            """Attempt a task, end its flow run, and end the task: random rules rarely make this common sequence."""
            self.attempt(owner)
            self.world.time.sleep(PATIENCE)
            self.a_run_ends(status)
            if delivers:
                self.a_task_succeeds(owner)

        @rule(status=st.sampled_from([FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS, FlowRunStatus.FAILED]))
        def a_run_ends(self, status: FlowRunStatus) -> None:
            for run in self.world.service.runs:
                if not run.status.ended and self.world.service.shows(run):
                    self.world.service.end(run.id, status)

        @rule(owner=st.sampled_from(OWNERS))
        def a_task_succeeds(self, owner: str) -> None:
            """Let a task deliver the success of its flow run, unless a clear has ended its attempt."""
            if owner in self.cleared:
                return
            runs = {run.id: run for run in self.world.service.runs}
            run = runs.get(self.returned.get(owner, ""))
            if run is not None and run.status.succeeded:
                window = self.world.order().window
                deliver(self.ledger, dataflow=DATAFLOW, window=window, flow_run_id=run.id, owner=owner)

        @rule(owner=st.sampled_from(OWNERS))
        def a_task_is_cleared(self, owner: str) -> None:
            """Clear a task. Only after its own delivered success, this is a request to ingest again."""
            entry = self.ledger.get(DATAFLOW, self.world.order().window)
            if entry is not None and entry.owner == owner and entry.delivered:
                self.requests += 1
            self.clears[owner] += 1
            self.cleared.add(owner)

        @rule(owner=st.sampled_from(OWNERS))
        def the_database_is_cleaned(self, owner: str) -> None:
            """Delete the DAG run from Airflow's database; a backfill creates one with the same id."""
            self.numbers[owner] = self.clears[owner] = 0
            self.returned.pop(owner, None)
            if keeps_state:
                self.stores[owner] = type(self.stores[owner])()

        @rule(seconds=st.floats(1, 4000))
        def time_passes(self, seconds: float) -> None:
            self.world.time.sleep(seconds)

        @invariant()
        def never_more_than_requested(self) -> None:
            alive = [run for run in self.world.service.runs if not run.status.failed]
            assert len(alive) <= self.requests, f"ingested more often than requested: {alive}"
            active = [run.id for run in alive if not run.status.ended]
            assert len(active) <= 1, f"ingested twice at a time: {active}"

        def teardown(self) -> None:
            """Attempt each task without faults. All return a flow run that did not fail, or state why they cannot."""
            if not hasattr(self, "world"):
                return
            self.world.service.on_call = lambda name: None
            for owner in OWNERS:
                result = self.attempt(owner)
                self.never_more_than_requested()
                if hides_windows and isinstance(result, FlowRunUncertainError):
                    assert result.remedy
                    continue
                assert result in [run.id for run in self.world.service.runs if not run.status.failed]

    return LedgerHistories


@pytest.mark.parametrize("hides_windows", [False, True], ids=["windows shown", "windows hidden"])
@pytest.mark.parametrize("keeps_state", [True, False], ids=["with task state", "without task state"])
def test_each_history_ingests_as_often_as_requested(make_world: Any, keeps_state: bool, hides_windows: bool) -> None:
    """No history ingests the window more often than requested, and none omits it without an error."""
    run_state_machine_as_test(
        histories(make_world, keeps_state=keeps_state, hides_windows=hides_windows),
        settings=settings(stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)),
    )
