"""Planned outcomes: how the next runs end.

`POST /_emulator/outcomes` (or `Emulator.plan_outcome`) plans one, `GET` lists what is left, `DELETE` clears.

Which runs: the next `times` (1; null for all) that are created, by a creation or a re-trigger; with `flow_id`
only of that flow; with `covering` (ISO 8601 or epoch seconds) only those whose window covers the instant.

What happens: `status` (the last word, `failed` unless given), `errors`, `records`, `failed_records`,
`unknown_counts`, `vanish`, `queue_s`, `run_s`, `in_progress_status`, as `model.RunOutcome` has them. Examples::

    {"status": "failed", "errors": [{"code": "CONNECTOR-2001-500", "message": "no"}], "times": 2}
    {"status": "success", "records": 0, "covering": "2025-01-03"}
    {"status": "partialSuccess", "failed_records": 5}
    {"status": "MELTED"}
    {"vanish": true}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from airflow_flowservice.emulator.instants import epoch_seconds
from airflow_flowservice.emulator.model import RunOutcome

_FAILED_COPY = {"code": "CONNECTOR-1001-500", "message": "The copy from the made-up source failed."}
_SELECTORS = frozenset({"times", "flow_id", "covering"})


@dataclass(kw_only=True, slots=True)
class PlannedOutcome:
    """An outcome and the runs that it is for. `left` None: all; `covering` is epoch seconds."""

    outcome: RunOutcome
    left: int | None
    flow_id: str | None
    covering: int | None

    def concerns(self, flow_id: str, window: tuple[int, int]) -> bool:
        if self.left == 0 or self.flow_id not in (None, flow_id):
            return False
        return self.covering is None or window[0] <= self.covering < window[1]


class OutcomePlan:
    """The outcomes that are planned; a run takes the first that concerns it, else it succeeds."""

    def __init__(self) -> None:
        self._planned: list[PlannedOutcome] = []

    def add(self, values: Mapping[str, Any]) -> PlannedOutcome:
        """Plan an outcome.

        Raises:
            ValueError: for an unknown field, or an instant that cannot be read.
        """
        planned = read_outcome(values)
        self._planned.append(planned)
        return planned

    def draw(self, *, flow_id: str, window: tuple[int, int]) -> RunOutcome:
        """The outcome of a new run."""
        for planned in self._planned:
            if planned.concerns(flow_id, window):
                if planned.left is not None:
                    planned.left -= 1
                return planned.outcome
        return RunOutcome()

    def clear(self) -> None:
        self._planned.clear()

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(planned) for planned in self._planned if planned.left != 0]


def read_outcome(values: Mapping[str, Any]) -> PlannedOutcome:
    """An outcome with its defaults filled in.

    Raises:
        ValueError: for an unknown field, or an instant that cannot be read.
    """
    fate = {name: value for name, value in values.items() if name not in _SELECTORS}
    unknown = set(fate) - {f.name for f in fields(RunOutcome)}
    if unknown:
        raise ValueError(f"an outcome has no {', '.join(sorted(unknown))}")
    fate.setdefault("status", "success" if fate.get("vanish") else "failed")
    if RunOutcome(status=fate["status"]).failed:
        fate.setdefault("errors", [_FAILED_COPY])
    covering = values.get("covering")
    return PlannedOutcome(
        outcome=RunOutcome(**{**fate, "errors": tuple(fate.get("errors") or ())}),
        left=values.get("times", 1),
        flow_id=values.get("flow_id"),
        covering=None if covering is None else epoch_seconds(covering),
    )
