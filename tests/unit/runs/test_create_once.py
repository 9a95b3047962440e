"""Transitions of `create_once`, one at a time."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_flowservice.api.models import DeltaColumn, Flow, FlowRunStatus
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AttemptOvertakenError,
    ConfigurationError,
    FlowDisabledError,
    FlowRunUncertainError,
    NoAnswerError,
    NotSentError,
    RateLimitedError,
    RunNotFoundError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
    WindowRefusedError,
)
from airflow_flowservice.runs.intent import Attempt, Intent, Outcome

SUCCESS, FAILED = FlowRunStatus.SUCCESS, FlowRunStatus.FAILED
LOST = ("lost", NoAnswerError("the connection was reset"))
RECORDED = ("recorded", NoAnswerError("the connection was reset"))


def created(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="created")


def resumed(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="resumed")


def adopted(number: int = 1) -> Outcome:
    return Outcome(flow_run_id=f"run-{number}", how="adopted")


def ids(world: Any) -> list[str]:
    return [run.id for run in world.service.runs]


class TestFirstAttempt:
    def test_an_empty_store_is_used(self, world: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A store that is falsy while empty does not reduce protection."""

        class Sized(type(world.store)):
            def __len__(self) -> int:
                return len(self.values)

        world.store = Sized()
        world.attempt()
        assert ("run-1", "") == (world.intent["flow_run_id"], caplog.text)

    def test_it_creates(self, world: Any) -> None:
        """If nothing exists, a flow run is created."""
        assert (world.attempt(), ids(world)) == (created(), ["run-1"])

    def test_it_sends_the_order(self, world: Any) -> None:
        """The request has the order's dataflow, window and delta column."""
        order = world.order(delta_column=DeltaColumn(name="updated_at"))
        world.attempt(order)
        (sent,) = world.service.posted
        assert (sent["flow_id"], sent["window"], sent["delta_column"]) == (
            "flow",
            order.window,
            DeltaColumn(name="updated_at"),
        )

    def test_the_intent_is_stored_before_the_post(self, world: Any) -> None:
        """If the process is killed at the POST, the intent is in the store."""
        world.service.add()
        world.dies_at("post before")
        with pytest.raises(world.Died):
            world.attempt()
        intent = Intent.from_json(world.intent)
        assert (intent.order, intent.known, intent.flow_run_id) == (world.order().key, ("run-1",), None)

    def test_the_id_is_stored(self, world: Any) -> None:
        """After the POST, the intent has the flow run's id."""
        world.attempt()
        assert world.intent["flow_run_id"] == "run-1"

    def test_another_run_of_the_same_window_is_ignored(self, world: Any) -> None:
        """A first attempt creates its flow run, also if another DAG ingested the window."""
        window = world.order().window
        world.service.add(window=window)
        assert world.attempt() == created(2)

    def test_a_first_attempt_does_not_wait(self, world: Any) -> None:
        """Only an unknown outcome requires waiting."""
        world.attempt()
        assert world.time.passed == 0

    def test_an_order_needs_a_window_or_a_run(self, world: Any) -> None:
        """An order without window and flow run is an error of the caller."""
        with pytest.raises(TypeError, match="an order needs a window or a run to repeat"):
            world.attempt(replace(world.order(), window=None))


