# SPDX-License-Identifier: Apache-2.0
"""No secret appears in a log, an XCom, a rendered field, a traceback, the database or a response of Airflow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from leaks import leaks
from patience import wait_until

from airflow_flowservice._airflow import versions
from airflow_flowservice.emulator import Settings, running_emulator

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow
    from airflow_flowservice.emulator import Emulator

DAG_ID = "e2e_secrets"
FLOW_ID = "c9cef9cb-c934-4467-8ef9-cbc934546741"
# Contain characters that URLs, forms and base64 encode.
SECRET = "e2e p@ss/w+rd&x=7f3a9c51d2e84b06"
WRONG = "e2e wr@ng/w+rd&x=c04d81b7e6a95f32"
SUCCEEDED = {
    *("create_failing", "again", "on_worker", "deferred", "create"),
    *("poke", "reschedule", "deferring", "begins_in_triggerer", "ready_token"),
}
FAILED = {"failing", "failed", "wrong_secret", "secret_sent_back", "token_sent_back"}


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Emulator]]:
    """Start three emulators of Flow Service in this process, so that the tests know every issued token.

    - `calm` works; one flow run fails with an error that contains the secret.
    - `denying` refuses token requests, and its response contains the secret.
    - `refusing` refuses to create flow runs, and its response contains the secret and a token.
    """
    with ExitStack() as stack:
        settings = Settings(client_secret=SECRET, queue_s=0.3, run_s=4)
        started = {name: stack.enter_context(running_emulator(settings)) for name in ("calm", "denying", "refusing")}
        known = started["refusing"].state.issue_token(settings.client_id)
        echo = {"error": "invalid", "error_description": f"secret {SECRET}", "message": f"Bearer {known} {SECRET}"}
        started["denying"].plan_fault(kind="POST /ims/token/v3", action="refuse", status=401, body=echo)
        started["refusing"].plan_fault(kind="POST /runs", action="refuse", status=400, body=echo)
        errors = [{"code": "CONNECTOR-2001-500", "message": f"secret {SECRET}"}]
        started["calm"].plan_outcome(status="failed", covering="2026-02-01T12:00:00Z", errors=errors)
        yield started


@pytest.fixture(scope="module")
def ready_tokens(services: dict[str, Emulator]) -> dict[str, str]:
    """Return access tokens, by connection, for those connections that have a token instead of or besides a secret."""
    calm, refusing = services["calm"].state, services["refusing"].state
    return {"ready": calm.issue_token(calm.settings.client_id), "refusing": next(iter(refusing._tokens))}


@pytest.fixture(scope="module")
def connection_ids(airflow: LocalAirflow, services: dict[str, Emulator], ready_tokens: dict[str, str]) -> list[str]:
    """Create the connections in the same way as the UI; return their ids."""
    connection_ids = []
    for name in ("calm", "ready", "wrong", "denying", "refusing"):
        service = services.get(name, services["calm"])
        known = service.settings.connection(service.url)
        extra = {**known["extra"], "access_token": ready_tokens.get(name)}
        body = {
            "connection_id": f"secrets_{name}",
            "conn_type": "flowservice",
            "host": service.url,
            "login": known["login"],
            "password": {"wrong": WRONG, "ready": None}.get(name, SECRET),
            "extra": json.dumps({key: value for key, value in extra.items() if value is not None}),
        }
        airflow.api("POST", "/connections", json=body)
        connection_ids.append(body["connection_id"])
    return connection_ids


@pytest.fixture(scope="module")
def secrets(services: dict[str, Emulator], ready_tokens: dict[str, str]) -> Callable[[], set[str]]:
    """Return a function that returns the client secrets and every token issued so far."""
    return lambda: {
        SECRET,
        WRONG,
        *ready_tokens.values(),
        *(token for service in services.values() for token in service.state._tokens),
    }


@pytest.fixture(scope="module")
def database(airflow: LocalAirflow) -> Callable[[], dict[str, str]]:
    """Return a function that dumps every table as text, by table name.

    PostgreSQL formats the rows: JSON is unchanged, bytes are hexadecimal.
    """
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])

    def dump() -> dict[str, str]:
        with engine.connect() as connection:
            return {
                name: "\n".join(row[0] for row in connection.execute(text(f'SELECT t::text FROM "{name}" t')))
                for name in inspect(engine).get_table_names()
            }

    return dump


@pytest.fixture(scope="module")
def finished_run(airflow: LocalAirflow, connection_ids: list[str]) -> tuple[str, float, list[str]]:
    """Run all tasks. Return the DAG run id, the start in epoch seconds, and the decrypted kwargs of all triggers."""
    started_at = time.time()
    airflow.wait_for_dag(DAG_ID, timeout=240)
    airflow.unpause(DAG_ID)
    run_id = airflow.trigger(DAG_ID)
    triggers: dict[str, None] = {}

    def has_ended() -> bool:
        triggers.update(dict.fromkeys(_trigger_kwargs(airflow)))
        runs = airflow.dag_runs(DAG_ID)
        return all(run["state"] in ("success", "failed") for run in runs)

    wait_until(has_ended, what="the end of all tasks")
    return run_id, started_at, list(triggers)


def test_all_tasks_end_as_expected(airflow: LocalAirflow, finished_run: tuple[str, float, list[str]]) -> None:
    """All tasks ran, and triggers of deferred tasks were read, so the other tests have data to search."""
    run_id, _, triggers = finished_run
    states = {each["task_id"]: each["state"] for each in airflow.task_instances(DAG_ID, run_id)}
    expected = {**dict.fromkeys(SUCCEEDED, "success"), **dict.fromkeys(FAILED, "failed")}
    assert expected == states
    assert any("flow_run_id" in trigger for trigger in triggers)


def test_no_log_has_a_secret(
    airflow: LocalAirflow, finished_run: tuple[str, float, list[str]], secrets: Callable[[], set[str]]
) -> None:
    """Logs of tasks, with tracebacks and callbacks, and output of Airflow's components contain no secret."""
    run_id, started_at, _ = finished_run
    texts = {
        file: file.read_text(errors="replace")
        for file in _written_files(airflow.home)
        if file.stat().st_mtime >= started_at
    }
    shown = "".join(texts.values())
    flow_run_id = airflow.xcom(DAG_ID, run_id, "on_worker", "return_value")
    assert flow_run_id in shown
    assert shown.count("failed with ") >= len(FAILED)
    assert {"***"} <= set(shown.split(" "))
    assert {} == {file.name: found for file, text in texts.items() if (found := leaks(text, secrets()))}


