# SPDX-License-Identifier: Apache-2.0
"""Measure which settings bound the duration of a backfill: one real Airflow, one backfill for each setting.

`python benchmarks/settings.py` starts an Airflow (LocalExecutor, PostgreSQL) for each value of `parallelism`, and an
emulated Flow Service whose flow runs take fifteen seconds. For each row, it backfills a DAG whose task waits in the
triggerer, and prints the wall time, the windows a minute, and the mean number of flow runs at a time. It takes about
eight minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from backfill import flow_of, ledger_faults, measure_backfill
from real_airflow import real_airflow

POOL = "eight_slots"
DAG_FILE = """
from datetime import timedelta
from uuid import NAMESPACE_URL, uuid5
import pendulum
from airflow.sdk import DAG
from airflow_flowservice.operators import OnDemandFlowRunOperator

for dag_id, poll_interval, pool in {dags!r}:
    with DAG(
        dag_id=dag_id,
        schedule="@daily",
        start_date=pendulum.datetime(2024, 12, 1, tz="UTC"),
        end_date=pendulum.datetime(2026, 6, 1, tz="UTC"),
        catchup=False,
        default_args={{"retries": 5, "retry_delay": timedelta(seconds=1)}},
    ):
        OnDemandFlowRunOperator(
            task_id="task", flow_id=str(uuid5(NAMESPACE_URL, dag_id)), pool=pool,
            wait_for_completion=True, deferrable=True, poll_interval=poll_interval,
        )
"""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Settings of one backfill.

    :param parallelism: tasks that the executor runs at a time.
    :param max_active_runs: DAG runs of the backfill at a time.
    :param poll_interval: seconds between two polls.
    :param pool: pool of the task.
    """

    parallelism: int = 4
    max_active_runs: int = 64
    poll_interval: float = 5
    pool: str = "default_pool"

    @property
    def dag_id(self) -> str:
        """Return the DAG of this setting."""
        return f"p{self.parallelism}_runs{self.max_active_runs}_poll{self.poll_interval:g}_{self.pool}"


SETTINGS = (
    Setting(),
    Setting(max_active_runs=16),
    Setting(max_active_runs=8),
    Setting(pool=POOL),
    Setting(poll_interval=30),
    Setting(parallelism=1),
    Setting(parallelism=2),
    Setting(parallelism=8),
)


def main() -> None:
    """Measure each setting and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--run-seconds", type=float, default=15, help="seconds that a flow run is in progress")
    parser.add_argument("--parallelism", type=int, nargs="+", help="only the rows with these values")
    options = parser.parse_args()
    print("| parallelism | max_active_runs | pool | poll_interval | seconds | windows a minute | flow runs at a time |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for parallelism, settings in groupby(SETTINGS, key=lambda each: each.parallelism):
        if not options.parallelism or parallelism in options.parallelism:
            for line in measure(list(settings), windows=options.windows, run_seconds=options.run_seconds):
                print(line, flush=True)


def measure(settings: Sequence[Setting], *, windows: int, run_seconds: float) -> Iterator[str]:
    """Yield a line of the table for each setting of the same parallelism."""
    dags = [("warm_up", 5, "default_pool"), *((each.dag_id, each.poll_interval, each.pool) for each in settings)]
    config = {
        "AIRFLOW__CORE__PARALLELISM": str(settings[0].parallelism),
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    }
    with real_airflow(DAG_FILE.format(dags=dags), config=config, run_seconds=run_seconds) as bench:
        done = bench.airflow.cli("pools", "set", POOL, "8", "eight", "--include-deferred")
        if done.returncode:
            raise SystemExit(done.stderr)
        measure_backfill(bench, "warm_up", windows=4)
        for each in settings:
            figures = measure_backfill(bench, each.dag_id, windows=windows, max_active_runs=each.max_active_runs)
            faults = ledger_faults(bench, each.dag_id, windows=windows)
            if faults != (0, 0) or figures.succeeded != windows:
                raise SystemExit(f"{each.dag_id} of {flow_of(each.dag_id)}: missing, duplicated {faults}: {figures}")
            cells = (
                each.parallelism,
                each.max_active_runs,
                "8 slots" if each.pool == POOL else "",
                f"{each.poll_interval:g}",
                f"{figures.wall:.0f}",
                f"{windows / figures.wall * 60:.0f}",
                f"{windows * run_seconds / figures.wall:.1f}",
            )
            yield "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
