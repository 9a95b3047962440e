# SPDX-License-Identifier: Apache-2.0
"""Checks of the dataflow before its flow run is created."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import DeltaColumn, Flow
from airflow_flowservice.checks.findings import of_flow
from airflow_flowservice.exceptions import (
    DeltaColumnDiffersError,
    FlowDisabledError,
    FlowNotReadyError,
    NotOnDemandError,
)
from airflow_flowservice.runs.flow_check import checked
from airflow_flowservice.runs.intent import Order
from airflow_flowservice.windows.window import IngestionWindow

WINDOW = IngestionWindow(datetime(2026, 1, 30, tzinfo=timezone.utc), datetime(2026, 1, 31, tzinfo=timezone.utc))
UPDATED = DeltaColumn(name="updated")


def order(**fields: Any) -> Order:
    return Order(flow_id="flow-1", window=WINDOW, **fields)


def flow(**fields: Any) -> Flow:
    return Flow(**{"id": "flow-1", "name": "Orders", "state": "enabled", "frequency": "once", **fields})


def test_a_valid_order_is_unchanged() -> None:
    """For an enabled one-time dataflow, the order is unchanged."""
    assert checked(order(), flow()) == order()


def test_missing_properties_are_not_refused() -> None:
    """A dataflow without state, frequency and delta column accepts every order."""
    bare = Flow(id="flow-1")
    assert checked(order(delta_column=UPDATED), bare) == order(delta_column=UPDATED)


@pytest.mark.parametrize("state", ["disabled", "Disabled", "disabling", "deleted"])
def test_a_flow_that_is_not_enabled_is_refused(state: str) -> None:
    """The error has the dataflow's name, its state and a remedy."""
    with pytest.raises(FlowDisabledError) as caught:
        checked(order(), flow(state=state))
    assert (caught.value.message, caught.value.flow_id) == (f"the dataflow 'Orders' is {state}", "flow-1")
    assert caught.value.remedy == FlowDisabledError.default_remedy
    assert not caught.value.retryable


@pytest.mark.parametrize(
    "state", ["updating", "enabling", "enabled-finalizing", "ENABLED_FINALIZING", "initializing", " Pending "]
)
def test_a_passing_state_is_retryable(state: str) -> None:
    """A retry can succeed, and no user has to do anything."""
    with pytest.raises(FlowNotReadyError) as caught:
        checked(order(), flow(state=state))
    assert (True, "flow-1") == (caught.value.retryable, caught.value.flow_id)
    assert "wait" in (caught.value.remedy or "")


def test_a_draft_has_to_be_published() -> None:
    """The remedy for a draft differs from that for a disabled dataflow."""
    with pytest.raises(FlowDisabledError, match=r"is Draft.*publish the dataflow") as caught:
        checked(order(), flow(state="Draft"))
    assert not caught.value.retryable


def test_an_error_of_a_flow_without_name_has_its_id() -> None:
    """The error identifies the dataflow."""
    with pytest.raises(FlowDisabledError, match="the dataflow 'flow-1' is disabled"):
        checked(order(), flow(name=None, state="disabled"))


@pytest.mark.parametrize("frequency", ["minute", "hour", "day", "week"])
def test_a_scheduled_flow_is_refused(frequency: str) -> None:
    """A scheduled dataflow accepts no on-demand flow runs; the error states the schedule."""
    with pytest.raises(NotOnDemandError) as caught:
        checked(order(), flow(frequency=frequency))
    assert caught.value.message == f"the dataflow 'Orders' is scheduled with frequency {frequency!r}, not 'once'"
    assert (caught.value.flow_id, caught.value.remedy) == ("flow-1", NotOnDemandError.default_remedy)


def test_the_state_is_checked_first() -> None:
    """If two checks fail, the error is the one that you can fix."""
    with pytest.raises(FlowDisabledError):
        checked(order(), flow(state="disabled", frequency="hour"))


