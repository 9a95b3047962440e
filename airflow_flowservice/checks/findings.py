# SPDX-License-Identifier: Apache-2.0
"""Findings about a connection and a dataflow, from responses of IMS and Flow Service. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    FlowNotReadyError,
    FlowServiceError,
    OrganizationError,
    SandboxError,
)
from airflow_flowservice.plain_text import ERROR_LENGTH, clean_text
from airflow_flowservice.runs.flow_check import require_enabled, require_one_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_flowservice.api.models import ConnectionTest, Flow, FlowRun

TOKEN, SERVICE, ORGANIZATION, SANDBOX, READING = "token", "service", "organization", "sandbox", "reading"
DATAFLOW, STATE, SCHEDULE, DELTA_COLUMN = "dataflow", "state", "schedule", "delta column"
SOURCE, NEWEST_RUN, CREATING, CLOCK = "source", "newest run", "creating", "clock"
POOL = "pool"

_RELAYED_CODE = re.compile(r"\b160[2-6]\b")
TOLERATED_SKEW = timedelta(seconds=60)


class Verdict(str, Enum):
    """Result of one check; only `WRONG` has to be fixed."""

    OK = "ok"
    NOTE = "note"
    NOT_CHECKED = "not checked"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check and its result.

    :param check: name of the check, such as `organization`.
    :param message: actual value, or the problem; without secrets. Made printable and bounded.
    :param remedy: instruction; None if nothing has to be done.
    """

    check: str
    verdict: Verdict
    message: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", clean_text(self.message, length=ERROR_LENGTH))
        if self.remedy:
            object.__setattr__(self, "remedy", clean_text(self.remedy))

    def __str__(self) -> str:
        return f"{self.message}. What to do: {self.remedy}" if self.remedy else self.message

    @property
    def wrong(self) -> bool:
        """Return True if a problem has to be fixed."""
        return self.verdict is Verdict.WRONG

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"check": self.check, "verdict": self.verdict.value, "message": self.message, "remedy": self.remedy}


def ok(check: str, message: str) -> Finding:
    """Return the finding of a successful check."""
    return Finding(check=check, verdict=Verdict.OK, message=message)


def note(check: str, message: str, *, remedy: str | None = None) -> Finding:
    """Return a finding that may be a problem."""
    return Finding(check=check, verdict=Verdict.NOTE, message=message, remedy=remedy)


def not_checked(check: str, why: str) -> Finding:
    """Return the finding of a check that was not made."""
    return Finding(check=check, verdict=Verdict.NOT_CHECKED, message=why)


def wrong(check: str, error: FlowServiceError, *, remedy: str | None = None) -> Finding:
    """Return the finding of an error.

    :param remedy: instruction; default: the remedy of the error.
    """
    return Finding(check=check, verdict=Verdict.WRONG, message=error.account, remedy=remedy or error.remedy)


def of_access(
    error: FlowServiceError | None, *, base_url: str, org_id: str, sandbox: str, flows: bool, given_token: bool = False
) -> Iterator[Finding]:
    """Yield the findings of host, organization, sandbox and the permission to read, from a list of dataflows.

    :param error: error of the request; None if it succeeded.
    :param flows: True if the list has a dataflow.
    :param given_token: True if the token is a ready token, which this request is the first to use.
    """
    good = {
        SERVICE: f"Flow Service responds at {base_url}",
        ORGANIZATION: org_id,
        SANDBOX: sandbox,
        READING: "dataflows can be read" if flows else "there is no dataflow to read",
    }
    if given_token:
        good = {TOKEN: "the ready token of the connection is accepted; it is not renewed when it expires", **good}
    failed = _failed_check(error, given_token=given_token)
    refused = isinstance(error, (AccessDeniedError, AuthenticationError, SandboxError))
    why = f"Flow Service {'refused the request' if refused else 'did not respond'} before this could be checked"
    for check, message in good.items():
        if error is not None and check == failed:
            yield wrong(check, error, remedy=_remedy_of(error, given_token=given_token))
        elif error is None or _is_implied(check, failed):
            yield ok(check, message)
        else:
            yield not_checked(check, why)


def of_flow(flow: Flow, *, needs_delta_column: bool | None) -> Iterator[Finding]:
    """Yield the findings of a dataflow: whether it accepts on-demand runs.

    :param needs_delta_column: True if the source is table-based; None if this is unknown.
    """
    yield ok(DATAFLOW, f"{flow.name or 'without a name'} ({flow.id})")
    yield _rule_finding(STATE, require_enabled, flow, good="enabled" if flow.state else None)
    yield _rule_finding(SCHEDULE, require_one_time, flow, good="one-time" if flow.one_time else None)
    yield _delta_column_finding(flow, needed=needs_delta_column)


