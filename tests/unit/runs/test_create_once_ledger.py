# SPDX-License-Identifier: Apache-2.0
"""Tests of `create_once` with a ledger: other tasks, other DAG runs, clears, restating and overlaps."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from creations import FAILED, LOST, RECORDED, SUCCESS, created, ids, resumed

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    AttemptOvertakenError,
    FlowRunActiveError,
    FlowRunOutcomeUnknownError,
    FlowRunVanishedError,
    LedgerUnavailableError,
    RunRefusedError,
    WindowIngestedError,
    WindowOverlapError,
)
from airflow_flowservice.ledger.entry import DataflowKey, EntryState
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.intent import Outcome
from airflow_flowservice.runs.ledger_intents import LedgerPolicy, deliver
from airflow_flowservice.windows.window import IngestionWindow

_TERMS = ("on_ingested", "on_overlap", "restate", "continues")
DATAFLOW = DataflowKey("org", "prod", "flow")


class LedgerWorld:
    """Several task instances with one dataflow and one ledger."""

    def __init__(self, world: Any, ledger: Any) -> None:
        self.world, self.ledger = world, ledger

    def attempt(self, owner: str = "dag/one/task/-1", *, order: Any = None, number: int = 1, **options: Any) -> Outcome:
        terms = {
            name: options.pop(name) for name in ("on_ingested", "on_overlap", "restate", "continues") if name in options
        }
        policy = LedgerPolicy(ledger=self.ledger, dataflow=DATAFLOW, owner=owner, **terms)
        return self.world.attempt(order or self.world.order(), number=number, ledger=policy, **options)

    def succeed(self, outcome: Outcome, owner: str = "dag/one/task/-1", *, delivers: bool = True) -> None:
        """End the flow run and, unless the task died before, the task as a success."""
        self.world.service.end(outcome.flow_run_id, SUCCESS)
        if delivers:
            window = self.world.order().window
            deliver(self.ledger, dataflow=DATAFLOW, window=window, flow_run_id=outcome.flow_run_id, owner=owner)

    @property
    def entry(self) -> Any:
        return self.ledger.get(DATAFLOW, self.world.order().window)

    @property
    def ids(self) -> list[str]:
        return ids(self.world)


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture(params=[True, False], ids=["with task state", "without task state"])
def tasks(request: pytest.FixtureRequest, make_world: Any, ledger: MemoryLedger) -> LedgerWorld:
    return LedgerWorld(make_world() if request.param else make_world(store=None), ledger)


def reused(number: int = 1, *, is_ingested: bool = False) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="reused", is_ingested=is_ingested)


class TestOtherTasks:
    def test_an_ingested_window_is_reused(self, tasks: LedgerWorld) -> None:
        """A task of another DAG creates no flow run for the window, and sends no request."""
        tasks.succeed(tasks.attempt())
        tasks.world.listen(lambda name: pytest.fail(f"request: {name}"))
        assert reused(is_ingested=True) == tasks.attempt("other/two/task/-1")

    @pytest.mark.parametrize("reaction", ["fail", "skip"])
    def test_an_ingested_window_can_be_an_error(self, tasks: LedgerWorld, reaction: str) -> None:
        tasks.succeed(tasks.attempt())
        with pytest.raises(WindowIngestedError, match="dag/one/task/-1") as error:
            tasks.attempt("other/two/task/-1", on_ingested=reaction)
        assert ("run-1", ["run-1"]) == (error.value.flow_run_id, tasks.ids)

    def test_a_run_whose_success_no_task_delivered_is_reused(self, tasks: LedgerWorld) -> None:
        """The flow run is read, because the ledger does not know its result."""
        tasks.succeed(tasks.attempt(), delivers=False)
        assert (reused(), ["run-1"]) == (tasks.attempt("other/two/task/-1"), tasks.ids)

    def test_an_active_run_is_shared(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        assert (reused(), ["run-1"]) == (tasks.attempt("other/two/task/-1"), tasks.ids)

    def test_a_run_that_is_not_readable_yet_is_shared(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        tasks.world.service.lag = 60.0
        assert reused() == tasks.attempt("other/two/task/-1")

    def test_a_run_that_vanished_is_an_error(self, tasks: LedgerWorld) -> None:
        """Flow Service may have deleted a flow run that ingested the window."""
        tasks.attempt()
        tasks.world.service.runs.clear()
        tasks.world.time.sleep(3600)
        with pytest.raises(FlowRunVanishedError, match="dag/one/task/-1"):
            tasks.attempt("other/two/task/-1")

    def test_a_failed_run_is_followed_by_another(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        tasks.world.service.end("run-1", FAILED)
        assert created(2) == tasks.attempt("other/two/task/-1")
        assert "other/two/task/-1" == tasks.entry.owner

    @pytest.mark.parametrize(("call", "runs"), [("post before", ["run-1"]), ("post after", ["run-1"])])
    def test_a_claim_of_a_dead_task_is_compared(self, tasks: LedgerWorld, call: str, runs: list[str]) -> None:
        """The other task finds the flow run of the dead task by its intent, or creates the only one."""
        tasks.world.dies_at(call)
        with pytest.raises(tasks.world.Died):
            tasks.attempt()
        outcome = tasks.attempt("other/two/task/-1")
        assert ("run-1", runs) == (outcome.flow_run_id, tasks.ids)
        assert tasks.world.time.passed >= 180

    @pytest.mark.parametrize("change", ["id", "removed"])
    def test_a_claim_is_awaited(self, tasks: LedgerWorld, change: str) -> None:
        """While a task creates its flow run, another task waits for the id, or for the end of the claim."""
        sleep = tasks.world.time.sleep

        def on_sleep(seconds: float) -> None:
            sleep(seconds)
            tasks.world.time.sleep = sleep
            if change == "removed":
                tasks.ledger.remove(tasks.entry)
            else:
                run = tasks.world.service.add(window=tasks.world.order().window)
                tasks.ledger.put(replace(tasks.entry, state=EntryState.CREATED, flow_run_id=run.id))

        tasks.world.dies_at("post before")
        with pytest.raises(tasks.world.Died):
            tasks.attempt()
        tasks.world.time.sleep = on_sleep
        outcome = tasks.attempt("other/two/task/-1")
        assert (reused() if change == "id" else created()) == outcome
        assert (["run-1"], 5.0) == (tasks.ids, tasks.world.time.passed)

    def test_an_unclear_run_is_an_error(self, tasks: LedgerWorld) -> None:
        """A flow run that ended without a status may have ingested the window."""
        tasks.attempt()
        tasks.world.service.end("run-1", FlowRunStatus.ENDED_UNCLEAR)
        with pytest.raises(FlowRunOutcomeUnknownError, match="run-1"):
            tasks.attempt("other/two/task/-1")
        assert ["run-1"] == tasks.ids

    def test_a_run_whose_batches_failed_is_followed_by_another(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt(), delivers=False)
        assert created(2) == tasks.attempt("other/two/task/-1", has_failed_batches=lambda run: run.id == "run-1")

    def test_windows_of_a_continued_dataflow_count(self, tasks: LedgerWorld) -> None:
        """A dataflow that replaces another one has its windows."""
        tasks.succeed(tasks.attempt())
        policy = LedgerPolicy(
            ledger=tasks.ledger, dataflow=DataflowKey("org", "prod", "new"), owner="o/t/t/-1", continues=(DATAFLOW,)
        )
        order = tasks.world.order(flow_id="new")
        assert reused(is_ingested=True) == tasks.world.attempt(order, ledger=policy)

    def test_dataflows_of_another_sandbox_do_not_count(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        policy = LedgerPolicy(ledger=tasks.ledger, dataflow=DataflowKey("org", "dev", "flow"), owner="o/t/t/-1")
        assert created(2) == tasks.world.attempt(ledger=policy)


class TestOwnAttempts:
    def test_a_clear_after_a_delivered_success_restates(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        assert created(2) == tasks.attempt(number=2, clears=1)
        assert ["run-1"] == [run.flow_run_id for run in tasks.entry.earlier]

    def test_a_clear_before_a_success_restates_nothing(self, tasks: LedgerWorld) -> None:
        """The task had no success, for instance because of a time limit, so its flow run is accepted."""
        tasks.succeed(tasks.attempt(), delivers=False)
        assert (resumed(), ["run-1"]) == (tasks.attempt(number=2, clears=1), tasks.ids)

    def test_a_retry_after_a_restatement_restates_nothing(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        tasks.attempt(number=2, clears=1)
        assert (resumed(2), ["run-1", "run-2"]) == (tasks.attempt(number=3, clears=1), tasks.ids)

    def test_an_attempt_that_sent_nothing_leaves_no_wait(self, tasks: LedgerWorld) -> None:
        """A retry after an error before the claim creates at once, also without task state."""
        tasks.world.service.list_plan = [RunRefusedError("403")]
        with pytest.raises(RunRefusedError):
            tasks.attempt()
        assert (created(), 0) == (tasks.attempt(number=2), tasks.world.time.passed)

    def test_a_refused_request_leaves_no_entry(self, tasks: LedgerWorld) -> None:
        tasks.world.service.plan = [("lost", RunRefusedError("400"))]
        with pytest.raises(RunRefusedError):
            tasks.attempt()
        assert tasks.entry is None

    def test_a_refused_restatement_leaves_the_earlier_entry(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        tasks.world.service.plan = [("lost", RunRefusedError("400"))]
        with pytest.raises(RunRefusedError):
            tasks.attempt(number=2, clears=1)
        assert (EntryState.INGESTED, "run-1") == (tasks.entry.state, tasks.entry.flow_run_id)

    @pytest.mark.parametrize("plan", [LOST, RECORDED])
    def test_a_lost_response_makes_one_run(self, tasks: LedgerWorld, plan: Any) -> None:
        tasks.world.service.plan = [plan]
        assert ("run-1", ["run-1"]) == (tasks.attempt().flow_run_id, tasks.ids)

    def test_the_task_state_of_an_earlier_version_is_read(self, make_world: Any, ledger: MemoryLedger) -> None:
        """A retry after an upgrade finds the intent that the previous version stored in the task's state."""
        tasks = LedgerWorld(make_world(), ledger)
        tasks.world.attempt()
        assert (resumed(), ["run-1"]) == (tasks.attempt(number=2), tasks.ids)

    def test_history_that_was_cleaned_does_not_matter(self, tasks: LedgerWorld) -> None:
        """A new DAG run with the same id, whose task state was deleted, creates nothing."""
        tasks.succeed(tasks.attempt(number=2, clears=1))
        if tasks.world.store:
            tasks.world.store.values.clear()
        assert ("run-1", ["run-1"]) == (tasks.attempt().flow_run_id, tasks.ids)

    def test_a_new_dag_run_with_more_retries_is_no_clear(self, tasks: LedgerWorld) -> None:
        """After the database was cleaned, the DAG run exists again with its id, and the task with other retries."""
        tasks.succeed(tasks.attempt())
        if tasks.world.store:
            tasks.world.store.values.clear()
        tasks.world.retries = 9
        assert ("run-1", ["run-1"]) == (tasks.attempt().flow_run_id, tasks.ids)

    def test_a_retry_in_a_new_dag_run_is_no_clear(self, tasks: LedgerWorld) -> None:
        """The deleted DAG run had a clear. The DAG run exists again with its id, and its first try was killed."""
        tasks.attempt()
        tasks.world.service.end("run-1", FAILED)
        tasks.succeed(tasks.attempt(number=2, clears=1))
        if tasks.world.store:
            tasks.world.store.values.clear()
        assert ("run-2", "run-2") == (tasks.attempt().flow_run_id, tasks.attempt(number=2).flow_run_id)
        assert ["run-1", "run-2"] == tasks.ids

    @pytest.mark.parametrize("call", ["post after", None], ids=["killed", "time limit"])
    def test_a_clear_after_an_upgrade_reads_the_task_state(
        self, make_world: Any, ledger: MemoryLedger, call: str | None
    ) -> None:
        """The task failed before the upgrade, and its flow run is active."""
        tasks = LedgerWorld(make_world(), ledger)
        if call:
            tasks.world.dies_at(call)
        with contextlib.suppress(tasks.world.Died):
            tasks.world.attempt()
        assert ("run-1", ["run-1"]) == (tasks.attempt(number=2, clears=1).flow_run_id, tasks.ids)

    def test_a_clear_after_the_run_vanished_restates_nothing(self, tasks: LedgerWorld) -> None:
        """A sensor saw the success, the task had none, and Flow Service no longer has the flow run."""
        outcome = tasks.attempt()
        window = tasks.world.order().window
        deliver(tasks.ledger, dataflow=DATAFLOW, window=window, flow_run_id=outcome.flow_run_id, owner=None)
        tasks.world.service.runs.clear()
        tasks.world.time.sleep(3600)
        assert (reused(is_ingested=True), []) == (tasks.attempt(number=2, clears=1), tasks.ids)


