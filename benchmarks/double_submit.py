"""Flow runs that are left behind: this package's way of creating them beside a POST with retries, on the same faults.

`python benchmarks/double_submit.py` plays a number of tasks, one for each window, twice against an emulator of Flow
Service on loopback. One in five POSTs fails, in ten ways; some workers die between the POST and the
moment when they would have written the run's id down; some tasks are started a second time although they
succeeded, as Airflow does now and then. All of it is drawn from `--seed`, so the table is the same each time.

The naive task is what one writes first: `requests` with urllib3's `Retry` on 429 and 5xx, retried by Airflow.
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
    """The process ends here; nothing catches it."""


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What befalls the task of a window, besides the answers it gets.

    :param dies: its first worker dies after the POST, before it has written the run's id down.
    :param started_twice: it is started again after its success.
    """

    window: IngestionWindow
    dies: bool
    started_twice: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the ledger says in the end; windows are counted."""

    posts: int
    runs: int
    duplicated: int
    missing: int
    failed_tasks: int


@dataclass
class Time:
    """Waiting costs nothing here; the emulator's clock can be moved ahead."""

    ahead: float = 0.0
    waited: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.waited += seconds

    def monotonic(self) -> float:
        return self.waited

    def emulators(self) -> float:
        return time() + self.ahead


@dataclass
class Store:
    """What Airflow keeps beyond an attempt; its worker may die before it writes the run's id."""

    values: dict[str, Any] = field(default_factory=dict)
    dies: bool = False

    def get(self, key: str, /) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, /) -> None:
        if self.dies and value["flow_run_id"]:
            raise WorkerDiedError
        self.values[key] = value

    def delete(self, key: str, /) -> None:
        self.values.pop(key, None)


def main() -> int:
    """Print the table; the exit status is 1 if this package's way missed or duplicated a window."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--seed", type=int, default=3, help="of all that goes wrong (default: 3)")
    asked = parser.parse_args()
    logging.disable()  # it warns of each lost answer
    fates = list(draw(asked.windows, random.Random(asked.seed)))
    results = {
        "POST with retries": play(naive, fates, seed=asked.seed),
        "airflow_flowservice": play(ours, fates, seed=asked.seed),
    }
    sys.stdout.write(table(fates, results))
    mine = results["airflow_flowservice"]
    return int((mine.runs, mine.duplicated, mine.missing) != (asked.windows, 0, 0))


def draw(count: int, dice: random.Random) -> Iterator[Fate]:
    """One in twenty workers dies, and one in thirty tasks is started twice."""
    for number in range(count):
        begin = FIRST + number * timedelta(hours=1)
        yield Fate(
            window=IngestionWindow(begin, begin + timedelta(hours=1)),
            dies=dice.random() < 1 / 20,
            started_twice=dice.random() < 1 / 30,
        )


def play(make_task: Callable[[Emulator, Time, Fate], Task], fates: Sequence[Fate], *, seed: int) -> Result:
    """Run a task for each window against an emulator of its own, then read the ledger."""
    clock = Time()
    with running_emulator(Settings(queue_s=0.0, run_s=0.0), clock=clock.emulators) as emulator:
        for way in POST_FAULTS:
            emulator.plan_fault(share=0.2 / len(POST_FAULTS), seed=seed, **way)
        failed = sum(not succeeds(make_task(emulator, clock, fate), fate) for fate in fates)
        clock.ahead = 3600.0
        return result(emulator, fates, failed_tasks=failed)


def succeeds(task: Task, fate: Fate) -> bool:
    """Attempt after attempt, as Airflow's scheduler would start them."""
    numbers = iter(range(1, 2 * (RETRIES + 1)))
    starts = 2 if fate.started_twice else 1
    return all(any(attempt_succeeds(task, number) for number in islice(numbers, RETRIES + 1)) for _ in range(starts))


def attempt_succeeds(task: Task, number: int) -> bool:
    """Whether an attempt ended well; another one follows if it did not."""
    try:
        task(number)
    except (WorkerDiedError, Exception):
        return False
    return True


def result(emulator: Emulator, fates: Sequence[Fate], *, failed_tasks: int) -> Result:
    """What the ledger says."""
    ledger = emulator.ledger()
    ingested = ledger["flows"][FILE_FLOW_ID]["runs"]
    times = Counter(f"{run['window_start']}/{run['window_end']}" for run in ingested)
    return Result(
        posts=ledger["requests"]["POST /runs"],
        runs=len(ingested),
        duplicated=sum(count > 1 for count in times.values()),
        missing=sum(str(fate.window) not in times for fate in fates),
        failed_tasks=failed_tasks,
    )


def naive(emulator: Emulator, _: Time, fate: Fate) -> Task:
    """A POST that is repeated on 429, 5xx and broken connections; the task returns the run's id."""

    def attempt(number: int) -> None:
        with session_of(emulator) as session:
            now = int(datetime.now(timezone.utc).timestamp())
            begin, end = (int(moment.timestamp()) for moment in (fate.window.start, fate.window.end))
            params = {"startTime": str(now), "windowStartTime": str(begin), "windowEndTime": str(end)}
            answer = session.post(
                f"{emulator.url}/data/foundation/flowservice/runs",
                json={"flowId": FILE_FLOW_ID, "params": params},
                timeout=TIMEOUT_S,
            )
            answer.raise_for_status()
            if fate.dies and number == 1:
                raise WorkerDiedError
            answer.json()["items"][0]["id"]

    return attempt


@contextmanager
def session_of(emulator: Emulator) -> Iterator[requests.Session]:
    """A session that is logged in and retries everything."""
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


def ours(emulator: Emulator, clock: Time, fate: Fate) -> Task:
    """`CreateOnce` with the client, as the operator uses them."""
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
            store.dies = fate.dies and number == 1
            create_once = CreateOnce(
                service=client,
                store=store,
                attempt=Attempt(try_number=number, max_tries=2 * RETRIES, retries=2 * RETRIES),
                clock_offset=lambda: client.clock_offset,
                sleep=clock.sleep,
                monotonic=clock.monotonic,
            )
            create_once(Order(flow_id=FILE_FLOW_ID, window=fate.window))

    return attempt


def table(fates: Sequence[Fate], results: dict[str, Result]) -> str:
    """The results side by side."""
    columns = ("windows", "POSTs", "flow runs", "duplicated", "missing", "failed tasks")
    lines = [
        f"{sum(fate.dies for fate in fates)} workers die after the POST, "
        f"{sum(fate.started_twice for fate in fates)} tasks are started twice, one in five POSTs fails.",
        "",
        "".join([f"{'':22}", *(f"{name:>14}" for name in columns)]),
    ]
    for name, each in results.items():
        row = (len(fates), each.posts, each.runs, each.duplicated, each.missing, each.failed_tasks)
        lines.append("".join([f"{name:22}", *(f"{number:>14,}" for number in row)]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
