"""Waiting on a real Airflow: many at once, through outages and killed and frozen triggerers, without a retry to spare.

`FLOWSERVICE_WAITING` (50) says how many windows wait at the same moment, `FLOWSERVICE_OUTAGE_S` (30) how many seconds
each of the two long outages takes. All tests look at one DAG run, which goes through everything in turn.
"""

from __future__ import annotations

import os
import re
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

# A dead triggerer's triggers are another's a little sooner; still slower than a busy machine.
QUICK_TO_NOTICE = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
}
MORE_THAN_A_CLIENT_REPEATS = 6
# One after the other: of those that are planned, the first decides while it lasts.
REFUSALS = (
    {"action": "expire_tokens", "times": 1},
    {"action": "refuse", "status": 429, "headers": {"Retry-After": "2"}, "for_seconds": OUTAGE_S},
    {"action": "refuse", "status": 503, "times": MORE_THAN_A_CLIENT_REPEATS},
    {"action": "close", "times": MORE_THAN_A_CLIENT_REPEATS},
)
_WORKER_ENDED = re.compile(r"Workload finished .* final_state=(\S+) .*workload_id=(\S+)")


class Relay:
    """A way to an address on loopback that can be closed, after which connections are refused, and opened again."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen; for the second time on the same port."""
        self._closing = threading.Event()
        handler = type("Handler", (socketserver.BaseRequestHandler,), {"handle": self._handler()})
        self._server = wait_until(lambda: self._listening(handler), what=f"port {self._port}", timeout=30)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Break all connections, and listen no more."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _listening(self, handler: type) -> socketserver.ThreadingTCPServer | None:
        server = type("Server", (socketserver.ThreadingTCPServer,), {"allow_reuse_address": True})
        with suppress(OSError):  # a passing connection may have borrowed the port
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
    """The DAG run whose tasks wait, and what is done to it."""

    airflow: LocalAirflow
    emulator: EmulatedFlowService
    tell: Callable[..., Any]
    relay: Relay
    run_id: str
    flow_id: str

    def instances(self) -> list[dict[str, Any]]:
        """The task's instances, as the REST API shows them."""
        return self.airflow.task_instances("e2e_waiting", self.run_id)

    def states(self) -> dict[str, int]:
        """How many of them are in which state."""
        return dict(Counter(each["state"] for each in self.instances()))

    def requests(self) -> Counter[str]:
        """How many requests of each kind the emulator has had so far."""
        return Counter(self.emulator.ledger(flow_id=self.flow_id, start=BEGIN, end=BEGIN)["requests"])

    def faults(self) -> list[dict[str, Any]]:
        """The planned faults; `struck` says how many requests each struck."""
        return list(self.tell("faults", method="GET")["faults"])

    def refused_enough(self) -> bool:
        """Whether each planned fault has struck as many requests as it is to, or no task is left that could ask."""
        return all(fault["struck"] >= (fault["times"] or 1) for fault in self.faults()) or self.none_waits()

    def holders(self) -> set[int | None]:
        """The triggerers, by their jobs, that the waiting tasks' triggers belong to."""
        return {(each["triggerer_job"] or {}).get("id") for each in self.instances() if each["state"] == "deferred"}

    def start_triggerer(self, name: str) -> int:
        """Start a triggerer, and wait until it works; its job."""
        before = self._triggerers()
        self.airflow.start(name)
        (job,) = wait_until(lambda: self._triggerers() - before, what=f"a working {name}")
        return job

    def _triggerers(self) -> set[int]:
        """All that are alive, or were a moment ago."""
        asked = {"job_type": "TriggererJob", "is_alive": True}
        return {job["id"] for job in self.airflow.api("GET", "/jobs", params=asked)["jobs"]}

    def wait_for_holder(self, job: int) -> None:
        """Wait until all triggers belong to this triggerer."""
        wait_until(lambda: {job} == self.holders(), what=f"triggerer {job} to take over")

    def wait_for_requests(self, count: int = 1) -> None:
        """Wait until somebody asks for flow runs again so many times, or no task is left that could."""
        enough = self.requests()["GET /runs"] + count
        wait_until(lambda: self.requests()["GET /runs"] >= enough or self.none_waits(), what="another GET /runs")

    def none_waits(self) -> bool:
        """Whether all tasks have ended, which may be too early."""
        return not self.states().get("deferred")

    def end_some(self, *, of_all: int) -> None:
        """End flow runs until so many tasks have ended."""
        self.tell("end", flow_id=self.flow_id, count=of_all - self.states().get("success", 0))
        wait_until(lambda: of_all == self.states().get("success"), what=f"{of_all} tasks that end")

    def worker_processes(self) -> list[tuple[str, str]]:
        """Every worker process that there was: the task's state as it left it, and the task instance's id."""
        wait_until(
            lambda: self._workers_idle() and len(self._ended_workers()) >= COUNT, what="the worker processes to end"
        )
        return self._ended_workers()

    def _ended_workers(self) -> list[tuple[str, str]]:
        return _WORKER_ENDED.findall(self.airflow.supervisor.log_file("scheduler").read_text())

    def _workers_idle(self) -> bool:
        """Whether no process of the scheduler's workers has a child of its own."""
        scheduler = self.airflow.supervisor.children["scheduler"].pid
        with suppress(psutil.NoSuchProcess):  # one has ended just now
            return {scheduler, os.getpid()} >= {process.ppid() for process in self.airflow.processes["scheduler"]}
        return False

    def told(self, words: str, *, triggerer: int | None) -> int:
        """How many tasks' logs of this triggerer have these words."""
        logs = (self.airflow.home / "logs" / "tasks").rglob(f"attempt=1.log.trigger.{triggerer}.log")
        return sum(words in file.read_text() for file in logs)


