# SPDX-License-Identifier: Apache-2.0
"""Cost of one window in messages to Airflow, by kind of task and of ledger; and in requests to Adobe.

`python benchmarks/messages.py --list` prints each message with the code that sends it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from airflow_versions import VERSION

from airflow_flowservice._airflow import task_end, variable_ledger
from airflow_flowservice.ledger.sql_ledger import SqlLedger
from airflow_flowservice.operators import OnDemandFlowRunOperator
from airflow_flowservice.runs import intent_store

FLOW = "c9cef9cb-c934-4467-8ef9-cbc934546741"
MODES = [
    pytest.param({"wait_for_completion": False}, id="creates"),
    pytest.param({"wait_for_completion": True, "deferrable": True, "poll_interval": 0.2}, id="waits-in-the-triggerer"),
    pytest.param({"wait_for_completion": True, "deferrable": False, "poll_interval": 0.2}, id="waits-on-a-worker"),
]

# Messages for one new window by Airflow version, without ledger, with the ledger in Variables, and in a SQL database.
# Airflow 3.0 masks one text less. There, a deferred task ends on a worker.
TOTALS = {
    "creates": {
        (3, 3): (16, 20, 15),
        (3, 2): (18, 21, 16),
        (3, 1): (18, 21, 16),
        (3, 0): (17, 20, 14),
    },
    "waits-in-the-triggerer": {
        (3, 3): (23, 27, 25),
        (3, 2): (25, 28, 26),
        (3, 1): (26, 29, 27),
        (3, 0): (29, 32, 28),
    },
    "waits-on-a-worker": {
        (3, 3): (17, 21, 16),
        (3, 2): (19, 22, 17),
        (3, 1): (19, 22, 17),
        (3, 0): (18, 21, 15),
    },
}
# Airflow's task runner sends these, and `BaseHook.get_connection` masks the password, the extra and its values.
OF_AIRFLOW = {"SetRenderedFields": 1, "GetConnection": 1, "MaskSecret": 3, "SucceedTask": 1}


@pytest.fixture
def cost(worker, supervisor, emulator, connection, tmp_path, monkeypatch):
    """Return a function that runs a task with a ledger, and returns its messages and its requests other than polls."""
    SqlLedger(f"sqlite:///{tmp_path}/ledger.db").migrate()
    # On a busy machine, a reading may be too old to be used again.
    for module, limit in ((variable_ledger, "_FRESH_S"), (variable_ledger, "_JUST_PUT_S"), (intent_store, "_FRESH_S")):
        monkeypatch.setattr(module, limit, 60.0)
    # A deferred task ends in the triggerer, also if the environment has a listener.
    monkeypatch.setattr(task_end, "has_listeners", lambda: False)
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
def test_a_ledger_needs_few_more_messages(cost, mode):
    """The ledger replaces the task's own store of the intent; each step reads at most once and writes once.

    The claim also searches for other tasks' claims of overlapping windows. In Variables, the flow run is added to the
    claim only after another reading: another task's claim that was written meanwhile stays.
    """
    cost("none", {"wait_for_completion": False})  # fetches the token
    messages, requests = cost("none", mode)
    for ledger, most in (("airflow", 4), ("sql", 2)):
        more_messages, same_requests = cost(ledger, mode)
        assert more_messages.total() - messages.total() <= most, (ledger, more_messages, messages)
        assert requests == same_requests, ledger


@pytest.mark.parametrize("mode", MODES)
def test_number_of_messages(cost, mode, request):
    """A task sends no more messages than these; benchmarks/README.md has the reason of each."""
    totals = TOTALS[request.node.callspec.id][VERSION]
    cost("none", {"wait_for_completion": False})  # fetches the token
    assert totals == tuple(cost(ledger, mode)[0].total() for ledger in ("none", "airflow", "sql"))


def test_messages_of_a_task_that_only_creates(cost):
    """Without a ledger, this package adds four for the intent, three XComs, the token, and the previous DAG run.

    Airflow pushes the return value. It would push the two addresses of the links at the end if the task had not.
    """
    cost("none", {"wait_for_completion": False})  # fetches the token
    messages, _ = cost("none", {"wait_for_completion": False})
    counted = {kind: number for kind, number in messages.items() if "TaskState" not in kind and "Variable" not in kind}
    masks = 4 if VERSION >= (3, 1) else 3
    expected = {**OF_AIRFLOW, "MaskSecret": masks, "SetXCom": 4, "GetPreviousDagRun": 1}
    assert expected == counted


@pytest.mark.parametrize("mode", MODES)
def test_each_step_writes_the_variable_once(cost, mode):
    """The steps are the claim, the flow run's id, and the result."""
    messages, _ = cost("airflow", mode)
    assert 3 == messages["PutVariable"]
    assert messages["GetVariable"] + messages["GetVariableKeys"] <= 6
