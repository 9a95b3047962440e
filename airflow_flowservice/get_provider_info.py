# SPDX-License-Identifier: Apache-2.0
"""Metadata for Airflow's provider discovery; imports nothing.

Keys: Airflow's `provider_info.schema.json`; `conn-fields`, `ui-field-behaviour` and `cli` since Airflow 3.2.
"""

from __future__ import annotations

from typing import Any

_NAME = "Adobe Flow Service"
_TEXT = {"type": ["string", "null"]}

CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "org_id": {
        "label": "Organization ID",
        "description": "IMS organization of the credential, such as 1234567890ABCDEF@AdobeOrg.",
        "schema": {"type": "string", "minLength": 1},
    },
    "sandbox": {
        "label": "Sandbox name",
        "description": "The sandbox's name, not its title. Default: prod.",
        "schema": {**_TEXT, "default": "prod"},
    },
    "scopes": {
        "label": "Scopes",
        "description": "OAuth scopes, separated by commas. Leave empty for the scopes that Flow Service needs.",
        "schema": _TEXT,
    },
    "ims_url": {
        "label": "IMS URL",
        "description": "URL of the identity service that issues tokens. Default: https://ims-na1.adobelogin.com.",
        "schema": {**_TEXT, "default": "https://ims-na1.adobelogin.com"},
    },
    "access_token": {
        "label": "Access token",
        "description": "A ready token, used instead of the client secret. It is not renewed.",
        "schema": {**_TEXT, "format": "password"},
    },
    "epoch_format": {
        "label": "Epoch format",
        "description": "Type of times in requests: auto (finds the accepted one), string or integer. Default: auto.",
        "schema": {**_TEXT, "enum": ["auto", "string", "integer", None], "default": "auto"},
    },
    "timeout_s": {
        "label": "Read timeout (seconds)",
        "description": "Maximum time to wait for a response. Default: 30.",
        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600},
    },
    "max_attempts": {
        "label": "Attempts per request",
        "description": "Maximum number of attempts of a request that may be repeated. Default: 5.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 20},
    },
    "ledger_conn_id": {
        "label": "Ledger connection ID",
        "description": "Connection (postgres, mysql or sqlite) of the ledger of ingested windows. Default: Airflow.",
        "schema": _TEXT,
    },
}

OPTIONS: dict[str, Any] = {
    "flowservice": {
        "description": "Options of the provider for Adobe Flow Service.",
        "options": {
            "ledger_conn_id": {
                "description": (
                    "Connection (postgres, mysql or sqlite) of the database with the ledger of ingested windows. "
                    "`ledger_conn_id` in the extra of a Flow Service connection takes precedence."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "flowservice_ledger",
                "default": None,
            },
            "ledger": {
                "description": (
                    "Place of the ledger of ingested windows, if `ledger_conn_id` is not set: `airflow` for Airflow's "
                    "Variables, or `none` for no ledger."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "none",
                "default": "airflow",
            },
            "intent_store": {
                "description": (
                    "Place of the values that the attempts of a task share before Airflow 3.3, which has a place for "
                    "them: `variable` for an Airflow Variable, or `none`. Default: `variable` before Airflow 3.3."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "none",
                "default": None,
            },
            "token_cache": {
                "description": (
                    "Share of tokens and of checked dataflows among the processes of a machine, in owner-only files: "
                    "`encrypted` with `[core] fernet_key`, and without this key no tokens; `owner_only` to store "
                    "tokens in clear text if there is no such key; or `none`."
                ),
                "version_added": "0.1.0",
                "type": "string",
                "example": "none",
                "default": "encrypted",
            },
        },
    }
}

FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["port", "schema", "extra"],
    "relabeling": {"login": "Client ID", "password": "Client secret", "host": "Platform URL"},
    "placeholders": {
        "host": "https://platform.adobe.io",
        "login": "Client ID (API key) of an OAuth server-to-server credential",
        "password": "Client secret of the same credential",
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's parts, by the schema of Airflow's discovery."""
    name = _NAME
    return {
        "package-name": "airflow-flowservice",
        "name": name,
        "description": "On-demand ingestion in Adobe Experience Platform: every window of a DAG once.",
        "integrations": [_integration(name)],
        "operators": _modules("operators"),
        "sensors": _modules("sensors", "freshness"),
        "hooks": _modules("hooks"),
        "triggers": _modules("triggers", "freshness_trigger"),
        "connection-types": [
            {
                "hook-class-name": "airflow_flowservice.hooks.FlowServiceHook",
                "hook-name": name,
                "connection-type": "flowservice",
                "conn-fields": CONNECTION_FIELDS,
                "ui-field-behaviour": FIELD_BEHAVIOUR,
            }
        ],
        "extra-links": ["airflow_flowservice.links.FlowRunLink", "airflow_flowservice.links.DataflowLink"],
        "asset-uris": [
            {
                "schemes": ["aep"],
                "handler": "airflow_flowservice.assets.sanitize_uri",
                "factory": "airflow_flowservice.assets.flow_asset",
                "to_openlineage_converter": "airflow_flowservice.assets.convert_asset_to_openlineage",
            }
        ],
        "config": OPTIONS,
        "cli": ["airflow_flowservice.cli.get_flowservice_cli_commands"],
    }


def _integration(name: str) -> dict[str, Any]:
    return {
        "integration-name": name,
        "external-doc-url": "https://developer.adobe.com/experience-platform-apis/references/flow-service/",
        "logo": "/flowservice/static/icon.svg",
        "how-to-guide": ["/docs/operators.md", "/docs/how-to/daily-table.md", "/docs/how-to/hourly-files.md"],
        "tags": ["service"],
    }


def _modules(*names: str) -> list[dict[str, Any]]:
    """Return the modules of one kind of classes."""
    modules = [f"airflow_flowservice.{name}" for name in names]
    return [{"integration-name": _NAME, "python-modules": modules}]
