# SPDX-License-Identifier: Apache-2.0
"""Query IMS and Flow Service about a connection and a dataflow; create nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airflow_flowservice.checks import findings
from airflow_flowservice.checks.findings import Finding, not_checked, ok, wrong
from airflow_flowservice.exceptions import FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from airflow_flowservice.api.models import ConnectionTest, Flow, FlowRun, FlowSpec, SourceConnection

_ACCESS_CHECKS = (findings.SERVICE, findings.ORGANIZATION, findings.SANDBOX, findings.READING)
_FLOW_CHECKS = (
    findings.DATAFLOW,
    findings.STATE,
    findings.SCHEDULE,
    findings.DELTA_COLUMN,
    findings.SOURCE,
    findings.NEWEST_RUN,
)

_FIX_FIRST = "fix the problems above first"


class CheckedService(Protocol):
    """Client that the checks use; `FlowServiceClient` is one."""

    @property
    def base_url(self) -> str:
        """Return the URL of the platform."""

    @property
    def ims_url(self) -> str:
        """Return the URL of IMS."""

    @property
    def client_id(self) -> str:
        """Return the client id of the credential."""

    @property
    def org_id(self) -> str:
        """Return the organization."""

    @property
    def sandbox(self) -> str:
        """Return the name of the sandbox."""

    @property
    def has_given_token(self) -> bool:
        """Return True if a ready token is used."""

    @property
    def clock_offset(self) -> timedelta | None:
        """Return the service's clock minus this machine's."""

    def fetch_token(self) -> str:
        """Return a token."""

    def list_flows(self, *, limit: int | None = None) -> Iterator[Flow]:
        """Yield dataflows."""

    def get_flow(self, flow_id: str) -> Flow:
        """Return a dataflow."""

    def get_flow_spec(self, flow_spec_id: str) -> FlowSpec:
        """Return the specification of a kind of dataflow."""

    def get_source_connection(self, source_connection_id: str) -> SourceConnection:
        """Return a source connection."""

    def test_connection(self, connection_id: str) -> ConnectionTest:
        """Return the result of connecting to a source."""

    def list_runs(self, *, flow_id: str | None = None, limit: int | None = 100) -> Iterator[FlowRun]:
        """Yield flow runs, newest first."""


def everything(
    service: CheckedService, *, flow_id: str | None = None, tokens: bool = True, platform: bool = True
) -> Iterator[Finding]:
    """Yield the finding of each check; after a failed check, the checks that depend on it are not made.

    :param flow_id: None if no dataflow is checked.
    :param tokens: False if the settings do not allow requests to IMS, and therefore not to Flow Service.
    :param platform: False if the settings do not allow requests to Flow Service.
    """
    access = []
    for finding in of_credential(service, tokens=tokens, platform=tokens and platform):
        access.append(finding)
        yield finding
    if tokens and platform and _can_read_flows(access):
        yield from of_dataflow(service, flow_id)
    else:
        unchecked = (*(_FLOW_CHECKS if flow_id is not None else ()), findings.CREATING)
        yield from (not_checked(check, _FIX_FIRST) for check in unchecked)
    yield findings.of_clock(service.clock_offset)


def of_credential(service: CheckedService, *, tokens: bool = True, platform: bool = True) -> Iterator[Finding]:
    """Yield the findings of the token, and of the access that it permits.

    :param tokens: False if requests to IMS are not possible.
    :param platform: False if requests to Flow Service are not possible.
    """
    unchecked: tuple[str, ...] = (findings.TOKEN, *_ACCESS_CHECKS)
    if tokens and not service.has_given_token:
        token = _token_finding(service)
        yield token
        platform, unchecked = platform and not token.wrong, _ACCESS_CHECKS
    if platform:
        yield from _access_findings(service)
    else:
        yield from (not_checked(check, _FIX_FIRST) for check in unchecked)


def of_dataflow(service: CheckedService, flow_id: str | None) -> Iterator[Finding]:
    """Yield the findings of a dataflow, of its newest run, and of the permission to create runs.

    :param flow_id: None if no dataflow is checked.
    """
    newest = None
    if flow_id is not None:
        try:
            flow = service.get_flow(flow_id)
        except FlowServiceError as error:
            yield wrong(findings.DATAFLOW, error)
            yield from (not_checked(check, "the dataflow cannot be read") for check in _FLOW_CHECKS[1:])
        else:
            yield from findings.of_flow(flow, needs_delta_column=_needs_delta_column(service, flow))
            yield from _source_findings(service, flow)
            try:
                newest = next(service.list_runs(flow_id=flow_id, limit=1), None)
                yield findings.of_newest_run(newest)
            except FlowServiceError as error:
                yield wrong(findings.NEWEST_RUN, error)
    yield findings.of_creating(newest, client_id=service.client_id)


def _can_read_flows(found: list[Finding]) -> bool:
    """Return True if nothing failed, or only the list of dataflows."""
    # The permissions to list and to read differ, so dataflows may be readable although they cannot be listed.
    return all(finding.check == findings.READING for finding in found if finding.wrong)


def _token_finding(service: CheckedService) -> Finding:
    try:
        service.fetch_token()
    except FlowServiceError as error:
        return wrong(findings.TOKEN, error, remedy=_remedy_for_ims(error))
    return ok(findings.TOKEN, f"{service.ims_url} returns one for client id {service.client_id}")


def _remedy_for_ims(error: FlowServiceError) -> str | None:
    """Return the remedy with `ims_url` for the connection's host, which is the platform's host."""
    return error.remedy.replace("the connection's host", "ims_url in the connection's extra") if error.remedy else None


def _access_findings(service: CheckedService) -> Iterator[Finding]:
    error, flow = None, None
    try:
        flow = next(service.list_flows(limit=1), None)
    except FlowServiceError as caught:
        error = caught
    yield from findings.of_access(
        error,
        base_url=service.base_url,
        org_id=service.org_id,
        sandbox=service.sandbox,
        flows=flow is not None,
        given_token=service.has_given_token,
    )


def _source_findings(service: CheckedService, flow: Flow) -> Iterator[Finding]:
    """Yield a finding for each source of the dataflow; almost all dataflows have one."""
    if not flow.source_connection_ids:
        yield not_checked(findings.SOURCE, "the dataflow shows no source connection")
    for source_id in flow.source_connection_ids:
        try:
            source = service.get_source_connection(source_id)
        except FlowServiceError as error:
            yield not_checked(findings.SOURCE, f"the source connection cannot be read: {error.account}")
            continue
        if source.base_connection_id is None:
            yield not_checked(findings.SOURCE, "the source connection has no base connection, so it has no credential")
            continue
        try:
            result = service.test_connection(source.base_connection_id)
        except FlowServiceError as error:
            yield findings.of_source(source.base_connection_id, error)
        else:
            yield findings.of_source(source.base_connection_id, result)


def _needs_delta_column(service: CheckedService, flow: Flow) -> bool | None:
    if flow.delta_column is not None or flow.flow_spec_id is None:
        return None
    try:
        return service.get_flow_spec(flow.flow_spec_id).needs_delta_column
    except FlowServiceError:
        return None
