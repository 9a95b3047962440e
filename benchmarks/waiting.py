# SPDX-License-Identifier: Apache-2.0
"""Compare the cost of waiting: this package's trigger and a loop with one request per flow run.

`python benchmarks/waiting.py` creates flow runs that end within ten seconds of each other, and N triggers wait for them
with a poll every five seconds. The first method is this package's trigger. The second is a loop that reads each run
separately on one pooled session, as the triggers of other providers do. Each method has its own process, event loop,
emulator and flow runs. `late ms` is the longest delay of the event loop. Of it, `idle ms` is the one before the first
trigger, which is the machine's, and `gc ms` the longest collection of Python's garbage collector. It takes about ten
minutes. Compare the ratios; the other figures depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import requests

FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"
POLL_S = 5.0
STEADY_S = 40.0
EMULATOR = ("-m", "airflow_flowservice.emulator", "--port", "0", "--queue-seconds", "0.1")
COLUMNS = ("requests/min", "CPU s/min", "KiB/waiter", "growth %", "delay s", "p95 s", "late ms", "idle ms", "gc ms")
_ROW = "{:>8} {:<10} {:>13} {:>10} {:>11} {:>9} {:>8} {:>7} {:>8} {:>8} {:>8}"
METHODS = ("together", "one by one")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiters", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of triggers")
    parser.add_argument("--alone-from", type=int, default=5000, help="number from which only the package is measured")
    options = parser.parse_args()
    print(_ROW.format("waiters", "", *COLUMNS))
    for waiters in options.waiters:
        found = {
            method: measure(method, waiters)
            for method in METHODS
            if method == METHODS[0] or waiters < options.alone_from
        }
        for method, figures in found.items():
            print(_ROW.format(waiters, method, *(f"{figures[name]:,.2f}" for name in COLUMNS)))
        if len(found) == len(METHODS):
            package, loop = (found[method] for method in METHODS)
            # The last two are of the machine and of the whole process.
            ratios = [f"{package[name] / loop[name]:.3f}" for name in COLUMNS[:-2]]
            print(_ROW.format("", "ratio", *ratios, "", ""), flush=True)


def measure(method: str, waiters: int) -> dict[str, float]:
    """Measure a method of waiting in a new process against a new emulator."""
    with tempfile.TemporaryDirectory() as folder:
        run_seconds = STEADY_S + 15 + waiters * 0.012
        emulator = subprocess.Popen(
            [sys.executable, *EMULATOR, "--run-seconds", str(run_seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            url = str(emulator.stdout and emulator.stdout.readline()).split()[-1].strip()
            command = [sys.executable, __file__, method, url, str(waiters)]
            environment = {**os.environ, "AIRFLOW_HOME": folder, "AIRFLOW__CORE__UNIT_TEST_MODE": "False"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        finally:
            emulator.terminate()
            emulator.wait()
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
        return dict(json.loads(Path(folder, "figures.json").read_text()))


def client_of(url: str) -> Any:
    """Return a client of the emulator."""
    from airflow_flowservice.api.client import FlowServiceClient

    return FlowServiceClient(
        base_url=url,
        ims_url=url,
        client_id="emulator-client",
        client_secret="emulator-secret",
        org_id="EMULATOR@AdobeOrg",
    )


def create_runs(client: Any, waiters: int) -> list[str]:
    """Create flow runs with different start times; return their ids."""
    from airflow_flowservice.windows.window import IngestionWindow

    def create(number: int) -> str:
        start = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(minutes=number)
        soon = datetime.now(timezone.utc) + timedelta(seconds=3 + number % 101 / 10)
        return str(
            client.create_run(
                flow_id=FLOW, window=IngestionWindow(start, start + timedelta(minutes=1)), start_time=soon
            ).id
        )

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(create, range(waiters)))


async def together(ids: list[str], url: str, ended: Any) -> None:
    """Wait with this package's triggers, run as Airflow's triggerer runs them."""
    from airflow_flowservice.triggers import FlowRunTrigger

    extra = {"org_id": "EMULATOR@AdobeOrg", "ims_url": url}
    os.environ["AIRFLOW_CONN_FLOWSERVICE_DEFAULT"] = json.dumps(
        {"conn_type": "flowservice", "host": url, "login": "emulator-client", "password": "emulator-secret"}
        | {"extra": extra}
    )

    async def wait(flow_run_id: str) -> None:
        async for _ in FlowRunTrigger(flow_run_id=flow_run_id, poll_interval=POLL_S).run():
            ended(flow_run_id)

    await asyncio.gather(*map(wait, ids))


async def one_by_one(ids: list[str], url: str, ended: Any) -> None:
    """Wait with one request for each flow run every five seconds."""
    client = client_of(url)

    async def wait(flow_run_id: str) -> None:
        while not (await asyncio.to_thread(client.get_run, flow_run_id)).status.ended:  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        ended(flow_run_id)

    await asyncio.gather(*map(wait, ids))


async def child(method: str, url: str, waiters: int) -> dict[str, float]:
    """Wait for all runs; measure the cost while none has ended, and the delay after each end."""
    import airflow_flowservice.triggers  # noqa: F401  both methods import the same modules

    ids = create_runs(client_of(url), waiters)
    idle_late, idle, _ = await lateness(STEADY_S / 4)
    ended_at: dict[str, float] = {}
    waiting = {"together": together, "one by one": one_by_one}[method]
    process = psutil.Process()
    before = process.memory_info().rss
    task = asyncio.ensure_future(waiting(ids, url, lambda flow_run_id: ended_at.setdefault(flow_run_id, time.time())))
    await asyncio.sleep(12)  # each trigger has polled once or twice
    full, earlier_requests, begin = process.memory_info().rss, request_count(url), time.monotonic()
    late, busy, collection = await lateness(STEADY_S)
    minutes = (time.monotonic() - begin) / 60
    figures = {
        "requests/min": (request_count(url) - earlier_requests) / minutes,
        "CPU s/min": busy - idle,
        "KiB/waiter": (full - before) / 1024 / waiters,
        "growth %": (process.memory_info().rss / full - 1) * 100,
        "late ms": late * 1000,
        "idle ms": idle_late * 1000,
        "gc ms": collection * 1000,
    }
    await task
    ends = {run.id: run.completed_at.timestamp() for run in client_of(url).list_runs(flow_id=FLOW)}
    delays = sorted(ended_at[flow_run_id] - ends[flow_run_id] for flow_run_id in ids)
    return {**figures, "delay s": median(delays), "p95 s": quantiles(delays, n=20)[-1]}


async def lateness(seconds: float) -> tuple[float, float, float]:
    """Return the maximum delay of the event loop, the processor seconds per minute, and the longest collection.

    The delay and the collection of Python's garbage collector are in seconds.
    """
    worst, begin, busy = 0.0, time.monotonic(), time.process_time()
    longest, collecting_since = 0.0, begin

    def collecting(phase: str, _: dict[str, int]) -> None:
        nonlocal longest, collecting_since
        if phase == "start":
            collecting_since = time.monotonic()
        else:
            longest = max(longest, time.monotonic() - collecting_since)

    gc.callbacks.append(collecting)
    while time.monotonic() < begin + seconds:
        turn_begin = time.monotonic()
        await asyncio.sleep(0.05)
        worst = max(worst, time.monotonic() - turn_begin - 0.05)
    gc.callbacks.remove(collecting)
    return worst, (time.process_time() - busy) * 60 / (time.monotonic() - begin), longest


def request_count(url: str) -> int:
    """Return the number of reads of flow runs that the emulator has received."""
    ledger = requests.get(f"{url}/_emulator/ledger", timeout=60).json()
    return sum(count for kind, count in ledger["requests"].items() if kind.startswith("GET /runs"))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in METHODS:
        Path(os.environ["AIRFLOW_HOME"], "figures.json").write_text(
            json.dumps(asyncio.run(child(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
        )
    else:
        main()
