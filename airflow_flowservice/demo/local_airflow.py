# SPDX-License-Identifier: Apache-2.0
"""Local Airflow in a separate folder. All its processes and files can be removed at the end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import psutil
import requests

from airflow_flowservice.demo.configuration import Login, environment
from airflow_flowservice.demo.guard import session_processes
from airflow_flowservice.demo.postgres import EmbeddedPostgres, free_port
from airflow_flowservice.demo.processes import LocalAirflowError, Supervisor, python_module
from airflow_flowservice.demo.rest import AirflowRest, format_iso, log_text, run_path

_T = TypeVar("_T")
_FINAL_STATES = frozenset({"success", "failed"})


class LocalAirflow:
    """Airflow with the LocalExecutor on an embedded PostgreSQL. Use it as a context manager.

    :param home: an existing folder for all files that Airflow writes.
    :param dags_folder: folder of the DAG files. Airflow finds new files within seconds.
    :param connections: fields of each connection, by connection id: ``conn_type``, ``host``, ``login``,
        ``password``, ``extra``, ...
    :param config: values by ``AIRFLOW__SECTION__KEY``. They replace the defaults of this class.
    :param triggerers: number of triggerers.
    :param more: additional components, such as ``scheduler-2``, or ``worker-1`` of the CeleryExecutor.
    :param remove_home: remove ``home`` at the end, even if this process is killed.
    :param progress: function that is called with the name of each phase when it starts.

    Entering the context starts all processes. :meth:`wait_healthy` waits until they are healthy. The processes
    are ``postgres``, ``api-server``, ``scheduler``, ``dag-processor``, ``triggerer-1``, ... All of them listen
    only on 127.0.0.1.

    :raises LocalAirflowError: from any method, if a process did not start, ended early or took too long.
    """

    def __init__(
        self,
        *,
        home: Path,
        dags_folder: Path,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, str] | None = None,
        triggerers: int = 1,
        more: Sequence[str] = (),
        remove_home: bool = False,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.home = home.resolve()
        self.dags_folder = dags_folder.resolve()
        self.login = Login()
        self.address = f"http://127.0.0.1:{free_port()}"
        self.rest = AirflowRest(address=self.address, login=self.login)
        self.supervisor = Supervisor(log_folder=self.home / "logs" / "processes")
        self._connections = connections or {}
        self._config = config or {}
        self._triggerers = triggerers
        self._more = tuple(more)
        self._remove_home = remove_home
        self._progress = progress
        self._env: dict[str, str] = {}
        self._stack = ExitStack()

    def __enter__(self) -> LocalAirflow:
        with ExitStack() as stack:
            stack.enter_context(self.supervisor)
            if self._remove_home:
                self.supervisor.remove_at_end(self.home)
            self._start_database()
            for component in self.components:
                self.start(component)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def components(self) -> list[str]:
        """Return the names of Airflow's components."""
        triggerers = [f"triggerer-{number}" for number in range(1, self._triggerers + 1)]
        return ["api-server", "scheduler", "dag-processor", *triggerers, *self._more]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of Airflow's processes."""
        return dict(self._env)

    @property
    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return the running processes of each component, by component name."""
        return {name: session_processes(child.pid) for name, child in self.supervisor.children.items()}

    def start(self, component: str) -> None:
        """Start a component, for example after :meth:`kill`."""
        self.supervisor.start(component, self._command(component), env=self._env, cwd=self.home)

    def kill(self, component: str) -> None:
        """Kill a component and all its child processes with ``SIGKILL``, as in a power failure."""
        self.supervisor.kill(component)

    def logs(self, component: str, *, lines: int = 40) -> str:
        """Return the last lines of a component's output."""
        return self.supervisor.tail(component, lines=lines)

    def cli(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``airflow ARGS`` and return the completed process. The caller checks its ``returncode``.

        :param timeout: seconds.
        """
        return subprocess.run(
            python_module("airflow", *args),
            env=self._env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            start_new_session=True,
        )

    def api(self, method: str, path: str, *, json: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Call Airflow's REST API and return the JSON of the response.

        :param path: path below ``/api/v2``, with a leading slash.
        """
        return self.rest.json(method, path, body=json, params=params)

    def wait_healthy(self, *, timeout: float = 120) -> None:
        """Wait until every component reports that it is healthy.

        :param timeout: seconds.
        """
        required = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
        self._wait(
            lambda: {name for name, status in self.rest.health().items() if status == "healthy"} >= required,
            timeout=timeout,
            what=f"a healthy Airflow at {self.address}",
            log="api-server",
        )

    def wait_for_dag(self, dag_id: str, *, timeout: float = 60) -> None:
        """Wait until Airflow has parsed a DAG. If a DAG file has an import error, raise the error with its text.

        :param timeout: seconds.
        """
        self._wait(
            lambda: self._is_parsed(dag_id),
            timeout=timeout,
            what=f"the DAG {dag_id} from {self.dags_folder}",
            log="dag-processor",
        )

    def unpause(self, dag_id: str) -> None:
        """Unpause a DAG."""
        self.api("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def create_backfill(
        self,
        dag_id: str,
        *,
        from_date: datetime,
        to_date: datetime,
        max_active_runs: int | None = None,
        run_backwards: bool = False,
        reprocess_behavior: str | None = None,
    ) -> None:
        """Run ``airflow backfill create`` for the logical dates from ``from_date`` to ``to_date``, both inclusive."""
        command = ["backfill", "create", "--dag-id", dag_id]
        command += ["--from-date", format_iso(from_date), "--to-date", format_iso(to_date)]
        if max_active_runs is not None:
            command += ["--max-active-runs", str(max_active_runs)]
        if run_backwards:
            command += ["--run-backwards"]
        if reprocess_behavior is not None:
            command += ["--reprocess-behavior", reprocess_behavior]
        self._run_cli(command)

    def trigger(
        self, dag_id: str, *, logical_date: datetime | None = None, conf: Mapping[str, Any] | None = None
    ) -> str:
        """Trigger a DAG run and return its id."""
        date = None if logical_date is None else format_iso(logical_date)
        body = {"logical_date": date, "conf": dict(conf or {})}
        return str(self.api("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def dag_runs(self, dag_id: str, *, run_type: str | None = None) -> list[dict[str, Any]]:
        """Return the DAG runs of a DAG in the format of the REST API, oldest first.

        :param run_type: return only runs of this type: ``backfill``, ``scheduled``, ``manual``, ...
        """
        runs = self.rest.rows(f"/dags/{dag_id}/dagRuns", key="dag_runs", params={"order_by": "run_after"})
        return [run for run in runs if run_type in (None, run["run_type"])]

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a DAG run in the format of the REST API."""
        return self.rest.rows(f"{run_path(dag_id, run_id)}/taskInstances", key="task_instances")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, *, map_index: int = -1) -> Any:
        """Return the value of an XCom; None if there is no such XCom."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        response = self.rest.call("GET", path, params={"map_index": map_index})
        if response.status_code == 404:
            return None
        if not response.ok:
            raise LocalAirflowError(f"GET {response.url} returned status {response.status_code}: {response.text}")
        return response.json()["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """Return the log of one try of a task, with one line for each entry."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{task_id}/logs/{try_number}"
        return log_text(self.api("GET", path, params={"map_index": map_index, "full_content": True}))

    def wait_for_runs(
        self,
        dag_id: str,
        *,
        count: int,
        timeout: float = 120,
        run_type: str | None = None,
        progress: Callable[[Sequence[Mapping[str, Any]]], None] = lambda _: None,
    ) -> list[dict[str, Any]]:
        """Wait until a DAG has at least ``count`` DAG runs and all of them have ended, and return them.

        :param timeout: seconds.
        :param run_type: count only runs of this type.
        :param progress: function that is called with the DAG runs at each poll.
        """

        def ended_runs() -> list[dict[str, Any]] | None:
            runs = self.dag_runs(dag_id, run_type=run_type)
            progress(runs)
            done = [run for run in runs if run["state"] in _FINAL_STATES]
            return done if len(done) == len(runs) >= count else None

        return self._wait(ended_runs, timeout=timeout, what=f"the end of {count} DAG runs of {dag_id}", log="scheduler")

    def _start_database(self) -> None:
        self._progress("PostgreSQL")
        database = EmbeddedPostgres(folder=self.home / "postgres", supervisor=self.supervisor)
        database.start()
        self._env = environment(
            home=self.home,
            dags_folder=self.dags_folder,
            database_url=database.url(),
            port=int(self.address.rpartition(":")[2]),
            login=self.login,
            connections=self._connections,
            overrides=self._config,
        )
        self._progress("Airflow's database tables")
        self._run_cli(["db", "migrate"])
        self._progress("Airflow's components")

    def _command(self, component: str) -> list[str]:
        """Return the command line of a component."""
        name = component.rstrip("-0123456789")
        # Skip the log servers, because they listen on every address. The log files are sufficient here.
        arguments = {
            "api-server": ["api-server", "--host", "127.0.0.1", "--workers", "1"],
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "triggerer": ["triggerer", "--skip-serve-logs"],
            "worker": ["celery", "worker", "--skip-serve-logs", "--celery-hostname", component],
        }
        return python_module("airflow", *arguments.get(name, [name]))

    def _run_cli(self, command: Sequence[str]) -> None:
        done = self.cli(*command, timeout=300)
        if done.returncode:
            output = f"{done.stdout}\n{done.stderr}".strip().splitlines()[-40:]
            raise LocalAirflowError("\n".join([f"The command airflow {' '.join(command)} failed:", *output]))

    def _is_parsed(self, dag_id: str) -> bool:
        if self.rest.call("GET", f"/dags/{dag_id}").ok:
            return True
        errors = self.rest.rows("/importErrors", key="import_errors")
        if errors:
            details = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
            raise LocalAirflowError(f"Airflow cannot import these DAG files:\n{details}")
        return False

    def _wait(self, condition: Callable[[], _T | None], *, timeout: float, what: str, log: str) -> _T:
        """Wait until ``condition`` returns a true value. Ignore connection errors while the API server restarts."""

        def condition_or_none() -> _T | None:
            try:
                return condition()
            except requests.ConnectionError:
                return None

        return self.supervisor.wait_until(condition_or_none, timeout=timeout, what=what, log=log)
