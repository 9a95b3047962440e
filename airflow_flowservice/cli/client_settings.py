"""Which of a connection's settings cannot be: each is tried by itself, so that all of them are told at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError, OrganizationError
from airflow_flowservice.get_provider_info import CONNECTION_FIELDS
from airflow_flowservice.hooks import client_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

ADDRESS, CREDENTIAL = "host", "password"
# What is not among these has a default that serves as well.
FOR_TOKENS = frozenset({"login", CREDENTIAL, "ims_url", "scopes"})
FOR_THE_PLATFORM = FOR_TOKENS | {ADDRESS, "org_id", "sandbox"}

_ATTRIBUTES = {ADDRESS: ("host", "schema", "port"), "login": ("login",), CREDENTIAL: ("password",)}
_EXTRAS = {CREDENTIAL: ("access_token",)}
_GOOD = {"login": "client", "password": "no secret", "host": None, "schema": None, "port": None}
_GOOD_EXTRA = {"org_id": "any@AdobeOrg"}


def errors_of(connection: Any) -> dict[str, FlowServiceError]:
    """Why settings cannot be, by the name of the field; empty if all can."""
    names = [*_ATTRIBUTES, *(name for name in CONNECTION_FIELDS if name != "access_token")]
    found: dict[str, FlowServiceError] = {}
    for name in names:
        try:
            client_of(_with_only(connection, name))
        except ConfigurationError as error:
            found[name] = error
    org_id = str(extra_of(connection).get("org_id") or "")
    if "org_id" not in found and not org_id.strip().endswith("@AdobeOrg"):
        found["org_id"] = OrganizationError(f"connection {connection.conn_id!r}: org_id is {org_id!r}")
    return found


def without(connection: Any, names: Collection[str], **extra: Any) -> Any:
    """The connection with something that works in place of these settings.

    :param extra: keys of the connection's extra to set.
    """
    mixed = _mixed(connection, lambda name: name not in names)
    mixed.extra_dejson.update(extra)
    return mixed


def unknown_extras(connection: Any) -> list[str]:
    """Keys of the connection's extra that nobody reads, such as misspelled ones."""
    return sorted(str(key) for key in extra_of(connection) if key not in CONNECTION_FIELDS)


def extra_of(connection: Any) -> dict[str, Any]:
    """The connection's extra; empty if it is no JSON object."""
    extra = connection.extra_dejson
    return extra if isinstance(extra, dict) else {}


def _with_only(connection: Any, name: str) -> Any:
    return _mixed(connection, lambda each: each == name)


def _mixed(connection: Any, taken: Callable[[str], bool]) -> Any:
    values: dict[str, Any] = dict(_GOOD)
    extra: dict[str, Any] = dict(_GOOD_EXTRA)
    for name, attributes in _ATTRIBUTES.items():
        if taken(name):
            values.update({attribute: getattr(connection, attribute) for attribute in attributes})
    own = extra_of(connection)
    for key in CONNECTION_FIELDS:
        name = next((owner for owner, keys in _EXTRAS.items() if key in keys), key)
        if taken(name):
            extra[key] = own.get(key)
    return SimpleNamespace(conn_id=connection.conn_id, extra_dejson=extra, **values)
