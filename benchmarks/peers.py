# SPDX-License-Identifier: Apache-2.0
"""Compare this package with the providers of dbt Cloud, Databricks, Airbyte and Fivetran.

It needs an environment with the packages of `peers.txt`. `python benchmarks/peers.py` prints three tables and takes
about fifteen minutes:

- Waiting: N triggers wait in one event loop with the same poll interval. The classes are those of the providers.
- Duplicated runs: an operator runs twice, because its first attempt lost the response to its POST or its worker died.
- Import time of the operator's module, beside Airflow's own classes.

The providers poll a service on loopback over TLS (`peer_service.py`); this package polls its emulator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

from double_submit import SimulatedTime, TaskFaults, WorkerDiedError, with_create_once
from imports import AIRFLOW_ONLY, measure_import
from peer_service import Runs, running_service
from waiting import EMULATOR, create_runs, lateness, request_count
from waiting import client_of as emulator_client

POLL_S = 5.0
STEADY_S = 40.0
OURS = "airflow_flowservice"
LONG_S = 7 * 86400.0
FAULTS = ("none", "response lost", "killed before it stored the id", "killed while it waited")


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A provider.

    :param distribution: name of the package on the index.
    :param imports: statement that a DAG file uses.
    :param trigger: return a trigger for the id of a run.
    :param operator: return an operator that waits on a worker.
    :param submit: class path and name of the method that starts a run.
    """

    distribution: str
    imports: str
    trigger: Callable[[int], Any]
    operator: Callable[[], Any]
    submit: str


def dbt_trigger(run_id: int) -> Any:
    """Return a trigger of dbt Cloud."""
    from airflow.providers.dbt.cloud.triggers.dbt import DbtCloudRunJobTrigger

    return DbtCloudRunJobTrigger(
        conn_id="dbt", run_id=run_id, end_time=time.time() + LONG_S, poll_interval=POLL_S, account_id=1
    )


def dbt_operator(**arguments: Any) -> Any:
    """Return an operator of dbt Cloud."""
    from airflow.providers.dbt.cloud.operators.dbt import DbtCloudRunJobOperator

    return DbtCloudRunJobOperator(
        task_id="t",
        dbt_cloud_conn_id="dbt",
        account_id=1,
        job_id=1,
        trigger_reason="test",
        check_interval=1,
        **arguments,
    )


def databricks_trigger(run_id: int) -> Any:
    """Return a trigger of Databricks."""
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    return DatabricksExecutionTrigger(
        run_id=run_id, databricks_conn_id="databricks", polling_period_seconds=int(POLL_S), run_page_url="page"
    )


def databricks_operator(**arguments: Any) -> Any:
    """Return an operator of Databricks."""
    from airflow.providers.databricks.operators.databricks import DatabricksSubmitRunOperator

    return DatabricksSubmitRunOperator(
        task_id="t",
        databricks_conn_id="databricks",
        json={"run_name": "run", "notebook_task": {"notebook_path": "/x"}},
        polling_period_seconds=1,
        databricks_retry_limit=1,
        **arguments,
    )


def airbyte_trigger(run_id: int) -> Any:
    """Return a trigger of Airbyte."""
    from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger

    return AirbyteSyncTrigger(job_id=run_id, conn_id="airbyte", end_time=time.time() + LONG_S, poll_interval=POLL_S)


def airbyte_operator() -> Any:
    """Return an operator of Airbyte."""
    from airflow.providers.airbyte.operators.airbyte import AirbyteTriggerSyncOperator

    return AirbyteTriggerSyncOperator(task_id="t", airbyte_conn_id="airbyte", connection_id="c", wait_seconds=1)


def fivetran_trigger(run_id: int) -> Any:
    """Return a trigger of Fivetran."""
    import pendulum
    from fivetran_provider_async.triggers import FivetranTrigger

    return FivetranTrigger(
        task_id="t",
        connector_id=f"connector{run_id}",
        fivetran_conn_id="fivetran",
        previous_completed_at=pendulum.datetime(2020, 1, 1),
        poke_interval=POLL_S,
    )


def fivetran_operator() -> Any:
    """Return an operator of Fivetran."""
    from fivetran_provider_async.operators import FivetranOperator

    return FivetranOperator(
        task_id="t", connector_id="connector1", fivetran_conn_id="fivetran", poll_frequency=1, deferrable=False
    )


