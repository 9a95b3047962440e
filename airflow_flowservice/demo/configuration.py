# SPDX-License-Identifier: Apache-2.0
"""Environment variables of a small local Airflow that only this machine can access."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_flowservice.demo.processes import inherited_environment

_SIMPLE_AUTH = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"

# Short intervals and no listeners, so that small tasks end quickly on two cores.
_FAST_SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    # A worker often sees the end of its task's process only after this interval; the default is five seconds.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    # New and changed files are parsed immediately, so parsing all of them repeatedly only uses processor time.
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    # A listener prevents tasks from ending in the triggerer.
    "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
}


@dataclass(frozen=True)
class Login:
    """A user of Airflow's UI and REST API."""

    username: str = "admin"
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)


def environment(
    *,
    home: Path,
    dags_folder: Path,
    database_url: str,
    port: int,
    login: Login,
    connections: Mapping[str, Mapping[str, Any]],
    overrides: Mapping[str, str],
) -> dict[str, str]:
    """Return the complete environment of Airflow's processes, without the caller's ``AIRFLOW*`` variables.

    :param home: folder for ``AIRFLOW_HOME``, which contains all files that Airflow writes.
    :param port: port of the API server on 127.0.0.1.
    :param connections: fields of each connection, by connection id: ``conn_type``, ``host``, ``login``,
        ``password``, ``extra``, ...
    :param overrides: values by ``AIRFLOW__SECTION__KEY``. They replace all other values.
    """
    folders = {
        "AIRFLOW_HOME": home,
        "AIRFLOW_CONFIG": home / "airflow.cfg",
        "AIRFLOW__CORE__DAGS_FOLDER": dags_folder,
        "AIRFLOW__CORE__PLUGINS_FOLDER": home / "plugins",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": home / "logs" / "tasks",
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": home / "logs" / "dags",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": home / "bundles",
    }
    connection_variables = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
    return {
        **inherited_environment(),
        **_FAST_SETTINGS,
        **{key: str(path) for key, path in folders.items()},
        **_server_settings(port=port, database_url=database_url),
        **_access_settings(home=home, login=login),
        **connection_variables,
        **overrides,
    }


def _server_settings(*, port: int, database_url: str) -> dict[str, str]:
    address = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
    }


def _access_settings(*, home: Path, login: Login) -> dict[str, str]:
    """Return generated keys and one user. The password file is readable only by the caller."""
    passwords = home / "passwords.json"
    passwords.touch(mode=0o600)
    passwords.write_text(json.dumps({login.username: login.password}))
    return {
        "AIRFLOW__CORE__AUTH_MANAGER": _SIMPLE_AUTH,
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{login.username}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
    }