class TestStartTime:
    def sent(self, world: Any) -> float:
        return (world.service.posted[-1]["start_time"] - world.time.true()).total_seconds()

    def test_it_is_soon(self, world: Any) -> None:
        """Without a start time, the flow run begins within seconds, and not in the past."""
        world.attempt()
        assert 0 < self.sent(world) <= 5

    def test_it_is_a_whole_second(self, world: Any) -> None:
        """Flow Service accepts whole seconds."""
        world.time.sleep(0.7)
        world.attempt()
        assert world.service.posted[0]["start_time"].microsecond == 0

    def test_it_is_never_before_the_windows_end(self, world: Any) -> None:
        """A window that ends in the future is ingested when it is over."""
        order = world.order(day=-1)
        world.attempt(order)
        assert world.service.posted[0]["start_time"] == order.window.end

    @pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)], ids=["slow", "fast"])
    def test_the_services_clock_is_used(self, world: Any, skew: timedelta) -> None:
        """A worker with a wrong clock uses the service's clock."""
        world.time.skew = skew
        world.attempt(clock_offset=lambda: -skew)
        assert 0 < self.sent(world) <= 5

    def test_an_explicit_one_is_sent(self, world: Any) -> None:
        """An explicit start time is sent unchanged."""
        later = world.time.true() + timedelta(hours=3)
        world.attempt(world.order(start_time=later))
        assert world.service.posted[0]["start_time"] == later

    def test_in_the_past_it_is_repeated_once_with_a_later_one(self, world: Any) -> None:
        """If the start time is refused, the POST is repeated with one a minute later."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))]
        assert world.attempt() == created()
        first, second = (sent["start_time"] for sent in world.service.posted)
        assert timedelta(seconds=50) <= second - first <= timedelta(seconds=70)

    def test_the_later_one_is_searched_for(self, world: Any) -> None:
        """The response to the repetition can also be lost."""
        world.service.plan = [("lost", StartTimeInPastError("1360")), RECORDED]
        assert world.attempt() == adopted()

    def test_in_the_past_twice_is_an_error(self, world: Any) -> None:
        """A second refusal is raised; no third request is sent."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))] * 3
        with pytest.raises(StartTimeInPastError):
            world.attempt()
        assert (len(world.service.posted), world.intent) == (2, None)

    def test_an_explicit_one_in_the_past_is_an_error(self, world: Any) -> None:
        """An explicit start time is not replaced."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))]
        with pytest.raises(StartTimeInPastError):
            world.attempt(world.order(start_time=world.time.true()))
        assert len(world.service.posted) == 1


class TestRefused:
    @pytest.mark.parametrize("kind", [WindowRefusedError, AccessDeniedError, RateLimitedError, NotSentError])
    def test_the_intent_is_removed(self, world: Any, kind: Any) -> None:
        """A refused request created nothing, so the next attempt does not compare."""
        world.service.plan = [("lost", kind("no", http_status=400))]
        with pytest.raises(kind) as caught:
            world.attempt()
        assert world.intent is None
        assert (caught.value.flow_id, caught.value.window) == ("flow", str(world.order().window))

    def test_the_next_attempt_creates_at_once(self, world: Any) -> None:
        """A retry after a refusal does not wait."""
        world.service.plan = [("lost", RateLimitedError("429"))]
        with pytest.raises(RateLimitedError):
            world.attempt()
        assert (world.attempt(number=2), world.time.passed) == (created(), 0)

    def test_an_error_of_the_store_does_not_hide_the_refusal(self, world: Any) -> None:
        """The task reports the refusal, also if the store fails at the same time."""
        world.store.failing = {"delete"}
        world.service.plan = [("lost", WindowRefusedError("1381"))]
        with pytest.raises(WindowRefusedError):
            world.attempt()


@pytest.mark.parametrize("kind", [NoAnswerError, ServerError, UnreadableAnswerError])
class TestUncertainWithinAnAttempt:
    def test_a_recorded_run_is_found(self, world: Any, kind: Any) -> None:
        """If the response is lost but the flow run exists, it is adopted."""
        world.service.plan = [("recorded", kind("?"))]
        assert (world.attempt(), ids(world)) == (adopted(), ["run-1"])

    def test_a_lost_request_is_repeated_after_patience(self, world: Any, kind: Any) -> None:
        """Another request is sent only if the list shows no flow run during the whole patience."""
        world.service.plan = [("lost", kind("?"))]
        assert world.attempt(patience=180.0) == created()
        assert world.time.passed >= 180.0


class TestPatience:
    def test_a_late_run_is_found(self, world: Any) -> None:
        """A flow run that appears after two minutes is found then."""
        world.service.plan, world.service.lag = [RECORDED], 120.0
        assert world.attempt(patience=180.0, poll=5.0) == adopted()
        assert 120.0 <= world.time.passed <= 126.0

    def test_the_list_is_read_again_at_the_end(self, world: Any) -> None:
        """A flow run that appears when patience ends is found."""
        world.service.plan, world.service.lag = [RECORDED], 180.0
        assert world.attempt(patience=180.0, poll=50.0) == adopted()

    def test_errors_of_the_list_are_tolerated(self, world: Any) -> None:
        """A list that is unreadable for a time does not fail the attempt."""
        world.service.plan, world.service.list_plan = [RECORDED], [None, ServerError("500"), NoAnswerError("reset")]
        assert world.attempt() == adopted()

    def test_a_list_that_stays_unreadable_is_an_error(self, world: Any) -> None:
        """If the outcome stays unknown, nothing is created, and the intent stays for the next attempt."""
        world.service.plan, world.service.list_plan = [RECORDED], [None] + [ServerError("500")] * 100
        with pytest.raises(ServerError):
            world.attempt(patience=60.0)
        assert (len(world.service.posted), world.intent["flow_run_id"]) == (1, None)

    def test_a_list_that_is_refused_is_an_error_at_once(self, world: Any) -> None:
        """Waiting does not fix a missing permission."""
        world.service.plan, world.service.list_plan = [RECORDED], [None, AccessDeniedError("403")]
        with pytest.raises(AccessDeniedError):
            world.attempt()
        assert world.time.passed == 0

    def test_requests_are_bounded(self, world: Any) -> None:
        """If every response is lost, an attempt sends three requests and then fails as retryable."""
        world.service.plan = [LOST] * 10
        with pytest.raises(NoAnswerError) as caught:
            world.attempt()
        assert (len(world.service.posted), caught.value.retryable) == (3, True)
        assert world.intent["flow_run_id"] is None


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
        """A changed window gets a separate flow run, and the old intent is replaced."""
        world.attempt()
        assert world.attempt(world.order(day=1), number=2) == created(2)
        assert world.intent["order"] == world.order(day=1).key

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

        def get_run(flow_run_id: str) -> None:
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


class TestNeighbours:
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


class TestOvertaken:
    def test_before_the_intent_is_written(self, world: Any) -> None:
        """If another attempt created the flow run while this one hung, this one sends nothing."""

        def elsewhere(name: str) -> None:
            if name == "list after":
                world.stop_listening()
                world.attempt(number=2)

        world.listen(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert (ids(world), world.attempt(number=3)) == (["run-1"], resumed())

    def test_by_another_attempt(self, world: Any) -> None:
        """If the store has another attempt's intent before the POST, nothing is sent."""

        def another_writes(name: str) -> None:
            if name == "store set after":
                world.stop_listening()
                world.store.values = {key: {**value, "token": "its"} for key, value in world.store.values.items()}

        world.store.on_call = another_writes
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert world.service.posted == []

    def test_by_time(self, world: Any) -> None:
        """An attempt that hung between intent and POST sends nothing, since another one may have compared."""
        world.store.on_call = lambda name: world.time.sleep(200) if name == "store set after" else None
        with pytest.raises(AttemptOvertakenError) as caught:
            world.attempt(patience=180.0)
        assert (world.service.posted, caught.value.retryable) == ([], True)

    def test_an_intent_that_disappears(self, world: Any) -> None:
        """If the intent disappears from the store, nothing is sent."""
        world.store.on_call = lambda name: world.store.values.clear() if name == "store set after" else None
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert world.service.posted == []