def test_a_delta_column_that_the_flow_has_is_omitted() -> None:
    """Flow Service refuses any delta column from the second flow run on."""
    assert checked(order(delta_column=UPDATED), flow(delta_column=UPDATED)) == order()


def test_a_format_and_time_zone_of_the_flow_apply_to_an_order_without_them() -> None:
    """An order with only the column's name does not differ from the dataflow."""
    known = DeltaColumn(name="updated", date_format="yyyy-MM-dd", timezone="UTC")
    assert checked(order(delta_column=UPDATED), flow(delta_column=known)) == order()
    assert checked(order(delta_column=known), flow(delta_column=known)) == order()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"timezone": "Europe/Zurich"}, "the timezone of delta_column is 'Europe/Zurich', and the dataflow has 'UTC'"),
        ({"date_format": "yyyy"}, "the dateFormat of delta_column is 'yyyy', and the dataflow has 'yyyy-MM-dd'"),
        ({"name": "Updated"}, "delta_column is 'Updated', and the dataflow has 'updated'"),
    ],
    ids=["time zone", "format", "case of the name"],
)
def test_a_format_or_time_zone_that_differs_is_refused(given: dict[str, str], message: str) -> None:
    """The dataflow keeps its own, so the order's would be dropped."""
    known = DeltaColumn(name="updated", date_format="yyyy-MM-dd", timezone="UTC")
    with pytest.raises(DeltaColumnDiffersError) as caught:
        checked(order(delta_column=DeltaColumn(**{"name": "updated", **given})), flow(delta_column=known))
    assert caught.value.message == f"{message} already"
    assert (caught.value.flow_id, caught.value.remedy) == ("flow-1", DeltaColumnDiffersError.default_remedy)


def test_a_time_zone_that_the_flow_does_not_show_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Flow Service may show only the column's name, so the order is not refused."""
    caplog.set_level("INFO")
    given = DeltaColumn(name="updated", timezone="UTC")
    assert checked(order(delta_column=given), flow(delta_column=UPDATED)) == order()
    assert "the timezone of delta_column is 'UTC' and not sent" in caplog.text


def test_a_delta_column_for_a_flow_without_one_is_kept() -> None:
    """The first flow run sets the dataflow's delta column."""
    assert checked(order(delta_column=UPDATED), flow()) == order(delta_column=UPDATED)


def test_no_delta_column_for_a_flow_with_one_is_fine() -> None:
    """Later flow runs need no delta column."""
    assert checked(order(), flow(delta_column=UPDATED)) == order()


def test_another_delta_column_is_refused() -> None:
    """The error has both names."""
    with pytest.raises(DeltaColumnDiffersError) as caught:
        checked(order(delta_column=UPDATED), flow(delta_column=DeltaColumn(name="created")))
    assert caught.value.message == "delta_column is 'updated', and the dataflow has 'created' already"
    assert (caught.value.flow_id, caught.value.remedy) == ("flow-1", DeltaColumnDiffersError.default_remedy)


def test_the_rest_of_the_order_is_unchanged() -> None:
    """Only the delta column is omitted."""
    began = datetime(2026, 2, 1, tzinfo=timezone.utc)
    given = order(delta_column=UPDATED, start_time=began)
    assert checked(given, flow(delta_column=UPDATED)) == order(start_time=began)


@pytest.mark.parametrize(
    ("state", "verdict", "remedy"),
    [
        ("updating", "note", "wait until the dataflow is enabled, then check again"),
        ("draft", "wrong", "publish the dataflow in Experience Platform, since a draft executes no flow runs"),
        ("disabling", "wrong", "enable the dataflow in Experience Platform"),
    ],
)
def test_the_command_check_states_the_remedy_of_the_state(state: str, verdict: str, remedy: str) -> None:
    """A passing state is no error."""
    found = {finding.check: finding for finding in of_flow(flow(state=state), needs_delta_column=False)}["state"]
    assert (verdict, remedy) == (found.verdict.value, found.remedy)
