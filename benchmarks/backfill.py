# SPDX-License-Identifier: Apache-2.0
"""Compare real backfills of a year of days with backfills of tasks that are written by hand.

`python benchmarks/backfill.py` starts an Airflow (LocalExecutor, PostgreSQL) and an emulated Flow Service. It runs
`airflow backfill create` for these DAGs in turn:

- `nothing`: the task does nothing.
- `reading`, `writing`: the task reads a Variable, or pushes an XCom, twenty times. From these rows, the script computes
  the processor time of one message in each component.
- `creating_by_hand`: the task requests a token and sends the `POST` with `requests`.
- `messages_by_hand`: as `creating_by_hand`, with the messages to Airflow's API server that `creating` sends, but
  without code of this package.
- `creating`: the operator of this package creates a flow run.
- `waiting_by_hand`: as `creating_by_hand`; then a trigger sleeps and ends the task. It reads no flow run.
- `waiting`: the operator creates a flow run and waits for it in the triggerer.

A backfill of the DAG `warm_up` comes first and is not measured: at their first messages, the API server and the
triggerer create their routes, which takes seconds. For each DAG, the script prints the wall time and the processor
time as ratios to `nothing` and to the DAG by hand, the number of worker processes, and the requests to Flow Service
per window. Then it prints the processor time by component. `tasks` are the processes that execute the tasks, and
`supervisors` those that start them. The exit status is 1 if a window of this package is missing or duplicated in the
emulator's ledger, or if a DAG run failed. It takes about a quarter of an hour (`--windows`).
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from uuid import NAMESPACE_URL, uuid5

import psutil
from real_airflow import Bench, real_airflow

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = datetime(2025, 1, 2, tzinfo=timezone.utc)
DAG_FILE = """
from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5
import pendulum
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseHook, BaseOperator, Variable, get_parsing_context
from airflow.sdk.execution_time import comms, task_runner

PERIOD = timedelta(seconds=SECONDS_OF_A_PERIOD)

class Nothing(BaseOperator):
    def execute(self, context):
        return None

class Reading(BaseOperator):
    def execute(self, context):
        for _ in range(20):
            Variable.get("missing", default=None)

class Writing(BaseOperator):
    def execute(self, context):
        for number in range(20):
            context["ti"].xcom_push(key=f"key_{number}", value="v" * 200)

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
            start = end - PERIOD
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

class ByHandWithMessages(ByHand):
    def execute(self, context):
        send, ti = task_runner.SUPERVISOR_COMMS.send, context["ti"]
        prefix = f"by_hand.{self.flow_id}."
        key, value = f"{prefix}{context['logical_date'].isoformat()}", "v" * 500
        send(comms.GetPreviousDagRun(dag_id=ti.dag_id, logical_date=context["logical_date"]))
        ti.xcom_push(key="dataflow_url", value="v" * 100)
        send(comms.GetVariableKeys(prefix=prefix))
        send(comms.PutVariable(key=key, value=value, description=value))
        send(comms.GetVariable(key=key))
        send(comms.GetVariableKeys(prefix=prefix))
        found = super().execute(context)
        send(comms.GetVariable(key=key))
        send(comms.PutVariable(key=key, value=value, description=value))
        ti.xcom_push(key="flow_run", value={"id": found, "window": value})
        ti.xcom_push(key="flow_run_url", value="v" * 150)
        send(comms.GetVariable(key=key))
        send(comms.PutVariable(key=key, value=value, description=value))
        return found

def dag(dag_id):
    return DAG(
        dag_id=dag_id,
        schedule="@daily" if PERIOD == timedelta(days=1) else "@hourly",
        start_date=pendulum.datetime(2024, 12, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 6, 1, tz="UTC"),
        catchup=False,
        max_active_runs=16,
        default_args={"retries": 5, "retry_delay": timedelta(seconds=1)},
    )

with dag("nothing"):
    Nothing(task_id="task")
with dag("reading"):
    Reading(task_id="task")
with dag("writing"):
    Writing(task_id="task")
with dag("messages_by_hand"):
    ByHandWithMessages(task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "messages_by_hand")))
with dag("creating_by_hand"):
    ByHand(task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "creating_by_hand")))
with dag("waiting_by_hand"):
    ByHand(task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "waiting_by_hand")), wait_seconds=5)
# A task by hand does not import this package.
if get_parsing_context().dag_id in (None, "warm_up", "creating", "waiting"):
    from airflow_flowservice.operators import OnDemandFlowRunOperator

    for dag_id in ("warm_up", "waiting"):
        with dag(dag_id):
            OnDemandFlowRunOperator(
                task_id="task", flow_id=str(uuid5(NAMESPACE_URL, dag_id)),
                wait_for_completion=True, deferrable=True, poll_interval=5,
            )
    with dag("creating"):
        OnDemandFlowRunOperator(
            task_id="task", flow_id=str(uuid5(NAMESPACE_URL, "creating")), wait_for_completion=False
        )
