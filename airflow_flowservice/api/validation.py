# SPDX-License-Identifier: Apache-2.0
"""Validate the client's settings and identifiers before anything is sent; each error names the invalid setting."""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_flowservice.exceptions import ConfigurationError, OrganizationError
from airflow_flowservice.windows.window import EPOCH

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SECONDS = 86_400
"""A day. `socket.settimeout` raises an OverflowError for much longer timeouts."""

EPOCH_FORMATS = ("auto", "string", "integer")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=@~+-]*")


def validate_base_url(value: Any, name: str, *, known_path: str = "") -> str:
    """Return a host's URL without a trailing slash; the default scheme is `https://`.

    :param known_path: the service's own path; it is removed with all that follows, since users may have copied it
        with the host.
    :raises ConfigurationError: the value is not a URL, or contains a password; or it is plain http for a host other
        than this machine, which would send the secret unencrypted.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is empty or is not a string")
    text = value.strip()
    # `http:/x` and `https:x` would otherwise become hosts named `http` and `https`.
    if re.match(r"(?i)https?:(?!//)", text):
        raise ConfigurationError(f"{name} is not the address of a host: {text!r}")
    text = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{name} is not the address of a host") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"{name} contains a user name or password; remove them")
    if (
        not host
        or parts.netloc.endswith(":")
        or parts.query
        or parts.fragment
        or re.search(r"[\s\\%,;*<>'\"]", text)
        or not text.isprintable()
        or ".." in parts.path
    ):
        raise ConfigurationError(f"{name} is not the address of a host: {text!r}")
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{name} must begin with https://, not {parts.scheme}://")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"{name} {text!r} would send the secret in the clear; use https://")
    shown = f"[{host}]" if ":" in host else host
    path = remove_known_path(parts.path, known_path)
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{path}"


def remove_known_path(path: str, known_path: str) -> str:
    """Return the part of a path before a known path, without a trailing slash.

    The known path begins where the path has its first two segments, or ends with its first segment.
    """
    segments, known = path.rstrip("/").split("/"), known_path.strip("/").split("/")
    for start, segment in enumerate(segments):
        is_last = start == len(segments) - 1
        if segment and segment == known[0] and (is_last or segments[start : start + 2] == known[:2]):
            return "/".join(segments[:start]).rstrip("/")
    return "/".join(segments)


def is_loopback(host: str) -> bool:
    """Return whether the host is this machine, without a query to a name server."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate_header(value: Any, name: str, *, remedy: str | None = None) -> str:
    """Return a value of a header: visible ASCII, not empty, without surrounding spaces.

    :raises ConfigurationError: the value cannot be sent in a header; the message does not contain it.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is missing", remedy=remedy)
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigurationError(f"{name} has spaces around it, or characters that are not allowed in a header")
    return value


def validate_client_id(value: Any) -> str:
    """Return the client id, which is sent as `x-api-key`.

    :raises ConfigurationError: it is missing or cannot be sent.
    """
    return validate_header(value, "client_id")


def validate_org_id(value: Any) -> str:
    """Return the organization's id, which is sent as `x-gw-ims-org-id`.

    :raises ConfigurationError: it is missing or cannot be sent.
    """
    return validate_header(value, "org_id", remedy=OrganizationError.default_remedy)


def validate_sandbox(value: Any) -> str:
    """Return the sandbox's name, which is sent as `x-sandbox-name`.

    :raises ConfigurationError: it is missing or cannot be sent.
    """
    return validate_header(value, "sandbox")


def validate_credential(client_secret: Any, access_token: Any) -> tuple[str | None, str | None]:
    """Return client secret and ready token without surrounding spaces; exactly one is set.

    :raises ConfigurationError: neither or both are set.
    """
    if client_secret and access_token:
        raise ConfigurationError("client_secret and access_token are both set; remove one of them")
    if access_token:
        if isinstance(access_token, str):
            access_token = re.sub(r"(?i)^bearer\s+", "", access_token.strip())
        return None, validate_header(access_token, "access_token")
    if not isinstance(client_secret, str) or not client_secret.strip():
        raise ConfigurationError("neither client_secret nor access_token is set")
    return client_secret.strip(), None


def validate_scopes(value: Any) -> str:
    """Return scopes in the format of IMS (comma-separated), from a string or a list.

    :raises ConfigurationError: there is no scope, or one is not a string.
    """
    parts: Iterable[Any] = [value] if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ConfigurationError("scopes must be a comma-separated string, or a list of strings")
    scopes = [scope for part in parts for scope in re.split(r"[\s,]+", part) if scope]
    if not scopes:
        raise ConfigurationError("scopes is empty")
    return ",".join(scopes)


def validate_seconds(value: Any, name: str) -> float:
    """Return a number of seconds above 0, at most `MAX_SECONDS`.

    A numeric string is accepted, because connections contain strings.

    :raises ConfigurationError: the value is not such a number.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not (math.isfinite(number) and number > 0):
        raise ConfigurationError(f"{name} must be a number of seconds above 0, not {value!r}")
    if number > MAX_SECONDS:
        raise ConfigurationError(f"{name} is {value!r} seconds; the maximum is {MAX_SECONDS} (one day)")
    return number


def validate_positive_integer(value: Any, name: str) -> int:
    """Return a whole number, at least 1. A numeric string is accepted.

    :raises ConfigurationError: the value is not such a number.
    """
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise ConfigurationError(f"{name} must be a whole number from 1 on, not {value!r}")
    return int(text[:9])


def validate_instant(value: Any, name: str) -> datetime:
    """Return an instant that can be sent, an aware datetime.

    :raises ConfigurationError: the value is not a datetime, has no timezone, or is before 1970.
    """
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ConfigurationError(f"{name} {value.isoformat()} has no timezone", remedy="set an aware datetime")
    if value < EPOCH:
        raise ConfigurationError(f"{name} {value.isoformat()} is before 1970")
    return value


def validate_epoch_format(value: Any) -> str:
    """Return `auto`, `string` or `integer`.

    :raises ConfigurationError: the value is another one.
    """
    if value not in EPOCH_FORMATS:
        raise ConfigurationError(f"epoch_format must be 'auto', 'string' or 'integer', not {value!r}")
    return str(value)


def validate_identifier(value: Any, name: str) -> str:
    """Return an id that can be one segment of a path or one value of a filter.

    An id with a slash, comma or percent sign is refused and not quoted, because servers and proxies differ in
    how they unquote a path.

    :raises ConfigurationError: the value is empty or is not an identifier.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is empty; no request was sent to Flow Service")
    if not is_identifier(value):
        raise ConfigurationError(f"{name} is not an identifier: {value[:200]!a}")
    return value


def is_identifier(value: Any) -> bool:
    """Return whether the value is an id that can be sent: up to 200 letters, digits and some punctuation."""
    return isinstance(value, str) and len(value) <= 200 and _IDENTIFIER.fullmatch(value) is not None


def path_segment(value: Any, name: str) -> str:
    """Return an identifier as one quoted segment of a path.

    :raises ConfigurationError: the value is empty or is not an identifier.
    """
    return quote(validate_identifier(value, name), safe="")
