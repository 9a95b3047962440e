"""How runs and flows look when they are read: lifecycle, windows, filters, order, pages."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_flowservice.emulator.settings import (
    DISABLED_FLOW_ID,
    FILE_FLOW_ID,
    HOURLY_FLOW_ID,
    TABLE_FLOW_ID,
)


def ids(answer):
    return [item["id"] for item in answer.json()["items"]]


def code_of(answer):
    return answer.status_code, answer.json()["error-chain"][0]["errorCode"]


def test_a_run_passes_through_its_statuses(client):
    """Scheduled for queue_s, in progress for run_s, then success."""
    run_id = client.created()
    seen = [client.status(run_id)]
    for seconds in (9, 1, 19, 1):
        client.clock.forward(seconds)
        seen.append(client.status(run_id))

    assert ["scheduled", "scheduled", "inProgress", "inProgress", "success"] == seen


def test_a_later_start_time_postpones_a_run(client):
    """The queue counts from startTime when that is later than the creation."""
    run_id = client.created(startTime=int(client.clock.now) + 100)

    client.clock.forward(109)
    before = client.status(run_id)
    client.clock.forward(1)

    assert ("scheduled", "inProgress") == (before, client.status(run_id))


def test_counts_come_when_the_run_has_ended(client):
    """Absent while scheduled, -1 while in progress, then one record for each minute of the window."""
    run_id = client.created()
    scheduled = client.run(run_id)["metrics"]
    client.clock.forward(10)
    running = client.run(run_id)["metrics"]
    client.clock.forward(20)
    ended = client.run(run_id)["metrics"]

    assert {"statusSummary": {"status": "scheduled"}} == scheduled
    assert -1 == running["recordSummary"]["inputRecordCount"]
    assert 60 == ended["recordSummary"]["inputRecordCount"] == ended["recordSummary"]["outputRecordCount"]
    assert 20_000 == ended["durationSummary"]["completedAtUTC"] - ended["durationSummary"]["startedAtUTC"]
    assert {"inputBytes", "outputBytes"} == set(ended["sizeSummary"])
    assert {"inputFileCount", "outputFileCount"} == set(ended["fileSummary"])


def test_a_run_says_who_made_it_and_when(client):
    """Ids, epoch milliseconds and the client."""
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
def test_the_window_shows_where_it_is_told_to(client_with, show_window, has_params, has_extensions):
    """In params, in the copy activity, or nowhere."""
    with client_with(show_window=show_window) as client:
        run_id = client.created()
        assert [] == client.run(run_id)["activities"]
        client.clock.forward(10)
        run = client.run(run_id)

        assert has_params == ("params" in run)
        extensions = run["activities"][0]["durationSummary"].get("extensions")
        assert ({"windowStart": 0, "windowEnd": 3_600_000} if has_extensions else None) == extensions


def test_an_unknown_run_is_not_found(client):
    """404 with 1101."""
    assert (404, "1101-404") == code_of(client.get("/runs/none"))


def test_filters_select_runs(client):
    """Equality, one of several, comparison, dotted paths; joined with AND."""
    first = client.created(windowEndTime=60)
    client.clock.forward(5)
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
def test_a_filter_that_cannot_be_meant_is_refused(client, condition):
    """400 with 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", property=condition))


def test_runs_are_ordered(client):
    """As created unless told otherwise; a dash turns the order round."""
    created = []
    for _ in range(3):
        created.append(client.created(windowEndTime=60 * (3 - len(created))))
        client.clock.forward(1)

    assert created == ids(client.get("/runs"))
    assert created == ids(client.get("/runs", orderby="createdAt"))
    assert created[::-1] == ids(client.get("/runs", orderby="-createdAt"))
    assert created[::-1] == ids(client.get("/runs", orderby="params.windowEndTime"))
    assert (400, "1401-400") == code_of(client.get("/runs", orderby="-"))


def next_token(answer):
    return parse_qs(urlsplit(answer.json()["_links"]["next"]["href"]).query)["continuationToken"][0]


@pytest.mark.parametrize("orderby", ["createdAt", "-createdAt", "id"])
def test_pages_hold_every_run_once(client, orderby):
    """Following `next` to the end gives every run once; the last page has no links."""
    created = [client.created() for _ in range(7)]
    answer = client.get("/runs", limit=3, orderby=orderby)
    found = ids(answer)
    while answer.json()["_links"]:
        answer = client.get("/runs", limit=3, orderby=orderby, continuationToken=next_token(answer))
        found += ids(answer)

    assert sorted(created) == sorted(found)
    assert {} == answer.json()["_links"]


