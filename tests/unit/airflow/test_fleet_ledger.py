# SPDX-License-Identifier: Apache-2.0
"""Verify that the pass over all entries of a ledger finds the same as parsing each of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.models.variable import Variable
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, delete, event
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from airflow_flowservice._airflow import ledgers
from airflow_flowservice._airflow.dataflow_ledger import LedgerSource
from airflow_flowservice._airflow.fleet_ledger import read_ledgers
from airflow_flowservice._airflow.metadata_ledger import MetadataLedger
from airflow_flowservice._airflow.variable_ledger import ledger_key, stored_texts
from airflow_flowservice.coverage.fleet_records import DataflowRecords
from airflow_flowservice.coverage.ledger_runs import LedgerRecords
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.windows.window import IngestionWindow

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
SINCE = BEGIN + 3 * DAY
KEYS = [DataflowKey("ORG@AdobeOrg", "prod", "orders"), DataflowKey("ORG@AdobeOrg", 'de"v', "clicks")]
ID = "c9cef9cb-c934-4467-8ef9-aaaaaaaaaaaa"
KEYS += [DataflowKey("ORG@AdobeOrg", "prod", each) for each in (ID, ID.upper())]
SPECIAL = '"earlier": [], "updated_at": 1.0, "version": 1}'
TEXT = st.text(max_size=12) | st.sampled_from([SPECIAL, '"state": "ingested", "owner": "x/", "flow_run_id": "y"'])


def build(number: int, **fields: Any) -> LedgerEntry:
    start = BEGIN + number * DAY
    defaults = {"dataflow": KEYS[0], "state": EntryState.INGESTED, "owner": "dag/run/task/-1", "flow_run_id": "r"}
    return LedgerEntry(**{**defaults, **fields}, window=IngestionWindow(start, start + DAY), version=1)


ENTRIES = st.builds(
    # A flow run has one window.
    lambda number, run_id, dag_id, flow_run_id, **fields: build(
        number,
        owner=f"{dag_id}/{run_id}/task/-1",
        flow_run_id=flow_run_id and f"{flow_run_id}{number}{fields['dataflow'].flow_id[:1]}",
        **fields,
    ),
    number=st.integers(0, 9),
    run_id=TEXT,
    dag_id=st.sampled_from(["daily", "other.dag", "täglich"]),
    dataflow=st.sampled_from([KEYS[0]] * 3 + KEYS),
    state=st.sampled_from([EntryState.INGESTED] * 6 + list(EntryState)),
    flow_run_id=st.none() | TEXT.filter(bool),
    intent=st.none()
    | st.fixed_dictionaries(
        {"token": TEXT, "earlier": st.just([])},
        optional={
            "flow_name": st.none() | TEXT,
            "question": st.just({"flow_name": "of a question"}),
            "restates": st.lists(TEXT, max_size=2),
        },
    ),
    output_records=st.none() | st.integers(0, 10**15),
    earlier=st.just(()) | st.just((EarlierRun(flow_run_id="e", replaced_at=1.5, replaced_by="d/r/t/-1"),)),
    updated_at=st.floats(0, 4e9),
)


@pytest.fixture(scope="module")
def session() -> Any:
    """Open a session of a database with Airflow's table of Variables."""
    engine = create_engine("sqlite://")
    table: Any = Variable.__table__
    table.create(engine)
    with Session(engine) as opened:
        yield opened
    engine.dispose()


def store(session: Session, entries: list[LedgerEntry], **fields: Any) -> None:
    for entry in entries:
        value, description = stored_texts(entry)
        session.add(Variable(key=ledger_key(*entry.key), val=value, **{"description": description, **fields}))
    session.commit()


@pytest.fixture(autouse=True)
def _empty(session: Session) -> None:
    session.execute(delete(Variable))


def read(session: Session) -> dict[DataflowKey, DataflowRecords]:
    return read_ledgers(session, [LedgerSource()], since=SINCE)


def shown(records: DataflowRecords) -> Any:
    """Return what the summary uses, independent of the order."""
    values = records.records()
    others = sorted(values.entries, key=lambda entry: entry.key)
    ends = records.last and records.last.end
    return records.ingested, others, values.unreadable, values.recorded, ends, records.dag_ids, records.flow_name


