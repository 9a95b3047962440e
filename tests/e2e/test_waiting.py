# SPDX-License-Identifier: Apache-2.0
"""Many tasks wait at the same time on a real Airflow, during outages and while triggerers are killed and frozen.

The tasks have no retries. All tests check the same DAG run, and the fixtures cause one incident after another.

The environment variable `FLOWSERVICE_WAITING` (50) sets the number of waiting tasks. `FLOWSERVICE_OUTAGE_S` (30) sets
the duration of each of the two long outages, in seconds.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from airflow_versions import ended_workers
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_FILE = Path(__file__).parent / "dags" / "e2e_waiting.py"
COUNT = int(os.environ.get("FLOWSERVICE_WAITING", "50"))
OUTAGE_S = float(os.environ.get("FLOWSERVICE_OUTAGE_S", "30"))
QUIET_S = 20.0
POLL_S = 2.0
BEGIN = datetime(2026, 2, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)

# Another triggerer takes over the triggers of a dead one sooner. The limits tolerate the delays of a busy machine.
SHORT_TIMEOUTS = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
}
MORE_THAN_CLIENT_RETRIES = 6
# The faults occur one after another: the emulator applies the first planned fault until it is exhausted.
REFUSALS = (
    {"action": "expire_tokens", "times": 1},
    {"action": "refuse", "status": 429, "headers": {"Retry-After": "2"}, "for_seconds": OUTAGE_S},
    {"action": "refuse", "status": 503, "times": MORE_THAN_CLIENT_RETRIES},
    {"action": "close", "times": MORE_THAN_CLIENT_RETRIES},
)


class Relay:
    """TCP relay on loopback. While it is closed, connections are refused; it can be opened again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """Return the URL at which the relay listens."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Start to listen. After a close, use the same port again."""
        self._closing = threading.Event()
        handler = type("Handler", (socketserver.BaseRequestHandler,), {"handle": self._handler()})
        self._server = wait_until(lambda: self._listening(handler), what=f"port {self._port}", timeout=30)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Break all connections and stop listening."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _listening(self, handler: type) -> socketserver.ThreadingTCPServer | None:
        server = type("Server", (socketserver.ThreadingTCPServer,), {"allow_reuse_address": True})
        # An outgoing connection may use the port for a short time.
        with suppress(OSError):
            listening: socketserver.ThreadingTCPServer = server(("127.0.0.1", self._port), handler)
            return listening
        return None

    def _handler(self) -> Callable[[socketserver.BaseRequestHandler], None]:
        target, closing = self._target, self._closing

        def handle(connection: socketserver.BaseRequestHandler) -> None:
            with suppress(OSError), socket.create_connection(target) as there:
                other = {connection.request: there, there: connection.request}
                while not closing.is_set():
                    for end in select.select(list(other), [], [], 0.1)[0]:
                        data = end.recv(65536)
                        if not data:
                            return
                        other[end].sendall(data)

        return handle


