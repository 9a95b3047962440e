# SPDX-License-Identifier: Apache-2.0
"""Convert a response of Flow Service into a value or an exception.

The HTTP status decides first, then Adobe's code, because the same code has different meanings in different
tables. The message always contains Adobe's own message. After a POST, `ServerError`, `NoAnswerError` and
`UnreadableAnswerError` mean that the outcome is unknown; any other `ApiError` means that no run was created.

Source of the codes: https://developer.adobe.com/experience-platform-apis/references/flow-service/,
https://experienceleague.adobe.com/en/docs/experience-platform/sources/errors/flow-service-errors, and of the
gateway's: https://experienceleague.adobe.com/en/docs/experience-platform/landing/troubleshooting

Observed formats of an error: `{"type", "title", "status", "report": {...}, "error-chain": [...]}`,
`{"error_code", "message"}`, `{"code", "message"}`, `{"errorMessage"}`, `{"errors": [...]}`, and
`{"error", "error_description"}` of IMS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_flowservice.api.json_values import objects_at, text_at, value_at
from airflow_flowservice.api.models import CreatedRun, etag_of, names_active_run, names_passing_state
from airflow_flowservice.api.redaction import MAX_INPUT_LENGTH, MESSAGE_LENGTH, excerpt
from airflow_flowservice.api.validation import is_identifier
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    BatchNotFoundError,
    CreateNotAllowedError,
    DataConnectionNotFoundError,
    DeltaColumnDiffersError,
    DeltaColumnMissingError,
    FlowChangingError,
    FlowNotFoundError,
    NoAnswerError,
    NotOnDemandError,
    OrganizationError,
    RateLimitedError,
    RetriggerNotYetError,
    RetriggerRefusedError,
    RunNotFoundError,
    RunRefusedError,
    SandboxError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
    WindowRefusedError,
)
from airflow_flowservice.plain_text import ID_LENGTH, canonical_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_flowservice.api.http_session import HttpResponse


class Call(Enum):
    """Endpoints of Flow Service, as text for messages."""

    GET_FLOW = "reading the flow"
    LIST_FLOWS = "listing flows"
    CREATE_RUN = "creating a flow run"
    GET_RUN = "reading the flow run"
    LIST_RUNS = "listing flow runs"
    RETRIGGER_RUN = "re-triggering the flow run"
    GET_SOURCE = "reading the source connection"
    GET_TARGET = "reading the target connection"
    GET_FLOW_SPEC = "reading the flow specification"
    READ_BATCHES = "reading the batches in the catalogue"
    TEST_CONNECTION = "testing the source's connection"
    LIST_ROW_ERRORS = "listing the files of failed rows"
    GET_ROW_ERRORS = "reading the failed rows"
    LIST_FAILED_FILES = "listing the failed files"


_NOT_FOUND: dict[Call, type[ApiError]] = {
    Call.GET_FLOW: FlowNotFoundError,
    Call.CREATE_RUN: FlowNotFoundError,
    Call.GET_RUN: RunNotFoundError,
    Call.RETRIGGER_RUN: RunNotFoundError,
    Call.READ_BATCHES: BatchNotFoundError,
    Call.GET_SOURCE: DataConnectionNotFoundError,
    Call.GET_TARGET: DataConnectionNotFoundError,
}
_POSTS = (Call.CREATE_RUN, Call.RETRIGGER_RUN)

GIVEN_UP = frozenset({408, 460, 499})
"""Statuses of a gateway that no longer waits, although Flow Service may have received the request. 460 is of AWS; 499
is of nginx, and of gRPC gateways."""

_POST_ERRORS: dict[int, type[ApiError]] = {
    1360: StartTimeInPastError,
    1381: WindowRefusedError,
    1382: DeltaColumnDiffersError,
    1383: DeltaColumnMissingError,
    1385: NotOnDemandError,
    1386: NotOnDemandError,
    1387: RetriggerNotYetError,
    1388: RetriggerRefusedError,
    1427: CreateNotAllowedError,
    1430: FlowNotFoundError,
    1439: FlowNotFoundError,
    1446: FlowNotFoundError,
}
# Of these codes, the message states the state of the dataflow, which may pass.
_PASSING_ERRORS: dict[int, type[ApiError]] = {1380: FlowChangingError, 1388: RetriggerNotYetError}
_FLOW_NOT_FOUND_CODES = (1430, 1439, 1446)
_TOKEN_CODES = (2114, 2115, 403010, 401013)
_ORGANIZATION_CODES = (2000, 2001, 2002)
_SANDBOX_CODES = (2100, 2101, 2103, 2105, 2106, *range(2110, 2114))
_PERMISSION_CODES = (2118, 2120, 2121)

_INVALID_PARAMS_CODE = 1384
_UNKNOWN_ACTION_CODE = 1401
# A validating server names the field, or states the type that it expects. `Content-Type` and the address of a kind of
# error, such as `/errors/type/400`, are no such types.
_TYPE_OF_TIME = re.compile(
    r"(?<![\w-])(?:startTime|windowStartTime|windowEndTime|integers?|strings?|(?<!/)types?(?!/))(?![\w-])",
    re.IGNORECASE,
)

# Instructions for codes whose class is too general for one.
_TIMES_REMEDY = (
    "check the window, start_time and delta_column; if Adobe's message is about the type of a time, set epoch_format "
    "in the connection's extra to 'integer' or 'string'"
)
_ACTIVE_RUN_REMEDY = (
    "wait until the active flow run of the dataflow has ended; a retry is safe. If it occurs often, raise retry_delay, "
    "or lower max_active_runs of the DAG"
)

_API_KEY_REMEDY = (
    "check login (client id) of the connection, which is sent as API key: it must be the client id of the credential, "
    "and the credential's project in Adobe Developer Console must have the Experience Platform API"
)
_NO_INTERVAL_REMEDY = "remove interval and backfill from the dataflow's schedule: frequency 'once' allows neither"
_POST_REMEDIES = {
    1361: _NO_INTERVAL_REMEDY,
    1364: _NO_INTERVAL_REMEDY,
    1366: "create another dataflow: a schedule can be changed before its start time only",
    1369: (
        "remove deltaColumn from the dataflow's Copy transformation, and set delta_column: the first flow run of a "
        "one-time dataflow sets it"
    ),
    1384: _TIMES_REMEDY,
    1403: "create another dataflow, scheduled one-time: the frequency can become 'once' before the start time only",
}
_GATEWAY_REMEDIES = {
    403000: _API_KEY_REMEDY,
    403003: _API_KEY_REMEDY,
    403025: OrganizationError.default_remedy,
}
_ACCESS_LABEL_REMEDY = (
    f"{FlowNotFoundError.default_remedy}; if both are right, ask the Adobe administrator whether the credential's role "
    "lacks an access label of the dataflow"
)
_WRONG_HOST = "check the connection's host: this is not a response of Flow Service"
_PROXY_PAGE = (
    "check the proxy or the firewall between Airflow and Adobe, and the connection's host: Flow Service sends no HTML "
    "page (see the excerpt)"
)
_CONTINUATION = re.compile(r"[?&]continuationToken=([^&]*)")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list.

    :param items: objects on the page.
    :param continuation: token of the next page, spelled as in `next.href`, so that it can be used in a query
        unchanged; None on the last page.
    """

    items: tuple[Mapping[str, Any], ...]
    continuation: str | None = None