def parsed(entries: Iterable[LedgerEntry]) -> dict[DataflowKey, DataflowRecords]:
    found: dict[DataflowKey, DataflowRecords] = {}
    for entry in entries:
        found.setdefault(entry.dataflow.canonical, DataflowRecords(since=SINCE)).add(entry)
    return found


def all_shown(found: dict[DataflowKey, DataflowRecords]) -> dict[DataflowKey, Any]:
    return {key: shown(records) for key, records in found.items()}


@given(st.lists(ENTRIES, max_size=8, unique_by=lambda entry: entry.key))
def test_same_as_parsing(session: Session, entries: list[LedgerEntry]) -> None:
    """No text in an entry makes it another one."""
    session.execute(delete(Variable))
    store(session, entries)
    assert all_shown(parsed(entries)) == all_shown(read(session))


def read_sql(entries: list[LedgerEntry]) -> dict[DataflowKey, DataflowRecords]:
    ledger = SqlLedger(create_engine("sqlite://", poolclass=StaticPool))
    ledger.migrate()
    for entry in entries:
        ledger.put(replace(entry, version=0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "stored_sql_ledger", lambda _: ledger)
        unused: Any = None
        return read_ledgers(unused, [LedgerSource(ledger_conn_id="sql")], since=SINCE)


def read_stored(session: Session, entries: list[LedgerEntry], *, is_sql: bool) -> dict[DataflowKey, DataflowRecords]:
    if is_sql:
        return read_sql(entries)
    store(session, entries)
    return read(session)


CHANGES: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: text[:-1],
    lambda text: f" {text}",
    lambda text: f"{text}\n",
    str.upper,
    lambda text: text.replace("ingested", "claimed"),
    lambda text: text.replace("2026-01-0", "2026-02-0"),
    lambda text: text.replace("orders", "invoices"),
    lambda text: text.replace('"earlier": []', '"earlier":[]'),
    lambda text: text.replace('"restates": [', '"Restates": ['),
    lambda text: text.replace('"delivered": ', '"delivered":  '),
    lambda text: text.replace('"updated_at": ', '"updated_at": 1.2.'),
    lambda text: text.replace('"version": 1', '"version": 1, "later": {"earlier": []}'),
    lambda text: text.replace('"owner": "', '"owner": "\\u0064'),
]


@given(
    st.lists(st.tuples(ENTRIES, st.sampled_from(CHANGES)), max_size=8, unique_by=lambda each: each[0].key).filter(
        lambda given: len({entry.flow_run_id for entry, _ in given}) == len(given)
    )
)
def test_changed_description(session: Session, given: list[tuple[LedgerEntry, Callable[[str], str]]]) -> None:
    """A description that a user changed is read as if each one was parsed; without one, the value counts.

    `test_description_of_another_window` tests the windows that are unknown because of it.
    """
    session.execute(delete(Variable))
    for entry, change in given:
        value, description = stored_texts(entry)
        session.add(Variable(key=ledger_key(*entry.key), val=value, description=change(description)))
    session.commit()
    ledger = MetadataLedger(session)
    found = read(session)
    for records in found.values():
        records.unreadable.clear()
    assert all_shown(parsed(filter(None, map(ledger.entry_of, ledger.rows())))) == all_shown(found)


@given(st.lists(ENTRIES, max_size=8, unique_by=lambda entry: entry.key))
def test_same_as_parsing_a_sql_ledger(entries: list[LedgerEntry]) -> None:
    assert all_shown(parsed(entries)) == all_shown(read_sql(entries))


@pytest.mark.parametrize("is_sql", [False, True])
def test_entry_that_restates_parts_is_parsed(session: Session, is_sql: bool) -> None:
    """An earlier entry of the dataflow is already known."""
    stored = [build(4, flow_run_id="a"), build(5, flow_run_id="b", intent={"restates": ["a"]})]
    found = read_stored(session, stored, is_sql=is_sql)[KEYS[0]]
    assert (["a"], stored[1:]) == (list(found.ingested), found.others)


