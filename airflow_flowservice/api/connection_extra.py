# SPDX-License-Identifier: Apache-2.0
"""Extra of a connection: a JSON object with known keys."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow_flowservice.api.redaction import redact_json
from airflow_flowservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EXTRA_FIELDS = (
    "org_id",
    "sandbox",
    "scopes",
    "ims_url",
    "access_token",
    "epoch_format",
    "timeout_s",
    "max_attempts",
    "ledger_conn_id",
)

_LEGACY_PREFIX = "extra__flowservice__"
_WRITE_OBJECT = 'write the connection\'s extra as one JSON object: {"org_id": "...@AdobeOrg", ...}'
_JSON_TYPES = {str: "string", list: "array", dict: "object", bool: "boolean", int: "number", float: "number"}
# Names in other APIs, without case and punctuation: Adobe's headers, the client's parameters, other providers' extras.
_OTHER_NAMES = {
    "sandbox": ("sandboxname", "sandboxid", "xsandboxname"),
    "org_id": ("org", "imsorg", "imsorgid", "xgwimsorgid", "organization", "organizationid", "organisationid"),
    "ims_url": ("ims", "imshost", "imsendpoint"),
    "access_token": ("token", "bearer", "bearertoken"),
    "timeout_s": ("timeout", "timeoutseconds", "readtimeout"),
    "max_attempts": ("attempts", "retries", "maxretries"),
    "login": ("clientid", "apikey", "xapikey"),
    "password": ("clientsecret", "secret"),
    "host": ("baseurl", "url", "platformurl", "endpoint"),
}
_NEAREST = {
    **{re.sub(r"[\W_]", "", name): name for name in (*EXTRA_FIELDS, "login", "password", "host")},
    **{other: name for name, others in _OTHER_NAMES.items() for other in others},
}


@dataclass(frozen=True, kw_only=True)
class UnknownKey:
    """Key of the extra that has no meaning, with its error.

    :param nearest: key of the extra, or field of the connection, that was probably meant; None if no name is similar.
    """

    name: str
    nearest: str | None
    error: ConfigurationError


def json_type(value: Any) -> str:
    """Return the name of a value's type in JSON, such as `array`."""
    return _JSON_TYPES.get(type(value), "value")


def parse_extra(connection: Any) -> dict[str, Any]:
    """Return the extra without the key prefix of Airflow's older forms.

    :raises ConfigurationError: the extra is not a JSON object; the message contains none of its values.
    """
    text = getattr(connection, "extra", None)
    if isinstance(text, str | bytes) and text.strip():
        value = parse_extra_text(text)
    else:  # A secrets backend can return a connection with an object.
        value = text or connection.extra_dejson
    return _remove_prefix(require_object(value))


def parse_extra_text(text: str | bytes) -> Any:
    """Return the JSON value of the extra.

    :raises ConfigurationError: the text is not JSON; the message states the position.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the extra is not valid JSON{position_of(error)}", remedy=_WRITE_OBJECT) from None


def position_of(error: Exception) -> str:
    """Return the cause and the position of a JSON syntax error; contains nothing of the text."""
    if not isinstance(error, json.JSONDecodeError):
        return ""
    return f": {error.msg.partition(': ')[0]} at line {error.lineno}, column {error.colno}"


def require_object(value: Any) -> dict[str, Any]:
    """Return the extra's JSON object; empty if there is no extra.

    :raises ConfigurationError: it is another JSON value, or JSON text inside JSON text.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, dict):
        return value
    message = f"the extra is a JSON {json_type(value)}, not a JSON object"
    if isinstance(value, str) and value.lstrip().startswith("{"):
        message = "the extra was encoded twice: it is JSON text inside a JSON string"
    raise ConfigurationError(message, remedy=_WRITE_OBJECT)


def unknown_keys(extra: Mapping[str, Any], *, secrets: tuple[str, ...]) -> Iterator[UnknownKey]:
    """Yield the keys that have no meaning.

    :param secrets: values that no message may contain.
    """
    for key in extra:
        if key not in EXTRA_FIELDS:
            nearest = _nearest(key)
            shown = repr(str(redact_json(key, secrets=secrets))[:60])
            hint = f" (nearest known key: {nearest!r})" if nearest in EXTRA_FIELDS else ""
            error = ConfigurationError(
                f"the extra has the unknown key {shown}{hint}", remedy=_remedy(shown, nearest, extra)
            )
            yield UnknownKey(name=key, nearest=nearest, error=error)


def _nearest(key: str) -> str | None:
    plain = re.sub(r"[\W_]", "", key.removeprefix(_LEGACY_PREFIX)).lower()
    found = get_close_matches(plain, _NEAREST, n=1, cutoff=0.7)
    return _NEAREST[found[0]] if found else None


def _remedy(shown: str, nearest: str | None, extra: Mapping[str, Any]) -> str:
    if nearest is None:
        return f"remove {shown} from the connection's extra; its known keys are: {', '.join(EXTRA_FIELDS)}"
    if nearest not in EXTRA_FIELDS:
        return f"move the value of {shown} to the connection's {nearest}, and remove {shown} from its extra"
    if is_empty(extra.get(nearest)):
        return f"in the connection's extra, rename {shown} to {nearest!r}"
    return f"remove {shown} from the connection's extra, which also has {nearest!r}"


def is_empty(value: Any) -> bool:
    """Return whether a field has no value; forms store empty fields as None or as empty text."""
    return value is None or value == ""


def _remove_prefix(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the extra with the keys of older forms renamed.

    :raises ConfigurationError: a key with the prefix and the key without it have different values.
    """
    found = dict(extra)
    for key, value in extra.items():
        name = key.removeprefix(_LEGACY_PREFIX)
        if name == key or name not in EXTRA_FIELDS:
            continue
        del found[key]
        if is_empty(value):
            continue
        if not is_empty(extra.get(name)) and extra[name] != value:
            raise ConfigurationError(
                f"in the extra, {name!r} and {key!r} have different values",
                remedy=f"remove {key!r} from the connection's extra",
            )
        found[name] = value
    return found
