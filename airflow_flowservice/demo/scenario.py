# SPDX-License-Identifier: Apache-2.0
"""Steps of the demo: start Flow Service and Airflow, backfill past days, and check the ledger."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from threading import Event

import requests
from rich.console import Console

import airflow_flowservice
from airflow_flowservice.demo.emulator import TABLE_FLOW, EmulatedFlowService, start_emulator
from airflow_flowservice.demo.local_airflow import LocalAirflow
from airflow_flowservice.demo.processes import LocalAirflowError, Supervisor
from airflow_flowservice.demo.progress import DemoProgress
from airflow_flowservice.demo.report import LedgerResult, WindowRow, print_report, window_row

_DAG_ID = "flowservice_daily"
_TASK_ID = "ingest"
_DAY = timedelta(days=1)
_LOG_LINES = 15


@dataclass(frozen=True)
class BackfillDates:
    """Logical dates of the backfill: every midnight UTC from ``first`` to ``last``, both inclusive."""

    first: datetime
    last: datetime

    @classmethod
    def past(cls, days: int, *, now: datetime) -> BackfillDates:
        """Return the last ``days`` dates before today. The scheduler creates today's run after unpausing."""
        today = now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        return cls(first=today - days * _DAY, last=today - _DAY)

    @property
    def windows_start(self) -> datetime:
        """Return the start of the first window. The DAG run with logical date D ingests the day before D."""
        return self.first - _DAY

    @property
    def windows_end(self) -> datetime:
        """Return the end of the last window."""
        return self.last

    @property
    def count(self) -> int:
        """Return the number of DAG runs."""
        return (self.last - self.first) // _DAY + 1


def run_demo(*, days: int, keep: bool) -> int:
    """Run the demo, print the report and return the exit status."""
    console = Console() if Console().is_terminal else Console(width=110)
    dates = BackfillDates.past(days, now=datetime.now(timezone.utc))
    home = Path(tempfile.mkdtemp(prefix="flowservice-demo-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            return _run(stack, console=console, home=home, dates=dates, keep=keep)
        except (LocalAirflowError, requests.RequestException) as error:
            console.print(f"The demo failed: {error}", markup=False, highlight=False, style="red")
            return 1


def example_dags() -> Path:
    """Return the folder of the example DAGs: inside the package in a wheel, beside it in a checkout.

    :raises LocalAirflowError: neither folder contains the example DAG.
    """
    package = Path(airflow_flowservice.__file__).parent
    folders = [package / "dags_examples", package.parent / "dags_examples"]
    for folder in folders:
        if (folder / f"{_DAG_ID}.py").exists():
            return folder
    raise LocalAirflowError(f"There is no {_DAG_ID}.py in {' or '.join(map(str, folders))}. Reinstall the package.")


def _run(stack: ExitStack, *, console: Console, home: Path, dates: BackfillDates, keep: bool) -> int:
    with DemoProgress(console=console) as progress:
        airflow, emulator = _start(stack, home=home, progress=progress)
        rows = _backfill(airflow, dates=dates, progress=progress)
    result = _ledger_result(emulator, dates=dates)
    print_report(console, rows=rows, result=result)
    if keep:
        _keep_open(console, airflow)
    all_succeeded = len(rows) == dates.count and all(row.succeeded for row in rows)
    return 0 if result.is_exactly_once and all_succeeded else 1


def _start(stack: ExitStack, *, home: Path, progress: DemoProgress) -> tuple[LocalAirflow, EmulatedFlowService]:
    progress.start_phase("Flow Service (emulator)")
    dags = home / "dags"
    shutil.copytree(example_dags(), dags, ignore=shutil.ignore_patterns("__pycache__"))
    supervisor = stack.enter_context(Supervisor(log_folder=home / "logs"))
    supervisor.remove_at_end(home)
    emulator = start_emulator(supervisor, cwd=home, options={"--run-seconds": "2"})
    airflow = LocalAirflow(
        home=home,
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection},
        remove_home=True,
        progress=progress.start_phase,
    )
    stack.enter_context(airflow)
    airflow.wait_healthy()
    airflow.wait_for_dag(_DAG_ID)
    return airflow, emulator


def _backfill(airflow: LocalAirflow, *, dates: BackfillDates, progress: DemoProgress) -> list[WindowRow]:
    days = f"{dates.first:%Y-%m-%d} to {dates.last:%Y-%m-%d}"
    progress.start_phase(f"airflow backfill create, {days}")
    airflow.unpause(_DAG_ID)
    airflow.create_backfill(_DAG_ID, from_date=dates.first, to_date=dates.last)
    progress.start_phase(f"{dates.count} DAG runs, one for each window", steps=dates.count)
    runs = airflow.wait_for_runs(
        _DAG_ID, count=dates.count, timeout=120 + 10 * dates.count, run_type="backfill", progress=progress.show_runs
    )
    rows = []
    for run in runs:
        row = window_row(run=run, flow_run=airflow.xcom(_DAG_ID, run["dag_run_id"], _TASK_ID, "flow_run"))
        rows.append(row if row.succeeded else replace(row, log=_log_end(airflow, run_id=run["dag_run_id"])))
    return rows


def _log_end(airflow: LocalAirflow, *, run_id: str) -> str:
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(_DAG_ID, run_id)}
    text = airflow.task_log(_DAG_ID, run_id, _TASK_ID, tries[_TASK_ID])
    return "\n".join(text.splitlines()[-_LOG_LINES:])


def _ledger_result(emulator: EmulatedFlowService, *, dates: BackfillDates) -> LedgerResult:
    ledger = emulator.ledger(flow_id=TABLE_FLOW, start=dates.windows_start, end=dates.windows_end)
    return LedgerResult(missing=ledger["missing"], duplicated=ledger["duplicated"])


def _ui_path() -> str:
    """Return the path of the page with the windows, or the page of the DAG before Airflow 3.1."""
    from airflow_flowservice._airflow import versions

    return "/plugin/flowservice" if versions.supports_plugin_pages() else f"/dags/{_DAG_ID}"


def _keep_open(console: Console, airflow: LocalAirflow) -> None:
    console.print(f"\nAirflow is running at {airflow.address}{_ui_path()}", highlight=False)
    console.print(f"Login: {airflow.login.username}, password: {airflow.login.password}", markup=False)
    console.print("Press Ctrl-C to stop Airflow and to remove all its files.")
    try:
        Event().wait()
    except KeyboardInterrupt:
        console.print("Stopping ...")
