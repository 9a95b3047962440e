"""A look at the dataflow before its first run: what Flow Service would refuse, said earlier and better."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import DeltaColumnDiffersError, FlowDisabledError, NotOnDemandError
from airflow_flowservice.runs.intent import Order

if TYPE_CHECKING:
    from airflow_flowservice.api.models import Flow


def checked(order: Order, flow: Flow) -> Order:
    """The order as it may be sent: a delta column that the flow has already is left out.

    What the flow does not say is left to Flow Service to judge.

    :raises FlowDisabledError: the flow is not enabled.
    :raises NotOnDemandError: the flow is not scheduled one-time.
    :raises DeltaColumnDiffersError: the flow's Copy transformation has another delta column.
    """
    require_enabled(flow)
    require_one_time(flow)
    if order.delta_column is None or flow.delta_column is None:
        return order
    if order.delta_column.name != flow.delta_column.name:
        raise DeltaColumnDiffersError(
            f"delta_column is {order.delta_column.name!r}, and the dataflow has {flow.delta_column.name!r} already",
            flow_id=flow.id,
        )
    return replace(order, delta_column=None)


def require_enabled(flow: Flow) -> None:
    """Pass a flow on whose runs would be carried out.

    :raises FlowDisabledError: the flow is not enabled.
    """
    if flow.enabled is False:
        raise FlowDisabledError(f"the dataflow {flow.name or flow.id!r} is {flow.state}", flow_id=flow.id)


def require_one_time(flow: Flow) -> None:
    """Pass a flow on that takes on-demand runs, or does not tell.

    :raises NotOnDemandError: the flow is scheduled, and not one-time.
    """
    if flow.one_time is False:
        raise NotOnDemandError(
            f"the dataflow {flow.name or flow.id!r} is scheduled with frequency {flow.frequency!r}, not 'once'",
            flow_id=flow.id,
        )
