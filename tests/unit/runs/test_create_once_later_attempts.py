# SPDX-License-Identifier: Apache-2.0
"""Tests of later attempts of `create_once`: retries, clears, comparisons and named flow runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from creations import FAILED, RECORDED, SUCCESS, adopted, created, ids, resumed

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    ConfigurationError,
    FlowRunUncertainError,
    RunNotFoundError,
    ServerError,
    WindowRefusedError,
)


class TestLaterAttempts:
    def test_an_active_run_is_waited_for(self, world: Any) -> None:
        """A retry returns the flow run that is running."""
        world.attempt()
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    @pytest.mark.parametrize("status", [SUCCESS, FlowRunStatus.PARTIAL_SUCCESS])
    def test_a_run_that_succeeded_is_accepted(self, world: Any, status: Any) -> None:
        """A retry after a success creates nothing."""
        world.attempt()
        world.service.end("run-1", status)
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    def test_a_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A retry after a failed flow run creates another."""
        world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2) == created(2)

    def test_an_unknown_status_is_waited_for(self, world: Any) -> None:
        """An unknown status is neither an end nor a failure."""
        world.attempt()
        world.service.end("run-1", FlowRunStatus.UNKNOWN)
        assert world.attempt(number=2) == resumed()

    def test_a_run_that_cannot_be_read_yet_is_waited_for(self, world: Any) -> None:
        """A flow run may take minutes to appear; no other is created."""
        world.attempt()
        world.service.lag = 60.0
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    @pytest.mark.parametrize("call", ["post before", "store get before", "store set before", "list before"], ids=str)
    def test_death_before_the_post_leaves_one_run(self, world: Any, call: str) -> None:
        """The next attempt creates the flow run."""
        world.dies_at(call)
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), ids(world)) == (created(), ["run-1"])

    def test_death_after_the_post_leaves_one_run(self, world: Any) -> None:
        """A flow run with an unknown id is found by window and start time."""
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), ids(world)) == (adopted(), ["run-1"])

    def test_death_after_the_id_was_stored_leaves_one_run(self, world: Any) -> None:
        """The next attempt has the id, and does not search."""
        world.dies_at("store set after", count=2)
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), world.time.passed) == (resumed(), 0)

    def test_a_lost_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A failed flow run is not adopted."""
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2) == created(2)

    def test_an_error_of_the_store_after_the_post_is_tolerated(self, world: Any, caplog: Any) -> None:
        """The flow run exists, so the attempt continues; the next one finds the flow run by its intent."""
        world.service.on_call = lambda name: world.store.failing.add("set") if name == "post after" else None
        assert world.attempt() == created()
        assert "run-1 could not be stored" in caplog.text
        world.store.failing, world.service.on_call = set(), lambda name: None
        assert (world.attempt(number=2), ids(world)) == (adopted(), ["run-1"])

    def test_a_store_that_fails_before_the_post_sends_nothing(self, world: Any) -> None:
        """Without a stored intent, no flow run is created."""
        world.store.failing = {"set"}
        with pytest.raises(RuntimeError, match="the store cannot set"):
            world.attempt()
        assert world.service.posted == []

    def test_another_order_in_the_same_scope_starts_anew(self, world: Any) -> None:
        """A changed window gets a separate flow run, and the old intent is kept."""
        world.attempt()
        assert world.attempt(world.order(day=1), number=2) == created(2)
        assert world.intent["order"] == world.order().key

    def test_a_retry_finds_each_of_several_windows(self, world: Any) -> None:
        """A task that creates several flow runs has one intent for each."""
        orders = [world.order(), world.order(day=1), world.order(flow_id="other")]
        first = [world.attempt(order).flow_run_id for order in orders]
        assert [world.attempt(order, number=2).flow_run_id for order in orders] == first
        assert len(world.service.posted) == 3

    def test_a_refusal_does_not_hide_a_further_window(self, world: Any) -> None:
        """If the first order's next request is refused, a second start of the attempt finds the second order's run."""
        second = world.order(day=1)
        world.attempt()
        created_run = world.attempt(second).flow_run_id
        world.service.end("run-1", FAILED)
        world.service.plan = [("lost", WindowRefusedError("1381"))]
        with pytest.raises(WindowRefusedError):
            world.attempt()
        assert world.attempt(second).flow_run_id == created_run
        assert world.attempt() == created(3)

    def test_a_lost_response_of_a_further_window_is_compared(self, world: Any) -> None:
        """The second order of a task has the same protection as the first."""
        world.attempt()
        second = world.order(day=1)
        world.attempt(second)
        [key] = [key for key in world.store.values if key != "flowservice_intent"]
        world.store.set(key, {**world.store.get(key), "flow_run_id": None})
        assert world.attempt(second, number=2).how == "adopted"
        assert len(world.service.posted) == 2

    def test_a_known_run_is_read_within_the_error_budget(self, world: Any, monkeypatch: Any) -> None:
        """A temporary error of the first read does not fail the retry; after the budget, it does."""
        world.attempt()
        read, failures = world.service.get_run, [ServerError("busy", http_status=503)] * 3

        def fail_at_first(flow_run_id: str, **_: Any) -> Any:
            if failures:
                raise failures.pop()
            return read(flow_run_id)

        monkeypatch.setattr(world.service, "get_run", fail_at_first)
        assert world.attempt(number=2, error_budget=60.0).how == "resumed"
        failures.extend([ServerError("busy", http_status=503)] * 1000)
        with pytest.raises(ServerError) as caught:
            world.attempt(number=3, error_budget=60.0)
        assert (caught.value.flow_run_id, len(world.service.posted)) == ("run-1", 1)

    def test_another_flow_in_the_same_scope_starts_anew(self, world: Any) -> None:
        """A changed dataflow gets a separate flow run."""
        world.attempt()
        assert world.attempt(world.order(flow_id="other"), number=2) == created(2)

    def test_a_run_that_has_vanished_is_kept(self, world: Any) -> None:
        """Only a clear requests the window again; the wait then reports the missing flow run."""
        world.attempt()
        world.service.runs.clear()
        world.time.sleep(10_000)
        assert (world.attempt(number=2), ids(world)) == (resumed(), [])

    def test_a_run_whose_state_cannot_be_read_fails_the_attempt(self, world: Any, monkeypatch: Any) -> None:
        """If the state of the flow run is unknown, nothing is created."""
        world.attempt()

        def get_run(flow_run_id: str, **_: Any) -> None:
            raise ServerError("503")

        monkeypatch.setattr(world.service, "get_run", get_run)
        with pytest.raises(ServerError):
            world.attempt(number=2)
        assert len(world.service.posted) == 1


class TestClear:
    def test_a_run_that_succeeded_is_followed_by_another(self, world: Any) -> None:
        """A clear requests the window again."""
        world.attempt()
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=2, clears=1) == created(2)

    def test_a_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A clear after a failure creates another."""
        world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2, clears=1) == created(2)

    def test_an_active_run_is_still_waited_for(self, world: Any) -> None:
        """Adobe cannot cancel a flow run, so a second one would ingest the window twice."""
        world.attempt()
        assert (world.attempt(number=2, clears=1), ids(world)) == (resumed(), ["run-1"])

    def test_a_retry_after_a_clear_is_a_retry(self, world: Any) -> None:
        """A retry does not repeat the flow run that the cleared task created."""
        world.attempt()
        world.service.end("run-1", SUCCESS)
        world.attempt(number=2, clears=1)
        world.service.end("run-2", SUCCESS)
        assert (world.attempt(number=3, clears=1), ids(world)) == (resumed(2), ["run-1", "run-2"])

    def test_an_active_run_that_a_clear_found_is_accepted(self, world: Any) -> None:
        """If the cleared task waits for the flow run, its success ends the task."""
        world.attempt()
        world.attempt(number=2, clears=1)
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=3, clears=1) == resumed()

    def test_a_run_that_is_gone_is_followed_by_another(self, world: Any) -> None:
        """A clear creates another if the flow run does not exist long after its creation."""
        world.attempt()
        world.service.runs.clear()
        world.time.sleep(3600)
        assert world.attempt(number=2, clears=1).how == "created"

    def test_a_run_that_is_not_readable_yet_is_waited_for(self, world: Any) -> None:
        """A flow run may be unreadable in its first minutes."""
        world.attempt()
        world.service.lag = 60.0
        assert world.attempt(number=2, clears=1) == resumed()


