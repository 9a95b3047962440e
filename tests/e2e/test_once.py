"""On a real Airflow, each window is ingested once: whatever is answered, whoever is killed, whoever clears.

`FLOWSERVICE_WINDOWS` (60) and `FLOWSERVICE_RACE_WINDOWS` (30) say how many windows the two big backfills have.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import psutil
import pytest
import requests
from patience import wait_until

from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator.faults import POST_FAULTS

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    Tell = Callable[..., Any]

DAG_FILE = Path(__file__).parent / "dags" / "e2e_once.py"
WINDOWS = int(os.environ.get("FLOWSERVICE_WINDOWS", "60"))
RACE_WINDOWS = int(os.environ.get("FLOWSERVICE_RACE_WINDOWS", "30"))
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)

# Airflow notices within seconds what it would notice within minutes; still slower than a busy machine.
QUICK_TO_NOTICE = {
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
}

# Each strikes one in fifty of the POSTs, so that one in five fails; with this seed, each way among the first sixty.
SEED = 581

ACCIDENTS = {
    "before the intent is written": {"at": "before_intent"},
    "after the intent is written": {"at": "after_intent"},
    "after the POST was recorded, before the store": {"at": "after_post"},
    "after the store": {"at": "after_store"},
    "while waiting on the worker": {"at": "while_waiting"},
    "after the intent, with its supervisor": {"at": "after_intent", "supervisor": True},
    "after the POST, with its supervisor": {"at": "after_post", "supervisor": True},
    "frozen after its first look, with its supervisor": {"at": "first_look", "supervisor": True, "freeze": True},
    "frozen before the POST, with its supervisor": {"at": "after_intent", "supervisor": True, "freeze": True},
}

# The flow runs of a window whose task is cleared in this state, oldest first.
CLEARED = {
    "success": ["success", "success"],
    "failed": ["failed", "success"],
    "deferred": ["success"],
    "running": ["success"],
}

if versions.version() < (3, 3):  # no task state: no accidents beside it, and a clear does not know of the run before
    # Airflow 3.0 itself does not retry a task whose process is killed.
    left = {"while_waiting"} if versions.version() >= (3, 1) else set()
    ACCIDENTS = {name: accident for name, accident in ACCIDENTS.items() if accident["at"] in left}
    CLEARED = {state: runs for state, runs in CLEARED.items() if state in ("success", "failed")}


def flow_of(dag_id: str) -> str:
    """The dataflow of a DAG, as the DAG file has it."""
    return str(uuid5(NAMESPACE_URL, dag_id))


@pytest.fixture(scope="module")
def accidents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each accident leaves a file with the pids of its victims."""
    return tmp_path_factory.mktemp("accidents")


