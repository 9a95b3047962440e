"""Each way of the picture in `create_once`, one at a time."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_flowservice.api.models import DeltaColumn, FlowRunStatus
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AttemptOvertakenError,
    ConfigurationError,
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
    def test_an_empty_store_is_a_store(self, world: Any, caplog: pytest.LogCaptureFixture) -> None:
        """A store that counts as false while it holds nothing is no reason to speak of reduced protection."""

        class Sized(type(world.store)):
            def __len__(self) -> int:
                return len(self.values)

        world.store = Sized()
        world.attempt()
        assert ("run-1", "") == (world.intent["flow_run_id"], caplog.text)

    def test_it_creates(self, world: Any) -> None:
        """Nothing is there, so a run is created."""
        assert (world.attempt(), ids(world)) == (created(), ["run-1"])

    def test_it_sends_what_was_ordered(self, world: Any) -> None:
        """Flow, window and delta column go out as they were ordered."""
        order = world.order(delta_column=DeltaColumn(name="updated_at"))
        world.attempt(order)
        (sent,) = world.service.posted
        assert (sent["flow_id"], sent["window"], sent["delta_column"]) == (
            "flow",
            order.window,
            DeltaColumn(name="updated_at"),
        )

    def test_the_intent_is_there_before_the_post(self, world: Any) -> None:
        """Whoever dies at the POST leaves behind what was about to be created."""
        world.service.add()
        world.dies_at("post before")
        with pytest.raises(world.Died):
            world.attempt()
        intent = Intent.from_json(world.intent)
        assert (intent.order, intent.known, intent.flow_run_id) == (world.order().key, ("run-1",), None)

    def test_the_id_is_stored(self, world: Any) -> None:
        """After the POST the intent has the run's id."""
        world.attempt()
        assert world.intent["flow_run_id"] == "run-1"

    def test_a_neighbour_with_the_same_window_is_no_reason_to_wait(self, world: Any) -> None:
        """A first attempt creates its run, whatever others have ingested."""
        window = world.order().window
        world.service.add(window=window)
        assert world.attempt() == created(2)

    def test_a_first_attempt_takes_no_time(self, world: Any) -> None:
        """Only what is uncertain is waited for."""
        world.attempt()
        assert world.time.passed == 0

    def test_an_order_needs_a_window_or_a_run(self, world: Any) -> None:
        """An order that wants nothing is a bug of the caller."""
        with pytest.raises(TypeError, match="an order needs a window or a run to repeat"):
            world.attempt(replace(world.order(), window=None))


class TestStartTime:
    def sent(self, world: Any) -> float:
        return (world.service.posted[-1]["start_time"] - world.time.true()).total_seconds()

    def test_it_is_soon(self, world: Any) -> None:
        """Without a start time the run begins within seconds, and not in the past."""
        world.attempt()
        assert 0 < self.sent(world) <= 5

    def test_it_is_a_whole_second(self, world: Any) -> None:
        """Flow Service takes whole seconds."""
        world.time.sleep(0.7)
        world.attempt()
        assert world.service.posted[0]["start_time"].microsecond == 0

    def test_it_is_never_before_the_windows_end(self, world: Any) -> None:
        """A window that ends in a few seconds is ingested when it is over."""
        order = world.order(day=-1)
        world.attempt(order)
        assert world.service.posted[0]["start_time"] == order.window.end

    @pytest.mark.parametrize("skew", [timedelta(hours=-1), timedelta(hours=1)], ids=["slow", "fast"])
    def test_the_services_clock_counts(self, world: Any, skew: timedelta) -> None:
        """A worker whose clock is wrong starts its run by the service's clock."""
        world.time.skew = skew
        world.attempt(clock_offset=lambda: -skew)
        assert 0 < self.sent(world) <= 5

    def test_the_ordered_one_is_sent(self, world: Any) -> None:
        """An explicit start time is sent as it is."""
        later = world.time.true() + timedelta(hours=3)
        world.attempt(world.order(start_time=later))
        assert world.service.posted[0]["start_time"] == later

    def test_in_the_past_it_is_repeated_once_with_a_later_one(self, world: Any) -> None:
        """A refusal for the start time is answered by a start time a minute later."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))]
        assert world.attempt() == created()
        first, second = (sent["start_time"] for sent in world.service.posted)
        assert timedelta(seconds=50) <= second - first <= timedelta(seconds=70)

    def test_the_later_one_is_what_is_searched_for(self, world: Any) -> None:
        """The answer to the repetition may be lost, too."""
        world.service.plan = [("lost", StartTimeInPastError("1360")), RECORDED]
        assert world.attempt() == adopted()

    def test_in_the_past_twice_is_an_error(self, world: Any) -> None:
        """A second refusal is the caller's to hear; no third request goes out."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))] * 3
        with pytest.raises(StartTimeInPastError):
            world.attempt()
        assert (len(world.service.posted), world.intent) == (2, None)

    def test_an_ordered_one_in_the_past_is_an_error(self, world: Any) -> None:
        """What somebody asked for is not replaced by something else."""
        world.service.plan = [("lost", StartTimeInPastError("1360"))]
        with pytest.raises(StartTimeInPastError):
            world.attempt(world.order(start_time=world.time.true()))
        assert len(world.service.posted) == 1


