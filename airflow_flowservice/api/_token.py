"""What IMS answers: a token, or why there is none."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api import _json
from airflow_flowservice.api._problem import problem_in
from airflow_flowservice.exceptions import (
    ApiError,
    AuthenticationError,
    NoAnswerError,
    RateLimitedError,
    ServerError,
    UnreadableAnswerError,
)

if TYPE_CHECKING:
    from airflow_flowservice.api._answer import Answer
    from airflow_flowservice.api._problem import Problem

_UNKNOWN_LIFE_S = 3600.0
_LONGEST_LIFE_S = 7 * 24 * 3600
"""Adobe's tokens live for a day: a larger `expires_in` is in milliseconds."""


@dataclass(frozen=True, kw_only=True)
class ImsToken:
    """An access token and its times, in seconds of the clock that `ImsAuth` was given."""

    value: str = field(repr=False)
    refresh_at: float
    expires_at: float


def token_of(answer: Answer, *, now: float, client_id: str, host: str) -> ImsToken:
    """The token in IMS's answer.

    :param now: the present, in the seconds of the clock that the token's times are told by.
    :raises AuthenticationError: IMS refused; the message names client id and host.
    :raises ApiError: IMS is busy or broken, or its answer says nothing.
    """
    if not 200 <= answer.status < 300:
        raise _refusal(answer, client_id=client_id, host=host)
    found = answer.json()
    value = _json.text(found, "access_token")
    if not value or not (value.isascii() and value.isprintable() and " " not in value):
        what = "an answer without an access token" if isinstance(found, dict) else answer.excerpt
        raise _error(UnreadableAnswerError, answer, f"IMS at {host} sent {what}", remedy=_check_ims_url())
    life = life_of(_json.at(found, "expires_in"))
    return ImsToken(value=value, refresh_at=now + life - min(300.0, life / 10), expires_at=now + life)


def life_of(expires_in: Any) -> float:
    """Seconds that a token lives, from seconds or milliseconds, a number or a string; else an hour."""
    try:
        life = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return _UNKNOWN_LIFE_S
    if isinstance(expires_in, bool) or not math.isfinite(life) or life < 0:
        return _UNKNOWN_LIFE_S
    return life / 1000 if life > _LONGEST_LIFE_S else life


def _refusal(answer: Answer, *, client_id: str, host: str) -> ApiError:
    problem = problem_in(answer)
    told = f"IMS at {host} gave no token for client id {client_id}: {problem.message}"
    if answer.status == 429:
        return _error(RateLimitedError, answer, told, problem.code)
    if answer.status >= 500:
        return _error(ServerError, answer, told, problem.code)
    if answer.status == 408:
        return _error(NoAnswerError, answer, told, problem.code)
    if answer.status < 400 or answer.is_html or answer.status in (404, 405):
        return _error(UnreadableAnswerError, answer, told, problem.code, _check_ims_url())
    return _error(AuthenticationError, answer, told, problem.code, _remedy(problem))


def _remedy(problem: Problem) -> str | None:
    """IMS says `invalid client_secret parameter` or `invalid client_id parameter`, both with `invalid_client`."""
    if problem.code == "invalid_scope":
        return "check the scopes in the connection's extra against those of the credential in Adobe Developer Console"
    if problem.code != "invalid_client":
        return None
    words = problem.message.lower()
    if "secret" in words:
        return (
            "set password (client secret) of the connection to a secret that Adobe Developer Console shows for the "
            "credential with this client id"
        )
    if re.search(r"client[ _]?id|unknown", words):
        return (
            "set login of the connection to the client id of an OAuth server-to-server credential in Adobe Developer "
            "Console"
        )
    return None


def _check_ims_url() -> str:
    return "check ims_url in the connection's extra; a proxy or a wrong host answers like this"


def _error(
    kind: type[ApiError], answer: Answer, message: str, code: str | None = None, remedy: str | None = None
) -> ApiError:
    return kind(message, http_status=answer.status, code=code, request_id=answer.request_id, remedy=remedy)
