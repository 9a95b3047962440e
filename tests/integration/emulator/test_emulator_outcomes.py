# SPDX-License-Identifier: Apache-2.0
"""Tests of planned outcomes and of re-triggers."""

from __future__ import annotations

import pytest

from airflow_flowservice.emulator.settings import FILE_FLOW_ID, TABLE_FLOW_ID


def code_of(response):
    return response.status_code, response.json()["error-chain"][0]["errorCode"]


def create_ended_run(client, **changes):
    run_id = client.created(**changes)
    client.clock.advance(30)
    return run_id


def ingested_records(client, flow_id=TABLE_FLOW_ID):
    return client.emulator.ledger()["flows"][flow_id]["ingested_records"]


def test_failed_run_has_errors_and_ingests_nothing(client):
    """The errors are the planned errors or a default copy error."""
    client.emulator.plan_outcome(status="failed")
    errors = [{"code": "CONNECTOR-2001-500", "message": "boom"}]
    client.emulator.plan_outcome(status="Failed", errors=errors)
    summaries = [client.run(create_ended_run(client))["metrics"]["statusSummary"] for _ in range(2)]

    assert ["failed", "Failed"] == [summary["status"] for summary in summaries]
    assert "CONNECTOR-1001-500" == summaries[0]["errors"][0]["code"]
    assert errors == summaries[1]["errors"]
    assert 0 == ingested_records(client)


def test_failed_records_of_partial_success_are_missing(client):
    client.emulator.plan_outcome(status="partialSuccess", failed_records=5)
    metrics = client.run(create_ended_run(client))["metrics"]

    assert (60, 55, 5) == tuple(
        metrics["recordSummary"][f"{name}RecordCount"] for name in ("input", "output", "failed")
    )
    assert 5 == metrics["recordSummary"]["failedInfo"][0]["count"]
    assert 5 == client.emulator.ledger(TABLE_FLOW_ID)["missing"]


def test_success_without_records_has_no_output_counts(client):
    """The response has the format of Adobe's samples."""
    client.emulator.plan_outcome(status="success", records=0)
    summary = client.run(create_ended_run(client))["metrics"]["recordSummary"]

    assert {"inputRecordCount": 0, "failedRecordCount": 0} == summary
    assert 0 == ingested_records(client)


def test_run_may_end_with_unknown_counts(client):
    """The run shows counts of -1. The ledger contains the ingested records."""
    client.emulator.plan_outcome(status="partialSuccess", failed_records=5, unknown_counts=True)
    summary = client.run(create_ended_run(client))["metrics"]["recordSummary"]

    assert [-1, -1, -1] == [summary[f"{name}RecordCount"] for name in ("input", "output", "failed")]
    assert 55 == ingested_records(client)


def test_unknown_status_is_neither_success_nor_failure(client):
    """A run with an unknown status ingests nothing and stays active."""
    client.emulator.plan_outcome(status="MELTED")
    run_id = create_ended_run(client)

    assert "MELTED" == client.status(run_id)
    flow = client.emulator.ledger()["flows"][TABLE_FLOW_ID]
    assert (1, 0) == (flow["active"], flow["ingested_records"])


def test_outcome_may_set_status_and_duration_of_progress(client):
    client.emulator.plan_outcome(status="COMPLETED", in_progress_status="QUEUED_AGAIN", queue_s=0, run_s=5)
    run_id = client.created()
    before = client.status(run_id)
    client.clock.advance(5)

    assert ("QUEUED_AGAIN", "COMPLETED", 60) == (before, client.status(run_id), ingested_records(client))


def test_active_runs_can_be_ended(client):
    """`/_emulator/end` ends the oldest active runs of one flow with their planned outcome."""
    client.emulator.plan_outcome(status="success", run_s=1000, times=3)
    client.emulator.plan_outcome(status="failed", run_s=1000, times=1)
    others = client.created(FILE_FLOW_ID, deltaColumn=None)
    client.clock.advance(15)
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


def test_run_may_vanish_after_first_read(client):
    """A vanished run is only in the ledger."""
    client.emulator.plan_outcome(vanish=True)
    run_id = client.created()

    assert "scheduled" == client.status(run_id)
    assert 404 == client.get(f"/runs/{run_id}").status_code
    assert [] == client.get("/runs").json()["items"]
    client.clock.advance(30)
    flow = client.emulator.ledger()["flows"][TABLE_FLOW_ID]
    assert ("vanished", 0, 0) == (flow["runs"][0]["status"], flow["active"], flow["ingested_records"])


def test_outcome_applies_to_number_of_runs(client):
    """`times` is the number of runs. Its default is 1, and null means all runs."""
    client.emulator.plan_outcome(status="failed", times=2)
    assert ["failed", "failed", "success"] == [client.status(create_ended_run(client)) for _ in range(3)]

    client.emulator.plan_outcome(status="failed", times=None)
    assert ["failed", "failed"] == [client.status(create_ended_run(client)) for _ in range(2)]


