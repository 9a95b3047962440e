# SPDX-License-Identifier: Apache-2.0
"""Estimate Flow Service's clock from this machine's clock and the `Date` header of responses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

log = logging.getLogger(__name__)

# A gateway with a wrong clock can set `Date`, so a larger difference is not believed.
MAX_CLOCK_CORRECTION = timedelta(minutes=10)


@dataclass(kw_only=True)
class ServiceClock:
    """Flow Service's clock.

    :param local: return this machine's time, as aware UTC datetime.
    :param difference: return the service's clock minus the local one; None if unknown.
    """

    local: Callable[[], datetime]
    difference: Callable[[], timedelta | None]
    _has_logged: bool = field(default=False, init=False, repr=False)

    def now(self) -> datetime:
        """Return the time to send to Flow Service, as aware UTC datetime."""
        return self.local() + self.correction()

    def offset(self) -> timedelta:
        """Return the difference of the clocks, also if it is not plausible; zero if unknown."""
        return self.difference() or timedelta(0)

    def correction(self) -> timedelta:
        """Return the difference of the clocks if it is plausible, otherwise zero."""
        offset = self.offset()
        if abs(offset) <= MAX_CLOCK_CORRECTION:
            return offset
        if not self._has_logged:
            self._has_logged = True
            log.warning(
                "The Date header of Flow Service's responses differs from this machine's clock by %.0f seconds; "
                "using this machine's clock. Check both clocks, and gateways between them",
                offset.total_seconds(),
            )
        return timedelta(0)
