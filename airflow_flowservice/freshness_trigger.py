# SPDX-License-Identifier: Apache-2.0
"""Wait in the triggerer until a dataflow is fresh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import cache
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_flowservice._airflow import versions
from airflow_flowservice.api.validation import validate_seconds
from airflow_flowservice.coverage.lag import Lag, LagLimit
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.hooks import FlowServiceHook
from airflow_flowservice.runs.batch_reader import as_service_error

__all__ = ["FlowFreshnessTrigger"]


class FlowFreshnessTrigger(BaseTrigger):
    """Fires one event when the lag of a dataflow is at most `max_lag`, or when waiting for it fails.

    The payload is `Lag.to_json()`, or `{"error": ...}` with `FlowServiceError.to_dict()`. Temporary errors are logged,
    and the next check follows. The trigger only reads, so several of it can run at the same time.

    :param max_lag: seconds.
    :param lookback: seconds before now in which gaps count; None as in `LagLimit`.
    :param ignore_gaps: the lag counts from the end of the last ingested window.
    :param poll_interval: seconds between two checks. The task has made the first one.
    """

    def __init__(
        self,
        *,
        flow_id: str,
        max_lag: float,
        lookback: float | None = None,
        ignore_gaps: bool = False,
        poll_interval: float = 300.0,
        flowservice_conn_id: str = "flowservice_default",
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow_id = flow_id
        self.max_lag = max_lag
        self.lookback = lookback
        self.ignore_gaps = ignore_gaps
        self.poll_interval = poll_interval
        self.flowservice_conn_id = flowservice_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, which is stored in Airflow's database, and the arguments."""
        arguments = {
            "flow_id": self.flow_id,
            "max_lag": self.max_lag,
            "poll_interval": self.poll_interval,
            "flowservice_conn_id": self.flowservice_conn_id,
        }
        if self.lookback is not None:
            arguments["lookback"] = self.lookback
        if self.ignore_gaps:
            arguments["ignore_gaps"] = True
        return "airflow_flowservice.freshness_trigger.FlowFreshnessTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield one event."""
        try:
            lag = await self._wait()
        except FlowServiceError as error:
            yield TriggerEvent({"error": error.about(flow_id=self.flow_id).to_dict()})  # type: ignore[no-untyped-call]
            return
        yield TriggerEvent(lag.to_json())  # type: ignore[no-untyped-call]

    async def _wait(self) -> Lag:
        pause = validate_seconds(self.poll_interval, "poll_interval")
        limit = LagLimit(
            max_lag=timedelta(seconds=validate_seconds(self.max_lag, "max_lag")),
            lookback=None if self.lookback is None else timedelta(seconds=validate_seconds(self.lookback, "lookback")),
            ignores_gaps=self.ignore_gaps,
        )
        while True:
            await asyncio.sleep(pause)
            try:
                # A new hook, so that a changed connection is used.
                hook = await FlowServiceHook.connected(self.flowservice_conn_id)
                lag: Lag = await _checking_thread()(hook.lag_of, self.flow_id, limit=limit)
            except Exception as caught:
                error = as_service_error(caught)
                if not error.retryable:
                    raise
                self.log.warning("The lag could not be read: %s. The next check is in %g seconds.", error, pause)
                continue
            if not lag.is_late:
                return lag
            self.log.info("Not fresh yet: %s. The next check is in %g seconds.", lag.describe(), pause)


@cache
def _checking_thread() -> Callable[..., Awaitable[Any]]:
    """Return the thread of all checks. A slow service delays other checks only, and no XComs."""
    return versions.dedicated_thread()
