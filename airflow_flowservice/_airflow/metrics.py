# SPDX-License-Identifier: Apache-2.0
"""Counters and gauges in Airflow's metrics (`[metrics] statsd_on`, `otel_on`, ...), on workers and in triggerers.

Errors are only logged, so metrics never fail a task.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_flowservice._airflow import versions

if TYPE_CHECKING:
    from airflow_flowservice.ledger.entry import DataflowKey

T = TypeVar("T")

log = logging.getLogger(__name__)

# Airflow's backends refuse other characters in a name, and a point would begin another level.
_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_waiting = 0


def count(name: str) -> None:
    """Add one to the counter `flowservice.NAME`."""
    _emit("incr", name)


def counted(read: Callable[..., T]) -> Callable[..., T]:
    """Return the function with its calls counted as `flowservice.polls`."""

    def reading(*args: Any, **kwargs: Any) -> T:
        count("polls")
        return read(*args, **kwargs)

    return reading


def dataflow_gauge(name: str, value: float, *, key: DataflowKey) -> None:
    """Set the gauge `flowservice.NAME` of a dataflow, with its id and sandbox as tags.

    A StatsD server without tags would keep one value for all dataflows, so `flowservice.NAME.FLOW_ID` is also set.
    """
    flow_id = _NO_NAME.sub("_", key.flow_id)
    _emit("gauge", name, value, tags={"flow_id": flow_id, "sandbox": _NO_NAME.sub("_", key.sandbox)})
    _emit("gauge", f"{name}.{flow_id}", value)


@contextmanager
def waiter() -> Iterator[None]:
    """Count a trigger that waits in this process in the gauge `flowservice.waiters`, by host name."""
    _change_waiters(+1)
    try:
        yield
    finally:
        _change_waiters(-1)


def _change_waiters(by: int) -> None:
    global _waiting
    _waiting += by
    _emit("gauge", "waiters", _waiting, tags={"hostname": socket.gethostname()})


def _emit(method: str, name: str, *values: Any, **options: Any) -> None:
    try:
        getattr(_backend(), method)(f"flowservice.{name}", *values, **options)
    except Exception as error:
        log.debug("The metric flowservice.%s could not be emitted: %s", name, error)


def _backend() -> Any:
    return versions.stats()
