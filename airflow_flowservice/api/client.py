"""FlowServiceClient: Adobe Flow Service, one method for each endpoint.

Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/ and, for creating runs,
https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/on-demand-ingestion
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from airflow_flowservice.api import _settings
from airflow_flowservice.api._http import Http
from airflow_flowservice.api._query import items_of_pages, query_of, run_filters
from airflow_flowservice.api.auth import DEFAULT_SCOPES, IMS_PATH, GivenToken, ImsAuth
from airflow_flowservice.api.data_connections import SourceConnection, TargetConnection
from airflow_flowservice.api.models import CreatedRun, DeltaColumn, Flow, FlowRun, FlowSpec
from airflow_flowservice.api.responses import Call, created_of, item_of
from airflow_flowservice.api.transport import ROOT, Transport
from airflow_flowservice.exceptions import (
    AuthenticationError,
    FlowServiceError,
    UnreadableAnswerError,
)
from airflow_flowservice.windows.window import epoch_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from airflow_flowservice.api.auth import Auth
    from airflow_flowservice.windows.window import IngestionWindow

DEFAULT_BASE_URL = "https://platform.adobe.io"
DEFAULT_IMS_URL = "https://ims-na1.adobelogin.com"

_REPLACE_IT = (
    "replace access_token in the connection's extra, which has expired or is not valid here; or leave it "
    "out and set the client secret (password), with which tokens are renewed"
)


class FlowServiceClient:
    """Flow Service as one credential in one organization and sandbox; safe to share among threads.

    Every method raises :class:`ApiError` classes as `responses` describes, told with the ids and the
    window that they are about. After `create_run` and `retrigger_run`, `NoAnswerError`, `ServerError` and
    `UnreadableAnswerError` mean that a run may have been created; any other error means that none was.

    :param base_url: the platform; `https` unless it is this machine.
    :param client_id: sent as `x-api-key`.
    :param client_secret: fetches tokens; either this or `access_token`.
    :param access_token: a ready token, used as it is.
    :param org_id: the organization, `…@AdobeOrg`.
    :param sandbox: the sandbox's name, not its title.
    :param scopes: comma separated, or a list.
    :param ims_url: Adobe's identity service; `https` unless it is this machine.
    :param epoch_format: how times are written into requests: as strings, as Adobe's tutorial has it, or as
        integers, as its OpenAPI file has it.
    :param timeout_s: seconds to wait for an answer; connecting is given up after ten at most.
    :param max_attempts: how often a request that may be repeated is made at most.
    :param on_token: is told each new token before it is used, so that logs can mask it.
    :param pause: waits some seconds before a repetition.
    :param clock: seconds that only grow, for the token's life.
    :raises ConfigurationError: a setting is missing or cannot work; the message names it.
    """

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        client_id: str,
        client_secret: str | None = None,
        access_token: str | None = None,
        org_id: str,
        sandbox: str = "prod",
        scopes: str | Iterable[str] = DEFAULT_SCOPES,
        ims_url: str = DEFAULT_IMS_URL,
        epoch_format: Literal["string", "integer"] | str = "string",
        timeout_s: float = 30.0,
        max_attempts: int = 5,
        on_token: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        attempts = _settings.at_least_one(max_attempts, "max_attempts")
        http = partial(Http, timeout_s=_settings.seconds(timeout_s, "timeout_s"), max_attempts=attempts, pause=pause)
        self._platform = http(_settings.base_url(base_url, "base_url", known_path=ROOT))
        self._ims = http(_settings.base_url(ims_url, "ims_url", known_path=IMS_PATH))
        self._headers = _settings.headers(client_id=client_id, org_id=org_id, sandbox=sandbox)
        self._epoch_format = _settings.epoch_format(epoch_format)
        scope = _settings.scopes(scopes)
        secret, given = _settings.credential(client_secret, access_token)
        self._auth: Auth
        if secret is None:
            self._auth = GivenToken(given or "", on_token=on_token)
        else:
            self._auth = ImsAuth(
                http=self._ims,
                client_id=client_id,
                client_secret=secret,
                scopes=scope,
                on_token=on_token,
                clock=clock,
            )
        self._transport = Transport(http=self._platform, auth=self._auth, headers=self._headers, pause=pause)

    def __repr__(self) -> str:
        return f"<FlowServiceClient {self.base_url} organization {self.org_id} sandbox {self.sandbox}>"

    def __enter__(self) -> FlowServiceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; the client can still be used."""
        self._platform.close()
        self._ims.close()

    @property
    def base_url(self) -> str:
        """The platform, without a slash at the end."""
        return self._platform.base_url

    @property
    def ims_url(self) -> str:
        """Where tokens come from, without a slash at the end."""
        return self._ims.base_url

    @property
    def client_id(self) -> str:
        """The credential's client id."""
        return self._headers["x-api-key"]

    @property
    def has_given_token(self) -> bool:
        """Whether it uses a ready token as it is, which nobody has tried before the first request."""
        return isinstance(self._auth, GivenToken)

    @property
    def org_id(self) -> str:
        """The organization, `…@AdobeOrg`."""
        return self._headers["x-gw-ims-org-id"]

    @property
    def sandbox(self) -> str:
        """The sandbox's name."""
        return self._headers["x-sandbox-name"]

    def auth_headers(self) -> dict[str, str]:
        """The headers of an authenticated call, with a valid token: for calls that have no method here.

        :raises AuthenticationError: IMS does not accept client id and secret.
        """
        return {"Authorization": f"Bearer {self.fetch_token()}", **self._headers}

    @property
    def clock_offset(self) -> timedelta | None:
        """Flow Service's clock minus this machine's, exact to about a second; None before any answer."""
        return self._transport.clock_offset

    def fetch_token(self) -> str:
        """A valid access token; asks IMS only when there is none, or it is about to expire.

        :raises AuthenticationError: IMS does not accept client id and secret.
        """
        return self._auth.token()

    def get_flow(self, flow_id: str) -> Flow:
        """Read a dataflow: `GET /flows/{id}`.

        :raises FlowNotFoundError: no dataflow has this id in this organization and sandbox.
        """
        with self._about(flow_id=flow_id):
            answer = self._transport.get(f"/flows/{_settings.quoted(flow_id, 'flow_id')}")
            flow = Flow.parse(item_of(answer, Call.GET_FLOW))
            _same(flow.id, flow_id, "flow")
            return flow

    def get_flow_spec(self, flow_spec_id: str) -> FlowSpec:
        """Read what a kind of dataflow asks for: `GET /flowSpecs/{id}`."""
        with self._about():
            answer = self._transport.get(f"/flowSpecs/{_settings.quoted(flow_spec_id, 'flow_spec_id')}")
            return FlowSpec.parse(item_of(answer, Call.GET_FLOW_SPEC))

    def list_flows(self, *, properties: Iterable[str] = (), limit: int | None = None) -> Iterator[Flow]:
        """Read dataflows, page after page: `GET /flows`.

        :param properties: filters such as `state==enabled`; all must hold.
        :param limit: flows on a page; None leaves it to the service.
        """
        with self._about():
            query = query_of(properties, limit=limit)
            for item in items_of_pages(self._transport, "/flows", query, Call.LIST_FLOWS):
                yield Flow.parse(item)

    def create_run(
        self,
        *,
        flow_id: str,
        window: IngestionWindow,
        start_time: datetime,
        delta_column: DeltaColumn | str | Mapping[str, Any] | None = None,
    ) -> CreatedRun:
        """Ask for one window to be ingested: `POST /runs`. Never repeated once it may have arrived.

        :param start_time: when the run shall begin; not in the past by the service's clock. Sent in whole
            seconds, rounded up.
        :param delta_column: needed on the first run of a flow with a table-based source.
        :raises ConfigurationError: an argument cannot be sent; nothing was.
        :raises NoAnswerError: a run may have been created; so too with `ServerError` and
            `UnreadableAnswerError`.
        """
        with self._about(flow_id=flow_id):
            times = {
                "startTime": epoch_seconds(_settings.aware_datetime(start_time, "start_time"), round_up=True),
                "windowStartTime": epoch_seconds(window.start),
                "windowEndTime": epoch_seconds(window.end),
            }
            as_sent = str if self._epoch_format == "string" else int
            params: dict[str, Any] = {name: as_sent(value) for name, value in times.items()}
            if delta_column is not None:
                params["deltaColumn"] = DeltaColumn.parse(delta_column).to_json()
            body = {"flowId": _settings.identifier(flow_id, "flow_id"), "params": params}
        with self._about(flow_id=flow_id, window=str(window)):
            return created_of(self._transport.post("/runs", body), Call.CREATE_RUN)

    def get_run(self, flow_run_id: str) -> FlowRun:
        """Read a flow run: `GET /runs/{id}`.

        :raises RunNotFoundError: no run has this id here; a new one may take minutes to show.
        """
        with self._about(flow_run_id=flow_run_id):
            answer = self._transport.get(f"/runs/{_settings.quoted(flow_run_id, 'flow_run_id')}")
            run = FlowRun.parse(item_of(answer, Call.GET_RUN))
            _same(run.id, flow_run_id, "flow run")
            return run

    def list_runs(
        self,
        *,
        flow_id: str | None = None,
        ids: Iterable[str] | None = None,
        created_since: datetime | None = None,
        order_by: str | None = "-createdAt",
        limit: int | None = 100,
        max_pages: int | None = None,
        briefly: bool = False,
    ) -> Iterator[FlowRun]:
        """Read flow runs, page after page as they are needed: `GET /runs`. All filters must hold.

        :param flow_id: only runs of this dataflow.
        :param ids: only these runs; an empty list asks nothing and yields nothing. About a hundred fit
            into one address.
        :param created_since: only runs created then or later, an aware datetime.
        :param order_by: a field, with `-` in front for descending.
        :param limit: runs on a page.
        :param max_pages: stop after so many pages.
        :param briefly: of runs that have not ended, read id, dataflow and status alone, which takes a third of
            the time.
        """
        with self._about(flow_id=flow_id):
            filters = run_filters(flow_id, ids, created_since)
            if filters is None:
                return
            query = query_of(filters, order_by=order_by, limit=limit)
            for item in items_of_pages(self._transport, "/runs", query, Call.LIST_RUNS, max_pages=max_pages):
                yield FlowRun.parse(item, briefly=briefly)

    def retrigger_run(self, flow_run_id: str) -> CreatedRun:
        """Start a failed run's window again, as a new run: `POST /runs/{id}/action?op=re-trigger`.

        Never repeated once it may have arrived.

        :raises RetriggerRefusedError: this run cannot be started again, or not yet.
        :raises NoAnswerError: a run may have been created; so too with `ServerError` and
            `UnreadableAnswerError`.
        """
        with self._about(flow_run_id=flow_run_id):
            segment = _settings.quoted(flow_run_id, "flow_run_id")
            answer = self._transport.post(f"/runs/{segment}/action?op=re-trigger")
            return created_of(answer, Call.RETRIGGER_RUN)

    def get_source_connection(self, source_connection_id: str) -> SourceConnection:
        """Read what a dataflow reads from: `GET /sourceConnections/{id}`."""
        with self._about():
            segment = _settings.quoted(source_connection_id, "source_connection_id")
            answer = self._transport.get(f"/sourceConnections/{segment}")
            return SourceConnection.parse(item_of(answer, Call.GET_SOURCE))

    def get_target_connection(self, target_connection_id: str) -> TargetConnection:
        """Read what a dataflow writes to: `GET /targetConnections/{id}`."""
        with self._about():
            segment = _settings.quoted(target_connection_id, "target_connection_id")
            answer = self._transport.get(f"/targetConnections/{segment}")
            return TargetConnection.parse(item_of(answer, Call.GET_TARGET))

    @contextmanager
    def _about(self, **fields: str | None) -> Iterator[None]:
        """Errors are told where they belong; a refused token that was given says what to do about it."""
        try:
            yield
        except FlowServiceError as error:
            if isinstance(error, AuthenticationError) and isinstance(self._auth, GivenToken):
                error.remedy = _REPLACE_IT
            error.about(**{name: value for name, value in fields.items() if value})
            raise


def _same(answered: str, asked: str, what: str) -> None:
    if answered.lower() != asked.lower():
        raise UnreadableAnswerError(f"Flow Service was asked for one {what} and answered with another, {answered!r}")