def _peer(distribution: str, module: str, name: str, trigger: Any, operator: Any, submit: str) -> Peer:
    imports = f"from {module} import {name}"
    return Peer(distribution=distribution, imports=imports, trigger=trigger, operator=operator, submit=submit)


PEERS = {
    "dbt Cloud": _peer(
        "apache-airflow-providers-dbt-cloud",
        "airflow.providers.dbt.cloud.operators.dbt",
        "DbtCloudRunJobOperator",
        dbt_trigger,
        dbt_operator,
        "airflow.providers.dbt.cloud.hooks.dbt.DbtCloudHook.trigger_job_run",
    ),
    "Databricks": _peer(
        "apache-airflow-providers-databricks",
        "airflow.providers.databricks.operators.databricks",
        "DatabricksSubmitRunOperator",
        databricks_trigger,
        databricks_operator,
        "airflow.providers.databricks.hooks.databricks.DatabricksHook.submit_run",
    ),
    "Airbyte": _peer(
        "apache-airflow-providers-airbyte",
        "airflow.providers.airbyte.operators.airbyte",
        "AirbyteTriggerSyncOperator",
        airbyte_trigger,
        airbyte_operator,
        "airflow.providers.airbyte.hooks.airbyte.AirbyteHook.submit_sync_connection",
    ),
    "Fivetran": _peer(
        "airflow-provider-fivetran-async",
        "fivetran_provider_async.operators",
        "FivetranOperator",
        fivetran_trigger,
        fivetran_operator,
        "fivetran_provider_async.hooks.FivetranHook.start_fivetran_sync",
    ),
}
# What the providers offer against duplicated runs, if the DAG asks for it.
OPTIONS = {
    "dbt Cloud, reuse_existing_run": ("dbt Cloud", lambda: dbt_operator(reuse_existing_run=True)),
    "Databricks, idempotency_token": ("Databricks", lambda: databricks_operator(idempotency_token="dag-run")),
}


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiters", type=int, default=100, help="number of triggers (default: 100)")
    parser.add_argument("--turns", type=int, default=7, help="import processes for each package (default: 7)")
    options = parser.parse_args()
    for name in ("apache-airflow", *(peer.distribution for peer in PEERS.values())):
        print(f"{name} {version(name)}")
    print_waiting(options.waiters)
    print_duplicates()
    print_imports(options.turns)


def print_waiting(waiters: int) -> None:
    """Print the cost of waiting."""
    print(f"\n{waiters} waiting, poll every {POLL_S:.0f} s")
    print(f"{'':32}{'requests/min':>14}{'CPU s/min':>11}{'KiB/waiter':>12}{'late ms':>9}{'CPU ratio':>11}")
    ours = child("waiting", OURS, waiters)
    for name in (OURS, *PEERS):
        found = ours if name == OURS else child("waiting", name, waiters)
        row = f"{found['requests']:14,.0f}{found['cpu']:11.2f}{found['memory']:12,.1f}{found['late']:9,.0f}"
        print(f"{name:32}{row}{found['cpu'] / ours['cpu']:11.1f}", flush=True)


def print_duplicates() -> None:
    """Print the runs that exist after the attempts of one task."""
    print("\nRuns of one task")
    print(f"{'':32}" + "".join(f"{fault:>32}" for fault in FAULTS))
    for name in (OURS, *PEERS, *OPTIONS):
        runs = [child("duplicates", name, number)["runs"] for number in range(len(FAULTS))]
        print(f"{name:32}" + "".join(f"{count:32.0f}" for count in runs), flush=True)


def print_imports(turns: int) -> None:
    """Print the processor time of imports as a ratio to Airflow's own classes."""
    print("\nImport time, processor time as a ratio to Airflow's own classes, and modules added")
    statements = {"": AIRFLOW_ONLY, OURS: f"{AIRFLOW_ONLY}\nfrom {OURS}.operators import OnDemandFlowRunOperator"}
    statements |= {name: f"{AIRFLOW_ONLY}\n{peer.imports}" for name, peer in PEERS.items()}
    with tempfile.TemporaryDirectory() as home:
        found = {name: [] for name in statements}
        for _ in range(turns):
            for name, statement in statements.items():
                found[name].append(measure_import(statement, home))
    base = median(spent for spent, _, _ in found[""])
    for name, rows in found.items():
        if name:
            ratio = median(spent for spent, _, _ in rows) / base
            print(f"{name:32}{ratio:8.2f}{rows[-1][2] - found[''][-1][2]:8,}", flush=True)


