# SPDX-License-Identifier: Apache-2.0
"""A server that sends one byte at a time does not extend the time limits of a wait."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from itertools import chain, repeat

import pytest
from raw_server import RawServer

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.exceptions import ApiError, FlowRunTimeoutError, NotSentError
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.runs.watch import RunWatch, wait_for_end
from airflow_flowservice.sensors import FlowRunSensor

FLOW = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
RUN = "3fb0418e-1804-45d6-8d56-dd51f05c0baf"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
ANSWERS = {
    "headers": (HEAD, b"x-a: b\r\n"),
    "body": (HEAD + b"Content-Length: 9999\r\n\r\n", b" "),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
TIMEOUT_S, ATTEMPTS, LIMIT_S = 10, 5, 1.0
# Without the limit of the wait, the attempts of one request take a minute.
UNLIMITED_S = (ATTEMPTS + 1) * TIMEOUT_S
SHARE = 0.25
"""Maximum share of that minute that a limited wait takes, also on a busy machine."""


@pytest.fixture(params=ANSWERS)
def raw(request):
    """Run a server that sends a part of each response one byte at a time."""
    prefix, text = ANSWERS[request.param]

    def drip(_):
        yield prefix
        for byte in chain.from_iterable(repeat(text)):
            yield 0.1
            yield bytes([byte])

    with RawServer(drip, time_limit=120) as server:
        yield server


@pytest.fixture
def client_of(raw):
    """Return a function that creates a client of the server."""

    def create(**options):
        given = {"client_id": "c", "org_id": "O@AdobeOrg", "base_url": raw.url, "ims_url": raw.url}
        return FlowServiceClient(**given, timeout_s=TIMEOUT_S, max_attempts=ATTEMPTS, **options)

    return create


@pytest.mark.parametrize("slow", ["Flow Service", "IMS"])
def test_wait_timeout_holds(client_of, raw, slow):
    """The wait ends with its time limit, if the run or the token arrives one byte at a time."""
    credential = {"access_token": "ready"} if slow == "Flow Service" else {"client_secret": f"secret-{raw.port}"}
    began = time.monotonic()
    with client_of(**credential) as client, pytest.raises(FlowRunTimeoutError):
        wait_for_end(RunWatch(flow_run_id=RUN, timeout=LIMIT_S), client.get_run)
    assert LIMIT_S <= time.monotonic() - began < SHARE * UNLIMITED_S


def test_wait_for_the_token_of_another_thread_ends(client_of, raw):
    """A thread that waits for another thread's token has its own limit."""
    secret = f"shared-{raw.port}"
    with client_of(client_secret=secret) as first, client_of(client_secret=secret) as second:
        fetching = threading.Thread(target=_ignore_errors, args=(first, SHARE * UNLIMITED_S), daemon=True)
        fetching.start()
        while not raw.requests:
            time.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(NotSentError, match="no token could be fetched within"):
            second.get_run(RUN, within_s=LIMIT_S)
        assert time.monotonic() - began < SHARE * UNLIMITED_S
        assert fetching.is_alive()


def _ignore_errors(client, within_s):
    with pytest.raises(ApiError):
        client.get_run(RUN, within_s=within_s)


@pytest.mark.parametrize("waits", ["sensor", "operator"])
def test_execution_timeout_holds_without_the_alarm(worker, emulator, create_run, monkeypatch, waits):
    """Airflow raises the alarm once; Python ignores it in the callback of a weak reference."""
    emulator.plan_outcome(status="success", run_s=100_000)
    monkeypatch.setattr(signal, "setitimer", lambda *_: None)
    arguments = {"execution_timeout": timedelta(seconds=LIMIT_S), "deferrable": False, "retries": 2}
    if waits == "sensor":
        task = worker.task(FlowRunSensor, flow_run_id=create_run(), poke_interval=0.1, **arguments)
    else:
        arguments |= {"flow_id": FLOW, "delta_column": "updated_at", "wait_for_completion": True}
        task = worker.task(OnDemandFlowRunOperator, poll_interval=0.1, **arguments)
    ended = task.run()
    assert "up_for_retry" == ended.state
    assert "the flow run has not ended within execution_timeout, 1 second" in str(ended.error)


# Airflow's alarm for `execution_timeout` can be raised in the callback of a weak reference, where Python ignores it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("limit", ["timeout", "execution_timeout"])
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_time_limits_of_a_sensor_hold(worker, connection, raw, limit, mode):
    """Airflow checks a sensor's `timeout` between two polls, so a poll ends with it."""
    settings = {"timeout_s": TIMEOUT_S, "max_attempts": ATTEMPTS, "access_token": "ready", "ims_url": raw.url}
    connection["extra"].update(settings)
    connection.update(host=raw.url, password=None)
    limits = {"timeout": LIMIT_S} if limit == "timeout" else {"execution_timeout": timedelta(seconds=LIMIT_S)}
    arguments = {"mode": mode, "poke_interval": 0.1, "deferrable": False, "retries": 2}
    task = worker.task(FlowRunSensor, flow_run_id=RUN, **arguments, **limits)
    began = time.monotonic()
    ended = task.run()
    while ended.state == "up_for_reschedule":
        ended = task.step()
    assert time.monotonic() - began < SHARE * UNLIMITED_S
    assert "the flow run has not ended within" in str(ended.error)
    assert ("failed" if limit == "timeout" else "up_for_retry") == ended.state