@pytest.fixture(scope="module")
def relay(emulator: EmulatedFlowService) -> Iterator[Relay]:
    """The only way from Airflow to the emulator."""
    relay = Relay(emulator.url)
    yield relay
    relay.close()


@pytest.fixture(scope="module")
def airflow(
    emulator: EmulatedFlowService, relay: Relay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """An Airflow for these tests alone, since its triggerers are killed."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-waiting")
    shutil.copy(DAG_FILE, dags)
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-waiting"),
        dags_folder=dags,
        connections={"flowservice_default": replace(emulator, url=relay.url).connection},
        config=QUICK_TO_NOTICE,
    ) as running:
        running.wait_healthy()
        yield running


@pytest.fixture(scope="module")
def waiting(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    relay: Relay,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
) -> Waiting:
    """All tasks wait at the same moment; none of their flow runs ends before it is told to."""
    flow_id = flow_of("e2e_waiting")
    tell("flows", id=flow_id, name="e2e_waiting", kind="file")
    tell("outcomes", flow_id=flow_id, status="success", run_s=86_400, times=None)
    airflow.wait_for_dag("e2e_waiting")
    airflow.unpause("e2e_waiting")
    run_id = airflow.trigger("e2e_waiting")
    waiting = Waiting(airflow, emulator, tell, relay, run_id, flow_id)
    wait_until(lambda: waiting.states() == {"deferred": COUNT}, what="tasks that all wait", timeout=240 + 8 * COUNT)
    return waiting


@pytest.fixture(scope="module")
def asked(waiting: Waiting) -> Counter[str]:
    """The requests that were made while all were waiting and nothing else happened, for `QUIET_S` seconds."""
    before = waiting.requests()
    time.sleep(QUIET_S)
    return waiting.requests() - before


@pytest.fixture(scope="module")
def refused(waiting: Waiting, asked: Counter[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The outages that Flow Service answers, one by one; how often each struck, and the tasks' states after that."""
    for outage in REFUSALS:
        waiting.tell("faults", kind="*", **outage)
    time.sleep(OUTAGE_S)
    wait_until(waiting.refused_enough, what="each of the outages")
    waiting.wait_for_requests()
    struck = {f"{fault['action']} {fault['status']}": fault["struck"] for fault in waiting.faults()}
    return struck, waiting.states()


@pytest.fixture(scope="module")
def unreachable(waiting: Waiting, refused: tuple[dict[str, int], dict[str, int]]) -> dict[str, int]:
    """Connections are refused; the tasks' states after that, when the emulator is asked again."""
    waiting.relay.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(waiting.relay.url).port or 0))
    time.sleep(OUTAGE_S)
    waiting.relay.open()
    waiting.wait_for_requests()
    return waiting.states()


@pytest.fixture(scope="module")
def killed(waiting: Waiting, unreachable: dict[str, int]) -> list[dict[str, int]]:
    """The only triggerer is killed and started again, then killed while a second one runs; the tasks' states then."""
    waiting.airflow.kill("triggerer-1")
    waiting.wait_for_holder(waiting.start_triggerer("triggerer-1"))
    waiting.wait_for_requests()
    alone = waiting.states()
    second = waiting.start_triggerer("triggerer-2")
    waiting.airflow.kill("triggerer-1")
    waiting.wait_for_holder(second)
    waiting.wait_for_requests()
    return [alone, waiting.states()]