@pytest.mark.parametrize("is_sql", [False, True])
def test_name_in_another_value_of_the_intent_is_none(session: Session, is_sql: bool) -> None:
    intents = [{}, {"flow_name": "Orders"}, {"question": {"flow_name": "none"}}]
    stored = [
        build(4 + index, flow_run_id=str(index), intent=intent, updated_at=float(index))
        for index, intent in enumerate(intents)
    ]
    assert "Orders" == read_stored(session, stored, is_sql=is_sql)[KEYS[0]].flow_name


def test_description_of_another_window(session: Session) -> None:
    """It counts. The window of the key, to which a user copied it, is unknown."""
    store(session, [build(4, flow_run_id="a"), build(5, flow_run_id="b")])
    copied = replace(build(6, flow_run_id="b"), window=build(8).window)
    value, description = stored_texts(copied)
    session.add(Variable(key=ledger_key(*build(6).key), val=value, description=description))
    session.execute(delete(Variable).where(Variable.key == ledger_key(*build(5).key)))
    session.commit()
    records = read(session)[KEYS[0]]
    assert {"a": build(4).window, "b": build(8).window} == records.ingested
    assert [build(6).window] == records.unreadable


@pytest.mark.parametrize(
    "earlier",
    [
        [],
        [build(0, updated_at=50.0, flow_run_id="d")],
        [build(0, updated_at=50.0, state=EntryState.CLAIMED, flow_run_id=None)],
        [build(6, updated_at=0.0, flow_run_id="d")],
    ],
    ids=["", "ingested before the range", "claimed before the range", "without a time"],
)
def test_recorded_time_is_that_of_the_entries(earlier: list[LedgerEntry]) -> None:
    """It begins with the window that was stored first, as for one dataflow, also before the range."""
    entries = [build(5, updated_at=9000.0, flow_run_id="a"), build(4, updated_at=100.0, flow_run_id="b")]
    entries += [build(7, updated_at=9000.0, flow_run_id="c"), *earlier]
    records = DataflowRecords(since=SINCE)
    for entry in entries:
        records.add(entry)
    assert LedgerRecords(entries=tuple(entries)).recorded == records.records().recorded


def test_renamed_dataflow_has_its_newest_name(session: Session) -> None:
    """Entries without a name, and entries before the range, count also."""
    names = ["Orders", "Größe", None]
    intents = [{"token": "t", **({"flow_name": name} if name else {})} for name in names]
    store(
        session,
        [
            build(5, updated_at=1.0, intent=intents[0]),
            build(0, updated_at=2.0, intent=intents[1]),
            build(6, updated_at=3.0, intent=intents[2]),
            build(5, dataflow=KEYS[1]),
        ],
    )
    found = read(session)
    assert ["Größe", None] == [found[key].flow_name for key in KEYS[:2]]


def test_entry_that_cannot_be_read(session: Session) -> None:
    """Its window is unknown, and a value without a valid description is read."""
    store(session, [build(5), build(6, flow_run_id="in the value")])
    session.add(Variable(key=ledger_key(*build(7).key), val="changed", description="changed"))
    rows: list[Any] = list(session.query(Variable).filter(Variable.key == ledger_key(*build(6).key)))
    rows[0].description = "changed"
    session.commit()
    records = read(session)[KEYS[0]]
    assert ({"r", "in the value"}, [build(7).window]) == (set(records.ingested), records.unreadable)


def test_name_of_a_later_version_is_ignored(session: Session) -> None:
    """An unknown field makes no difference."""
    text = json.dumps({**build(5).to_json(), "added": {"later": []}})
    session.add(Variable(key=ledger_key(*build(5).key), val=text, description=text))
    session.commit()
    assert ["r"] == list(read(session)[KEYS[0]].ingested)


def test_one_query_for_all_dataflows(session: Session) -> None:
    store(session, [build(number, dataflow=key, flow_run_id=str(number)) for number in range(5) for key in KEYS])
    queries: list[str] = []
    engine: Any = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    read(session)
    assert 1 == len(queries)
