# SPDX-License-Identifier: Apache-2.0
"""JSON of the ledger: the flow runs of each flow and the records that they ingested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_flowservice.emulator.ceilings import most_in_flight
from airflow_flowservice.emulator.instants import format_utc, to_epoch_s
from airflow_flowservice.emulator.ledger import MinuteSpan, enclosing_span, minutes, tally
from airflow_flowservice.emulator.model import EmulatedRun
from airflow_flowservice.emulator.state import EmulatorState


def ledger_json(state: EmulatorState, params: Mapping[str, str]) -> dict[str, Any]:
    """Return request counts by kind, requests that ceilings refused, and the ledger of each flow.

    If `flow_id` is given, add the ledger of that flow for the range from `from` to `to`.

    Raises:
        ValueError: for an unknown flow, an unparsable instant, or a range without a flow.
    """
    now = state.now()
    result: dict[str, Any] = {
        "requests": dict(sorted(state.requests.items())),
        "refused": state.ceilings.as_json(),
        "most_active": most_in_flight(state.runs.values()),
        "flows": {flow_id: flow_ledger_json(state.runs_of(flow_id), now) for flow_id in state.flows},
    }
    flow_id = params.get("flow_id")
    if flow_id is None:
        if "from" in params or "to" in params:
            raise ValueError("The parameters from and to need a flow_id.")
        return result
    if flow_id not in state.flows:
        raise ValueError(f"There is no flow {flow_id!r}.")
    return result | {"flow_id": flow_id} | range_ledger_json(state.runs_of(flow_id), params, now)


def flow_ledger_json(runs: list[EmulatedRun], now: float) -> dict[str, Any]:
    """Return a flow's runs, the number of ingested records, and the number ingested more than once."""
    spans = [run.ingested(now) for run in runs]
    counted = tally(spans, within=enclosing_span(spans))
    return {
        "runs": [run_ledger_json(run, now) for run in runs],
        "active": sum(_is_active(run, now) for run in runs),
        "most_active": most_in_flight(runs),
        "ingested_records": counted.ingested,
        "duplicated": counted.duplicated,
    }


def range_ledger_json(runs: list[EmulatedRun], params: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return the counts of expected, ingested, missing and duplicated records in a range, and its flow runs.

    The range includes `from` and excludes `to`.
    """
    windows = [(run.window_start, run.window_end) for run in runs]
    low, high = enclosing_span(windows)
    start = to_epoch_s(params["from"]) if "from" in params else low
    end = to_epoch_s(params["to"]) if "to" in params else high
    within: MinuteSpan = minutes(start, end)
    counted = tally((run.ingested(now) for run in runs), within=within)
    overlapping = [run for run in runs if run.window_start < end and run.window_end > start]
    return {
        "from": format_utc(start),
        "to": format_utc(end),
        "expected": counted.expected,
        "ingested": counted.ingested,
        "missing": counted.missing,
        "duplicated": counted.duplicated,
        "active": sum(_is_active(run, now) for run in overlapping),
        "runs": [run_ledger_json(run, now) for run in overlapping],
    }


def run_ledger_json(run: EmulatedRun, now: float) -> dict[str, Any]:
    """Return one flow run: its status, its window and the number of records that it ingested.

    The status is `vanished` if clients can no longer read the run.
    """
    first, end = run.ingested(now)
    return {
        "id": run.id,
        "status": "vanished" if run.vanished else run.status(now),
        "window_start": format_utc(run.window_start),
        "window_end": format_utc(run.window_end),
        "created_at": format_utc(run.created_at),
        "records": end - first,
        "parent_flow_run_id": run.parent_id,
    }


def _is_active(run: EmulatedRun, now: float) -> bool:
    return not run.vanished and not run.has_ended(now)