@pytest.fixture(scope="module")
def thawed(waiting: Waiting, killed: list[dict[str, int]]) -> dict[str, int]:
    """A triggerer freezes, another takes its triggers over, and then both have them, as the flow runs end.

    Some end before that in each of the two, so that both are warm. Of the frozen one, the process that runs the
    triggers wakes up first and for a moment alone, so that it sees that some flow runs have ended, before the process
    beside it can tell that the triggers are another's; meanwhile it pushes their XComs in vain, and asks for the
    others again. How many triggers saw their run's end in each triggerer.
    """
    (old,) = waiting.holders()
    waiting.end_some(of_all=COUNT // 5)
    new = waiting.start_triggerer("triggerer-1")
    frozen, other = (waiting.airflow.processes[name] for name in ("triggerer-2", "triggerer-1"))
    for process in frozen:
        process.suspend()
    waiting.wait_for_holder(new)
    waiting.end_some(of_all=2 * (COUNT // 5))
    for process in other:
        process.suspend()
    for process in children(frozen):
        process.resume()
    waiting.wait_for_requests(2)
    waiting.tell("end", flow_id=waiting.flow_id)
    for process in [*frozen, *other]:
        process.resume()
    waiting.airflow.wait_for_runs("e2e_waiting", count=1, timeout=240 + COUNT)
    return {"frozen": waiting.told("is success", triggerer=old), "other": waiting.told("is success", triggerer=new)}


def children(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those whose parents are among them."""
    pids = {process.pid for process in processes}
    return [process for process in processes if process.ppid() in pids]


def test_all_that_wait_are_asked_for_together(asked: Counter[str]) -> None:
    """Far fewer requests than one a task and poll, and none for a single run."""
    print(f"{COUNT} wait, {QUIET_S / POLL_S:.0f} polls: {dict(asked)}")
    assert 0 == asked["GET /runs/{id}"]
    assert 1 <= asked["GET /runs"] <= (COUNT / 90 + 2) * QUIET_S / POLL_S
    assert {"GET /runs"} >= set(asked) - {"POST /ims/token/v3"}


def test_an_expired_token_429_503_and_broken_connections_fail_nothing(
    refused: tuple[dict[str, int], dict[str, int]],
) -> None:
    """Each of them happened, and all wait on."""
    struck, states = refused
    print(f"requests that were struck: {struck}")
    assert {"deferred": COUNT} == states
    assert len(REFUSALS) == len(struck)
    assert all(struck.values())


def test_a_flow_service_that_cannot_be_reached_fails_nothing(unreachable: dict[str, int]) -> None:
    """All wait on."""
    assert {"deferred": COUNT} == unreachable


def test_a_killed_triggerers_triggers_are_taken_over(killed: list[dict[str, int]]) -> None:
    """By the same triggerer when it was started again, and by a second one; all wait on."""
    assert [{"deferred": COUNT}] * 2 == killed


def test_two_triggerers_see_the_same_flow_runs_end(thawed: dict[str, int]) -> None:
    """What comes of it is what the other tests look at."""
    print(f"triggers that saw their flow run's end, by triggerer: {thawed}")
    assert COUNT < sum(thawed.values())


def test_no_task_fails_or_is_started_again(waiting: Waiting, thawed: dict[str, int]) -> None:
    """One try each."""
    assert {("success", 1): COUNT} == Counter((each["state"], each["try_number"]) for each in waiting.instances())


@pytest.mark.needs_airflow(3, 3, "tasks that end in the triggerer")
def test_each_task_takes_one_worker_process_and_ends_in_the_triggerer(waiting: Waiting, thawed: dict[str, int]) -> None:
    """Every worker process of this Airflow left its task deferred, and there was one for each task."""
    processes = waiting.worker_processes()
    assert {"deferred": COUNT} == Counter(state for state, _ in processes)
    assert {each["id"] for each in waiting.instances()} == {task for _, task in processes}


def test_each_window_is_ingested_once(
    waiting: Waiting, thawed: dict[str, int], verdict: Callable[[str, datetime, datetime], tuple[int, int]]
) -> None:
    """As many flow runs as windows; nothing missing, nothing duplicated."""
    end = BEGIN + COUNT * HOUR
    assert (0, 0) == verdict("e2e_waiting", BEGIN, end)
    assert COUNT == len(waiting.emulator.ledger(flow_id=waiting.flow_id, start=BEGIN, end=end)["runs"])


def test_the_xcoms_are_those_of_each_tasks_window(waiting: Waiting, thawed: dict[str, int]) -> None:
    """`return_value` and `flow_run` name the window's only flow run, and how it ended."""
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