class TestRefused:
    @pytest.mark.parametrize("kind", [WindowRefusedError, AccessDeniedError, RateLimitedError, NotSentError])
    def test_the_intent_is_dropped(self, world: Any, kind: Any) -> None:
        """After a refusal nothing can have been created, so the next attempt need not compare."""
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

    def test_a_store_that_cannot_drop_hides_nothing(self, world: Any) -> None:
        """The refusal is what the task says, also when the store fails at that moment."""
        world.store.failing = {"delete"}
        world.service.plan = [("lost", WindowRefusedError("1381"))]
        with pytest.raises(WindowRefusedError):
            world.attempt()


@pytest.mark.parametrize("kind", [NoAnswerError, ServerError, UnreadableAnswerError])
class TestUncertainWithinAnAttempt:
    def test_a_recorded_run_is_found(self, world: Any, kind: Any) -> None:
        """The answer was lost, the run is there: it is taken, and no other is created."""
        world.service.plan = [("recorded", kind("?"))]
        assert (world.attempt(), ids(world)) == (adopted(), ["run-1"])

    def test_a_lost_request_is_repeated_after_patience(self, world: Any, kind: Any) -> None:
        """Only when the list has shown no run for the whole patience is another request sent."""
        world.service.plan = [("lost", kind("?"))]
        assert world.attempt(patience=180.0) == created()
        assert world.time.passed >= 180.0


class TestPatience:
    def test_a_late_run_is_found(self, world: Any) -> None:
        """A run that shows after two minutes is found then, and is not waited for longer."""
        world.service.plan, world.service.lag = [RECORDED], 120.0
        assert world.attempt(patience=180.0, poll=5.0) == adopted()
        assert 120.0 <= world.time.passed <= 126.0

    def test_the_list_is_read_once_more_at_the_end(self, world: Any) -> None:
        """A run that shows in the very last moment is found."""
        world.service.plan, world.service.lag = [RECORDED], 180.0
        assert world.attempt(patience=180.0, poll=50.0) == adopted()

    def test_errors_while_looking_are_waited_out(self, world: Any) -> None:
        """A list that cannot be read for a while ends nothing."""
        world.service.plan, world.service.list_plan = [RECORDED], [None, ServerError("500"), NoAnswerError("reset")]
        assert world.attempt() == adopted()

    def test_a_list_that_stays_unreadable_is_an_error(self, world: Any) -> None:
        """Nobody knows, so nothing is created; the intent stays for the next attempt."""
        world.service.plan, world.service.list_plan = [RECORDED], [None] + [ServerError("500")] * 100
        with pytest.raises(ServerError):
            world.attempt(patience=60.0)
        assert (len(world.service.posted), world.intent["flow_run_id"]) == (1, None)

    def test_a_list_that_is_refused_is_an_error_at_once(self, world: Any) -> None:
        """Waiting mends no missing permission."""
        world.service.plan, world.service.list_plan = [RECORDED], [None, AccessDeniedError("403")]
        with pytest.raises(AccessDeniedError):
            world.attempt()
        assert world.time.passed == 0

    def test_requests_are_bounded(self, world: Any) -> None:
        """When every answer is lost, an attempt sends three requests and then fails as retryable."""
        world.service.plan = [LOST] * 10
        with pytest.raises(NoAnswerError) as caught:
            world.attempt()
        assert (len(world.service.posted), caught.value.retryable) == (3, True)
        assert world.intent["flow_run_id"] is None