def of_source(connection_id: str, result: ConnectionTest | FlowServiceError) -> Finding:
    """Return the finding of the source's base connection, to which Adobe connects with the stored credential.

    :param result: result of the test, or the error of the request.
    """
    remedy = (
        f"renew the credential of the source's account (base connection {connection_id}) in Experience Platform, "
        "and check that the source accepts connections from Adobe's addresses"
    )
    if isinstance(result, FlowServiceError):
        # Adobe relays the source's own refusal, such as 1605-401, so it can look like one of this credential.
        is_relayed = _RELAYED_CODE.search(result.code or "") is not None
        if is_relayed or not isinstance(result, ApiError) or result.http_status is None:
            return wrong(SOURCE, result, remedy=remedy if is_relayed else None)
        return not_checked(SOURCE, f"Adobe did not test the source's connection {connection_id}: {result.account}")
    if result.result is None:
        return not_checked(SOURCE, f"the response to the test of connection {connection_id} has no result")
    if result.result:
        return ok(SOURCE, f"Adobe can connect to the source with the credential of connection {connection_id}")
    message = f"Adobe cannot connect to the source with the credential of connection {connection_id}"
    return Finding(
        check=SOURCE,
        verdict=Verdict.WRONG,
        message=f"{message}: {result.message}" if result.message else message,
        remedy=remedy,
    )


def of_newest_run(run: FlowRun | None) -> Finding:
    """Return the finding of the dataflow's newest run."""
    if run is None:
        return ok(NEWEST_RUN, "the dataflow has no flow run yet")
    created = f", created {run.created_at:%Y-%m-%d %H:%M:%S} UTC" if run.created_at else ""
    text = f"{run.id} is {run.status_word or run.status.value}{created}"
    if not run.status.failed:
        return ok(NEWEST_RUN, text)
    errors = "; ".join(map(str, run.errors)) or "the run has no error message"
    return note(
        NEWEST_RUN, f"{text}: {errors}", remedy="fix the cause; a retry or a clear of its task creates a new run"
    )


def of_creating(run: FlowRun | None, *, client_id: str) -> Finding:
    """Return the finding of the permission to create flow runs, which cannot be checked without creating one.

    :param run: newest run of the dataflow.
    """
    why = "only a new flow run shows whether this credential may create one (Adobe's permission 'Manage Sources')"
    if run is not None and run.created_client == client_id:
        when = f" on {run.created_at:%Y-%m-%d}" if run.created_at else ""
        return not_checked(CREATING, f"{why}; it created the newest one{when}")
    return not_checked(CREATING, why)


def of_clock(offset: timedelta | None) -> Finding:
    """Return the finding of this machine's clock, compared with the service's.

    :param offset: the service's clock minus this machine's; None if no response had a date.
    """
    if offset is None:
        return not_checked(CLOCK, "no response contained the service's time")
    seconds = round(abs(offset.total_seconds()))
    if abs(offset) <= TOLERATED_SKEW:
        return ok(CLOCK, f"within {max(seconds, 1)} s of the service's")
    where = "behind" if offset > timedelta(0) else "ahead of"
    return Finding(
        check=CLOCK,
        verdict=Verdict.WRONG,
        message=f"this machine's clock is {seconds} s {where} the service's",
        remedy=(
            "set the clock of this machine, and of the workers, by NTP: Flow Service refuses a start_time that is in "
            "its past, and the ends of windows are reached too early or too late"
        ),
    )


def _failed_check(error: FlowServiceError | None, *, given_token: bool) -> str | None:
    if error is None:
        return None
    if isinstance(error, OrganizationError):
        return ORGANIZATION
    if isinstance(error, SandboxError):
        return SANDBOX
    if isinstance(error, AuthenticationError) and given_token:
        return TOKEN
    return READING if isinstance(error, (AuthenticationError, AccessDeniedError)) else SERVICE


def _is_implied(check: str, failed: str | None) -> bool:
    """Return True if the failure of one check implies that another check succeeded."""
    # Adobe checks credential, organization, sandbox in this order; a permission error can occur at any step.
    if check == SERVICE:
        return failed != SERVICE
    if check == TOKEN:
        return failed in (ORGANIZATION, SANDBOX, READING)
    return check == ORGANIZATION and failed == SANDBOX


def _remedy_of(error: FlowServiceError, *, given_token: bool) -> str | None:
    if not isinstance(error, AuthenticationError) or given_token:
        return None
    return (
        "IMS issued this token, but Flow Service rejects it: check that host and ims_url belong together, and that the "
        "credential's project in Adobe Developer Console has the Experience Platform API"
    )


def _rule_finding(check: str, rule: Callable[[Flow], None], flow: Flow, *, good: str | None) -> Finding:
    try:
        rule(flow)
    except FlowNotReadyError as error:
        return note(check, error.account, remedy="wait until the dataflow is enabled, then check again")
    except FlowServiceError as error:
        return wrong(check, error, remedy=re.sub(r"[,;] then clear the task$", "", error.remedy or ""))
    return ok(check, good) if good else not_checked(check, "the dataflow has no such value")


def _delta_column_finding(flow: Flow, *, needed: bool | None) -> Finding:
    if flow.delta_column is not None:
        return ok(DELTA_COLUMN, f"{flow.delta_column.name!r} is set; runs may omit it, and cannot set another one")
    if needed is None:
        return not_checked(DELTA_COLUMN, "none is set, and the flow specification does not state whether one is needed")
    if not needed:
        return ok(DELTA_COLUMN, "not needed; the source is not table-based")
    return note(
        DELTA_COLUMN,
        "none is set, and the source is table-based, so the first run must set it",
        remedy="set delta_column of the operator to the source column that distinguishes new rows from old rows",
    )