class TestCheckFlow:
    def test_it_may_change_the_order(self, world: Any) -> None:
        """A delta column that the dataflow has already is not sent."""
        column = DeltaColumn(name="updated_at")
        world.service.flow = Flow(id="flow", delta_column=column)
        world.attempt(world.order(delta_column=column), check_flow=True)
        assert world.service.posted[0]["delta_column"] is None

    def test_it_may_refuse(self, world: Any) -> None:
        """If the check fails, nothing is stored and nothing is sent."""
        world.service.flow = Flow(id="flow", state="disabled")
        with pytest.raises(FlowDisabledError) as caught:
            world.attempt(check_flow=True)
        assert (world.intent, world.service.posted, caught.value.flow_id) == (None, [], "flow")

    @pytest.mark.parametrize("what", ["store set after", "post after"], ids=["resumed", "adopted"])
    def test_it_is_omitted_if_the_run_exists(self, world: Any, what: str) -> None:
        """The flow run of an earlier attempt is waited for, also if the dataflow was disabled meanwhile."""
        world.dies_at(what, count=2 if what.startswith("store") else 1)
        with pytest.raises(world.Died):
            world.attempt()
        world.service.flow = Flow(id="flow", state="disabled")
        world.attempt(number=2, check_flow=True)
        assert world.service.flows_read == 0

    def test_it_is_optional(self, world: Any) -> None:
        """Without `check_flow`, the dataflow is not read."""
        world.attempt()
        assert world.service.flows_read == 0


