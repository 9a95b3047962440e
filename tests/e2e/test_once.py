# SPDX-License-Identifier: Apache-2.0
"""Each window is ingested exactly once on a real Airflow, despite HTTP faults, killed processes and cleared tasks.

The environment variables `FLOWSERVICE_WINDOWS` (60) and `FLOWSERVICE_RACE_WINDOWS` (30) set the number of windows of
the two large backfills.
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

# Airflow detects dead processes within seconds instead of minutes. The limits tolerate the delays of a busy machine.
SHORT_TIMEOUTS = {
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    # A callback of a killed task counts as a parsing, after which Airflow 3.0 takes the other DAGs for deleted.
    "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "3600",
}

# Each of the ten faults affects one in fifty POSTs, so one in five fails. With this seed, every fault occurs within the
# first sixty POSTs.
SEED = 581

INTERRUPTIONS = {
    "before the intent is written": {"at": "before_intent"},
    "after the intent is written": {"at": "after_intent"},
    "after the POST was recorded, before the store": {"at": "after_post"},
    "after the store": {"at": "after_store"},
    "while waiting on the worker": {"at": "while_waiting"},
    "after the intent, with its supervisor": {"at": "after_intent", "supervisor": True},
    "after the POST, with its supervisor": {"at": "after_post", "supervisor": True},
    "frozen after its first read, with its supervisor": {"at": "first_read", "supervisor": True, "freeze": True},
    "frozen before the POST, with its supervisor": {"at": "after_intent", "supervisor": True, "freeze": True},
}

# Expected statuses of a window's flow runs, oldest first, by the state in which its task is cleared.
CLEARED = {
    "success": ["success", "success"],
    "failed": ["failed", "success"],
    "deferred": ["success"],
    "running": ["success"],
}

RETRIES_KILLED_TASKS = versions.version() >= (3, 1)

if versions.version() < (3, 3):
    # On Airflow 3.0.6, a running task that is cleared stays in the state `restarting`, and never starts again.
    del CLEARED["running"]


def flow_of(dag_id: str) -> str:
    """Return the id of a DAG's dataflow. The DAG file derives it in the same way."""
    return str(uuid5(NAMESPACE_URL, dag_id))


@pytest.fixture(scope="module")
def interruptions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the folder for the marker files. Each marker file has the pids of the interrupted processes."""
    return tmp_path_factory.mktemp("interruptions")


@pytest.fixture(scope="module")
def airflow(
    emulator: EmulatedFlowService, interruptions_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalAirflow]:
    """Start a separate Airflow for this module, because the tests kill its components and need short timeouts."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags-once")
    shutil.copy(DAG_FILE, dags)
    impatient = {**emulator.connection, "extra": {**emulator.connection["extra"], "timeout_s": 2}}
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow-once"),
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection, "flowservice_impatient": impatient},
        config={**SHORT_TIMEOUTS, "E2E_INTERRUPTIONS": str(interruptions_folder)},
    ) as running:
        running.wait_healthy(timeout=400)
        yield running


@pytest.fixture(scope="module")
def tell(emulator: EmulatedFlowService) -> Iterator[Tell]:
    """Return a function that sends a request to the emulator's control routes."""
    with requests.Session() as session:
        session.trust_env = False

        def send(path: str, *, method: str = "POST", **fields: Any) -> Any:
            response = session.request(method, f"{emulator.url}/_emulator/{path}", json=fields, timeout=30)
            response.raise_for_status()
            return response.json()

        yield send


@pytest.fixture(scope="module")
def enable_dag(airflow: LocalAirflow, tell: Tell) -> Callable[[str], str]:
    """Return a function that creates a DAG's dataflow, unpauses the DAG, and returns the id of the dataflow."""

    def enable(dag_id: str) -> str:
        tell("flows", id=flow_of(dag_id), name=dag_id, kind="file")
        airflow.wait_for_dag(dag_id, timeout=240)
        airflow.unpause(dag_id)
        return flow_of(dag_id)

    return enable


