# SPDX-License-Identifier: Apache-2.0
"""The name of a dataflow is kept in the intent of the ledger's entry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from creations import LOST, SUCCESS

from airflow_flowservice.api.models import Flow
from airflow_flowservice.coverage.fleet_records import newest_name
from airflow_flowservice.ledger.entry import DataflowKey
from airflow_flowservice.ledger.store import MemoryLedger
from airflow_flowservice.runs.flow_check import checked
from airflow_flowservice.runs.intent import Intent, Order, bounded_name, name_in_intent
from airflow_flowservice.runs.ledger_intents import LedgerPolicy, deliver

DATAFLOW = DataflowKey("org", "prod", "flow")
OWNER = "dag/one/task/-1"


@pytest.fixture
def ledger() -> MemoryLedger:
    return MemoryLedger()


def attempt(world: Any, ledger: MemoryLedger, *, name: str | None, number: int = 1, **options: Any) -> str:
    """Create the window's flow run while the dataflow has this name; return the flow run id."""
    world.service.flow = Flow(id="flow", name=name, state="enabled")
    policy = LedgerPolicy(ledger=ledger, dataflow=DATAFLOW, owner=OWNER)
    outcome = world.attempt(number=number, ledger=policy, **{"check_flow": True, **options})
    return str(outcome.flow_run_id)


def names(ledger: MemoryLedger) -> list[str | None]:
    return [name_in_intent(entry.intent) for entry in ledger.entries()]


def test_entry_has_the_name_that_the_check_read(make_world: Any, ledger: MemoryLedger) -> None:
    """The entry keeps it after the flow run is known, and after the task's success."""
    world = make_world()
    flow_run_id = attempt(world, ledger, name="Orders to profiles")
    assert ["Orders to profiles"] == names(ledger)
    assert 1 == world.service.flows_read
    world.service.end(flow_run_id, SUCCESS)
    deliver(ledger, dataflow=DATAFLOW, window=world.order().window, flow_run_id=flow_run_id, owner=OWNER)
    assert ["Orders to profiles"] == names(ledger)


def test_retry_keeps_the_name(make_world: Any, ledger: MemoryLedger) -> None:
    """A retry that finds the flow run of a lost response does not read the dataflow again."""
    world = make_world()
    world.service.plan = [LOST]
    attempt(world, ledger, name="Orders")
    assert ["Orders"] == names(ledger)


def test_without_a_check_there_is_no_name(make_world: Any, ledger: MemoryLedger) -> None:
    """A dataflow that is not read, or has no name, has no name in its entry, and no key for it."""
    attempt(make_world(), ledger, name="Orders", check_flow=False)
    assert [None] == names(ledger)
    assert not ["flow_name" for entry in ledger.entries() if "flow_name" in (entry.intent or {})]


def test_newest_name_is_the_one_of_the_last_change(make_world: Any, ledger: MemoryLedger) -> None:
    """A renamed dataflow has its newest name; entries without a name do not hide it."""
    attempt(make_world(), ledger, name="Orders")
    (entry,) = ledger.entries()
    intent = entry.intent or {}
    renamed = replace(entry, updated_at=entry.updated_at + 1, intent={**intent, "flow_name": "Orders 2"})
    unnamed = replace(entry, updated_at=entry.updated_at + 2, intent=None)
    for order in ([entry, renamed, unnamed], [unnamed, renamed, entry]):
        assert "Orders 2" == newest_name(order)
    assert newest_name([unnamed]) is newest_name([]) is None


def test_name_makes_no_other_order() -> None:
    """A dataflow that is renamed between two requests causes no second request."""
    order = Order(flow_id="flow")
    named = [checked(order, Flow(id="flow", name=name)) for name in ("Orders", "Orders 2")]
    assert named[0] == named[1] == order
    assert ["Orders", "Orders 2"] == [each.flow_name for each in named]
    assert "flow_name" not in order.to_json()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("  Orders  ", "Orders"),
        ("a\x1b[31m\nb\x00", "a\N{REPLACEMENT CHARACTER}[31m b\N{REPLACEMENT CHARACTER}"),
        ("n" * 500, f"{'n' * 199}…"),
        ("Größe 注文", "Größe 注文"),
        ("   ", None),
        ("", None),
        (None, None),
        (7, None),
        (["Orders"], None),
    ],
    ids=["spaces", "unprintable", "long", "not ascii", "blank", "empty", "none", "number", "list"],
)
def test_name_is_cleaned_and_bounded(name: Any, expected: str | None) -> None:
    assert expected == bounded_name(name) == name_in_intent({"flow_name": name})


@pytest.mark.parametrize("intent", [None, "text", ["flow_name"], 7, {}], ids=repr)
def test_other_intents_have_no_name(intent: Any) -> None:
    """An entry of an earlier version, or one that a user changed, has no name."""
    assert name_in_intent(intent) is None


def test_intent_keeps_the_name_in_json() -> None:
    intent = Intent(order="o", max_tries=1, token="t", written_at=1.5, flow_name="Orders")
    assert intent == Intent.from_json(intent.to_json())
    assert "flow_name" not in replace(intent, flow_name=None).to_json()