class TestWithoutStore:
    def test_it_is_logged(self, old_world: Any, caplog: Any) -> None:
        """The log states that protection is reduced."""
        old_world.attempt()
        assert "protection against double runs is reduced" in caplog.text

    def test_a_first_attempt_creates(self, old_world: Any) -> None:
        """A first attempt has nothing to compare with."""
        assert (old_world.attempt(), old_world.time.passed) == (created(), 0)

    @pytest.mark.parametrize("status", [None, SUCCESS], ids=["running", "succeeded"])
    def test_a_first_attempt_that_airflow_starts_twice_finds_its_run(self, old_world: Any, status: Any) -> None:
        """A second start under the same number finds the flow run of the first start."""
        assert old_world.attempt() == created()
        if status:
            old_world.service.end("run-1", status)
        assert (old_world.attempt(again=True), ids(old_world)) == (adopted(), ["run-1"])
        assert old_world.time.passed == 0

    @pytest.mark.parametrize("offset", [-1.5, 1.5])
    def test_the_clock_offset_may_be_inexact(self, old_world: Any, offset: float) -> None:
        """The flow run is found if the known clock offset is wrong by a second."""
        began = old_world.time.true()
        old_world.time.sleep(0.1)
        known = {"began": began, "clock_offset": lambda: timedelta(seconds=offset)}
        assert old_world.attempt(**known) == created()
        assert (old_world.attempt(again=True, **known), ids(old_world)) == (adopted(), ["run-1"])

    def test_started_twice_before_the_run_shows(self, old_world: Any) -> None:
        """The flow run is found if the list lags for minutes."""
        old_world.attempt()
        old_world.service.lag = 100.0
        assert (old_world.attempt(again=True, patience=180.0), ids(old_world)) == (adopted(), ["run-1"])

    def test_started_twice_after_the_run_failed(self, old_world: Any) -> None:
        """The window is not ingested, so another flow run is created."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        assert old_world.attempt(again=True) == created(2)

    def test_started_twice_where_windows_are_hidden(self, old_world: Any) -> None:
        """The outcome is unknown, so nothing is created."""
        old_world.attempt()
        old_world.service.hides_windows = True
        with pytest.raises(FlowRunUncertainError):
            old_world.attempt(again=True)

    @pytest.mark.parametrize("hides_windows", [False, True])
    def test_a_first_attempt_ignores_other_runs(self, old_world: Any, hides_windows: bool) -> None:
        """A first attempt does not search, also if another DAG ingested the same window."""
        window = old_world.order().window
        old_world.service.hides_windows = hides_windows
        old_world.service.add(window=window)
        assert (old_world.attempt(), old_world.time.passed) == (created(2), 0)

    def test_a_later_attempt_finds_the_run(self, old_world: Any) -> None:
        """A flow run of the window since the DAG run began is adopted."""
        old_world.attempt()
        assert (old_world.attempt(number=2), ids(old_world)) == (adopted(), ["run-1"])

    def test_a_later_attempt_creates_after_patience(self, old_world: Any) -> None:
        """A flow run is created only if none appears during the whole patience."""
        assert old_world.attempt(number=2, patience=180.0) == created()
        assert old_world.time.passed >= 180.0

    def test_a_run_that_failed_is_followed_by_another(self, old_world: Any) -> None:
        """A retry after a failed flow run creates another."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        assert old_world.attempt(number=2) == created(2)

    def test_a_failed_run_does_not_hide_a_late_one(self, old_world: Any) -> None:
        """If the first flow run failed and the second does not appear yet, no third is created."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        old_world.time.sleep(600)
        old_world.dies_at("post after")
        with pytest.raises(old_world.Died):
            old_world.attempt(number=2)
        old_world.service.lag = 60.0
        assert (old_world.attempt(number=3), ids(old_world)) == (adopted(2), ["run-1", "run-2"])

    def test_the_clock_of_the_scheduler_may_be_ahead(self, old_world: Any) -> None:
        """The flow run is found if Airflow's clock is a minute ahead of the service's."""
        began = old_world.time.true() + timedelta(seconds=60)
        old_world.attempt(began=began)
        assert old_world.attempt(number=2, began=began) == adopted()

    def test_runs_from_before_the_dag_run_are_not_ours(self, old_world: Any) -> None:
        """An old flow run of the same window is not adopted."""
        window = old_world.order().window
        old_world.service.add(window=window)
        old_world.time.sleep(7200)
        assert old_world.attempt(number=2, began=old_world.time.true()) == created(2)

    def test_a_clear_creates(self, old_world: Any) -> None:
        """The first attempt after a clear creates another flow run."""
        old_world.attempt()
        old_world.service.end("run-1", SUCCESS)
        assert old_world.attempt(number=2, clears=1) == created(2)

    def test_hidden_windows_are_uncertain(self, old_world: Any) -> None:
        """A new flow run without window is a candidate."""
        old_world.service.hides_windows = True
        old_world.attempt()
        with pytest.raises(FlowRunUncertainError):
            old_world.attempt(number=2)


class TestRetrigger:
    @pytest.fixture
    def failed(self, world: Any) -> Any:
        world.service.add()
        world.service.end("run-1", FAILED)
        return world

    def order(self, world: Any) -> Any:
        return world.order(window=None, retrigger="run-1")

    def test_it_repeats_the_run(self, failed: Any) -> None:
        """The outcome has the new flow run's id."""
        assert failed.attempt(self.order(failed)) == created(2)
        assert failed.service.posted == [{"retrigger": "run-1"}]

    def test_a_lost_run_is_found_by_its_parent(self, failed: Any) -> None:
        """A new flow run with the repeated one as parent is adopted."""
        failed.service.plan = [RECORDED]
        assert (failed.attempt(self.order(failed)), ids(failed)) == (adopted(2), ["run-1", "run-2"])

    def test_another_runs_repetition_is_not_adopted(self, failed: Any) -> None:
        """A new flow run with another parent is no candidate."""
        failed.service.plan = [LOST]
        failed.service.on_call = lambda name: (
            failed.service.add(parent_id="run-0") if name == "post before" and len(ids(failed)) == 1 else None
        )
        assert failed.attempt(self.order(failed)) == created(3)

    def test_a_new_run_without_parent_is_uncertain(self, failed: Any) -> None:
        """A new flow run without parent may be the repetition."""
        failed.dies_at("post before")
        with pytest.raises(failed.Died):
            failed.attempt(self.order(failed))
        failed.service.add()
        with pytest.raises(FlowRunUncertainError):
            failed.attempt(self.order(failed), number=2)

    def test_a_retry_returns_the_repetition(self, failed: Any) -> None:
        """A retry does not repeat the flow run again."""
        failed.attempt(self.order(failed))
        assert failed.attempt(self.order(failed), number=2) == resumed(2)


