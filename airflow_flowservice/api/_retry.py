"""Which requests `urllib3` repeats, and how long it pauses in between."""

from __future__ import annotations

import random
import time
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar

from urllib3.util import Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3.response import BaseHTTPResponse

LONGEST_PAUSE_S = 120.0
_FIRST_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 30.0
_BUSY_OR_BROKEN = frozenset({429, *range(500, 600)})


class PatientRetry(Retry):
    """`Retry` that also pauses before the first repetition, with jitter and a bound on `Retry-After`.

    Only statuses in `status_forcelist` are repeated: `Retry` itself would repeat any allowed method,
    POST too, on 413 and 503 as soon as the answer carries a `Retry-After`.
    """

    RETRY_AFTER_STATUS_CODES: ClassVar[frozenset[int]] = frozenset()  # type: ignore[misc]
    pause: Callable[[float], None] = staticmethod(time.sleep)

    def new(self, **kwargs: Any) -> PatientRetry:
        """The next state; it pauses in the same way."""
        following = super().new(**kwargs)
        following.pause = self.pause
        return following

    def get_backoff_time(self) -> float:
        """Half a second, doubled with each failure, at most half a minute; half to full of it."""
        doubled = _FIRST_BACKOFF_S * 2.0 ** min(max(len(self.history) - 1, 0), 10)
        return random.uniform(0.5, 1.0) * min(doubled, _LONGEST_BACKOFF_S)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """As long as `Retry-After` asks, within bounds, else the backoff."""
        asked = asked_pause(response.headers.get("Retry-After"), response.headers.get("Date")) if response else 0
        if asked > 0:
            self.pause(min(asked * random.uniform(1.0, 1.1), LONGEST_PAUSE_S))
        else:
            self.pause(self.get_backoff_time())


def asked_pause(retry_after: str | None, date: str | None = None) -> float:
    """Seconds that `Retry-After` asks for; 0 when it says nothing that can be read.

    :param retry_after: seconds or an HTTP date.
    :param date: the answer's own `Date`, so that a wrong local clock does not matter.
    """
    if not retry_after:
        return 0.0
    plain = retry_after.strip()
    if plain.isascii() and plain.isdigit():
        return float(plain[:9])
    until = http_date(plain)
    if until is None:
        return 0.0
    now = http_date(date) or datetime.now(timezone.utc)
    return max((until - now).total_seconds(), 0.0)


def http_date(text: str | None) -> datetime | None:
    """An HTTP date as an aware UTC datetime, or None."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or timezone.utc)


def repeat_everything(max_attempts: int, pause: Callable[[float], None]) -> PatientRetry:
    """For what changes nothing (GET, and the token): connection errors, 429 and 5xx are repeated."""
    retry = PatientRetry(
        total=max_attempts - 1,
        redirect=False,
        status_forcelist=_BUSY_OR_BROKEN,
        allowed_methods=frozenset({"GET", "POST"}),
        raise_on_status=False,
    )
    retry.pause = pause
    return retry


def repeat_what_was_not_taken(max_attempts: int, pause: Callable[[float], None]) -> PatientRetry:
    """For what creates: repeated only when no connection was made, or the answer was 429."""
    retry = PatientRetry(
        total=max_attempts - 1,
        read=0,
        other=0,
        redirect=False,
        status_forcelist=frozenset({429}),
        allowed_methods=frozenset({"POST"}),
        raise_on_status=False,
    )
    retry.pause = pause
    return retry
