"""What answers of IMS and Flow Service tell about a connection and a dataflow, as lines for people. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    FlowServiceError,
    OrganizationError,
    SandboxError,
)
from airflow_flowservice.runs.flow_check import require_enabled, require_one_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_flowservice.api.models import Flow, FlowRun

TOKEN, SERVICE, ORGANIZATION, SANDBOX, READING = "token", "service", "organization", "sandbox", "reading"
DATAFLOW, STATE, SCHEDULE, DELTA_COLUMN = "dataflow", "state", "schedule", "delta column"
NEWEST_RUN, CREATING, CLOCK = "newest run", "creating", "clock"

TOLERATED_SKEW = timedelta(seconds=60)


class Verdict(str, Enum):
    """What is to be said of one check; only `WRONG` needs mending."""

    OK = "ok"
    NOTE = "note"
    NOT_CHECKED = "not checked"
    WRONG = "wrong"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check and what came of it.

    :param check: its name, such as `organization`.
    :param message: what is there, or what is wrong; without secrets.
    :param remedy: what to do; None if there is nothing to do.
    """

    check: str
    verdict: Verdict
    message: str
    remedy: str | None = None

    def __str__(self) -> str:
        return f"{self.message}. What to do: {self.remedy}" if self.remedy else self.message

    @property
    def wrong(self) -> bool:
        """Whether something has to be mended."""
        return self.verdict is Verdict.WRONG

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"check": self.check, "verdict": self.verdict.value, "message": self.message, "remedy": self.remedy}


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check=check, verdict=Verdict.OK, message=message)


def note(check: str, message: str, *, remedy: str | None = None) -> Finding:
    """It is worth a look, and may be as it should be."""
    return Finding(check=check, verdict=Verdict.NOTE, message=message, remedy=remedy)


def not_checked(check: str, why: str) -> Finding:
    """Nobody asked, or nobody could."""
    return Finding(check=check, verdict=Verdict.NOT_CHECKED, message=why)


def wrong(check: str, error: FlowServiceError, *, remedy: str | None = None) -> Finding:
    """It is as the error says.

    :param remedy: what to do; default: the error's own.
    """
    return Finding(check=check, verdict=Verdict.WRONG, message=error.account, remedy=remedy or error.remedy)


def of_access(
    error: FlowServiceError | None, *, base_url: str, org_id: str, sandbox: str, flows: bool, given_token: bool = False
) -> Iterator[Finding]:
    """What listing dataflows tells of host, organization, sandbox and the permission to read.

    :param error: why the list could not be read; None if it could.
    :param flows: whether there was a dataflow on the list.
    :param given_token: the token is a ready one, which this request has tried first.
    """
    good = {
        SERVICE: f"{base_url} answers as Flow Service does",
        ORGANIZATION: org_id,
        SANDBOX: sandbox,
        READING: "dataflows can be read" if flows else "there is no dataflow to read",
    }
    if given_token:
        good = {TOKEN: "the ready token of the connection is accepted; it is not renewed when it expires", **good}
    failed = _failed_check(error, given_token=given_token)
    refused = isinstance(error, (AccessDeniedError, AuthenticationError, SandboxError))
    why = f"Flow Service {'refused' if refused else 'did not answer'} before it came to this"
    for check, message in good.items():
        if error is not None and check == failed:
            yield wrong(check, error, remedy=_remedy(error, given_token=given_token))
        elif error is None or _is_known(check, failed):
            yield ok(check, message)
        else:
            yield not_checked(check, why)


def of_flow(flow: Flow, *, needs_delta_column: bool | None) -> Iterator[Finding]:
    """Whether a dataflow takes on-demand runs.

    :param needs_delta_column: whether its source is table-based; None if nobody can tell.
    """
    yield ok(DATAFLOW, f"{flow.name or 'without a name'} ({flow.id})")
    yield _of_rule(STATE, require_enabled, flow, good="enabled" if flow.state else None)
    yield _of_rule(SCHEDULE, require_one_time, flow, good="one-time" if flow.one_time else None)
    yield _of_delta_column(flow, needed=needs_delta_column)


