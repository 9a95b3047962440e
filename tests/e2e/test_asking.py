# SPDX-License-Identifier: Apache-2.0
"""A person answers `on_uncertain="ask"` through Airflow's REST API, and each window is ingested once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from patience import wait_until

from airflow_flowservice._airflow import versions
from airflow_flowservice.demo.rest import run_path

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

pytestmark = pytest.mark.needs_airflow(3, 1, "earlier, there are no Required Actions")

DAY = timedelta(days=1)
FIRST = datetime(2026, 2, 1, tzinfo=timezone.utc)
WAITING = "awaiting_input" if versions.supports_awaiting_input() else "deferred"


@pytest.fixture(autouse=True)
def _hidden_windows(tell: Callable[..., Any]) -> Iterator[None]:
    """Show no windows, so that only a person can decide. Remove all faults at the end."""
    tell("faults", kind="*", action="hide_windows")
    yield
    tell("faults", method="DELETE")


@pytest.fixture
def wait_for_question(airflow: LocalAirflow) -> Callable[..., dict[str, Any]]:
    """Return a function that waits until a task asks, and returns its question."""

    def wait(dag_id: str, run_id: str, *, map_index: int = -1) -> dict[str, Any]:
        def question() -> dict[str, Any] | None:
            states = {each["map_index"]: each["state"] for each in airflow.task_instances(dag_id, run_id)}
            if states.get(map_index) != WAITING:
                return None
            return dict(airflow.rest.json("GET", details(dag_id, run_id, map_index)))

        return wait_until(question, what=f"a question of {dag_id}")

    return wait


def details(dag_id: str, run_id: str, map_index: int) -> str:
    """Return the path of a question below `/api/v2`."""
    return f"{run_path(dag_id, run_id)}/taskInstances/ingest/{map_index}/hitlDetails"


def answer(airflow: LocalAirflow, dag_id: str, run_id: str, option: str, *, map_index: int = -1) -> int:
    """Answer a question as the UI does, and return the HTTP status."""
    body = {"chosen_options": [option], "params_input": {}}
    return airflow.rest.call("PATCH", details(dag_id, run_id, map_index), body=body).status_code


def test_a_person_chooses_the_lost_flow_runs(
    airflow: LocalAirflow,
    emulator: Any,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    verdict: Callable[..., tuple[int, int]],
    wait_for_question: Callable[..., dict[str, Any]],
) -> None:
    """Two mapped tasks lose their responses. One click for each decides, and each window is ingested once."""
    dag_id = "e2e_asking"
    release(dag_id)
    tell("faults", action="record_and_close", nth=1)
    tell("faults", action="record_and_close", nth=2)
    run_id = airflow.trigger(dag_id)
    questions = [wait_for_question(dag_id, run_id, map_index=index) for index in (0, 1)]

    span = (FIRST, FIRST + 2 * DAY)
    lost = {run["id"]: run for run in emulator.ledger(flow_id=flow_of(dag_id), start=span[0], end=span[1])["runs"]}
    assert lost
    for index, question in enumerate(questions):
        day = f"2026-02-0{index + 1}"
        assert f"/runs/{quote(run_id)}/tasks/ingest/mapped/{index}/required_actions" in question["body"]
        # On a busy machine, an attempt ends before it sends anything. Then no candidate is of its window.
        own = [option for option in question["options"] if is_of(lost.get(option.partition(",")[0]), day)]
        [option] = own or ["create"]
        assert 200 == answer(airflow, dag_id, run_id, option, map_index=index)
        assert 409 == answer(airflow, dag_id, run_id, "create", map_index=index)
    [run] = airflow.wait_for_runs(dag_id, count=1, timeout=240)

    assert "success" == run["state"]
    returned = {airflow.xcom(dag_id, run_id, "ingest", "return_value", map_index=index) for index in (0, 1)}
    assert returned == {
        run["id"] for run in emulator.ledger(flow_id=flow_of(dag_id), start=span[0], end=span[1])["runs"]
    }
    assert lost.keys() <= returned
    assert (0, 0) == verdict(dag_id, *span)


def is_of(run: dict[str, Any] | None, day: str) -> bool:
    """Return whether a flow run is of the window that begins on a day."""
    return run is not None and str(run["window_start"]).startswith(day)


def test_a_worker_dies_after_the_answer(
    airflow: LocalAirflow,
    release: Callable[..., None],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    ingest_elsewhere: Callable[..., None],
    verdict: Callable[..., tuple[int, int]],
    wait_for_question: Callable[..., dict[str, Any]],
) -> None:
    """The retry uses the answer `create` and does not ask again: the flow run is created once."""
    dag_id = "e2e_asking_dying"
    release(dag_id)
    tell("faults", kind="POST /runs", action="close", nth=1)
    run_id = airflow.trigger(dag_id)
    wait_until(lambda: any(each["struck"] for each in posts(tell)), what="the lost POST")
    # This flow run of another window is the only candidate.
    ingest_elsewhere(flow_of(dag_id), begin=FIRST + DAY, end=FIRST + 2 * DAY)
    question = wait_for_question(dag_id, run_id)
    assert 3 == len(question["options"])
    assert 200 == answer(airflow, dag_id, run_id, "create")
    [run] = airflow.wait_for_runs(dag_id, count=1, timeout=240)

    assert "success" == run["state"]
    assert 1 < airflow.task_instances(dag_id, run_id)[0]["try_number"]
    after = airflow.rest.json("GET", details(dag_id, run_id, -1))
    assert (["create"], question["created_at"]) == (after["chosen_options"], after["created_at"])
    assert (0, 0) == verdict(dag_id, FIRST, FIRST + 2 * DAY)


def posts(tell: Callable[..., Any]) -> list[dict[str, Any]]:
    """Return the planned faults of POSTs, with the number of requests that they changed."""
    return [each for each in tell("faults", method="GET")["faults"] if each["action"] == "close"]