class TestLaterAttempts:
    def test_an_active_run_is_waited_for(self, world: Any) -> None:
        """A retry while the run goes on returns it."""
        world.attempt()
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    @pytest.mark.parametrize("status", [SUCCESS, FlowRunStatus.PARTIAL_SUCCESS])
    def test_a_run_that_succeeded_is_done(self, world: Any, status: Any) -> None:
        """A retry after the run has succeeded creates nothing."""
        world.attempt()
        world.service.end("run-1", status)
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    def test_a_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A retry after the run has failed wants the window again."""
        world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2) == created(2)

    def test_a_status_nobody_knows_is_waited_for(self, world: Any) -> None:
        """A word that is new is neither an end nor a failure."""
        world.attempt()
        world.service.end("run-1", FlowRunStatus.UNKNOWN)
        assert world.attempt(number=2) == resumed()

    def test_a_run_that_cannot_be_read_yet_is_waited_for(self, world: Any) -> None:
        """A run may take minutes to show; that is no reason for another."""
        world.attempt()
        world.service.lag = 60.0
        assert (world.attempt(number=2), ids(world)) == (resumed(), ["run-1"])

    @pytest.mark.parametrize("call", ["post before", "store get before", "store set before", "list before"], ids=str)
    def test_death_before_the_post_leaves_one_run(self, world: Any, call: str) -> None:
        """Whoever comes next creates the run that was not created."""
        world.dies_at(call)
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), ids(world)) == (created(), ["run-1"])

    def test_death_after_the_post_leaves_one_run(self, world: Any) -> None:
        """The run was recorded and its id never heard of: it is found by window and start time."""
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), ids(world)) == (adopted(), ["run-1"])

    def test_death_after_the_id_was_stored_leaves_one_run(self, world: Any) -> None:
        """The next attempt has the id, and need not look."""
        world.dies_at("store set after", count=2)
        with pytest.raises(world.Died):
            world.attempt()
        assert (world.attempt(number=2), world.time.passed) == (resumed(), 0)

    def test_a_lost_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A run that was found by its intent and has failed is as good as none."""
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2) == created(2)

    def test_a_store_that_fails_after_the_post_fails_nothing(self, world: Any, caplog: Any) -> None:
        """The run exists, so the attempt goes on; the next one finds it by its intent."""
        world.service.on_call = lambda name: world.store.failing.add("set") if name == "post after" else None
        assert world.attempt() == created()
        assert "run-1 could not be stored" in caplog.text
        world.store.failing, world.service.on_call = set(), lambda name: None
        assert (world.attempt(number=2), ids(world)) == (adopted(), ["run-1"])

    def test_a_store_that_fails_before_the_post_sends_nothing(self, world: Any) -> None:
        """Without a written intent no run is created."""
        world.store.failing = {"set"}
        with pytest.raises(RuntimeError, match="the store cannot set"):
            world.attempt()
        assert world.service.posted == []

    def test_another_order_in_the_same_scope_starts_anew(self, world: Any) -> None:
        """A changed window gets a run of its own, and the old intent is forgotten."""
        world.attempt()
        assert world.attempt(world.order(day=1), number=2) == created(2)
        assert world.intent["order"] == world.order(day=1).key

    def test_another_flow_in_the_same_scope_starts_anew(self, world: Any) -> None:
        """A changed flow gets a run of its own."""
        world.attempt()
        assert world.attempt(world.order(flow_id="other"), number=2) == created(2)

    def test_a_run_that_has_vanished_is_kept(self, world: Any) -> None:
        """Only a person, by clearing, says that the window is wanted again; waiting tells what is wrong."""
        world.attempt()
        world.service.runs.clear()
        world.time.sleep(10_000)
        assert (world.attempt(number=2), ids(world)) == (resumed(), [])

    def test_a_run_whose_state_cannot_be_read_fails_the_attempt(self, world: Any, monkeypatch: Any) -> None:
        """Nobody knows how the run stands, so nothing is created."""
        world.attempt()

        def get_run(flow_run_id: str) -> None:
            raise ServerError("503")

        monkeypatch.setattr(world.service, "get_run", get_run)
        with pytest.raises(ServerError):
            world.attempt(number=2)
        assert len(world.service.posted) == 1


