# SPDX-License-Identifier: Apache-2.0
"""A trigger for Airflow's `AssetWatcher`: flow runs that Airflow does not create become events of an asset.

A DAG file imports this module, so other modules are imported where they are used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from airflow_flowservice._flow_run_events import FlowRunEvents

_EVENTS = ("succeeded", "ended")
_POLL_INTERVAL_S = 60.0


class FlowRunsTrigger(BaseEventTrigger):
    """Fires an event for each successful flow run of a dataflow that Airflow did not create.

    Use it in an `AssetWatcher` of the dataflow's asset. Adobe's schedule, a person in Experience Platform or another
    client creates the flow runs. The payload has the keys of an outlet's event, and `url`: `flow_run_id`, `flow_id`,
    `status`, `window_start`, `window_end`, `input_records`, `output_records`, `failed_records`; unknown ones are
    missing. Tasks of this package use the window of the payload.

    Events come at least once. An Airflow Variable has the progress, so a triggerer that starts again continues.

    :param flow_id: the dataflow, without templates, because Airflow does not render templates in triggers of assets.
    :param flowservice_conn_id: connection of type `flowservice`.
    :param poll_interval: seconds between two polls.
    :param since: at the first start, begin with flow runs that were created at this time or later: an aware datetime,
        or ISO 8601 text with an offset. By default, begin with flow runs that end after the first poll.
    :param events: `succeeded` for successes and partial successes; `ended` also for flow runs that failed or have no
        status.
    :param include_airflow: also fire for flow runs that the credential of this connection created.
    :raises ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        *,
        flow_id: str,
        flowservice_conn_id: str = "flowservice_default",
        poll_interval: float = _POLL_INTERVAL_S,
        since: datetime | str | None = None,
        events: Literal["succeeded", "ended"] | str = "succeeded",
        include_airflow: bool = False,
    ) -> None:
        from airflow_flowservice.api.validation import validate_identifier, validate_seconds

        super().__init__()  # type: ignore[no-untyped-call]
        if events not in _EVENTS:
            raise ConfigurationError(f"events must be 'succeeded' or 'ended', not {events!r}")
        self.flow_id = validate_identifier(flow_id.strip() if isinstance(flow_id, str) else flow_id, "flow_id")
        self.flowservice_conn_id = flowservice_conn_id
        self.poll_interval = validate_seconds(poll_interval, "poll_interval")
        self.since = None if since is None else _instant_text(since)
        self.events = events
        self.include_airflow = bool(include_airflow)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path, which is stored in Airflow's database, and the arguments without default values.

        Airflow identifies the trigger by them.
        """
        optional = {
            "poll_interval": (self.poll_interval, _POLL_INTERVAL_S),
            "since": (self.since, None),
            "events": (self.events, "succeeded"),
            "include_airflow": (self.include_airflow, False),
        }
        changed = {name: value for name, (value, default) in optional.items() if value != default}
        always = {"flow_id": self.flow_id, "flowservice_conn_id": self.flowservice_conn_id}
        return "airflow_flowservice.watchers.FlowRunsTrigger", {**always, **changed}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each flow run, without end."""
        from airflow_flowservice._airflow import metrics, versions

        events = await versions.in_thread(self._events)
        with metrics.waiter():
            async for payload in events.stream():
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    def _events(self) -> FlowRunEvents:
        """Return the events. Blocks, because it imports the client."""
        from airflow_flowservice._flow_run_events import FlowRunEvents

        return FlowRunEvents(
            flow_id=self.flow_id,
            conn_id=self.flowservice_conn_id,
            poll_interval=self.poll_interval,
            since=self.since,
            has_failures=self.events == "ended",
            has_own=self.include_airflow,
        )


def _instant_text(value: Any) -> str:
    """Return an instant as ISO 8601 text in UTC, so that the same instant gives the same trigger."""
    from airflow_flowservice.exceptions import WindowError
    from airflow_flowservice.windows.window import iso, parse_instant

    try:
        return iso(parse_instant(value, name="since"))
    except WindowError as error:
        raise ConfigurationError(
            error.message, remedy="set since to an aware datetime, or to text such as 2026-01-09T00:00:00Z"
        ) from None
