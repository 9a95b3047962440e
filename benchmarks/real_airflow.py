"""A real Airflow beside an emulated Flow Service, for the benchmarks that need both."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from airflow_flowservice.demo.emulator import EmulatedFlowService, start_emulator
from airflow_flowservice.demo.local_airflow import LocalAirflow
from airflow_flowservice.demo.processes import Supervisor


@dataclass(frozen=True)
class Bench:
    """Both of them, running."""

    airflow: LocalAirflow
    emulator: EmulatedFlowService

    def tell(self, path: str, *, method: str = "POST", **fields: Any) -> Any:
        """Tell the emulator something on its own routes."""
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, f"{self.emulator.url}/_emulator/{path}", json=fields, timeout=60)
            answer.raise_for_status()
            return answer.json()

    def release(self, dag_id: str, *, flow_id: str) -> None:
        """Make the dataflow that a DAG ingests from, and let the scheduler run the DAG."""
        self.tell("flows", id=flow_id, name=dag_id, kind="file")
        self.airflow.wait_for_dag(dag_id)
        self.airflow.unpause(dag_id)


@contextmanager
def real_airflow(
    dag_file: str,
    *,
    config: Mapping[str, str],
    connection: Mapping[str, Any] | None = None,
    run_seconds: float,
    triggerers: int = 1,
    more: Sequence[str] = (),
) -> Iterator[Bench]:
    """Start both in a folder of their own, which is removed at the end.

    :param dag_file: the text of a DAG file.
    :param connection: what differs from the emulator's own connection's extra.
    :param run_seconds: how long the emulator's flow runs are in progress.
    """
    with tempfile.TemporaryDirectory(prefix="flowservice-benchmark-", ignore_cleanup_errors=True) as folder:
        home, dags = Path(folder) / "airflow", Path(folder) / "dags"
        home.mkdir()
        dags.mkdir()
        (dags / "benchmark.py").write_text(dag_file)
        with Supervisor(log_folder=Path(folder)) as children:
            options = {"--queue-seconds": "0.3", "--run-seconds": str(run_seconds)}
            emulator = start_emulator(children, cwd=Path(folder), options=options)
            known = emulator.connection
            known["extra"] |= connection or {}
            with LocalAirflow(
                home=home,
                dags_folder=dags,
                connections={"flowservice_default": known},
                config=config,
                triggerers=triggerers,
                more=more,
            ) as airflow:
                airflow.wait_healthy()
                yield Bench(airflow=airflow, emulator=emulator)
