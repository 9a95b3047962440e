"""Property filters, order and pages of a list, as Flow Service has them.

`property=FIELD OP VALUE` may be repeated and is joined with AND; FIELD is a dotted path; several values
separated by commas mean "one of", with `==` only.
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
        """Whether a field's value meets the condition; a field that is absent meets only `!=`."""
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
    """What a list was asked for. `token` is the position of the page, None for the first one."""

    filters: tuple[Filter, ...] = ()
    limit: int = DEFAULT_LIMIT
    count: bool = False
    orderby: str | None = None
    token: str | None = None
    echo: tuple[tuple[str, str], ...] = ()

    def without(self, *filters: Filter) -> ListQuery:
        return replace(self, filters=tuple(f for f in self.filters if f not in filters))

    def equality(self, field: str) -> Filter | None:
        """The first `field==...` filter; None when there is none."""
        return next((f for f in self.filters if f.field == field and f.op == "=="), None)


def parse_query(query_string: str) -> ListQuery:
    """A list request's query string.

    Raises:
        EmulatedApiError: 400, 1401 for anything that cannot be meant.
    """
    pairs = parse_qsl(query_string, keep_blank_values=True)
    single = dict(pairs)
    count = single.get("count", "false").lower() == "true"
    if count and "limit" in single:
        raise EmulatedApiError(400, "1401", "limit and count must not be sent together.")
    orderby = single.get("orderby")
    if orderby is not None and not orderby.removeprefix("-"):
        raise EmulatedApiError(400, "1401", "orderby names no field.")
    return ListQuery(
        filters=tuple(parse_filter(value) for name, value in pairs if name == "property"),
        limit=_parse_limit(single.get("limit")),
        count=count,
        orderby=orderby,
        token=single.get("continuationToken"),
        echo=tuple((name, value) for name, value in pairs if name in ("property", "limit", "orderby")),
    )


def parse_filter(text: str) -> Filter:
    """A property filter such as `flowId==x` or `id==a,b`.

    Raises:
        EmulatedApiError: 400, 1401, when it is none.
    """
    found = _FILTER.match(text)
    if found is None:
        raise EmulatedApiError(400, "1401", f"not a property filter: {text!r}")
    field, op, raw = found.groups()
    values = tuple(value.strip() for value in raw.split(","))
    if len(values) > 1 and op != "==":
        raise EmulatedApiError(400, "1401", f"several values need ==: {text!r}")
    return Filter(field=field, op=op, values=values)


def select(items: Sequence[Item], query: ListQuery, *, value: Value[Item]) -> list[Item]:
    """The items that pass every filter, in the order asked for; without an order, as they were created.

    Args:
        items: in the order of their creation.
        query: what was asked for.
        value: an item's value at a dotted path.
    """
    kept = [item for item in items if all(f.accepts(value(item, f.field)) for f in query.filters)]
    if query.orderby is None:
        return kept
    field = query.orderby.removeprefix("-")
    backwards = query.orderby.startswith("-")
    if backwards:
        kept.reverse()
    if field == "createdAt":
        return kept
    return sorted(kept, key=lambda item: _sort_key(value(item, field)), reverse=backwards)


def paginate(items: list[Item], query: ListQuery, *, value: Value[Item], path: str) -> tuple[list[Item], str | None]:
    """One page of the selected items, and the next page's address, if there is one.

    The token holds the last item's id, so that items which arrive between two pages are neither repeated nor
    push others out.
    """
    start = _position(items, query.token, value)
    shown = items[start : start + query.limit]
    if not shown or start + query.limit >= len(items):
        return shown, None
    token = _token(str(value(shown[-1], "id")), start + query.limit)
    echo = urlencode(query.echo)
    return shown, f"{path}?{echo}{'&' if echo else ''}continuationToken={token}"


def at_path(document: Any, path: str) -> Any:
    """The value at a dotted path such as `metrics.statusSummary.status`; None when there is none."""
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
    # Padded on purpose: a client that cuts the token at "=" must fail here rather than at Adobe's.
    while len(text) % 3 != 1:
        text += " "
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(token: str) -> tuple[str, int]:
    try:
        content = json.loads(base64.urlsafe_b64decode(token.encode()))
        return str(content["last"]), int(content["offset"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise EmulatedApiError(400, "1401", f"not a continuationToken of this service: {token!r}") from None


def _parse_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise EmulatedApiError(400, "1401", f"limit must be a positive integer, not {text!r}")
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
