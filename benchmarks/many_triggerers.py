# SPDX-License-Identifier: Apache-2.0
"""Simulate 100,000 waiting tasks in several triggerers, with the classes that wait in a real one.

`python benchmarks/many_triggerers.py` gives each triggerer a `Poller` with its `BatchReader`, and each task a
`RunWatch`. The flow runs, and the time, are simulated: the event loop advances its clock to the next timer instead of
sleeping, and a request takes `--latency` simulated seconds. It takes about five minutes.

All triggerers share one event loop. `processor s a minute` is that of one triggerer. `longest turn ms` is the processor
time of the longest turn of the event loop; a timer of another trigger is late by at most one turn.

The simulation has no Airflow, no HTTP and no database. So the processor time is that of the waiting itself, and says
nothing about the start and the end of the tasks. It has no rate limit: compare the requests with yours.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import selectors
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any
from uuid import UUID

from airflow_flowservice.api.flow_runs import FlowRun
from airflow_flowservice.runs.polling import Poller, wait_together
from airflow_flowservice.runs.watch import RunWatch

# Tasks begin to wait within this time. Then polls are as far apart as `poll_interval` says, and are measured.
START_S, STEADY_S, MEASURED_S = 120.0, 240.0, 60.0
# Share of the flow runs that end while it is measured.
ENDING = 0.05
COLUMNS = (
    "triggerers",
    "tasks in each",
    "requests a minute",
    "median delay",
    "95th percentile",
    "processor s a minute",
    "longest turn ms",
)


class SimulatedSelector(selectors.DefaultSelector):
    """Selector that advances a clock instead of waiting, and measures the turns of its event loop."""

    now = 0.0
    longest_turn = 0.0
    _turn_begin = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Return the events that are ready now."""
        self.longest_turn = max(self.longest_turn, time.process_time() - self._turn_begin)
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        self._turn_begin = time.process_time()
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Event loop whose time is that of its selector."""

    def __init__(self) -> None:
        self.selector = SimulatedSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        """Return the simulated time in seconds."""
        return self.selector.now


@dataclass
class SimulatedService:
    """Flow Service whose flow runs end at given times.

    :param clock: returns the simulated time.
    :param ends: time at which each flow run ends, by id; a missing one does not end.
    """

    clock: Callable[[], float]
    ends: dict[str, float]
    requests: int = field(default=0, init=False)

    def get_run(self, flow_run_id: str, /, *, within_s: float) -> FlowRun:
        """Read one flow run."""
        self.requests += 1
        return self._run(flow_run_id)

    def list_runs(self, *, ids: Iterable[str], **_: Any) -> Iterator[FlowRun]:
        """Read these flow runs."""
        self.requests += 1
        return map(self._run, ids)

    def _run(self, flow_run_id: str) -> FlowRun:
        status = "success" if self.clock() >= self.ends.get(flow_run_id, float("inf")) else "inProgress"
        metrics = {"statusSummary": {"status": status}}
        return FlowRun.parse({"id": flow_run_id, "flowId": flow_run_id, "metrics": metrics}, briefly=True)


def main() -> None:
    """Simulate each number of triggerers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--triggerers", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--poll-interval", type=float, default=30)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds of a request")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    print("| --- " * len(COLUMNS) + "|", flush=True)
    for triggerers in options.triggerers:
        loop = SimulatedLoop()
        cells = loop.run_until_complete(
            simulate(
                loop,
                tasks=options.tasks,
                triggerers=triggerers,
                poll_interval=options.poll_interval,
                latency=options.latency,
            )
        )
        loop.close()
        print(f"| {triggerers:,} | {options.tasks // triggerers:,} | {' | '.join(cells)} |", flush=True)


async def simulate(
    loop: SimulatedLoop, *, tasks: int, triggerers: int, poll_interval: float, latency: float
) -> tuple[str, ...]:
    """Let all tasks wait, and return the cells of the table."""
    randomness = random.Random(1)
    ids = [str(UUID(int=randomness.getrandbits(128), version=4)) for _ in range(tasks)]
    end = START_S + STEADY_S
    ending = {each: end + randomness.uniform(0, MEASURED_S) for each in ids[:: round(1 / ENDING)]}
    service = SimulatedService(loop.time, ending)

    async def connect() -> SimulatedService:
        return service

    async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(latency)
        return function(*arguments)

    pollers = [
        Poller(connect, in_thread=in_thread, monotonic=loop.time, sleep=asyncio.sleep) for _ in range(triggerers)
    ]
    delays: list[float] = []

    async def wait(number: int, flow_run_id: str) -> None:
        await asyncio.sleep(randomness.uniform(0, START_S))
        watch = RunWatch(flow_run_id=flow_run_id, poll_interval=poll_interval, monotonic=loop.time)
        await wait_together(watch, pollers[number % triggerers])
        delays.append(loop.time() - ending[flow_run_id])

    waiting = [loop.create_task(wait(number, each)) for number, each in enumerate(ids)]
    await asyncio.sleep(end)
    loop.selector.longest_turn = 0.0
    earlier, busy = service.requests, time.process_time()
    await asyncio.sleep(MEASURED_S)
    minutes = MEASURED_S / 60
    requests, busy = (service.requests - earlier) / minutes, (time.process_time() - busy) / minutes / triggerers
    longest_turn = loop.selector.longest_turn
    await asyncio.wait([task for task, each in zip(waiting, ids, strict=True) if each in ending])
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # The pollers end with their next timer.
    await asyncio.sleep(2 * poll_interval)
    return (
        f"{requests:,.0f}",
        f"{median(delays):.0f} s",
        f"{quantiles(delays, n=20)[-1]:.0f} s",
        f"{busy:.2f}",
        f"{longest_turn * 1000:.0f}",
    )


if __name__ == "__main__":
    main()
