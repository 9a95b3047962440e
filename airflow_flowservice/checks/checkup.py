"""Asks IMS and Flow Service what they think of a connection and a dataflow; creates nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from airflow_flowservice.checks import findings
from airflow_flowservice.checks.findings import Finding, not_checked, ok, wrong
from airflow_flowservice.exceptions import FlowServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

    from airflow_flowservice.api.models import Flow, FlowRun, FlowSpec

_OF_ACCESS = (findings.SERVICE, findings.ORGANIZATION, findings.SANDBOX, findings.READING)
_OF_A_FLOW = (findings.DATAFLOW, findings.STATE, findings.SCHEDULE, findings.DELTA_COLUMN, findings.NEWEST_RUN)

_FIRST_THE_REST = "what is wrong above has to be mended first"


class Service(Protocol):
    """What is asked; `FlowServiceClient` is one."""

    @property
    def base_url(self) -> str:
        """The platform."""

    @property
    def ims_url(self) -> str:
        """Where tokens come from."""

    @property
    def client_id(self) -> str:
        """The credential's."""

    @property
    def org_id(self) -> str:
        """The organization."""

    @property
    def sandbox(self) -> str:
        """The sandbox's name."""

    @property
    def has_given_token(self) -> bool:
        """Whether a ready token is used."""

    @property
    def clock_offset(self) -> timedelta | None:
        """The service's clock minus this machine's."""

    def fetch_token(self) -> str:
        """A token."""

    def list_flows(self, *, limit: int | None = None) -> Iterator[Flow]:
        """Dataflows."""

    def get_flow(self, flow_id: str) -> Flow:
        """A dataflow."""

    def get_flow_spec(self, flow_spec_id: str) -> FlowSpec:
        """A kind of dataflow."""

    def list_runs(self, *, flow_id: str | None = None, limit: int | None = 100) -> Iterator[FlowRun]:
        """Flow runs, newest first."""


def everything(
    service: Service, *, flow_id: str | None = None, tokens: bool = True, platform: bool = True
) -> Iterator[Finding]:
    """Every check in turn; after one that fails, those that can still be made.

    :param flow_id: None if no dataflow is to be looked at.
    :param tokens: False if the settings do not allow to ask IMS, nor then Flow Service.
    :param platform: False if the settings do not allow to ask Flow Service.
    """
    access = []
    for finding in of_credential(service, tokens=tokens, platform=tokens and platform):
        access.append(finding)
        yield finding
    if tokens and platform and _can_be_asked_further(access):
        yield from of_dataflow(service, flow_id)
    else:
        unasked = (*(_OF_A_FLOW if flow_id is not None else ()), findings.CREATING)
        yield from (not_checked(check, _FIRST_THE_REST) for check in unasked)
    yield findings.of_clock(service.clock_offset)


def of_credential(service: Service, *, tokens: bool = True, platform: bool = True) -> Iterator[Finding]:
    """Whether a token is given, and what it opens.

    :param tokens: False if IMS cannot be asked.
    :param platform: False if Flow Service cannot be asked.
    """
    unasked: tuple[str, ...] = (findings.TOKEN, *_OF_ACCESS)
    if tokens and not service.has_given_token:
        token = _of_token(service)
        yield token
        platform, unasked = platform and not token.wrong, _OF_ACCESS
    if platform:
        yield from _of_access(service)
    else:
        yield from (not_checked(check, _FIRST_THE_REST) for check in unasked)


def of_dataflow(service: Service, flow_id: str | None) -> Iterator[Finding]:
    """Whether a dataflow takes on-demand runs, how its newest run ended, and whether runs may be created.

    :param flow_id: None if none is to be looked at.
    """
    newest = None
    if flow_id is not None:
        try:
            flow = service.get_flow(flow_id)
        except FlowServiceError as error:
            yield wrong(findings.DATAFLOW, error)
            yield from (not_checked(check, "the dataflow cannot be read") for check in _OF_A_FLOW[1:])
        else:
            yield from findings.of_flow(flow, needs_delta_column=_needs_delta_column(service, flow))
            try:
                newest = next(service.list_runs(flow_id=flow_id, limit=1), None)
                yield findings.of_newest_run(newest)
            except FlowServiceError as error:
                yield wrong(findings.NEWEST_RUN, error)
    yield findings.of_creating(newest, client_id=service.client_id)


def _can_be_asked_further(found: list[Finding]) -> bool:
    """A permission to list is not one to read, so dataflows may be readable although they cannot be listed."""
    return all(finding.check == findings.READING for finding in found if finding.wrong)


def _of_token(service: Service) -> Finding:
    try:
        service.fetch_token()
    except FlowServiceError as error:
        return wrong(findings.TOKEN, error, remedy=_remedy_for_ims(error))
    return ok(findings.TOKEN, f"{service.ims_url} gives one to client id {service.client_id}")


def _remedy_for_ims(error: FlowServiceError) -> str | None:
    """The remedies that speak of the connection's host mean the platform's."""
    return error.remedy.replace("the connection's host", "ims_url in the connection's extra") if error.remedy else None


def _of_access(service: Service) -> Iterator[Finding]:
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


def _needs_delta_column(service: Service, flow: Flow) -> bool | None:
    if flow.delta_column is not None or flow.flow_spec_id is None:
        return None
    try:
        return service.get_flow_spec(flow.flow_spec_id).needs_delta_column
    except FlowServiceError:
        return None