def child(kind: str, name: str, number: int) -> dict[str, float]:
    """Measure in a new process with its own Airflow home, against a new service."""
    with tempfile.TemporaryDirectory() as folder, service(name, Path(folder)) as environment:
        figures = Path(folder, "figures.json")
        command = [sys.executable, __file__, kind, name, str(number), str(figures)]
        fresh = {"AIRFLOW_HOME": folder, "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL"}
        process = subprocess.Popen(
            command,
            env={**os.environ, **fresh, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, errors = process.communicate(timeout=900)
        if process.returncode:
            sys.exit(f"{' '.join(command)}\n{errors[-3000:]}")
        return dict(json.loads(figures.read_text()))


@contextmanager
def service(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run the service of a package; yield the environment variables of its clients."""
    if name == OURS:
        emulator = subprocess.Popen(
            [sys.executable, *EMULATOR, "--run-seconds", "3600"], stdout=subprocess.PIPE, text=True
        )
        try:
            yield {"PEER_ADDRESS": str(emulator.stdout and emulator.stdout.readline()).split()[-1].strip()}
        finally:
            emulator.terminate()
            emulator.wait()
        return
    with running_service(folder) as (_, address, certificate):
        yield connections(address, certificate)


def connections(address: str, certificate: Path) -> dict[str, str]:
    """Return the environment variables with the connections of all providers."""
    host, port = address.split(":")
    found = {
        "DBT": {"conn_type": "dbt_cloud", "host": address, "login": "1", "password": "x"},
        "DATABRICKS": {
            "conn_type": "databricks",
            "host": host,
            "port": int(port),
            "schema": "https",
            "password": "x",
        },
        "AIRBYTE": {"conn_type": "airbyte", "host": f"https://{address}/airbyte"},
        "FIVETRAN": {"conn_type": "fivetran", "login": "key", "password": "secret"},
    }
    trusted = {"SSL_CERT_FILE": str(certificate), "REQUESTS_CA_BUNDLE": str(certificate), "NO_PROXY": "127.0.0.1"}
    return {
        "PEER_ADDRESS": address,
        **trusted,
        **{f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in found.items()},
    }


async def waiting(name: str, waiters: int) -> dict[str, float]:
    """Wait with N triggers; return requests and processor seconds a minute, memory, and the loop's delay in ms."""
    import psutil

    address = os.environ["PEER_ADDRESS"]
    triggers, count = prepare(name, waiters, address)
    _, idle = await lateness(STEADY_S / 4)
    process = psutil.Process()
    before = process.memory_info().rss
    spread = random.Random(1)
    tasks = [asyncio.ensure_future(first_event(make, spread.uniform(0, POLL_S))) for make in triggers]
    await asyncio.sleep(3 * POLL_S)
    memory, earlier, begin = process.memory_info().rss, count(), time.monotonic()
    late, busy = await lateness(STEADY_S)
    minutes = (time.monotonic() - begin) / 60
    requests = (count() - earlier) / minutes
    ended = [task for task in tasks if task.done()]
    if ended:
        raise SystemExit(f"{len(ended)} of {waiters} triggers ended early: {ended[0].result()}")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "requests": requests,
        "cpu": busy - idle,
        "memory": (memory - before) / 1024 / waiters,
        "late": late * 1000,
    }


async def first_event(make: Callable[[], Any], delay: float) -> Any:
    """Return the first event of a trigger that starts after a delay in seconds."""
    await asyncio.sleep(delay)
    async for event in make().run():
        return event
    return None


def prepare(name: str, waiters: int, address: str) -> tuple[list[Callable[[], Any]], Callable[[], int]]:
    """Return functions that make the triggers, and one that returns the number of requests so far."""
    if name == OURS:
        return prepare_ours(waiters, address)
    use_address(address)
    import requests

    def count() -> int:
        response = requests.get(f"https://{address}/count", timeout=60)
        return int(response.json()["requests"])

    from airflow.providers_manager import ProvidersManager

    _ = ProvidersManager().hooks  # loaded before the measurement, as in a triggerer
    peer = PEERS[name]
    peer.trigger(1)  # imported before the measurement
    return [lambda number=number: peer.trigger(number) for number in range(1, waiters + 1)], count


def prepare_ours(waiters: int, url: str) -> tuple[list[Callable[[], Any]], Callable[[], int]]:
    """Return the same for this package, whose flow runs the emulator has."""
    from airflow_flowservice.triggers import FlowRunTrigger

    extra = {"org_id": "EMULATOR@AdobeOrg", "ims_url": url}
    value = {"conn_type": "flowservice", "host": url, "login": "emulator-client", "password": "emulator-secret"}
    os.environ["AIRFLOW_CONN_FLOWSERVICE_DEFAULT"] = json.dumps({**value, "extra": extra})
    ids = create_runs(emulator_client(url), waiters)
    triggers = [lambda run=run: FlowRunTrigger(flow_run_id=run, poll_interval=POLL_S) for run in ids]
    return triggers, lambda: request_count(url)


def use_address(address: str) -> None:
    """Direct Fivetran's hook, which has a fixed host, to the service."""
    from fivetran_provider_async.hooks import FivetranHook

    FivetranHook.api_host = address


class Store(dict[str, Any]):
    """Task state store of Airflow 3.3 that outlives the attempts."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""
        self[key] = value


def duplicates(name: str, fault: str) -> dict[str, float]:
    """Run the attempts of one task; return the number of runs that exist then."""
    if name == OURS:
        return {"runs": our_runs(fault)}
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as (runs, address, certificate):
        os.environ.update(connections(address, certificate))
        use_address(address)
        peer, make = OPTIONS[name] if name in OPTIONS else (name, PEERS[name].operator)
        instance = mock.MagicMock(try_number=1, stats_tags={})
        context = {"task_state_store": Store(), "ti": instance, "run_id": "run", "dag": None, "params": {}}
        runs.lost = int(fault == FAULTS[1])
        for number in range(3):
            instance.try_number = number + 1
            if attempt(make(), PEERS[peer].submit, context, fault=FAULTS[0] if number else fault, runs=runs):
                break
        return {"runs": len(runs.ids)}


def attempt(operator: Any, submit: str, context: dict[str, Any], *, fault: str, runs: Runs) -> bool:
    """Execute an operator once; return whether it succeeded. A run ends when an attempt waits for it."""
    module, _, name = submit.rpartition(".")
    module, _, owner = module.rpartition(".")
    hook = getattr(sys.modules[module], owner)
    original = getattr(hook, name)

    def submits(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        if fault == FAULTS[2]:
            raise WorkerDiedError
        return found

    def waits(_: float) -> None:
        if fault == FAULTS[3]:
            raise WorkerDiedError
        runs.ended = True

    with (
        mock.patch.object(hook, name, submits),
        mock.patch.object(time, "sleep", waits),
        # Fivetran's operator imports the function itself.
        mock.patch("fivetran_provider_async.operators.sleep", waits),
    ):
        return executes(operator, context)


def executes(operator: Any, context: dict[str, Any]) -> bool:
    """Return whether the operator's `execute` returned."""
    try:
        operator.execute(context)
    except (WorkerDiedError, Exception) as error:
        print(f"attempt failed: {error!r}", file=sys.stderr)
        return False
    return True


def our_runs(fault: str) -> int:
    """Return the number of flow runs after the same faults with this package."""
    from datetime import datetime, timedelta, timezone

    from airflow_flowservice.emulator import Settings, running_emulator
    from airflow_flowservice.emulator.settings import FILE_FLOW_ID
    from airflow_flowservice.windows.window import IngestionWindow

    begin, clock = datetime(2026, 1, 1, tzinfo=timezone.utc), SimulatedTime()
    window = IngestionWindow(begin, begin + timedelta(hours=1))
    with running_emulator(Settings(queue_s=0.0, run_s=0.0), clock=clock.emulator_time) as emulator:
        if fault == FAULTS[1]:
            emulator.plan_fault(kind="POST /runs", action="record_and_close", times=1)
        dies = fault == FAULTS[2]
        task = with_create_once(
            emulator, clock, TaskFaults(window=window, worker_dies=dies, started_twice=fault == FAULTS[3])
        )
        for number in (1, 2):
            try:
                task(number)
            except WorkerDiedError:
                continue
            if fault != FAULTS[3]:
                break
        clock.ahead = 3600.0
        return len(emulator.ledger()["flows"][FILE_FLOW_ID]["runs"])


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] in ("waiting", "duplicates"):
        kind, name, number, figures = sys.argv[1:]
        found = asyncio.run(waiting(name, int(number))) if kind == "waiting" else duplicates(name, FAULTS[int(number)])
        Path(figures).write_text(json.dumps(found))
    else:
        main()
