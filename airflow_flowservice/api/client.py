# SPDX-License-Identifier: Apache-2.0
"""Client of Adobe Flow Service, with one method for each endpoint.

Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/ and, for creating runs,
https://experienceleague.adobe.com/en/docs/experience-platform/sources/api-tutorials/on-demand-ingestion

Each task imports this module; a module that creating a flow run does not need is imported where it is used.
"""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from airflow_flowservice.api import validation
from airflow_flowservice.api.auth import DEFAULT_SCOPES, IMS_PATH, GivenToken, ImsAuth
from airflow_flowservice.api.catalog import CATALOG_ROOT, PROPERTIES, CatalogBatch, batches_in
from airflow_flowservice.api.http_session import HttpSession
from airflow_flowservice.api.models import (
    ConnectionTest,
    CreatedRun,
    DeltaColumn,
    Flow,
    FlowRun,
    FlowSpec,
    SourceConnection,
    TargetConnection,
)
from airflow_flowservice.api.responses import Call, parse_item, parse_page, raise_for_status
from airflow_flowservice.api.transport import EPOCH_TYPES, ROOT, EpochForms, Transport, retrigger_run
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    AuthenticationError,
    FlowServiceError,
    NoAnswerError,
    UnreadableAnswerError,
)
from airflow_flowservice.windows.window import epoch_milliseconds, epoch_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from airflow_flowservice.api.auth import Auth
    from airflow_flowservice.api.failed_records import FailedRecords
    from airflow_flowservice.api.http_session import HttpResponse
    from airflow_flowservice.api.shared_cache import SharedCache
    from airflow_flowservice.windows.window import IngestionWindow

DEFAULT_BASE_URL = "https://platform.adobe.io"
DEFAULT_IMS_URL = "https://ims-na1.adobelogin.com"

DEFAULT_SANDBOX = "prod"

LIST_TIMEOUTS = 20
"""Limit of the requests for all pages of a list together, as a multiple of `timeout_s`."""
MAX_PAGES = 1000
MAX_EMPTY_PAGES = 20
"""Maximum number of consecutive pages without an object."""
_MAX_CONTINUATION_LENGTH = 4096

_PERMIT_CATALOG = (
    "ask the Adobe administrator to add the permission 'View Datasets' in this sandbox to the credential's role, or "
    "remove wait_for_batch"
)
_REPLACE_EXPIRED = (
    "replace access_token in the connection's extra, which has expired or is not valid here; or remove it "
    "and set the client secret (password), with which tokens are renewed"
)


