# SPDX-License-Identifier: Apache-2.0
"""Verify which entries of the ledger are read from Airflow's metadata database."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest
from airflow.models.variable import Variable
from sqlalchemy import create_engine, event
from sqlalchemy.orm import Session

from airflow_flowservice._airflow import metadata_ledger
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import ledger_key
from airflow_flowservice.ledger.entry import DataflowKey, EntryState, LedgerEntry
from airflow_flowservice.windows.window import IngestionWindow

ORDERS, CLICKS, VIEWS = (DataflowKey("ORG@AdobeOrg", "prod", name) for name in ("orders", "clicks", "views"))


def day(number, *, days=1):
    start = datetime(2026, 1, 9, tzinfo=timezone.utc) + timedelta(days=number)
    return IngestionWindow(start, start + timedelta(days=days))


def entry(dataflow, window):
    return LedgerEntry(dataflow=dataflow, window=window, state=EntryState.INGESTED, owner="dag/run/task/-1", version=1)


ENTRIES = [entry(dataflow, day(number)) for dataflow in (CLICKS, ORDERS, VIEWS) for number in range(3)]


@pytest.fixture
def session():
    """Return a session of a database with Airflow's table of Variables."""
    engine = create_engine("sqlite://")
    Variable.__table__.create(engine)
    with Session(engine) as made:
        for each in reversed(ENTRIES):
            store(made, each)
        made.add(Variable(key="flowservice.intent.0123", val="{}", description="{}"))
        made.add(Variable(key="other", val="secret", description="{}"))
        made.commit()
        yield made
    engine.dispose()


def store(session, each, *, description=None):
    """Add the Variable of an entry, with another description if one is given."""
    text = json.dumps(each.to_json())
    session.add(Variable(key=ledger_key(*each.key), val=text, description=description or text))
    session.commit()


@pytest.fixture
def queries(session):
    """Return the list of queries, which grows."""
    found = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *args: found.append(args[2]))
    return found


def test_all_entries_need_one_query(session, queries):
    """They are sorted by dataflow and window. Nothing is decrypted."""
    assert ENTRIES == list(MetadataLedger(session).entries())
    assert 1 == len(queries)
    assert "val" not in queries[0].split("FROM")[0]


@pytest.mark.parametrize("most_conditions", [50, 1])
@pytest.mark.parametrize(("dataflows", "count"), [([], 0), ([ORDERS], 3), ([VIEWS, ORDERS], 6)])
def test_entries_of_dataflows(session, monkeypatch, most_conditions, dataflows, count):
    """The number of conditions of the query does not change the result."""
    monkeypatch.setattr(metadata_ledger, "_MAX_CONDITIONS", most_conditions)
    found = list(MetadataLedger(session).entries(iter(dataflows)))
    assert [each for each in ENTRIES if each.dataflow in dataflows] == found
    assert count == len(found)


def test_entries_within_a_window(session):
    """Contiguous windows do not overlap."""
    within = day(1, days=5)
    found = list(MetadataLedger(session).entries([ORDERS], within=within))
    assert [each for each in ENTRIES if each.dataflow == ORDERS and each.window.overlaps(within)] == found
    assert 2 == len(found)


@pytest.mark.parametrize("description", ["", "The entry is in the value.", "{}"])
def test_another_description_is_replaced_by_the_value(session, description):
    """`airflow variables import` drops descriptions."""
    late = entry(ORDERS, day(9))
    store(session, late, description=description or " ")
    assert late in list(MetadataLedger(session).entries())


@pytest.mark.parametrize("value", ["not JSON", "{}", '{"state": "unknown"}'])
def test_an_entry_that_cannot_be_read_is_omitted_with_a_warning(session, caplog, value):
    key = ledger_key(ORDERS, day(9))
    session.add(Variable(key=key, val=value, description=None))
    session.commit()
    assert ENTRIES == list(MetadataLedger(session).entries())
    assert key in caplog.text


def test_an_entry_that_cannot_be_decrypted_is_omitted_with_a_warning(session, caplog):
    """Its description was changed, and the key of the encryption is another one."""
    key = ledger_key(ORDERS, day(9))
    session.add(Variable(key=key, val="x", description=None))
    session.commit()
    session.execute(Variable.__table__.update().where(Variable.key == key).values(val="gAAAA", is_encrypted=True))
    assert ENTRIES == list(MetadataLedger(session).entries())
    assert key in caplog.text


def test_rows_show_dataflow_and_window_without_parsing(session):
    rows = MetadataLedger(session).rows()
    assert sorted((each.dataflow.digest, each.window) for each in ENTRIES) == [(row.digest, row.window) for row in rows]
    assert ENTRIES == sorted((row.entry for row in rows), key=lambda each: each.key)


@pytest.mark.parametrize("flow_id", ["orders", "ord_rs", "100%", 'a"b', "a\\b/c", "\N{SNOWMAN}"])
def test_the_database_omits_rows_of_other_dataflows(session, flow_id):
    """The id is a text, and no pattern. A row without a readable description is kept."""
    wanted = entry(DataflowKey("ORG@AdobeOrg", "dev", flow_id), day(20))
    hidden = entry(VIEWS, day(21))
    store(session, wanted)
    store(session, hidden, description="The entry is in the value.")
    rows = MetadataLedger(session).rows(containing=json.dumps(flow_id))
    expected = [each for each in (*ENTRIES, wanted, hidden) if each.dataflow.flow_id == flow_id or each == hidden]
    assert sorted(ledger_key(*each.key) for each in expected) == sorted(row.key for row in rows)