class TestRestating:
    @pytest.mark.parametrize("terms", [{"restate": True}, {"on_ingested": "restate"}])
    def test_a_request_ingests_the_window_again(self, tasks: LedgerWorld, terms: dict[str, Any]) -> None:
        tasks.succeed(tasks.attempt())
        assert created(2) == tasks.attempt("other/two/task/-1", **terms)
        [earlier] = tasks.entry.earlier
        assert ("run-1", "other/two/task/-1") == (earlier.flow_run_id, earlier.replaced_by)

    def test_a_retry_restates_once(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        tasks.attempt("other/two/task/-1", restate=True)
        tasks.world.service.end("run-2", SUCCESS)
        assert resumed(2) == tasks.attempt("other/two/task/-1", restate=True, number=2)
        assert ["run-1", "run-2"] == tasks.ids

    def test_a_failed_restatement_leaves_the_window_ingested(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        tasks.attempt("other/two/task/-1", restate=True)
        tasks.world.service.end("run-2", FAILED)
        assert reused() == tasks.attempt("third/three/task/-1")

    def test_an_active_run_is_not_restated(self, tasks: LedgerWorld) -> None:
        """A request to ingest again waits for the flow run that is active."""
        tasks.attempt()
        assert reused() == tasks.attempt("other/two/task/-1", restate=True)


class TestOverlaps:
    def overlapping_order(self, tasks: LedgerWorld) -> Any:
        window = tasks.world.order().window
        return tasks.world.order(window=IngestionWindow(window.start - timedelta(days=1), window.end))

    def test_an_ingested_part_is_an_error(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        with pytest.raises(WindowOverlapError, match=r"2026-01-31T00:00:00Z/2026-02-01T00:00:00Z by flow run run-1"):
            tasks.attempt("other/two/task/-1", order=self.overlapping_order(tasks))
        assert ["run-1"] == tasks.ids

    @pytest.mark.parametrize("terms", [{"restate": True}, {"on_overlap": "restate"}])
    def test_a_request_ingests_parts_again(self, tasks: LedgerWorld, terms: dict[str, Any]) -> None:
        tasks.succeed(tasks.attempt())
        assert created(2) == tasks.attempt("other/two/task/-1", order=self.overlapping_order(tasks), **terms)

    def test_an_active_part_is_awaited_by_a_retry(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        with pytest.raises(FlowRunActiveError, match="run-1"):
            tasks.attempt("other/two/task/-1", order=self.overlapping_order(tasks))

    def test_a_failed_part_does_not_count(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        tasks.world.service.end("run-1", FAILED)
        assert created(2) == tasks.attempt("other/two/task/-1", order=self.overlapping_order(tasks))

    def test_contiguous_windows_do_not_overlap(self, tasks: LedgerWorld) -> None:
        tasks.succeed(tasks.attempt())
        assert created(2) == tasks.attempt("dag/two/task/-1", order=tasks.world.order(day=1))


class TestPartsThatCoverTheWindow:
    """Several windows together contain the window, so it is ingested."""

    @pytest.fixture
    def order(self, tasks: LedgerWorld) -> Any:
        """Return an order of a day whose two halves two tasks have ingested."""
        window = tasks.world.order().window
        noon = window.start + timedelta(hours=12)
        halves = [IngestionWindow(window.start - timedelta(hours=1), noon), IngestionWindow(noon, window.end)]
        for number, half in enumerate(halves):
            owner = f"half/{number}/task/-1"
            outcome = tasks.attempt(owner, order=tasks.world.order(window=half))
            tasks.world.service.end(outcome.flow_run_id, SUCCESS)
            deliver(
                tasks.ledger,
                dataflow=DATAFLOW,
                window=half,
                flow_run_id=outcome.flow_run_id,
                owner=owner,
                output_records=number,
            )
        return tasks.world.order()

    @pytest.mark.parametrize("reaction", ["fail", "rest", "restate"])
    def test_the_last_flow_run_is_reused(self, tasks: LedgerWorld, order: Any, reaction: str) -> None:
        tasks.world.listen(lambda name: pytest.fail(f"request: {name}"))
        outcome = tasks.attempt("other/two/task/-1", order=order, on_overlap=reaction)
        assert ("run-2", "reused", True, 1) == (
            outcome.flow_run_id,
            outcome.how,
            outcome.is_ingested,
            outcome.output_records,
        )
        assert [("run-1", 0), ("run-2", 1)] == [(part.flow_run_id, part.output_records) for part in outcome.parts]
        assert tasks.entry is None

    @pytest.mark.parametrize("reaction", ["fail", "skip"])
    def test_it_can_be_an_error(self, tasks: LedgerWorld, order: Any, reaction: str) -> None:
        with pytest.raises(WindowIngestedError, match=r"in parts: .* of half/0/task/-1; .* of half/1/task/-1") as error:
            tasks.attempt("other/two/task/-1", order=order, on_ingested=reaction)
        assert ("run-2", ["run-1", "run-2"]) == (error.value.flow_run_id, tasks.ids)

    @pytest.mark.parametrize("terms", [{"restate": True}, {"on_ingested": "restate"}])
    def test_a_request_ingests_the_window_again(self, tasks: LedgerWorld, order: Any, terms: Any) -> None:
        assert created(3) == tasks.attempt("other/two/task/-1", order=order, **terms)
        assert resumed(3) == tasks.attempt("other/two/task/-1", order=order, number=2, **terms)

    def test_a_missing_second_is_an_overlap(self, tasks: LedgerWorld, order: Any) -> None:
        longer = IngestionWindow(order.window.start, order.window.end + timedelta(seconds=1))
        with pytest.raises(WindowOverlapError):
            tasks.attempt("other/two/task/-1", order=tasks.world.order(window=longer))

    def test_a_part_without_a_known_result_is_an_overlap(self, tasks: LedgerWorld, order: Any) -> None:
        """Its flow run ended without a status."""
        [_, second] = tasks.ledger.overlapping([DATAFLOW], order.window)
        tasks.ledger.put(replace(second, state=EntryState.CREATED))
        tasks.world.service.end("run-2", FlowRunStatus.ENDED_UNCLEAR)
        with pytest.raises(WindowOverlapError, match="run-2 of half/1/task/-1, result unknown"):
            tasks.attempt("other/two/task/-1", order=order)


class TestBeforeAnotherFlowRun:
    """Before a flow run replaces another one, other flow runs may have ingested the window or parts of it."""

    def half(self, tasks: LedgerWorld) -> Any:
        window = tasks.world.order().window
        return tasks.world.order(window=IngestionWindow(window.start, window.start + timedelta(hours=12)))

    def ingest_half(self, tasks: LedgerWorld, owner: str) -> None:
        outcome = tasks.attempt(owner, order=self.half(tasks))
        tasks.world.service.end(outcome.flow_run_id, SUCCESS)
        window = self.half(tasks).window
        deliver(tasks.ledger, dataflow=DATAFLOW, window=window, flow_run_id=outcome.flow_run_id, owner=owner)

    @pytest.mark.parametrize("clears", [0, 1], ids=["retry", "clear"])
    def test_parts_ingested_after_the_own_run_failed_are_an_error(self, tasks: LedgerWorld, clears: int) -> None:
        tasks.attempt()
        tasks.world.service.end("run-1", FAILED)
        self.ingest_half(tasks, "other/two/task/-1")
        with pytest.raises(WindowOverlapError, match="run-2 of other/two/task/-1"):
            tasks.attempt(number=2, clears=clears)
        assert ["run-1", "run-2"] == tasks.ids

    @pytest.mark.parametrize("on_uncertain", ["fail", "create"])
    def test_the_request_of_a_dead_task_is_not_repeated(self, tasks: LedgerWorld, on_uncertain: Any) -> None:
        """A task that was to ingest the window again died before its POST. Another task reuses the earlier run."""
        tasks.succeed(tasks.attempt())
        tasks.world.dies_at("post before")
        with pytest.raises(tasks.world.Died):
            tasks.attempt("other/two/task/-1", restate=True)
        assert reused() == tasks.attempt("third/three/task/-1", on_uncertain=on_uncertain)
        assert created(2) == tasks.attempt("other/two/task/-1", restate=True, number=2)

    @pytest.mark.parametrize("on_uncertain", ["fail", "adopt", "create", "ask"])
    def test_an_ingested_window_has_no_candidates(self, tasks: LedgerWorld, on_uncertain: Any) -> None:
        """The request of the dead task is not this task's, so its candidates do not matter."""
        tasks.succeed(tasks.attempt())
        tasks.world.dies_at("post before")
        with pytest.raises(tasks.world.Died):
            tasks.attempt("other/two/task/-1", restate=True)
        tasks.world.service.hides_windows = True
        tasks.world.service.add()
        assert reused() == tasks.attempt("third/three/task/-1", on_uncertain=on_uncertain)
        assert ["run-1", "run-2"] == tasks.ids

    def test_parts_that_a_dead_task_was_to_ingest_again_are_an_error(self, tasks: LedgerWorld) -> None:
        self.ingest_half(tasks, "dag/one/task/-1")
        tasks.world.dies_at("post before")
        with pytest.raises(tasks.world.Died):
            tasks.attempt("other/two/task/-1", restate=True)
        with pytest.raises(WindowOverlapError):
            tasks.attempt("third/three/task/-1")
        assert ["run-1"] == tasks.ids

    @pytest.mark.parametrize("owner", ["other/two/task/-1", "third/three/task/-1"])
    def test_a_named_run_that_failed_leaves_the_window_ingested(self, tasks: LedgerWorld, owner: str) -> None:
        tasks.succeed(tasks.attempt())
        tasks.world.service.add()
        tasks.attempt("other/two/task/-1", adopt="run-2")
        tasks.world.service.end("run-2", FAILED)
        adopt = "run-2" if owner == "other/two/task/-1" else None
        assert reused() == tasks.attempt(owner, number=2, adopt=adopt)
        assert ["run-1", "run-2"] == tasks.ids


class TestContinuedDataflow:
    @pytest.mark.parametrize(("owner", "number"), [("dag/one/task/-1", 2), ("third/three/task/-1", 1)])
    def test_a_window_that_only_the_earlier_dataflow_ingested(
        self, tasks: LedgerWorld, owner: str, number: int
    ) -> None:
        """The new dataflow's flow run failed. Then the earlier dataflow ingested exactly the same window."""

        def attempt(owner: str, number: int = 1) -> Outcome:
            new = DataflowKey("org", "prod", "new")
            policy = LedgerPolicy(ledger=tasks.ledger, dataflow=new, owner=owner, continues=(DATAFLOW,))
            order = tasks.world.order(flow_id="new")
            outcome: Outcome = tasks.world.attempt(order, number=number, clears=number - 1, ledger=policy)
            return outcome

        attempt("dag/one/task/-1")
        tasks.world.service.end("run-1", FAILED)
        tasks.succeed(tasks.attempt("other/two/task/-1"), "other/two/task/-1")
        outcome = attempt(owner, number)
        assert ("run-2", "reused", ["run-1", "run-2"]) == (outcome.flow_run_id, outcome.how, tasks.ids)


class TestPartsThatCannotBeRead:
    def test_a_run_that_is_not_readable_yet_is_active(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        tasks.world.service.lag = 60.0
        window = tasks.world.order().window
        order = tasks.world.order(window=IngestionWindow(window.start - timedelta(days=1), window.end))
        with pytest.raises(FlowRunActiveError, match="run-1 of dag/one/task/-1"):
            tasks.attempt("other/two/task/-1", order=order)

    def test_a_run_that_vanished_is_an_overlap(self, tasks: LedgerWorld) -> None:
        tasks.attempt()
        tasks.world.service.runs.clear()
        tasks.world.time.sleep(3600)
        window = tasks.world.order().window
        order = tasks.world.order(window=IngestionWindow(window.start - timedelta(days=1), window.end))
        with pytest.raises(WindowOverlapError, match="run-1 of dag/one/task/-1, which Flow Service no longer has"):
            tasks.attempt("other/two/task/-1", order=order)


class FailingLedger(MemoryLedger):
    """Ledger whose methods fail if their name is in `failing`."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in ("get", "overlapping", "put", "remove") and name in super().__getattribute__("failing"):
            raise LedgerUnavailableError(f"the ledger cannot {name}")
        return super().__getattribute__(name)


class TestUnreachableLedger:
    @pytest.mark.parametrize("call", ["overlapping", "put"])
    def test_nothing_is_sent_without_the_ledger(self, make_world: Any, call: str) -> None:
        tasks = LedgerWorld(make_world(), FailingLedger())
        tasks.ledger.failing.add(call)
        with pytest.raises(LedgerUnavailableError) as error:
            tasks.attempt()
        assert (True, []) == (error.value.retryable, tasks.world.service.posted)

    def test_a_run_is_found_if_its_id_could_not_be_stored(self, make_world: Any, caplog: Any) -> None:
        tasks = LedgerWorld(make_world(), FailingLedger())
        tasks.world.listen(lambda name: tasks.ledger.failing.add("put") if name == "post after" else None)
        assert created() == tasks.attempt()
        assert "run-1 could not be stored in the ledger" in caplog.text
        tasks.world.stop_listening()
        tasks.ledger.failing.clear()
        assert ("run-1", ["run-1"]) == (tasks.attempt(number=2).flow_run_id, tasks.ids)

    def test_a_result_that_cannot_be_stored_is_logged(self, make_world: Any, caplog: Any) -> None:
        """The task succeeds; the next task that needs the window reads the flow run."""
        tasks = LedgerWorld(make_world(), FailingLedger())
        outcome = tasks.attempt()
        tasks.ledger.failing.add("put")
        tasks.succeed(outcome)
        assert "could not be stored in the ledger" in caplog.text
        tasks.ledger.failing.clear()
        assert reused() == tasks.attempt("other/two/task/-1")


class ListenedLedger(MemoryLedger):
    """Ledger that calls a function before and after each claim."""

    on_call: Any = staticmethod(lambda name: None)

    def put(self, entry: Any, /) -> Any:
        self.on_call("put before")
        stored = super().put(entry)
        self.on_call("put after")
        return stored


@pytest.mark.parametrize("same_owner", [True, False], ids=["second start of the task", "another DAG"])
@pytest.mark.parametrize("step", ["list before", "list after", "post after", "put before", "put after"])
def test_two_attempts_at_once_make_one_run(make_world: Any, step: str, same_owner: bool) -> None:
    """At a step of one attempt, another one starts and ends. One flow run is created.

    The step "post before" is missing: if a worker freezes there for longer than `patience`, it sends when it wakes
    up. No store can prevent this; see docs/guarantees.md, "Last milliseconds".
    """
    ledger = ListenedLedger()
    tasks, results = LedgerWorld(make_world(), ledger), []

    def on_call(name: str) -> None:
        if name != step:
            return
        tasks.world.stop_listening()
        ledger.on_call = lambda name: None
        with contextlib.suppress(AttemptOvertakenError):
            results.append(tasks.attempt("dag/one/task/-1" if same_owner else "other/two/task/-1", again=same_owner))

    tasks.world.listen(on_call)
    ledger.on_call = on_call
    with contextlib.suppress(AttemptOvertakenError):
        results.append(tasks.attempt())
    tasks.world.stop_listening()
    final = tasks.attempt("third/three/task/-1", number=1)
    assert {"run-1"} == {final.flow_run_id, *(result.flow_run_id for result in results)}
    assert ["run-1"] == tasks.ids


@pytest.mark.parametrize("step", ["list before", "list after", "put before", "put after", "post after"])
def test_overlapping_windows_at_once_make_one_run(make_world: Any, step: str) -> None:
    """At a step of one attempt, another task orders a part of the window. A retry of the loser is an error."""
    ledger = ListenedLedger()
    tasks, results, errors = LedgerWorld(make_world(), ledger), [], []
    window = tasks.world.order().window
    half = tasks.world.order(window=IngestionWindow(window.start, window.start + timedelta(hours=12)))

    def attempt(owner: str, order: Any) -> None:
        try:
            results.append(tasks.attempt(owner, order=order).flow_run_id)
        except FlowRunActiveError as error:
            errors.append(error)

    def on_call(name: str) -> None:
        if name != step:
            return
        tasks.world.stop_listening()
        ledger.on_call = lambda name: None
        attempt("other/two/task/-1", half)

    tasks.world.listen(on_call)
    ledger.on_call = on_call
    attempt("dag/one/task/-1", tasks.world.order())
    assert (["run-1"], ["run-1"], 1) == (results, tasks.ids, len(errors))
    assert 1 == len(ledger.overlapping([DATAFLOW], window))