def trigger_run(airflow: LocalAirflow, dag_id: str, date: datetime, **conf: Any) -> str:
    """Trigger the DAG run for the period that ends at the date; return its id."""
    return airflow.trigger(dag_id, logical_date=date, conf=conf)


def wait_for_ended_runs(airflow: LocalAirflow, dag_id: str, *, count: int) -> list[dict[str, Any]]:
    """Wait until all DAG runs of a DAG have ended; return them."""
    # `airflow.wait_for_runs` would also check the components, and one of them may be dead.

    def ended_runs() -> list[dict[str, Any]] | None:
        runs = airflow.dag_runs(dag_id)
        done = [run for run in runs if run["state"] in ("success", "failed")]
        return runs if len(done) == len(runs) >= count else None

    return wait_until(ended_runs, what=f"{count} ended runs of {dag_id}", timeout=240 + 3 * count)


def try_numbers(airflow: LocalAirflow, dag_id: str, run_id: str = "~") -> list[int]:
    """Return the try number of each task instance of the DAG."""
    return [instance["try_number"] for instance in airflow.task_instances(dag_id, run_id)]


def describe_retries(airflow: LocalAirflow, dag_id: str) -> str:
    """Return a text that states how many of the DAG's tasks Airflow started more than once."""
    counts = try_numbers(airflow, dag_id)
    return f"{sum(count > 1 for count in counts)} tasks started more than once, {max(counts)} times at most"


def wait_for_state(airflow: LocalAirflow, dag_id: str, state: str, *, count: int = 1) -> None:
    """Wait until exactly `count` tasks of a DAG are in a state."""

    def reached() -> bool:
        return count == [instance["state"] for instance in airflow.task_instances(dag_id, "~")].count(state)

    wait_until(reached, what=f"{count} {state} tasks of {dag_id}")


def wait_for_flow_runs(emulator: EmulatedFlowService, flow_id: str, *, count: int) -> None:
    """Wait until a dataflow has exactly `count` flow runs."""

    def created() -> bool:
        begin, end = FIRST - DAY, FIRST + 28 * DAY
        return count == len(emulator.ledger(flow_id=flow_id, start=begin, end=end)["runs"])

    wait_until(created, what=f"{count} flow runs")


def count_active_runs(emulator: EmulatedFlowService, flow_id: str) -> int:
    """Return the number of a dataflow's flow runs that have not ended."""
    return int(emulator.ledger(flow_id=flow_id, start=FIRST, end=FIRST + 28 * DAY)["active"])