def test_outcome_may_select_flow_or_window(client):
    """An outcome does not affect runs that it does not select."""
    client.emulator.plan_outcome(status="failed", flow_id=FILE_FLOW_ID)
    client.emulator.plan_outcome(status="partialSuccess", covering="1970-01-01T02:30:00Z")

    assert "success" == client.status(create_ended_run(client))
    assert "failed" == client.status(create_ended_run(client, flow_id=FILE_FLOW_ID))
    hours = {"windowStartTime": 7200, "windowEndTime": 10800}
    assert ["partialSuccess", "success"] == [client.status(create_ended_run(client, **hours)) for _ in range(2)]


@pytest.mark.parametrize("fields", [{"colour": "red"}, {"covering": "someday"}])
def test_malformed_outcome_is_rejected(client, fields):
    """A wrong field or value raises an error that names it."""
    with pytest.raises(ValueError, match=r"colour|someday"):
        client.emulator.plan_outcome(**fields)


@pytest.mark.parametrize("op", ["re-trigger", "RE_TRIGGER"])
def test_failed_run_can_be_retriggered(client, op):
    """A re-trigger creates a run with the same window and the id of its parent."""
    client.emulator.plan_outcome(status="failed")
    old = create_ended_run(client)
    response = client.retrigger(old, op)

    assert (200, {"id", "etag"}) == (response.status_code, set(response.json()))
    new = client.run(response.json()["id"])
    assert (old, 0, 3600) == (
        new["parentFlowRunId"],
        new["params"]["windowStartTime"],
        new["params"]["windowEndTime"],
    )
    assert [new["id"]] == client.run(old)["childFlowRunIds"]
    client.clock.advance(30)
    assert ("success", 60) == (client.status(new["id"]), ingested_records(client))


def test_success_without_records_can_be_retriggered(client):
    client.emulator.plan_outcome(status="success", records=0)

    assert 200 == client.retrigger(create_ended_run(client)).status_code


def test_other_runs_cannot_be_retriggered(client):
    """An active or successful run gets error 1387, an unknown run 1101 and an unknown action 1401."""
    run_id = client.created()
    active = client.retrigger(run_id)
    client.clock.advance(30)

    assert (400, "1387-400") == code_of(active) == code_of(client.retrigger(run_id))
    assert (404, "1101-404") == code_of(client.retrigger("none"))
    assert (400, "1401-400") == code_of(client.retrigger(run_id, "cancel"))


def test_runs_of_disabled_flow_cannot_be_retriggered(client):
    """A re-trigger for a disabled flow gets error 1388."""
    client.emulator.plan_outcome(status="failed")
    run_id = create_ended_run(client)
    client.emulator.add_flow(id=TABLE_FLOW_ID, state="disabled")

    assert (400, "1388-400") == code_of(client.retrigger(run_id))


def test_status_in_the_state_of_older_documents(client):
    """A scheduled run has no `state`."""
    client.emulator.plan_outcome(status="success", status_place="state")
    run_id = client.created()
    shown = [client.run(run_id)]
    for seconds in (10, 30):
        client.clock.advance(seconds)
        shown.append(client.run(run_id))

    assert [None, "inProgress", "succeeded"] == [run.get("state") for run in shown]
    assert not any("status" in run["metrics"]["statusSummary"] for run in shown)


@pytest.mark.parametrize(("place", "in_activity"), [("activities", "success"), ("nowhere", None)])
def test_ended_run_without_a_status(client, place, in_activity):
    """It has a completion time, and ingests its records."""
    client.emulator.plan_outcome(status="success", status_place=place)
    run = client.run(create_ended_run(client))

    assert "status" not in run["metrics"]["statusSummary"]
    assert in_activity == run["activities"][0]["statusSummary"].get("status")
    assert run["metrics"]["durationSummary"]["completedAtUTC"]
    assert 60 == ingested_records(client)


def test_errors_in_the_extensions(client):
    errors = [{"code": "INGEST-1205-400", "description": "no such field"}]
    client.emulator.plan_outcome(status="failed", errors=[], extension_errors=errors, error_detail="no host")
    run = client.run(create_ended_run(client))

    assert {"status": "failed", "extensions": {"errors": errors}} == run["metrics"]["statusSummary"]
    assert "no host" == run["activities"][0]["statusSummary"]["extensions"]["errorDetail"]


def test_record_summary_replaces_counts(client):
    client.emulator.plan_outcome(status="success", record_summary={"updatedRecordCount": 5, "failedRecordCount": None})
    summary = client.run(create_ended_run(client))["metrics"]["recordSummary"]

    assert (5, 60, False) == (
        summary["updatedRecordCount"],
        summary["inputRecordCount"],
        "failedRecordCount" in summary,
    )


def test_unknown_status_place_is_refused(client):
    with pytest.raises(ValueError, match="status_place must be one of metrics, state, activities, nowhere"):
        client.emulator.plan_outcome(status_place="moon")
