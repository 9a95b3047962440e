# SPDX-License-Identifier: Apache-2.0
"""Partitions of an asset: the hours or days within a window, with the keys of Airflow's partition mappers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_flowservice.windows.window import EPOCH, IngestionWindow, iso

LENGTHS: Mapping[str, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
MAX_PARTITIONS = 1000
"""Airflow stores all events of a task in one transaction, and the worker waits for it."""

_KEY_FORMAT = "%Y-%m-%dT%H:%M:%S"
"""`input_format` of Airflow's temporal mappers. Their default time zone is UTC, too."""


def keys_of(window: IngestionWindow, *, length: str) -> list[str]:
    """Return the keys of all whole hours or days (UTC) in a window: the start of each, in order.

    An hour that the window contains only in part is not ingested, so it has no key.

    :param length: `hour` or `day`.
    """
    step = LENGTHS[length]
    first = -((EPOCH - window.start) // step)
    end = (window.end - EPOCH) // step
    return [(EPOCH + number * step).strftime(_KEY_FORMAT) for number in range(first, end)]


def extra_of_partition(extra: Mapping[str, Any], *, key: Any) -> Mapping[str, Any]:
    """Return the `extra` of an event with the window of its partition, which may be a part of the flow run's window.

    :param key: the event's partition key; None if it has none.
    :return: the same `extra` if its event is not of a partition that this package named.
    """
    length = LENGTHS.get(str(extra.get("partitions")))
    if length is None or not isinstance(key, str):
        return extra
    try:
        start = datetime.strptime(key, _KEY_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        return extra
    return {**extra, "window_start": iso(start), "window_end": iso(start + length)}
