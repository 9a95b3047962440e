# SPDX-License-Identifier: Apache-2.0
"""Planned faults of the emulator.

`POST /_emulator/faults` (or `Emulator.plan_fault`) plans one fault. `GET` lists the planned faults with the
number of requests that each one affected (`struck`). `DELETE` removes all of them.

Several faults can be planned at the same time. If several of them would change the response to one request,
the emulator applies only the fault that was planned first.

Fields that select requests:

- `kind`: the kind of request, as counted in the ledger: `POST /runs`, `GET /runs`, `GET /runs/{id}`,
  `POST /runs/{id}/action`, `GET /flows`, `GET /flows/{id}`, `GET /batches/{ids}` (the catalogue),
  `GET /batches/{id}/meta` (error diagnostics), `POST /ims/token/v3`, ...
  `*` selects every request to Flow Service, but none to IMS.
  Default: `POST /runs` for `record_*` and `delay_runs`, `GET /runs` for `ignore_id_filter`, otherwise `*`.
- `nth`: only the n-th request of that kind, counted from the time of planning.
- `times`: only the next n requests of that kind.
- `share`, `seed`: a random share (0 to 1) of the requests. The same plan with the same seed selects the same
  requests.
- `for_seconds`: only requests within this time after planning.
- If none of these fields is given, the fault affects every request until it is removed.

Values of `action`:

=======================  =================================================================================
`refuse`                 respond with `status` (503) and record nothing; `body`, or `code` and `message`
`answer`                 like `refuse`, with status 200 and an empty `body` as defaults; for example for the
                         HTML page of a proxy, an empty response or unexpected JSON
`close`                  record nothing and close the connection without a response
`hang`                   record nothing, send no response, and close the connection after `seconds` (120)
`half_body`              send half of the regular response and close; a POST records nothing
`record_and_status`      execute the request, then respond with `status` (502)
`record_and_close`       execute the request, then close the connection without a response
`record_and_hang`        execute the request, send no response, and close the connection after `seconds` (120)
`record_and_half_body`   execute the request, then send half of the response and close
`record_late`            execute the request after `seconds` (5), even if the client has disconnected; close
`slow`                   send the regular response `seconds` (1) late
`expire_tokens`          invalidate all tokens issued so far, including the token of this request
`delay_runs`             hide a run that this request creates, in lists and by its id, for `seconds` (60)
`hide_windows`           show no windows in the response to this request, whatever `show_window` is
`ignore_id_filter`       ignore the `property=id==...` filters of this request
=======================  =================================================================================

The numbers in parentheses are defaults. `body` is JSON, or a string that is sent unchanged. `headers` are
added to the response. Examples::

    {"kind": "POST /runs", "action": "refuse", "status": 429, "headers": {"Retry-After": "2"}, "times": 2}
    {"kind": "POST /runs", "action": "refuse", "status": 400, "code": "1360", "message": "too late", "nth": 1}
    {"action": "record_and_close", "share": 0.2, "seed": 7}
    {"kind": "*", "action": "refuse", "status": 429, "for_seconds": 60}
    {"kind": "GET /runs/{id}", "action": "answer", "body": "<html>Sign in</html>", "nth": 1}
    {"action": "delay_runs", "seconds": 30}
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

POST = "POST /runs"
# All transient failures of POST /runs. A test can plan each of them with a `share` to cover them all.
POST_FAULTS: tuple[Mapping[str, Any], ...] = (
    {"kind": POST, "action": "refuse", "status": 503},
    {"kind": POST, "action": "record_and_status", "status": 500},
    {"kind": POST, "action": "record_and_status", "status": 502},
    {"kind": POST, "action": "record_and_status", "status": 504},
    {"kind": POST, "action": "record_and_close"},
    {"kind": POST, "action": "record_and_hang"},
    {"kind": POST, "action": "record_and_half_body"},
    {"kind": POST, "action": "half_body"},
    {"kind": POST, "action": "refuse", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": POST, "action": "refuse", "status": 429},
)
# Actions that replace or change the response. At most one of them applies to a request.
RESPONSE_ACTIONS = frozenset(
    {
        "refuse",
        "answer",
        "close",
        "hang",
        "half_body",
        "record_and_status",
        "record_and_close",
        "record_and_hang",
        "record_and_half_body",
        "record_late",
        "slow",
    }
)
# Actions that change how the request is processed. Several of them can apply to a request.
MODIFIER_ACTIONS = frozenset({"expire_tokens", "delay_runs", "hide_windows", "ignore_id_filter"})

_STATUS = {"refuse": 503, "record_and_status": 502}
_SECONDS = {"hang": 120.0, "record_and_hang": 120.0, "record_late": 5.0, "slow": 1.0, "delay_runs": 60.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Settings of a planned fault. The module docstring describes the fields."""

    action: str
    kind: str = ""
    status: int = 0
    code: str | None = None
    message: str | None = None
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    nth: int | None = None
    times: int | None = None
    share: float | None = None
    seed: int = 0
    seconds: float = 0.0
    for_seconds: float | None = None


