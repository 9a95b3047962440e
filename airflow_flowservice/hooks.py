"""An Airflow connection becomes auth headers and a client of Flow Service."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import connections
from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice._airflow.versions import BaseHook
from airflow_flowservice.exceptions import ConfigurationError, FlowServiceError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_flowservice.api.client import FlowServiceClient

_DEFAULT_HOST = "https://platform.adobe.io"
_TEXT_EXTRAS = ("org_id", "sandbox", "scopes", "ims_url", "access_token", "epoch_format")
_NUMBER_EXTRAS = {"timeout_s": float, "max_attempts": int}


class FlowServiceHook(BaseHook):
    """Talks to Flow Service with an Airflow connection of type `flowservice`.

    :param flowservice_conn_id: login is the client id, password the client secret, host the platform's URL
        (default https://platform.adobe.io); extra: `org_id`, `sandbox`, `scopes`, `ims_url`,
        `access_token`, `epoch_format`, `timeout_s` (seconds), `max_attempts`.

    Headers as in https://experienceleague.adobe.com/docs/experience-platform/landing/platform-apis/api-guide.html
    """

    conn_name_attr = "flowservice_conn_id"
    default_conn_name = "flowservice_default"
    conn_type = "flowservice"
    hook_name = "Adobe Flow Service"

    def __init__(self, flowservice_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.flowservice_conn_id = flowservice_conn_id

    @cached_property
    def client(self) -> FlowServiceClient:
        """The client, made once. Looks the connection up, so not for the triggerer's event loop.

        :raises ConfigurationError: no such connection, or one of its values cannot be.
        """
        return client_of(connections.get_connection(self.flowservice_conn_id))

    def get_conn(self) -> FlowServiceClient:
        """The client; the name that Airflow's hooks share."""
        return self.client

    def get_auth_headers(self) -> dict[str, str]:
        """The headers of a call to Adobe Experience Platform: Authorization, x-api-key, organization, sandbox.

        The token is fetched when there is none that is still good, and masked in Airflow's logs.

        :raises AuthenticationError: IMS refused the client id or secret.
        """
        return self.client.auth_headers()

    def run_url(self, *, flow_id: str | None, flow_run_id: str | None = None) -> str:
        """The page of a flow run, or of a dataflow's runs, in Experience Platform."""
        return self.pages.flow_run(flow_id, flow_run_id)

    @property
    def pages(self) -> ExperiencePages:
        """Return the pages of the connection's sandbox in Experience Platform."""
        return ExperiencePages(organization=self.client.org_id, sandbox=self.client.sandbox)

    def test_connection(self) -> tuple[bool, str]:
        """Get a token, then list a dataflow: tells a wrong secret from a wrong organization, sandbox or permission."""
        from airflow_flowservice.checks.checkup import of_credential

        try:
            client = self.client
        except FlowServiceError as error:
            return False, str(error)
        findings = list(of_credential(client))
        if fault := next((finding for finding in findings if finding.wrong), None):
            return False, str(fault)
        found = f"organization {client.org_id}, sandbox {client.sandbox}; {findings[-1].message}."
        return True, f"Connected to {client.base_url}, {found}"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form before Airflow 3.2; later ones read `get_provider_info`."""
        from airflow_flowservice.get_provider_info import FIELD_BEHAVIOUR

        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form's own fields before Airflow 3.2; later ones read `get_provider_info`."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        from airflow_flowservice.get_provider_info import CONNECTION_FIELDS

        def field(spec: dict[str, Any]) -> Any:
            if spec["schema"].get("format") == "password":
                return PasswordField(spec["label"], widget=BS3PasswordFieldWidget())
            return StringField(spec["label"], widget=BS3TextFieldWidget(), description=spec["description"])

        return {name: field(spec) for name, spec in CONNECTION_FIELDS.items()}


def client_of(connection: Connection, **options: Any) -> FlowServiceClient:
    """A client with a connection's values, which are checked here: Airflow's form and REST API do not.

    :param options: of `FlowServiceClient`, instead of the connection's.
    :raises ConfigurationError: a value is missing or cannot be; the message names the connection and the field.
    """
    from airflow_flowservice.api.client import FlowServiceClient

    for secret in (connection.password, _extra(connection).get("access_token")):
        if secret:
            connections.mask(str(secret))
    try:
        return FlowServiceClient(
            base_url=_base_url(connection),
            client_id=connection.login or "",
            client_secret=connection.password or None,
            on_token=connections.mask,
            **{**_client_options(_extra(connection)), **options},
        )
    except ConfigurationError as error:
        error.message = f"connection {connection.conn_id!r}: {error.message}"
        raise


def _extra(connection: Connection) -> dict[str, Any]:
    extra = connection.extra_dejson
    return extra if isinstance(extra, dict) else {}


def _base_url(connection: Connection) -> str:
    host = (connection.host or _DEFAULT_HOST).strip().rstrip("/")
    if "://" not in host:
        scheme = connection.schema if connection.schema in ("http", "https") else "https"
        host = f"{scheme}://{host}"
    has_port = ":" in host.rpartition("]")[2].partition("://")[2]
    return f"{host}:{connection.port}" if connection.port and not has_port else host


def _client_options(extra: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {name: str(value).strip() for name in _TEXT_EXTRAS if (value := extra.get(name))}
    options.setdefault("org_id", "")
    for name, kind in _NUMBER_EXTRAS.items():
        if (value := extra.get(name)) in (None, ""):
            continue
        try:
            options[name] = kind(value)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{name} is {value!r}, which is not a number",
                remedy=f"set {name} in the connection's extra to a number",
            ) from error
    return options
