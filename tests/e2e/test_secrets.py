"""No secret is anywhere: not in a log, an XCom, a rendered field, a traceback, the database or an answer."""

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
# Characters that URLs, forms and base64 spell in another way.
SECRET = "e2e p@ss/w+rd&x=7f3a9c51d2e84b06"
WRONG = "e2e wr@ng/w+rd&x=c04d81b7e6a95f32"
SUCCEEDED = {
    *("create_failing", "again", "on_worker", "deferred", "create"),
    *("poke", "reschedule", "deferring", "begins_in_triggerer", "ready_token"),
}
FAILED = {"failing", "failed", "wrong_secret", "secret_sent_back", "token_sent_back"}


@pytest.fixture(scope="module")
def services() -> Iterator[dict[str, Emulator]]:
    """A Flow Service that works, one whose IMS sends the secret back, one that refuses and sends secret and token back.

    They live in this process, so every token that they gave to anybody is known.
    """
    with ExitStack() as stack:
        settings = Settings(client_secret=SECRET, queue_s=0.3, run_s=4)
        started = {name: stack.enter_context(running_emulator(settings)) for name in ("calm", "denying", "refusing")}
        known = started["refusing"].state.issue_token(settings.client_id)
        echo = {"error": "invalid", "error_description": f"secret {SECRET}", "message": f"Bearer {known} {SECRET}"}
        started["denying"].plan_fault(kind="POST /ims/token/v3", action="refuse", status=401, body=echo)
        started["refusing"].plan_fault(kind="POST /runs", action="refuse", status=400, body=echo)
        told = [{"code": "CONNECTOR-2001-500", "message": f"secret {SECRET}"}]
        started["calm"].plan_outcome(status="failed", covering="2026-02-01T12:00:00Z", errors=told)
        yield started


@pytest.fixture(scope="module")
def ready_tokens(services: dict[str, Emulator]) -> dict[str, str]:
    """Tokens for connections that have one instead of a client secret, or beside it."""
    calm, refusing = services["calm"].state, services["refusing"].state
    return {"ready": calm.issue_token(calm.settings.client_id), "refusing": next(iter(refusing._tokens))}


@pytest.fixture(scope="module")
def connected(airflow: LocalAirflow, services: dict[str, Emulator], ready_tokens: dict[str, str]) -> list[str]:
    """Connections in Airflow's database, made as the UI makes them; their ids."""
    made = []
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
        made.append(body["connection_id"])
    return made


@pytest.fixture(scope="module")
def secrets(services: dict[str, Emulator], ready_tokens: dict[str, str]) -> Callable[[], set[str]]:
    """Client secrets, and every token that was ever given to anybody."""
    return lambda: {
        SECRET,
        WRONG,
        *ready_tokens.values(),
        *(t for each in services.values() for t in each.state._tokens),
    }


@pytest.fixture(scope="module")
def database(airflow: LocalAirflow) -> Callable[[], dict[str, str]]:
    """The text of every table, row by row, as PostgreSQL writes it: JSON as it is, bytes in hexadecimal."""
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])

    def dump() -> dict[str, str]:
        with engine.connect() as opened:
            return {
                name: "\n".join(row[0] for row in opened.execute(text(f'SELECT t::text FROM "{name}" t')))
                for name in inspect(engine).get_table_names()
            }

    return dump


@pytest.fixture(scope="module")
def ended(airflow: LocalAirflow, connected: list[str]) -> tuple[str, float, list[str]]:
    """A run of all tasks: its id, when it began, and what triggers had in the database while they waited, decrypted."""
    began = time.time()
    airflow.wait_for_dag(DAG_ID)
    airflow.unpause(DAG_ID)
    run_id = airflow.trigger(DAG_ID)
    seen: dict[str, str] = {}

    def over() -> bool:
        seen.update(_triggers(airflow))
        runs = airflow.dag_runs(DAG_ID)
        return all(run["state"] in ("success", "failed") for run in runs)

    wait_until(over, what="every way of running a task")
    return run_id, began, list(seen.values())


def test_every_way_was_taken(airflow: LocalAirflow, ended: tuple[str, float, list[str]]) -> None:
    """The other tests look at what these tasks left; some were deferred, and their triggers seen."""
    run_id, _, triggers = ended
    states = {each["task_id"]: each["state"] for each in airflow.task_instances(DAG_ID, run_id)}
    expected = {**dict.fromkeys(SUCCEEDED, "success"), **dict.fromkeys(FAILED, "failed")}
    assert expected == states
    assert any("flow_run_id" in trigger for trigger in triggers)


def test_no_log_has_a_secret(
    airflow: LocalAirflow, ended: tuple[str, float, list[str]], secrets: Callable[[], set[str]]
) -> None:
    """Neither a task's, with its tracebacks and callbacks, nor what a component prints."""
    run_id, began, _ = ended
    texts = {file: file.read_text(errors="replace") for file in _files(airflow.home) if file.stat().st_mtime >= began}
    shown = "".join(texts.values())
    flow_run_id = airflow.xcom(DAG_ID, run_id, "on_worker", "return_value")
    assert flow_run_id in shown
    assert shown.count("failed with ") >= len(FAILED)
    assert {"***"} <= set(shown.split(" "))
    assert {} == {file.name: found for file, text in texts.items() if (found := leaks(text, secrets()))}


