"""One tree of errors; each says what happened, to which window, and what to do.

```
FlowServiceError
├── ConfigurationError            the connection or the task's own arguments are wrong
├── WindowError                   the DAG run yields no window that could be ingested
├── ApiError                      an HTTP call to Flow Service or IMS did not work
│   ├── NotSentError                  nothing was sent: no connection could be made
│   ├── NoAnswerError                 it was sent, and no whole answer came back
│   ├── UnreadableAnswerError         an answer came that says nothing: HTML, empty, other JSON
│   ├── RateLimitedError              429
│   ├── ServerError                   5xx
│   ├── AuthenticationError           401: client id, secret or token
│   ├── AccessDeniedError             403: API key, permission, product profile
│   │   ├── OrganizationError             the organization is not this credential's
│   │   └── CreateNotAllowedError         1427: this token may read, but not create runs
│   ├── SandboxError                  the sandbox is missing, unknown or not allowed
│   ├── FlowNotFoundError             this flow id is unknown here
│   ├── RunNotFoundError              this flow run id is unknown here
│   └── RunRefusedError               any other refusal (4xx) of a request
│       ├── StartTimeInPastError          1360
│       ├── WindowRefusedError            1381
│       ├── DeltaColumnDiffersError       1382
│       ├── DeltaColumnMissingError       1383
│       ├── NotOnDemandError              1385, 1386: the flow or its connector takes no on-demand runs
│       └── RetriggerRefusedError         1387, 1388
├── FlowDisabledError             the flow is not enabled
├── AttemptOvertakenError         another attempt of the same task goes on instead of this one
└── FlowRunError                  a flow run that exists
    ├── FlowRunFailedError            it ended as failed
    ├── FlowRunIncompleteError        more of its records failed than the task allows
    ├── FlowRunEmptyError             it had no records, and the task asks for some
    ├── FlowRunActiveError            an earlier one goes on, and may yet ingest a part of the window
    ├── FlowRunVanishedError          it was there, and is not any more
    ├── FlowRunUncertainError         a run may have been created, and nobody can tell
    └── FlowRunTimeoutError           it did not end in the time that was given
```

`retryable` says whether the same attempt can succeed later without anybody changing anything; the
operators end a task at once, without its retries, where it is false. Codes are Adobe's
(https://developer.adobe.com/experience-platform-apis/references/flow-service/); the same code means
different things in different places, so classes are chosen by HTTP status first.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Error = TypeVar("Error", bound="FlowServiceError")

_FIELDS = ("flow_id", "window", "flow_run_id", "http_status", "code", "request_id", "url", "remedy")
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
    """Any error of this package.

    :param message: what happened, as one sentence without secrets.
    :param flow_id: the dataflow.
    :param window: the window as ISO 8601 interval, UTC (`2026-01-01T00:00:00Z/2026-01-02T00:00:00Z`).
    :param flow_run_id: the flow run at Flow Service (never the DAG run).
    :param http_status: the answer's status.
    :param code: Adobe's error code, as it came (`1382`, `1382-400`, `401013`).
    :param request_id: the answer's `x-request-id`, which Adobe's support asks for.
    :param url: a page for people, in Experience Platform.
    :param remedy: what to do; without it the class's own.
    """

    retryable: ClassVar[bool] = False
    default_remedy: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        flow_id: str | None = None,
        window: str | None = None,
        flow_run_id: str | None = None,
        http_status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        url: str | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.flow_id = flow_id
        self.window = window
        self.flow_run_id = flow_run_id
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.url = url
        self.remedy = remedy or self.default_remedy or None

    def __str__(self) -> str:
        return f"{self.account}. What to do: {self.remedy}" if self.remedy else self.account

    @property
    def account(self) -> str:
        """What happened, and to what; without the remedy."""
        facts = [f"{label} {value}" for name, label in _LABELS.items() if (value := getattr(self, name))]
        text = self.message.rstrip(".")
        return f"{text} ({', '.join(facts)})" if facts else text

    def __reduce__(self) -> tuple[Any, ...]:
        return from_dict, (self.to_dict(),)

    def about(self: Error, **fields: Any) -> Error:
        """The same error, told where it belongs: fills fields that are still empty; returns itself."""
        for name, value in fields.items():
            if name not in _FIELDS:
                raise TypeError(f"FlowServiceError has no field {name!r}")
            if getattr(self, name) is None:
                setattr(self, name, value)
        return self

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for a trigger's event: `{"error": class name, "message": str, ...}`."""
        fields = {name: value for name in _FIELDS if (value := getattr(self, name)) is not None}
        return {"error": type(self).__name__, "message": self.message, **fields}


class ConfigurationError(FlowServiceError):
    """The connection or the task's own arguments cannot work as they are."""

    default_remedy = "correct the connection or the task's arguments; nothing was sent"


class WindowError(FlowServiceError):
    """The DAG run yields no window that could be ingested; nothing was created."""

    default_remedy = "pass window_start and window_end, or give the DAG a schedule whose runs have a period"


class ApiError(FlowServiceError):
    """An HTTP call to Flow Service or IMS did not work."""


class NotSentError(ApiError):
    """No connection could be made, so nothing was sent and nothing was created."""

    retryable = True
    default_remedy = "check the connection's host, the network and the proxy; a retry is safe"


class NoAnswerError(ApiError):
    """The request was sent and no whole answer came back (reset, timeout, half a body)."""

    retryable = True
    default_remedy = "a retry finds out first whether the request was taken"


class UnreadableAnswerError(ApiError):
    """An answer that says nothing: HTML from a proxy, an empty body, JSON of another shape."""

    retryable = True
    default_remedy = "look at the excerpt: a proxy or a wrong host answers like this; check the connection's host"


