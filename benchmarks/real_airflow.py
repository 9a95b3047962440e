# SPDX-License-Identifier: Apache-2.0
"""Start a real Airflow and an emulated Flow Service for the benchmarks that need both."""

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
    """Running Airflow and running emulator."""

    airflow: LocalAirflow
    emulator: EmulatedFlowService

    def post_to_emulator(self, path: str, *, method: str = "POST", **fields: Any) -> Any:
        """Send a request to a control route of the emulator; return the JSON of the response."""
        with requests.Session() as session:
            session.trust_env = False
            response = session.request(method, f"{self.emulator.url}/_emulator/{path}", json=fields, timeout=60)
            response.raise_for_status()
            return response.json()

    def release(self, dag_id: str, *, flow_id: str) -> None:
        """Create the dataflow of a DAG in the emulator, and unpause the DAG."""
        self.post_to_emulator("flows", id=flow_id, name=dag_id, kind="file")
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
    """Start both in a temporary folder, which is removed at the end.

    :param dag_file: source code of a DAG file.
    :param config: environment variables of Airflow.
    :param connection: fields of the connection's extra that override the emulator's defaults.
    :param run_seconds: seconds that a flow run of the emulator is in progress.
    :param triggerers: number of triggerers.
    :param more: additional components of Airflow.
    """
    with tempfile.TemporaryDirectory(prefix="flowservice-benchmark-", ignore_cleanup_errors=True) as folder:
        home, dags = Path(folder) / "airflow", Path(folder) / "dags"
        home.mkdir()
        dags.mkdir()
        (dags / "benchmark.py").write_text(dag_file)
        with Supervisor(log_folder=Path(folder)) as children:
            options = {"--queue-seconds": "0.3", "--run-seconds": str(run_seconds)}
            emulator = start_emulator(children, cwd=Path(folder), options=options)
            emulator_connection = emulator.connection
            emulator_connection["extra"] |= connection or {}
            with LocalAirflow(
                home=home,
                dags_folder=dags,
                connections={"flowservice_default": emulator_connection},
                config=config,
                triggerers=triggerers,
                more=more,
            ) as airflow:
                airflow.wait_healthy()
                yield Bench(airflow=airflow, emulator=emulator)
