"""A real backfill of a year of days, beside the same backfill with an operator that does nothing.

`python benchmarks/backfill.py` starts an Airflow (LocalExecutor, PostgreSQL) and an emulated Flow Service, and runs
`airflow backfill create` for each of three DAGs in turn: one whose only task does nothing, one that creates a flow
run for each window and waits for it in the triggerer, one that creates it only. It prints, of each, the wall time and
the processor time beside those of doing nothing, the worker processes, and the requests to Flow Service for a window.
It ends with 1 unless the ledger says that nothing is missing and nothing is in twice. About twenty minutes.
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
    """What one backfill took.

    :param wall: seconds, from the command until the last DAG run has ended.
    :param cpu: processor seconds of all of Airflow's processes.
    :param workers: worker processes that ended.
    :param requests: of each kind, to the emulator.
    """

    wall: float
    cpu: float
    workers: int
    requests: Counter[str]
    succeeded: int


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=365)
    parser.add_argument("--run-seconds", type=float, default=2, help="how long a flow run is in progress")
    options = parser.parse_args()
    config = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}
    good = True
    with real_airflow(DAG_FILE, config=config, run_seconds=options.run_seconds) as bench:
        nothing = None
        print("| | wall time | processor time | worker processes | requests for a window | missing, twice |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for dag_id in DAGS:
            figures = backfilled(bench, dag_id, windows=options.windows)
            nothing = nothing or figures
            wrong = in_ledger(bench, dag_id, windows=options.windows)
            each = sum(figures.requests.values()) / options.windows
            print(
                f"| {dag_id} | {figures.wall / nothing.wall:.2f} | {figures.cpu / nothing.cpu:.2f} "
                f"| {figures.workers} | {each:.2f} | {'' if dag_id == 'nothing' else wrong} |",
                flush=True,
            )
            print(f"{dag_id}: {figures}", file=sys.stderr, flush=True)
            good &= figures.succeeded == options.windows and (dag_id == "nothing" or wrong == (0, 0))
    sys.exit(not good)


def backfilled(bench: Bench, dag_id: str, *, windows: int) -> Figures:
    """Backfill that many days."""
    bench.release(dag_id, flow_id=flow_of(dag_id))
    workers, asked, cpu = workers_ended(bench), requests(bench, dag_id), processor_seconds(bench)
    begin = time.monotonic()
    bench.airflow.create_backfill(dag_id, from_date=FIRST, to_date=FIRST + (windows - 1) * DAY, max_active_runs=16)
    runs = bench.airflow.wait_for_runs(dag_id, count=windows, timeout=3600)
    wall = time.monotonic() - begin
    settle(lambda: workers_ended(bench) - workers >= windows)
    return Figures(
        wall=wall,
        cpu=processor_seconds(bench) - cpu,
        workers=workers_ended(bench) - workers,
        requests=requests(bench, dag_id) - asked,
        succeeded=sum(run["state"] == "success" for run in runs),
    )


def flow_of(dag_id: str) -> str:
    """The dataflow of a DAG, as the DAG file has it."""
    return str(uuid5(NAMESPACE_URL, dag_id))


def in_ledger(bench: Bench, dag_id: str, *, windows: int) -> tuple[int, int]:
    """How many records are missing, and how many are in twice, when the last flow runs have ended."""
    begin = FIRST - DAY

    def wrong() -> tuple[int, int]:
        ledger = bench.emulator.ledger(flow_id=flow_of(dag_id), start=begin, end=begin + windows * DAY)
        return ledger["missing"], ledger["duplicated"]

    if dag_id != "nothing":
        settle(lambda: wrong()[0] == 0)
    return wrong()


def settle(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for what comes some moments after a task's end, but not for ever."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)


def requests(bench: Bench, dag_id: str) -> Counter[str]:
    """How many requests of each kind the emulator has had."""
    return Counter(bench.emulator.ledger(flow_id=flow_of(dag_id), start=FIRST, end=FIRST)["requests"])


def workers_ended(bench: Bench) -> int:
    """How many worker processes the scheduler has seen end."""
    return len(_ENDED.findall(bench.airflow.supervisor.log_file("scheduler").read_text()))


def processor_seconds(bench: Bench) -> float:
    """Of all of Airflow's processes and of those that they have waited for; PostgreSQL's are not among them."""
    total = 0.0
    for name, processes in bench.airflow.processes.items():
        for process in processes if name in bench.airflow.components else ():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # its parent has its time now
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
