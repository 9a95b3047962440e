# SPDX-License-Identifier: Apache-2.0
"""Client for the parts of Airflow's REST API that the demo and the end-to-end tests use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

from airflow_flowservice.demo.configuration import Login
from airflow_flowservice.demo.processes import LocalAirflowError

_TIMEOUT_S = (5, 60)
_PAGE = 100
# Fields of a log entry that the text shows separately or that are the same in every entry.
_SEPARATE_FIELDS = frozenset({"level", "event", "timestamp", "logger", "filename", "lineno"})
_CONSTANT_FIELDS = frozenset({"dag_id", "run_id", "task_id", "ti_id", "map_index", "try_number"})


class AirflowRest:
    """Client of ``/api/v2``. It logs in automatically and ignores proxy settings.

    :param address: URL of the API server, without a trailing slash.
    :param login: user and password.
    """

    def __init__(self, *, address: str, login: Login) -> None:
        self._address = address
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def token(self) -> str:
        """Return an access token of the user. A browser can send it as the cookie ``_token``."""
        if "Authorization" not in self._session.headers:
            response = self._session.post(
                f"{self._address}/auth/token",
                json={"username": self._login.username, "password": self._login.password},
                timeout=_TIMEOUT_S,
            )
            response.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        return str(self._session.headers["Authorization"]).removeprefix("Bearer ")

    def call(
        self, method: str, path: str, *, body: Any = None, params: Mapping[str, Any] | None = None
    ) -> requests.Response:
        """Send a request and return the response, with any status.

        :param path: path below ``/api/v2``, with a leading slash.
        :raises requests.ConnectionError: the API server cannot be reached.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        url = f"{self._address}/api/v2{path}"
        return self._session.request(method, url, json=body, params=params, headers=headers, timeout=_TIMEOUT_S)

    def json(self, method: str, path: str, *, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON of the response.

        :raises LocalAirflowError: the response has an error status. The message contains its body.
        """
        response = self.call(method, path, body=body, params=params)
        if not response.ok:
            raise LocalAirflowError(f"{method} {response.url} returned status {response.status_code}: {response.text}")
        return response.json() if response.content else None

    def health(self) -> dict[str, str | None]:
        """Return the status of each component, by name. If the API server does not respond, return {}."""
        try:
            response = self._session.get(f"{self._address}/api/v2/monitor/health", timeout=_TIMEOUT_S)
            parts = response.json() if response.ok else {}
        except requests.RequestException:
            return {}
        return {name: (part or {}).get("status") for name, part in parts.items()}

    def rows(self, path: str, *, key: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return all entries of a list from all its pages."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.json("GET", path, params={**(params or {}), "limit": _PAGE, "offset": len(entries)})
            entries += page[key]
            if not page[key] or len(entries) >= page["total_entries"]:
                return entries


def run_path(dag_id: str, run_id: str) -> str:
    """Return the path of a DAG run below ``/api/v2``."""
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def format_iso(value: datetime) -> str:
    """Return the ISO 8601 text of an aware datetime.

    :raises ValueError: the datetime is naive.
    """
    if value.tzinfo is None:
        raise ValueError(f"The datetime has no time zone: {value!r}.")
    return value.isoformat()


def log_text(response: Mapping[str, Any]) -> str:
    """Return the lines of a task log, each with the level, the message and the other fields as JSON."""
    content = response["content"]
    if isinstance(content, str):
        return content
    return "\n".join(_log_line(entry) for entry in content)


def _log_line(entry: Mapping[str, Any] | str) -> str:
    if isinstance(entry, str):
        return entry
    other_fields = {
        key: value for key, value in entry.items() if key not in _SEPARATE_FIELDS | _CONSTANT_FIELDS and value
    }
    parts = [entry.get("level") or "", str(entry.get("event", "")), json.dumps(other_fields) if other_fields else ""]
    return " ".join(filter(None, parts))
