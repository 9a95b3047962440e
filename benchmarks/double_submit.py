# SPDX-License-Identifier: Apache-2.0
"""Compare the flow runs created by this package with those created by a POST with retries, for the same faults.

`python benchmarks/double_submit.py` simulates one task per window against an emulator of Flow Service on loopback,
once for each method. One in five POSTs fails in one of ten ways. Some workers die after the POST and before they store
the run's id. Some tasks start again although they succeeded, as Airflow sometimes does. All faults are drawn from
`--seed`, so the table is the same each time.

The naive task uses `requests` with urllib3's `Retry` on 429 and 5xx, and Airflow retries it.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from time import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.emulator import Emulator, Settings, running_emulator
from airflow_flowservice.emulator.faults import POST_FAULTS
from airflow_flowservice.emulator.settings import FILE_FLOW_ID
from airflow_flowservice.runs.create_once import CreateOnce
from airflow_flowservice.runs.intent import Attempt, Order
from airflow_flowservice.windows.window import IngestionWindow

FIRST = datetime(2026, 1, 1, tzinfo=timezone.utc)
RETRIES = 5
TIMEOUT_S = 1.0
Task = Callable[[int], None]


class WorkerDiedError(BaseException):
    """Simulates the death of the worker process; a BaseException, so that no handler of the task catches it."""


@dataclass(frozen=True, kw_only=True)
class TaskFaults:
    """Window of a task and the faults of its workers.

    :param worker_dies: the first worker dies after the POST and before it stores the run's id.
    :param started_twice: the task starts again after it succeeded.
    """

    window: IngestionWindow
    worker_dies: bool
    started_twice: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """Counts from the emulator's ledger; `duplicated` and `missing` count windows."""

    posts: int
    runs: int
    duplicated: int
    missing: int
    failed_tasks: int


@dataclass
class SimulatedTime:
    """Clock for tasks that do not really sleep; the emulator's clock can be advanced."""

    ahead: float = 0.0
    waited: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def monotonic(self) -> float:
        return self.waited

    def emulator_time(self) -> float:
        return time() + self.ahead


@dataclass
class Store:
    """Storage that outlives an attempt; the worker may die before it stores the run's id."""

    values: dict[str, Any] = field(default_factory=dict)
    worker_dies: bool = False

    def get(self, key: str, /) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, /) -> None:
        if self.worker_dies and value["flow_run_id"]:
            raise WorkerDiedError
        self.values[key] = value

    def delete(self, key: str, /) -> None:
        self.values.pop(key, None)


def main() -> int:
    """Print the table; return 1 if this package missed or duplicated a window, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200, help="number of windows (default: 200)")
    parser.add_argument("--seed", type=int, default=3, help="seed of the faults (default: 3)")
    options = parser.parse_args()
    logging.disable()  # the client logs a warning for each lost response
    tasks = list(draw_faults(options.windows, random.Random(options.seed)))
    results = {
        "POST with retries": simulate(naive, tasks, seed=options.seed),
        "airflow_flowservice": simulate(with_create_once, tasks, seed=options.seed),
    }
    sys.stdout.write(table(tasks, results))
    package = results["airflow_flowservice"]
    return int((package.runs, package.duplicated, package.missing) != (options.windows, 0, 0))


def draw_faults(count: int, generator: random.Random) -> Iterator[TaskFaults]:
    """Yield the faults of each task: one in twenty workers dies, one in thirty tasks starts twice."""
    for number in range(count):
        begin = FIRST + number * timedelta(hours=1)
        yield TaskFaults(
            window=IngestionWindow(begin, begin + timedelta(hours=1)),
            worker_dies=generator.random() < 1 / 20,
            started_twice=generator.random() < 1 / 30,
        )


def simulate(
    make_task: Callable[[Emulator, SimulatedTime, TaskFaults], Task], tasks: Sequence[TaskFaults], *, seed: int
) -> Result:
    """Run a task for each window against a new emulator; return the counts of its ledger."""
    clock = SimulatedTime()
    with running_emulator(Settings(queue_s=0.0, run_s=0.0), clock=clock.emulator_time) as emulator:
        for fault in POST_FAULTS:
            emulator.plan_fault(share=0.2 / len(POST_FAULTS), seed=seed, **fault)
        failed = sum(not task_succeeds(make_task(emulator, clock, faults), faults) for faults in tasks)
        clock.ahead = 3600.0
        return result(emulator, tasks, failed_tasks=failed)


def task_succeeds(task: Task, faults: TaskFaults) -> bool:
    """Run attempts as Airflow's scheduler would; return whether each start of the task succeeded."""
    numbers = iter(range(1, 2 * (RETRIES + 1)))
    starts = 2 if faults.started_twice else 1
    return all(any(attempt_succeeds(task, number) for number in islice(numbers, RETRIES + 1)) for _ in range(starts))


