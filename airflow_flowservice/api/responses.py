"""A response becomes a value or an exception, whatever shape it has.

The HTTP status decides first, then Adobe's code, since one code means different things in different
tables; Adobe's own message is always shown. After a POST the classes tell what happened: `ServerError`,
`NoAnswerError` and `UnreadableAnswerError` leave open whether a run was created; any other `ApiError`
means that none was.

Source of the codes: https://developer.adobe.com/experience-platform-apis/references/flow-service/,
https://experienceleague.adobe.com/en/docs/experience-platform/sources/errors/flow-service-errors, and of the
gateway's: https://experienceleague.adobe.com/en/docs/experience-platform/landing/troubleshooting
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_flowservice.api import _json
from airflow_flowservice.api._problem import problem_in
from airflow_flowservice.api.models import CreatedRun
from airflow_flowservice.exceptions import (
    AccessDeniedError,
    ApiError,
    AuthenticationError,
    CreateNotAllowedError,
    DeltaColumnDiffersError,
    DeltaColumnMissingError,
    FlowNotFoundError,
    NoAnswerError,
    NotOnDemandError,
    OrganizationError,
    RateLimitedError,
    RetriggerRefusedError,
    RunNotFoundError,
    RunRefusedError,
    SandboxError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
    WindowRefusedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_flowservice.api._answer import Answer
    from airflow_flowservice.api._problem import Problem


class Call(Enum):
    """What was asked for, in words for messages."""

    GET_FLOW = "reading the flow"
    LIST_FLOWS = "listing flows"
    CREATE_RUN = "creating a flow run"
    GET_RUN = "reading the flow run"
    LIST_RUNS = "listing flow runs"
    RETRIGGER_RUN = "re-triggering the flow run"
    GET_SOURCE = "reading the source connection"
    GET_TARGET = "reading the target connection"
    GET_FLOW_SPEC = "reading the flow specification"


_MISSING = {
    Call.GET_FLOW: FlowNotFoundError,
    Call.CREATE_RUN: FlowNotFoundError,
    Call.GET_RUN: RunNotFoundError,
    Call.RETRIGGER_RUN: RunNotFoundError,
}
_POSTS = (Call.CREATE_RUN, Call.RETRIGGER_RUN)

_REFUSALS_OF_POSTS: dict[int, type[ApiError]] = {
    1360: StartTimeInPastError,
    1381: WindowRefusedError,
    1382: DeltaColumnDiffersError,
    1383: DeltaColumnMissingError,
    1385: NotOnDemandError,
    1386: NotOnDemandError,
    1387: RetriggerRefusedError,
    1388: RetriggerRefusedError,
    1427: CreateNotAllowedError,
    1430: FlowNotFoundError,
    1439: FlowNotFoundError,
    1446: FlowNotFoundError,
}
_FLOW_UNKNOWN = (1430, 1439, 1446)
_TOKEN_CODES = (2114, 2115, 403010, 401013)
_ORGANIZATION_CODES = (2000, 2001, 2002)
_SANDBOX_CODES = (2100, 2101, 2103, 2105, 2106, *range(2110, 2114))
_PERMISSION_CODES = (2118, 2120, 2121)

_WRONG_HOST = "check the connection's host: this answer does not look like Flow Service's"
_CONTINUATION = re.compile(r"[?&]continuationToken=([^&]*)")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list.

    :param items: the objects on it.
    :param continuation: the next page's token, spelled as in `next.href` so that it can go into a
        query as it is; None on the last page.
    """

    items: tuple[Mapping[str, Any], ...]
    continuation: str | None = None


def item_of(answer: Answer, call: Call) -> Mapping[str, Any]:
    """The one object that was asked for, from `{"items": [object]}` or bare.

    :raises ApiError: the answer is a refusal, or says nothing.
    """
    check(answer, call)
    found = answer.json()
    items = list(_json.objects(found, "items")) if _json.at(found, "items") is not None else [found]
    if not items and _json.at(found, "items") == [] and call in _MISSING:
        raise _error(_MISSING[call], answer, f"{call.value} answered an empty list")
    if len(items) != 1 or not _json.text(items[0], "id"):
        raise _unreadable(answer, call)
    return items[0]


