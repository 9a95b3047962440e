# SPDX-License-Identifier: Apache-2.0
"""Measure how the cost of a window grows with the history of its dataflow.

`python benchmarks/growth.py` prints a table with one row for each kind of history:

- `create`: create a flow run for a dataflow with N flow runs.
- `search`: the response of the POST is lost; a retry finds the flow run among N others.
- `coverage`: compute the states of N ingested windows; the cost is that of one window.
- `earlier runs`: `window="since_last_success"` after N failed DAG runs; the cost is that of one DAG run.

Each cell is the processor time of the measuring thread as a ratio to the first cell of its row, with the requests to
Flow Service. The slope is the exponent of the growth between the first and the last cell: 0 is flat, 1 is linear. The
exit status is 1 if a slope exceeds 0.2, or if the number of requests grows. It takes about two minutes.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from statistics import median
from typing import Any
from uuid import uuid4

from airflow_flowservice._airflow.dag_coverage import coverage_of
from airflow_flowservice._airflow.dag_plan import Plan
from airflow_flowservice.api.client import FlowServiceClient
from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.coverage.cover import KnownRun
from airflow_flowservice.emulator import Emulator, Settings, running_emulator
from airflow_flowservice.emulator.creation_rules import Creation
from airflow_flowservice.emulator.settings import FILE_FLOW_ID
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.runs.create_once import CreateOnce
from airflow_flowservice.runs.intent import Attempt, Order
from airflow_flowservice.runs.since_last import last_success
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.windows.window import IngestionWindow

FIRST = datetime(2020, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MAX_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Cost of one window: processor seconds, and requests to Flow Service."""

    seconds: float
    requests: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Row:
    """Costs of one kind of history, by its size."""

    name: str
    sizes: Sequence[int]
    cells: Sequence[Cell]

    @property
    def slope(self) -> float:
        """Return the exponent of the growth."""
        ratio = self.cells[-1].seconds / self.cells[0].seconds
        return math.log(ratio) / math.log(self.sizes[-1] / self.sizes[0])

    @property
    def is_flat(self) -> bool:
        """Return whether neither the processor time nor the requests grow."""
        return self.slope <= MAX_SLOPE and self.cells[-1].requests <= self.cells[0].requests

    def __str__(self) -> str:
        cells = (
            f"{size:,}: {cell.seconds / self.cells[0].seconds:.2f}, {cell.requests:g} requests"
            for size, cell in zip(self.sizes, self.cells, strict=True)
        )
        return f"| {self.name} | {' | '.join(cells)} | {self.slope:.2f} |"


@dataclass
class Store:
    """Storage of the intent. It outlives an attempt."""

    values: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, /) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any, /) -> None:
        self.values[key] = value

    def delete(self, key: str, /) -> None:
        self.values.pop(key, None)


