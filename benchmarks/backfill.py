"""Compare real backfills of a year of days with a backfill of a task that does nothing.

`python benchmarks/backfill.py` starts an Airflow (LocalExecutor, PostgreSQL) and an emulated Flow Service. It runs
`airflow backfill create` for three DAGs in turn. The task of the first does nothing; the task of the second creates a
flow run for each window and waits in the triggerer; the task of the third only creates the flow run.

For each DAG, the script prints the wall time and the processor time as ratios to the first DAG, the number of worker
processes, and the requests to Flow Service per window. The exit status is 1 if a window is missing or duplicated in
the emulator's ledger, or if a DAG run failed. It takes about twenty minutes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import NAMESPACE_URL, uuid5

import psutil
from real_airflow import Bench, real_airflow

DAY = timedelta(days=1)
FIRST = datetime(2025, 1, 2, tzinfo=timezone.utc)
DAG_FILE = """
from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5
import pendulum
from airflow.sdk import DAG, BaseOperator
from airflow_flowservice.operators import OnDemandFlowRunOperator

class Nothing(BaseOperator):
    def execute(self, context):
        return None

def dag(dag_id):
    return DAG(
        dag_id=dag_id,
        schedule="@daily",
        start_date=pendulum.datetime(2024, 12, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 6, 1, tz="UTC"),
        catchup=False,
        max_active_runs=16,
        default_args={"retries": 5, "retry_delay": timedelta(seconds=1)},
    )

with dag("nothing"):
    Nothing(task_id="task")
with dag("waiting"):
    OnDemandFlowRunOperator(
        task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "waiting")),
        wait_for_completion=True, deferrable=True, poll_interval=5,
    )
with dag("creating"):
    OnDemandFlowRunOperator(
        task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "creating")), wait_for_completion=False
    )
"""
DAGS = ("nothing", "waiting", "creating")
_ENDED = re.compile(r"Workload finished .*workload_id=(\S+)")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Cost of one backfill.

    :param wall: seconds from the command until the last DAG run has ended.
    :param cpu: processor seconds of all processes of Airflow.
    :param workers: number of worker processes that ended.
    :param requests: number of requests to the emulator, by kind.
    :param succeeded: number of succeeded DAG runs.
    """

    wall: float
    cpu: float
    workers: int
    requests: Counter[str]
    succeeded: int


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=365)
    parser.add_argument("--run-seconds", type=float, default=2, help="seconds that a flow run is in progress")
    options = parser.parse_args()
    config = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}
    passed = True
    with real_airflow(DAG_FILE, config=config, run_seconds=options.run_seconds) as bench:
        baseline = None
        print("| | wall time | processor time | worker processes | requests per window | missing, duplicated |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for dag_id in DAGS:
            figures = measure_backfill(bench, dag_id, windows=options.windows)
            baseline = baseline or figures
            faults = ledger_faults(bench, dag_id, windows=options.windows)
            requests_per_window = sum(figures.requests.values()) / options.windows
            print(
                f"| {dag_id} | {figures.wall / baseline.wall:.2f} | {figures.cpu / baseline.cpu:.2f} "
                f"| {figures.workers} | {requests_per_window:.2f} | {'' if dag_id == 'nothing' else faults} |",
                flush=True,
            )
            print(f"{dag_id}: {figures}", file=sys.stderr, flush=True)
            passed &= figures.succeeded == options.windows and (dag_id == "nothing" or faults == (0, 0))
    sys.exit(not passed)


def measure_backfill(bench: Bench, dag_id: str, *, windows: int) -> Figures:
    """Backfill a number of days; return the cost."""
    bench.release(dag_id, flow_id=flow_of(dag_id))
    workers, earlier_requests, cpu = workers_ended(bench), requests(bench, dag_id), processor_seconds(bench)
    begin = time.monotonic()
    bench.airflow.create_backfill(dag_id, from_date=FIRST, to_date=FIRST + (windows - 1) * DAY, max_active_runs=16)
    runs = bench.airflow.wait_for_runs(dag_id, count=windows, timeout=3600)
    wall = time.monotonic() - begin
    settle(lambda: workers_ended(bench) - workers >= windows)
    return Figures(
        wall=wall,
        cpu=processor_seconds(bench) - cpu,
        workers=workers_ended(bench) - workers,
        requests=requests(bench, dag_id) - earlier_requests,
        succeeded=sum(run["state"] == "success" for run in runs),
    )


def flow_of(dag_id: str) -> str:
    """Return the id of a DAG's dataflow, which the DAG file computes in the same way."""
    return str(uuid5(NAMESPACE_URL, dag_id))


def ledger_faults(bench: Bench, dag_id: str, *, windows: int) -> tuple[int, int]:
    """Return the numbers of missing and of duplicated records, after the last flow runs have ended."""
    begin = FIRST - DAY

    def faults() -> tuple[int, int]:
        ledger = bench.emulator.ledger(flow_id=flow_of(dag_id), start=begin, end=begin + windows * DAY)
        return ledger["missing"], ledger["duplicated"]

    if dag_id != "nothing":
        settle(lambda: faults()[0] == 0)
    return faults()


def settle(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait until a condition holds, at most for the given seconds."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)


def requests(bench: Bench, dag_id: str) -> Counter[str]:
    """Return the number of requests that the emulator has received, by kind."""
    return Counter(bench.emulator.ledger(flow_id=flow_of(dag_id), start=FIRST, end=FIRST)["requests"])


def workers_ended(bench: Bench) -> int:
    """Return the number of ended worker processes in the scheduler's log."""
    return len(_ENDED.findall(bench.airflow.supervisor.log_file("scheduler").read_text()))


def processor_seconds(bench: Bench) -> float:
    """Return the processor seconds of Airflow's processes and their ended children, without PostgreSQL."""
    total = 0.0
    for name, processes in bench.airflow.processes.items():
        for process in processes if name in bench.airflow.components else ():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # its time is now part of its parent's
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
