# SPDX-License-Identifier: Apache-2.0
"""Verify that each ledger keeps the promises of the protocol `Ledger`: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier, Thread
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from airflow_flowservice.exceptions import LedgerConflictError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.ledger.store import Ledger, MemoryLedger
from airflow_flowservice.windows.window import IngestionWindow

DAY = timedelta(days=1)
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
ORDERS = DataflowKey("ORG@AdobeOrg", "prod", "orders")
CLICKS = DataflowKey("ORG@AdobeOrg", "prod", "clicks")
THREADS = 16


def window(first: float, last: float | None = None) -> IngestionWindow:
    """Return the window from a day to another one; default: the next day."""
    return IngestionWindow(BEGIN + first * DAY, BEGIN + (first + 1 if last is None else last) * DAY)


def entry(dataflow: DataflowKey = ORDERS, *, day: float = 0, last: float | None = None, **values: Any) -> LedgerEntry:
    """Return an entry that was never stored."""
    known = {"state": EntryState.CLAIMED, "owner": "dag/run/task/-1"}
    return LedgerEntry(dataflow=dataflow, window=window(day, last), **{**known, **values})


FULL = entry(
    state=EntryState.INGESTED,
    flow_run_id="run-2",
    delivered=True,
    intent={"flow_id": "orders", "sent": ["a", 1, None], "note": "\N{SNOWMAN} \0 '\"%s:x"},
    output_records=2**40,
    earlier=(EarlierRun(flow_run_id="run-1", replaced_at=1767312000.25, replaced_by="dag/run/\N{SNOWMAN}/-1"),),
    updated_at=1767312001.123456,
    owner="dag/manual__2026-01-01T00:00:00+00:00 100% \N{SNOWMAN}/task/3",
)


@pytest.mark.parametrize("new", [entry(), FULL, entry(owner="x" * 800)])
def test_entry_is_returned_as_stored(ledger: Ledger, new: LedgerEntry) -> None:
    """Each field of an entry is stored; the version is increased."""
    assert replace(new, version=1) == ledger.put(new)
    assert replace(new, version=1) == ledger.get(*new.key)
    assert [replace(new, version=1)] == list(ledger.entries())


def test_unknown_window_has_no_entry(ledger: Ledger) -> None:
    """An entry is found only by its exact dataflow and window."""
    ledger.put(entry())
    near = [(CLICKS, window(0)), (ORDERS, window(0, 2)), (ORDERS, window(0, 0.5)), (ORDERS, window(1))]
    near += [(replace(ORDERS, sandbox="dev"), window(0)), (replace(ORDERS, organization="X@AdobeOrg"), window(0))]
    assert [None] * 6 == [ledger.get(*key) for key in near]


def test_change_keeps_one_entry(ledger: Ledger) -> None:
    """Each change increases the version and replaces all fields."""
    first = ledger.put(FULL)
    second = ledger.put(replace(first, delivered=False, intent=None, earlier=(), output_records=None))
    assert (2, None, (), None) == (second.version, second.intent, second.earlier, second.output_records)
    assert [second] == list(ledger.entries())


def test_only_the_stored_version_can_change(ledger: Ledger) -> None:
    """An entry with another version than the stored one is refused, and nothing changes."""
    first = ledger.put(entry())
    second = ledger.put(first)
    for refused in (entry(), first, replace(second, version=3)):
        with pytest.raises(LedgerConflictError):
            ledger.put(refused)
        with pytest.raises(LedgerConflictError):
            ledger.remove(refused)
    assert second == ledger.get(*second.key)


def test_removed_entry_can_be_claimed_again(ledger: Ledger) -> None:
    """After a removal, only a new entry can be stored."""
    stored = ledger.put(entry())
    ledger.remove(stored)
    assert ledger.get(*stored.key) is None
    with pytest.raises(LedgerConflictError):
        ledger.put(stored)
    with pytest.raises(LedgerConflictError):
        ledger.remove(stored)
    ledger.remove(entry())
    assert 1 == ledger.put(entry()).version


def test_overlapping_windows(ledger: Ledger) -> None:
    """Windows that only meet do not overlap; the result is sorted by window."""
    days = [(0, 1), (1, 2), (2, 5), (2.5, 3), (3, 4), (0, 9)]
    for first, last in days:
        ledger.put(entry(day=first, last=last))
    ledger.put(entry(CLICKS, day=2))
    found = ledger.overlapping([ORDERS], window(2, 3))
    assert [window(0, 9), window(2, 5), window(2.5, 3)] == [each.window for each in found]
    both = ledger.overlapping([ORDERS, CLICKS, ORDERS], window(2, 3))
    assert [window(0, 9), window(2), window(2, 5), window(2.5, 3)] == [each.window for each in both]
    assert [] == ledger.overlapping([], window(2, 3))


def test_entries_are_sorted_by_dataflow_and_window(ledger: Ledger) -> None:
    """Entries are sorted by organization, sandbox, id and window; capital letters precede others."""
    flows = [DataflowKey(org, box, flow) for org in ("a", "B") for box in ("a", "B", "\N{SNOWMAN}") for flow in "aB_"]
    for flow in flows:
        for day in (10, 9, 8):
            ledger.put(entry(flow, day=day))
    expected = [(flow, window(day)) for flow in sorted(flows) for day in (8, 9, 10)]
    assert expected == [each.key for each in ledger.entries()]
    assert expected == [each.key for each in ledger.entries(iter(flows), within=window(0, 99))]
    assert expected[1:2] == [each.key for each in ledger.entries([min(flows), CLICKS], within=window(9))]
    assert [] == list(ledger.entries([]))


def test_more_dataflows_than_one_query_reads(ledger: Ledger) -> None:
    """The number of dataflows is not limited."""
    flows = [replace(ORDERS, flow_id=f"flow-{number:03}") for number in range(0, 250, 7)]
    for flow in flows:
        ledger.put(entry(flow))
    wanted = [replace(ORDERS, flow_id=f"flow-{number:03}") for number in range(1200)]
    assert flows == [each.dataflow for each in ledger.entries(wanted)]


def test_every_field_of_a_row_is_set(ledger: Ledger) -> None:
    """An entry that was read can be compared, copied and exported like one that was made."""
    stored = ledger.put(FULL)
    found = ledger.get(*FULL.key)
    assert found is not None
    assert (hash(stored.key), stored.to_json(), repr(stored)) == (hash(found.key), found.to_json(), repr(found))
    assert {each.name for each in fields(LedgerEntry)} == set(vars(found))


def test_parallel_claims_have_one_winner(ledger: Ledger) -> None:
    """Of sixteen threads that claim the same hundred windows, exactly one claims each window."""
    if isinstance(ledger, SqlLedger) and ledger._engine.dialect.name == "postgresql":
        # Connections that are kept are faster; the claims are the same.
        ledger = SqlLedger(sa.create_engine(ledger._engine.url, pool_size=THREADS))
    won: list[tuple[int, int]] = []
    start = Barrier(THREADS)

    def claim_all(number: int) -> None:
        start.wait()
        for day in range(100):
            try:
                ledger.put(entry(day=day, owner=f"dag/run/task/{number}"))
            except LedgerConflictError:
                continue
            won.append((day, number))

    threads = [Thread(target=claim_all, args=(number,)) for number in range(THREADS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert list(range(100)) == sorted(day for day, _ in won)
    assert dict(won) == {day: int(each.owner.rpartition("/")[2]) for day, each in enumerate(ledger.entries())}


_KEYS = st.builds(
    lambda flow, day, days: (flow, window(day, day + days)),
    st.sampled_from([ORDERS, CLICKS, replace(ORDERS, sandbox="Prod")]),
    st.integers(0, 3),
    st.sampled_from([0.5, 1, 2]),
)
_VALUES = st.fixed_dictionaries(
    {
        "state": st.sampled_from(EntryState),
        "owner": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
        "flow_run_id": st.none() | st.uuids().map(str),
        "delivered": st.booleans(),
        "intent": st.none() | st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(), max_size=2),
        "output_records": st.none() | st.integers(0, 2**62),
        "earlier": st.lists(
            st.builds(
                EarlierRun, flow_run_id=st.text(max_size=3), replaced_at=st.floats(0, 2e9), replaced_by=st.just("x")
            ),
            max_size=2,
        ).map(tuple),
        "updated_at": st.floats(0, 4e9),
    }
)
_STEPS = st.lists(st.tuples(st.sampled_from(["put", "remove", "read"]), _KEYS, st.integers(0, 3), _VALUES), max_size=12)


def _outcome(ledger: Ledger, kind: str, key: Any, version: int, values: dict[str, Any]) -> Any:
    one = LedgerEntry(dataflow=key[0], window=key[1], version=version, **values)
    try:
        if kind == "put":
            return ledger.put(one)
        if kind == "remove":
            return ledger.remove(one)
        return ledger.get(*key), ledger.overlapping([key[0]], key[1]), list(ledger.entries(within=key[1]))
    except LedgerConflictError:
        return LedgerConflictError


@pytest.fixture(scope="module")
def one_file() -> Any:
    """Return an SQL ledger on SQLite for many examples."""
    with TemporaryDirectory() as folder:
        ledger = SqlLedger(f"sqlite:///{Path(folder) / 'ledger.db'}")
        ledger.migrate()
        yield ledger


@given(steps=_STEPS)
def test_sql_ledger_is_the_memory_ledger(one_file: SqlLedger, steps: list[Any]) -> None:
    """For any sequence of operations, both ledgers have the same results."""
    memory = MemoryLedger()
    for left in one_file.entries():
        one_file.remove(left)
    for step in steps:
        assert _outcome(memory, *step) == _outcome(one_file, *step)
        assert list(memory.entries()) == list(one_file.entries())


@pytest.mark.parametrize("flow_id", ["orders", "ord_rs", "100%", "ORDERS"])
def test_dataflows_with_an_id(sql_url: str, migrate: Callable[[str], SqlLedger], flow_id: str) -> None:
    """The id is a text, and no pattern. Several sandboxes can have it."""
    ledger = migrate(sql_url)
    keys = [DataflowKey("ORG@AdobeOrg", sandbox, each) for sandbox in ("dev", "prod") for each in ("orders", flow_id)]
    for key in {*keys, CLICKS}:
        ledger.put(entry(key))
    assert {key for key in keys if key.flow_id == flow_id} == set(ledger.dataflows(flow_id))
    assert {*keys, CLICKS} == set(ledger.dataflows())


def test_owners_with_a_prefix(sql_url: str, migrate: Callable[[str], SqlLedger]) -> None:
    """Only entries that overlap the range count. The prefix is a text, and no pattern."""
    ledger = migrate(sql_url)
    owners = ["a_g/run/task/-1", "a_g/other/task/-1", "dag/run/task/-1", "a_gs/run/task/-1"]
    for number, owner in enumerate(owners):
        ledger.put(entry(day=number, owner=owner))
    ledger.put(entry(CLICKS, day=0, owner=owners[0]))
    ledger.put(entry(CLICKS, day=9, owner=owners[1]))
    found = ledger.owners("a_g/", window(0, 9))
    assert [(CLICKS, owners[0]), (ORDERS, owners[1]), (ORDERS, owners[0])] == sorted(found)
