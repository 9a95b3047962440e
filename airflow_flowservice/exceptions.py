# SPDX-License-Identifier: Apache-2.0
"""Tree of errors; each error states the problem, the affected window and the remedy.

`tree()` yields the classes; docs/errors.md shows the tree with the meaning and the remedy of each.

`retryable` is True if the same attempt can succeed later without a change by a user. If it is False, the
operators fail the task immediately, without its retries. Codes are Adobe's
(https://developer.adobe.com/experience-platform-apis/references/flow-service/). The same code has different
meanings at different endpoints, so the HTTP status decides the class first.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_flowservice.plain_text import ERROR_LENGTH, ID_LENGTH, TEXT_LENGTH, URL_LENGTH, clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

Error = TypeVar("Error", bound="FlowServiceError")

_FIELDS = ("flow_id", "window", "flow_run_id", "http_status", "code", "request_id", "url", "remedy")
_MAX_NUMBER = 10**18
_FIELD_LENGTHS = {"window": ID_LENGTH, "url": URL_LENGTH, "remedy": TEXT_LENGTH}
_LABELS = {
    "flow_id": "flow",
    "window": "window",
    "flow_run_id": "flow run",
    "http_status": "HTTP status",
    "code": "Adobe code",
    "request_id": "x-request-id",
    "url": "see",
}


class FlowServiceError(Exception):
    """Base class of all errors of this package.

    Message and fields are made printable and bounded, because they may contain text from outside.

    :param message: problem, as one sentence without secrets.
    :param flow_id: dataflow.
    :param window: `IngestionWindow`, or its text; the field is an ISO 8601 interval in UTC
        (`2026-01-01T00:00:00Z/2026-01-02T00:00:00Z`).
    :param flow_run_id: flow run at Flow Service (never the DAG run).
    :param http_status: HTTP status of the response.
    :param code: Adobe's error code, as received (`1382`, `1382-400`, `401013`).
    :param request_id: `x-request-id` of the response, which Adobe's support needs.
    :param url: page in the UI of Experience Platform.
    :param remedy: instruction; default: the class's `default_remedy`.
    """

    retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        flow_id: str | None = None,
        window: object = None,
        flow_run_id: str | None = None,
        http_status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        url: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = clean_text(str(message), length=ERROR_LENGTH)
        super().__init__(self.message)
        self.flow_id = _clean_field("flow_id", flow_id)
        self.window = _clean_field("window", window)
        self.flow_run_id = _clean_field("flow_run_id", flow_run_id)
        self.http_status = _clean_field("http_status", http_status)
        self.code = _clean_field("code", code)
        self.request_id = _clean_field("request_id", request_id)
        self.url = _clean_field("url", url)
        self.remedy = _clean_field("remedy", remedy) or self.default_remedy or None

    def __str__(self) -> str:
        return f"{self.account}. What to do: {self.remedy}" if self.remedy else self.account

    @property
    def account(self) -> str:
        """Return the problem and the affected objects, without the remedy."""
        facts = [f"{label} {value}" for name, label in _LABELS.items() if (value := getattr(self, name))]
        text = self.message.rstrip(".")
        return f"{text} ({', '.join(facts)})" if facts else text

    def __reduce__(self) -> tuple[Any, ...]:
        return from_dict, (self.to_dict(),)

    def about(self: Error, **fields: Any) -> Error:
        """Fill fields that are still empty, and return this error.

        :raises TypeError: a field does not exist.
        """
        for name, value in fields.items():
            if name not in _FIELDS:
                raise TypeError(f"FlowServiceError has no field {name!r}")
            if getattr(self, name) is None:
                setattr(self, name, _clean_field(name, value))
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, for a trigger's event: `{"error": class name, "message": str, ...}`."""
        fields = {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        return {"error": type(self).__name__, "message": self.message, **fields}


def _clean_field(name: str, value: Any) -> Any:
    """Return a field's value: None, a whole number, or cleaned text."""
    if value is None or (isinstance(value, int) and abs(value) < _MAX_NUMBER):
        return value
    return clean_text(str(value), length=_FIELD_LENGTHS.get(name, ID_LENGTH))


class ConfigurationError(FlowServiceError):
    """The connection or the task's arguments are invalid."""

    default_remedy = "correct the connection or the task's arguments; nothing was sent"


class FlowNameError(FlowServiceError):
    """No dataflow, or several dataflows, of the connection's sandbox have the name `flow_name`."""

    default_remedy = "check flow_name and the connection's sandbox; `airflow flowservice flows` lists the dataflows"


class WindowError(FlowServiceError):
    """The DAG run has no window that can be ingested; nothing was created."""

    default_remedy = "pass window_start and window_end, or set a schedule of the DAG that has data intervals"


class ApiError(FlowServiceError):
    """An HTTP request to Flow Service or IMS failed."""


class NotSentError(ApiError):
    """No connection could be made, so nothing was sent and nothing was created."""

    retryable = True
    default_remedy = "check the connection's host, the network and the proxy; a retry is safe"


class NoAnswerError(ApiError):
    """The request was sent, but no complete response arrived (reset, timeout, incomplete body)."""

    retryable = True
    default_remedy = "retry the task; the retry first checks whether Flow Service received the request"


class UnreadableAnswerError(ApiError):
    """The response has no usable content: HTML from a proxy, an empty body, other JSON."""

    retryable = True
    default_remedy = "check the connection's host; a proxy or a wrong host sends such a response (see the excerpt)"


class RateLimitedError(ApiError):
    """HTTP 429 after all attempts of the client; nothing was created."""

    retryable = True
    default_remedy = "lower max_active_runs, or use a smaller pool that includes deferred tasks; a retry is safe"


class ServerError(ApiError):
    """HTTP 5xx after all attempts of the client."""

    retryable = True
    default_remedy = "wait and retry; if the error persists, give the x-request-id to Adobe's support"


class AuthenticationError(ApiError):
    """HTTP 401: IMS rejected the client id or secret, or Flow Service rejected the token."""

    default_remedy = (
        "check login (client id) and password (client secret) of the connection, or the access_token in its extra, "
        "against the credential in Adobe Developer Console"
    )


class AccessDeniedError(ApiError):
    """HTTP 403: the API key, a permission or the product profile is missing."""

    default_remedy = (
        "ask the Adobe administrator to add the credential to a product profile or role with the permission "
        "to view and manage sources (dataflows) in this sandbox"
    )


class OrganizationError(AccessDeniedError):
    """The organization in the connection is missing, or is not the organization of the credential."""

    default_remedy = "set org_id in the connection's extra to the organization of the credential (…@AdobeOrg)"


class CreateNotAllowedError(AccessDeniedError):
    """Adobe code 1427: the token may read flow runs, but not create them."""

    default_remedy = "ask the Adobe administrator for the 'Manage Sources' permission for this credential"


class SandboxError(ApiError):
    """The sandbox is missing or unknown, or the credential may not use it."""

    default_remedy = (
        "set sandbox in the connection's extra to the sandbox's name (not its title), and have the administrator "
        "add it to the credential's product profile or role"
    )


class FlowNotFoundError(ApiError):
    """No dataflow has this id in this organization and sandbox."""

    default_remedy = "check flow_id (it is in the dataflow's page address) and the connection's sandbox"


class RunNotFoundError(ApiError):
    """No flow run has this id in this organization and sandbox."""

    default_remedy = "check flow_run_id and the connection's sandbox"


class BatchNotFoundError(ApiError):
    """The catalogue does not have a batch of the flow run, so the result of the ingestion is unknown."""

    default_remedy = (
        "check the dataset's batches in Experience Platform; if the data is ingested, mark the task as success; to "
        "accept the flow run's own status, remove wait_for_batch"
    )


class DataConnectionNotFoundError(ApiError):
    """No source or target connection of the dataflow has this id in this organization and sandbox."""

    default_remedy = (
        "check the connection's sandbox, and whether the source or target connection of the dataflow was deleted in "
        "Experience Platform"
    )


class RunRefusedError(ApiError):
    """Flow Service refused the request (4xx); nothing was created."""

    default_remedy = "read Adobe's message, correct the task's arguments, and clear the task"


class StartTimeInPastError(RunRefusedError):
    """Adobe code 1360: the run's start time had already passed."""

    default_remedy = "remove start_time (its default is now), and synchronize the worker's clock by NTP"


class WindowRefusedError(RunRefusedError):
    """Adobe code 1381: the window ends before it starts."""

    default_remedy = "check window_start and window_end: the end must be after the start"


class DeltaColumnDiffersError(RunRefusedError):
    """Adobe code 1382: the flow already has another delta column."""

    default_remedy = "set delta_column to the column of the flow's Copy transformation, or remove it"


class DeltaColumnMissingError(RunRefusedError):
    """Adobe code 1383: the first run of a table-based flow must name its delta column."""

    default_remedy = "set delta_column to the source column that distinguishes new rows from old rows"


class NotOnDemandError(RunRefusedError):
    """Adobe codes 1385, 1386: this flow, or its connector, accepts no on-demand runs."""

    default_remedy = (
        "use a batch dataflow that is scheduled one-time ('once'); the schedule of a dataflow can be changed before "
        "its start time only"
    )


class FlowChangingError(RunRefusedError):
    """The dataflow is in a passing state, such as updating (1380), or a run of it is active; nothing was created."""

    retryable = True
    default_remedy = "wait until the dataflow is enabled; a retry is safe"


class RetriggerRefusedError(RunRefusedError):
    """Adobe code 1388: the dataflow of this run is not enabled, so the run cannot be re-triggered."""

    default_remedy = (
        "re-trigger only failed runs, or successful runs without records, of an enabled flow; otherwise create a run "
        "for the window with OnDemandFlowRunOperator"
    )


class RetriggerNotYetError(RetriggerRefusedError):
    """Adobe code 1387: the state of this run does not allow a re-trigger, or not yet; nothing was created."""

    retryable = True
    default_remedy = f"wait, since a retry is safe; if the error persists, {RetriggerRefusedError.default_remedy}"


class FlowDisabledError(FlowServiceError):
    """The dataflow is not enabled, so Flow Service would not execute its runs."""

    default_remedy = "enable the dataflow in Experience Platform, then clear the task"


class FlowNotReadyError(FlowDisabledError):
    """The dataflow is in a passing state, such as updating or enabling; nothing was sent."""

    retryable = True
    default_remedy = (
        "wait until the dataflow is enabled; a retry checks it again (the first flow run of a table-based dataflow "
        "updates the dataflow)"
    )


class AttemptOvertakenError(FlowServiceError):
    """This attempt was delayed so long that another attempt may have replaced it; it sent nothing."""

    retryable = True
    default_remedy = "wait if another attempt of the task is running; otherwise retry the task"


class LedgerError(FlowServiceError):
    """Error of the ledger, which records the ingested windows of each dataflow."""

    retryable = True


class LedgerUnavailableError(LedgerError):
    """The ledger's store cannot be reached. Before a POST, nothing is sent without the ledger."""

    default_remedy = "check the ledger's database, or Airflow's API server; a retry continues"


class LedgerConflictError(LedgerError):
    """Another process changed the ledger's entry of this window at the same time."""

    default_remedy = "retry the task: it reads the entry of the other process"


class WindowIngestedError(FlowServiceError):
    """The window is ingested already, and `on_ingested` is `fail`; nothing was created."""

    default_remedy = (
        "mark the task as success; or set on_ingested='reuse' to accept the earlier flow run; or, to ingest the "
        'window again, trigger the DAG run with {"flowservice": {"restate": true}} in its conf'
    )


class WindowOverlapError(FlowServiceError):
    """Parts of the window are ingested or claimed already, and `on_overlap` is `fail`; nothing was created."""

    default_remedy = (
        "change the window so that it does not overlap the listed ones; or set on_overlap='rest' to ingest only the "
        "rest, or on_overlap='restate' to ingest the listed parts again"
    )


class FlowLateError(FlowServiceError):
    """The windows of the dataflow are not ingested up to the required time."""

    retryable = True
    default_remedy = (
        "check whether the DAGs that ingest into the dataflow are paused, failed or deleted. `airflow flowservice "
        "coverage --all` and the page Flow Service list them with the missing windows"
    )


class FlowRunError(FlowServiceError):
    """Error of an existing flow run."""


class FlowRunFailedError(FlowRunError):
    """The flow run ended as failed; the message contains the errors of the run."""

    retryable = True
    default_remedy = (
        "fix the cause that the run's errors name; a retry or a clear creates a new run for the same window"
    )


class FlowRunOutcomeUnknownError(FlowRunError):
    """The flow run ended without a status, so its data may be ingested or not; a retry reads it again."""

    retryable = True
    default_remedy = (
        "check in Experience Platform whether the window is ingested; then mark the task as success, or clear it, "
        "which creates a new run for the window (a retry creates none)"
    )


class FlowRunBatchFailedError(FlowRunError):
    """The flow run succeeded, and all its batches failed in the catalogue, so nothing is ingested."""

    retryable = True
    default_remedy = (
        "fix the cause that the batch's errors name; a retry or a clear creates a new run for the same window"
    )


class FlowRunIncompleteError(FlowRunError):
    """More records failed than the task allows, or their number is unknown; the other records are ingested."""

    default_remedy = (
        "check the failed records in Experience Platform, then mark the task as success; or clear it, which ingests "
        "the whole window again in a new run (if the dataflow appends, the valid records are duplicated)"
    )


class FlowRunEmptyError(FlowRunError):
    """The flow run succeeded without records, and the task requires some (on_empty)."""

    default_remedy = (
        "if the source had no data for the window, mark the task as success; otherwise clear it when the data is "
        "available, which creates a new run for the window"
    )


class FlowRunActiveError(FlowRunError):
    """An earlier flow run is active and may ingest a part of this window; nothing was created."""

    retryable = True
    default_remedy = "wait until the earlier flow run has ended; a retry checks it again"


class FlowRunVanishedError(FlowRunError):
    """Flow Service no longer has the flow run, which could be read earlier."""

    default_remedy = (
        "check in Experience Platform whether the window is ingested; then mark the task as success, or clear it "
        "to ingest the window again"
    )


class FlowRunUncertainError(FlowRunError):
    """A run may have been created, but this is unknown; another run could duplicate the window."""

    default_remedy = "check the candidates; then mark the task as success, or clear it with on_uncertain set"


class FlowRunTimeoutError(FlowRunError):
    """The flow run did not end within the time limit; it continues at Adobe, which cannot cancel it."""

    retryable = True
    default_remedy = "raise the time limit; the next attempt waits for the same run instead of creating one"


@contextmanager
def error_context(**fields: Any) -> Iterator[None]:
    """Fill the empty fields of errors that are raised inside, as `FlowServiceError.about` does."""
    try:
        yield
    except FlowServiceError as error:
        error.about(**fields)
        raise


telling = error_context
"""Deprecated name of `error_context`."""


def from_dict(data: Mapping[str, Any]) -> FlowServiceError:
    """Return the error of `FlowServiceError.to_dict`, for instance from a trigger's event.

    A class that this version does not have (an event of another version) becomes the base class. A value that is no
    mapping becomes an error without fields.
    """
    if not isinstance(data, Mapping):
        data = {}
    classes = {cls.__name__: cls for cls in tree()}
    cls = classes.get(str(data.get("error")), FlowServiceError)
    fields = {name: data[name] for name in _FIELDS if name in data}
    return cls(str(data.get("message", "unknown error")), **fields)


def tree(root: type[FlowServiceError] = FlowServiceError) -> Iterator[type[FlowServiceError]]:
    """Yield every class of the tree, parents first."""
    yield root
    for child in root.__subclasses__():
        # Skip subclasses of other modules, such as the classes that Airflow does not retry.
        if globals().get(child.__name__) is child:
            yield from tree(child)
