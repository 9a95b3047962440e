# SPDX-License-Identifier: Apache-2.0
"""Tests of reading runs and flows: status, window, filters, order and pagination."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_flowservice.emulator.settings import (
    DISABLED_FLOW_ID,
    FILE_FLOW_ID,
    HOURLY_FLOW_ID,
    TABLE_FLOW_ID,
)


def ids(response):
    return [item["id"] for item in response.json()["items"]]


def code_of(response):
    return response.status_code, response.json()["error-chain"][0]["errorCode"]


def test_run_statuses_follow_durations(client):
    """A run is scheduled for `queue_s`, then in progress for `run_s`, then a success."""
    run_id = client.created()
    seen = [client.status(run_id)]
    for seconds in (9, 1, 19, 1):
        client.clock.advance(seconds)
        seen.append(client.status(run_id))

    assert ["scheduled", "scheduled", "inProgress", "inProgress", "success"] == seen


def test_later_start_time_delays_run(client):
    """If `startTime` is after the creation, `queue_s` counts from `startTime`."""
    run_id = client.created(startTime=int(client.clock.now) + 100)

    client.clock.advance(109)
    before = client.status(run_id)
    client.clock.advance(1)

    assert ("scheduled", "inProgress") == (before, client.status(run_id))


def test_record_counts_appear_at_end_of_run(client):
    """The counts are absent, then -1, then one record for each minute of the window."""
    run_id = client.created()
    scheduled = client.run(run_id)["metrics"]
    client.clock.advance(10)
    running = client.run(run_id)["metrics"]
    client.clock.advance(20)
    ended = client.run(run_id)["metrics"]

    assert {"statusSummary": {"status": "scheduled"}} == scheduled
    assert -1 == running["recordSummary"]["inputRecordCount"]
    assert 60 == ended["recordSummary"]["inputRecordCount"] == ended["recordSummary"]["outputRecordCount"]
    assert 20_000 == ended["durationSummary"]["completedAtUTC"] - ended["durationSummary"]["startedAtUTC"]
    assert {"inputBytes", "outputBytes"} == set(ended["sizeSummary"])
    assert {"inputFileCount", "outputFileCount"} == set(ended["fileSummary"])


def test_run_has_client_and_creation_time(client):
    """Times are in epoch milliseconds."""
    run = client.run(client.created())

    assert (TABLE_FLOW_ID, "emulator-client", "prod") == (
        run["flowId"],
        run["createdClient"],
        run["sandboxName"],
    )
    assert client.clock.now * 1000 == run["createdAt"] == run["updatedAt"]


@pytest.mark.parametrize(("show_window", "has_params", "has_extensions"), [
    ("params", True, False),
    ("activity", False, True),
    ("none", False, False),
])  # fmt: skip
def test_show_window_setting(client_with, show_window, has_params, has_extensions):
    """The window is in the params, in the copy activity, or absent."""
    with client_with(show_window=show_window) as client:
        run_id = client.created()
        assert [] == client.run(run_id)["activities"]
        client.clock.advance(10)
        run = client.run(run_id)

        assert has_params == ("params" in run)
        extensions = run["activities"][0]["durationSummary"].get("extensions")
        assert ({"windowStart": 0, "windowEnd": 3_600_000} if has_extensions else None) == extensions


def test_unknown_run_is_not_found(client):
    """A request for an unknown run gets status 404 with code 1101."""
    assert (404, "1101-404") == code_of(client.get("/runs/none"))


def test_filters_select_runs(client):
    """Filters support equality, lists of values, comparison and dotted paths. They are joined with AND."""
    first = client.created(windowEndTime=60)
    client.clock.advance(5)
    second = client.created(windowEndTime=120)
    third = client.created(FILE_FLOW_ID)
    middle = int(client.clock.now * 1000)

    def listed(*conditions):
        return ids(client.get("/runs", property=list(conditions)))

    assert [first, second] == listed(f"flowId=={TABLE_FLOW_ID}")
    assert [second, third] == listed(f"createdAt>={middle}")
    assert [first] == listed(f"createdAt<{middle}")
    assert [first, third] == listed(f"id=={third},{first},none")
    assert [second] == listed(f"flowId=={TABLE_FLOW_ID}", f"createdAt>={middle}")
    assert [third] == listed(f"flowId!={TABLE_FLOW_ID}")
    assert [second] == listed("params.windowEndTime==120")
    assert [second, third] == listed("params.windowEndTime>60")
    assert [first, second, third] == listed("metrics.statusSummary.status==scheduled")
    assert [first, second, third] == listed(f"flowId=={TABLE_FLOW_ID},{FILE_FLOW_ID}")
    assert [] == listed(f"id=={first}", f"flowId=={FILE_FLOW_ID}")
    assert [] == listed("no.such.path==1")


@pytest.mark.parametrize("condition", ["flowId", "flowId=x", "==x", "createdAt>1,2", "flowId!=a,b"])
def test_invalid_filter_is_rejected(client, condition):
    """An invalid filter gets status 400 with code 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", property=condition))


