# SPDX-License-Identifier: Apache-2.0
"""Settings of a client, parsed from an Airflow connection and its extra, with all errors of the connection.

The extra is a JSON object with known keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.api import validation
from airflow_flowservice.api.auth import DEFAULT_SCOPES, IMS_PATH
from airflow_flowservice.api.client import DEFAULT_BASE_URL, DEFAULT_IMS_URL, DEFAULT_SANDBOX, FlowServiceClient
from airflow_flowservice.api.redaction import redact_json
from airflow_flowservice.api.transport import ROOT
from airflow_flowservice.exceptions import ConfigurationError, OrganizationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Values = dict[str, Any]

HOST, LOGIN, PASSWORD, EXTRA = "host", "login", "password", "extra"
"""Fields of a connection that have errors, beside the keys of its extra."""

_PLACEHOLDER = "invalid"


class AirflowConnection(Protocol):
    """Fields of an Airflow connection that are parsed; `airflow.sdk.Connection` has them."""

    conn_id: Any
    host: Any
    schema: Any
    port: Any
    login: Any
    password: Any

    @property
    def extra_dejson(self) -> Any:
        """Return the extra as JSON value."""


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """Settings of a client, and the errors of the connection.

    An invalid setting has its default or a placeholder, so that the valid settings can still be used.

    :param ledger_conn_id: Airflow connection of the SQL ledger; not a setting of the client.
    :param errors: error of each invalid setting, by the name of the field: `host`, `login`, `password`, `extra` if it
        is no JSON object, or a key of the extra. Errors of schema and port belong to `host`.
        The error of an unknown key has the name of the setting that was probably meant if that has no value.
    :param secrets: password and access token as stored, also if they are invalid; to be masked in logs.
    """

    conn_id: str
    base_url: str = DEFAULT_BASE_URL
    client_id: str = _PLACEHOLDER
    client_secret: str | None = field(default=_PLACEHOLDER, repr=False)
    access_token: str | None = field(default=None, repr=False)
    org_id: str = f"{_PLACEHOLDER}@AdobeOrg"
    sandbox: str = DEFAULT_SANDBOX
    scopes: str = DEFAULT_SCOPES
    ims_url: str = DEFAULT_IMS_URL
    epoch_format: str = "auto"
    timeout_s: float = 30.0
    max_attempts: int = 5
    ledger_conn_id: str | None = None
    errors: Mapping[str, ConfigurationError] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, connection: AirflowConnection) -> ConnectionSettings:
        """Validate each setting separately, so that all errors are reported together; raise no error."""
        values: Values = {}
        errors: dict[str, ConfigurationError] = {}
        parsers, extra = _PARSERS, {}
        try:
            extra = parse_extra(connection)
        except ConfigurationError as error:
            errors[EXTRA] = error
            parsers = {name: _PARSERS[name] for name in (HOST, LOGIN)}
        for name, parse in parsers.items():
            try:
                values.update(parse(connection, extra))
            except ConfigurationError as error:
                errors[name] = error
        stored = (connection.password, extra.get("access_token"))
        secrets = tuple(str(secret) for secret in stored if secret)
        errors.update(_errors_of_unknown_keys(connection, extra, secrets=secrets))
        for each in errors.values():
            each.message = f"connection {connection.conn_id!r}: {each.message}"
        return cls(conn_id=str(connection.conn_id), errors=errors, secrets=secrets, **values)

    @property
    def org_id_error(self) -> OrganizationError | None:
        """Return the error of an organization id that can be sent, but is not the id of an Adobe organization."""
        if "org_id" in self.errors or self.org_id.endswith("@AdobeOrg"):
            return None
        return OrganizationError(f"connection {self.conn_id!r}: org_id is {self.org_id!r}")

    def raise_errors(self) -> None:
        """Return if all settings are valid.

        :raises ConfigurationError: one with the messages and remedies of all errors.
        """
        errors = list(self.errors.values())
        if len(errors) == 1:
            raise errors[0]
        if errors:
            prefix = f"connection {self.conn_id!r}: "
            messages = "; ".join(error.message.removeprefix(prefix) for error in errors)
            remedies = dict.fromkeys(error.remedy for error in errors if error.remedy)
            raise ConfigurationError(f"{prefix}{messages}", remedy="; ".join(remedies))

    def create_client(self, **options: Any) -> FlowServiceClient:
        """Return a client with these settings, including the replacements of invalid settings.

        :param options: parameters of `FlowServiceClient`, which take precedence over these settings.
        """
        settings: Values = {
            "base_url": self.base_url,
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "access_token": self.access_token,
            "org_id": self.org_id,
            "sandbox": self.sandbox,
            "scopes": self.scopes,
            "ims_url": self.ims_url,
            "epoch_format": self.epoch_format,
            "timeout_s": self.timeout_s,
            "max_attempts": self.max_attempts,
        }
        return FlowServiceClient(**{**settings, **options})


def _errors_of_unknown_keys(
    connection: AirflowConnection, extra: Values, *, secrets: tuple[str, ...]
) -> dict[str, ConfigurationError]:
    """Return the errors of unknown keys; one that replaces a setting without value has the name of the setting."""
    errors: dict[str, ConfigurationError] = {}
    for unknown in unknown_keys(extra, secrets=secrets):
        name = unknown.nearest
        if name is not None and name not in errors and is_empty(_value_of(connection, extra, name)):
            errors[name] = unknown.error
        else:
            errors[unknown.name] = unknown.error
    return errors


def _field(connection: AirflowConnection, name: str) -> str:
    """Return a field of the connection; empty text if it has no value.

    :raises ConfigurationError: the value is not text, which a secrets backend can return.
    """
    value = getattr(connection, name)
    if value is None or isinstance(value, str):
        return value or ""
    raise ConfigurationError(
        f"{name} must be text, not a value of type {type(value).__name__}",
        remedy=f"store {name} of the connection as text; in JSON, write it in quotation marks",
    )


def _value_of(connection: AirflowConnection, extra: Values, name: str) -> Any:
    return extra.get(name) if name in EXTRA_FIELDS else getattr(connection, name)


def _parse_host(connection: AirflowConnection, extra: Values) -> Values:
    """Return the platform's URL, from host, schema and port."""
    _require_scheme_as_schema(connection)
    host = _field(connection, HOST).strip() or DEFAULT_BASE_URL
    if "://" not in host and not host.lower().startswith(("http:", "https:")):
        scheme = "http" if _field(connection, "schema").strip().lower() == "http" else "https"
        host = f"{scheme}://{host}"
    scheme, separator, address = host.partition("://")
    name, slash, path = address.partition("/")
    if connection.port and name and ":" not in name.rpartition("]")[2]:
        name = f"{name}:{connection.port}"
    url = f"{scheme}{separator}{name}{slash}{path}"
    return {"base_url": validation.validate_base_url(url, "base_url", known_path=ROOT)}


