# SPDX-License-Identifier: Apache-2.0
"""Backfill a thousand windows while Flow Service fails and Airflow's components are killed every minute.

`python benchmarks/soak.py` starts an Airflow with two schedulers and two triggerers on PostgreSQL, and an emulated
Flow Service. From a seed, one in five POSTs fails in one of ten ways, and one in a hundred requests expires all tokens.
Every minute the script kills a component with all its processes and starts it again five seconds later. It never kills
the second triggerer, so that it can measure the memory of that triggerer.

The script prints the counts. The exit status is 1 unless all windows are ingested exactly once and no DAG run failed.
It takes at most half an hour (`--minutes`).

With `--celery` it uses the CeleryExecutor with two Celery workers and a separate Redis. This needs
apache-airflow-providers-celery, redis, and a `redis-server` on the PATH.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import cycle
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from uuid import NAMESPACE_URL, uuid5

import psutil
from real_airflow import Bench, real_airflow

from airflow_flowservice.demo.postgres import free_port
from airflow_flowservice.demo.processes import Supervisor, inherited_environment
from airflow_flowservice.emulator.faults import POST_FAULTS

DAG_ID = "soak"
FLOW_ID = str(uuid5(NAMESPACE_URL, DAG_ID))
HOUR = timedelta(hours=1)
FIRST = datetime(2026, 1, 1, 1, tzinfo=timezone.utc)
DAG_FILE = f'''
from datetime import timedelta
import pendulum
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

with DAG(
    dag_id="{DAG_ID}",
    schedule="@hourly",
    start_date=pendulum.datetime(2025, 12, 1, tz="UTC"),
    end_date=pendulum.datetime(2026, 6, 1, tz="UTC"),
    catchup=False,
    max_active_runs=24,
    default_args={{"retries": 30, "retry_delay": timedelta(seconds=2)}},
):
    OnDemandFlowRunOperator(
        task_id="ingest", flow_id="{FLOW_ID}", wait_for_completion=True, deferrable=True,
        poll_interval=2, uncertain_patience=20,
    )
'''
# Short timeouts, so that Airflow detects killed components within seconds instead of minutes.
CONFIG = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
}
MEASURED_TRIGGERER = "triggerer-2"
NEVER_KILLED = (MEASURED_TRIGGERER, "api-server", "dag-processor")


@dataclass
class Record:
    """Kills and memory samples during the backfill.

    :param resident: minutes since the start, with the resident memory of the measured triggerer in MiB.
    """

    kills: Counter[str] = field(default_factory=Counter)
    resident: list[tuple[float, float]] = field(default_factory=list)

    def growth(self) -> float:
        """Return the ratio of the median memory in the last quarter of the time to the second quarter."""
        last = self.resident[-1][0] if self.resident else 0.0
        early = [size for minute, size in self.resident if last / 4 <= minute <= last / 2]
        late = [size for minute, size in self.resident if minute >= last * 3 / 4]
        return median(late) / median(early) if early and late else float("nan")


def main() -> None:
    """Run the backfill and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=28)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--celery", action="store_true")
    options = parser.parse_args()
    with executor(celery=options.celery) as (config, more):
        bench_of = real_airflow(
            DAG_FILE,
            config={**CONFIG, **config},
            connection={"timeout_s": 3},
            run_seconds=3,
            triggerers=2,
            more=("scheduler-2", *more),
        )
        with bench_of as bench:
            sys.exit(not soak(bench, windows=options.windows, minutes=options.minutes, seed=options.seed))


def soak(bench: Bench, *, windows: int, minutes: float, seed: int) -> bool:
    """Backfill under faults; return whether all windows are ingested exactly once and all DAG runs succeeded."""
    bench.release(DAG_ID, flow_id=FLOW_ID)
    for number, fault in enumerate(POST_FAULTS):
        bench.post_to_emulator("faults", **fault, share=0.02, seed=seed + number)
    bench.post_to_emulator("faults", kind="*", action="expire_tokens", share=0.01, seed=seed)
    last = FIRST + (windows - 1) * HOUR
    bench.airflow.create_backfill(DAG_ID, from_date=FIRST, to_date=last, max_active_runs=24)
    begin, is_over, record = time.monotonic(), threading.Event(), Record()
    sampler = threading.Thread(target=sample_memory, args=(bench, record, begin, is_over), daemon=True)
    sampler.start()
    states = kill_until_over(bench, record, windows=windows, deadline=begin + 60 * minutes)
    duration_s = time.monotonic() - begin
    is_over.set()
    sampler.join()
    ledger = bench.emulator.ledger(flow_id=FLOW_ID, start=FIRST - HOUR, end=last)
    faulty: Counter[str] = Counter()
    for fault in bench.post_to_emulator("faults", method="GET")["faults"]:
        faulty[f"{fault['action']} {fault['status']}"] += fault["struck"]
    print(f"DAG runs: {dict(states)} of {windows} in {duration_s / 60:.1f} minutes")
    print(f"killed: {dict(record.kills)}")
    print(f"requests with faults: {dict(faulty)}")
    print(f"flow runs: {len(ledger['runs'])}; missing {ledger['missing']}, duplicated {ledger['duplicated']}")
    print(f"requests: {ledger['requests']}")
    samples = len(record.resident)
    print(f"memory of {MEASURED_TRIGGERER}: last quarter / second quarter = {record.growth():.3f} ({samples} samples)")
    return states == {"success": windows} and (ledger["missing"], ledger["duplicated"]) == (0, 0)


def kill_until_over(bench: Bench, record: Record, *, windows: int, deadline: float) -> Counter[str]:
    """Kill a component every minute until all DAG runs have ended or the deadline passes; return the runs' states."""
    victims = cycle(name for name in bench.airflow.components if name not in NEVER_KILLED)
    while time.monotonic() < deadline:
        next_kill = time.monotonic() + 60
        while time.monotonic() < min(next_kill, deadline):
            states = Counter(run["state"] for run in bench.airflow.dag_runs(DAG_ID))
            if states["success"] + states["failed"] >= windows:
                return states
            time.sleep(5)
        name = next(victims)
        bench.airflow.kill(name)
        record.kills[name] += 1
        time.sleep(5)
        bench.airflow.start(name)
        print(f"{dict(states)}; {name} was killed", flush=True)
    return Counter(run["state"] for run in bench.airflow.dag_runs(DAG_ID))


def sample_memory(bench: Bench, record: Record, begin: float, is_over: threading.Event) -> None:
    """Sample the memory of the measured triggerer every five seconds."""
    leader = psutil.Process(bench.airflow.supervisor.children[MEASURED_TRIGGERER].pid)
    while not is_over.wait(5):
        size = sum(process.memory_info().rss for process in (leader, *leader.children(recursive=True)))
        record.resident.append(((time.monotonic() - begin) / 60, size / 2**20))


@contextmanager
def executor(*, celery: bool) -> Iterator[tuple[dict[str, str], tuple[str, ...]]]:
    """Provide the configuration of the executor and the names of its additional components."""
    if not celery:
        yield {}, ()
        return
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("No redis-server was found. Install Debian's package redis-server.")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, Supervisor(log_folder=Path(folder)) as children:
        port = free_port()
        command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder, "--save", ""]
        children.start("redis", command, env=inherited_environment(), cwd=Path(folder))
        config = {
            "AIRFLOW__CORE__EXECUTOR": "airflow.providers.celery.executors.celery_executor.CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"redis://127.0.0.1:{port}/1",
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            # After this many seconds, Celery sends the task of a killed worker to another worker.
            "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "60",
        }
        yield config, ("worker-1", "worker-2")


if __name__ == "__main__":
    main()
