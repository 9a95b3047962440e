# SPDX-License-Identifier: Apache-2.0
"""Tests of `create_once` on an Airflow without task state (before 3.3)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from creations import FAILED, SUCCESS, adopted, created, ids

from airflow_flowservice.exceptions import FlowRunUncertainError


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