def _require_scheme_as_schema(connection: AirflowConnection) -> None:
    """Return if the schema is empty, `http`, `https` or a path of Flow Service.

    :raises ConfigurationError: the schema has another value, which would be ignored.
    """
    schema = _field(connection, "schema").strip()
    if schema.lower() not in ("", "http", "https") and validation.remove_known_path(f"/{schema}", ROOT):
        raise ConfigurationError(
            f"schema is {schema[:60]!r}, but can only be http or https",
            remedy=(
                "clear the connection's schema (in a URI: the path after the host); the sandbox and all other "
                "settings are keys of its extra"
            ),
        )


def _parse_login(connection: AirflowConnection, extra: Values) -> Values:
    return {"client_id": validation.validate_client_id(_field(connection, LOGIN).strip())}


def _parse_password(connection: AirflowConnection, extra: Values) -> Values:
    """Return client secret and access token, of which exactly one is set."""
    access_token = _text(extra, "access_token")
    secret, token = validation.validate_credential(_field(connection, PASSWORD) or None, access_token)
    return {"client_secret": secret, "access_token": token}


def _parse_org_id(connection: AirflowConnection, extra: Values) -> Values:
    return {"org_id": validation.validate_org_id(_text(extra, "org_id") or "")}


def _parse_scopes(connection: AirflowConnection, extra: Values) -> Values:
    """Return the scopes, from text or a list, or from a list as JSON text."""
    scopes = extra.get("scopes")
    if is_empty(scopes):
        return {}
    if isinstance(scopes, str) and scopes.lstrip().startswith("["):
        try:
            scopes = json.loads(scopes)
        except ValueError:
            raise ConfigurationError("scopes begins with '[', but is not a JSON array") from None
    return {"scopes": validation.validate_scopes(scopes)}


def _parse_ims_url(ims_url: Any) -> str:
    return validation.validate_base_url(ims_url, "ims_url", known_path=IMS_PATH)


def _parse_timeout(connection: AirflowConnection, extra: Values) -> Values:
    value = _number(extra, "timeout_s", float)
    return {} if value is None else {"timeout_s": validation.validate_seconds(value, "timeout_s")}


def _parse_max_attempts(connection: AirflowConnection, extra: Values) -> Values:
    value = _number(extra, "max_attempts", int)
    return {} if value is None else {"max_attempts": validation.validate_positive_integer(value, "max_attempts")}


def _optional_text(name: str, validate: Callable[[Any], Any]) -> Callable[[AirflowConnection, Values], Values]:
    """Return a parser of a text in the extra that has a default; without a value, it returns no setting."""

    def parse(connection: AirflowConnection, extra: Values) -> Values:
        value = _text(extra, name)
        return {} if value is None else {name: validate(value)}

    return parse


_PARSERS: dict[str, Callable[[AirflowConnection, Values], Values]] = {
    HOST: _parse_host,
    LOGIN: _parse_login,
    PASSWORD: _parse_password,
    "org_id": _parse_org_id,
    "sandbox": _optional_text("sandbox", validation.validate_sandbox),
    "scopes": _parse_scopes,
    "ims_url": _optional_text("ims_url", _parse_ims_url),
    "epoch_format": _optional_text("epoch_format", validation.validate_epoch_format),
    "timeout_s": _parse_timeout,
    "max_attempts": _parse_max_attempts,
    "ledger_conn_id": _optional_text("ledger_conn_id", str),
}


def _text(extra: Values, name: str) -> str | None:
    """Return a value of the extra as text without surrounding spaces; None if there is no value.

    :raises ConfigurationError: the value is neither text nor a whole number, to which Airflow converts texts of a URI.
    """
    value = extra.get(name)
    if is_empty(value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigurationError(
            f"{name} must be text, not a JSON {json_type(value)}",
            remedy=f"set {name} in the connection's extra to a JSON string",
        )
    return str(value).strip()


def _number(extra: Values, name: str, kind: type[int] | type[float]) -> int | float | None:
    """Return a value of the extra as number; None if there is no value."""
    value: Any = extra.get(name)
    if value is None or value == "":
        return None
    try:
        if isinstance(value, bool) or (kind is int and value != kind(value) and not isinstance(value, str)):
            raise TypeError
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name} is {value!r}, which is not a number{' of attempts' if kind is int else ''}",
            remedy=f"set {name} in the connection's extra to a {'whole ' if kind is int else ''}number",
        ) from error


# --- extra ---

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