def read_fault(values: Mapping[str, Any]) -> Fault:
    """Return the fault described by `values`, with defaults filled in.

    Raises:
        ValueError: for an unknown action, an unknown field or an invalid value.
    """
    unknown = set(values) - {f.name for f in fields(Fault)}
    if unknown:
        raise ValueError(f"A fault has no field {', '.join(sorted(unknown))}.")
    action = values.get("action")
    if action not in RESPONSE_ACTIONS | MODIFIER_ACTIONS:
        raise ValueError(
            f"action must be one of {', '.join(sorted(RESPONSE_ACTIONS | MODIFIER_ACTIONS))}, not {action!r}."
        )
    filled = {
        "kind": _default_kind(action),
        "status": _STATUS.get(action, 200),
        "seconds": _SECONDS.get(action, 0.0),
        **{name: value for name, value in values.items() if value is not None},
    }
    _check(filled)
    return Fault(**filled)


def _default_kind(action: str) -> str:
    if action.startswith("record_") or action == "delay_runs":
        return "POST /runs"
    return "GET /runs" if action == "ignore_id_filter" else "*"


def _check(values: Mapping[str, Any]) -> None:
    for name in ("status", "nth", "times"):
        if name in values and (not isinstance(values[name], int) or values[name] < 1):
            raise ValueError(f"{name} must be a positive integer, not {values[name]!r}.")
    for name in ("seconds", "for_seconds", "share"):
        if name in values and (not isinstance(values[name], (int, float)) or values[name] < 0):
            raise ValueError(f"{name} must be a number of at least 0, not {values[name]!r}.")
    if values.get("share", 0) > 1:
        raise ValueError(f"share must be between 0 and 1, not {values['share']!r}.")
    if not 200 <= values["status"] <= 599:
        raise ValueError(f"status must be between 200 and 599, not {values['status']}.")
    if not isinstance(values.get("headers", {}), Mapping):
        raise ValueError(f"headers must be an object, not {values['headers']!r}.")


@dataclass(slots=True)
class PlannedFault:
    """A planned fault with its counters.

    Attributes:
        fault: the settings of the fault.
        until: epoch seconds after which the fault no longer applies.
        randomizer: source of the random share of requests.
        seen: number of requests of the fault's kind.
        struck: number of requests that the fault affected.
    """

    fault: Fault
    until: float
    randomizer: random.Random
    seen: int = 0
    struck: int = 0

    def applies_to(self, kind: str, now: float) -> bool:
        """Count the request as seen and return whether the fault applies to it."""
        if not self._matches_kind(kind) or now > self.until:
            return False
        self.seen += 1
        fault = self.fault
        drawn = fault.share is None or self.randomizer.random() < fault.share
        if fault.nth is not None and self.seen != fault.nth:
            return False
        return drawn and (fault.times is None or self.struck < fault.times)

    def _matches_kind(self, kind: str) -> bool:
        if self.fault.kind == "*":
            return not kind.endswith("/ims/token/v3")
        return self.fault.kind == kind

    def as_json(self) -> dict[str, Any]:
        """Return the settings and counters of the fault."""
        return {**asdict(self.fault), "seen": self.seen, "struck": self.struck}


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestFaults:
    """All faults of one request.

    Attributes:
        response_fault: the fault that replaces or changes the response; None if there is none.
        expire_tokens: invalidate all tokens before the request.
        hide_windows: show no windows in the response.
        ignore_id_filter: ignore the request's `id` filters.
        delay_s: seconds for which a created run is hidden.
    """

    response_fault: Fault | None = None
    expire_tokens: bool = False
    hide_windows: bool = False
    ignore_id_filter: bool = False
    delay_s: float = 0.0


class FaultPlan:
    """List of the planned faults."""

    def __init__(self) -> None:
        self._planned: list[PlannedFault] = []
        self._planned_total = 0

    def add(self, values: Mapping[str, Any], *, now: float) -> PlannedFault:
        """Plan a fault that applies from `now` (epoch seconds).

        Raises:
            ValueError: if the fault is malformed.
        """
        fault = read_fault(values)
        until = float("inf") if fault.for_seconds is None else now + fault.for_seconds
        # Each fault has a separate randomizer, so that faults with the same seed select different requests.
        randomizer = random.Random(f"{fault.seed}/{self._planned_total}/{fault.action}/{fault.kind}")
        self._planned_total += 1
        self._planned.append(PlannedFault(fault, until, randomizer))
        return self._planned[-1]

    def clear(self) -> None:
        """Remove all planned faults."""
        self._planned.clear()
        self._planned_total = 0

    def as_json(self) -> list[dict[str, Any]]:
        """Return all planned faults with their counters."""
        return [planned.as_json() for planned in self._planned]

    def faults_for(self, kind: str, *, now: float) -> RequestFaults:
        """Return the faults of this request and update the counters of the planned faults."""
        response_fault: Fault | None = None
        modifiers: list[Fault] = []
        for planned in self._planned:
            fault = planned.fault
            if not planned.applies_to(kind, now) or (fault.action in RESPONSE_ACTIONS and response_fault):
                continue
            planned.struck += 1
            if fault.action in RESPONSE_ACTIONS:
                response_fault = fault
            else:
                modifiers.append(fault)
        actions = {fault.action for fault in modifiers}
        return RequestFaults(
            response_fault=response_fault,
            expire_tokens="expire_tokens" in actions,
            hide_windows="hide_windows" in actions,
            ignore_id_filter="ignore_id_filter" in actions,
            delay_s=max((f.seconds for f in modifiers if f.action == "delay_runs"), default=0.0),
        )