def runs_in_ledger(emulator: EmulatedFlowService, flow_id: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
    """Return the flow runs of a span of time. Assert that the span is ingested and no flow run is active."""
    ledger = emulator.ledger(flow_id=flow_id, start=start, end=end)
    assert (0, 0) == (ledger["missing"], ledger["active"])
    return list(ledger["runs"])


def assert_each_window_once(
    airflow: LocalAirflow, emulator: EmulatedFlowService, dag_id: str, *, windows: int, length: timedelta = HOUR
) -> None:
    """Assert that each window has one flow run, returned by its task, and that no record is missing or duplicated."""
    flow_id, end = flow_of(dag_id), FIRST + windows * length
    runs = wait_for_ended_runs(airflow, dag_id, count=windows)
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


def test_failing_posts_do_not_lose_or_duplicate_windows(
    airflow: LocalAirflow, emulator: EmulatedFlowService, enable_dag: Callable[[str], str], tell: Tell
) -> None:
    """One in five POSTs fails: no window is missing or duplicated, and no task fails.

    The faults include refused, recorded but unanswered, partly answered and throttled requests.
    """
    dag_id = "e2e_once_faults"
    enable_dag(dag_id)
    for fault in POST_FAULTS:
        tell("faults", share=0.2 / len(POST_FAULTS), seed=SEED, **fault)
    try:
        airflow.create_backfill(dag_id, from_date=FIRST + HOUR, to_date=FIRST + WINDOWS * HOUR, max_active_runs=16)
        wait_for_ended_runs(airflow, dag_id, count=WINDOWS)
        faults = tell("faults", method="GET")["faults"]
    finally:
        tell("faults", method="DELETE")

    assert_each_window_once(airflow, emulator, dag_id, windows=WINDOWS)
    struck, posts = [fault["struck"] for fault in faults], faults[0]["seen"]
    print(f"{WINDOWS} windows, {posts} POSTs, failed by fault: {struck}; {describe_retries(airflow, dag_id)}")
    assert all(struck)
    assert 0.15 < sum(struck) / posts < 0.25


@pytest.fixture(scope="module")
def interrupted_run_ids(airflow: LocalAirflow, enable_dag: Callable[[str], str]) -> dict[str, str]:
    """Trigger one DAG run for each interruption, each for a different day; return the DAG run ids by interruption."""
    enable_dag("e2e_once_workers")
    return {
        name: trigger_run(
            airflow,
            "e2e_once_workers",
            day_of(name),
            interruption=interruption,
            deferrable=interruption["at"] != "while_waiting",
        )
        for name, interruption in INTERRUPTIONS.items()
    }


def day_of(interruption: str) -> datetime:
    """Return the end of the day that the task with this interruption ingests."""
    return FIRST + (list(INTERRUPTIONS).index(interruption) + 1) * DAY


@pytest.fixture(scope="module")
def recovered_runs(
    airflow: LocalAirflow, interruptions_folder: Path, interrupted_run_ids: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Wait until all interrupted DAG runs have ended, then resume the frozen processes.

    Airflow 3.0 does not retry a task after its process is killed, so its failed tasks are cleared, as a user would do.
    Return the DAG runs by interruption.
    """
    ended = wait_for_ended_runs(airflow, "e2e_once_workers", count=len(INTERRUPTIONS))
    failed = [run["dag_run_id"] for run in ended if run["state"] == "failed"]
    if failed and not RETRIES_KILLED_TASKS:
        for run_id in failed:
            clear_task(airflow, "e2e_once_workers", run_id)
        ended = wait_for_ended_runs(airflow, "e2e_once_workers", count=len(INTERRUPTIONS))
    runs = {run["dag_run_id"]: run for run in ended}
    for marker in interruptions_folder.glob("*-SIGSTOP-*.json"):
        resume(*json.loads(marker.read_text()))
    return {name: runs[run_id] for name, run_id in interrupted_run_ids.items()}


def clear_task(airflow: LocalAirflow, dag_id: str, run_id: str) -> None:
    """Clear the task of a DAG run, so that Airflow starts it again."""
    body = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["ingest"], "only_failed": False}
    airflow.api("POST", f"/dags/{dag_id}/clearTaskInstances", json=body)


def resume(supervisor_pid: int, task_pid: int) -> None:
    """Resume a frozen task and its supervisor, and wait until the process of the task ends."""
    supervisor, task = psutil.Process(supervisor_pid), psutil.Process(task_pid)
    assert psutil.STATUS_STOPPED == supervisor.status() == task.status()
    supervisor.send_signal(signal.SIGCONT)
    task.send_signal(signal.SIGCONT)
    _, alive = psutil.wait_procs([task], timeout=60)
    assert [] == alive


@pytest.fixture(scope="module")
def cleared_runs(
    airflow: LocalAirflow, emulator: EmulatedFlowService, enable_dag: Callable[[str], str], tell: Tell
) -> dict[str, tuple[str, int]]:
    """Clear one task in each state; return the DAG run id and the try number before the clear, by state."""
    tell("outcomes", flow_id=flow_of("e2e_once_cleared_failed"), status="failed", times=1)
    for state in ("deferred", "running"):
        tell("outcomes", flow_id=flow_of(f"e2e_once_cleared_{state}"), status="success", run_s=60, times=1)
    run_ids = {}
    for state in CLEARED:
        enable_dag(f"e2e_once_cleared_{state}")
        # Before Airflow 3.3, a race in the executor could cost a task that resumes on a worker its only try.
        on_worker = state == "running" or (state == "failed" and versions.version() < (3, 3))
        run_ids[state] = trigger_run(airflow, f"e2e_once_cleared_{state}", FIRST + DAY, deferrable=not on_worker)
    cleared = {}
    for state, run_id in run_ids.items():
        dag_id = f"e2e_once_cleared_{state}"
        wait_for_flow_runs(emulator, flow_of(dag_id), count=1)
        wait_for_state(airflow, dag_id, state)
        if state in ("success", "failed"):
            # A clear just before the scheduler ends the DAG run would be lost.
            wait_for_ended_runs(airflow, dag_id, count=1)
        cleared[state] = (run_id, try_numbers(airflow, dag_id)[0])
        clear_task(airflow, dag_id, run_id)
    return cleared


@pytest.fixture(scope="module")
def scheduled_dag_id(enable_dag: Callable[[str], str]) -> str:
    """Enable the DAG with three DAG runs that the scheduler creates; return its id."""
    enable_dag("e2e_once_reprocessed")
    return "e2e_once_reprocessed"


@pytest.mark.usefixtures("interrupted_run_ids", "cleared_runs", "scheduled_dag_id")
def test_tasks_that_airflow_starts_twice_keep_their_flow_run(
    airflow: LocalAirflow, emulator: EmulatedFlowService, enable_dag: Callable[[str], str]
) -> None:
    """If a race in Airflow's executor starts a resumed task again, the task keeps its flow run.

    The race needs a busy machine. The fixtures of the following tests start their DAG runs first to cause that load.
    """
    dag_id = "e2e_once_race"
    enable_dag(dag_id)
    airflow.create_backfill(dag_id, from_date=FIRST + HOUR, to_date=FIRST + RACE_WINDOWS * HOUR, max_active_runs=16)

    assert_each_window_once(airflow, emulator, dag_id, windows=RACE_WINDOWS)
    print(f"{RACE_WINDOWS} windows; {describe_retries(airflow, dag_id)}")


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_interrupted_task_recovers(
    airflow: LocalAirflow, emulator: EmulatedFlowService, recovered_runs: dict[str, dict[str, Any]], interruption: str
) -> None:
    """A task recovers after its process was killed or frozen at any step, and its window has one flow run."""
    run, end = recovered_runs[interruption], day_of(interruption)

    assert "success" == run["state"]
    (flow_run,) = runs_in_ledger(emulator, flow_of("e2e_once_workers"), end - DAY, end)
    assert flow_run["id"] == airflow.xcom("e2e_once_workers", run["dag_run_id"], "ingest", "return_value")


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
def test_airflow_restarts_interrupted_task(
    airflow: LocalAirflow, recovered_runs: dict[str, dict[str, Any]], interruption: str
) -> None:
    """Airflow detects the killed process or the missing heartbeat of the supervisor, and starts the task again."""
    dag_id, run_id = "e2e_once_workers", recovered_runs[interruption]["dag_run_id"]

    assert 1 < try_numbers(airflow, dag_id, run_id)[0]
    if INTERRUPTIONS[interruption].get("supervisor"):
        query = {"dag_id": dag_id, "run_id": run_id, "event": "heartbeat timeout"}
        assert airflow.api("GET", "/eventLogs", params=query)["event_logs"]
    else:
        assert "SIGKILL" in airflow.task_log(dag_id, run_id, "ingest", 1)


@pytest.mark.parametrize("state", CLEARED)
def test_cleared_task_ingests_its_window(
    airflow: LocalAirflow, emulator: EmulatedFlowService, cleared_runs: dict[str, tuple[str, int]], state: str
) -> None:
    """After a clear, a task creates a new flow run if the previous one has ended, and otherwise waits for it."""
    dag_id, (run_id, first_tries) = f"e2e_once_cleared_{state}", cleared_runs[state]
    (run,) = wait_for_ended_runs(airflow, dag_id, count=1)

    assert "success" == run["state"]
    assert first_tries < try_numbers(airflow, dag_id)[0]
    found = runs_in_ledger(emulator, flow_of(dag_id), FIRST, FIRST + DAY)
    assert CLEARED[state] == [run["status"] for run in found]
    assert found[-1]["id"] == airflow.xcom(dag_id, run_id, "ingest", "return_value")


def test_backfill_with_reprocessing(
    airflow: LocalAirflow, emulator: EmulatedFlowService, scheduled_dag_id: str
) -> None:
    """`airflow backfill create --reprocess-behavior completed` creates one new flow run for each DAG run."""
    count, flow_id, span = 3, flow_of(scheduled_dag_id), (FIRST - HOUR, FIRST + 2 * HOUR)
    wait_for_ended_runs(airflow, scheduled_dag_id, count=count)
    before = runs_in_ledger(emulator, flow_id, *span)

    airflow.create_backfill(
        scheduled_dag_id, from_date=FIRST, to_date=FIRST + (count - 1) * HOUR, reprocess_behavior="completed"
    )
    runs = wait_for_ended_runs(airflow, scheduled_dag_id, count=count)

    assert ["success"] * count == [run["state"] for run in runs]
    after = runs_in_ledger(emulator, flow_id, *span)
    assert (count, 2 * count) == (len(before), len(after))
    assert sorted(2 * [run["window_start"] for run in before]) == sorted(run["window_start"] for run in after)
    new = {run["id"] for run in after} - {run["id"] for run in before}
    assert new == {airflow.xcom(scheduled_dag_id, run["dag_run_id"], "ingest", "return_value") for run in runs}


def test_deferred_tasks_continue_after_a_killed_triggerer(
    airflow: LocalAirflow, emulator: EmulatedFlowService, enable_dag: Callable[[str], str], tell: Tell
) -> None:
    """After a triggerer is killed, its deferred tasks continue in the next triggerer with their flow runs."""
    dag_id, count = "e2e_once_triggerer", 4
    tell("outcomes", flow_id=enable_dag(dag_id), status="success", run_s=8, times=count)
    for number in range(1, count + 1):
        trigger_run(airflow, dag_id, FIRST + number * HOUR)
    wait_for_state(airflow, dag_id, "deferred", count=count)

    airflow.kill("triggerer-1")
    airflow.start("triggerer-1")

    assert_each_window_once(airflow, emulator, dag_id, windows=count)


@pytest.mark.parametrize("with_workers", [False, True], ids=["without workers", "with workers"])
def test_tasks_continue_after_a_killed_scheduler(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    enable_dag: Callable[[str], str],
    tell: Tell,
    with_workers: bool,
) -> None:
    """After a scheduler is killed, the next scheduler restarts its tasks, also if their processes continue."""
    dag_id, count = f"e2e_once_scheduler_{'with_workers' if with_workers else 'alone'}", 6
    flow_id = enable_dag(dag_id)
    tell("outcomes", flow_id=flow_id, status="success", run_s=30, times=count)
    for number in range(1, count + 1):
        trigger_run(airflow, dag_id, FIRST + number * HOUR, deferrable=number % 2 == 0)
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
        wait_until(lambda: not count_active_runs(emulator, flow_id), what="the end of the flow runs")
        # The remaining worker processes hold the scheduler's database connection, and possibly its locks.
        airflow.kill(name)

    assert_each_window_once(airflow, emulator, dag_id, windows=count)
    assert any(number > 1 for number in try_numbers(airflow, dag_id))
