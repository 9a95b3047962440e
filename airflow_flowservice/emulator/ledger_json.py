"""The ledger as JSON: for each flow its runs, and what they did to the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_flowservice.emulator.instants import epoch_seconds, format_utc
from airflow_flowservice.emulator.ledger import MinuteSpan, hull, minutes, tally
from airflow_flowservice.emulator.model import EmulatedRun
from airflow_flowservice.emulator.state import EmulatorState


def ledger_json(state: EmulatorState, asked: Mapping[str, str]) -> dict[str, Any]:
    """Requests by kind and every flow's account; with `flow_id` also that flow's account of a range.

    Raises:
        ValueError: for an unknown flow, an instant that cannot be read, or a range without a flow.
    """
    now = state.now()
    shown: dict[str, Any] = {
        "requests": dict(sorted(state.requests.items())),
        "flows": {flow_id: flow_ledger_json(state.runs_of(flow_id), now) for flow_id in state.flows},
    }
    flow_id = asked.get("flow_id")
    if flow_id is None:
        if "from" in asked or "to" in asked:
            raise ValueError("from and to need a flow_id")
        return shown
    if flow_id not in state.flows:
        raise ValueError(f"there is no flow {flow_id!r}")
    return shown | {"flow_id": flow_id} | range_ledger_json(state.runs_of(flow_id), asked, now)


def flow_ledger_json(runs: list[EmulatedRun], now: float) -> dict[str, Any]:
    """A flow's runs, how many records arrived, and how many of them more than once (`duplicated`)."""
    spans = [run.ingested(now) for run in runs]
    counted = tally(spans, within=hull(spans))
    return {
        "runs": [run_ledger_json(run, now) for run in runs],
        "active": sum(_is_active(run, now) for run in runs),
        "ingested_records": counted.ingested,
        "duplicated": counted.duplicated,
    }


def range_ledger_json(runs: list[EmulatedRun], asked: Mapping[str, str], now: float) -> dict[str, Any]:
    """The records from `from` to before `to`: expected, missing, duplicated, and the runs that touch them."""
    known = [(run.window_start, run.window_end) for run in runs]
    low, high = hull(known)
    start = epoch_seconds(asked["from"]) if "from" in asked else low
    end = epoch_seconds(asked["to"]) if "to" in asked else high
    within: MinuteSpan = minutes(start, end)
    counted = tally((run.ingested(now) for run in runs), within=within)
    touching = [run for run in runs if run.window_start < end and run.window_end > start]
    return {
        "from": format_utc(start),
        "to": format_utc(end),
        "expected": counted.expected,
        "ingested": counted.ingested,
        "missing": counted.missing,
        "duplicated": counted.duplicated,
        "active": sum(_is_active(run, now) for run in touching),
        "runs": [run_ledger_json(run, now) for run in touching],
    }


def run_ledger_json(run: EmulatedRun, now: float) -> dict[str, Any]:
    """One run: status (`vanished` when it can be read no more), window, and how many records it ingested."""
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
