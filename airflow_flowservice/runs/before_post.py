# SPDX-License-Identifier: Apache-2.0
"""Requests that precede the POST of a flow run: the check of its dataflow, and the dataflow's newest flow runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import FlowServiceError

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.flow_check import OrderCheck
    from airflow_flowservice.runs.intent import FlowRunService, Order

MAX_KNOWN_RUNS = 50


@dataclass(kw_only=True)
class BeforePost:
    """Requests before the POST of an order.

    :param order: as it can be sent, after `check_order`.
    :param check: None if the dataflow is not checked.
    """

    service: FlowRunService
    order: Order
    check: OrderCheck | None
    _is_checked: bool = field(default=False, init=False)
    _runs: list[FlowRun] | None = field(default=None, init=False)
    _error: FlowServiceError | None = field(default=None, init=False)

    def send_early(self) -> None:
        """Send the requests before the task reads its intent, so that the claim directly follows the reading.

        The list may then be older than the claim: a flow run that another user creates in between counts as new.
        An error is raised later, because an earlier start of the attempt may have created the flow run.
        """
        try:
            self.order, self._is_checked = self._checked(is_retry=False), True
            self._runs = self._list()
        except FlowServiceError as error:
            self._error = error

    def forget(self) -> None:
        """Discard the results of `send_early`, because other requests come before the POST."""
        self._is_checked, self._runs, self._error = False, None, None

    def check_order(self, *, is_retry: bool) -> Order:
        """Return the order as it can be sent.

        :raises FlowServiceError: as `OrderCheck.before_post`; also an error of `send_early`.
        """
        if self._error is not None:
            raise self._error
        if not self._is_checked:
            self.order = self._checked(is_retry=is_retry)
        self._is_checked = False
        return self.order

    def newest_runs(self) -> list[FlowRun]:
        """Return id and time of creation of the dataflow's newest flow runs, at most `MAX_KNOWN_RUNS`."""
        runs, self._runs = self._runs, None
        return self._list() if runs is None else runs

    def _checked(self, *, is_retry: bool) -> Order:
        return self.order if self.check is None else self.check.before_post(is_retry=is_retry)

    def _list(self) -> list[FlowRun]:
        listed = self.service.list_runs(flow_id=self.order.flow_id, limit=MAX_KNOWN_RUNS, only_ids=True)
        return list(islice(listed, MAX_KNOWN_RUNS))
