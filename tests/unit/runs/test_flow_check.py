"""What is refused before Flow Service could."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_flowservice.api.models import DeltaColumn, Flow
from airflow_flowservice.exceptions import DeltaColumnDiffersError, FlowDisabledError, NotOnDemandError
from airflow_flowservice.runs.flow_check import checked
from airflow_flowservice.runs.intent import Order
from airflow_flowservice.windows.window import IngestionWindow

WINDOW = IngestionWindow(datetime(2026, 1, 30, tzinfo=timezone.utc), datetime(2026, 1, 31, tzinfo=timezone.utc))
UPDATED = DeltaColumn(name="updated")


def order(**fields: Any) -> Order:
    return Order(flow_id="flow-1", window=WINDOW, **fields)


def flow(**fields: Any) -> Flow:
    return Flow(**{"id": "flow-1", "name": "Orders", "state": "enabled", "frequency": "once", **fields})


def test_a_fitting_order_is_left_as_it_is() -> None:
    """An enabled one-time flow takes the order unchanged."""
    assert checked(order(), flow()) == order()


def test_what_the_flow_does_not_say_is_left_to_flow_service() -> None:
    """A flow without state, frequency and delta column refuses nothing."""
    silent = Flow(id="flow-1")
    assert checked(order(delta_column=UPDATED), silent) == order(delta_column=UPDATED)


@pytest.mark.parametrize("state", ["disabled", "Disabled", "draft", "deleted"])
def test_a_flow_that_is_not_enabled_is_refused(state: str) -> None:
    """The error names the flow, its state, and what to do."""
    with pytest.raises(FlowDisabledError) as caught:
        checked(order(), flow(state=state))
    assert (caught.value.message, caught.value.flow_id) == (f"the dataflow 'Orders' is {state}", "flow-1")
    assert caught.value.remedy == FlowDisabledError.default_remedy


def test_a_flow_without_name_is_called_by_its_id() -> None:
    """An error always says which flow."""
    with pytest.raises(FlowDisabledError, match="the dataflow 'flow-1' is disabled"):
        checked(order(), flow(name=None, state="disabled"))


@pytest.mark.parametrize("frequency", ["minute", "hour", "day", "week"])
def test_a_scheduled_flow_is_refused(frequency: str) -> None:
    """A flow with a schedule of its own takes no on-demand runs; the error names the schedule."""
    with pytest.raises(NotOnDemandError) as caught:
        checked(order(), flow(frequency=frequency))
    assert caught.value.message == f"the dataflow 'Orders' is scheduled with frequency {frequency!r}, not 'once'"
    assert (caught.value.flow_id, caught.value.remedy) == ("flow-1", NotOnDemandError.default_remedy)


def test_the_state_is_looked_at_first() -> None:
    """Of two reasons, the one that can be mended is told."""
    with pytest.raises(FlowDisabledError):
        checked(order(), flow(state="disabled", frequency="hour"))


def test_a_delta_column_that_the_flow_has_is_left_out() -> None:
    """Flow Service refuses a delta column from the second run on, even the right one."""
    assert checked(order(delta_column=UPDATED), flow(delta_column=UPDATED)) == order()


def test_only_the_name_of_the_delta_column_counts() -> None:
    """The flow's own format and zone stand, also where the order says nothing of them."""
    known = DeltaColumn(name="updated", date_format="yyyy-MM-dd", timezone="UTC")
    assert checked(order(delta_column=UPDATED), flow(delta_column=known)) == order()


def test_a_delta_column_for_a_flow_without_one_is_kept() -> None:
    """The first run of a flow sets its delta column."""
    assert checked(order(delta_column=UPDATED), flow()) == order(delta_column=UPDATED)


def test_no_delta_column_for_a_flow_with_one_is_fine() -> None:
    """Later runs need not name it."""
    assert checked(order(), flow(delta_column=UPDATED)) == order()


def test_another_delta_column_is_refused() -> None:
    """The error names both columns."""
    with pytest.raises(DeltaColumnDiffersError) as caught:
        checked(order(delta_column=UPDATED), flow(delta_column=DeltaColumn(name="created")))
    assert caught.value.message == "delta_column is 'updated', and the dataflow has 'created' already"
    assert (caught.value.flow_id, caught.value.remedy) == ("flow-1", DeltaColumnDiffersError.default_remedy)


def test_the_rest_of_the_order_stays() -> None:
    """Leaving out the delta column changes nothing else."""
    began = datetime(2026, 2, 1, tzinfo=timezone.utc)
    given = order(delta_column=UPDATED, start_time=began)
    assert checked(given, flow(delta_column=UPDATED)) == order(start_time=began)
