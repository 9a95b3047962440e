# SPDX-License-Identifier: Apache-2.0
"""Limit of concurrent reads in one process of the API server.

A read occupies one of the threads in which Airflow also runs its own endpoints, and most of a processor.
"""

from __future__ import annotations

from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

from airflow_flowservice.plugins.error_responses import PageRequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_WAIT_S = 10.0
_RUNNING = BoundedSemaphore(2)
_RUNNING_OR_WAITING = BoundedSemaphore(8)


def busy_error() -> PageRequestError:
    """Return the error for a request that finds no free slot."""
    return PageRequestError(503, "The page's server is busy with other requests", remedy="try again in a few seconds")


@contextmanager
def occupied() -> Iterator[None]:
    """Occupy a slot; at most two reads run, and at most six wait, each for up to ten seconds.

    :raises PageRequestError: 503, no slot is free.
    """
    busy = busy_error()
    if not _RUNNING_OR_WAITING.acquire(blocking=False):
        raise busy
    try:
        if not _RUNNING.acquire(timeout=_MAX_WAIT_S):
            raise busy
        try:
            yield
        finally:
            _RUNNING.release()
    finally:
        _RUNNING_OR_WAITING.release()