def parse_item(response: HttpResponse, call: Call) -> Mapping[str, Any]:
    """Return the requested object, from `{"items": [object]}` or `object`.

    :raises ApiError: the response is an error, or has no such object.
    """
    raise_for_status(response, call)
    found = response.json()
    items = list(objects_at(found, "items")) if value_at(found, "items") is not None else [found]
    if not items and value_at(found, "items") == [] and call in _NOT_FOUND:
        raise _error(_NOT_FOUND[call], response, f"{call.value} returned an empty list")
    if len(items) != 1 or not text_at(items[0], "id"):
        raise _unreadable(response, call)
    return items[0]


def parse_page(response: HttpResponse, call: Call) -> Page:
    """Return one page of a list, from `{"items": [...], "_links": {"next": {"href": ...}}}`.

    :raises ApiError: the response is an error, or has no list.
    """
    raise_for_status(response, call)
    found = response.json()
    items = value_at(found, "items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _unreadable(response, call)
    return Page(items=tuple(items), continuation=_continuation(found, response, call))


def parse_created_run(response: HttpResponse, call: Call) -> CreatedRun:
    """Return the new run, from `{"items": [{"id", "etag"}]}` or `{"id", "etag"}`, with any 2xx status.

    :raises UnreadableAnswerError: the response has no id that can be requested, so a run may have been created.
    :raises ApiError: the response is an error.
    """
    raise_for_status(response, call)
    found = response.json()
    items = list(objects_at(found, "items")) or [found]
    run_id = text_at(items[0], "id", length=ID_LENGTH)
    if len(items) != 1 or not run_id or not is_identifier(run_id):
        raise _unreadable(response, call)
    return CreatedRun(id=canonical_id(run_id), etag=etag_of(items[0]))


def refuses_times(response: HttpResponse) -> bool:
    """Return whether the response to a `POST /runs` can mean that the type of a time is wrong.

    Nothing was created then. A response whose code has another meaning is no such response, even if it names a time.
    """
    if response.status not in (400, 422) or response.is_html:
        return False
    body = parse_error_body(response)
    if _error_class(response, Call.CREATE_RUN, body) is not RunRefusedError:
        return False
    return body.number == _INVALID_PARAMS_CODE or _TYPE_OF_TIME.search(body_texts(response)) is not None


def refuses_action(response: HttpResponse) -> bool:
    """Return whether Flow Service does not know the action of a `POST /runs/{id}/action`, and created nothing."""
    return 400 <= response.status < 500 and parse_error_body(response).number == _UNKNOWN_ACTION_CODE


def raise_for_status(response: HttpResponse, call: Call) -> None:
    """Return if the status is 2xx.

    :raises ApiError: the class for any other status.
    """
    if 200 <= response.status < 300:
        return
    if not 400 <= response.status < 600:
        raise _unreadable(response, call)
    body = parse_error_body(response)
    kind = _error_class(response, call, body)
    remedy = _remedy_of_code(kind, status=response.status, number=body.number, is_post=call in _POSTS)
    if _is_wrong_host(response, kind):
        remedy = _WRONG_HOST
    elif response.is_html and response.status in (400, 401, 403, 405, 413):
        remedy = _PROXY_PAGE
    elif remedy is None and kind.retryable and _is_because_of_active_run(response, call):
        remedy = _ACTIVE_RUN_REMEDY
    elif remedy is None and call is Call.CREATE_RUN and refuses_times(response):
        remedy = _TIMES_REMEDY
    raise _error(kind, response, f"{call.value} was refused: {body.message}", body.code, remedy)


def _error_class(response: HttpResponse, call: Call, body: ErrorBody) -> type[ApiError]:
    status, number = response.status, body.number
    if status == 429:
        return RateLimitedError
    if status >= 500:
        return ServerError
    if status in GIVEN_UP:
        return NoAnswerError
    if number in _ORGANIZATION_CODES:
        return OrganizationError
    if number in _SANDBOX_CODES:
        return SandboxError
    if status == 401 or number in _TOKEN_CODES:
        return AuthenticationError
    if number is not None and (known := _class_of_code(call, number, body_texts(response))):
        return known
    if status == 403 or number in _PERMISSION_CODES:
        return AccessDeniedError
    if status == 404:
        return _class_of_404(response, call)
    if _is_because_of_active_run(response, call):
        return FlowChangingError if call is Call.CREATE_RUN else RetriggerNotYetError
    return RunRefusedError


def _remedy_of_code(kind: type[ApiError], *, status: int, number: int | None, is_post: bool) -> str | None:
    """Return the instruction for a response; None if the one of its class applies.

    :param kind: class of the error, which the HTTP status decides first.
    :param number: number of Adobe's code.
    :param is_post: True if the request creates a flow run; elsewhere, the same code can have another meaning.
    """
    if kind is FlowNotFoundError and (status, number) == (404, 1439):
        return _ACCESS_LABEL_REMEDY
    if kind is AccessDeniedError:
        return _GATEWAY_REMEDIES.get(number or 0)
    return _POST_REMEDIES.get(number or 0) if kind is RunRefusedError and is_post else None


def _is_because_of_active_run(response: HttpResponse, call: Call) -> bool:
    """Return whether a POST was refused because a run of the dataflow is active. Nothing was created."""
    is_refusal = call in _POSTS and response.status in (400, 409, 423) and not response.is_html
    return is_refusal and names_active_run(body_texts(response))


def _class_of_code(call: Call, number: int, texts: str) -> type[ApiError] | None:
    if call in _POSTS and number in _PASSING_ERRORS and names_passing_state(texts):
        return _PASSING_ERRORS[number]
    if call in _POSTS:
        return _POST_ERRORS.get(number)
    if call is Call.GET_FLOW and number in _FLOW_NOT_FOUND_CODES:
        return FlowNotFoundError
    return None


def _class_of_404(response: HttpResponse, call: Call) -> type[ApiError]:
    # An HTML page is sent by a wrong host; it does not mean that Flow Service has no such flow or run.
    if response.is_html:
        return RunRefusedError if call in _POSTS else UnreadableAnswerError
    return _NOT_FOUND.get(call, UnreadableAnswerError)


def _is_wrong_host(response: HttpResponse, kind: type[ApiError]) -> bool:
    return response.status == 404 and kind in (RunRefusedError, UnreadableAnswerError)


def _continuation(found: Any, response: HttpResponse, call: Call) -> str | None:
    """Return the next page's token in the server's own spelling, neither decoded nor cut; None on the last page."""
    links = value_at(found, "_links")
    link = value_at(links, "next") if isinstance(links, dict) else links
    href = value_at(link, "href") if isinstance(link, dict) else link
    if href is None or href in ({}, []) or (isinstance(href, str) and not href.strip()):
        return None
    # A link of another form is no last page: a search in an incomplete list could miss a flow run.
    token = _CONTINUATION.search(href) if isinstance(href, str) else None
    if not token or not token.group(1):
        raise _error(
            UnreadableAnswerError,
            response,
            f"{call.value}: the link to the next page has no continuationToken",
        )
    # JSON can contain half an emoji, which no address can.
    return quote(_LONE_PERCENT.sub("%25", token.group(1)), safe="%=+~:/,;@!$'()*-._", errors="replace")


def _unreadable(response: HttpResponse, call: Call) -> ApiError:
    what = "was redirected" if 300 <= response.status < 400 else "cannot be read"
    return _error(UnreadableAnswerError, response, f"the response to {call.value} {what}: {response.excerpt}")


def _error(
    kind: type[ApiError],
    response: HttpResponse,
    message: str,
    code: str | None = None,
    remedy: str | None = None,
) -> ApiError:
    return kind(message, http_status=response.status, code=code, request_id=response.request_id, remedy=remedy)


# --- body of an error ---

_CODE_KEYS = ("error_code", "errorCode", "code", "error-code")
_MESSAGE_KEYS = (
    "message",
    "errorMessage",
    "error_description",
    "detail",
    "detailed-message",
    "detailedMessage",
    "errorDetails",
    "errorDetail",
)
# General texts, which are used only if no object of the body has a message.
_TITLE_KEYS = ("title", "reason", "error")
_NESTED_KEYS = ("report", "error", "errors", "error-chain", "errorDetails")
_CODE_AT_END = re.compile(r"[/:#]((?:[A-Za-z]+-)?\d{3,6}(?:-\d{3})?)$")
_MAX_TEXTS = 200
_NUMBER = re.compile(r"(?<!\d)\d{3,6}(?!\d)")


@dataclass(frozen=True, kw_only=True)
class ErrorBody:
    """Code and message of an error response.

    :param code: as received, such as `1382`, `1382-400` or `invalid_client`; None if there is none.
    :param message: Adobe's message; if there is none, an excerpt of the body.
    """

    code: str | None
    message: str

    @property
    def number(self) -> int | None:
        """Return the number of the code: 1382 for `1382`, `1382-400` and `FLOW-1382-400`."""
        found = _NUMBER.search(self.code or "")
        return int(found.group()) if found else None


def parse_error_body(response: HttpResponse) -> ErrorBody:
    """Return code and message of an error response; without a message, an excerpt of the body."""
    objects = list(_nested_objects(response.json(), depth=3))
    code = next((code for each in objects if (code := _code_of(each))), None)
    candidates = (_first_text(each, keys) for keys in (_MESSAGE_KEYS, _TITLE_KEYS) for each in objects)
    message = next(filter(None, candidates), None)
    return ErrorBody(
        code=excerpt(code, secrets=response.secrets, length=80) if code else None,
        message=excerpt(message, secrets=response.secrets, length=MESSAGE_LENGTH)
        if message
        else f"the response was {response.excerpt}",
    )


def body_texts(response: HttpResponse) -> str:
    """Return all texts of an error response's JSON, one a line, without the names of fields; or the body's text."""
    value = response.json()
    texts = _texts_of(value, depth=6) if isinstance(value, (dict, list, str)) else [response.excerpt]
    return "\n".join(islice(texts, _MAX_TEXTS))


def _texts_of(value: Any, *, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value[:MAX_INPUT_LENGTH]
    elif isinstance(value, (dict, list)) and depth > 0:
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts_of(each, depth=depth - 1)


def _nested_objects(value: Any, *, depth: int) -> Iterator[Any]:
    """Yield the body and its nested objects that may contain code and message, outermost first."""
    if depth < 0:
        return
    if isinstance(value, list):
        for item in value[:5]:
            yield from _nested_objects(item, depth=depth - 1)
        return
    if not isinstance(value, dict):
        return
    yield value
    for key in _NESTED_KEYS:
        yield from _nested_objects(_flatten_status_keys(value.get(key)), depth=depth - 1)


def _flatten_status_keys(value: Any) -> Any:
    """Return the errors of `{"400": [{...}]}` as a plain list, and any other value unchanged."""
    if isinstance(value, dict) and value and all(str(key).isdigit() for key in value):
        return [item for items in value.values() for item in (items if isinstance(items, list) else [items])]
    return value


def _code_of(candidate: Any) -> str | None:
    code = _first_text(candidate, _CODE_KEYS)
    if code:
        return code
    if match := _CODE_AT_END.search(text_at(candidate, "type") or ""):
        return match.group(1)
    error = text_at(candidate, "error")
    return error if error and re.fullmatch(r"\w{1,60}", error) else None


def _first_text(candidate: Any, keys: tuple[str, ...]) -> str | None:
    # `excerpt` cuts the text after it has removed the secrets.
    texts = (text_at(candidate, key, length=MAX_INPUT_LENGTH) for key in keys)
    return next(filter(None, texts), None)