def test_runs_are_ordered(client):
    """The default is the order of creation. A leading dash reverses the order."""
    created = []
    for _ in range(3):
        created.append(client.created(windowEndTime=60 * (3 - len(created))))
        client.clock.advance(1)

    assert created == ids(client.get("/runs"))
    assert created == ids(client.get("/runs", orderby="createdAt"))
    assert created[::-1] == ids(client.get("/runs", orderby="-createdAt"))
    assert created[::-1] == ids(client.get("/runs", orderby="params.windowEndTime"))
    assert (400, "1401-400") == code_of(client.get("/runs", orderby="-"))


def next_token(response):
    return parse_qs(urlsplit(response.json()["_links"]["next"]["href"]).query)["continuationToken"][0]


@pytest.mark.parametrize("orderby", ["createdAt", "-createdAt", "id"])
def test_pages_contain_every_run_once(client, orderby):
    """The last page has no links."""
    created = [client.created() for _ in range(7)]
    response = client.get("/runs", limit=3, orderby=orderby)
    found = ids(response)
    while response.json()["_links"]:
        response = client.get("/runs", limit=3, orderby=orderby, continuationToken=next_token(response))
        found += ids(response)

    assert sorted(created) == sorted(found)
    assert {} == response.json()["_links"]


def test_truncated_continuation_token_is_rejected(client):
    """The token has padding, so a client that truncates it at `=` gets an error."""
    for _ in range(3):
        client.create()
    token = next_token(client.get("/runs", limit=1))

    assert token.endswith("==")
    assert (400, "1401-400") == code_of(client.get("/runs", continuationToken=token.split("=")[0]))


def test_run_created_between_two_pages_omits_no_run(client):
    """A page starts after the last run of the previous page."""
    created = [client.created() for _ in range(4)]
    first = client.get("/runs", limit=2, orderby="-createdAt")
    client.created()
    second = client.get("/runs", limit=2, orderby="-createdAt", continuationToken=next_token(first))

    assert created[::-1] == ids(first) + ids(second)


def test_default_and_maximum_page_size(client):
    """The default is 20 runs and the maximum is 100, as at Adobe."""
    for _ in range(101):
        client.create()

    assert (20, 100) == (len(ids(client.get("/runs"))), len(ids(client.get("/runs", limit=500))))


@pytest.mark.parametrize("limit", ["0", "-1", "many", ""])
def test_invalid_limit_is_rejected(client, limit):
    """An invalid limit gets status 400 with code 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", limit=limit))


def test_count_includes_all_pages(client):
    """The count is the number of all runs that pass the filters."""
    for _ in range(25):
        client.create()
    client.create(FILE_FLOW_ID)

    assert 25 == client.get("/runs", property=f"flowId=={TABLE_FLOW_ID}", count="true").json()["count"]


def test_count_and_limit_are_mutually_exclusive(client):
    """A request with both gets status 400 with code 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", count="true", limit=5))


