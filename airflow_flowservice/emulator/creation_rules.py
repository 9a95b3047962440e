# SPDX-License-Identifier: Apache-2.0
"""Rules for the creation of flow runs, with Flow Service's error codes.

`reference/API-FACTS.md` lists the codes. Where Adobe's documentation does not define the behaviour, the emulator
is lenient: it accepts windows that end in the future and ignores a delta column of a file-based flow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_flowservice.emulator.errors import EmulatedApiError, EmulatedValidationError
from airflow_flowservice.emulator.model import EmulatedFlow
from airflow_flowservice.emulator.settings import Settings

LATEST_S = 7_258_118_400
"""2200-01-01T00:00:00Z in epoch seconds. Larger values are rejected as probable milliseconds."""

_TIMES = ("startTime", "windowStartTime", "windowEndTime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Creation:
    """A valid request to create a flow run.

    Instants are in epoch seconds. `params` contains the parameters as the client sent them.
    """

    flow: EmulatedFlow
    params: dict[str, Any]
    start_time: int
    window_start: int
    window_end: int
    delta_column: dict[str, Any] | None


def check_creation(body: Any, *, flows: Mapping[str, EmulatedFlow], settings: Settings, now: float) -> Creation:
    """Validate the body of a `POST /runs` request.

    Raises:
        EmulatedApiError: 400 with the code of the first rule that the body violates.
    """
    if not isinstance(body, dict):
        raise EmulatedApiError(400, "1384", "The body must be a JSON object with flowId and params.")
    flow = _runnable_flow(body.get("flowId"), flows, now)
    params = body.get("params")
    if not isinstance(params, dict) or not params:
        raise EmulatedApiError(400, "1384", "The run's params are missing, empty or not an object.")
    start_time, window_start, window_end = (parse_epoch_param(params, name, settings=settings) for name in _TIMES)
    if window_end <= window_start:
        raise EmulatedApiError(400, "1381", f"windowEndTime {window_end} must be after windowStartTime {window_start}.")
    if start_time < now - settings.start_tolerance_s:
        raise EmulatedApiError(400, "1360", f"startTime {start_time} is in the past; the current time is {int(now)}.")
    return Creation(
        flow=flow,
        params=params,
        start_time=start_time,
        window_start=window_start,
        window_end=window_end,
        delta_column=check_delta_column(params.get("deltaColumn"), flow),
    )


def _runnable_flow(flow_id: Any, flows: Mapping[str, EmulatedFlow], now: float) -> EmulatedFlow:
    if not flow_id:
        raise EmulatedApiError(400, "1446", "flowId is missing or empty.")
    flow = flows.get(flow_id) if isinstance(flow_id, str) else None
    if flow is None:
        raise EmulatedApiError(400, "1430", f"There is no flow {flow_id!r}.")
    if (state := flow.state_at(now)) != "enabled":
        raise EmulatedApiError(400, "1380", f"No run was created: flow {flow.id} is {state}.")
    if flow.kind == "streaming":
        raise EmulatedApiError(400, "1385", f"The connector of flow {flow.id} does not support on-demand runs.")
    if flow.frequency != "once":
        raise EmulatedApiError(
            400, "1386", f"Flow {flow.id} has frequency {flow.frequency} and accepts no on-demand runs."
        )
    return flow


def parse_epoch_param(params: Mapping[str, Any], name: str, *, settings: Settings) -> int:
    """Return the epoch seconds in `params[name]`, an integer or a string of digits.

    Raises:
        EmulatedApiError: 400 with code 1384 if the value is missing, has another format or is after 2200.
        EmulatedValidationError: 422 if the value has another JSON type, and the settings require a validating server.
    """
    value, accepted = params.get(name), settings.epoch_format
    is_text = isinstance(value, str) and value.isascii() and value.isdigit()
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if settings.epoch_refusal == "validation" and (
        (is_text and accepted == "integer") or (is_number and accepted == "string")
    ):
        raise EmulatedValidationError(("params", name), accepted)
    if not ((is_text and accepted != "integer") or (is_number and accepted != "string")):
        raise EmulatedApiError(400, "1384", f"{name} must be epoch seconds (format: {accepted}), not {value!r}.")
    if len(str(value)) > 18 or int(str(value)) > LATEST_S:
        raise EmulatedApiError(400, "1384", f"{name} {value} is after the year 2200; it may be in milliseconds.")
    return int(str(value))


def check_delta_column(given: Any, flow: EmulatedFlow) -> dict[str, Any] | None:
    """Check the delta column of a request and return the flow's delta column after the run.

    Raises:
        EmulatedApiError: 400 with code 1383 if the first run has none, 1382 if it differs from the flow's,
            or 1384 if it is malformed.
    """
    if flow.kind != "table":
        return flow.delta_column
    if given is None:
        if flow.delta_column is None:
            raise EmulatedApiError(400, "1383", f"The first run of table-based flow {flow.id} needs a deltaColumn.")
        return flow.delta_column
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or not given["name"]:
        raise EmulatedApiError(400, "1384", "deltaColumn must be an object with a name.")
    known = flow.delta_column
    if known is None:
        return dict(given)
    if any(key in known and known[key] != value for key, value in given.items()):
        raise EmulatedApiError(400, "1382", f"deltaColumn {given!r} differs from the flow's, {known!r}.")
    return known