class FlowServiceClient:
    """Client with one credential, organization and sandbox; safe to share among threads.

    Every method raises :class:`ApiError` classes as described in `responses`, with the ids and the window of the
    request. After `create_run` and `retrigger_run`, `NoAnswerError`, `ServerError` and `UnreadableAnswerError`
    mean that a run may have been created; any other error means that none was created.

    :param base_url: URL of the platform; `https`, except on this machine.
    :param client_id: sent as `x-api-key`.
    :param client_secret: fetches tokens; set either this or `access_token`.
    :param access_token: ready token, used unchanged.
    :param org_id: organization, `…@AdobeOrg`.
    :param sandbox: name of the sandbox, not its title.
    :param scopes: comma-separated, or a list.
    :param ims_url: URL of Adobe's identity service; `https`, except on this machine.
    :param epoch_format: type of times in requests: `string`, as in Adobe's tutorial, `integer`, as in its OpenAPI
        file, or `auto`: strings, and if Flow Service refuses them, integers.
    :param timeout_s: seconds to wait for a response; the limit for connecting is at most 10 seconds. An attempt
        takes at most twice as long as a whole, and all pages of a list together at most 20 times as long.
    :param max_attempts: maximum number of attempts of a request that may be repeated.
    :param on_token: called with each new token before it is used, so that logs can mask it.
    :param pause: function that waits some seconds before a repetition.
    :param clock: monotonic clock in seconds, for the token's lifetime.
    :param shared_cache: shares tokens with other processes; None keeps them in memory only.
    :param reuses_tokens: False to use no token of other clients or processes, to test the credential.
    :raises ConfigurationError: a setting is missing or invalid; the message names it.
    """

    def __init__(
        self,
        *,
        base_url: str = DEFAULT_BASE_URL,
        client_id: str,
        client_secret: str | None = None,
        access_token: str | None = None,
        org_id: str,
        sandbox: str = DEFAULT_SANDBOX,
        scopes: str | Iterable[str] = DEFAULT_SCOPES,
        ims_url: str = DEFAULT_IMS_URL,
        epoch_format: Literal["auto", "string", "integer"] | str = "auto",
        timeout_s: float = 30.0,
        max_attempts: int = 5,
        on_token: Callable[[str], None] | None = None,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        shared_cache: SharedCache | None = None,
        reuses_tokens: bool = True,
    ) -> None:
        attempts = validation.validate_positive_integer(max_attempts, "max_attempts")
        self._timeout_s = validation.validate_seconds(timeout_s, "timeout_s")
        http = partial(HttpSession, timeout_s=self._timeout_s, max_attempts=attempts, pause=pause)
        self._platform = http(validation.validate_base_url(base_url, "base_url", known_path=ROOT))
        self._ims = http(validation.validate_base_url(ims_url, "ims_url", known_path=IMS_PATH))
        self._headers = {
            "x-api-key": validation.validate_client_id(client_id),
            "x-gw-ims-org-id": validation.validate_org_id(org_id),
            "x-sandbox-name": validation.validate_sandbox(sandbox),
        }
        self._epochs = EpochForms(epoch_format=epoch_format, connection=(self.base_url, *self._headers.values()))
        scope = validation.validate_scopes(scopes)
        secret, token = validation.validate_credential(client_secret, access_token)
        if secret is None:
            self._auth: Auth = GivenToken(token or "", on_token=on_token)
        else:
            ims_auth = partial(ImsAuth, http=self._ims, client_id=client_id, on_token=on_token, clock=clock)
            ims_auth = partial(ims_auth, cache=shared_cache, org_id=org_id, reuses_tokens=reuses_tokens)
            self._auth = ims_auth(client_secret=secret, scopes=scope)
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
        """Return the URL of the platform, without a trailing slash."""
        return self._platform.base_url

    @property
    def ims_url(self) -> str:
        """Return the URL of IMS, without a trailing slash."""
        return self._ims.base_url

    @property
    def client_id(self) -> str:
        """Return the client id of the credential."""
        return self._headers["x-api-key"]

    @property
    def has_given_token(self) -> bool:
        """Return True if the client uses a ready token, which only a request to Flow Service can check."""
        return isinstance(self._auth, GivenToken)

    @property
    def org_id(self) -> str:
        """Return the organization, `…@AdobeOrg`."""
        return self._headers["x-gw-ims-org-id"]

    @property
    def sandbox(self) -> str:
        """Return the name of the sandbox."""
        return self._headers["x-sandbox-name"]

    def auth_headers(self) -> dict[str, str]:
        """Return the headers of an authenticated call, with a valid token, for endpoints without a method here.

        :raises AuthenticationError: IMS rejects client id and secret.
        """
        return {"Authorization": f"Bearer {self.fetch_token()}", **self._headers}

    @property
    def clock_offset(self) -> timedelta | None:
        """Return Flow Service's clock minus this machine's, exact to a second; None before the first response."""
        return self._transport.clock_offset

    def fetch_token(self) -> str:
        """Return a valid access token; request one of IMS only if there is none, or if it expires soon.

        :raises AuthenticationError: IMS rejects client id and secret.
        """
        return self._auth.token()

    def get_flow(self, flow_id: str) -> Flow:
        """Read a dataflow: `GET /flows/{id}`.

        :raises FlowNotFoundError: no dataflow has this id in this organization and sandbox.
        """
        with self._about(flow_id=flow_id):
            response = self._transport.get(f"/flows/{validation.path_segment(flow_id, 'flow_id')}")
            flow = Flow.parse(parse_item(response, Call.GET_FLOW))
            _require_same_id(flow.id, flow_id, "flow")
            return flow

    def get_flow_spec(self, flow_spec_id: str) -> FlowSpec:
        """Read the specification of a kind of dataflow: `GET /flowSpecs/{id}`."""
        with self._about():
            response = self._transport.get(f"/flowSpecs/{validation.path_segment(flow_spec_id, 'flow_spec_id')}")
            return FlowSpec.parse(parse_item(response, Call.GET_FLOW_SPEC))

    def list_flows(self, *, properties: Iterable[str] = (), limit: int | None = None) -> Iterator[Flow]:
        """Read dataflows, one page after the other: `GET /flows`.

        :param properties: filters such as `state==enabled`, combined with AND.
        :param limit: number of flows on a page; None is the service's default.
        """
        with self._about():
            query = _query(properties, limit=limit)
            for item in self._items_of_pages("/flows", query, Call.LIST_FLOWS):
                yield Flow.parse(item)

    def create_run(
        self,
        *,
        flow_id: str,
        window: IngestionWindow,
        start_time: datetime,
        delta_column: DeltaColumn | str | Mapping[str, Any] | None = None,
    ) -> CreatedRun:
        """Create a flow run for one window: `POST /runs`. Never repeated if it may have arrived.

        If Flow Service refuses the type of times, and `epoch_format` is `auto`, they are sent again in the other type.

        :param start_time: start of the run; not in the past by the service's clock. Sent in whole seconds,
            rounded up.
        :param delta_column: required for the first run of a flow with a table-based source.
        :raises ConfigurationError: an argument is invalid; nothing was sent.
        :raises NoAnswerError: a run may have been created; the same applies to `ServerError` and
            `UnreadableAnswerError`.
        """
        with self._about(flow_id=flow_id):
            times = {
                "startTime": epoch_seconds(validation.validate_instant(start_time, "start_time"), round_up=True),
                "windowStartTime": epoch_seconds(window.start),
                "windowEndTime": epoch_seconds(window.end),
            }
            column = {} if delta_column is None else {"deltaColumn": DeltaColumn.parse(delta_column).to_json()}
            known_id = validation.validate_identifier(flow_id, "flow_id")

        def send(epoch_type: str) -> HttpResponse:
            params = {name: EPOCH_TYPES[epoch_type](value) for name, value in times.items()}
            return self._transport.post("/runs", {"flowId": known_id, "params": {**params, **column}})

        with self._about(flow_id=flow_id, window=window):
            return self._epochs.create_run(send)

    def get_run(self, flow_run_id: str, *, within_s: float | None = None) -> FlowRun:
        """Read a flow run: `GET /runs/{id}`.

        :param within_s: limit in seconds for all attempts and their pauses, and for the token's request.
        :raises RunNotFoundError: no run has this id here; a new run may take minutes to become visible.
        """
        with self._about(flow_run_id=flow_run_id):
            path = f"/runs/{validation.path_segment(flow_run_id, 'flow_run_id')}"
            response = self._transport.get(path, within_s=math.inf if within_s is None else within_s)
            run = FlowRun.parse(parse_item(response, Call.GET_RUN))
            _require_same_id(run.id, flow_run_id, "flow run")
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
        only_ids: bool = False,
        within_s: float | None = None,
    ) -> Iterator[FlowRun]:
        """Read flow runs, one page after the other as needed: `GET /runs`. Filters are combined with AND.

        :param flow_id: only runs of this dataflow.
        :param ids: only these runs; for an empty list, no request is sent and nothing is yielded. One URL has
            space for about a hundred ids.
        :param created_since: only runs created at or after this time, an aware datetime.
        :param order_by: name of a field, with a leading `-` for descending order.
        :param limit: number of runs on a page.
        :param max_pages: maximum number of pages.
        :param briefly: of runs that have not ended, parse only id, dataflow and status.
        :param only_ids: parse only id, dataflow and time of creation.
        :param within_s: limit in seconds for the requests of all pages; the default is also the maximum.
        :raises UnreadableAnswerError: the pages do not end.
        """
        with self._about(flow_id=flow_id):
            filters = _run_filters(flow_id, ids, created_since)
            if filters is None:
                return
            query = _query(filters, order_by=order_by, limit=limit)
            pages = self._items_of_pages("/runs", query, Call.LIST_RUNS, max_pages=max_pages, within_s=within_s)
            for item in pages:
                yield FlowRun.parse_id(item) if only_ids else FlowRun.parse(item, briefly=briefly)

    def retrigger_run(self, flow_run_id: str) -> CreatedRun:
        """Create a new run for a failed run's window: `POST /runs/{id}/action?op=re-trigger`.

        Never repeated if it may have arrived. If Flow Service does not know the action (1401), the name of the OpenAPI
        file (`RE_TRIGGER`) is sent.

        :raises RetriggerRefusedError: this run cannot be re-triggered, or not yet.
        :raises NoAnswerError: a run may have been created; the same applies to `ServerError` and
            `UnreadableAnswerError`.
        """
        with self._about(flow_run_id=flow_run_id):
            segment = validation.path_segment(flow_run_id, "flow_run_id")
            return retrigger_run(lambda action: self._transport.post(f"/runs/{segment}/action?op={action}"))

    def failed_records(self, flow_run_id: str) -> FailedRecords:
        """Read a flow run, and return an object that lists and downloads its failed records.

        :raises RunNotFoundError: no run has this id here.
        """
        from airflow_flowservice.api.failed_records import DOWNLOAD_TIMEOUTS, FailedRecords

        about = partial(self._about, flow_run_id=flow_run_id)
        with about():
            path = f"/runs/{validation.path_segment(flow_run_id, 'flow_run_id')}"
            raw = parse_item(self._transport.get(path), Call.GET_RUN)
            _require_same_id(FlowRun.parse(raw).id, flow_run_id, "flow run")
            return FailedRecords(
                transport=self._transport,
                base_url=self.base_url,
                raw=raw,
                within_s=DOWNLOAD_TIMEOUTS * self._timeout_s,
                context=about,
            )

    def get_source_connection(self, source_connection_id: str) -> SourceConnection:
        """Read the source connection of a dataflow: `GET /sourceConnections/{id}`."""
        with self._about():
            segment = validation.path_segment(source_connection_id, "source_connection_id")
            response = self._transport.get(f"/sourceConnections/{segment}")
            return SourceConnection.parse(parse_item(response, Call.GET_SOURCE))

    def get_target_connection(self, target_connection_id: str) -> TargetConnection:
        """Read the target connection of a dataflow: `GET /targetConnections/{id}`."""
        with self._about():
            segment = validation.path_segment(target_connection_id, "target_connection_id")
            response = self._transport.get(f"/targetConnections/{segment}")
            return TargetConnection.parse(parse_item(response, Call.GET_TARGET))

    def test_connection(self, connection_id: str) -> ConnectionTest:
        """Let Adobe connect to a source with the credential that it stores: `GET /connections/{id}/test`.

        :param connection_id: base connection, as `SourceConnection.base_connection_id`.
        """
        with self._about():
            segment = validation.path_segment(connection_id, "connection_id")
            response = self._transport.get(f"/connections/{segment}/test")
            raise_for_status(response, Call.TEST_CONNECTION)
            return ConnectionTest.parse(response.json())

    def list_batches(self, ids: Iterable[str], *, within_s: float | None = None) -> list[CatalogBatch]:
        """Read batches in the catalogue with one request: `GET /data/foundation/catalog/batches/{ids}`.

        :param ids: one URL has space for about a hundred. The result omits batches that the catalogue omits.
        :param within_s: limit in seconds for all attempts and their pauses, and for the token's request.
        :raises BatchNotFoundError: the catalogue has none of the batches, or refuses to list one.
        """
        with self._about():
            segments = {batch_id: validation.path_segment(batch_id, "batch_id") for batch_id in ids}
            path = f"/batches/{','.join(segments.values())}"
            try:
                limit = math.inf if within_s is None else within_s
                response = self._transport.get(path, PROPERTIES, within_s=limit, root=CATALOG_ROOT)
                raise_for_status(response, Call.READ_BATCHES)
            except AccessDeniedError as error:
                # Some of Adobe's codes have a separate remedy.
                if type(error) is AccessDeniedError and error.remedy == AccessDeniedError.default_remedy:
                    error.remedy = _PERMIT_CATALOG
                raise
            if not isinstance(found := response.json(), dict):
                raise UnreadableAnswerError(
                    f"the response to {Call.READ_BATCHES.value} cannot be read: {response.excerpt}"
                )
            return list(batches_in(found, set(segments)))

    @property
    def _list_limit_s(self) -> float:
        return LIST_TIMEOUTS * self._timeout_s

    def _items_of_pages(
        self, path: str, query: str, call: Call, *, max_pages: int | None = None, within_s: float | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the objects of a list; request a page when the objects of the earlier page are consumed.

        :param within_s: limit in seconds for the requests, without the time between them.
        :raises UnreadableAnswerError: the pages do not end.
        :raises NoAnswerError: the limit of time is used up.
        """
        limit = self._list_limit_s if within_s is None else min(within_s, self._list_limit_s)
        continuation, remaining, empty_pages = "", limit, 0
        seen: set[str] = set()
        while max_pages is None or len(seen) < max_pages:
            if remaining <= 0:
                raise NoAnswerError(f"{call.value} did not end within {limit:g} s")
            began = time.monotonic()
            page = parse_page(self._transport.get(path, query + continuation, within_s=remaining), call)
            remaining -= time.monotonic() - began
            yield from page.items
            if page.continuation is None:
                return
            empty_pages = 0 if page.items else empty_pages + 1
            _require_end(page.continuation, seen=seen, empty_pages=empty_pages, call=call)
            seen.add(page.continuation)
            continuation = f"{'&' if query else ''}continuationToken={page.continuation}"

    @contextmanager
    def _about(self, **fields: object) -> Iterator[None]:
        """Add ids and window to errors; add the remedy if a ready token was rejected."""
        try:
            yield
        except FlowServiceError as error:
            if isinstance(error, AuthenticationError) and isinstance(self._auth, GivenToken):
                error.remedy = _REPLACE_EXPIRED
            error.about(**{name: value for name, value in fields.items() if value})
            raise


def _require_same_id(received: str, requested: str, kind: str) -> None:
    if received.lower() != requested.lower():
        raise UnreadableAnswerError(f"Flow Service returned another {kind} than the requested one: {received!r}")


# --- filters and pages ---


def _run_filters(flow_id: str | None, ids: Iterable[str] | None, created_since: datetime | None) -> list[str] | None:
    """Return conditions in Flow Service's syntax; None if no run can satisfy them."""
    conditions = []
    if flow_id is not None:
        conditions.append(f"flowId=={validation.validate_identifier(flow_id, 'flow_id')}")
    if ids is not None:
        unique_ids = dict.fromkeys(validation.validate_identifier(run_id, "flow_run_id") for run_id in ids)
        if not unique_ids:
            return None
        conditions.append(f"id=={','.join(unique_ids)}")
    if created_since is not None:
        since = validation.validate_instant(created_since, "created_since")
        conditions.append(f"createdAt>={epoch_milliseconds(since)}")
    return conditions


def _query(conditions: Iterable[str], *, order_by: str | None = None, limit: int | None = None) -> str:
    """Return the quoted query. It never contains `count`, which Flow Service refuses together with `limit`."""
    query = [("property", condition) for condition in conditions]
    if order_by:
        query.append(("orderby", order_by))
    if limit is not None:
        query.append(("limit", str(validation.validate_positive_integer(limit, "limit"))))
    return urlencode(query)


def _require_end(continuation: str, *, seen: set[str], empty_pages: int, call: Call) -> None:
    """Raise an error if the pages of a list do not end.

    :param continuation: token of the next page.
    :param seen: tokens of the earlier pages.
    :param empty_pages: number of consecutive pages without an object.
    """
    problem = None
    if continuation in seen:
        problem = "a page links to an earlier page"
    elif len(seen) + 1 >= MAX_PAGES:
        problem = f"it has more than {MAX_PAGES} pages"
    elif empty_pages >= MAX_EMPTY_PAGES:
        problem = f"{MAX_EMPTY_PAGES} consecutive pages are empty"
    elif len(continuation) > _MAX_CONTINUATION_LENGTH:
        problem = f"a continuationToken has more than {_MAX_CONTINUATION_LENGTH} characters"
    if problem:
        raise UnreadableAnswerError(f"{call.value} never ends: {problem}")