class RateLimitedError(ApiError):
    """HTTP 429, still after the client's own patience. Nothing was created."""

    retryable = True
    default_remedy = "lower max_active_runs or the pool's size, or raise retry_delay; a retry is safe"


class ServerError(ApiError):
    """HTTP 5xx, still after the client's own patience."""

    retryable = True
    default_remedy = "wait and retry; if it stays, give the x-request-id to Adobe's support"


class AuthenticationError(ApiError):
    """HTTP 401: IMS refused the client id or secret, or Flow Service the token."""

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
    """The organization in the connection is missing, or is not the credential's."""

    default_remedy = "set org_id in the connection's extra to the organization of the credential (…@AdobeOrg)"


class CreateNotAllowedError(AccessDeniedError):
    """1427: the token may read, but may not create flow runs."""

    default_remedy = "ask the Adobe administrator for the 'Manage Sources' permission for this credential"


class SandboxError(ApiError):
    """The sandbox is missing, unknown, or not one that the credential may use."""

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


class RunRefusedError(ApiError):
    """Flow Service refused the request (4xx); nothing was created."""

    default_remedy = "read Adobe's message, correct the task's arguments, and clear the task"


class StartTimeInPastError(RunRefusedError):
    """1360: the run's start time had already passed."""

    default_remedy = "leave start_time out (it then means now), and set the worker's clock by NTP"


class WindowRefusedError(RunRefusedError):
    """1381: the window ends before it starts, in Flow Service's eyes."""

    default_remedy = "check window_start and window_end: the end must be after the start"


class DeltaColumnDiffersError(RunRefusedError):
    """1382: the flow has a delta column already, and it is another one."""

    default_remedy = "use the delta column that is set in the flow's Copy transformation, or leave delta_column out"


class DeltaColumnMissingError(RunRefusedError):
    """1383: the first run of a table-based flow must name its delta column."""

    default_remedy = "set delta_column to the source column that tells new rows from old ones"


class NotOnDemandError(RunRefusedError):
    """1385, 1386: this flow, or its connector, takes no on-demand runs."""

    default_remedy = (
        "use a batch dataflow that is scheduled one-time ('once'); a scheduled flow cannot be changed to it"
    )


class RetriggerRefusedError(RunRefusedError):
    """1387, 1388: this run cannot be started again, or not yet."""

    default_remedy = (
        "only failed runs, and successes without records, of an enabled flow can be re-triggered; else create a run "
        "for the window with OnDemandFlowRunOperator"
    )


class FlowDisabledError(FlowServiceError):
    """The dataflow is not enabled, so no run of it would be carried out."""

    default_remedy = "enable the dataflow in Experience Platform, then clear the task"


class AttemptOvertakenError(FlowServiceError):
    """This attempt was held up so long that another may have taken its place; it sent nothing."""

    retryable = True
    default_remedy = "nothing, if another attempt of the task is running; else retry the task"


class FlowRunError(FlowServiceError):
    """Something about a flow run that exists."""


class FlowRunFailedError(FlowRunError):
    """The flow run ended as failed; its own errors are in the message."""

    retryable = True
    default_remedy = "read the run's errors; a retry or a clear creates a new run for the same window"


class FlowRunIncompleteError(FlowRunError):
    """More records failed than the task allows, or nobody can tell; the flow run succeeded, and the others are in."""

    default_remedy = (
        "look at the failed records in Experience Platform, then mark the task as success; or clear it, which ingests "
        "the whole window again in a new run (the good records twice, where the dataflow appends)"
    )


class FlowRunEmptyError(FlowRunError):
    """The flow run succeeded without records, and the task asks for some (on_empty)."""

    default_remedy = (
        "if the source had nothing for the window, mark the task as success; else clear it once the data is there, "
        "which creates a new run for the window"
    )


class FlowRunActiveError(FlowRunError):
    """An earlier flow run goes on, and may yet ingest a part of this window; nothing was created."""

    retryable = True
    default_remedy = "wait until the earlier flow run has ended; a retry looks again"


class FlowRunVanishedError(FlowRunError):
    """The flow run could be read before, and now Flow Service does not know it."""

    default_remedy = (
        "look in Experience Platform whether the window is in; then mark the task as success, or clear it "
        "to ingest it again"
    )


class FlowRunUncertainError(FlowRunError):
    """A run may have been created and nobody can tell; creating another could ingest the window twice."""

    default_remedy = "look at the candidates; then mark the task as success, or clear it with on_uncertain set"


class FlowRunTimeoutError(FlowRunError):
    """The flow run did not end in the time that was given; it goes on at Adobe, which cannot cancel it."""

    retryable = True
    default_remedy = "raise the time limit; the next attempt waits for the same run instead of creating one"


@contextmanager
def telling(**fields: Any) -> Iterator[None]:
    """Errors from inside are told where they belong, as by `FlowServiceError.about`."""
    try:
        yield
    except FlowServiceError as error:
        error.about(**fields)
        raise


def from_dict(data: Mapping[str, Any]) -> FlowServiceError:
    """Make the error again from `FlowServiceError.to_dict`, for instance from a trigger's event.

    A class that this version does not know (an event of another version) becomes the base class.
    """
    classes = {cls.__name__: cls for cls in tree()}
    cls = classes.get(str(data.get("error")), FlowServiceError)
    fields = {name: data[name] for name in _FIELDS if name in data}
    return cls(str(data.get("message", "unknown error")), **fields)


def tree(root: type[FlowServiceError] = FlowServiceError) -> Iterator[type[FlowServiceError]]:
    """Every class of the tree, parents first."""
    yield root
    for child in root.__subclasses__():
        # Not the classes made of these elsewhere, such as those that Airflow does not retry.
        if globals().get(child.__name__) is child:
            yield from tree(child)
