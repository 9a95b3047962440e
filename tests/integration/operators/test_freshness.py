# SPDX-License-Identifier: Apache-2.0
"""`FlowFreshnessSensor`: it fails or waits while a dataflow is late, in every mode."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import datetime, timedelta, timezone

import pytest

from airflow_flowservice._airflow import versions
from airflow_flowservice.exceptions import ConfigurationError, FlowLateError
from airflow_flowservice.freshness import FlowFreshnessSensor
from airflow_flowservice.freshness_trigger import FlowFreshnessTrigger
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
OTHER = "c9cef9cb-c934-4467-8ef9-cbc934546741"
MODES = {"poke": {"mode": "poke"}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}
WAYS = pytest.mark.parametrize("way", list(MODES))
DAY = timedelta(days=1)


@pytest.fixture
def watch(worker):
    """Return a function that makes a sensor of the dataflow."""

    def make(way="poke", **arguments):
        defaults = {"flow_id": FLOW, "max_lag": DAY, "deferrable": False, "poke_interval": 0.05, "task_id": "watch"}
        return worker.task(FlowFreshnessSensor, **{**defaults, **MODES[way], **arguments})

    return make


@pytest.fixture
def ingest(worker):
    """Return a function that ingests a window that ended some hours ago."""

    def ingested(hours_ago, length=1):
        end = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=hours_ago)
        arguments = {"window_start": (end - timedelta(hours=length)).isoformat(), "window_end": end.isoformat()}
        task = worker.task(
            OnDemandFlowRunOperator,
            flow_id=FLOW,
            delta_column="updated_at",
            wait_for_completion=True,
            poll_interval=0.05,
            **arguments,
        )
        assert "success" == task.run().state
        return end

    return ingested


def to_the_end(task):
    """Run one attempt, in reschedule mode with all its checks."""
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    return ended


@WAYS
def test_fresh_dataflow_succeeds(watch, ingest, way):
    """The return value has the lag and the last window."""
    end = ingest(2)
    task = watch(way)
    assert "success" == to_the_end(task).state
    returned = task.xcoms["return_value"]
    assert end == datetime.fromisoformat(returned["last_window_end"])
    assert returned["complete_until"] == returned["last_window_end"]
    assert (False, 86400, FLOW) == (returned["late"], returned["max_lag_seconds"], returned["flow_id"])
    assert 2 * 3600 <= returned["lag_seconds"] < 2 * 3600 + 600


@WAYS
def test_late_dataflow_fails_at_once(watch, ingest, way):
    """A DAG that monitors must fail. The error has dataflow, lag, last window, page and remedy."""
    ingest(30)
    ended = to_the_end(watch(way))
    assert "failed" == ended.state
    assert isinstance(ended.error, FlowLateError)
    assert "which is 30 h ago; the longest accepted lag is 24 h" in ended.error.message
    assert FLOW == ended.error.flow_id
    assert f"dataflows/{FLOW}" in ended.error.url
    assert "paused" in ended.error.remedy


def test_dataflow_without_any_window_is_late(watch):
    """A dataflow that was never ingested is not fresh."""
    assert f"no window of dataflow {FLOW} was ingested since" in watch().run().error.message


def test_retry_checks_again(watch, ingest):
    """`retries` avoid an alert for a dataflow that is late for minutes."""
    task = watch(retries=1)
    assert "up_for_retry" == task.run().state
    ingest(1)
    assert "success" == task.run().state


def test_ledger_of_a_fresh_dataflow_needs_no_list_of_flow_runs(watch, ingest, emulator):
    """Before Airflow 3.3, a task cannot list the ledger's Variables."""
    ingest(1)
    before = emulator.ledger()["requests"].get("GET /runs", 0)
    assert "success" == watch().run().state
    expected = 0 if versions.version() >= (3, 3) else 1
    assert expected == emulator.ledger()["requests"].get("GET /runs", 0) - before


def test_flow_runs_count_without_a_ledger(watch, ingest, supervisor):
    """Adobe's own schedule creates flow runs that the ledger does not have."""
    ingest(1)
    supervisor.variables.clear()
    assert "success" == watch().run().state