@dataclass(frozen=True)
class Waiting:
    """DAG run with waiting tasks, and actions on its Airflow and its emulator."""

    airflow: LocalAirflow
    emulator: EmulatedFlowService
    tell: Callable[..., Any]
    relay: Relay
    run_id: str
    flow_id: str

    def instances(self) -> list[dict[str, Any]]:
        """Return the task instances as returned by Airflow's REST API."""
        return self.airflow.task_instances("e2e_waiting", self.run_id)

    def states(self) -> dict[str, int]:
        """Return the number of task instances by state."""
        return dict(Counter(each["state"] for each in self.instances()))

    def requests(self) -> Counter[str]:
        """Return the number of requests that the emulator has received, by kind of request."""
        return Counter(self.emulator.ledger(flow_id=self.flow_id, start=BEGIN, end=BEGIN)["requests"])

    def faults(self) -> list[dict[str, Any]]:
        """Return the planned faults. The field `struck` is the number of requests that a fault affected."""
        return list(self.tell("faults", method="GET")["faults"])

    def are_faults_exhausted(self) -> bool:
        """Return whether each planned fault has affected enough requests, or no task waits any longer."""
        return all(fault["struck"] >= (fault["times"] or 1) for fault in self.faults()) or self.is_none_deferred()

    def triggerer_jobs(self) -> set[int | None]:
        """Return the job ids of the triggerers to which the triggers of the deferred tasks are assigned."""
        return {(each["triggerer_job"] or {}).get("id") for each in self.instances() if each["state"] == "deferred"}

    def start_triggerer(self, name: str) -> int:
        """Start a triggerer and wait until it is alive; return its job id."""
        before = self._triggerers()
        self.airflow.start(name)
        (job,) = wait_until(lambda: self._triggerers() - before, what=f"a live {name}")
        return job

    def _triggerers(self) -> set[int]:
        """Return the job ids of triggerers that Airflow regards as alive. One may have died a short time ago."""
        query = {"job_type": "TriggererJob", "is_alive": True}
        return {job["id"] for job in self.airflow.api("GET", "/jobs", params=query)["jobs"]}

    def wait_for_triggerer(self, job: int) -> None:
        """Wait until all triggers are assigned to the triggerer with this job id."""
        wait_until(lambda: {job} == self.triggerer_jobs(), what=f"triggerer {job} as the owner of all triggers")

    def wait_for_requests(self, count: int = 1) -> None:
        """Wait until the emulator receives `count` further `GET /runs` requests, or no task waits any longer."""
        target = self.requests()["GET /runs"] + count
        wait_until(lambda: self.requests()["GET /runs"] >= target or self.is_none_deferred(), what="another GET /runs")

    def is_none_deferred(self) -> bool:
        """Return whether no task is deferred. If a task ended too early, waits end and the assertions fail."""
        return not self.states().get("deferred")

    def end_flow_runs(self, *, succeeded: int) -> None:
        """End flow runs until `succeeded` tasks in total have succeeded."""
        self.tell("end", flow_id=self.flow_id, count=succeeded - self.states().get("success", 0))
        wait_until(lambda: succeeded == self.states().get("success"), what=f"{succeeded} successful tasks")

    def worker_processes(self) -> list[tuple[str, str]]:
        """Wait until no worker process is left. Return the final task state and task instance id of each process."""
        wait_until(
            lambda: self._workers_idle() and len(self._ended_workers()) >= COUNT, what="the end of the worker processes"
        )
        return self._ended_workers()

    def _ended_workers(self) -> list[tuple[str, str]]:
        return ended_workers(self.airflow.supervisor.log_file("scheduler").read_text())

    def _workers_idle(self) -> bool:
        """Return whether no worker of the scheduler has a child process."""
        scheduler = self.airflow.supervisor.children["scheduler"].pid
        # A process may end during the check.
        with suppress(psutil.NoSuchProcess):
            return {scheduler, os.getpid()} >= {process.ppid() for process in self.airflow.processes["scheduler"]}
        return False

    def count_logs(self, text: str, *, triggerer: int | None) -> int:
        """Return the number of task logs of this triggerer that contain a text."""
        logs = (self.airflow.home / "logs" / "tasks").rglob(f"attempt=1.log.trigger.{triggerer}.log")
        return sum(text in file.read_text() for file in logs)