def attempt_succeeds(task: Task, number: int) -> bool:
    """Return whether an attempt succeeded."""
    try:
        task(number)
    except (WorkerDiedError, Exception):
        return False
    return True


def result(emulator: Emulator, tasks: Sequence[TaskFaults], *, failed_tasks: int) -> Result:
    """Return the counts of the emulator's ledger."""
    ledger = emulator.ledger()
    ingested = ledger["flows"][FILE_FLOW_ID]["runs"]
    times = Counter(f"{run['window_start']}/{run['window_end']}" for run in ingested)
    return Result(
        posts=ledger["requests"]["POST /runs"],
        runs=len(ingested),
        duplicated=sum(count > 1 for count in times.values()),
        missing=sum(str(faults.window) not in times for faults in tasks),
        failed_tasks=failed_tasks,
    )


def naive(emulator: Emulator, _: SimulatedTime, faults: TaskFaults) -> Task:
    """Return a task that repeats the POST on 429, 5xx and broken connections."""

    def attempt(number: int) -> None:
        with session_of(emulator) as session:
            now = int(datetime.now(timezone.utc).timestamp())
            begin, end = (int(edge.timestamp()) for edge in (faults.window.start, faults.window.end))
            params = {"startTime": str(now), "windowStartTime": str(begin), "windowEndTime": str(end)}
            response = session.post(
                f"{emulator.url}/data/foundation/flowservice/runs",
                json={"flowId": FILE_FLOW_ID, "params": params},
                timeout=TIMEOUT_S,
            )
            response.raise_for_status()
            if faults.worker_dies and number == 1:
                raise WorkerDiedError
            response.json()["items"][0]["id"]

    return attempt


@contextmanager
def session_of(emulator: Emulator) -> Iterator[requests.Session]:
    """Create a session with an access token that retries all requests."""
    settings = emulator.settings
    retry = Retry(total=5, status_forcelist=(429, 500, 502, 503, 504), allowed_methods=None, backoff_factor=0.01)
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", HTTPAdapter(max_retries=retry))
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": settings.client_secret,
            "scope": "openid,AdobeID",
        }
        token = session.post(f"{emulator.url}/ims/token/v3", data=form, timeout=TIMEOUT_S).json()["access_token"]
        session.headers.update(
            {
                "Authorization": f"Bearer {token}",
                "x-api-key": settings.client_id,
                "x-gw-ims-org-id": settings.org_id,
                "x-sandbox-name": settings.sandbox,
            }
        )
        yield session


def with_create_once(emulator: Emulator, clock: SimulatedTime, faults: TaskFaults) -> Task:
    """Return a task that uses `CreateOnce` with the client, as the operator does."""
    store = Store()
    settings = emulator.settings

    def attempt(number: int) -> None:
        with FlowServiceClient(
            base_url=emulator.url,
            ims_url=emulator.url,
            client_id=settings.client_id,
            client_secret=settings.client_secret,
            org_id=settings.org_id,
            timeout_s=TIMEOUT_S,
            pause=clock.sleep,
        ) as client:
            store.worker_dies = faults.worker_dies and number == 1
            create_once = CreateOnce(
                service=client,
                store=store,
                attempt=Attempt(try_number=number, max_tries=2 * RETRIES, retries=2 * RETRIES),
                clock_offset=lambda: client.clock_offset,
                sleep=clock.sleep,
                monotonic=clock.monotonic,
            )
            create_once(Order(flow_id=FILE_FLOW_ID, window=faults.window))

    return attempt


def table(tasks: Sequence[TaskFaults], results: dict[str, Result]) -> str:
    """Return the results as a table."""
    columns = ("windows", "POSTs", "flow runs", "duplicated", "missing", "failed tasks")
    lines = [
        f"{sum(task.worker_dies for task in tasks)} workers die after the POST, "
        f"{sum(task.started_twice for task in tasks)} tasks start twice, one in five POSTs fails.",
        "",
        "".join([f"{'':22}", *(f"{name:>14}" for name in columns)]),
    ]
    for name, each in results.items():
        row = (len(tasks), each.posts, each.runs, each.duplicated, each.missing, each.failed_tasks)
        lines.append("".join([f"{name:22}", *(f"{number:>14,}" for number in row)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