"""
DAGS = (
    "nothing",
    "reading",
    "writing",
    "creating_by_hand",
    "messages_by_hand",
    "creating",
    "waiting_by_hand",
    "waiting",
)
# The tasks of these DAGs send no request to Flow Service, but this number of messages.
_MESSAGES = {"nothing": 0, "reading": 20, "writing": 20}
COMPONENTS = ("tasks", "supervisors", "api-server", "scheduler", "triggerer-1", "dag-processor")
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
    parser.add_argument("--hourly", action="store_true", help="windows of an hour, not of a day")
    parser.add_argument("--max-active-runs", type=int, default=16, help="DAG runs at a time")
    parser.add_argument("--run-seconds", type=float, default=2, help="seconds that a flow run is in progress")
    options = parser.parse_args()
    config = {"AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600"}
    passed, period = True, HOUR if options.hourly else DAY
    source = DAG_FILE.replace("SECONDS_OF_A_PERIOD", f"{period.total_seconds():.0f}")
    with real_airflow(source, config=config, run_seconds=options.run_seconds) as bench:
        measure_backfill(bench, "warm_up", windows=8, period=period)
        measured: dict[str, Figures] = {}
        print("| | wall | processor | wall, by hand | processor, by hand | workers | requests | missing, duplicated |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        for dag_id in options.dags:
            measured[dag_id] = figures = measure_backfill(
                bench, dag_id, windows=options.windows, period=period, max_active_runs=options.max_active_runs
            )
            faults = ledger_faults(bench, dag_id, windows=options.windows, period=period)
            print(row(dag_id, measured, windows=options.windows, faults=faults), flush=True)
            print(f"{dag_id}: {figures}", file=sys.stderr, flush=True)
            passed &= figures.succeeded == options.windows and (dag_id not in _BY_HAND or faults == (0, 0))
        print("", *profile(measured, windows=options.windows), sep="\n", flush=True)
    sys.exit(not passed)


def profile(measured: Mapping[str, Figures], *, windows: int) -> Iterator[str]:
    """Yield the lines of a table: milliseconds of processor time for each window, by component.

    The last rows are those of one message, which is what a row with messages needs more than `nothing`.
    """
    yield f"| milliseconds | {' | '.join(COMPONENTS)} | total |"
    yield "| --- " * (len(COMPONENTS) + 2) + "|"
    for dag_id, figures in measured.items():
        yield _milliseconds(dag_id, figures.cpu, count=windows)
    for dag_id, number in _MESSAGES.items():
        if number and dag_id in measured and "nothing" in measured:
            more = measured[dag_id].cpu.copy()
            more.subtract(measured["nothing"].cpu)
            yield _milliseconds(f"{dag_id}, one message", more, count=windows * number)


def _milliseconds(name: str, cpu: Counter[str], *, count: int) -> str:
    cells = [f"{cpu[component] / count * 1000:.1f}" for component in COMPONENTS]
    return f"| {name} | {' | '.join(cells)} | {cpu.total() / count * 1000:.1f} |"


def row(dag_id: str, measured: Mapping[str, Figures], *, windows: int, faults: tuple[int, int]) -> str:
    """Return a line of the table."""
    figures = measured[dag_id]
    others = ("nothing", _BY_HAND.get(dag_id, ""))
    ratios = [ratio for other in others for ratio in _ratios(figures, measured.get(other))]
    requests_per_window = sum(figures.requests.values()) / windows
    cells = [dag_id, *ratios, figures.workers, f"{requests_per_window:.2f}", "" if dag_id in _MESSAGES else faults]
    return "| " + " | ".join(map(str, cells)) + " |"


def _ratios(figures: Figures, baseline: Figures | None) -> tuple[str, str]:
    if baseline is None:
        return "", ""
    return f"{figures.wall / baseline.wall:.2f}", f"{figures.cpu.total() / baseline.cpu.total():.2f}"


def measure_backfill(
    bench: Bench, dag_id: str, *, windows: int, period: timedelta = DAY, max_active_runs: int = 16
) -> Figures:
    """Backfill a number of days, or of other periods; return the cost."""
    bench.release(dag_id, flow_id=flow_of(dag_id))
    workers, earlier_requests, cpu = workers_ended(bench), requests(bench, dag_id), processor_seconds(bench)
    begin = time.monotonic()
    bench.airflow.create_backfill(
        dag_id, from_date=FIRST, to_date=FIRST + (windows - 1) * period, max_active_runs=max_active_runs
    )
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


def ledger_faults(bench: Bench, dag_id: str, *, windows: int, period: timedelta = DAY) -> tuple[int, int]:
    """Return the numbers of missing and of duplicated records, after the last flow runs have ended."""
    begin = FIRST - period

    def faults() -> tuple[int, int]:
        ledger = bench.emulator.ledger(flow_id=flow_of(dag_id), start=begin, end=begin + windows * period)
        return ledger["missing"], ledger["duplicated"]

    if dag_id not in _MESSAGES:
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
            own, ended = times.user + times.system, times.children_user + times.children_system
            if (title := _title(process)).startswith("airflow worker -- LocalExecutor"):
                total["supervisors"] += own
                total["tasks"] += ended
            else:
                total["tasks" if title.startswith("airflow worker") else name] += own + ended
    return total


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    main()