def of_newest_run(run: FlowRun | None) -> Finding:
    """How the dataflow's newest run ended."""
    if run is None:
        return ok(NEWEST_RUN, "the dataflow has none yet")
    created = f", created {run.created_at:%Y-%m-%d %H:%M:%S} UTC" if run.created_at else ""
    text = f"{run.id} is {run.status_word or run.status.value}{created}"
    if not run.status.failed:
        return ok(NEWEST_RUN, text)
    errors = "; ".join(map(str, run.errors)) or "it does not say why"
    return note(NEWEST_RUN, f"{text}: {errors}", remedy="mend the cause; a retry or a clear of its task runs it again")


def of_creating(run: FlowRun | None, *, client_id: str) -> Finding:
    """That nobody knows whether flow runs may be created, and what speaks for it.

    :param run: the newest one of the dataflow.
    """
    why = "only creating a flow run would tell whether this credential may (Adobe's permission 'Manage Sources')"
    if run is not None and run.created_client == client_id:
        when = f" on {run.created_at:%Y-%m-%d}" if run.created_at else ""
        return not_checked(CREATING, f"{why}; it did create the newest one{when}")
    return not_checked(CREATING, why)


def of_clock(offset: timedelta | None) -> Finding:
    """How far this machine's clock is from the service's.

    :param offset: the service's clock minus this machine's; None if no answer told.
    """
    if offset is None:
        return not_checked(CLOCK, "no answer told the service's time")
    seconds = round(abs(offset.total_seconds()))
    if abs(offset) <= TOLERATED_SKEW:
        return ok(CLOCK, f"within {max(seconds, 1)} s of the service's")
    where = "behind" if offset > timedelta(0) else "ahead of"
    return Finding(
        check=CLOCK,
        verdict=Verdict.WRONG,
        message=f"this machine's clock is {seconds} s {where} the service's",
        remedy=(
            "set the clock of this machine, and of the workers, by NTP: a start_time that the service takes for past "
            "is refused, and windows seem to be over too early or too late"
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


def _is_known(check: str, failed: str | None) -> bool:
    """Whether the failure of one check shows that another one is good.

    Who asks, and for which organization, is looked at before the sandbox is; a permission may come anywhere.
    """
    if check == SERVICE:
        return failed != SERVICE
    if check == TOKEN:
        return failed in (ORGANIZATION, SANDBOX, READING)
    return check == ORGANIZATION and failed == SANDBOX


def _remedy(error: FlowServiceError, *, given_token: bool) -> str | None:
    if not isinstance(error, AuthenticationError) or given_token:
        return None
    return (
        "IMS gave this token, and Flow Service refuses it: check that host and ims_url belong together, and that the "
        "credential's project in Adobe Developer Console has the Experience Platform API"
    )


def _of_rule(check: str, rule: Callable[[Flow], None], flow: Flow, *, good: str | None) -> Finding:
    try:
        rule(flow)
    except FlowServiceError as error:
        return wrong(check, error, remedy=error.default_remedy.removesuffix(", then clear the task"))
    return ok(check, good) if good else not_checked(check, "the dataflow does not tell")


def _of_delta_column(flow: Flow, *, needed: bool | None) -> Finding:
    if flow.delta_column is not None:
        return ok(DELTA_COLUMN, f"{flow.delta_column.name!r} is set; runs need not name it, and cannot name another")
    if needed is None:
        return not_checked(DELTA_COLUMN, "none is set, and the flow specification does not tell whether one is needed")
    if not needed:
        return ok(DELTA_COLUMN, "not needed; the source is not table-based")
    return note(
        DELTA_COLUMN,
        "none is set, and the source is table-based, so the first run has to name it",
        remedy="set delta_column of the operator to the source column that tells new rows from old ones",
    )