class TestClear:
    def test_a_run_that_succeeded_is_followed_by_another(self, world: Any) -> None:
        """Whoever clears a task wants the window again."""
        world.attempt()
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=2, clears=1) == created(2)

    def test_a_run_that_failed_is_followed_by_another(self, world: Any) -> None:
        """A clear after a failure creates anew."""
        world.attempt()
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2, clears=1) == created(2)

    def test_an_active_run_is_still_waited_for(self, world: Any) -> None:
        """Adobe cannot cancel a run, so a second one beside it would ingest the window twice."""
        world.attempt()
        assert (world.attempt(number=2, clears=1), ids(world)) == (resumed(), ["run-1"])

    def test_a_retry_after_a_clear_is_a_retry(self, world: Any) -> None:
        """The run that the cleared task created is not created again by its retry."""
        world.attempt()
        world.service.end("run-1", SUCCESS)
        world.attempt(number=2, clears=1)
        world.service.end("run-2", SUCCESS)
        assert (world.attempt(number=3, clears=1), ids(world)) == (resumed(2), ["run-1", "run-2"])

    def test_an_active_run_that_a_clear_found_counts_for_it(self, world: Any) -> None:
        """Once the cleared task waits for the run, its success is the clear's success too."""
        world.attempt()
        world.attempt(number=2, clears=1)
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=3, clears=1) == resumed()

    def test_a_run_that_is_gone_is_followed_by_another(self, world: Any) -> None:
        """A run that is unknown long after its creation is gone; a clear creates anew."""
        world.attempt()
        world.service.runs.clear()
        world.time.sleep(3600)
        assert world.attempt(number=2, clears=1).how == "created"

    def test_a_run_that_is_not_readable_yet_is_waited_for(self, world: Any) -> None:
        """Within its first minutes a run that cannot be read is not gone."""
        world.attempt()
        world.service.lag = 60.0
        assert world.attempt(number=2, clears=1) == resumed()


class TestNeighbours:
    def lose_the_answer(self, world: Any, what: str = "post before") -> None:
        world.dies_at(what)
        with pytest.raises(world.Died):
            world.attempt()

    def test_other_windows_are_never_adopted(self, world: Any) -> None:
        """A neighbour's run of another window makes nothing uncertain."""
        self.lose_the_answer(world)
        window = world.order(day=1).window
        world.service.add(window=window)
        assert world.attempt(number=2) == created(2)

    def test_the_same_window_of_another_dag_is_not_adopted(self, world: Any) -> None:
        """The start time tells our run from another DAG's with the same window."""
        self.lose_the_answer(world)
        window, other = world.order().window, world.time.true() + timedelta(hours=1)
        world.service.add(window=window, start_time=other)
        assert world.attempt(number=2) == created(2)

    def test_another_flows_run_is_not_adopted(self, world: Any) -> None:
        """Only runs of the order's flow are looked at."""
        self.lose_the_answer(world)
        window = world.order().window
        world.service.add(flow_id="other", window=window)
        assert world.attempt(number=2) == created(2)

    def test_runs_from_before_are_not_adopted(self, world: Any) -> None:
        """What the flow had when the intent was written is not news, also when windows are hidden."""
        world.service.hides_windows = True
        world.service.add()
        self.lose_the_answer(world)
        assert world.attempt(number=2) == created(2)

    def test_more_old_runs_than_an_intent_remembers(self, world: Any) -> None:
        """Of runs beyond the remembered ones the time of creation tells that they are old."""
        world.service.hides_windows = True
        for _ in range(80):
            world.service.add()
            world.time.sleep(1)
        self.lose_the_answer(world)
        assert len(world.intent["known"]) == 50
        assert world.attempt(number=2) == created(81)

    def test_ours_is_found_among_hundreds(self, world: Any) -> None:
        """However many runs a busy flow has had since, ours is found."""
        self.lose_the_answer(world, "post after")
        window = world.order(day=1).window
        for _ in range(1500):
            world.service.add(window=window)
        assert world.attempt(number=2) == adopted()

    def test_too_many_to_compare_is_uncertain(self, world: Any, monkeypatch: Any) -> None:
        """Where reading ends before ours can be excluded, nothing is created."""
        monkeypatch.setattr("airflow_flowservice.runs.search._READ_AT_MOST", 10)
        self.lose_the_answer(world, "post after")
        window = world.order(day=1).window
        for _ in range(10):
            world.service.add(window=window)
        with pytest.raises(FlowRunUncertainError):
            world.attempt(number=2)

    @pytest.mark.parametrize("skew", [timedelta(hours=-2), timedelta(hours=2)], ids=["slow", "fast"])
    def test_ours_is_found_by_a_worker_with_a_wrong_clock(self, world: Any, skew: timedelta) -> None:
        """The service's clock stamps the runs, so it is the service's clock that tells which are new."""
        world.time.skew = skew
        world.service.plan = [RECORDED]
        assert (world.attempt(clock_offset=lambda: -skew), ids(world)) == (adopted(), ["run-1"])


