# SPDX-License-Identifier: Apache-2.0
"""In random histories of faults, a window has one flow run, or the task fails with the reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    FlowRunUncertainError,
    FlowServiceError,
    NoAnswerError,
    NotSentError,
    RunRefusedError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
)

PATIENCE = 180.0

posts = st.sampled_from(
    [
        None,
        None,
        ("lost", NoAnswerError("reset")),
        ("lost", ServerError("500")),
        ("recorded", NoAnswerError("timeout")),
        ("recorded", ServerError("502")),
        ("recorded", UnreadableAnswerError("html")),
        ("lost", RunRefusedError("400")),
        ("lost", NotSentError("no connection")),
        ("lost", StartTimeInPastError("1360")),
    ]
)
lists = st.sampled_from([None, None, None, ServerError("500"), NoAnswerError("timeout")])


def histories(
    make_world: Any,
    *,
    hides_windows: bool = False,
    keeps_state: bool = True,
    clears: bool = False,
    retrigger: bool = False,
) -> type[RuleBasedStateMachine]:
    class Histories(RuleBasedStateMachine):
        """Attempts of one task during faults."""

        @initialize(
            skew=st.integers(-600, 600),
            known_skew=st.none() | st.integers(-7200, 7200),
            lag=st.floats(0, PATIENCE - 1),
        )
        def begin(self, skew: int, known_skew: int | None, lag: float) -> None:
            self.world = make_world() if keeps_state else make_world(store=None)
            self.began = self.world.time.true() + timedelta(seconds=skew)
            self.world.time.skew = timedelta(seconds=skew if known_skew is None else known_skew)
            self.offset = None if known_skew is None else -self.world.time.skew
            self.world.service.lag = lag
            self.world.service.hides_windows = hides_windows
            self.number = self.clears = 0
            self.order = self.world.order()
            if retrigger:
                window = self.order.window
                first = self.world.service.add(window=window)
                self.world.service.end(first.id, FlowRunStatus.FAILED)
                self.order = self.world.order(retrigger=first.id)
                self.world.time.sleep(PATIENCE)

        def attempt(self) -> str | Exception | None:
            """Return the flow run id, the typed error, or None if the process was killed. Fail the test otherwise."""
            self.number += 1
            try:
                return self.world.attempt(
                    self.order,
                    number=self.number,
                    clears=self.clears,
                    patience=PATIENCE,
                    began=self.began,
                    clock_offset=lambda: self.offset,
                ).flow_run_id
            except FlowServiceError as error:
                return error
            except self.world.Died:
                return None
            finally:
                self.world.stop_listening()

        @rule(
            plan=st.lists(posts, max_size=4),
            listing=st.lists(lists, max_size=3),
            death=st.none() | st.integers(0, 25),
            then=st.floats(0, 400),
        )
        def the_task_is_attempted(self, plan: Any, listing: Any, death: int | None, then: float) -> None:
            service = self.world.service
            service.plan, service.list_plan = list(plan), list(listing)
            calls = iter(range(10_000))

            def on_call(name: str) -> None:
                if next(calls) == death:
                    raise self.world.Died(name)

            self.world.listen(on_call)
            result = self.attempt()
            if isinstance(result, str):
                assert result in [run.id for run in self.ours()]
            service.plan, service.list_plan = [], []
            self.world.time.sleep(then)

        @rule(status=st.sampled_from([FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS, FlowRunStatus.FAILED]))
        def a_run_ends(self, status: FlowRunStatus) -> None:
            for run in self.ours():
                if not run.status.ended and self.world.service.shows(run):
                    self.world.service.end(run.id, status)

        @rule(day=st.integers(1, 3))
        def a_neighbours_run_appears(self, day: int) -> None:
            window = self.world.order(day=day).window
            self.world.service.add(window=window, start_time=self.world.time.true())

        @rule(status=st.sampled_from([FlowRunStatus.IN_PROGRESS, FlowRunStatus.FAILED, FlowRunStatus.SUCCESS]))
        def another_dag_takes_the_same_window(self, status: FlowRunStatus) -> None:
            if not keeps_state:  # Without a store, its flow run cannot be distinguished from ours.
                return
            window = self.world.order().window
            run = self.world.service.add(
                window=window,
                start_time=self.world.time.true() + timedelta(hours=1),
            )
            self.world.service.end(run.id, status)

        @rule()
        def the_task_is_cleared(self) -> None:
            if clears:
                self.clears += 1

        @rule(seconds=st.floats(1, 4000))
        def time_passes(self, seconds: float) -> None:
            self.world.time.sleep(seconds)

        def ours(self) -> list[Any]:
            return [run for run in self.world.service.runs if run.created_client == "ours"]

        @invariant()
        def never_two(self) -> None:
            alive = [run for run in self.ours() if not run.status.failed]
            assert len(alive) <= 1 + self.clears, f"the window would be ingested too often: {alive}"
            running = [run.id for run in alive if not run.status.ended]
            assert len(running) <= 1, f"the window would be ingested twice at a time: {running}"

        def teardown(self) -> None:
            """Attempt the task without faults. The window then has its flow run, and the task returns it."""
            if not hasattr(self, "world"):
                return
            result = self.attempt()
            self.never_two()
            if (hides_windows or retrigger) and isinstance(result, FlowRunUncertainError):
                assert result.remedy
                return
            alive = [run.id for run in self.ours() if not run.status.failed]
            assert result == alive[-1]

    return Histories


@pytest.mark.parametrize(
    "circumstances",
    [
        {},
        {"hides_windows": True},
        {"keeps_state": False},
        {"hides_windows": True, "keeps_state": False},
        {"clears": True},
        {"retrigger": True},
        {"retrigger": True, "clears": True, "hides_windows": True},
    ],
    ids=lambda given: ", ".join(given) or "windows shown",
)
def test_each_history_has_one_run_or_an_error(make_world: Any, circumstances: dict[str, bool]) -> None:
    """No history has two flow runs for the window, and none omits it without an error."""
    run_state_machine_as_test(
        histories(make_world, **circumstances),
        settings=settings(stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)),
    )