@pytest.fixture(scope="module")
def relay(emulator: EmulatedFlowService) -> Iterator[Relay]:
    """Start the relay through which Airflow connects to the emulator."""
    opened = Relay(emulator.url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def airflow(
    emulator: EmulatedFlowService, relay: Relay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """Start a separate Airflow for this module, because the tests kill its triggerers."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-waiting")
    shutil.copy(DAG_FILE, dags)
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-waiting"),
        dags_folder=dags,
        connections={"flowservice_default": replace(emulator, url=relay.url).connection},
        config=SHORT_TIMEOUTS,
    ) as running:
        running.wait_healthy(timeout=400)
        yield running


@pytest.fixture(scope="module")
def waiting(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    relay: Relay,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
) -> Waiting:
    """Start the DAG run and wait until all tasks are deferred. Their flow runs end only on request."""
    flow_id = flow_of("e2e_waiting")
    tell("flows", id=flow_id, name="e2e_waiting", kind="file")
    tell("outcomes", flow_id=flow_id, status="success", run_s=86_400, times=None)
    airflow.wait_for_dag("e2e_waiting", timeout=240)
    airflow.unpause("e2e_waiting")
    run_id = airflow.trigger("e2e_waiting")
    waiting = Waiting(airflow, emulator, tell, relay, run_id, flow_id)
    wait_until(lambda: waiting.states() == {"deferred": COUNT}, what=f"{COUNT} deferred tasks", timeout=240 + 8 * COUNT)
    return waiting


@pytest.fixture(scope="module")
def quiet_requests(waiting: Waiting) -> Counter[str]:
    """Return the requests of `QUIET_S` seconds in which all tasks wait and no incident occurs, by kind of request."""
    before = waiting.requests()
    time.sleep(QUIET_S)
    return waiting.requests() - before


@pytest.fixture(scope="module")
def after_refusals(waiting: Waiting, quiet_requests: Counter[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Let Flow Service refuse requests with each fault in turn.

    Return the number of affected requests by fault, and the task states afterwards.
    """
    for fault in REFUSALS:
        waiting.tell("faults", kind="*", **fault)
    time.sleep(OUTAGE_S)
    wait_until(waiting.are_faults_exhausted, what="the end of all faults")
    waiting.wait_for_requests()
    struck = {f"{fault['action']} {fault['status']}": fault["struck"] for fault in waiting.faults()}
    return struck, waiting.states()


@pytest.fixture(scope="module")
def after_disconnection(waiting: Waiting, after_refusals: tuple[dict[str, int], dict[str, int]]) -> dict[str, int]:
    """Refuse connections for `OUTAGE_S` seconds; return the task states after the next successful poll."""
    waiting.relay.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(waiting.relay.url).port or 0))
    time.sleep(OUTAGE_S)
    waiting.relay.open()
    waiting.wait_for_requests()
    return waiting.states()


@pytest.fixture(scope="module")
def after_kills(waiting: Waiting, after_disconnection: dict[str, int]) -> list[dict[str, int]]:
    """Kill the only triggerer and restart it; then kill it while a second triggerer runs.

    Return the task states after each of the two kills.
    """
    waiting.airflow.kill("triggerer-1")
    waiting.wait_for_triggerer(waiting.start_triggerer("triggerer-1"))
    waiting.wait_for_requests()
    after_restart = waiting.states()
    second = waiting.start_triggerer("triggerer-2")
    waiting.airflow.kill("triggerer-1")
    waiting.wait_for_triggerer(second)
    waiting.wait_for_requests()
    return [after_restart, waiting.states()]


