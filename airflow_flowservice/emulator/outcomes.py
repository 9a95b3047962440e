# SPDX-License-Identifier: Apache-2.0
"""Planned outcomes of the next flow runs.

`POST /_emulator/outcomes` (or `Emulator.plan_outcome`) plans one outcome. `GET` lists the unused outcomes.
`DELETE` removes all of them.

Fields that select runs. They apply to runs from `POST /runs` and from re-triggers:

- `times`: the number of runs that get this outcome. Default: 1. null means all runs.
- `flow_id`: only runs of this flow.
- `covering`: only runs with a window that contains this instant (ISO 8601 or epoch seconds).

Fields of the outcome, see `model.RunOutcome`: `status` (default: `failed`; `success` with `vanish`), `errors`,
`records`, `failed_records`, `unknown_counts`, `vanish`, `queue_s`, `run_s`, `in_progress_status`, `status_place`,
`extension_errors`, `error_detail`, `record_summary`, `batch_status`, `batch_s`, `batch_in_progress_status`,
`batch_errors`, `batch_hidden_s`, `row_errors`, `failed_files`, `diagnostics`, `manifest`. If one of the fields that
begin with `batch_` is given, the default of `status` is `success`. Examples::

    {"status": "failed", "errors": [{"code": "CONNECTOR-2001-500", "message": "no connection"}], "times": 2}
    {"status": "success", "records": 0, "covering": "2025-01-03"}
    {"status": "partialSuccess", "failed_records": 5}
    {"status": "partialSuccess", "failed_records": 5, "row_errors": [{"code": "MAPPER-3700-400", "message": "no"}]}
    {"status": "failed", "failed_files": ["orders-1.csv"]}
    {"status": "MELTED"}
    {"vanish": true}
    {"status": "success", "status_place": "state"}
    {"status": "success", "status_place": "nowhere"}
    {"status": "failed", "extension_errors": [{"code": "INGEST-1205-400", "description": "no such field"}]}
    {"status": "success", "record_summary": {"updatedRecordCount": 5, "failedRecordCount": null}}
    {"batch_status": "failed", "batch_errors": [{"code": "INGEST-1212-400", "description": "too many errors"}]}
    {"batch_in_progress_status": "stalled", "batch_s": 60}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from airflow_flowservice.emulator.instants import to_epoch_s
from airflow_flowservice.emulator.model import RunOutcome, StatusPlace

_FAILED_COPY = {"code": "CONNECTOR-1001-500", "message": "The copy from the made-up source failed."}
_SELECTORS = frozenset({"times", "flow_id", "covering"})


@dataclass(kw_only=True, slots=True)
class PlannedOutcome:
    """An outcome and the selection of the runs that get it.

    Attributes:
        outcome: the outcome.
        left: number of runs that still get it; None means all runs.
        flow_id: the flow; None means every flow.
        covering: epoch seconds that the run's window must contain; None means any window.
    """

    outcome: RunOutcome
    left: int | None
    flow_id: str | None
    covering: int | None

    def matches(self, flow_id: str, window: tuple[int, int]) -> bool:
        """Return whether a new run of this flow and window gets the outcome."""
        if self.left == 0 or self.flow_id not in (None, flow_id):
            return False
        return self.covering is None or window[0] <= self.covering < window[1]


class OutcomePlan:
    """List of the planned outcomes.

    A new run gets the first outcome that matches it. If none matches, the run succeeds.
    """

    def __init__(self) -> None:
        self._planned: list[PlannedOutcome] = []

    def add(self, values: Mapping[str, Any]) -> PlannedOutcome:
        """Plan an outcome.

        Raises:
            ValueError: for an unknown field or an unparsable instant.
        """
        planned = read_outcome(values)
        self._planned.append(planned)
        return planned

    def take(self, *, flow_id: str, window: tuple[int, int]) -> RunOutcome:
        """Return the outcome of a new run and count it as used."""
        for planned in self._planned:
            if planned.matches(flow_id, window):
                if planned.left is not None:
                    planned.left -= 1
                return planned.outcome
        return RunOutcome()

    def clear(self) -> None:
        """Remove all planned outcomes."""
        self._planned.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """Return the planned outcomes that are not used up."""
        return [asdict(planned) for planned in self._planned if planned.left != 0]


def read_outcome(values: Mapping[str, Any]) -> PlannedOutcome:
    """Return the planned outcome described by `values`, with defaults filled in.

    Raises:
        ValueError: for an unknown field, an unknown `status_place` or an unparsable instant.
    """
    outcome_fields = {name: value for name, value in values.items() if name not in _SELECTORS}
    unknown = set(outcome_fields) - {f.name for f in fields(RunOutcome)}
    if unknown:
        raise ValueError(f"An outcome has no field {', '.join(sorted(unknown))}.")
    succeeds = outcome_fields.get("vanish") or any(name.startswith("batch_") for name in outcome_fields)
    outcome_fields.setdefault("status", "success" if succeeds else "failed")
    if RunOutcome(status=outcome_fields["status"]).failed:
        outcome_fields.setdefault("errors", [_FAILED_COPY])
    if (place := outcome_fields.get("status_place", "metrics")) not in get_args(StatusPlace):
        raise ValueError(f"status_place must be one of {', '.join(get_args(StatusPlace))}, not {place!r}.")
    for name in ("errors", "extension_errors", "batch_errors", "row_errors", "failed_files"):
        outcome_fields[name] = tuple(outcome_fields.get(name) or ())
    covering = values.get("covering")
    return PlannedOutcome(
        outcome=RunOutcome(**outcome_fields),
        left=values.get("times", 1),
        flow_id=values.get("flow_id"),
        covering=None if covering is None else to_epoch_s(covering),
    )
