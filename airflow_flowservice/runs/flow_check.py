# SPDX-License-Identifier: Apache-2.0
"""Checks of the dataflow before its flow run is created, which report earlier what Flow Service would refuse.

A dataflow that passed is not read again for some minutes, also not by other processes of the machine.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.models import Flow, is_passing_state
from airflow_flowservice.exceptions import (
    ApiError,
    DeltaColumnDiffersError,
    FlowDisabledError,
    FlowNotReadyError,
    FlowServiceError,
    NotOnDemandError,
    NotSentError,
    RateLimitedError,
    StartTimeInPastError,
)
from airflow_flowservice.runs.intent import Order, bounded_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_flowservice.api.models import DeltaColumn
    from airflow_flowservice.api.shared_cache import SharedCache

log = logging.getLogger(__name__)

_PUBLISH = "publish the dataflow in Experience Platform, since a draft executes no flow runs; then clear the task"


_MAX_AGE_S = 300.0
"""Seconds for which a dataflow that passed the checks is not read again."""


@dataclass(frozen=True, kw_only=True)
class FlowCheck:
    """Checks with the dataflows that passed them, which the processes of a machine share.

    A dataflow that does not pass is never remembered.

    :param scope: platform, organization, sandbox and client id.
    """

    cache: SharedCache
    scope: tuple[str, ...]

    def check(self, order: Order, read_flow: Callable[[str], Flow]) -> tuple[Order, bool]:
        """Return the order as it can be sent, and whether the dataflow was not read for it.

        :raises FlowServiceError: as `checked`; also an error of reading the dataflow.
        """
        name = self._name(order)
        if (found := self._remembered(name, order)) is not None:
            return found, True
        with self.cache.lock(name):
            if (found := self._remembered(name, order)) is not None:
                return found, True
            return self.check_again(order, read_flow), False

    def check_again(self, order: Order, read_flow: Callable[[str], Flow]) -> Order:
        """Read the dataflow, and return the order as it can be sent. If the dataflow passes, remember it.

        :raises FlowServiceError: as `checked`; also an error of reading the dataflow.
        """
        self.cache.remove(name := self._name(order))
        flow = read_flow(order.flow_id)
        found = checked(order, flow)
        # The first flow run of a dataflow sets its delta column, so the next order needs another check.
        if found.delta_column is None:
            self.cache.write(name, _flow_to_json(flow))
        return found

    def _name(self, order: Order) -> str:
        return self.cache.name("flow", *self.scope, order.flow_id)

    def _remembered(self, name: str, order: Order) -> Order | None:
        """Return the order as it can be sent; None if the dataflow has to be read."""
        entry = self.cache.read(name, max_age_s=_MAX_AGE_S)
        if entry is None:
            return None
        try:
            flow = Flow.parse(entry.value)
            found = checked(order, flow)
        except FlowServiceError:
            return None
        return found if flow.id == order.flow_id and found.delta_column is None else None


@dataclass(kw_only=True)
class OrderCheck:
    """Check of one order, before its POST and after a refusal.

    :param order: the order as the task gives it.
    :param shared: dataflows that passed the check some minutes ago; None to read the dataflow each time.
    """

    order: Order
    read_flow: Callable[[str], Flow]
    shared: FlowCheck | None = None
    _is_remembered: bool = field(default=False, init=False, repr=False)

    def before_post(self, *, is_retry: bool) -> Order:
        """Return the order as it can be sent.

        :param is_retry: read the dataflow, because the earlier attempt or request may have failed because of it.
        :raises FlowServiceError: as `checked`; also an error of reading the dataflow.
        """
        if self.shared is None:
            return checked(self.order, self.read_flow(self.order.flow_id))
        if is_retry:
            return self.shared.check_again(self.order, self.read_flow)
        order, self._is_remembered = self.shared.check(self.order, self.read_flow)
        return order

    def after_refusal(self, refusal: ApiError, refused: Order) -> Order | None:
        """Return the order to send after a refusal; None if the dataflow's present state does not change it.

        :raises FlowServiceError: the dataflow no longer passes the checks, which explains the refusal.
        """
        is_about_flow = not isinstance(refusal, StartTimeInPastError | NotSentError | RateLimitedError)
        if self.shared is None or not (self._is_remembered and is_about_flow):
            return None
        self._is_remembered = False
        try:
            order = self.shared.check_again(self.order, self.read_flow)
        except ApiError as error:
            if not error.retryable:
                raise
            log.warning("After the refusal, the dataflow could not be read: %s", error)
            return None
        return None if order == refused else order


def _flow_to_json(flow: Flow) -> dict[str, Any]:
    """Return what the checks need of a dataflow, in the form that Flow Service sends."""
    column = None if flow.delta_column is None else flow.delta_column.to_json()
    return {
        "id": flow.id,
        "name": flow.name,
        "state": flow.state,
        "scheduleParams": {"frequency": flow.frequency},
        "transformations": [{"name": "Copy", "params": {"deltaColumn": column}}] if column else [],
    }


def checked(order: Order, flow: Flow) -> Order:
    """Return the order as it can be sent, without a delta column that the dataflow has already.

    The order has the dataflow's name then. Properties that the dataflow does not show are left for Flow Service to
    check.

    :raises FlowNotReadyError: the dataflow is in a passing state.
    :raises FlowDisabledError: the dataflow is not enabled.
    :raises NotOnDemandError: the dataflow is not scheduled one-time.
    :raises DeltaColumnDiffersError: the dataflow's Copy transformation has another delta column, dateFormat or
        timezone.
    """
    require_enabled(flow)
    require_one_time(flow)
    order = replace(order, flow_name=bounded_name(flow.name))
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
