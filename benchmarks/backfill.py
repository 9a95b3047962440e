# SPDX-License-Identifier: Apache-2.0
"""Compare real backfills of a year of days with backfills of tasks that are written by hand.

`python benchmarks/backfill.py` starts an Airflow (LocalExecutor, PostgreSQL) and an emulated Flow Service. It runs
`airflow backfill create` for five DAGs in turn:

- `nothing`: the task does nothing.
- `creating_by_hand`: the task requests a token and sends the `POST` with `requests`.
- `creating`: the operator of this package creates a flow run.
- `waiting_by_hand`: as `creating_by_hand`; then a trigger sleeps and ends the task. It reads no flow run.
- `waiting`: the operator creates a flow run and waits for it in the triggerer.

For each DAG, the script prints the wall time and the processor time as ratios to `nothing` and to the DAG by hand, the
processor time by component, the number of worker processes, and the requests to Flow Service per window. The exit
status is 1 if a window of this package is missing or duplicated in the emulator's ledger, or if a DAG run failed. It
takes about twenty-five minutes.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
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
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseHook, BaseOperator
from airflow_flowservice.operators import OnDemandFlowRunOperator

class Nothing(BaseOperator):
    def execute(self, context):
        return None

class ByHand(BaseOperator):
    def __init__(self, *, flow_id, wait_seconds=None, **kwargs):
        super().__init__(**kwargs)
        self.flow_id = flow_id
        self.wait_seconds = wait_seconds

    def execute(self, context):
        import requests

        connection = BaseHook.get_connection("flowservice_default")
        extra = connection.extra_dejson
        with requests.Session() as session:
            credential = {
                "grant_type": "client_credentials",
                "client_id": connection.login,
                "client_secret": connection.password,
                "scope": "openid,AdobeID,read_organizations,additional_info.projectedProductContext,session",
            }
            response = session.post(extra["ims_url"] + "/ims/token/v3", data=credential, timeout=60)
            response.raise_for_status()
            headers = {
                "Authorization": "Bearer " + response.json()["access_token"],
                "x-api-key": connection.login,
                "x-gw-ims-org-id": extra["org_id"],
                "x-sandbox-name": extra["sandbox"],
            }
            end = context["logical_date"]
            start = end - timedelta(days=1)
            window = {
                "startTime": str(int(pendulum.now("UTC").timestamp())),
                "windowStartTime": str(int(start.timestamp())),
                "windowEndTime": str(int(end.timestamp())),
            }
            response = session.post(
                connection.host + "/data/foundation/flowservice/runs",
                json={"flowId": self.flow_id, "params": window}, headers=headers, timeout=60,
            )
            response.raise_for_status()
        if self.wait_seconds is None:
            return response.json()["items"][0]["id"]
        self.defer(
            trigger=TimeDeltaTrigger(timedelta(seconds=self.wait_seconds), end_from_trigger=True),
            method_name="execute_complete",
        )

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
with dag("creating_by_hand"):
    ByHand(task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "creating_by_hand")))
with dag("waiting_by_hand"):
    ByHand(task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "waiting_by_hand")), wait_seconds=5)
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
DAGS = ("nothing", "creating_by_hand", "creating", "waiting_by_hand", "waiting")
# The row that a row is compared with, besides `nothing`.
_BY_HAND = {"creating": "creating_by_hand", "waiting": "waiting_by_hand"}
_ENDED = re.compile(r"Workload finished .*workload_id=(\S+)")


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Cost of one backfill.

    :param wall: seconds from the command until the last DAG run has ended.
    :param cpu: processor seconds of Airflow's processes, by component.
    :param workers: number of worker processes that ended.
    :param requests: number of requests to the emulator, by kind.
    :param succeeded: number of succeeded DAG runs.
    """

    wall: float
    cpu: Counter[str]
    workers: int
    requests: Counter[str]
    succeeded: int


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=365)
    parser.add_argument("--dags", nargs="+", default=DAGS, choices=DAGS, help="the rows to measure")
    parser.add_argument("--run-seconds", type=float, default=2, help="seconds that a flow run is in progress")
    options = parser.parse_args()
    config = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}
    passed = True
    with real_airflow(DAG_FILE, config=config, run_seconds=options.run_seconds) as bench:
        measured: dict[str, Figures] = {}
        print("| | wall | processor | wall, by hand | processor, by hand | workers | requests | missing, duplicated |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for dag_id in options.dags:
            measured[dag_id] = figures = measure_backfill(bench, dag_id, windows=options.windows)
            faults = ledger_faults(bench, dag_id, windows=options.windows)
            print(row(dag_id, measured, windows=options.windows, faults=faults), flush=True)
            print(f"{dag_id}: {figures}", file=sys.stderr, flush=True)
            passed &= figures.succeeded == options.windows and (dag_id not in _BY_HAND or faults == (0, 0))
    sys.exit(not passed)


def row(dag_id: str, measured: Mapping[str, Figures], *, windows: int, faults: tuple[int, int]) -> str:
    """Return a line of the table."""
    figures = measured[dag_id]
    others = ("nothing", _BY_HAND.get(dag_id, ""))
    ratios = [ratio for other in others for ratio in _ratios(figures, measured.get(other))]
    requests_per_window = sum(figures.requests.values()) / windows
    cells = [dag_id, *ratios, figures.workers, f"{requests_per_window:.2f}", "" if dag_id == "nothing" else faults]
    return "| " + " | ".join(map(str, cells)) + " |"


def _ratios(figures: Figures, baseline: Figures | None) -> tuple[str, str]:
    if baseline is None:
        return "", ""
    return f"{figures.wall / baseline.wall:.2f}", f"{figures.cpu.total() / baseline.cpu.total():.2f}"


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


def processor_seconds(bench: Bench) -> Counter[str]:
    """Return the processor seconds of Airflow's processes and their ended children, without PostgreSQL."""
    total: Counter[str] = Counter()
    for name, processes in bench.airflow.processes.items():
        for process in processes if name in bench.airflow.components else ():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:  # its time is now part of its parent's
                continue
            total[name] += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    main()
