"""The client's settings: each is checked before anything is sent, and the error names the bad one."""

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

EPOCH_FORMATS = ("string", "integer")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=@~+-]*")


def base_url(value: Any, name: str, *, known_path: str = "") -> str:
    """A host's address without a slash at the end; `https://` where no scheme is given.

    :param known_path: the service's own path, which users paste along with the host.
    :raises ConfigurationError: it is no address, holds a password, or is plain http elsewhere than on
        this machine, which would send the secret in the clear.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is empty or is not a string")
    text = value.strip()
    text = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{name} is not the address of a host") from None
    if "@" in parts.netloc:
        raise ConfigurationError(f"{name} holds a user name or password; leave them out")
    if not host or parts.query or parts.fragment or re.search(r"[\s\\%]", text) or ".." in parts.path:
        raise ConfigurationError(f"{name} is not the address of a host: {text!r}")
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"{name} must begin with https://, not {parts.scheme}://")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"{name} {text!r} would send the secret in the clear; use https://")
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/").removesuffix(known_path).rstrip("/")
    return f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{path}"


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, told without asking a name server."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def header_value(value: Any, name: str, *, remedy: str | None = None) -> str:
    """A value that is sent as a header: not empty, visible ASCII without spaces around.

    :raises ConfigurationError: it cannot be sent; the message never shows it.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is missing", remedy=remedy)
    if not value.isascii() or not value.isprintable() or value != value.strip():
        raise ConfigurationError(f"{name} has spaces around it, or characters that no header can carry")
    return value


def headers(*, client_id: Any, org_id: Any, sandbox: Any) -> dict[str, str]:
    """The headers that say who asks, in which organization and sandbox.

    :raises ConfigurationError: one of them is missing or cannot be sent.
    """
    return {
        "x-api-key": header_value(client_id, "client_id"),
        "x-gw-ims-org-id": header_value(org_id, "org_id", remedy=OrganizationError.default_remedy),
        "x-sandbox-name": header_value(sandbox, "sandbox"),
    }


def credential(client_secret: Any, access_token: Any) -> tuple[str | None, str | None]:
    """Exactly one of client secret and ready token.

    :raises ConfigurationError: there is none, or both.
    """
    if client_secret and access_token:
        raise ConfigurationError("client_secret and access_token are both set; leave one of them out")
    if access_token:
        if isinstance(access_token, str):
            access_token = re.sub(r"(?i)^bearer\s+", "", access_token.strip())
        return None, header_value(access_token, "access_token")
    if not isinstance(client_secret, str) or not client_secret.strip():
        raise ConfigurationError("neither client_secret nor access_token is set")
    return client_secret, None


def scopes(value: Any) -> str:
    """Scopes as IMS wants them, comma separated, from a string or a list.

    :raises ConfigurationError: there is none, or one is not a string.
    """
    parts: Iterable[Any] = re.split(r"[\s,]+", value) if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ConfigurationError("scopes must be a comma-separated string, or a list of strings")
    named = [part.strip() for part in parts if part.strip()]
    if not named:
        raise ConfigurationError("scopes is empty")
    return ",".join(named)


def seconds(value: Any, name: str) -> float:
    """A number of seconds above zero; a string that holds one will do, since connections hold strings.

    :raises ConfigurationError: it is something else.
    """
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not (math.isfinite(number) and number > 0):
        raise ConfigurationError(f"{name} must be a number of seconds above 0, not {value!r}")
    return number


def at_least_one(value: Any, name: str) -> int:
    """A whole number from 1 on; a string that holds one will do.

    :raises ConfigurationError: it is something else.
    """
    text = str(value).strip()
    if not (text.isascii() and text.isdigit() and int(text[:9]) >= 1):
        raise ConfigurationError(f"{name} must be a whole number from 1 on, not {value!r}")
    return int(text[:9])


def aware_datetime(value: Any, name: str) -> datetime:
    """Return an instant that can be sent.

    :raises ConfigurationError: it is not a datetime, has no timezone, or is before 1970.
    """
    if not isinstance(value, datetime):
        raise ConfigurationError(f"{name} must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise ConfigurationError(f"{name} {value.isoformat()} has no timezone", remedy="give an aware datetime")
    if value < EPOCH:
        raise ConfigurationError(f"{name} {value.isoformat()} is before 1970")
    return value


def epoch_format(value: Any) -> str:
    """`string` or `integer`.

    :raises ConfigurationError: it is something else.
    """
    if value not in EPOCH_FORMATS:
        raise ConfigurationError(f"epoch_format must be 'string' or 'integer', not {value!r}")
    return str(value)


def identifier(value: Any, name: str) -> str:
    """An id that can be part of a path or a filter and stays one part of it.

    Anything with a slash, a comma, a percent sign and the like is refused rather than quoted: servers
    and proxies differ in what they undo before they look at the path.

    :raises ConfigurationError: it is empty, or is no identifier.
    """
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} is empty; nothing was asked of Flow Service")
    if not _IDENTIFIER.fullmatch(value) or len(value) > 200:
        raise ConfigurationError(f"{name} is not an identifier: {value[:200]!r}")
    return value


def quoted(value: Any, name: str) -> str:
    """An identifier as one segment of a path."""
    return quote(identifier(value, name), safe="")
