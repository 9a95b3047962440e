"""A real Airflow on this machine, in a folder of its own, that leaves nothing behind."""

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
from airflow_flowservice.demo.postgres import EmbeddedPostgres, free_port
from airflow_flowservice.demo.processes import LocalAirflowError, Supervisor, family, python_module
from airflow_flowservice.demo.rest import AirflowRest, iso, log_text, run_path

T = TypeVar("T")
_FINAL = frozenset({"success", "failed"})


class LocalAirflow:
    """Airflow with LocalExecutor on an embedded PostgreSQL; use it as a context manager.

    :param home: an existing folder for everything that Airflow writes.
    :param dags_folder: the DAG files; files that are added later are found within seconds.
    :param connections: by connection id: ``conn_type``, ``host``, ``login``, ``password``, ``extra``, ...
    :param config: ``AIRFLOW__SECTION__KEY`` to value, over the defaults of this class.
    :param triggerers: how many triggerers run.
    :param more: further components, such as ``scheduler-2``, or ``worker-1`` of the CeleryExecutor.
    :param remove_home: have ``home`` removed at the end, also when this process is killed.
    :param progress: called with a line of text at the start of each phase.

    Entering starts everything and returns as soon as it runs; :meth:`wait_healthy` waits until it works.
    The components are ``postgres``, ``api-server``, ``scheduler``, ``dag-processor``, ``triggerer-1``, ...
    Everything listens on 127.0.0.1 alone.

    :raises LocalAirflowError: from any method: something did not start, died, or took too long.
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
        """The names of Airflow's own components."""
        triggerers = [f"triggerer-{number}" for number in range(1, self._triggerers + 1)]
        return ["api-server", "scheduler", "dag-processor", *triggerers, *self._more]

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of Airflow's processes."""
        return dict(self._env)

    @property
    def processes(self) -> dict[str, list[psutil.Process]]:
        """The living processes of each component, by its name."""
        return {name: family(child.pid) for name, child in self.supervisor.children.items()}

    def start(self, component: str) -> None:
        """Start a component, for example after :meth:`kill`."""
        self.supervisor.start(component, self._command(component), env=self._env, cwd=self.home)

    def kill(self, component: str) -> None:
        """Kill a component with all that it started (``SIGKILL``), as a power failure would."""
        self.supervisor.kill(component)

    def logs(self, component: str, *, lines: int = 40) -> str:
        """The last lines of a component's output."""
        return self.supervisor.tail(component, lines=lines)

    def cli(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``airflow ARGS``; the caller looks at ``returncode``, ``stdout`` and ``stderr``.

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
        """Call Airflow's REST API; the answer's JSON.

        :param path: below ``/api/v2``, with a leading slash.
        """
        return self.rest.json(method, path, body=json, params=params)

    def wait_healthy(self, *, timeout: float = 120) -> None:
        """Wait until every component reports that it is healthy.

        :param timeout: seconds.
        """
        wanted = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
        self._wait(
            lambda: {name for name, status in self.rest.health().items() if status == "healthy"} >= wanted,
            timeout=timeout,
            what=f"a healthy Airflow at {self.address}",
            log="api-server",
        )

    def wait_for_dag(self, dag_id: str, *, timeout: float = 60) -> None:
        """Wait until a DAG is parsed; import errors are raised with their text.

        :param timeout: seconds.
        """
        self._wait(
            lambda: self._parsed(dag_id),
            timeout=timeout,
            what=f"the DAG {dag_id} from {self.dags_folder}",
            log="dag-processor",
        )

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run a DAG."""
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
        """Run ``airflow backfill create`` for the runs from ``from_date`` to ``to_date``, both inclusive."""
        command = ["backfill", "create", "--dag-id", dag_id]
        command += ["--from-date", iso(from_date), "--to-date", iso(to_date)]
        if max_active_runs is not None:
            command += ["--max-active-runs", str(max_active_runs)]
        if run_backwards:
            command += ["--run-backwards"]
        if reprocess_behavior is not None:
            command += ["--reprocess-behavior", reprocess_behavior]
        self._checked(command)

    def trigger(
        self, dag_id: str, *, logical_date: datetime | None = None, conf: Mapping[str, Any] | None = None
    ) -> str:
        """Trigger a DAG run and return its id."""
        date = None if logical_date is None else iso(logical_date)
        body = {"logical_date": date, "conf": dict(conf or {})}
        return str(self.api("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def dag_runs(self, dag_id: str, *, run_type: str | None = None) -> list[dict[str, Any]]:
        """The runs of a DAG as the REST API shows them, oldest first.

        :param run_type: only those of this type: ``backfill``, ``scheduled``, ``manual``, ...
        """
        runs = self.rest.rows(f"/dags/{dag_id}/dagRuns", key="dag_runs", params={"order_by": "run_after"})
        return [run for run in runs if run_type in (None, run["run_type"])]

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a DAG run as the REST API shows them."""
        return self.rest.rows(f"{run_path(dag_id, run_id)}/taskInstances", key="task_instances")

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str, *, map_index: int = -1) -> Any:
        """The value of an XCom; None when there is no such XCom."""
        path = f"{run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self.rest.call("GET", path, params={"map_index": map_index})
        if answer.status_code == 404:
            return None
        if not answer.ok:
            raise LocalAirflowError(f"GET {answer.url} answered {answer.status_code}: {answer.text}")
        return answer.json()["value"]

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, *, map_index: int = -1) -> str:
        """The log of one try of a task, a line for each entry."""
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
        """Wait until a DAG has at least ``count`` runs and all of them have ended; return them.

        :param timeout: seconds.
        :param run_type: count runs of this type only.
        :param progress: called with the runs at each look.
        """

        def ended() -> list[dict[str, Any]] | None:
            runs = self.dag_runs(dag_id, run_type=run_type)
            progress(runs)
            done = [run for run in runs if run["state"] in _FINAL]
            return done if len(done) == len(runs) >= count else None

        return self._wait(ended, timeout=timeout, what=f"{count} ended runs of {dag_id}", log="scheduler")

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
        self._progress("Airflow's tables")
        self._checked(["db", "migrate"])
        self._progress("Airflow's components")

    def _command(self, component: str) -> list[str]:
        """Log servers listen on every address, and files are enough here."""
        name = component.rstrip("-0123456789")
        words = {
            "api-server": ["api-server", "--host", "127.0.0.1", "--workers", "1"],
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "triggerer": ["triggerer", "--skip-serve-logs"],
            "worker": ["celery", "worker", "--skip-serve-logs", "--celery-hostname", component],
        }
        return python_module("airflow", *words.get(name, [name]))

    def _checked(self, command: Sequence[str]) -> None:
        done = self.cli(*command, timeout=300)
        if done.returncode:
            said = f"{done.stdout}\n{done.stderr}".strip().splitlines()[-40:]
            raise LocalAirflowError("\n".join([f"airflow {' '.join(command)} failed:", *said]))

    def _parsed(self, dag_id: str) -> bool:
        if self.rest.call("GET", f"/dags/{dag_id}").ok:
            return True
        errors = self.rest.rows("/importErrors", key="import_errors")
        if errors:
            shown = "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)
            raise LocalAirflowError(f"DAG files that cannot be imported:\n{shown}")
        return False

    def _wait(self, condition: Callable[[], T | None], *, timeout: float, what: str, log: str) -> T:
        """Like the supervisor's wait; an API server that is being restarted is waited for as well."""

        def patient() -> T | None:
            try:
                return condition()
            except requests.ConnectionError:
                return None

        return self.supervisor.wait_until(patient, timeout=timeout, what=what, log=log)
