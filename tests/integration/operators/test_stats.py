# SPDX-License-Identifier: Apache-2.0
"""Metrics of workers and triggerers, as Airflow's backends receive them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from airflow_versions import NoStatsLogger, metrics_sent_to

from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.sensors import FlowRunSensor
from airflow_flowservice.triggers import FlowRunTrigger

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"


class Backend(NoStatsLogger):
    """A backend like Airflow's for statsd, Datadog and OpenTelemetry; it ignores Airflow's own metrics."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.gauges: list[tuple[str, float, set[str]]] = []

    def incr(self, stat, count=1, rate=1, *, tags=None):
        if stat.startswith("flowservice."):
            self.counts[stat] += count

    def gauge(self, stat, value, rate=1, delta=False, *, tags=None):
        if stat.startswith("flowservice."):
            self.gauges.append((stat, value, set(tags or {})))


@pytest.fixture
def backend() -> Iterator[Backend]:
    """Replace the backend that `[metrics]` configures."""
    made = Backend()
    with metrics_sent_to(made):
        yield made


@pytest.fixture
def ingest(worker):
    """Return a function that creates a task that ingests."""

    def make(**arguments):
        defaults = {"flow_id": FLOW, "delta_column": "updated_at", "poll_interval": 0.05, "retries": 2}
        return worker.task(OnDemandFlowRunOperator, **{**defaults, **arguments})

    return make


def test_created_and_resumed(ingest, backend):
    """The first attempt creates a run, and a retry continues with it, on every version of Airflow."""
    task = ingest()
    task.run()
    assert {"flowservice.runs.created": 1} == dict(backend.counts)
    task.run()
    assert {"flowservice.runs.created": 1, "flowservice.runs.resumed": 1} == dict(backend.counts)


def test_adopted(ingest, backend, emulator):
    """The response was lost, and the run was found."""
    emulator.plan_fault(nth=1, action="record_and_close")
    assert "success" == ingest(uncertain_patience=5).run().state
    assert {"flowservice.runs.adopted": 1} == dict(backend.counts)


def test_uncertain(ingest, backend, emulator):
    """The outcome is unknown, so a user has to decide; alerts can use this counter."""
    emulator.plan_fault(kind="*", action="hide_windows")
    emulator.plan_fault(nth=1, action="record_and_close")
    ended = ingest(uncertain_patience=2).run()
    assert "FlowRunUncertainError" == type(ended.error).__name__
    assert {"flowservice.runs.uncertain": 1} == dict(backend.counts)


@pytest.mark.parametrize("deferrable", [True, False])
def test_polls_are_the_requests_for_waiting(ingest, backend, emulator, deferrable):
    """Requests for creating runs are not counted."""
    ingest(wait_for_completion=True, deferrable=deferrable).run()
    kind = "GET /runs" if deferrable else "GET /runs/{id}"
    asked = emulator.ledger()["requests"]
    # The list of runs that an intent remembers.
    lists = 1 if deferrable else 0
    assert asked[kind] - lists == backend.counts["flowservice.polls"] > 0


def test_sensor_counts_polls(worker, backend, create_run, emulator):
    """A sensor that does not defer also counts its polls."""
    run_id = create_run()
    worker.task(FlowRunSensor, flow_run_id=run_id, poke_interval=0.05, deferrable=False).run()
    assert emulator.ledger()["requests"]["GET /runs/{id}"] == backend.counts["flowservice.polls"] > 0


def test_a_hundred_waiters_share_requests(backend, create_run, emulator):
    """The gauge is the number of waiters, and they send fewer requests than there are waiters."""
    run_id = create_run()

    async def wait_all():
        triggers = [FlowRunTrigger(flow_run_id=run_id, poll_interval=0.5) for _ in range(100)]
        await asyncio.gather(*(anext(trigger.run()) for trigger in triggers))

    asyncio.run(wait_all())
    values = [value for _, value, _ in backend.gauges]
    assert {("flowservice.waiters", ("hostname",))} == {(name, tuple(tags)) for name, _, tags in backend.gauges}
    assert (1, 100, 0) == (values[0], max(values), values[-1])
    assert 0 < backend.counts["flowservice.polls"] < 100


def test_cancelled_trigger_is_not_a_waiter(backend, create_run, emulator):
    """For example, a user clears the task."""
    emulator.plan_outcome(run_s=600.0)

    async def cancelled(run_id):
        waiting = asyncio.ensure_future(anext(FlowRunTrigger(flow_run_id=run_id).run()))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    asyncio.run(cancelled(create_run()))
    assert [1, 0] == [value for _, value, _ in backend.gauges]


def test_failing_backend_does_not_fail_the_task(ingest, backend, monkeypatch):

    def incr(*_, **__):
        raise OSError("no network")

    real = "airflow_flowservice._airflow.metrics._backend"
    monkeypatch.setattr(real, lambda: type("Broken", (), {"incr": incr, "gauge": incr}))
    assert "success" == ingest(wait_for_completion=True, deferrable=True).run().state