class TestOtherRuns:
    def lose_the_response(self, world: Any, what: str = "post before") -> None:
        world.dies_at(what)
        with pytest.raises(world.Died):
            world.attempt()

    def test_other_windows_are_never_adopted(self, world: Any) -> None:
        """A flow run of another window is no candidate."""
        self.lose_the_response(world)
        window = world.order(day=1).window
        world.service.add(window=window)
        assert world.attempt(number=2) == created(2)

    def test_the_same_window_of_another_dag_is_not_adopted(self, world: Any) -> None:
        """The start time distinguishes the flow run from another DAG's with the same window."""
        self.lose_the_response(world)
        window, other = world.order().window, world.time.true() + timedelta(hours=1)
        world.service.add(window=window, start_time=other)
        assert world.attempt(number=2) == created(2)

    def test_another_flows_run_is_not_adopted(self, world: Any) -> None:
        """Only flow runs of the order's dataflow are compared."""
        self.lose_the_response(world)
        window = world.order().window
        world.service.add(flow_id="other", window=window)
        assert world.attempt(number=2) == created(2)

    def test_runs_from_before_are_not_adopted(self, world: Any) -> None:
        """Flow runs that existed before the intent are no candidates, also if windows are hidden."""
        world.service.hides_windows = True
        world.service.add()
        self.lose_the_response(world)
        assert world.attempt(number=2) == created(2)

    def test_more_old_runs_than_an_intent_remembers(self, world: Any) -> None:
        """Flow runs that the intent does not list are old by their creation time."""
        world.service.hides_windows = True
        for _ in range(80):
            world.service.add()
            world.time.sleep(1)
        self.lose_the_response(world)
        assert len(world.intent["known"]) == 50
        assert world.attempt(number=2) == created(81)

    def test_ours_is_found_among_hundreds(self, world: Any) -> None:
        """The flow run is found among many new ones of a busy dataflow."""
        self.lose_the_response(world, "post after")
        window = world.order(day=1).window
        for _ in range(1500):
            world.service.add(window=window)
        assert world.attempt(number=2) == adopted()

    def test_too_many_to_compare_is_uncertain(self, world: Any, monkeypatch: Any) -> None:
        """If the list is too long to read completely, nothing is created."""
        monkeypatch.setattr("airflow_flowservice.runs.create_once._MAX_RUNS_READ", 10)
        self.lose_the_response(world, "post after")
        window = world.order(day=1).window
        for _ in range(10):
            world.service.add(window=window)
        with pytest.raises(FlowRunUncertainError):
            world.attempt(number=2)

    @pytest.mark.parametrize("skew", [timedelta(hours=-2), timedelta(hours=2)], ids=["slow", "fast"])
    def test_ours_is_found_by_a_worker_with_a_wrong_clock(self, world: Any, skew: timedelta) -> None:
        """The service's clock stamps the flow runs, so it decides which are new."""
        world.time.skew = skew
        world.service.plan = [RECORDED]
        assert (world.attempt(clock_offset=lambda: -skew), ids(world)) == (adopted(), ["run-1"])