@pytest.fixture(scope="module")
def airflow(
    emulator: EmulatedFlowService, accidents: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """An Airflow for these tests alone, since its components are killed, and it is quick to notice."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-once")
    shutil.copy(DAG_FILE, dags)
    impatient = {**emulator.connection, "extra": {**emulator.connection["extra"], "timeout_s": 2}}
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-once"),
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection, "flowservice_impatient": impatient},
        config={**QUICK_TO_NOTICE, "E2E_ACCIDENTS": str(accidents)},
    ) as running:
        running.wait_healthy()
        yield running


@pytest.fixture(scope="module")
def tell(emulator: EmulatedFlowService) -> Iterator[Tell]:
    """Tell the emulator something on its own routes."""
    with requests.Session() as session:
        session.trust_env = False

        def send(path: str, *, method: str = "POST", **fields: Any) -> Any:
            answer = session.request(method, f"{emulator.url}/_emulator/{path}", json=fields, timeout=30)
            answer.raise_for_status()
            return answer.json()

        yield send


@pytest.fixture(scope="module")
def ready(airflow: LocalAirflow, tell: Tell) -> Callable[[str], str]:
    """Give a DAG its dataflow, and let the scheduler run it; the dataflow's id."""

    def make(dag_id: str) -> str:
        tell("flows", id=flow_of(dag_id), name=dag_id, kind="file")
        airflow.wait_for_dag(dag_id)
        airflow.unpause(dag_id)
        return flow_of(dag_id)

    return make


def start(airflow: LocalAirflow, dag_id: str, date: datetime, **conf: Any) -> str:
    """Start the run of the period that ends at the date; its id."""
    return airflow.trigger(dag_id, logical_date=date, conf=conf)


def ended(airflow: LocalAirflow, dag_id: str, *, count: int) -> list[dict[str, Any]]:
    """A DAG's runs, when all of them have ended; no look at the components, of which one may be dead."""

    def look() -> list[dict[str, Any]] | None:
        runs = airflow.dag_runs(dag_id)
        done = [run for run in runs if run["state"] in ("success", "failed")]
        return runs if len(done) == len(runs) >= count else None

    return wait_until(look, what=f"{count} ended runs of {dag_id}", timeout=240 + 3 * count)


def tries(airflow: LocalAirflow, dag_id: str, run_id: str = "~") -> list[int]:
    """How often each of the DAG's tasks was started."""
    return [instance["try_number"] for instance in airflow.task_instances(dag_id, run_id)]


def more_than_one_try(airflow: LocalAirflow, dag_id: str) -> str:
    """How many of the DAG's tasks Airflow started more than once."""
    counts = tries(airflow, dag_id)
    return f"{sum(count > 1 for count in counts)} tasks started more than once, {max(counts)} times at most"


def wait_for_state(airflow: LocalAirflow, dag_id: str, state: str, *, count: int = 1) -> None:
    """Wait until so many tasks of a DAG are in a state."""

    def reached() -> bool:
        return count == [instance["state"] for instance in airflow.task_instances(dag_id, "~")].count(state)

    wait_until(reached, what=f"{count} tasks of {dag_id} that are {state}")


def wait_for_flow_runs(emulator: EmulatedFlowService, flow_id: str, *, count: int) -> None:
    """Wait until so many runs of a dataflow were created."""

    def created() -> bool:
        begin, end = FIRST - DAY, FIRST + 28 * DAY
        return count == len(emulator.ledger(flow_id=flow_id, start=begin, end=end)["runs"])

    wait_until(created, what=f"{count} flow runs")


def active(emulator: EmulatedFlowService, flow_id: str) -> int:
    """How many runs of a dataflow go on."""
    return int(emulator.ledger(flow_id=flow_id, start=FIRST, end=FIRST + 28 * DAY)["active"])


def runs_in_ledger(emulator: EmulatedFlowService, flow_id: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """The flow runs of a span of time, after a look that all of it was ingested."""
    ledger = emulator.ledger(flow_id=flow_id, start=start, end=end)
    assert (0, 0) == (ledger["missing"], ledger["active"])
    return list(ledger["runs"])


def assert_each_window_once(
    airflow: LocalAirflow, emulator: EmulatedFlowService, dag_id: str, *, windows: int, length: timedelta = HOUR
) -> None:
    """Every task succeeded and returned its window's only flow run; nothing is missing, nothing is there twice."""
    flow_id, end = flow_of(dag_id), FIRST + windows * length
    runs = ended(airflow, dag_id, count=windows)
    assert ["success"] * windows == [run["state"] for run in runs]
    ledger = emulator.ledger(flow_id=flow_id, start=FIRST, end=end)
    assert (0, 0) == (ledger["missing"], ledger["duplicated"])
    by_window = {run["window_end"]: run["id"] for run in ledger["runs"]}
    assert windows == len(ledger["runs"]) == len(by_window)
    returned = {
        airflow.xcom(dag_id, run["dag_run_id"], "ingest", "flow_run")["window_end"]: airflow.xcom(
            dag_id, run["dag_run_id"], "ingest", "return_value"
        )
        for run in runs
    }
    assert by_window == returned


def test_a_fifth_of_the_posts_fail_in_every_way(
    airflow: LocalAirflow, emulator: EmulatedFlowService, ready: Callable[[str], str], tell: Tell
) -> None:
    """Refused, recorded and not answered, half answered, busy: no window is missing or duplicated, no task fails."""
    dag_id = "e2e_once_faults"
    ready(dag_id)
    for way in POST_FAULTS:
        tell("faults", share=0.2 / len(POST_FAULTS), seed=SEED, **way)
    try:
        airflow.create_backfill(dag_id, from_date=FIRST + HOUR, to_date=FIRST + WINDOWS * HOUR, max_active_runs=16)
        ended(airflow, dag_id, count=WINDOWS)
        faults = tell("faults", method="GET")["faults"]
    finally:
        tell("faults", method="DELETE")

    assert_each_window_once(airflow, emulator, dag_id, windows=WINDOWS)
    struck, posts = [fault["struck"] for fault in faults], faults[0]["seen"]
    print(f"{WINDOWS} windows, {posts} POSTs, of which failed by way {struck}; {more_than_one_try(airflow, dag_id)}")
    assert all(struck)
    assert 0.15 < sum(struck) / posts < 0.25


@pytest.fixture(scope="module")
def injured(airflow: LocalAirflow, ready: Callable[[str], str]) -> dict[str, str]:
    """All accidents begin at once, each in the run of a day of its own; the DAG runs' ids by accident."""
    ready("e2e_once_workers")
    return {
        name: start(
            airflow, "e2e_once_workers", day_of(name), accident=accident, deferrable=accident["at"] != "while_waiting"
        )
        for name, accident in ACCIDENTS.items()
    }


def day_of(accident: str) -> datetime:
    """The end of the day that is ingested while this accident happens."""
    return FIRST + (list(ACCIDENTS).index(accident) + 1) * DAY


@pytest.fixture(scope="module")
def recovered(airflow: LocalAirflow, accidents: Path, injured: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The DAG runs by accident when they have ended, and the frozen processes have woken up and ended as well."""
    runs = {run["dag_run_id"]: run for run in ended(airflow, "e2e_once_workers", count=len(ACCIDENTS))}
    for marker in accidents.glob("*-SIGSTOP-*.json"):
        thaw(*json.loads(marker.read_text()))
    return {name: runs[run_id] for name, run_id in injured.items()}


def thaw(supervisor_pid: int, task_pid: int) -> None:
    """Let a frozen task and its supervisor go on, and wait for the task's end."""
    supervisor, task = psutil.Process(supervisor_pid), psutil.Process(task_pid)
    assert psutil.STATUS_STOPPED == supervisor.status() == task.status()
    supervisor.send_signal(signal.SIGCONT)
    task.send_signal(signal.SIGCONT)
    _, alive = psutil.wait_procs([task], timeout=60)
    assert [] == alive


@pytest.fixture(scope="module")
def cleared(
    airflow: LocalAirflow, emulator: EmulatedFlowService, ready: Callable[[str], str], tell: Tell
) -> dict[str, tuple[str, int]]:
    """Tasks that were cleared in each state; by that state the DAG run's id and how often it had been started."""
    tell("outcomes", flow_id=flow_of("e2e_once_cleared_failed"), status="failed", times=1)
    for state in ("deferred", "running"):
        tell("outcomes", flow_id=flow_of(f"e2e_once_cleared_{state}"), status="success", run_s=60, times=1)
    ids = {}
    for state in CLEARED:
        ready(f"e2e_once_cleared_{state}")
        # Before 3.3 the executor race could take the only try of what resumes on a worker.
        on_worker = state == "running" or (state == "failed" and versions.version() < (3, 3))
        ids[state] = start(airflow, f"e2e_once_cleared_{state}", FIRST + DAY, deferrable=not on_worker)
    started = {}
    for state, run_id in ids.items():
        dag_id = f"e2e_once_cleared_{state}"
        wait_for_flow_runs(emulator, flow_of(dag_id), count=1)
        wait_for_state(airflow, dag_id, state)
        if state in ("success", "failed"):
            ended(airflow, dag_id, count=1)  # a clear just before the scheduler ends the DAG run would be lost
        started[state] = (run_id, tries(airflow, dag_id)[0])
        asked = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["ingest"], "only_failed": False}
        airflow.api("POST", f"/dags/{dag_id}/clearTaskInstances", json=asked)
    return started


@pytest.fixture(scope="module")
def scheduled(ready: Callable[[str], str]) -> str:
    """The DAG whose three runs the scheduler makes itself."""
    ready("e2e_once_reprocessed")
    return "e2e_once_reprocessed"


@pytest.mark.usefixtures("injured", "cleared", "scheduled")
def test_tasks_that_airflow_starts_twice(
    airflow: LocalAirflow, emulator: EmulatedFlowService, ready: Callable[[str], str]
) -> None:
    """Without any fault, tasks that resume on a worker may lose a race in the executor: they keep their run.

    That needs a busy machine; what makes it busy are the runs of the tests after this one.
    """
    dag_id = "e2e_once_race"
    ready(dag_id)
    airflow.create_backfill(dag_id, from_date=FIRST + HOUR, to_date=FIRST + RACE_WINDOWS * HOUR, max_active_runs=16)

    assert_each_window_once(airflow, emulator, dag_id, windows=RACE_WINDOWS)
    print(f"{RACE_WINDOWS} windows; {more_than_one_try(airflow, dag_id)}")


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_killed_workers(
    airflow: LocalAirflow, emulator: EmulatedFlowService, recovered: dict[str, dict[str, Any]], accident: str
) -> None:
    """A task whose process is killed or frozen, at whatever point, recovers and leaves one run for its window."""
    run, end = recovered[accident], day_of(accident)

    assert "success" == run["state"]
    (flow_run,) = runs_in_ledger(emulator, flow_of("e2e_once_workers"), end - DAY, end)
    assert flow_run["id"] == airflow.xcom("e2e_once_workers", run["dag_run_id"], "ingest", "return_value")


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_accidents_happen(airflow: LocalAirflow, recovered: dict[str, dict[str, Any]], accident: str) -> None:
    """Airflow saw a killed process, or missed a supervisor's heartbeat, and started the task again."""
    dag_id, run_id = "e2e_once_workers", recovered[accident]["dag_run_id"]

    assert 1 < tries(airflow, dag_id, run_id)[0]
    if ACCIDENTS[accident].get("supervisor"):
        asked = {"dag_id": dag_id, "run_id": run_id, "event": "heartbeat timeout"}
        assert airflow.api("GET", "/eventLogs", params=asked)["event_logs"]
    else:
        assert "SIGKILL" in airflow.task_log(dag_id, run_id, "ingest", 1)


@pytest.mark.parametrize("state", CLEARED)
def test_clears(
    airflow: LocalAirflow, emulator: EmulatedFlowService, cleared: dict[str, tuple[str, int]], state: str
) -> None:
    """A clear asks for the window again: an ended run is followed by a new one, an active one is waited for."""
    dag_id, (run_id, started) = f"e2e_once_cleared_{state}", cleared[state]
    (run,) = ended(airflow, dag_id, count=1)

    assert "success" == run["state"]
    assert started < tries(airflow, dag_id)[0]
    found = runs_in_ledger(emulator, flow_of(dag_id), FIRST, FIRST + DAY)
    assert CLEARED[state] == [run["status"] for run in found]
    assert found[-1]["id"] == airflow.xcom(dag_id, run_id, "ingest", "return_value")


def test_a_backfill_that_reprocesses(airflow: LocalAirflow, emulator: EmulatedFlowService, scheduled: str) -> None:
    """`airflow backfill create --reprocess-behavior completed` is like a clear of each run: one new run for each."""
    count, flow_id, span = 3, flow_of(scheduled), (FIRST - HOUR, FIRST + 2 * HOUR)
    ended(airflow, scheduled, count=count)
    before = runs_in_ledger(emulator, flow_id, *span)

    airflow.create_backfill(
        scheduled, from_date=FIRST, to_date=FIRST + (count - 1) * HOUR, reprocess_behavior="completed"
    )
    runs = ended(airflow, scheduled, count=count)

    assert ["success"] * count == [run["state"] for run in runs]
    after = runs_in_ledger(emulator, flow_id, *span)
    assert (count, 2 * count) == (len(before), len(after))
    assert sorted(2 * [run["window_start"] for run in before]) == sorted(run["window_start"] for run in after)
    new = {run["id"] for run in after} - {run["id"] for run in before}
    assert new == {airflow.xcom(scheduled, run["dag_run_id"], "ingest", "return_value") for run in runs}


def test_killed_triggerer(
    airflow: LocalAirflow, emulator: EmulatedFlowService, ready: Callable[[str], str], tell: Tell
) -> None:
    """Deferred tasks of a triggerer that was killed go on in the next one, with the runs they have."""
    dag_id, count = "e2e_once_triggerer", 4
    tell("outcomes", flow_id=ready(dag_id), status="success", run_s=8, times=count)
    for number in range(1, count + 1):
        start(airflow, dag_id, FIRST + number * HOUR)
    wait_for_state(airflow, dag_id, "deferred", count=count)

    airflow.kill("triggerer-1")
    airflow.start("triggerer-1")

    assert_each_window_once(airflow, emulator, dag_id, windows=count)


@pytest.mark.parametrize("with_workers", [False, True], ids=["alone", "with its workers"])
def test_killed_scheduler(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    ready: Callable[[str], str],
    tell: Tell,
    with_workers: bool,
) -> None:
    """The next scheduler starts the tasks of a killed one again, whether or not their processes go on."""
    dag_id, count = f"e2e_once_scheduler_{'with_workers' if with_workers else 'alone'}", 6
    flow_id = ready(dag_id)
    tell("outcomes", flow_id=flow_id, status="success", run_s=30, times=count)
    for number in range(1, count + 1):
        start(airflow, dag_id, FIRST + number * HOUR, deferrable=number % 2 == 0)
    wait_for_state(airflow, dag_id, "deferred", count=count // 2)
    wait_for_state(airflow, dag_id, "running", count=count // 2)
    wait_for_flow_runs(emulator, flow_id, count=count)

    (name,) = [name for name in airflow.processes if name.startswith("scheduler")]
    if with_workers:
        airflow.kill(name)
    else:
        os.kill(airflow.supervisor.children[name].pid, signal.SIGKILL)
    airflow.start("scheduler-2" if name == "scheduler" else "scheduler")
    if not with_workers:
        wait_until(lambda: not active(emulator, flow_id), what="the end of the flow runs")
        airflow.kill(name)  # What it left holds its connection to the database, and with that perhaps its locks.

    assert_each_window_once(airflow, emulator, dag_id, windows=count)
    assert any(number > 1 for number in tries(airflow, dag_id))
