# SPDX-License-Identifier: Apache-2.0
"""Tests of the local Airflow: backfills, network addresses, error messages and cleanup."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest

from airflow_flowservice.demo.local_airflow import LocalAirflow
from airflow_flowservice.demo.processes import LocalAirflowError, Supervisor, inherited_environment
from airflow_flowservice.demo.scenario import BackfillDates

_SLEEP_WITH_CHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
_PARENT = """
import os, signal, sys, time
from pathlib import Path
from airflow_flowservice.demo.processes import Supervisor
for number in (signal.SIGTERM, signal.SIGHUP):  # the caller may ignore them, for example with nohup
    signal.signal(number, signal.SIG_DFL)
folder = Path(sys.argv[1])
with Supervisor(log_folder=folder) as supervisor:
    supervisor.remove_at_end(folder)
    child = supervisor.start("sleeper", [sys.executable, "-c", sys.argv[2]], env=os.environ, cwd=folder)
    print(child.pid, flush=True)
    time.sleep(600)
"""


def _listening(processes: Iterable[psutil.Process]) -> set[str]:
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="inet")
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # The process has ended, or Airflow hides it from other processes of the same user.
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN:
                found.add(str(connection.laddr[0]))
    return found


def _has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_listens_on_loopback_only(airflow: LocalAirflow) -> None:
    """No component and none of its child processes listens on a network address."""
    processes = [process for members in airflow.processes.values() for process in members]

    assert {"127.0.0.1"} == _listening(processes)


def test_folders_are_inside_home(airflow: LocalAirflow) -> None:
    """All folders that Airflow writes are inside its home."""
    folders = {key: value for key, value in airflow.environment.items() if key.endswith(("_FOLDER", "_PATH", "_HOME"))}
    folders.pop("AIRFLOW__CORE__DAGS_FOLDER")
    paths = {key: Path(value) for key, value in folders.items() if key.startswith("AIRFLOW")}

    assert paths
    assert all(path.is_relative_to(airflow.home) for path in paths.values())


def test_caller_settings_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children do not inherit ``AIRFLOW*`` variables, and they use no proxy for loopback."""
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "True")
    monkeypatch.setenv("AIRFLOW_CONN_MINE", "http://example.invalid")
    monkeypatch.setenv("NO_PROXY", "intranet")

    env = inherited_environment()

    assert [] == [key for key in env if key.startswith("AIRFLOW")]
    assert "intranet,127.0.0.1,localhost" == env["NO_PROXY"]


def test_airflow_lists_this_provider(airflow: LocalAirflow) -> None:
    """The command ``airflow providers list`` shows the package."""
    listed = airflow.cli("providers", "list", "--output", "plain")

    assert 0 == listed.returncode
    assert "airflow-flowservice" in listed.stdout


def test_backfills_deferred_tasks(airflow: LocalAirflow) -> None:
    """A backfill runs every logical date once. XComs and logs of the tasks can be read."""
    dates = BackfillDates.past(2, now=datetime.now(timezone.utc))
    airflow.wait_for_dag("e2e_plain", timeout=240)
    airflow.unpause("e2e_plain")

    airflow.create_backfill("e2e_plain", from_date=dates.first, to_date=dates.last, run_backwards=True)
    runs = airflow.wait_for_runs("e2e_plain", count=2, run_type="backfill")

    assert ["success", "success"] == [run["state"] for run in runs]
    run_id = runs[0]["dag_run_id"]
    assert {"wait", "answer"} == {task["task_id"] for task in airflow.task_instances("e2e_plain", run_id)}
    assert {"number": 42} == airflow.xcom("e2e_plain", run_id, "answer", "return_value")
    assert airflow.xcom("e2e_plain", run_id, "answer", "no such key") is None
    assert "the number is 42" in airflow.task_log("e2e_plain", run_id, "answer")


def test_import_errors_are_reported(airflow: LocalAirflow, dags_folder: Path) -> None:
    """If a DAG file cannot be imported, ``wait_for_dag`` immediately raises an error with file and cause."""
    broken = dags_folder / "e2e_broken.py"
    broken.write_text("import airflow\nraise RuntimeError('this DAG file is broken')\n")
    try:
        with pytest.raises(LocalAirflowError) as caught:
            airflow.wait_for_dag("e2e_broken", timeout=240)
    finally:
        broken.unlink()

    assert "e2e_broken.py" in str(caught.value)
    assert "this DAG file is broken" in str(caught.value)


def test_killed_component_can_be_restarted(airflow: LocalAirflow) -> None:
    """A kill ends a component and its child processes. The component can then be started again."""
    victims = airflow.processes["triggerer-1"]

    airflow.kill("triggerer-1")

    assert all(_has_ended(process.pid) for process in victims)
    assert "triggerer-1" not in airflow.processes
    airflow.start("triggerer-1")
    airflow.wait_healthy(timeout=400)


def test_ended_child_is_reported_with_log(tmp_path: Path) -> None:
    """If a child ends during a wait, the error contains its status and the end of its log."""
    with Supervisor(log_folder=tmp_path) as supervisor:
        supervisor.start("failing", [sys.executable, "-c", "exit('last line')"], env=os.environ, cwd=tmp_path)

        with pytest.raises(LocalAirflowError, match=r"(?s)failing ended with status 1.*last line"):
            supervisor.wait_until(lambda: None, timeout=30, what="nothing", log="failing")


def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    """Stopping a child also ends its child processes."""
    with Supervisor(log_folder=tmp_path) as supervisor:
        command = [sys.executable, "-c", _SLEEP_WITH_CHILD]
        child = supervisor.start("sleeper", command, env=os.environ, cwd=tmp_path)
        grandchild = supervisor.wait_until(
            lambda: psutil.Process(child.pid).children(), timeout=30, what="a grandchild", log="sleeper"
        )[0]

    assert _has_ended(child.pid)
    assert _has_ended(grandchild.pid)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_guard_cleans_up_after_killed_parent(tmp_path: Path, signal_number: signal.Signals) -> None:
    """If the parent is killed, the guard ends the children and removes the folder."""
    folder = tmp_path / "home"
    folder.mkdir()
    command = [sys.executable, "-c", _PARENT, str(folder), _SLEEP_WITH_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.send_signal(signal_number)

    with Supervisor(log_folder=tmp_path / "logs") as supervisor:
        supervisor.wait_until(
            lambda: _has_ended(child) and not folder.exists(), timeout=30, what="the guard", log="guard"
        )


def test_backfill_dates_are_in_the_past() -> None:
    """The demo's windows end before today and before the run that the scheduler creates."""
    now = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))

    dates = BackfillDates.past(7, now=now)

    assert datetime(2026, 2, 27, tzinfo=timezone.utc) == dates.last == dates.windows_end
    assert datetime(2026, 2, 21, tzinfo=timezone.utc) == dates.first
    assert datetime(2026, 2, 20, tzinfo=timezone.utc) == dates.windows_start
    assert 7 == dates.count