class TestOnUncertain:
    @pytest.fixture
    def unclear(self, world: Any) -> Any:
        """Return a task whose response was lost, with two new flow runs that show no window."""
        world.service.hides_windows = True
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        world.time.sleep(10)
        world.service.add()
        return world

    def test_fail_lists_the_candidates(self, unclear: Any) -> None:
        """The error has each candidate's id, creation, status and link, and the remedies."""
        with pytest.raises(FlowRunUncertainError) as caught:
            unclear.attempt(number=2)
        error = caught.value
        for run in unclear.service.runs:
            line = f"{run.id} created {run.created_at}, inProgress, https://adobe.test/{run.id}"
            assert line in error.message
        assert all(word in str(error.remedy) for word in ("success", "on_uncertain='create'", "on_uncertain='adopt'"))
        assert (error.flow_id, error.window, error.retryable) == ("flow", str(unclear.order().window), False)

    def test_fail_creates_nothing(self, unclear: Any) -> None:
        """If the outcome stays unknown, no attempt creates a flow run."""
        for number in (2, 3):
            with pytest.raises(FlowRunUncertainError):
                unclear.attempt(number=number)
        assert len(unclear.service.posted) == 1

    def test_adopt_takes_the_oldest(self, unclear: Any) -> None:
        """The oldest new flow run is adopted and stored for later attempts."""
        assert unclear.attempt(number=2, on_uncertain="adopt") == adopted()
        assert unclear.attempt(number=3) == resumed()

    def test_create_creates_another(self, unclear: Any) -> None:
        """With `create`, a duplicated window is accepted to avoid a missing one."""
        assert unclear.attempt(number=2, on_uncertain="create") == created(3)

    def test_clearing_with_create_resolves_it(self, unclear: Any) -> None:
        """The remedy of the error works."""
        with pytest.raises(FlowRunUncertainError):
            unclear.attempt(number=2)
        assert unclear.attempt(number=3, clears=1, on_uncertain="create") == created(3)

    def test_runs_that_failed_are_no_candidates(self, unclear: Any) -> None:
        """A failed flow run ingested nothing, so another one is safe."""
        for run in unclear.service.runs:
            unclear.service.end(run.id, FAILED)
        assert unclear.attempt(number=2) == created(3)

    def test_naming_the_run_resolves_it(self, unclear: Any) -> None:
        """If the conf names the flow run, this and later attempts wait for it."""
        with pytest.raises(FlowRunUncertainError):
            unclear.attempt(number=2)
        assert unclear.attempt(number=3, adopt="run-2") == adopted(2)
        assert unclear.attempt(number=4, adopt="run-2") == resumed(2)
        assert len(unclear.service.posted) == 1


