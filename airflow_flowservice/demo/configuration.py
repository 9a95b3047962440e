"""The environment variables that make a small, quick Airflow which only this machine can reach."""

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

# Short intervals and no listeners, so that a handful of small tasks ends fast on two cores.
_QUICK = {
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
    # A listener would keep tasks from ending in the triggerer.
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
    """The whole environment of Airflow's processes; nothing of the caller's ``AIRFLOW*`` reaches them.

    :param home: becomes ``AIRFLOW_HOME``; all that Airflow writes goes there.
    :param port: of the API server, on 127.0.0.1.
    :param connections: by connection id: ``conn_type``, ``host``, ``login``, ``password``, ``extra``, ...
    :param overrides: ``AIRFLOW__SECTION__KEY`` to value; the last word.
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
    given = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in connections.items()}
    return {
        **inherited_environment(),
        **_QUICK,
        **{key: str(path) for key, path in folders.items()},
        **_server(port=port, database_url=database_url),
        **_access(home=home, login=login),
        **given,
        **overrides,
    }


def _server(*, port: int, database_url: str) -> dict[str, str]:
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


def _access(*, home: Path, login: Login) -> dict[str, str]:
    """Generated keys, and one user whose password stands in a file that only the caller can read."""
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
