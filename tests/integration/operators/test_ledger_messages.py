"""Cost of the ledger for each window: at most three more messages to Airflow, and no more requests to Adobe."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_flowservice._airflow import variable_ledger
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.operators import OnDemandFlowRunOperator

FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"
MODES = [
    pytest.param({"wait_for_completion": False}, id="creates"),
    pytest.param({"wait_for_completion": True, "deferrable": True, "poll_interval": 0.2}, id="waits-in-the-triggerer"),
    pytest.param({"wait_for_completion": True, "deferrable": False, "poll_interval": 0.2}, id="waits-on-a-worker"),
]


@pytest.fixture
def cost(worker, supervisor, emulator, connection, tmp_path, monkeypatch):
    """Return a function that runs a task with a ledger, and returns its messages and its requests other than polls."""
    SqlLedger(f"sqlite:///{tmp_path}/ledger.db").migrate()
    # On a busy machine, a reading may be too old to be used again.
    for limit in ("_FRESH_S", "_JUST_PUT_S"):
        monkeypatch.setattr(variable_ledger, limit, 60.0)
    supervisor.connections["ledger"] = {"conn_type": "sqlite", "host": f"{tmp_path}/ledger.db", "extra": {}}

    def count(ledger: str, mode: dict[str, Any]) -> tuple[Counter[str], Counter[str]]:
        emulator.reset()
        monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER", "none" if ledger == "none" else "airflow")
        connection["extra"].pop("ledger_conn_id", None)
        if ledger == "sql":
            connection["extra"]["ledger_conn_id"] = "ledger"
        for each in (supervisor.sent, supervisor.task_state, supervisor.variables, supervisor.stored_xcoms):
            each.clear()
        assert "success" == worker.task(OnDemandFlowRunOperator, flow_id=FLOW, task_id=ledger, **mode).run().state
        requests = Counter(emulator.ledger()["requests"])
        reads = {kind for kind in requests if kind.startswith("GET /runs")}
        polls = reads if mode["wait_for_completion"] else set()
        return (
            Counter(type(each).__name__ for each in supervisor.sent),
            Counter({kind: number for kind, number in requests.items() if kind not in polls}),
        )

    return count


@pytest.mark.parametrize("mode", MODES)
def test_a_ledger_needs_at_most_three_more_messages(cost, mode):
    """The ledger replaces the task's own store of the intent; each step reads at most once and writes once.

    The claim also searches for other tasks' claims of overlapping windows.
    """
    cost("none", {"wait_for_completion": False})  # fetches the token
    messages, requests = cost("none", mode)
    for ledger in ("airflow", "sql"):
        more_messages, same_requests = cost(ledger, mode)
        assert more_messages.total() - messages.total() <= 3, (ledger, more_messages, messages)
        assert requests == same_requests, ledger


@pytest.mark.parametrize("mode", MODES)
def test_each_step_writes_the_variable_once(cost, mode):
    """The steps are the claim, the flow run's id, and the result."""
    messages, _ = cost("airflow", mode)
    assert 3 == messages["PutVariable"]
    assert messages["GetVariable"] + messages["GetVariableKeys"] <= 6