class TestAttempt:
    @pytest.mark.parametrize(
        ("try_number", "max_tries", "retries", "expected"),
        [(1, 0, 0, True), (1, 2, 2, True), (2, 2, 2, False), (3, 2, 2, False), (3, 4, 2, True), (4, 4, 2, False)],
    )
    def test_the_first_since_the_last_clear(
        self, try_number: int, max_tries: int, retries: int, expected: bool
    ) -> None:
        """A retry does not change `max_tries`, and a clear increases it."""
        assert Attempt(try_number=try_number, max_tries=max_tries, retries=retries).is_first is expected


class TestIntent:
    def test_unknown_fields_are_ignored(self) -> None:
        """After a downgrade, intents of the later version still apply."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5)
        assert Intent.from_json({**intent.to_json(), "news": 1}) == intent

    @pytest.mark.parametrize("stored", ["text", ["a list"], {"order": "o"}, 7])
    def test_an_unreadable_intent_requires_a_comparison(self, world: Any, stored: Any) -> None:
        """A value was written before a POST, so the flow runs are compared before another POST."""
        window = world.order().window
        world.service.add(window=window)
        world.store.set("flowservice_intent", stored)
        assert (world.attempt(number=2), world.service.posted) == (adopted(), [])

    def test_json_round_trip(self) -> None:
        """An intent survives a round trip through JSON."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5, start_time=2, known=("a",), oldest_known=1.0)
        assert Intent.from_json(intent.to_json()) == intent

    @pytest.mark.parametrize(
        "value", [None, {}, "text", 1, [], {"known": None}, {"known": [], "of": "tomorrow"}], ids=repr
    )
    def test_other_values_are_no_intent(self, value: Any) -> None:
        """An unknown value is ignored."""
        assert Intent.from_json(value) is None


def test_no_warning_is_logged_without_faults(world: Any, caplog: Any) -> None:
    """Only an unknown outcome causes a warning."""
    with caplog.at_level(logging.WARNING):
        world.attempt()
        world.attempt(number=2)
    assert caplog.records == []
