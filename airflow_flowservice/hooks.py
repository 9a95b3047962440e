# SPDX-License-Identifier: Apache-2.0
"""Hook that creates a Flow Service client and auth headers from an Airflow connection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_flowservice._airflow import cache_settings, connections
from airflow_flowservice._airflow.pages import ExperiencePages
from airflow_flowservice._airflow.versions import BaseHook
from airflow_flowservice.exceptions import FlowServiceError
from airflow_flowservice.plain_text import canonical_id

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_flowservice.api.client import FlowServiceClient
    from airflow_flowservice.api.shared_cache import SharedCache
    from airflow_flowservice.coverage.lag import Lag, LagLimit
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.runs.flow_check import FlowCheck


class FlowServiceHook(BaseHook):
    """Hook for Flow Service, with an Airflow connection of type `flowservice`.

    :param flowservice_conn_id: login is the client id, password the client secret, host the platform's URL
        (default https://platform.adobe.io); extra: `org_id`, `sandbox`, `scopes`, `ims_url`,
        `access_token`, `epoch_format`, `timeout_s` (seconds), `max_attempts`, `ledger_conn_id`.

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
        """Return the client. The first use reads the connection, so do not use it in the triggerer's event loop.

        :raises ConfigurationError: the connection does not exist, or a setting is invalid.
        """
        return client_of(self._connection, is_masked=True, shared_cache=self._shared_cache)

    @cached_property
    def _shared_cache(self) -> SharedCache | None:
        return cache_settings.shared_cache()

    @property
    def flow_check(self) -> FlowCheck | None:
        """Return the checks that the processes of this machine share; None if `[flowservice] token_cache` is off."""
        from airflow_flowservice.runs.flow_check import FlowCheck

        if self._shared_cache is None:
            return None
        client = self.client
        return FlowCheck(
            cache=self._shared_cache, scope=(client.base_url, client.org_id, client.sandbox, client.client_id)
        )

    @cached_property
    def _connection(self) -> Connection:
        return connections.get_connection(self.flowservice_conn_id)

    @classmethod
    async def connected(cls, conn_id: str) -> FlowServiceHook:
        """Return a hook that has looked its connection up, without blocking the event loop."""
        hook = cls(conn_id)
        hook._connection = await connections.get_connection_async(conn_id)
        return hook

    def get_conn(self) -> FlowServiceClient:
        """Return the client; Airflow's hooks share this method."""
        return self.client

    def get_auth_headers(self) -> dict[str, str]:
        """Return the headers of a call to Adobe Experience Platform: Authorization, x-api-key, organization, sandbox.

        A token is fetched if there is no valid one, and masked in Airflow's logs.

        :raises AuthenticationError: IMS rejects the client id or secret.
        """
        return self.client.auth_headers()

    def run_url(self, *, flow_id: str | None, flow_run_id: str | None = None) -> str:
        """Return the URL of a flow run, or of a dataflow's runs, in Experience Platform."""
        return self.pages.flow_run(flow_id, flow_run_id)

    @property
    def pages(self) -> ExperiencePages:
        """Return the pages of the connection's sandbox in Experience Platform."""
        return ExperiencePages(organization=self.client.org_id, sandbox=self.client.sandbox)

    @cached_property
    def ledger(self) -> Ledger | None:
        """Return the ledger that the connection or Airflow's configuration names; None if it is disabled."""
        from airflow_flowservice._airflow.ledgers import ledger_of
        from airflow_flowservice.api.connection_settings import parse_extra

        # Not by `extra_dejson`, which sends the whole extra to Airflow's supervisor again.
        return ledger_of(parse_extra(self._connection))

    def dataflow_key(self, flow_id: str) -> DataflowKey:
        """Return the key of a dataflow in the ledger: organization, sandbox and dataflow id."""
        from airflow_flowservice.ledger.entry import DataflowKey

        return DataflowKey(self.client.org_id, self.client.sandbox, canonical_id(flow_id))

    def flow_id_of(self, flow_name: str) -> str:
        """Return the id of the dataflow with this name in the connection's sandbox. Found ids are used for 5 minutes.

        :raises FlowNameError: no dataflow, or several dataflows have the name.
        """
        from functools import partial

        from airflow_flowservice.runs.flow_names import FlowNames

        client = self.client
        scope = (client.base_url, client.org_id, client.sandbox, client.client_id)
        list_flows = partial(client.list_flows, limit=100)
        names = FlowNames(scope=scope, list_flows=list_flows, cache=self._shared_cache, sandbox=client.sandbox)
        return names.find(flow_name)

    def lag_of(self, flow_id: str, *, limit: LagLimit) -> Lag:
        """Return the lag of a dataflow, and emit it as a metric. Blocks.

        A ledger in Airflow's Variables is read only on Airflow 3.3 and later, because earlier ones cannot list them.

        :raises FlowServiceError: neither ledger nor Flow Service shows whether the dataflow is late.
        """
        from airflow_flowservice._airflow import metrics
        from airflow_flowservice._airflow.ledgers import listed
        from airflow_flowservice._airflow.versions import utc_now
        from airflow_flowservice.coverage.lag import read_lag

        key = self.dataflow_key(flow_id)
        lag = read_lag(key, limit=limit, now=utc_now(), ledger=listed(self.ledger), list_runs=self.client.list_runs)
        if lag.length is not None:
            metrics.dataflow_gauge("lag_seconds", int(lag.length.total_seconds()), key=key)
        return lag

    def test_connection(self) -> tuple[bool, str]:
        """Fetch a token and list a dataflow; return success, and a message that names what is wrong."""
        from airflow_flowservice.checks.checkup import of_credential

        try:
            # A token of this or another process would hide that the secret is no longer valid.
            client = client_of(self._connection, is_masked=True, shared_cache=None, reuses_tokens=False)
        except FlowServiceError as error:
            return False, str(error)
        findings = list(of_credential(client))
        if problem := next((finding for finding in findings if finding.wrong), None):
            return False, str(problem)
        details = f"organization {client.org_id}, sandbox {client.sandbox}; {findings[-1].message}."
        return True, f"Connected to {client.base_url}, {details}"

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form's behaviour for Airflow before 3.2; later versions read `get_provider_info`."""
        from airflow_flowservice.get_provider_info import FIELD_BEHAVIOUR

        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form's own fields for Airflow before 3.2; later versions read `get_provider_info`."""
        from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
        from wtforms import PasswordField, StringField

        from airflow_flowservice.get_provider_info import CONNECTION_FIELDS

        def field(spec: dict[str, Any]) -> Any:
            if spec["schema"].get("format") == "password":
                return PasswordField(spec["label"], widget=BS3PasswordFieldWidget())
            return StringField(spec["label"], widget=BS3TextFieldWidget(), description=spec["description"])

        return {name: field(spec) for name, spec in CONNECTION_FIELDS.items()}


def client_of(connection: Connection, *, is_masked: bool = False, **options: Any) -> FlowServiceClient:
    """Return a client with the settings of a connection, which Airflow's form and REST API do not validate.

    :param is_masked: Airflow has looked the connection up, and has masked the password as it is stored.
    :param options: parameters of `FlowServiceClient`, which take precedence over the connection's.
    :raises ConfigurationError: a setting is missing or invalid; the message names the connection and the field.
    """
    settings = connections.parse_connection(connection, is_masked=is_masked)
    settings.raise_errors()
    if "shared_cache" not in options:
        options["shared_cache"] = cache_settings.shared_cache()
    return settings.create_client(**{"on_token": connections.mask, **options})
