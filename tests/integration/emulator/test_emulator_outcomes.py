"""Planned outcomes, and what may be re-triggered."""

from __future__ import annotations

import pytest

from airflow_flowservice.emulator.settings import FILE_FLOW_ID, TABLE_FLOW_ID


def code_of(answer):
    return answer.status_code, answer.json()["error-chain"][0]["errorCode"]


def ended(client, **changes):
    run_id = client.created(**changes)
    client.clock.forward(30)
    return run_id


def records(client, flow_id=TABLE_FLOW_ID):
    return client.emulator.ledger()["flows"][flow_id]["ingested_records"]


def test_a_failed_run_says_why_and_ingests_nothing(client):
    """Its errors are the planned ones, or a copy error."""
    client.emulator.plan_outcome(status="failed")
    errors = [{"code": "CONNECTOR-2001-500", "message": "boom"}]
    client.emulator.plan_outcome(status="Failed", errors=errors)
    summaries = [client.run(ended(client))["metrics"]["statusSummary"] for _ in range(2)]

    assert ["failed", "Failed"] == [summary["status"] for summary in summaries]
    assert "CONNECTOR-1001-500" == summaries[0]["errors"][0]["code"]
    assert errors == summaries[1]["errors"]
    assert 0 == records(client)


def test_a_partial_success_lacks_its_failed_records(client):
    """They count as missing."""
    client.emulator.plan_outcome(status="partialSuccess", failed_records=5)
    metrics = client.run(ended(client))["metrics"]

    assert (60, 55, 5) == tuple(
        metrics["recordSummary"][f"{name}RecordCount"] for name in ("input", "output", "failed")
    )
    assert 5 == metrics["recordSummary"]["failedInfo"][0]["count"]
    assert 5 == client.emulator.ledger(TABLE_FLOW_ID)["missing"]


def test_a_success_without_records_has_no_output_counts(client):
    """As Adobe's samples show it."""
    client.emulator.plan_outcome(status="success", records=0)
    summary = client.run(ended(client))["metrics"]["recordSummary"]

    assert {"inputRecordCount": 0, "failedRecordCount": 0} == summary
    assert 0 == records(client)


def test_a_run_may_end_with_counts_that_nobody_knows(client):
    """They are -1, as while it runs; what was ingested is the ledger's."""
    client.emulator.plan_outcome(status="partialSuccess", failed_records=5, unknown_counts=True)
    summary = client.run(ended(client))["metrics"]["recordSummary"]

    assert [-1, -1, -1] == [summary[f"{name}RecordCount"] for name in ("input", "output", "failed")]
    assert 55 == records(client)


def test_a_strange_status_is_neither_success_nor_failure(client):
    """It is shown for ever, ingests nothing, and counts as active."""
    client.emulator.plan_outcome(status="MELTED")
    run_id = ended(client)

    assert "MELTED" == client.status(run_id)
    flow = client.emulator.ledger()["flows"][TABLE_FLOW_ID]
    assert (1, 0) == (flow["active"], flow["ingested_records"])


def test_a_strange_word_may_be_shown_while_the_run_is_in_progress(client):
    """And the run may take its own time."""
    client.emulator.plan_outcome(status="COMPLETED", in_progress_status="QUEUED_AGAIN", queue_s=0, run_s=5)
    run_id = client.created()
    before = client.status(run_id)
    client.clock.forward(5)

    assert ("QUEUED_AGAIN", "COMPLETED", 60) == (before, client.status(run_id), records(client))


def test_runs_that_go_on_can_be_ended(client):
    """The oldest first, as they were planned to end; those of other flows go on."""
    client.emulator.plan_outcome(status="success", run_s=1000, times=3)
    client.emulator.plan_outcome(status="failed", run_s=1000, times=1)
    others = client.created(FILE_FLOW_ID, deltaColumn=None)
    client.clock.forward(15)
    runs = [client.created() for _ in range(3)]

    def end(**fields):
        return client.session.post(f"{client.emulator.url}/_emulator/end", json=fields, timeout=10)

    assert {"ended": 2} == end(flow_id=TABLE_FLOW_ID, count=2).json()
    assert ["inProgress", "success", "success", "scheduled"] == [client.status(run) for run in [others, *runs]]
    assert {"ended": 1} == end(flow_id=TABLE_FLOW_ID).json()
    assert "failed" == client.status(runs[2])
    assert {"ended": 0} == end(flow_id=TABLE_FLOW_ID).json()
    assert [400] * 4 == [
        end(**fields).status_code
        for fields in ({}, {"flow_id": "none"}, {"flow_id": TABLE_FLOW_ID, "count": 0}, {"id": TABLE_FLOW_ID})
    ]