def test_the_token_is_padded_and_may_not_be_cut(client):
    """A client that cuts the token at `=` is told so."""
    for _ in range(3):
        client.create()
    token = next_token(client.get("/runs", limit=1))

    assert token.endswith("==")
    assert (400, "1401-400") == code_of(client.get("/runs", continuationToken=token.split("=")[0]))


def test_a_run_that_arrives_between_two_pages_pushes_none_out(client):
    """Pages go on after the last run that was shown."""
    created = [client.created() for _ in range(4)]
    first = client.get("/runs", limit=2, orderby="-createdAt")
    client.created()
    second = client.get("/runs", limit=2, orderby="-createdAt", continuationToken=next_token(first))

    assert created[::-1] == ids(first) + ids(second)


def test_a_page_has_twenty_runs_unless_told_otherwise_and_never_more_than_a_hundred(client):
    """Adobe's defaults."""
    for _ in range(101):
        client.create()

    assert (20, 100) == (len(ids(client.get("/runs"))), len(ids(client.get("/runs", limit=500))))


@pytest.mark.parametrize("limit", ["0", "-1", "many", ""])
def test_a_limit_that_cannot_be_meant_is_refused(client, limit):
    """400 with 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", limit=limit))


def test_count_counts_what_the_filters_leave(client):
    """All of it, not the page."""
    for _ in range(25):
        client.create()
    client.create(FILE_FLOW_ID)

    assert 25 == client.get("/runs", property=f"flowId=={TABLE_FLOW_ID}", count="true").json()["count"]


def test_count_and_limit_exclude_each_other(client):
    """400 with 1401."""
    assert (400, "1401-400") == code_of(client.get("/runs", count="true", limit=5))


def test_the_emulator_is_born_with_four_flows(client):
    """One of each kind that a client must tell apart."""
    flows = {flow["id"]: flow for flow in client.get("/flows").json()["items"]}

    assert [TABLE_FLOW_ID, FILE_FLOW_ID, HOURLY_FLOW_ID, DISABLED_FLOW_ID] == list(flows)
    assert "once" == flows[TABLE_FLOW_ID]["scheduleParams"]["frequency"]
    assert "hour" == flows[HOURLY_FLOW_ID]["scheduleParams"]["frequency"]
    assert "disabled" == flows[DISABLED_FLOW_ID]["state"]


def test_flows_are_filtered_and_paged(client):
    """Like runs."""
    page = client.get("/flows", limit=1, property="state==enabled", orderby="-name")
    rest = client.get("/flows", property="state==enabled", orderby="-name", continuationToken=next_token(page))

    assert [TABLE_FLOW_ID, HOURLY_FLOW_ID, FILE_FLOW_ID] == ids(page) + ids(rest)
    assert 3 == client.get("/flows", property="state==enabled", count="true").json()["count"]


@pytest.mark.parametrize(("flow_id", "has_delta"), [(TABLE_FLOW_ID, True), (FILE_FLOW_ID, False)])
def test_the_flow_spec_tells_tables_from_files(client, flow_id, has_delta):
    """Only a table-based run spec requires a delta column."""
    flow = client.get(f"/flows/{flow_id}").json()["items"][0]
    spec = client.get(f"/flowSpecs/{flow['flowSpec']['id']}").json()["items"][0]

    assert has_delta == ("deltaColumn" in spec["runSpec"]["spec"]["required"])


def test_a_flow_leads_to_its_connections(client):
    """The target's dataset, and the source."""
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
def test_what_does_not_exist_is_not_found(client, path):
    """404 with 1101."""
    assert (404, "1101-404") == code_of(client.get(path))


def test_a_flow_shows_its_last_run(client):
    """`lastRunDetails` follows the newest run."""
    run_id = client.created()
    client.clock.forward(30)
    flow = client.get(f"/flows/{TABLE_FLOW_ID}").json()["items"][0]

    assert (run_id, "success") == (flow["lastRunDetails"]["id"], flow["lastRunDetails"]["state"])


def test_a_flow_may_be_changed_by_its_id(client):
    """What is not named stays."""
    client.emulator.add_flow(id=DISABLED_FLOW_ID, state="enabled", delta_column="DOB")
    flow = client.get(f"/flows/{DISABLED_FLOW_ID}").json()["items"][0]

    assert ("enabled", "Returns (table, disabled)") == (flow["state"], flow["name"])
    assert {"name": "DOB"} == flow["transformations"][0]["params"]["deltaColumn"]


def test_an_unknown_field_of_a_flow_is_an_error(client):
    """A typo in a test is told to its author."""
    with pytest.raises(ValueError, match="a flow has no colour"):
        client.emulator.add_flow(colour="red")
    with pytest.raises(ValueError, match="kind must be one of table, file, streaming"):
        client.emulator.add_flow(kind="queue")