def test_database_has_no_secret(
    airflow: LocalAirflow,
    finished_run: tuple[str, float, list[str]],
    database: Callable[[], dict[str, str]],
    secrets: Callable[[], set[str]],
) -> None:
    """No table contains a secret in plain text, including the rows of triggers while tasks waited.

    The table `connection` contains the secrets only in encrypted form.
    """
    run_id, _, triggers = finished_run
    tables = database()
    flow_run_id = airflow.xcom(DAG_ID, run_id, "on_worker", "return_value")
    assert flow_run_id in tables["xcom"]
    assert "2026-02-01" in tables["rendered_task_instance_fields"]
    texts = {**tables, "triggers, decrypted": "\n".join(triggers)}
    assert {} == {name: found for name, text in texts.items() if (found := leaks(text, secrets()))}


def test_connections_are_encrypted_in_the_database(
    airflow: LocalAirflow, connection_ids: list[str], ready_tokens: dict[str, str]
) -> None:
    """The database contains the secrets, encrypted with Airflow's Fernet key, so the search above could find them."""
    rows = _decrypted_rows(
        airflow, "SELECT password || ' ' || extra FROM connection WHERE conn_id = 'secrets_refusing'"
    )
    assert SECRET in rows[0]
    assert ready_tokens["refusing"] in rows[0]