@pytest.fixture(scope="module")
def finished_by_triggerer(waiting: Waiting, after_kills: list[dict[str, int]]) -> dict[str, int]:
    """Freeze a triggerer, let another take over its triggers, and end the flow runs while both have the triggers.

    Some flow runs end earlier, so that both triggerers have ended triggers before the conflict. When the frozen
    triggerer resumes, the process that runs its triggers resumes first. That process sees flow runs that have ended,
    before its parent process can detect that the triggers are assigned to the other triggerer. Meanwhile it tries to
    push their XComs without success, and polls the remaining flow runs.

    Return the number of triggers that saw the end of their flow run, for each of the two triggerers.
    """
    (old,) = waiting.triggerer_jobs()
    waiting.end_flow_runs(succeeded=COUNT // 5)
    new = waiting.start_triggerer("triggerer-1")
    frozen, other = (waiting.airflow.processes[name] for name in ("triggerer-2", "triggerer-1"))
    for process in frozen:
        process.suspend()
    waiting.wait_for_triggerer(new)
    waiting.end_flow_runs(succeeded=2 * (COUNT // 5))
    for process in other:
        process.suspend()
    for process in children(frozen):
        process.resume()
    waiting.wait_for_requests(2)
    waiting.tell("end", flow_id=waiting.flow_id)
    for process in [*frozen, *other]:
        process.resume()
    waiting.airflow.wait_for_runs("e2e_waiting", count=1, timeout=240 + COUNT)
    return {
        "frozen": waiting.count_logs("is success", triggerer=old),
        "other": waiting.count_logs("is success", triggerer=new),
    }


def children(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that are children of other processes in the list."""
    pids = {process.pid for process in processes}
    return [process for process in processes if process.ppid() in pids]


def test_waiting_tasks_share_requests(quiet_requests: Counter[str]) -> None:
    """One request polls many flow runs; no request polls a single flow run."""
    print(f"{COUNT} waiting tasks, {QUIET_S / POLL_S:.0f} polls: {dict(quiet_requests)}")
    assert 0 == quiet_requests["GET /runs/{id}"]
    assert 1 <= quiet_requests["GET /runs"] <= (COUNT / 90 + 2) * QUIET_S / POLL_S
    assert {"GET /runs"} >= set(quiet_requests) - {"POST /ims/token/v3"}


def test_expired_token_429_503_and_broken_connections_fail_no_task(
    after_refusals: tuple[dict[str, int], dict[str, int]],
) -> None:
    """Each fault affected requests, and all tasks still wait."""
    struck, states = after_refusals
    print(f"affected requests by fault: {struck}")
    assert {"deferred": COUNT} == states
    assert len(REFUSALS) == len(struck)
    assert all(struck.values())


def test_unreachable_flow_service_fails_no_task(after_disconnection: dict[str, int]) -> None:
    """All tasks still wait after Flow Service was unreachable."""
    assert {"deferred": COUNT} == after_disconnection


def test_triggers_of_a_killed_triggerer_are_taken_over(after_kills: list[dict[str, int]]) -> None:
    """The restarted triggerer or a second triggerer takes over all triggers, and all tasks still wait."""
    assert [{"deferred": COUNT}] * 2 == after_kills


def test_two_triggerers_see_the_same_flow_runs_end(finished_by_triggerer: dict[str, int]) -> None:
    """Some triggers saw the end of their flow run in both triggerers. The following tests check the results."""
    print(f"triggers that saw their flow run's end, by triggerer: {finished_by_triggerer}")
    assert COUNT < sum(finished_by_triggerer.values())


def test_each_task_succeeds_on_its_first_try(waiting: Waiting, finished_by_triggerer: dict[str, int]) -> None:
    """No task fails, and Airflow starts no task again."""
    assert {("success", 1): COUNT} == Counter((each["state"], each["try_number"]) for each in waiting.instances())


@pytest.mark.needs_airflow(3, 1, "tasks that end in the triggerer")
def test_each_task_needs_one_worker_process_and_ends_in_the_triggerer(
    waiting: Waiting, finished_by_triggerer: dict[str, int]
) -> None:
    """Each task had one worker process, and each worker process ended with a deferred task."""
    processes = waiting.worker_processes()
    assert {"deferred": COUNT} == Counter(state for state, _ in processes)
    assert {each["id"] for each in waiting.instances()} == {task for _, task in processes}


def test_each_window_is_ingested_once(
    waiting: Waiting,
    finished_by_triggerer: dict[str, int],
    verdict: Callable[[str, datetime, datetime], tuple[int, int]],
) -> None:
    """Each window has one flow run, and no record is missing or duplicated."""
    end = BEGIN + COUNT * HOUR
    assert (0, 0) == verdict("e2e_waiting", BEGIN, end)
    assert COUNT == len(waiting.emulator.ledger(flow_id=waiting.flow_id, start=BEGIN, end=end)["runs"])


def test_xcoms_match_the_window_of_each_task(waiting: Waiting, finished_by_triggerer: dict[str, int]) -> None:
    """`return_value` and `flow_run` have the id and the final status of the window's only flow run."""
    end = BEGIN + COUNT * HOUR
    runs = waiting.emulator.ledger(flow_id=waiting.flow_id, start=BEGIN, end=end)["runs"]
    by_window = {run["window_start"]: run["id"] for run in runs}
    for index in range(COUNT):
        returned, flow_run = (
            waiting.airflow.xcom("e2e_waiting", waiting.run_id, "ingest", key, map_index=index)
            for key in ("return_value", "flow_run")
        )
        shown = {name: flow_run[name] for name in ("id", "status", "window_start", "window_end", "output_records")}
        start = f"{BEGIN + index * HOUR:%Y-%m-%dT%H:%M:%SZ}"
        assert by_window[start] == returned
        assert {
            "id": returned,
            "status": "success",
            "window_start": start,
            "window_end": f"{BEGIN + (index + 1) * HOUR:%Y-%m-%dT%H:%M:%SZ}",
            "output_records": 60,
        } == shown