class TestOnUncertain:
    @pytest.fixture
    def unclear(self, world: Any) -> Any:
        """Our answer was lost, and the flow has two new runs that show no window."""
        world.service.hides_windows = True
        world.dies_at("post after")
        with pytest.raises(world.Died):
            world.attempt()
        world.time.sleep(10)
        world.service.add()
        return world

    def test_fail_lists_the_candidates(self, unclear: Any) -> None:
        """The error has each candidate's id, creation, status and link, and the ways out."""
        with pytest.raises(FlowRunUncertainError) as caught:
            unclear.attempt(number=2)
        error = caught.value
        for run in unclear.service.runs:
            line = f"{run.id} created {run.created_at}, inProgress, https://adobe.test/{run.id}"
            assert line in error.message
        assert all(word in str(error.remedy) for word in ("success", "on_uncertain='create'", "on_uncertain='adopt'"))
        assert (error.flow_id, error.window, error.retryable) == ("flow", str(unclear.order().window), False)

    def test_fail_creates_nothing(self, unclear: Any) -> None:
        """Nobody can tell, so nothing is done, however often it is tried."""
        for number in (2, 3):
            with pytest.raises(FlowRunUncertainError):
                unclear.attempt(number=number)
        assert len(unclear.service.posted) == 1

    def test_adopt_takes_the_oldest(self, unclear: Any) -> None:
        """The oldest new run is the likeliest, and is kept for later attempts."""
        assert unclear.attempt(number=2, on_uncertain="adopt") == adopted()
        assert unclear.attempt(number=3) == resumed()

    def test_create_creates_another(self, unclear: Any) -> None:
        """Whoever rather has a window twice than not at all gets a new run."""
        assert unclear.attempt(number=2, on_uncertain="create") == created(3)

    def test_clearing_with_create_is_the_way_out(self, unclear: Any) -> None:
        """What the remedy says works."""
        with pytest.raises(FlowRunUncertainError):
            unclear.attempt(number=2)
        assert unclear.attempt(number=3, clears=1, on_uncertain="create") == created(3)

    def test_runs_that_failed_are_no_candidates(self, unclear: Any) -> None:
        """A failed run has left its window out, whosever it is, so another one is safe."""
        for run in unclear.service.runs:
            unclear.service.end(run.id, FAILED)
        assert unclear.attempt(number=2) == created(3)

    def test_naming_the_run_is_a_way_out(self, unclear: Any) -> None:
        """Somebody looked, and says which one it is; later attempts wait for it."""
        with pytest.raises(FlowRunUncertainError):
            unclear.attempt(number=2)
        assert unclear.attempt(number=3, adopt="run-2") == adopted(2)
        assert unclear.attempt(number=4, adopt="run-2") == resumed(2)
        assert len(unclear.service.posted) == 1


