"""Filters, and lists that are read page after page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_flowservice.api import _settings
from airflow_flowservice.api.responses import Call, page_of
from airflow_flowservice.exceptions import UnreadableAnswerError
from airflow_flowservice.windows.window import epoch_milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from airflow_flowservice.api.transport import Transport


def run_filters(flow_id: str | None, ids: Iterable[str] | None, created_since: datetime | None) -> list[str] | None:
    """Conditions in Flow Service's words; None when no run can meet them."""
    conditions = []
    if flow_id is not None:
        conditions.append(f"flowId=={_settings.identifier(flow_id, 'flow_id')}")
    if ids is not None:
        wanted = dict.fromkeys(_settings.identifier(run_id, "flow_run_id") for run_id in ids)
        if not wanted:
            return None
        conditions.append(f"id=={','.join(wanted)}")
    if created_since is not None:
        since = _settings.aware_datetime(created_since, "created_since")
        conditions.append(f"createdAt>={epoch_milliseconds(since)}")
    return conditions


def query_of(
    conditions: Iterable[str], *, order_by: str | None = None, limit: int | None = None
) -> list[tuple[str, str]]:
    """The query's parameters. `count` is never among them: Flow Service refuses it along with `limit`."""
    query = [("property", condition) for condition in conditions]
    if order_by:
        query.append(("orderby", order_by))
    if limit is not None:
        query.append(("limit", str(_settings.at_least_one(limit, "limit"))))
    return query


def items_of_pages(
    transport: Transport,
    path: str,
    query: list[tuple[str, str]],
    call: Call,
    *,
    max_pages: int | None = None,
) -> Iterator[Mapping[str, Any]]:
    """The objects of a list; a page is read when the one before is used up.

    :raises UnreadableAnswerError: a page leads back to an earlier one.
    """
    filters, continuation = urlencode(query), ""
    seen: set[str] = set()
    while max_pages is None or len(seen) < max_pages:
        page = page_of(transport.get(path, filters + continuation), call)
        yield from page.items
        if page.continuation is None:
            return
        if page.continuation in seen:
            raise UnreadableAnswerError(f"{call.value} goes in circles: a page leads back to an earlier one")
        seen.add(page.continuation)
        continuation = f"{'&' if filters else ''}continuationToken={page.continuation}"
