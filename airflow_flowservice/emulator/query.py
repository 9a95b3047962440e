# SPDX-License-Identifier: Apache-2.0
"""Property filters, order and pagination of lists, as in Flow Service.

`property=FIELD OP VALUE` can be repeated; the conditions are joined with AND. FIELD is a dotted path. With `==`,
VALUE can be a comma-separated list, which means "one of".
"""

from __future__ import annotations

import base64
import binascii
import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode

from airflow_flowservice.emulator.errors import EmulatedApiError

Item = TypeVar("Item")
Value = Callable[[Item, str], Any]

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

_FILTER = re.compile(r"^\s*([\w.\[\]-]+?)\s*(==|!=|<=|>=|<|>)\s*(.*?)\s*$")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """One `property` condition."""

    field: str
    op: str
    values: tuple[str, ...]

    def accepts(self, value: Any) -> bool:
        """Return whether a field's value meets the condition. An absent field meets only `!=`."""
        if self.op == "==":
            return value is not None and _text(value) in self.values
        if self.op == "!=":
            return value is None or _text(value) != self.values[0]
        if value is None:
            return False
        left, right = _number(value), _number(self.values[0])
        if left is None or right is None:
            return _COMPARE[self.op](_text(value), self.values[0])
        return _COMPARE[self.op](left, right)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListQuery:
    """Parameters of a list request.

    Attributes:
        filters: the `property` conditions.
        limit: maximum number of items on a page.
        count: whether the response contains the number of all items.
        orderby: the field to sort by, with a leading `-` for descending order.
        token: the continuation token; None for the first page.
        echo: parameters to repeat in the address of the next page.
    """

    filters: tuple[Filter, ...] = ()
    limit: int = DEFAULT_LIMIT
    count: bool = False
    orderby: str | None = None
    token: str | None = None
    echo: tuple[tuple[str, str], ...] = ()

    def without(self, *filters: Filter) -> ListQuery:
        """Return a copy of the query without these filters."""
        return replace(self, filters=tuple(f for f in self.filters if f not in filters))

    def equality(self, field: str) -> Filter | None:
        """Return the first `field==...` filter; None if there is none."""
        return next((f for f in self.filters if f.field == field and f.op == "=="), None)


def parse_query(query_string: str) -> ListQuery:
    """Parse the query string of a list request.

    Raises:
        EmulatedApiError: 400 with code 1401 for an invalid parameter.
    """
    pairs = parse_qsl(query_string, keep_blank_values=True)
    single = dict(pairs)
    count = single.get("count", "false").lower() == "true"
    if count and "limit" in single:
        raise EmulatedApiError(400, "1401", "The parameters limit and count must not be sent together.")
    orderby = single.get("orderby")
    if orderby is not None and not orderby.removeprefix("-"):
        raise EmulatedApiError(400, "1401", "The parameter orderby contains no field.")
    return ListQuery(
        filters=tuple(parse_filter(value) for name, value in pairs if name == "property"),
        limit=_parse_limit(single.get("limit")),
        count=count,
        orderby=orderby,
        token=single.get("continuationToken"),
        echo=tuple((name, value) for name, value in pairs if name in ("property", "limit", "orderby")),
    )


def parse_filter(text: str) -> Filter:
    """Parse a property filter such as `flowId==x` or `id==a,b`.

    Raises:
        EmulatedApiError: 400 with code 1401 if the text is not a property filter.
    """
    found = _FILTER.match(text)
    if found is None:
        raise EmulatedApiError(400, "1401", f"Not a property filter: {text!r}.")
    field, op, raw = found.groups()
    values = tuple(value.strip() for value in raw.split(","))
    if len(values) > 1 and op != "==":
        raise EmulatedApiError(400, "1401", f"Only the operator == accepts several values: {text!r}.")
    return Filter(field=field, op=op, values=values)


def select(items: Sequence[Item], query: ListQuery, *, value: Value[Item]) -> list[Item]:
    """Return the items that pass every filter, in the requested order.

    Without a requested order, the items are in the order of their creation.

    Args:
        items: all items, in the order of their creation.
        query: the parameters of the request.
        value: function that returns an item's value at a dotted path.
    """
    kept = [item for item in items if all(f.accepts(value(item, f.field)) for f in query.filters)]
    if query.orderby is None:
        return kept
    field = query.orderby.removeprefix("-")
    descending = query.orderby.startswith("-")
    if descending:
        kept.reverse()
    if field == "createdAt":
        return kept
    return sorted(kept, key=lambda item: _sort_key(value(item, field)), reverse=descending)


def paginate(items: list[Item], query: ListQuery, *, value: Value[Item], path: str) -> tuple[list[Item], str | None]:
    """Return one page of the selected items, and the address of the next page or None.

    The continuation token contains the id of the last item. If an item is created between two requests, the
    next page therefore neither repeats nor omits an item.
    """
    start = _position(items, query.token, value)
    page_items = items[start : start + query.limit]
    if not page_items or start + query.limit >= len(items):
        return page_items, None
    token = _token(str(value(page_items[-1], "id")), start + query.limit)
    echo = urlencode(query.echo)
    return page_items, f"{path}?{echo}{'&' if echo else ''}continuationToken={token}"


def at_path(document: Any, path: str) -> Any:
    """Return the value at a dotted path such as `metrics.statusSummary.status`; None if there is none."""
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return None
    return document


def _position(items: list[Item], token: str | None, value: Value[Item]) -> int:
    if token is None:
        return 0
    last_id, offset = _read_token(token)
    return next((n + 1 for n, item in enumerate(items) if value(item, "id") == last_id), offset)


def _token(last_id: str, offset: int) -> str:
    text = json.dumps({"last": last_id, "offset": offset})
    # The padding is intended: a client that truncates the token at "=" fails with the emulator.
    while len(text) % 3 != 1:
        text += " "
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        content = json.loads(base64.urlsafe_b64decode(token.encode()))
        return str(content["last"]), int(content["offset"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise EmulatedApiError(400, "1401", f"Not a continuationToken of this service: {token!r}.") from None


def _parse_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise EmulatedApiError(400, "1401", f"limit must be a positive integer, not {text!r}.")
    return min(int(text), MAX_LIMIT)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _sort_key(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    number = _number(value)
    return (2, 0.0, _text(value)) if number is None else (1, number, "")