class TestAdopt:
    """A run that somebody named in the DAG run's conf."""

    def test_it_is_taken_instead_of_creating_one(self, world: Any) -> None:
        """Nothing is sent, also on a first attempt."""
        world.service.add()
        assert (world.attempt(adopt="run-1"), world.service.posted) == (adopted(), [])

    def test_without_a_store_too(self, old_world: Any) -> None:
        """Each attempt takes it anew."""
        old_world.service.add()
        for number in (1, 2):
            assert old_world.attempt(number=number, adopt="run-1") == adopted()

    @pytest.mark.parametrize("other", [{"flow_id": "another"}, {"day": 1}], ids=["dataflow", "window"])
    def test_it_must_be_this_tasks(self, world: Any, other: dict[str, Any]) -> None:
        """A slip of the pen must not leave a window out."""
        window = world.order(day=other.get("day", 0)).window
        flow_id = other.get("flow_id", "flow")
        world.service.add(flow_id=flow_id, window=window)
        with pytest.raises(ConfigurationError, match="is of another task") as caught:
            world.attempt(adopt="run-1")
        assert "TASK_ID" in str(caught.value.remedy)
        assert (world.service.posted, world.intent) == ([], None)

    def test_it_must_be_there(self, world: Any) -> None:
        """An id that nobody knows is an error, not a reason to create."""
        with pytest.raises(RunNotFoundError):
            world.attempt(adopt="run-1")
        assert world.service.posted == []

    def test_a_failed_one_is_not_taken(self, world: Any) -> None:
        """Its window is not in, so a run is created, once."""
        world.service.add()
        world.service.end("run-1", FAILED)
        assert world.attempt(adopt="run-1") == created(2)
        assert world.attempt(number=2, adopt="run-1") == resumed(2)

    def test_a_run_that_fails_after_it_was_taken_is_followed_by_one(self, world: Any) -> None:
        """As any run that fails, and later attempts wait for the new one."""
        world.service.add()
        world.attempt(adopt="run-1")
        world.service.end("run-1", FAILED)
        assert world.attempt(number=2, adopt="run-1") == created(2)
        assert world.attempt(number=3, adopt="run-1") == resumed(2)

    def test_it_is_taken_once(self, world: Any) -> None:
        """Who clears the task afterwards wants the window again, and later attempts know that run."""
        world.service.add()
        world.attempt(adopt="run-1")
        world.service.end("run-1", SUCCESS)
        assert world.attempt(number=2, clears=1, adopt="run-1") == created(2)
        assert world.attempt(number=3, clears=1, adopt="run-1") == resumed(2)


