"""Checks of the dataflow before its flow run is created, which report earlier what Flow Service would refuse."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_flowservice.api.flow_states import is_passing_state
from airflow_flowservice.exceptions import (
    DeltaColumnDiffersError,
    FlowDisabledError,
    FlowNotReadyError,
    NotOnDemandError,
)
from airflow_flowservice.runs.intent import Order

if TYPE_CHECKING:
    from airflow_flowservice.api.models import DeltaColumn, Flow

log = logging.getLogger(__name__)

_PUBLISH = "publish the dataflow in Experience Platform, since a draft executes no flow runs; then clear the task"


def checked(order: Order, flow: Flow) -> Order:
    """Return the order as it can be sent, without a delta column that the dataflow has already.

    Properties that the dataflow does not show are left for Flow Service to check.

    :raises FlowNotReadyError: the dataflow is in a passing state.
    :raises FlowDisabledError: the dataflow is not enabled.
    :raises NotOnDemandError: the dataflow is not scheduled one-time.
    :raises DeltaColumnDiffersError: the dataflow's Copy transformation has another delta column, dateFormat or
        timezone.
    """
    require_enabled(flow)
    require_one_time(flow)
    if order.delta_column is None or flow.delta_column is None:
        return order
    _require_same_column(order.delta_column, flow)
    return replace(order, delta_column=None)


def _require_same_column(column: DeltaColumn, flow: Flow) -> None:
    """Raise an error if the dataflow shows another name, dateFormat or timezone of its delta column.

    :raises DeltaColumnDiffersError: the error has both values.
    """
    known = flow.delta_column.to_json() if flow.delta_column else {}
    for key, value in column.to_json().items():
        subject = "delta_column" if key == "name" else f"the {key} of delta_column"
        if key not in known:
            log.info("%s is %r and not sent: the dataflow keeps its delta column, and shows no %s", subject, value, key)
        elif value != known[key]:
            raise DeltaColumnDiffersError(
                f"{subject} is {value!r}, and the dataflow has {known[key]!r} already", flow_id=flow.id
            )


def require_enabled(flow: Flow) -> None:
    """Raise an error if the dataflow does not carry out flow runs.

    :raises FlowNotReadyError: the dataflow is in a passing state, so that a retry can succeed.
    :raises FlowDisabledError: the dataflow is not enabled; the remedy depends on its state.
    """
    if flow.enabled:
        return
    message = f"the dataflow {flow.name or flow.id!r} is {flow.state}"
    if is_passing_state(flow.state):
        raise FlowNotReadyError(message, flow_id=flow.id)
    is_draft = flow.state.strip().lower() == "draft"
    raise FlowDisabledError(message, flow_id=flow.id, remedy=_PUBLISH if is_draft else None)


def require_one_time(flow: Flow) -> None:
    """Raise an error if the dataflow accepts no on-demand flow runs.

    :raises NotOnDemandError: the dataflow is scheduled, and not one-time.
    """
    if flow.one_time is False:
        raise NotOnDemandError(
            f"the dataflow {flow.name or flow.id!r} is scheduled with frequency {flow.frequency!r}, not 'once'",
            flow_id=flow.id,
        )