class TestAdopt:
    """Flow runs that the DAG run's conf names."""

    def test_it_is_adopted_instead_of_creating_one(self, world: Any) -> None:
        """Nothing is sent, also on a first attempt."""
        world.service.add()
        assert (world.attempt(adopt="run-1"), world.service.posted) == (adopted(), [])

    def test_it_is_adopted_without_a_store(self, old_world: Any) -> None:
        """Each attempt adopts it again."""
        old_world.service.add()
        for number in (1, 2):
            assert old_world.attempt(number=number, adopt="run-1") == adopted()

    @pytest.mark.parametrize("other", [{"flow_id": "another"}, {"day": 1}], ids=["dataflow", "window"])
    def test_it_must_be_this_tasks(self, world: Any, other: dict[str, Any]) -> None:
        """A wrong id must not cause a missing window."""
        window = world.order(day=other.get("day", 0)).window
        flow_id = other.get("flow_id", "flow")
        world.service.add(flow_id=flow_id, window=window)
        with pytest.raises(ConfigurationError, match="is of another task") as caught:
            world.attempt(adopt="run-1")
        assert "TASK_ID" in str(caught.value.remedy)
        assert (world.service.posted, world.intent) == ([], None)

    def test_it_must_exist(self, world: Any) -> None:
        """An unknown id is an error; nothing is created."""
        with pytest.raises(RunNotFoundError):
            world.attempt(adopt="run-1")
        assert world.service.posted == []

    def test_a_failed_one_is_not_adopted(self, world: Any) -> None:
        """Its window is not ingested, so a flow run is created, once."""
        world.service.add()
        world.service.end("run-1", FAILED)
        assert world.attempt(adopt="run-1") == created(2)
        assert world.attempt(number=2, adopt="run-1") == resumed(2)

    def test_one_that_ended_without_a_status_is_adopted(self, world: Any) -> None:
        """Another flow run could ingest its window again."""
        world.service.add()
        world.service.end("run-1", FlowRunStatus.ENDED_UNCLEAR)
        assert world.attempt(adopt="run-1") == adopted(1)
        assert world.service.posted == []

    def test_a_run_that_fails_after_it_was_adopted_is_followed_by_another(self, world: Any) -> None:
        """Later attempts wait for the new flow run."""
        world.service.add()
        world.attempt(adopt="run-1")
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2, adopt="run-1") == created(2)
        assert world.attempt(number=3, adopt="run-1") == resumed(2)

    def test_it_is_adopted_once(self, world: Any) -> None:
        """A clear afterwards requests the window again, and later attempts resume that flow run."""
        world.service.add()
        world.attempt(adopt="run-1")
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=2, clears=1, adopt="run-1") == created(2)
        assert world.attempt(number=3, clears=1, adopt="run-1") == resumed(2)


def test_a_run_that_ended_without_a_status_is_not_repeated_by_a_retry(world: Any) -> None:
    """It may have ingested its window. Only a clear creates another flow run."""
    world.attempt()
    world.service.end("run-1", FlowRunStatus.ENDED_UNCLEAR)
    assert world.attempt(number=2) == resumed(1)
    assert world.attempt(number=3, clears=1) == created(2)