class TestOvertaken:
    def test_before_it_has_written_anything(self, world: Any) -> None:
        """While this worker hung, the task was started again elsewhere, and created the run."""

        def elsewhere(name: str) -> None:
            if name == "list after":
                world.lives()
                world.attempt(number=2)

        world.hears(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert (ids(world), world.attempt(number=3)) == (["run-1"], resumed())

    def test_by_another_attempt(self, world: Any) -> None:
        """The store holds another attempt's intent just before the POST: nothing is sent."""

        def another_writes(name: str) -> None:
            if name == "store set after":
                world.lives()
                world.store.values = {key: {**value, "token": "its"} for key, value in world.store.values.items()}

        world.store.on_call = another_writes
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert world.service.posted == []

    def test_by_time(self, world: Any) -> None:
        """An attempt that hung between intent and POST ends: others may have compared meanwhile."""
        world.store.on_call = lambda name: world.time.sleep(200) if name == "store set after" else None
        with pytest.raises(AttemptOvertakenError) as caught:
            world.attempt(patience=180.0)
        assert (world.service.posted, caught.value.retryable) == ([], True)

    def test_an_intent_that_disappears(self, world: Any) -> None:
        """A store that was emptied meanwhile protects nothing, so nothing is sent."""
        world.store.on_call = lambda name: world.store.values.clear() if name == "store set after" else None
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert world.service.posted == []


class TestPrepare:
    def test_it_may_change_the_order(self, world: Any) -> None:
        """What it returns is what is sent."""
        order = world.order(delta_column=DeltaColumn(name="updated_at"))
        world.attempt(order, prepare=lambda order: replace(order, delta_column=None))
        assert world.service.posted[0]["delta_column"] is None

    def test_it_may_refuse(self, world: Any) -> None:
        """Nothing is written and nothing sent when it raises."""

        def refuse(order: Any) -> Any:
            raise ConfigurationError("no")

        with pytest.raises(ConfigurationError) as caught:
            world.attempt(prepare=refuse)
        assert (world.intent, world.service.posted, caught.value.flow_id) == (None, [], "flow")

    @pytest.mark.parametrize("what", ["store set after", "post after"], ids=["resumed", "adopted"])
    def test_it_is_not_asked_when_the_run_is_there(self, world: Any, what: str) -> None:
        """A flow that was disabled meanwhile is no reason to leave a run alone."""
        world.dies_at(what, count=2 if what.startswith("store") else 1)
        with pytest.raises(world.Died):
            world.attempt()
        asked: list[Any] = []
        world.attempt(number=2, prepare=lambda order: asked.append(order) or order)
        assert asked == []


class TestWithoutStore:
    def test_it_says_so(self, old_world: Any, caplog: Any) -> None:
        """The log says that protection is reduced."""
        old_world.attempt()
        assert "protection against double runs is reduced" in caplog.text

    def test_a_first_attempt_creates(self, old_world: Any) -> None:
        """A first attempt has nothing to compare with."""
        assert (old_world.attempt(), old_world.time.passed) == (created(), 0)

    @pytest.mark.parametrize("status", [None, SUCCESS], ids=["goes on", "succeeded"])
    def test_a_first_attempt_that_airflow_starts_twice_finds_its_run(self, old_world: Any, status: Any) -> None:
        """Under the same number, after the task has ended on a worker: it is this attempt's run."""
        assert old_world.attempt() == created()
        if status:
            old_world.service.end("run-1", status)
        assert (old_world.attempt(again=True), ids(old_world)) == (adopted(), ["run-1"])
        assert old_world.time.passed == 0

    @pytest.mark.parametrize("offset", [-1.5, 1.5])
    def test_clocks_are_not_known_to_the_second(self, old_world: Any, offset: float) -> None:
        """The run was created right after the DAG run began, and the service's clock is known by whole seconds."""
        began = old_world.time.true()
        old_world.time.sleep(0.1)
        known = {"began": began, "clock_offset": lambda: timedelta(seconds=offset)}
        assert old_world.attempt(**known) == created()
        assert (old_world.attempt(again=True, **known), ids(old_world)) == (adopted(), ["run-1"])

    def test_started_twice_before_the_run_shows(self, old_world: Any) -> None:
        """The list may lag for minutes."""
        old_world.attempt()
        old_world.service.lag = 100.0
        assert (old_world.attempt(again=True, patience=180.0), ids(old_world)) == (adopted(), ["run-1"])

    def test_started_twice_after_the_run_failed(self, old_world: Any) -> None:
        """The window is not in, so another run is created."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        assert old_world.attempt(again=True) == created(2)

    def test_started_twice_where_windows_are_hidden(self, old_world: Any) -> None:
        """Nobody can tell, so nothing is created."""
        old_world.attempt()
        old_world.service.hides_windows = True
        with pytest.raises(FlowRunUncertainError):
            old_world.attempt(again=True)

    @pytest.mark.parametrize("hides_windows", [False, True])
    def test_a_first_attempt_leaves_other_runs_alone(self, old_world: Any, hides_windows: bool) -> None:
        """Also of the same window, which somebody else may want as well: it has nothing to look for."""
        window = old_world.order().window
        old_world.service.hides_windows = hides_windows
        old_world.service.add(window=window)
        assert (old_world.attempt(), old_world.time.passed) == (created(2), 0)

    def test_a_later_attempt_finds_the_run(self, old_world: Any) -> None:
        """A run of our window since the DAG run began is ours."""
        old_world.attempt()
        assert (old_world.attempt(number=2), ids(old_world)) == (adopted(), ["run-1"])

    def test_a_later_attempt_creates_after_patience(self, old_world: Any) -> None:
        """Only when nothing has shown for the whole patience."""
        assert old_world.attempt(number=2, patience=180.0) == created()
        assert old_world.time.passed >= 180.0

    def test_a_run_that_failed_is_followed_by_another(self, old_world: Any) -> None:
        """A retry after a failed run creates anew."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        assert old_world.attempt(number=2) == created(2)

    def test_a_failed_run_does_not_hide_a_late_one(self, old_world: Any) -> None:
        """The first run failed and the second does not show yet: it is waited for, not doubled."""
        old_world.attempt()
        old_world.service.end("run-1", FAILED)
        old_world.time.sleep(600)
        old_world.dies_at("post after")
        with pytest.raises(old_world.Died):
            old_world.attempt(number=2)
        old_world.service.lag = 60.0
        assert (old_world.attempt(number=3), ids(old_world)) == (adopted(2), ["run-1", "run-2"])

    def test_a_scheduler_whose_clock_is_ahead(self, old_world: Any) -> None:
        """The run was created, by the service's clock, a minute before the DAG run began by Airflow's."""
        began = old_world.time.true() + timedelta(seconds=60)
        old_world.attempt(began=began)
        assert old_world.attempt(number=2, began=began) == adopted()

    def test_runs_from_before_the_dag_run_are_not_ours(self, old_world: Any) -> None:
        """An old run of the same window is not adopted."""
        window = old_world.order().window
        old_world.service.add(window=window)
        old_world.time.sleep(7200)
        assert old_world.attempt(number=2, began=old_world.time.true()) == created(2)

    def test_a_clear_creates(self, old_world: Any) -> None:
        """The first attempt after a clear wants the window again."""
        old_world.attempt()
        old_world.service.end("run-1", SUCCESS)
        assert old_world.attempt(number=2, clears=1) == created(2)

    def test_hidden_windows_are_uncertain(self, old_world: Any) -> None:
        """A new run without window may be ours."""
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
        """The new run's id is what Flow Service answers."""
        assert failed.attempt(self.order(failed)) == created(2)
        assert failed.service.posted == [{"retrigger": "run-1"}]

    def test_a_lost_answer_is_found_by_its_parent(self, failed: Any) -> None:
        """A new run that names the repeated one as its parent is ours."""
        failed.service.plan = [RECORDED]
        assert (failed.attempt(self.order(failed)), ids(failed)) == (adopted(2), ["run-1", "run-2"])

    def test_another_runs_repetition_is_not_adopted(self, failed: Any) -> None:
        """A new run with another parent is another's."""
        failed.service.plan = [LOST]
        failed.service.on_call = lambda name: (
            failed.service.add(parent_id="run-0") if name == "post before" and len(ids(failed)) == 1 else None
        )
        assert failed.attempt(self.order(failed)) == created(3)

    def test_a_new_run_without_parent_is_uncertain(self, failed: Any) -> None:
        """It may be the repetition; nobody can tell."""
        failed.dies_at("post before")
        with pytest.raises(failed.Died):
            failed.attempt(self.order(failed))
        failed.service.add()
        with pytest.raises(FlowRunUncertainError):
            failed.attempt(self.order(failed), number=2)

    def test_a_retry_returns_the_repetition(self, failed: Any) -> None:
        """A retry does not repeat it again."""
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
        """A retry leaves `max_tries` as it is, and a clear adds to it."""
        assert Attempt(try_number=try_number, max_tries=max_tries, retries=retries).is_first is expected


class TestIntent:
    def test_a_version_that_writes_more_is_read(self) -> None:
        """After an upgrade was taken back, its intents still protect."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5)
        assert Intent.from_json({**intent.to_json(), "news": 1}) == intent

    @pytest.mark.parametrize("stored", ["text", ["a list"], {"order": "o"}, 7])
    def test_what_cannot_be_read_is_not_nothing(self, world: Any, stored: Any) -> None:
        """Somebody wrote it before a POST, so the flow's runs are compared before another one."""
        window = world.order().window
        world.service.add(window=window)
        world.store.set("flowservice_intent", stored)
        assert (world.attempt(number=2), world.service.posted) == (adopted(), [])

    def test_json_round_trip(self) -> None:
        """What is stored is read back."""
        intent = Intent(order="o", max_tries=1, token="t", written_at=1.5, start_time=2, known=("a",), oldest_known=1.0)
        assert Intent.from_json(intent.to_json()) == intent

    @pytest.mark.parametrize(
        "value", [None, {}, "text", 1, [], {"known": None}, {"known": [], "of": "tomorrow"}], ids=repr
    )
    def test_other_values_are_no_intent(self, value: Any) -> None:
        """A value that nobody knows is passed over."""
        assert Intent.from_json(value) is None


def test_nothing_is_said_when_all_goes_well(world: Any, caplog: Any) -> None:
    """A warning means that something was uncertain."""
    with caplog.at_level(logging.WARNING):
        world.attempt()
        world.attempt(number=2)
    assert caplog.records == []
