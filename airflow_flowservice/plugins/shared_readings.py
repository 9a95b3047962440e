# SPDX-License-Identifier: Apache-2.0
"""Share one reading among all requests that need the same result at the same time.

A request that waits is a coroutine, so it occupies none of the threads in which Airflow runs its own endpoints. The
readings have separate threads, and no database connection is held while a request waits.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_flowservice.plugins.read_slots import busy_error

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

_Result = TypeVar("_Result")

# Readings of different users that run or wait; `read_slots` decides how many of them run.
_MAX_READINGS = 8
# A result is kept as long as its reading took, so that readings occupy at most half of a processor. In seconds.
_MAX_KEPT_S = 5.0
# The result of a shorter reading is not kept, so that a small Airflow always has the newest state. In seconds.
_SHORT_S = 0.25
_MAX_RESULTS = 8


@dataclass(frozen=True, kw_only=True)
class _Kept(Generic[_Result]):
    """Result of a reading, and the monotonic seconds until which it is used."""

    result: _Result
    until: float


@dataclass
class SharedReadings(Generic[_Result]):
    """Readings of one kind, each identified by a key. Different event loops and threads may use them.

    A key has everything that determines the result besides the database: of two people with different permissions,
    no one receives the other's result.
    """

    monotonic: Callable[[], float] = time.monotonic
    _running: dict[Hashable, Future[_Result]] = field(default_factory=dict)
    _kept: dict[Hashable, _Kept[_Result]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_MAX_READINGS, thread_name_prefix="flowservice-reading")
    )

    async def get(self, key: Hashable, read: Callable[[], _Result]) -> _Result:
        """Return the result of the running or the last reading of this key, or else read.

        :param read: called in a thread. Its error is raised for each request that waits for it, and is not kept.
        :raises PageRequestError: 503, too many readings run or wait.
        """
        found = self._find_or_start(key, read)
        if isinstance(found, _Kept):
            return found.result
        # Shielded: a request that the browser cancels does not cancel the reading of the others.
        return await asyncio.shield(asyncio.wrap_future(found))

    def clear(self) -> None:
        """Remove the results, so that the next request reads."""
        with self._lock:
            self._kept.clear()

    def _find_or_start(self, key: Hashable, read: Callable[[], _Result]) -> _Kept[_Result] | Future[_Result]:
        with self._lock:
            self._kept = {each: kept for each, kept in self._kept.items() if self.monotonic() < kept.until}
            if key in self._kept:
                return self._kept[key]
            if key not in self._running:
                if len(self._running) >= _MAX_READINGS:
                    raise busy_error()
                self._running[key] = self._threads.submit(self._read, key, read)
            return self._running[key]

    def _read(self, key: Hashable, read: Callable[[], _Result]) -> _Result:
        began = self.monotonic()
        try:
            result = read()
        except BaseException:
            with self._lock:
                self._running.pop(key, None)
            raise
        ended = self.monotonic()
        with self._lock:
            self._running.pop(key, None)
            if ended - began >= _SHORT_S:
                self._kept[key] = _Kept(result=result, until=ended + min(ended - began, _MAX_KEPT_S))
                while len(self._kept) > _MAX_RESULTS:
                    del self._kept[next(iter(self._kept))]
        return result