@WAYS
def test_waits_until_fresh(watch, ingest, way, monkeypatch):
    """With `on_late="wait"`, the sensor succeeds when the dataflow is fresh."""
    from airflow_flowservice.hooks import FlowServiceHook

    checks = []
    real = FlowServiceHook.lag_of

    def lag_of(self, flow_id, **arguments):
        checks.append(flow_id)
        # The first two checks are of a dataflow that was never ingested.
        return real(self, flow_id if len(checks) > 2 else OTHER, **arguments)

    ingest(1)
    monkeypatch.setattr(FlowServiceHook, "lag_of", lag_of)
    task = watch(way, on_late="wait")
    assert "success" == to_the_end(task).state
    assert 3 == len(checks)
    assert task.xcoms["return_value"]["late"] is False


@pytest.mark.parametrize("way", ["poke", "reschedule"])
@pytest.mark.parametrize("timeout", [0.2, 0])
def test_timeout_is_final_and_has_the_lag(watch, ingest, way, supervisor, timeout):
    """As in Airflow, a sensor's timeout is not retried."""
    ingest(30)
    ended = to_the_end(watch(way, on_late="wait", timeout=timeout, retries=2))
    assert "failed" == ended.state
    assert isinstance(ended.error, FlowLateError)
    assert isinstance(ended.error, versions.airflow_exception("AirflowSensorTimeout"))
    assert "30 h ago" in ended.error.message
    assert "waited until its timeout was over" in ended.error.message


@pytest.mark.parametrize(
    ("limit", "value", "state"),
    [("timeout", 60, "failed"), ("timeout", 0, "failed"), ("execution_timeout", timedelta(minutes=1), "up_for_retry")],
    ids=["timeout", "zero", "execution_timeout"],
)
def test_time_limit_in_the_triggerer(watch, ingest, worker, limit, value, state):
    """After the limit, the worker checks a last time."""
    ingest(30)
    limits = {limit: value}
    task = worker.task(
        FlowFreshnessSensor,
        flow_id=FLOW,
        max_lag=DAY,
        on_late="wait",
        deferrable=True,
        deferral_timeout=True,
        retries=1,
        task_id="watch",
        **limits,
    )
    ended = task.run()
    assert (state, True) == (ended.state, isinstance(ended.error, FlowLateError))
    assert f"waited until its {limit} was over" in ended.error.message


@pytest.mark.parametrize("arguments", [{}, {"on_late": "wait", "timeout": 0.1}], ids=["fail", "wait"])
@pytest.mark.parametrize("name", ["soft_fail", "never_fail"])
def test_soft_fail_skips_a_late_dataflow(watch, ingest, name, arguments, log):
    """The log states the lag."""
    ingest(30)
    assert "skipped" == watch(**{name: True}, **arguments).run().state
    assert any("30 h ago" in line for line in log())


def test_soft_fail_skips_after_a_time_limit_in_the_triggerer(worker, ingest):
    ingest(30)
    task = worker.task(
        FlowFreshnessSensor,
        flow_id=FLOW,
        max_lag=DAY,
        on_late="wait",
        deferrable=True,
        deferral_timeout=True,
        soft_fail=True,
        task_id="watch",
    )
    assert "skipped" == task.run().state


def test_wrong_secret_fails_without_a_retry(watch, connection):
    """A wrong configuration is not a late dataflow."""
    connection["password"] = "wrong"
    ended = watch(retries=2, on_late="wait").run()
    assert ("failed", "AuthenticationError") == (ended.state, type(ended.error).__name__)


@WAYS
def test_temporary_error_continues_to_wait(watch, ingest, emulator, supervisor, way):
    """One outage of Flow Service does not end a wait."""
    ingest(1)
    supervisor.variables.clear()
    # The client repeats each request once.
    emulator.plan_fault(kind="GET /runs", action="refuse", status=503, times=2)
    assert "success" == to_the_end(watch(way, on_late="wait")).state


