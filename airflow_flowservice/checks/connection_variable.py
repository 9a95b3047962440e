# SPDX-License-Identifier: Apache-2.0
"""Find out why Airflow cannot parse a connection in an environment variable (`AIRFLOW_CONN_...`). Pure.

Airflow logs the cause at level DEBUG only, and reports that the connection does not exist. Formats: Airflow's
`Connection.from_json` and `Connection.from_uri`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_flowservice.api.connection_settings import parse_extra_text, position_of, require_object
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXT_FIELDS = ("conn_type", "description", "host", "schema", "login", "password")
_FIELDS = (*_TEXT_FIELDS, "port", "extra")
_BAD_PORT = "has a port that is not a number"


def cause_of(value: str) -> str | None:
    """Return the cause as predicate, such as `is empty`, which contains no secret; None if no cause was found.

    :param value: value of the environment variable.
    """
    text = value.strip()
    if not text:
        return "is empty"
    if text[0] in "'\"":
        return "begins with a quotation mark, which is a part of the value"
    return _cause_in_json(text) if text[0] == "{" else _cause_in_uri(text)


def _cause_in_json(text: str) -> str | None:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON{position_of(error)}"
    if unknown := [key for key in fields if key not in _FIELDS]:
        return f"has the unknown key {unknown[0][:60]!r} beside 'extra'; settings of Flow Service belong in 'extra'"
    for name in _TEXT_FIELDS:
        if fields.get(name) is not None and not isinstance(fields[name], str):
            return f"has a {name} that is not text; write it in quotation marks"
    if fields.get("port") and not str(fields["port"]).strip().isdigit():
        return _BAD_PORT
    return _cause_in_extra(fields)


def _cause_in_extra(fields: Mapping[str, Any]) -> str | None:
    extra = fields.get("extra")
    if not extra:
        return None
    try:
        require_object(parse_extra_text(extra) if isinstance(extra, str) else extra)
    except ConfigurationError as error:
        return f"has an invalid extra: {error.message}"
    return None


def _cause_in_uri(text: str) -> str | None:
    _type, separator, rest = text.partition("://")
    if not separator:
        return "is neither a JSON object nor a URI that begins with flowservice://"
    # Airflow permits a second one, directly after the type: `flowservice://https://...`.
    before, _, address = rest.rpartition("://")
    if "://" in before or set("@:/?") & set(before):
        return "has a '://' that is not quoted; in a URI, write it as %3A%2F%2F"
    try:
        parts = urlsplit(f"//{address}")
    except ValueError:
        return "is not a valid URI"
    try:
        _ = parts.port
    except ValueError:
        return f"{_BAD_PORT}; in a URI, client id and secret must be quoted (/ as %2F, ? as %3F, # as %23)"
    return None