def test_a_run_may_vanish_after_it_was_seen(client):
    """It can be read once, then it is gone from everywhere but the ledger."""
    client.emulator.plan_outcome(vanish=True)
    run_id = client.created()

    assert "scheduled" == client.status(run_id)
    assert 404 == client.get(f"/runs/{run_id}").status_code
    assert [] == client.get("/runs").json()["items"]
    client.clock.forward(30)
    flow = client.emulator.ledger()["flows"][TABLE_FLOW_ID]
    assert ("vanished", 0, 0) == (flow["runs"][0]["status"], flow["active"], flow["ingested_records"])


def test_an_outcome_is_for_the_next_run_unless_told_otherwise(client):
    """`times` counts runs; null means all."""
    client.emulator.plan_outcome(status="failed", times=2)
    assert ["failed", "failed", "success"] == [client.status(ended(client)) for _ in range(3)]

    client.emulator.plan_outcome(status="failed", times=None)
    assert ["failed", "failed"] == [client.status(ended(client)) for _ in range(2)]


def test_an_outcome_may_be_for_a_flow_or_a_window(client):
    """Other runs are left alone."""
    client.emulator.plan_outcome(status="failed", flow_id=FILE_FLOW_ID)
    client.emulator.plan_outcome(status="partialSuccess", covering="1970-01-01T02:30:00Z")

    assert "success" == client.status(ended(client))
    assert "failed" == client.status(ended(client, flow_id=FILE_FLOW_ID))
    hours = {"windowStartTime": 7200, "windowEndTime": 10800}
    assert ["partialSuccess", "success"] == [client.status(ended(client, **hours)) for _ in range(2)]


@pytest.mark.parametrize("fields", [{"colour": "red"}, {"covering": "someday"}])
def test_a_malformed_outcome_is_an_error(client, fields):
    """A typo in a test is told to its author."""
    with pytest.raises(ValueError, match=r"colour|someday"):
        client.emulator.plan_outcome(**fields)


@pytest.mark.parametrize("op", ["re-trigger", "RE_TRIGGER"])
def test_a_failed_run_may_be_retriggered(client, op):
    """The answer is a new run, flat, with the same window and its parent's id."""
    client.emulator.plan_outcome(status="failed")
    old = ended(client)
    answer = client.retrigger(old, op)

    assert (200, {"id", "etag"}) == (answer.status_code, set(answer.json()))
    new = client.run(answer.json()["id"])
    assert (old, 0, 3600) == (
        new["parentFlowRunId"],
        new["params"]["windowStartTime"],
        new["params"]["windowEndTime"],
    )
    assert [new["id"]] == client.run(old)["childFlowRunIds"]
    client.clock.forward(30)
    assert ("success", 60) == (client.status(new["id"]), records(client))


def test_a_success_without_records_may_be_retriggered(client):
    """There may be records by now."""
    client.emulator.plan_outcome(status="success", records=0)

    assert 200 == client.retrigger(ended(client)).status_code


def test_other_runs_may_not_be_retriggered(client):
    """1387 for a run that is active or succeeded, 1101 for none, 1401 for another action."""
    run_id = client.created()
    active = client.retrigger(run_id)
    client.clock.forward(30)

    assert (400, "1387-400") == code_of(active) == code_of(client.retrigger(run_id))
    assert (404, "1101-404") == code_of(client.retrigger("none"))
    assert (400, "1401-400") == code_of(client.retrigger(run_id, "cancel"))


def test_runs_of_a_disabled_flow_may_not_be_retriggered(client):
    """1388."""
    client.emulator.plan_outcome(status="failed")
    run_id = ended(client)
    client.emulator.add_flow(id=TABLE_FLOW_ID, state="disabled")

    assert (400, "1388-400") == code_of(client.retrigger(run_id))
