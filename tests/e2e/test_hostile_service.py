# SPDX-License-Identifier: Apache-2.0
"""Poisoned and huge responses, and bad ids, on a real triggerer and PostgreSQL: each harms only its own task."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psutil
import pytest
from hostile_service import CLEANED, MIB, HostileService
from patience import wait_until

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

DAG_ID = "e2e_hostile"
INNOCENT = ("innocent_1", "innocent_2", "innocent_3")
NUL_SUCCEEDED = ("nul_success", "nul_event", "nul_operator")
BAD = ("bad_slash", "bad_length", "bad_type")
HUGE = ("huge_gzip", "huge_endless", "huge_values")
MAX_GROWTH = 256 * MIB
"""Limit of the triggerer's additional memory. Without limits of size, the smallest of the bombs takes 512 MiB."""


@dataclass
class Memory:
    """Resident memory of the triggerer's processes, measured in a thread."""

    processes: list[psutil.Process]
    sizes: list[int] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        """Return the difference of the largest size and the first, in bytes."""
        return max(self.sizes) - self.sizes[0]

    def _measure(self) -> None:
        while not self._stopped.is_set():
            with suppress(psutil.NoSuchProcess):
                self.sizes.append(sum(process.memory_info().rss for process in self.processes))
            self._stopped.wait(0.1)


@dataclass(frozen=True)
class Ended:
    """The ended DAG run: states of its tasks before and after the end of the innocent flow runs."""

    run_id: str
    service: HostileService
    requests: list[bytes]
    before: dict[str, str]
    after: dict[str, str]
    memory: Memory


@pytest.fixture(scope="module")
def ended(airflow: LocalAirflow) -> Iterator[Ended]:
    """Run the DAG. The innocent flow runs end after all other tasks have ended."""
    service = HostileService()
    with service.server(time_limit=900) as server, Memory(airflow.processes["triggerer-1"]) as memory:
        _create_connection(airflow, server.url)
        airflow.wait_for_dag(DAG_ID, timeout=240)
        airflow.unpause(DAG_ID)
        run_id = airflow.trigger(DAG_ID)

        def states() -> dict[str, str]:
            return {each["task_id"]: each["state"] for each in airflow.task_instances(DAG_ID, run_id)}

        before = wait_until(
            lambda: found if _has_only_innocents_left(found := states()) else None,
            what="the end of all tasks except the innocent ones",
        )
        polls = service.reads["innocent_1"]
        wait_until(lambda: service.reads["innocent_1"] > polls + 1, what="further polls of an innocent flow run")
        service.released.set()
        airflow.wait_for_runs(DAG_ID, count=1)
        yield Ended(run_id, service, server.requests, before, states(), memory)


def test_each_task_ends_as_its_own_flow_run(ended: Ended) -> None:
    """A poisoned success succeeds. A failed run, a bad id and a huge response fail their own task only."""
    expected = {
        **dict.fromkeys((*INNOCENT, *NUL_SUCCEEDED), "success"),
        **dict.fromkeys(("nul_failed", *BAD, *HUGE), "failed"),
    }
    assert expected == ended.after
    assert dict.fromkeys(INNOCENT, "deferred") == {name: ended.before[name] for name in INNOCENT}


def test_the_triggerer_lives(airflow: LocalAirflow, ended: Ended) -> None:
    """The processes of the triggerer are the same as before, and Airflow reports it as healthy."""
    before = {process.pid for process in ended.memory.processes}
    assert before <= {process.pid for process in airflow.processes["triggerer-1"]}
    assert all(process.is_running() for process in ended.memory.processes)
    assert "healthy" == airflow.rest.health()["triggerer"]
    assert "has died" not in airflow.supervisor.log_file("triggerer-1").read_text()


def test_memory_of_the_triggerer_is_bounded(ended: Ended) -> None:
    assert len(ended.memory.sizes) > 50
    assert ended.memory.growth < MAX_GROWTH, f"{ended.memory.growth / MIB:.0f} MiB"


def test_huge_responses_were_read_together_with_innocent_runs(ended: Ended) -> None:
    """The huge responses reached requests that also named innocent flow runs."""
    lists = [request for request in ended.requests if b"innocent_1" in request]
    for name in HUGE:
        assert ended.service.reads[name] > 3
        assert any(name.encode() in request for request in lists), name


def test_bad_ids_are_never_requested(ended: Ended) -> None:
    """A bad id is refused before a request, so the request of other tasks does not contain it."""
    for bad in ("innocent_1/innocent_2", "x" * 201, "{'id'"):
        for text in (bad, quote(bad, safe=""), quote(bad)):
            assert not any(text.encode() in request for request in ended.requests)


@pytest.mark.parametrize("task_id", [*NUL_SUCCEEDED, "nul_failed"])
def test_poisoned_texts_are_stored_in_postgresql(task_id: str, airflow: LocalAirflow, ended: Ended) -> None:
    """The XCom of the API and the row of the database have the cleaned text."""
    flow_run = airflow.xcom(DAG_ID, ended.run_id, task_id, "flow_run")
    assert [{"code": CLEANED, "message": CLEANED}] == flow_run["errors"]
    assert task_id == flow_run["id"]
    assert flow_run == _stored_xcom(airflow, ended.run_id, task_id)
    assert task_id == airflow.xcom(DAG_ID, ended.run_id, task_id, "return_value")


@pytest.mark.parametrize(
    ("task_id", "texts"),
    [
        ("nul_failed", ("FlowRunFailedError", CLEANED)),
        *((name, ("ConfigurationError", "flow_run_id")) for name in BAD),
        ("huge_gzip", ("its body has more than 16 MiB", "flow run huge_gzip")),
        ("huge_endless", ("its body has more than 16 MiB", "flow run huge_endless")),
        ("huge_values", ("1,000,000", "flow run huge_values")),
    ],
)
def test_logs_state_the_cause(task_id: str, texts: tuple[str, ...], airflow: LocalAirflow, ended: Ended) -> None:
    """The log of a failed task has its error, and no log has control characters or a forged line."""
    files = (airflow.home / "logs" / "tasks").glob(f"dag_id={DAG_ID}/run_id=*/task_id={task_id}/*.log*")
    log = "".join(file.read_text() for file in files)
    for text in texts:
        assert text in log
    for line in log.splitlines():
        assert not any(code in line for code in ("\\u0000", "\\u001b", "\x1b", "\\ud83d"))
        assert not line.startswith("ERROR forged")


def _create_connection(airflow: LocalAirflow, url: str) -> None:
    extra = {"org_id": "HOSTILE@AdobeOrg", "sandbox": "prod", "ims_url": url, "timeout_s": 5, "max_attempts": 1}
    airflow.api(
        "POST",
        "/connections",
        json={
            "connection_id": DAG_ID,
            "conn_type": "flowservice",
            "host": url,
            "login": "client",
            "password": "made-up-secret",
            "extra": json.dumps(extra),
        },
    )


def _has_only_innocents_left(states: dict[str, str]) -> bool:
    others = [state for task_id, state in states.items() if task_id not in INNOCENT]
    return len(states) > len(INNOCENT) and all(state in ("success", "failed") for state in others)


def _stored_xcom(airflow: LocalAirflow, run_id: str, task_id: str) -> Any:
    """Return the XCom `flow_run` from PostgreSQL."""
    import psycopg2

    url = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2", "postgresql")
    query = "SELECT value FROM xcom WHERE dag_id = %s AND run_id = %s AND task_id = %s AND key = 'flow_run'"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(query, (DAG_ID, run_id, task_id))
        (value,) = cursor.fetchone()
    return json.loads(value) if isinstance(value, str) else value
