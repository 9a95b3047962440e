# SPDX-License-Identifier: Apache-2.0
"""Ledger in Airflow's Variables, over the messages of a running task."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import pytest
from airflow_versions import VERSION, first

from airflow_flowservice._airflow import variables
from airflow_flowservice._airflow.variable_ledger import VariableLedger, ledger_key, window_of_key
from airflow_flowservice.exceptions import LedgerConflictError, LedgerUnavailableError
from airflow_flowservice.ledger.entry import DataflowKey, EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.windows.window import IngestionWindow

ORDERS = DataflowKey("ORG@AdobeOrg", "prod", "orders")
CLICKS = DataflowKey("ORG@AdobeOrg", "prod", "clicks")
DAY = timedelta(days=1)
LISTS_KEYS = pytest.mark.needs_airflow(3, 3, "a list of Variables in a task")


def day(number: int, *, days: int = 1) -> IngestionWindow:
    """Return a window of days, counted from 2026-01-09."""
    start = datetime(2026, 1, 9, tzinfo=timezone.utc) + number * DAY
    return IngestionWindow(start, start + days * DAY)


def entry(window: IngestionWindow | None = None, **values: Any) -> LedgerEntry:
    defaults = {"dataflow": ORDERS, "window": window or day(0), "state": EntryState.CLAIMED, "owner": "dag/run/task/-1"}
    return LedgerEntry(**{**defaults, **values})


@pytest.fixture
def ledger(supervisor):
    return VariableLedger()


@pytest.fixture(params=["variables", "memory"])
def any_ledger(request):
    """Return each ledger of the protocol."""
    return request.getfixturevalue("ledger") if request.param == "variables" else MemoryLedger()


# --- the contract of each ledger ---


def test_an_entry_is_read_as_it_was_stored(any_ledger):
    """All fields survive."""
    earlier = (EarlierRun(flow_run_id="old", replaced_at=1.5, replaced_by="other/run/task/3"),)
    new = entry(flow_run_id="ä", delivered=True, intent={"known": ["a"]}, output_records=3, earlier=earlier)
    stored = any_ledger.put(new)
    assert (replace(new, version=1), stored) == (stored, any_ledger.get(ORDERS, day(0)))


def test_a_missing_entry_is_none(any_ledger):
    assert any_ledger.get(ORDERS, day(0)) is None
    assert [] == any_ledger.overlapping([ORDERS, CLICKS], day(0))


def test_each_put_increases_the_version(any_ledger):
    stored = any_ledger.put(any_ledger.put(entry()))
    assert (2, 2) == (stored.version, any_ledger.get(ORDERS, day(0)).version)


@pytest.mark.parametrize("version", [0, 1, 3])
def test_another_version_is_a_conflict(any_ledger, version):
    """The entry of the other process stays."""
    stored = any_ledger.put(any_ledger.put(entry()))
    for _ in range(2):
        with pytest.raises(LedgerConflictError):
            any_ledger.put(entry(owner="late", version=version))
        with pytest.raises(LedgerConflictError):
            any_ledger.remove(entry(version=version))
    assert stored == any_ledger.get(ORDERS, day(0))


def test_a_removed_entry_is_a_conflict(any_ledger):
    stored = any_ledger.put(entry())
    any_ledger.remove(stored)
    with pytest.raises(LedgerConflictError):
        any_ledger.put(stored)
    assert any_ledger.get(ORDERS, day(0)) is None
    assert 1 == any_ledger.put(entry()).version


def test_windows_and_dataflows_are_separate(any_ledger):
    for each in (entry(), entry(day(1)), entry(dataflow=CLICKS)):
        any_ledger.put(each)
    assert [CLICKS, ORDERS] == [each.dataflow for each in any_ledger.overlapping([ORDERS, CLICKS], day(0))]


def test_overlapping_contains_exactly_this_window(any_ledger):
    """Every version of Airflow finds this one."""
    stored = any_ledger.put(entry())
    assert [stored] == any_ledger.overlapping([ORDERS], day(0))


@LISTS_KEYS
def test_overlapping_contains_other_windows(any_ledger):
    """They are sorted by window; contiguous windows do not overlap."""
    stored = [any_ledger.put(entry(window)) for window in (day(2), day(0, days=2), day(1, days=9), day(-1))]
    assert [stored[1], stored[2]] == any_ledger.overlapping([ORDERS, CLICKS], day(1))


@LISTS_KEYS
def test_entries_are_sorted_and_filtered(any_ledger):
    orders = [any_ledger.put(entry(day(number))) for number in (1, 0)]
    clicks = any_ledger.put(entry(dataflow=CLICKS))
    assert [clicks, orders[1], orders[0]] == list(any_ledger.entries())
    assert [orders[1]] == list(any_ledger.entries([ORDERS], within=day(0)))


# --- two writers ---


class Turns:
    """Supervisor that handles the messages of two threads in a given order, such as `ABBABA`."""

    def __init__(self, supervisor, order):
        self.supervisor, self.order = supervisor, list(order)
        self.changed = threading.Condition()

    def send(self, msg):
        with self.changed:
            name = threading.current_thread().name
            assert self.changed.wait_for(lambda: self.order[:1] == [name], timeout=30)
            self.order.pop(0)
            try:
                return self.supervisor.send(msg)
            finally:
                self.changed.notify_all()

    def leave(self):
        with self.changed:
            self.order = [name for name in self.order if name != threading.current_thread().name]
            self.changed.notify_all()


def race(supervisor, order, ledgers, entries):
    """Let both ledgers put their entries, with messages in this order. Return the results by name."""
    from airflow.sdk.execution_time.supervisor import set_supervisor_comms

    results: dict[str, Any] = {}
    turns = Turns(supervisor, order)

    def put(name):
        try:
            results[name] = ledgers[name].put(entries[name])
        except LedgerConflictError:
            pass
        finally:
            turns.leave()

    with set_supervisor_comms(turns):
        threads = [threading.Thread(target=put, args=(name,), name=name) for name in "AB"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return results


ORDERS_OF_MESSAGES = sorted({"".join(order) for order in permutations("AAABBB")})
# Both read, then one writes and reads back before the other writes. The read-back cannot see this.
NOT_EXCLUDED = {"ABAABB", "BAAABB", "ABBBAA", "BABBAA"}


@pytest.mark.parametrize("version", [0, 1], ids=["first claims", "changes"])
def test_of_two_puts_at_most_one_succeeds(supervisor, version):
    """All 20 orders of the messages of two writers: exactly one succeeds, except in the four orders that are listed.

    In each order, the stored entry is that of a writer that succeeded.
    """
    both = set()
    assert 20 == len(ORDERS_OF_MESSAGES)
    for order in ORDERS_OF_MESSAGES:
        supervisor.variables.clear()
        base = VariableLedger().put(entry()) if version else entry()
        # The same task, started twice: only the unique value distinguishes the entries.
        results = race(supervisor, order, {name: VariableLedger() for name in "AB"}, {"A": base, "B": base})
        assert results, order
        assert VariableLedger().get(ORDERS, day(0)) in results.values()
        if len(results) == 2:
            both.add(order)
    assert NOT_EXCLUDED == both


@pytest.mark.parametrize("order", sorted(NOT_EXCLUDED))
def test_the_overwritten_writer_gets_an_error_at_its_next_put(supervisor, order):
    """It has the same version as the stored entry, and does not overwrite it."""
    ledgers = {name: VariableLedger() for name in "AB"}
    results = race(supervisor, order, ledgers, {name: entry(owner=name) for name in "AB"})
    last = VariableLedger().get(ORDERS, day(0))
    overwritten = "A" if last.owner == "B" else "B"
    for _ in range(2):
        with pytest.raises(LedgerConflictError):
            ledgers[overwritten].put(results[overwritten])
    assert last == VariableLedger().get(ORDERS, day(0))


# --- messages ---


def kinds(supervisor):
    """Return the kinds of the messages since the last call."""
    found = [type(msg).__name__.removesuffix("Variable") for msg in supervisor.sent]
    supervisor.sent.clear()
    return found


def test_a_put_after_a_reading_needs_two_messages(ledger, supervisor):
    """An older reading is repeated, and so is one after another `put`."""
    now = [100.0]
    ledger.monotonic = lambda: now[0]
    ledger.put(ledger.put(entry()))
    stored = ledger.get(ORDERS, day(0))
    kinds(supervisor)
    stored = ledger.put(stored)
    assert ["Put", "Get"] == kinds(supervisor)
    stored = ledger.put(stored)
    assert ["Get", "Put", "Get"] == kinds(supervisor)
    ledger.get(ORDERS, day(0))
    now[0] += 0.2
    ledger.put(stored)
    assert ["Get", "Get", "Put", "Get"] == kinds(supervisor)


@pytest.mark.parametrize("state", [EntryState.CREATED, EntryState.INGESTED])
def test_only_a_claim_is_read_back(ledger, supervisor, state):
    """Without a read-back, an entry needs one message after a reading, and two otherwise."""
    stored = ledger.put(entry())
    kinds(supervisor)
    stored = ledger.put(replace(stored, state=state))
    assert ["Get", "Put"] == kinds(supervisor)
    stored = ledger.get(ORDERS, day(0))
    ledger.put(replace(stored, delivered=True))
    assert ["Get", "Put"] == kinds(supervisor)


@pytest.mark.parametrize("state", [EntryState.CREATED, EntryState.INGESTED])
def test_an_entry_is_not_overwritten_without_its_version(supervisor, state):
    """An entry without a read-back is compared before it is written, also if another writer has the same version."""
    ledgers = [VariableLedger(), VariableLedger()]
    claims = [ledgers[0].put(entry())]
    claims.append(ledgers[1].get(ORDERS, day(0)))
    ledgers[1].monotonic = lambda: float("inf")  # its reading is old
    last = ledgers[0].put(replace(claims[0], state=state, flow_run_id="first"))
    with pytest.raises(LedgerConflictError):
        ledgers[1].put(replace(claims[1], state=state, flow_run_id="second"))
    assert last == VariableLedger().get(ORDERS, day(0))


def test_a_claim_needs_three_messages_and_the_search(ledger, supervisor):
    """Before 3.3, a missing Variable is read again, since one response does not prove that there is none."""
    ledger.overlapping([ORDERS], day(0))
    ledger.put(entry())
    expected = ["GetVariableKeys", "Put", "Get"] if VERSION >= (3, 3) else ["Get", "Get", "Put", "Get"]
    assert expected == kinds(supervisor)


@LISTS_KEYS
@pytest.mark.parametrize("method", ["get", "overlapping"])
def test_an_entry_that_airflow_cannot_read_is_not_missing(ledger, supervisor, monkeypatch, method):
    """The API server reports a Variable as not found if it cannot read its database or decrypt the value."""
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    ledger.put(entry())
    unreadable = ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND, detail={})
    monkeypatch.setattr(supervisor, "_on_GetVariable", lambda _: unreadable, raising=False)
    with pytest.raises(LedgerUnavailableError, match="cannot read it"):
        # Another process: this one has just read its own claim back.
        getattr(VariableLedger(), method)(ORDERS if method == "get" else [ORDERS], day(0))


@LISTS_KEYS
def test_all_pages_of_keys_are_read(ledger, supervisor, monkeypatch):
    monkeypatch.setattr(variables, "_KEYS_PAGE_SIZE", 2)
    stored = [ledger.put(entry(day(number))) for number in range(5)]
    assert stored == list(VariableLedger().entries())


def test_a_task_cannot_list_before_3_3(ledger, monkeypatch):
    """The error names the alternatives."""
    if VERSION >= (3, 3):
        monkeypatch.delattr("airflow.sdk.execution_time.comms.GetVariableKeys")
    ledger.put(entry(day(0, days=2)))
    assert [] == ledger.overlapping([ORDERS], day(0))
    with pytest.raises(LedgerUnavailableError, match="before Airflow"):
        list(ledger.entries())


# --- what is stored ---


def test_the_description_is_the_entry(ledger, supervisor):
    """The coverage reads descriptions, which are not encrypted."""
    stored = ledger.put(entry(intent={"token": "a"}))
    [(key, value)] = supervisor.variables.items()
    assert f"flowservice.ledger.{ORDERS.digest}.20260109T000000Z.20260110T000000Z" == key
    assert value == supervisor.descriptions[key]
    assert stored == LedgerEntry.from_json(json.loads(value))
    assert day(0) == window_of_key(key)


def test_a_description_fits_into_the_column(ledger, supervisor):
    """A TEXT column of MySQL has 65,535 bytes."""
    stored = ledger.put(entry(intent={"known": ["a" * 36] * 3000}))
    assert len(supervisor.descriptions[ledger_key(*stored.key)]) < 100
    assert stored == VariableLedger().get(ORDERS, day(0))


def test_values_are_not_masked():
    """Airflow masks the values of Variables with a word such as "token" in the key in all logs."""
    hides = first(
        "should_hide_value_for_key",
        "airflow.sdk._shared.secrets_masker",
        "airflow.sdk.execution_time.secrets_masker",
    )
    assert hides("flowservice.token")
    for number in range(1000):
        assert not hides(ledger_key(replace(ORDERS, flow_id=f"secret-token-{number}"), day(number)))


@pytest.mark.parametrize("text", ["", "not JSON", "{}", "[1]", '{"state": "claimed"}'])
def test_a_variable_that_is_no_entry_is_not_overwritten(ledger, supervisor, text):
    """It is not taken for a missing entry."""
    key = ledger_key(ORDERS, day(0))
    supervisor.variables[key] = text
    with pytest.raises(LedgerUnavailableError, match="not the ledger's entry"):
        ledger.get(ORDERS, day(0))
    with pytest.raises((LedgerUnavailableError, LedgerConflictError)):
        ledger.put(entry())
    assert text == supervisor.variables[key]


@pytest.mark.parametrize("key", ["flowservice.ledger", "flowservice.ledger.x", "other.x.20260109T000000Z.2026"])
def test_other_keys_have_no_window(key):
    assert window_of_key(key) is None


# --- errors of Airflow ---


def _error(kind, **detail):
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    return ErrorResponse(error=getattr(ErrorType, kind, None) or ErrorType.GENERIC_ERROR, detail=detail)


def _raise(error):
    raise error


def _runtime_error():
    from airflow.sdk.exceptions import AirflowRuntimeError

    raise AirflowRuntimeError(_error("API_SERVER_ERROR", status_code=500))


FAILURES = {
    "error response": lambda: _error("GENERIC_ERROR"),
    "exception of a message": _runtime_error,
    "closed socket": lambda: _raise(EOFError("Request socket closed")),
    "broken pipe": lambda: _raise(BrokenPipeError()),
    "timeout": lambda: _raise(TimeoutError()),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("message", ["GetVariable", "PutVariable", "DeleteVariable"])
def test_errors_of_airflow_are_errors_of_the_ledger(ledger, supervisor, monkeypatch, message, failure):
    """The error names the Variable, and a retry is possible."""
    stored = ledger.put(entry())
    monkeypatch.setattr(supervisor, f"_on_{message}", lambda _: FAILURES[failure](), raising=False)
    calls = {
        "GetVariable": lambda: ledger.get(ORDERS, day(0)),
        "PutVariable": lambda: ledger.put(stored),
        "DeleteVariable": lambda: ledger.remove(stored),
    }
    with pytest.raises(LedgerUnavailableError, match="flowservice") as caught:
        calls[message]()
    assert caught.value.retryable


def test_a_lost_response_to_a_put_is_an_error(ledger, supervisor, monkeypatch):
    """If the Variable was written nevertheless, a later put of the same version is a conflict."""

    def write_and_fail(msg):
        supervisor.variables[msg.key] = msg.value
        raise TimeoutError

    with monkeypatch.context() as patch:
        patch.setattr(supervisor, "_on_PutVariable", write_and_fail)
        with pytest.raises(LedgerUnavailableError):
            ledger.put(entry())
    with pytest.raises(LedgerConflictError):
        ledger.put(entry())


@pytest.mark.needs_airflow(3, 3, "denied access to Variables as an error of its kind")
def test_denied_access_has_a_remedy(ledger, supervisor, monkeypatch):
    denied = _error("PERMISSION_DENIED", status_code=403)
    monkeypatch.setattr(supervisor, "_on_GetVariable", lambda _: denied)
    with pytest.raises(LedgerUnavailableError, match="denies access") as caught:
        ledger.get(ORDERS, day(0))
    assert "allow Airflow's tasks to read and write the Variables" in caught.value.remedy


def test_access_denied_by_a_secrets_backend_has_a_remedy(ledger, supervisor, monkeypatch):
    """Airflow 3.2 and later raise this exception where a message is not used."""
    denied = type("AirflowSecretsBackendAccessDenied", (PermissionError,), {})
    monkeypatch.setattr(supervisor, "_on_GetVariable", lambda _: _raise(denied("no")))
    with pytest.raises(LedgerUnavailableError, match="denies access") as caught:
        ledger.get(ORDERS, day(0))
    assert "ledger_conn_id" in caught.value.remedy