def test_temporary_error_fails_a_single_check(watch, ingest, emulator):
    """An outage of Flow Service is not reported as a late dataflow."""
    emulator.plan_fault(kind="GET /runs", action="refuse", status=503, times=2)
    ended = watch(retries=1).run()
    assert ("up_for_retry", "ServerError") == (ended.state, type(ended.error).__name__)


@pytest.mark.parametrize(
    "arguments",
    [{"max_lag": 0}, {"max_lag": "1d"}, {"on_late": "skip"}, {"lookback": 60}, {"flow_id": ""}],
    ids=["no lag", "text", "reaction", "short range", "no dataflow"],
)
def test_invalid_argument_is_a_typed_error(watch, arguments):
    """Most are found when the DAG file is parsed."""
    with pytest.raises(ConfigurationError):
        raise watch(**arguments).run().error


def test_templates_are_rendered(watch, ingest):
    ingest(1)
    assert "success" == watch(flow_id="{{ '" + FLOW + "' }}").run().state


class TestTrigger:
    """The trigger waits without blocking the event loop, and can run twice."""

    def made(self, **arguments):
        defaults = {"flow_id": FLOW, "max_lag": 86400.0, "poll_interval": 0.05}
        return FlowFreshnessTrigger(**{**defaults, **arguments})

    def test_serialization_omits_defaults(self):
        """A triggerer of an earlier version can start it."""
        path, arguments = self.made(ignore_gaps=True, lookback=1e6).serialize()
        assert "airflow_flowservice.freshness_trigger.FlowFreshnessTrigger" == path
        assert arguments == FlowFreshnessTrigger(**arguments).serialize()[1]
        assert {"flow_id", "max_lag", "poll_interval", "flowservice_conn_id"} == set(self.made().serialize()[1])

    def test_two_triggers_fire_the_same_event(self, ingest, supervisor):
        ingest(1)

        async def both():
            return await asyncio.gather(*(anext(self.made().run()) for _ in range(2)))

        first, second = asyncio.run(both())
        assert False is first.payload["late"] is second.payload["late"]
        assert first.payload == json.loads(json.dumps(first.payload))
        assert first.payload["complete_until"] == second.payload["complete_until"]

    def test_checks_leave_the_threads_of_the_event_loop_free(self, ingest, monkeypatch):
        """A slow service would otherwise delay the XComs of other triggers."""
        ingest(1)
        lag_of, threads = FlowServiceHook.lag_of, []

        def recorded(hook, *args, **kwargs):
            threads.append(threading.current_thread().name)
            return lag_of(hook, *args, **kwargs)

        monkeypatch.setattr(FlowServiceHook, "lag_of", recorded)
        asyncio.run(anext(self.made().run()))
        assert [True] == [name.startswith("flowservice") for name in threads]

    def test_unexpected_error_does_not_end_the_wait(self, ingest, monkeypatch):
        """Airflow's API server may not respond for an instant; then the look-up of the connection fails."""
        ingest(1)
        connected, errors = FlowServiceHook.connected, [RuntimeError("API_SERVER_ERROR")]

        async def failing(conn_id):
            if errors:
                raise errors.pop()
            return await connected(conn_id)

        monkeypatch.setattr(FlowServiceHook, "connected", failing)
        event = asyncio.run(anext(self.made().run()))
        assert (False, []) == (event.payload.get("late"), errors)

    def test_final_error_is_an_event(self, supervisor, connection):
        connection["password"] = "wrong"
        event = asyncio.run(anext(self.made().run()))
        assert ("AuthenticationError", FLOW) == (event.payload["error"]["error"], event.payload["error"]["flow_id"])

    @pytest.mark.parametrize("arguments", [{"poll_interval": 0}, {"max_lag": float("nan")}, {"lookback": -1.0}])
    def test_invalid_argument_is_an_event(self, supervisor, arguments):
        event = asyncio.run(anext(self.made(**arguments).run()))
        assert "ConfigurationError" == event.payload["error"]["error"]