def main() -> int:
    """Measure and print a table; return 1 if a cost grows, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 1_000, 10_000, 100_000], help="flow runs")
    parser.add_argument("--windows", type=int, nargs="+", default=[365, 3_650, 8_760, 26_280])
    parser.add_argument("--dag-runs", type=int, nargs="+", default=[5, 50, 500])
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    logging.disable()  # the client logs a warning for each lost response
    create, search = creation_rows(options.sizes, repeat=options.repeat)
    rows = [
        create,
        search,
        Row(name="coverage", sizes=options.windows, cells=[coverage_cell(size) for size in options.windows]),
        Row(name="earlier runs", sizes=options.dag_runs, cells=[earlier_cell(size) for size in options.dag_runs]),
    ]
    for row in rows:
        print(row, flush=True)
    print(f"Largest slope: {max(row.slope for row in rows):.2f}")
    return int(not all(row.is_flat for row in rows))


def creation_rows(sizes: Sequence[int], *, repeat: int) -> tuple[Row, Row]:
    """Return the costs of creating a flow run, and of finding it after a lost response."""
    created, searched = [], []
    with running_emulator(Settings(queue_s=0.0, run_s=0.0)) as emulator, client_of(emulator) as client:
        count = 0
        for size in sizes:
            add_runs(emulator, first=count, last=size)
            count = size
            cells = [(create(emulator, client), search(emulator, client)) for _ in range(repeat)]
            created.append(median_cell([each for each, _ in cells]))
            searched.append(median_cell([each for _, each in cells]))
    return Row(name="create", sizes=sizes, cells=created), Row(name="search", sizes=sizes, cells=searched)


def median_cell(cells: Sequence[Cell]) -> Cell:
    """Return the median of each value."""
    return Cell(
        seconds=median(cell.seconds for cell in cells),
        requests=median(cell.requests for cell in cells),
    )


def add_runs(emulator: Emulator, *, first: int, last: int) -> None:
    """Add flow runs without requests, an hour each; they were created in the hours before now."""
    flow = emulator.state.flow(FILE_FLOW_ID)
    now = time.time()
    for number in range(first, last):
        start = int((FIRST + number * HOUR).timestamp())
        window = {"windowStartTime": str(start), "windowEndTime": str(start + 3600), "startTime": str(start)}
        creation = Creation(
            flow=flow,
            params=window,
            start_time=start,
            window_start=start,
            window_end=start + 3600,
            delta_column=None,
        )
        run = emulator.state.add_run(creation, client_id="another-client")
        run.created_at = run.visible_at = now - 3600.0 * (last - number)


@contextmanager
def client_of(emulator: Emulator) -> Iterator[FlowServiceClient]:
    """Open a client that has a token already."""
    settings = emulator.settings
    with FlowServiceClient(
        base_url=emulator.url,
        ims_url=emulator.url,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        org_id=settings.org_id,
        pause=lambda _: None,
    ) as client:
        client.fetch_token()
        yield client


def create(emulator: Emulator, client: FlowServiceClient) -> Cell:
    """Create a flow run in a first attempt."""
    window = next_window(emulator)
    return cost(emulator, lambda: create_once(client, Store(), number=1)(Order(flow_id=FILE_FLOW_ID, window=window)))


def search(emulator: Emulator, client: FlowServiceClient) -> Cell:
    """Lose the response of a POST, then find its flow run in a second attempt."""
    order = Order(flow_id=FILE_FLOW_ID, window=next_window(emulator))
    store = Store()

    def attempts() -> None:
        emulator.plan_fault(kind="POST /runs", action="record_and_close", times=1)
        try:
            create_once(client, store, number=1)(order)
        except FlowServiceError:
            create_once(client, store, number=2)(order)

    return cost(emulator, attempts)


def next_window(emulator: Emulator) -> IngestionWindow:
    """Return a window that no flow run has."""
    start = FIRST + len(emulator.state.runs) * HOUR
    return IngestionWindow(start, start + HOUR)


def create_once(client: FlowServiceClient, store: Store, *, number: int) -> CreateOnce:
    """Return the object with which the operator creates a flow run."""
    return CreateOnce(
        service=client,
        store=store,
        attempt=Attempt(try_number=number, max_tries=3, retries=3),
        clock_offset=lambda: client.clock_offset,
        sleep=lambda _: None,
        monotonic=time.monotonic,
    )


def cost(emulator: Emulator, function: Callable[[], object]) -> Cell:
    """Return the processor time of this thread, and the number of requests; the emulator has another thread."""
    before, used = request_count(emulator), time.thread_time()
    function()
    return Cell(seconds=time.thread_time() - used, requests=request_count(emulator) - before)


def request_count(emulator: Emulator) -> int:
    return sum(emulator.ledger()["requests"].values())


def coverage_cell(size: int) -> Cell:
    """Compute the states of hourly windows; return the cost of one."""
    from airflow.timetables.trigger import CronTriggerTimetable

    timetable: Any = CronTriggerTimetable("0 * * * *", timezone="UTC")
    windows = [IngestionWindow(FIRST + number * HOUR, FIRST + (number + 1) * HOUR) for number in range(size)]
    runs = [KnownRun(id=str(index), window=each, status=FlowRunStatus.SUCCESS) for index, each in enumerate(windows)]
    plan = Plan(dag_id="d", timetable=timetable, start=FIRST, offset=None)
    within = IngestionWindow(FIRST, windows[-1].end)
    used = time.thread_time()
    coverage_of([], ingested=runs, plans=[plan], within=within, now=within.end)
    return Cell(seconds=(time.thread_time() - used) / size)


def earlier_cell(size: int) -> Cell:
    """Find the last success behind failed DAG runs; return the cost of one of them."""
    failed = [summary("failed", number) for number in range(size)]
    read: list[str] = []

    def get_run(flow_run_id: str) -> Any:
        from airflow_flowservice.api.models import FlowRun

        read.append(flow_run_id)
        return FlowRun(id=flow_run_id, status=FlowRunStatus.FAILED)

    used = time.thread_time()
    last_success([*failed, summary("success", size)], get_run=get_run)
    return Cell(seconds=(time.thread_time() - used) / size, requests=len(read) / size)


def summary(status: str, number: int) -> FlowRunSummary:
    """Return what an earlier DAG run pushed."""
    start = FIRST - number * HOUR
    value = {
        "id": str(uuid4()),
        "flow_id": FILE_FLOW_ID,
        "status": status,
        "window_start": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "window_end": (start + HOUR).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    found = FlowRunSummary.from_json(value)
    assert found is not None
    return found


if __name__ == "__main__":
    sys.exit(main())
