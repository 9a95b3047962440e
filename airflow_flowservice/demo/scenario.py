"""The demo's story: start Flow Service and Airflow, backfill past days, compare with the ledger."""

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
from airflow_flowservice.demo.progress import Phases
from airflow_flowservice.demo.report import Row, Verdict, row_of, show

_DAG_ID = "flowservice_daily"
_TASK_ID = "ingest"
_DAY = timedelta(days=1)
_LOG_LINES = 15


@dataclass(frozen=True)
class Dates:
    """The runs to backfill: one a day, from ``first`` to ``last``, midnights in UTC, both inclusive."""

    first: datetime
    last: datetime

    @classmethod
    def past(cls, days: int, *, now: datetime) -> Dates:
        """The last ``days`` runs before today's, which the scheduler makes itself on unpausing."""
        today = now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        return cls(first=today - days * _DAY, last=today - _DAY)

    @property
    def windows_start(self) -> datetime:
        """Where the first window begins: the run dated D ingests the day before D."""
        return self.first - _DAY

    @property
    def windows_end(self) -> datetime:
        """Where the last window ends."""
        return self.last

    @property
    def count(self) -> int:
        """How many runs there are."""
        return (self.last - self.first) // _DAY + 1


def run_demo(*, days: int, keep: bool) -> int:
    """Play the story and print what happened; the exit status."""
    console = Console() if Console().is_terminal else Console(width=110)
    dates = Dates.past(days, now=datetime.now(timezone.utc))
    home = Path(tempfile.mkdtemp(prefix="flowservice-demo-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        try:
            return _play(stack, console=console, home=home, dates=dates, keep=keep)
        except (LocalAirflowError, requests.RequestException) as error:
            console.print(f"The demo failed: {error}", markup=False, highlight=False, style="red")
            return 1


def example_dags() -> Path:
    """The folder of the example DAGs: inside the package in a wheel, beside it in a checkout.

    :raises LocalAirflowError: neither is there.
    """
    package = Path(airflow_flowservice.__file__).parent
    places = [package / "dags_examples", package.parent / "dags_examples"]
    for place in places:
        if (place / f"{_DAG_ID}.py").exists():
            return place
    raise LocalAirflowError(f"no {_DAG_ID}.py in {' or '.join(map(str, places))}: reinstall the package")


def _play(stack: ExitStack, *, console: Console, home: Path, dates: Dates, keep: bool) -> int:
    with Phases(console=console) as phases:
        airflow, emulator = _start(stack, home=home, phases=phases)
        rows = _backfill(airflow, dates=dates, phases=phases)
    verdict = _verdict(emulator, dates=dates)
    show(console, rows=rows, verdict=verdict)
    if keep:
        _keep(console, airflow)
    return 0 if verdict.good and len(rows) == dates.count and all(row.succeeded for row in rows) else 1


def _start(stack: ExitStack, *, home: Path, phases: Phases) -> tuple[LocalAirflow, EmulatedFlowService]:
    phases.phase("Flow Service (emulator)")
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
        progress=phases.phase,
    )
    stack.enter_context(airflow)
    airflow.wait_healthy()
    airflow.wait_for_dag(_DAG_ID)
    return airflow, emulator


def _backfill(airflow: LocalAirflow, *, dates: Dates, phases: Phases) -> list[Row]:
    days = f"{dates.first:%Y-%m-%d} to {dates.last:%Y-%m-%d}"
    phases.phase(f"airflow backfill create, {days}")
    airflow.unpause(_DAG_ID)
    airflow.create_backfill(_DAG_ID, from_date=dates.first, to_date=dates.last)
    phases.phase(f"{dates.count} DAG runs, each ingests its window", steps=dates.count)
    runs = airflow.wait_for_runs(
        _DAG_ID, count=dates.count, timeout=120 + 10 * dates.count, run_type="backfill", progress=phases.runs
    )
    rows = []
    for run in runs:
        row = row_of(run=run, flow_run=airflow.xcom(_DAG_ID, run["dag_run_id"], _TASK_ID, "flow_run"))
        rows.append(row if row.succeeded else replace(row, log=_log_end(airflow, run_id=run["dag_run_id"])))
    return rows


def _log_end(airflow: LocalAirflow, *, run_id: str) -> str:
    tries = {task["task_id"]: task["try_number"] for task in airflow.task_instances(_DAG_ID, run_id)}
    text = airflow.task_log(_DAG_ID, run_id, _TASK_ID, tries[_TASK_ID])
    return "\n".join(text.splitlines()[-_LOG_LINES:])


def _verdict(emulator: EmulatedFlowService, *, dates: Dates) -> Verdict:
    account = emulator.ledger(flow_id=TABLE_FLOW, start=dates.windows_start, end=dates.windows_end)
    return Verdict(missing=account["missing"], duplicated=account["duplicated"])


def _place_to_look() -> str:
    """The page with the windows; before Airflow 3.1 there is none, and the DAG's page has to do."""
    from airflow_flowservice._airflow import versions

    return "/plugin/flowservice" if versions.shows_pages() else f"/dags/{_DAG_ID}"


def _keep(console: Console, airflow: LocalAirflow) -> None:
    console.print(f"\nAirflow is open at {airflow.address}{_place_to_look()}", highlight=False)
    console.print(f"Login: {airflow.login.username}, password: {airflow.login.password}", markup=False)
    console.print("Ctrl-C ends it and removes everything.")
    try:
        Event().wait()
    except KeyboardInterrupt:
        console.print("Stopping ...")