def test_the_database_has_no_secret(
    airflow: LocalAirflow,
    ended: tuple[str, float, list[str]],
    database: Callable[[], dict[str, str]],
    secrets: Callable[[], set[str]],
) -> None:
    """XComs, rendered fields, task state, asset events, audit log, and all the rest; triggers while they waited.

    The one place that legitimately has them is the table `connection`, and it has them encrypted.
    """
    run_id, _, triggers = ended
    tables = database()
    flow_run_id = airflow.xcom(DAG_ID, run_id, "on_worker", "return_value")
    assert flow_run_id in tables["xcom"]
    assert "2026-02-01" in tables["rendered_task_instance_fields"]
    texts = {**tables, "triggers, decrypted": "\n".join(triggers)}
    assert {} == {name: found for name, text in texts.items() if (found := leaks(text, secrets()))}


def test_connections_are_encrypted_in_the_database(
    airflow: LocalAirflow, connected: list[str], ready_tokens: dict[str, str]
) -> None:
    """They are there, and only Airflow's Fernet key makes them readable: so the test above had something to find."""
    rows = _decrypted(airflow, "SELECT password || ' ' || extra FROM connection WHERE conn_id = 'secrets_refusing'")
    assert SECRET in rows[0]
    assert ready_tokens["refusing"] in rows[0]


def test_no_answer_of_airflow_has_a_secret(
    airflow: LocalAirflow, ended: tuple[str, float, list[str]], connected: list[str], secrets: Callable[[], set[str]]
) -> None:
    """What a user sees: tasks with rendered fields, XComs, logs, buttons, connections, events, and the page's data."""
    run_id, _, _ = ended
    run = f"/dags/{DAG_ID}/dagRuns/{run_id}"
    paths = [
        f"{run}/taskInstances",
        "/eventLogs",
        "/connections",
        "/importErrors",
        *map("/connections/{}".format, connected),
    ]
    for task_id in SUCCEEDED | FAILED:
        task = f"{run}/taskInstances/{task_id}"
        paths += [f"{task}/logs/1", f"{task}/links", f"{task}/xcomEntries/flow_run", f"{task}/xcomEntries/return_value"]
    answers = [airflow.rest.call("GET", path) for path in paths]
    read = {word for answer in answers if answer.ok for word in re.findall(r"\w+", answer.url)}
    assert {"taskInstances", "xcomEntries", "logs", "links", "eventLogs", "secrets_calm"} <= read
    shown = {answer.url: answer.text for answer in [*answers, *_page(airflow, connected)]}
    assert {} == {url: found for url, text in shown.items() if (found := leaks(text, secrets()))}


def test_no_command_prints_a_secret(
    airflow: LocalAirflow, ended: tuple[str, float, list[str]], connected: list[str], secrets: Callable[[], set[str]]
) -> None:
    """`check`, `coverage` and the connection's own test, at DEBUG: where all is well, and where it is refused."""
    ours = ["-m", "airflow_flowservice"]
    look = [*ours, "coverage", "--dag-id", DAG_ID, "--from", "2026-02-01", "--to", "2026-03-01", "--conn-id"]
    commands = {
        "ok           token": [*ours, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_calm"],
        "wrong        token": [*ours, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_wrong"],
        "HTTP status 401": [*ours, "check", "--flow-id", FLOW_ID, "--conn-id", "secrets_denying"],
        "Connection success!": ["-m", "airflow", "connections", "test", "secrets_ready"],
        "Connection failed!": ["-m", "airflow", "connections", "test", "secrets_denying"],
        "ingested": [*look, "secrets_calm"],
        "Flow Service": [*look, "secrets_denying"],
    }
    with ThreadPoolExecutor(2) as pool:
        printed = dict(
            zip(commands, pool.map(lambda command: _printed(airflow, command), commands.values()), strict=True)
        )
    assert [] == [(expected, text) for expected, text in printed.items() if expected not in text]
    assert {} == {expected: found for expected, text in printed.items() if (found := leaks(text, secrets()))}


def _files(home: Path) -> list[Path]:
    """All that Airflow wrote but PostgreSQL's own files, whose content the dump has."""
    return [file for file in home.rglob("*") if file.is_file() and "postgres" not in file.relative_to(home).parts]


def _triggers(airflow: LocalAirflow) -> dict[str, str]:
    return {text: text for text in _decrypted(airflow, "SELECT kwargs FROM trigger")}


def _decrypted(airflow: LocalAirflow, query: str) -> list[str]:
    """The rows of one column, with what is encrypted by Airflow's Fernet key made readable."""
    from cryptography.fernet import Fernet
    from sqlalchemy import create_engine, text

    key = Fernet(airflow.environment["AIRFLOW__CORE__FERNET_KEY"])
    engine = create_engine(airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"])
    with engine.connect() as opened:
        rows = opened.execute(text(query)).scalars().all()
    engine.dispose()
    return [re.sub(r"gAAAA[\w=-]+", lambda found: key.decrypt(found[0].encode()).decode(), row) for row in rows]


def _page(airflow: LocalAirflow, connected: list[str]) -> list[requests.Response]:
    """The page's data, with each connection; Airflow has no pages before 3.1."""
    if versions.version() < (3, 1):
        return []
    headers = {"Authorization": f"Bearer {airflow.rest.token}"}
    asked = {"flow_id": FLOW_ID, "from": "2026-02-01T00:00:00Z", "to": "2026-03-01T00:00:00Z"}
    addresses = [("dataflows", {}), *(("coverage", {**asked, "conn_id": conn_id}) for conn_id in connected)]
    answers = [
        requests.get(f"{airflow.address}/flowservice/data/{path}", params=params, headers=headers, timeout=60)
        for path, params in addresses
    ]
    assert {200, 502} == {answer.status_code for answer in answers}
    return answers


def _printed(airflow: LocalAirflow, command: list[str]) -> str:
    """What a command prints to the one and to the other."""
    more = {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
    done = subprocess.run(
        [sys.executable, *command],
        env={**airflow.environment, **more},
        cwd=airflow.home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout + done.stderr