def test_emulator_has_four_initial_flows(client):
    """There is one flow of each kind that a client must distinguish."""
    flows = {flow["id"]: flow for flow in client.get("/flows").json()["items"]}

    assert [TABLE_FLOW_ID, FILE_FLOW_ID, HOURLY_FLOW_ID, DISABLED_FLOW_ID] == list(flows)
    assert "once" == flows[TABLE_FLOW_ID]["scheduleParams"]["frequency"]
    assert "hour" == flows[HOURLY_FLOW_ID]["scheduleParams"]["frequency"]
    assert "disabled" == flows[DISABLED_FLOW_ID]["state"]


def test_flows_are_filtered_and_paginated(client):
    """Lists of flows accept the same parameters as lists of runs."""
    page = client.get("/flows", limit=1, property="state==enabled", orderby="-name")
    rest = client.get("/flows", property="state==enabled", orderby="-name", continuationToken=next_token(page))

    assert [TABLE_FLOW_ID, HOURLY_FLOW_ID, FILE_FLOW_ID] == ids(page) + ids(rest)
    assert 3 == client.get("/flows", property="state==enabled", count="true").json()["count"]


@pytest.mark.parametrize(("flow_id", "has_delta"), [(TABLE_FLOW_ID, True), (FILE_FLOW_ID, False)])
def test_flow_spec_distinguishes_tables_from_files(client, flow_id, has_delta):
    """Only the run specification of a table-based flow requires a delta column."""
    flow = client.get(f"/flows/{flow_id}").json()["items"][0]
    spec = client.get(f"/flowSpecs/{flow['flowSpec']['id']}").json()["items"][0]

    assert has_delta == ("deltaColumn" in spec["runSpec"]["spec"]["required"])


def test_flow_has_connections(client):
    """A flow has the ids of its target connection, with the dataset, and of its source connection."""
    flow_id = client.emulator.add_flow(name="mine", kind="file", dataset_id="d1")
    flow = client.get(f"/flows/{flow_id}").json()["items"][0]
    target = client.get(f"/targetConnections/{flow['targetConnectionIds'][0]}").json()["items"][0]
    source = client.get(f"/sourceConnections/{flow['sourceConnectionIds'][0]}").json()["items"][0]

    assert ("mine", "d1", {"path": "/made-up"}) == (
        flow["name"],
        target["params"]["dataSetId"],
        source["params"],
    )
    assert flow["targetConnectionIds"][0] == flow["inheritedAttributes"]["targetConnections"][0]["id"]


@pytest.mark.parametrize(
    "path", ["/flows/none", "/flowSpecs/none", "/targetConnections/none", "/sourceConnections/none"]
)
def test_unknown_resource_is_not_found(client, path):
    """A request for an unknown resource gets status 404 with code 1101."""
    assert (404, "1101-404") == code_of(client.get(path))


def test_flow_has_last_run_details(client):
    """`lastRunDetails` shows the newest run."""
    run_id = client.created()
    client.clock.advance(30)
    flow = client.get(f"/flows/{TABLE_FLOW_ID}").json()["items"][0]

    assert (run_id, "success") == (flow["lastRunDetails"]["id"], flow["lastRunDetails"]["state"])


def test_flow_can_be_changed_by_id(client):
    """Fields that are not given keep their values."""
    client.emulator.add_flow(id=DISABLED_FLOW_ID, state="enabled", delta_column="DOB")
    flow = client.get(f"/flows/{DISABLED_FLOW_ID}").json()["items"][0]

    assert ("enabled", "Returns (table, disabled)") == (flow["state"], flow["name"])
    assert {"name": "DOB"} == flow["transformations"][0]["params"]["deltaColumn"]


def test_invalid_flow_is_rejected(client):
    """A wrong field or kind raises an error that names it."""
    with pytest.raises(ValueError, match="A flow has no field colour"):
        client.emulator.add_flow(colour="red")
    with pytest.raises(ValueError, match="kind must be one of table, file, streaming"):
        client.emulator.add_flow(kind="queue")