def page_of(answer: Answer, call: Call) -> Page:
    """One page of a list, from `{"items": [...], "_links": {"next": {"href": ...}}}`.

    :raises ApiError: the answer is a refusal, or says nothing.
    """
    check(answer, call)
    found = answer.json()
    items = _json.at(found, "items")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _unreadable(answer, call)
    return Page(items=tuple(items), continuation=_continuation(found, answer, call))


def created_of(answer: Answer, call: Call) -> CreatedRun:
    """The new run's id, from `{"items": [{"id", "etag"}]}` or `{"id", "etag"}`, with any 2xx status.

    :raises UnreadableAnswerError: no id can be read, so a run may have been created.
    :raises ApiError: the answer is a refusal.
    """
    check(answer, call)
    found = answer.json()
    items = list(_json.objects(found, "items")) or [found]
    run_id = _json.text(items[0], "id")
    if len(items) != 1 or not run_id:
        raise _unreadable(answer, call)
    return CreatedRun(id=run_id, etag=_json.text(items[0], "etag") or _json.text(items[0], "eTag"))


def check(answer: Answer, call: Call) -> None:
    """Raise the error that a status outside 2xx stands for; pass a 2xx on."""
    if 200 <= answer.status < 300:
        return
    if not 400 <= answer.status < 600:
        raise _unreadable(answer, call)
    problem = problem_in(answer)
    kind = _kind(answer, call, problem)
    remedy = _WRONG_HOST if _is_foreign(answer, kind) else None
    raise _error(kind, answer, f"{call.value} was refused: {problem.message}", problem.code, remedy)


def _kind(answer: Answer, call: Call, problem: Problem) -> type[ApiError]:
    status, number = answer.status, problem.number
    if status == 429:
        return RateLimitedError
    if status >= 500:
        return ServerError
    if status == 408:
        return NoAnswerError
    if number in _ORGANIZATION_CODES:
        return OrganizationError
    if number in _SANDBOX_CODES:
        return SandboxError
    if status == 401 or number in _TOKEN_CODES:
        return AuthenticationError
    if number is not None and (known := _known_refusal(call, number)):
        return known
    if status == 403 or number in _PERMISSION_CODES:
        return AccessDeniedError
    if status == 404:
        return _not_found(answer, call)
    return RunRefusedError


def _known_refusal(call: Call, number: int) -> type[ApiError] | None:
    if call in _POSTS:
        return _REFUSALS_OF_POSTS.get(number)
    if call is Call.GET_FLOW and number in _FLOW_UNKNOWN:
        return FlowNotFoundError
    return None


def _not_found(answer: Answer, call: Call) -> type[ApiError]:
    """A page for people is a wrong host's, not Flow Service's word on a flow or run."""
    if answer.is_html:
        return RunRefusedError if call in _POSTS else UnreadableAnswerError
    return _MISSING.get(call, UnreadableAnswerError)


def _is_foreign(answer: Answer, kind: type[ApiError]) -> bool:
    return answer.status == 404 and kind in (RunRefusedError, UnreadableAnswerError)


def _continuation(found: Any, answer: Answer, call: Call) -> str | None:
    """The server's own spelling, neither decoded nor cut: what it wrote is what it gets back."""
    href = _json.text(found, "_links", "next", "href") or _json.text(found, "_links", "next")
    if not href:
        return None
    token = _CONTINUATION.search(href)
    if not token or not token.group(1):
        raise _error(
            UnreadableAnswerError,
            answer,
            f"{call.value}: the link to the next page holds no continuationToken",
        )
    return quote(_LONE_PERCENT.sub("%25", token.group(1)), safe="%=+~:/,;@!$'()*-._")


def _unreadable(answer: Answer, call: Call) -> ApiError:
    what = "was redirected" if 300 <= answer.status < 400 else "cannot be understood"
    return _error(UnreadableAnswerError, answer, f"the answer to {call.value} {what}: {answer.excerpt}")


def _error(
    kind: type[ApiError],
    answer: Answer,
    message: str,
    code: str | None = None,
    remedy: str | None = None,
) -> ApiError:
    return kind(message, http_status=answer.status, code=code, request_id=answer.request_id, remedy=remedy)
