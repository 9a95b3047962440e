# SPDX-License-Identifier: Apache-2.0
"""Tests of first attempts of `create_once`."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from creations import FAILED, LOST, RECORDED, adopted, created, ids, resumed

from airflow_flowservice.api.models import DeltaColumn, Flow
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AttemptOvertakenError,
    FlowDisabledError,
    FlowRunUncertainError,
    NoAnswerError,
    NotSentError,
    RateLimitedError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
    WindowRefusedError,
)
from airflow_flowservice.runs.intent import Intent


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


class TestOvertaken:
    def test_before_the_intent_is_written(self, world: Any) -> None:
        """If another attempt created the flow run while this one hung, this one sends nothing."""

        def elsewhere(name: str) -> None:
            if name == "list after":
                world.stop_listening()
                world.attempt(number=3)

        world.listen(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt(number=2)
        assert (ids(world), world.attempt(number=4)) == (["run-1"], resumed())

    def test_before_the_intent_is_read(self, world: Any) -> None:
        """A first attempt that hung in its requests finds the flow run of another attempt, and sends nothing."""

        def elsewhere(name: str) -> None:
            if name == "list after":
                world.stop_listening()
                world.attempt(number=2)

        world.listen(elsewhere)
        assert (world.attempt(), ids(world)) == (resumed(), ["run-1"])

    def test_after_the_intent_was_read(self, world: Any) -> None:
        """A first attempt that hung after it read its intent reads it again before it writes."""

        def elsewhere(name: str) -> None:
            if name == "store get after":
                world.stop_listening()
                world.attempt(number=2)
                world.time.sleep(1)

        world.listen(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert (ids(world), world.attempt(number=3)) == (["run-1"], resumed())

    def test_after_the_intent_was_read_while_the_machine_is_suspended(self, world: Any) -> None:
        """A monotonic clock that stood still does not make an old reading fresh."""

        def elsewhere(name: str) -> None:
            if name == "store get after":
                world.stop_listening()
                world.attempt(number=2)
                world.time.suspend(60)

        world.listen(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert (ids(world), world.attempt(number=3)) == (["run-1"], resumed())

    def test_after_the_intent_was_read_while_the_clock_is_set_back(self, world: Any) -> None:
        """A wall clock that was set back does not show the age of the reading, so the intent is read again."""

        def elsewhere(name: str) -> None:
            if name == "store get after":
                world.stop_listening()
                world.attempt(number=2)
                world.time.suspend(60)
                world.time.skew = timedelta(seconds=-90)

        world.listen(elsewhere)
        with pytest.raises(AttemptOvertakenError):
            world.attempt()
        assert ids(world) == ["run-1"]

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

    def test_a_short_delay_does_not_count(self, world: Any) -> None:
        """A busy machine delays each attempt by some seconds, also with a short patience."""
        world.store.on_call = lambda name: world.time.sleep(3) if name == "store set after" else None
        world.attempt(patience=0.3)
        assert len(world.service.posted) == 1

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


def test_no_warning_is_logged_without_faults(world: Any, caplog: Any) -> None:
    """Only an unknown outcome causes a warning."""
    with caplog.at_level(logging.WARNING):
        world.attempt()
        world.attempt(number=2)
    assert caplog.records == []