def test_no_response_of_airflow_has_a_secret(
    airflow: LocalAirflow,
    finished_run: tuple[str, float, list[str]],
    connection_ids: list[str],
    secrets: Callable[[], set[str]],
) -> None:
    """Tasks with rendered fields, XComs, logs, buttons, connections, events and the page's data contain no secret."""
    run_id, _, _ = finished_run
    run = f"/dags/{DAG_ID}/dagRuns/{run_id}"
    paths = [
        f"{run}/taskInstances",
        "/eventLogs",
        "/connections",
        "/importErrors",
        *map("/connections/{}".format, connection_ids),
    ]
    for task_id in SUCCEEDED | FAILED:
        task = f"{run}/taskInstances/{task_id}"
        paths += [f"{task}/logs/1", f"{task}/links", f"{task}/xcomEntries/flow_run", f"{task}/xcomEntries/return_value"]
    responses = [airflow.rest.call("GET", path) for path in paths]
    read = {word for response in responses if response.ok for word in re.findall(r"\w+", response.url)}
    assert {"taskInstances", "xcomEntries", "logs", "links", "eventLogs", "secrets_calm"} <= read
    shown = {response.url: response.text for response in [*responses, *_page_responses(airflow, connection_ids)]}
    assert {} == {url: found for url, text in shown.items() if (found := leaks(text, secrets()))}


def test_no_command_prints_a_secret(
    airflow: LocalAirflow,
    finished_run: tuple[str, float, list[str]],
    connection_ids: list[str],
    secrets: Callable[[], set[str]],
) -> None:
    """`check`, `coverage` and the connection test print no secret at level DEBUG, on success and on refusal."""
    cli = ["-m", "airflow_flowservice"]
    coverage = [*cli, "coverage", "--dag-id", DAG_ID, "--from", "2026-02-01", "--to", "2026-03-01", "--conn-id"]
    commands = {
        "ok           token": [*cli, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_calm"],
        "wrong        token": [*cli, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_wrong"],
        "HTTP status 401": [*cli, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_denying"],
        "Connection success!": ["-m", "airflow", "connections", "test", "secrets_ready"],
        "Connection failed!": ["-m", "airflow", "connections", "test", "secrets_denying"],
        "ingested": [*coverage, "secrets_calm"],
        "Flow Service": [*coverage, "secrets_denying"],
    }
    with ThreadPoolExecutor(2) as pool:
        printed = dict(
            zip(commands, pool.map(lambda command: _output_of(airflow, command), commands.values()), strict=True)
        )
    assert [] == [(expected, text) for expected, text in printed.items() if expected not in text]
    assert {} == {expected: found for expected, text in printed.items() if (found := leaks(text, secrets()))}


def _written_files(home: Path) -> list[Path]:
    """Return all files that Airflow wrote, except the files of PostgreSQL: the dump has their content."""
    return [file for file in home.rglob("*") if file.is_file() and "postgres" not in file.relative_to(home).parts]


def _trigger_kwargs(airflow: LocalAirflow) -> list[str]:
    return _decrypted_rows(airflow, "SELECT kwargs FROM trigger")


def _decrypted_rows(airflow: LocalAirflow, query: str) -> list[str]:
    """Return the values of a query for one column, with values encrypted by Airflow's Fernet key decrypted."""
    from cryptography.fernet import Fernet
    from sqlalchemy import create_engine, text

    key = Fernet(airflow.environment["AIRFLOW__CORE__FERNET_KEY"])
    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as connection:
        rows = connection.execute(text(query)).scalars().all()
    engine.dispose()
    return [re.sub(r"gAAAA[\w=-]+", lambda match: key.decrypt(match[0].encode()).decode(), row) for row in rows]


def _page_responses(airflow: LocalAirflow, connection_ids: list[str]) -> list[requests.Response]:
    """Return the responses of the page's API for each connection. Before Airflow 3.1 there are no pages."""
    if versions.version() < (3, 1):
        return []
    headers = {"Authorization": f"Bearer {airflow.rest.token}"}
    query = {"flow_id": FLOW_ID, "from": "2026-02-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    addresses = [("dataflows", {}), *(("coverage", {**query, "conn_id": conn_id}) for conn_id in connection_ids)]
    responses = [
        requests.get(f"{airflow.address}/flowservice/data/{path}", params=params, headers=headers, timeout=60)
        for path, params in addresses
    ]
    assert {200, 502} == {response.status_code for response in responses}
    return responses


def _output_of(airflow: LocalAirflow, command: list[str]) -> str:
    """Return what a command prints to stdout and stderr."""
    settings = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    completed = subprocess.run(
        [sys.executable, *command],
        env={**airflow.environment, **settings},
        cwd=airflow.home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return completed.stdout + completed.stderr
