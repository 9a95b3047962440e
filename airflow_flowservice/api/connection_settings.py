"""Settings of a client, parsed from an Airflow connection, with all errors of the connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.api import validation
from airflow_flowservice.api.auth import DEFAULT_SCOPES, IMS_PATH
from airflow_flowservice.api.client import DEFAULT_BASE_URL, DEFAULT_IMS_URL, DEFAULT_SANDBOX, FlowServiceClient
from airflow_flowservice.api.transport import ROOT
from airflow_flowservice.exceptions import ConfigurationError, OrganizationError

if TYPE_CHECKING:
    Values = dict[str, Any]

HOST, LOGIN, PASSWORD = "host", "login", "password"
"""Fields of a connection that have errors, beside the keys of its extra."""

EXTRA_FIELDS = ("org_id", "sandbox", "scopes", "ims_url", "access_token", "epoch_format", "timeout_s", "max_attempts")
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
        """The extra as JSON value."""


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """Settings of a client, and the errors of the connection.

    An invalid setting has its default or a placeholder, so that the valid settings can still be used.

    :param errors: why a setting is invalid, by the name of the field: `host` (with schema and port), `login`,
        `password` (client secret or access token), or a key of the extra.
    :param unknown_extras: keys of the extra that have no meaning, such as misspelled keys.
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
    epoch_format: str = "string"
    timeout_s: float = 30.0
    max_attempts: int = 5
    errors: Mapping[str, ConfigurationError] = field(default_factory=dict)
    unknown_extras: tuple[str, ...] = ()

    @classmethod
    def parse(cls, connection: AirflowConnection) -> ConnectionSettings:
        """Validate each setting separately, so that all errors are reported together; raise no error."""
        values: Values = {}
        errors: dict[str, ConfigurationError] = {}
        extra = extra_of(connection)
        for name, parse in _PARSERS.items():
            try:
                values.update(parse(connection, extra))
            except ConfigurationError as error:
                error.message = f"connection {connection.conn_id!r}: {error.message}"
                errors[name] = error
        return cls(
            conn_id=str(connection.conn_id),
            errors=errors,
            unknown_extras=tuple(sorted(str(key) for key in extra if key not in EXTRA_FIELDS)),
            **values,
        )

    @property
    def org_id_error(self) -> OrganizationError | None:
        """Error of an organization id that can be sent, but that is not the id of an Adobe organization."""
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


def extra_of(connection: AirflowConnection) -> Values:
    """Return the connection's extra; empty if it is not a JSON object."""
    extra = connection.extra_dejson
    return extra if isinstance(extra, dict) else {}


def _parse_host(connection: AirflowConnection, extra: Values) -> Values:
    """Return the platform's URL, from host, schema and port."""
    host = (connection.host or DEFAULT_BASE_URL).strip().rstrip("/")
    if "://" not in host:
        scheme = connection.schema if connection.schema in ("http", "https") else "https"
        host = f"{scheme}://{host}"
    has_port = ":" in host.rpartition("]")[2].partition("://")[2]
    url = f"{host}:{connection.port}" if connection.port and not has_port else host
    return {"base_url": validation.validate_base_url(url, "base_url", known_path=ROOT)}


def _parse_login(connection: AirflowConnection, extra: Values) -> Values:
    return {"client_id": validation.validate_client_id(connection.login or "")}


def _parse_password(connection: AirflowConnection, extra: Values) -> Values:
    """Return client secret and access token, of which exactly one is set."""
    access_token = _text(extra, "access_token")
    secret, token = validation.validate_credential(connection.password or None, access_token)
    return {"client_secret": secret, "access_token": token}


def _parse_org_id(connection: AirflowConnection, extra: Values) -> Values:
    return {"org_id": validation.validate_org_id(_text(extra, "org_id") or "")}


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
    "scopes": _optional_text("scopes", validation.validate_scopes),
    "ims_url": _optional_text("ims_url", _parse_ims_url),
    "epoch_format": _optional_text("epoch_format", validation.validate_epoch_format),
    "timeout_s": _parse_timeout,
    "max_attempts": _parse_max_attempts,
}


def _text(extra: Values, name: str) -> str | None:
    """Return a value of the extra as text without surrounding spaces; None if there is no value."""
    value = extra.get(name)
    return str(value).strip() if value else None


def _number(extra: Values, name: str, kind: type[int] | type[float]) -> int | float | None:
    """Return a value of the extra as number; None if there is no value."""
    value = extra.get(name)
    if value in (None, ""):
        return None
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"{name} is {value!r}, which is not a number", remedy=f"set {name} in the connection's extra to a number"
        ) from error
