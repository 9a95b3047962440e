"""Planned faults: what goes wrong, with which request.

`POST /_emulator/faults` (or `Emulator.plan_fault`) plans one, `GET` lists them with how often each struck,
`DELETE` clears them. Several may be planned at once; of those that break the answer, the first one planned
that strikes a request decides.

Which requests:

- `kind`: as the ledger counts them: `POST /runs`, `GET /runs`, `GET /runs/{id}`, `POST /runs/{id}/action`,
  `GET /flows`, `GET /flows/{id}`, `POST /ims/token/v3`, ...; `*` is any request to Flow Service (not IMS).
  Left out: `POST /runs` for `record_*` and `delay_runs`, `GET /runs` for `ignore_id_filter`, else `*`.
- `nth`: only the n-th request of that kind, counted from the planning.
- `times`: the next n.
- `share`, `seed`: this share of them (0 to 1), drawn from the seed: the same plan strikes the same requests.
- `for_seconds`: only for so long after the planning.
- None of these: every request, until the fault is cleared.

What happens (`action`):

=======================  =================================================================================
`refuse`                 answer `status` (503) before anything is recorded; `body`, or `code` and `message`
`answer`                 the same with status 200 and an empty `body`: proxies' HTML, empty answers, odd JSON
`close`                  close the connection without an answer; nothing is recorded
`hang`                   never answer (the connection closes after `seconds`, 120); nothing is recorded
`half_body`              half of the true answer, then the connection closes; a POST records nothing
`record_and_status`      do what was asked, then answer `status` (502)
`record_and_close`       do what was asked, then close the connection
`record_and_hang`        do what was asked, then never answer (the connection closes after `seconds`, 120)
`record_and_half_body`   do what was asked, then send half of the answer and close
`record_late`            do what was asked only after `seconds` (5), whether or not the client still waits;
                         then close
`slow`                   answer rightly, `seconds` (1) late
`expire_tokens`          all tokens given so far are invalid from now on, for this request too
`delay_runs`             a run made by this request shows in lists and by its id only after `seconds` (60)
`hide_windows`           this request's answer shows no windows, whatever `show_window` says
`ignore_id_filter`       this request's `property=id==...` filters are ignored
=======================  =================================================================================

`body` is JSON, or a string that is sent as it is; `headers` are added to the answer. Examples::

    {"kind": "POST /runs", "action": "refuse", "status": 429, "headers": {"Retry-After": "2"}, "times": 2}
    {"kind": "POST /runs", "action": "refuse", "status": 400, "code": "1360", "message": "too late", "nth": 1}
    {"action": "record_and_close", "share": 0.2, "seed": 7}
    {"kind": "*", "action": "refuse", "status": 429, "for_seconds": 60}
    {"kind": "GET /runs/{id}", "action": "answer", "body": "<html>Who are you?</html>", "nth": 1}
    {"action": "delay_runs", "seconds": 30}
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

POST = "POST /runs"
# Every way in which creating a run fails for a while. A test that wants to meet them all plans each with a `share`.
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
MODIFIER_ACTIONS = frozenset({"expire_tokens", "delay_runs", "hide_windows", "ignore_id_filter"})

_STATUS = {"refuse": 503, "record_and_status": 502}
_SECONDS = {"hang": 120.0, "record_and_hang": 120.0, "record_late": 5.0, "slow": 1.0, "delay_runs": 60.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault as it was planned; the module's docstring has the meaning of the fields."""

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
    """A fault with its defaults filled in.

    Raises:
        ValueError: for an unknown action or field, or a value that cannot be meant.
    """
    unknown = set(values) - {f.name for f in fields(Fault)}
    if unknown:
        raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
    action = values.get("action")
    if action not in RESPONSE_ACTIONS | MODIFIER_ACTIONS:
        raise ValueError(f"action must be one of {', '.join(sorted(RESPONSE_ACTIONS | MODIFIER_ACTIONS))}: {action!r}")
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
            raise ValueError(f"{name} must be a positive integer: {values[name]!r}")
    for name in ("seconds", "for_seconds", "share"):
        if name in values and (not isinstance(values[name], (int, float)) or values[name] < 0):
            raise ValueError(f"{name} must be a number, not negative: {values[name]!r}")
    if values.get("share", 0) > 1:
        raise ValueError(f"share must lie between 0 and 1: {values['share']!r}")
    if not 200 <= values["status"] <= 599:
        raise ValueError(f"status must lie between 200 and 599: {values['status']}")
    if not isinstance(values.get("headers", {}), Mapping):
        raise ValueError(f"headers must be an object: {values['headers']!r}")


@dataclass(slots=True)
class PlannedFault:
    """A fault with its memory: requests seen, requests struck, and its own randomizer."""

    fault: Fault
    until: float
    randomizer: random.Random
    seen: int = 0
    struck: int = 0

    def applies_to(self, kind: str, now: float) -> bool:
        """Whether the fault is meant for this request, which counts as seen."""
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
        return {**asdict(self.fault), "seen": self.seen, "struck": self.struck}


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestFaults:
    """All that goes wrong with one request. `response_fault` decides about the answer; the rest bends it."""

    response_fault: Fault | None = None
    expire_tokens: bool = False
    hide_windows: bool = False
    ignore_id_filter: bool = False
    delay_s: float = 0.0


class FaultPlan:
    """The faults that are planned."""

    def __init__(self) -> None:
        self._planned: list[PlannedFault] = []
        self._planned_total = 0

    def add(self, values: Mapping[str, Any], *, now: float) -> PlannedFault:
        """Plan a fault from now (epoch seconds) on.

        Raises:
            ValueError: when it is malformed.
        """
        fault = read_fault(values)
        until = float("inf") if fault.for_seconds is None else now + fault.for_seconds
        # Each fault has randomizer of its own: five faults with one seed must not all choose the same requests.
        randomizer = random.Random(f"{fault.seed}/{self._planned_total}/{fault.action}/{fault.kind}")
        self._planned_total += 1
        self._planned.append(PlannedFault(fault, until, randomizer))
        return self._planned[-1]

    def clear(self) -> None:
        self._planned.clear()
        self._planned_total = 0

    def as_json(self) -> list[dict[str, Any]]:
        return [planned.as_json() for planned in self._planned]

    def faults_for(self, kind: str, *, now: float) -> RequestFaults:
        """What goes wrong with this request; each planned fault is asked once."""
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
