"""Airflow's REST API, as far as the demo and the end-to-end tests need it."""

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
_SHOWN_OR_DULL = frozenset({"level", "event", "timestamp", "logger", "filename", "lineno"})
_SAME_IN_EVERY_LINE = frozenset({"dag_id", "run_id", "task_id", "ti_id", "map_index", "try_number"})


class AirflowRest:
    """A client of ``/api/v2`` that logs in by itself and takes no proxy.

    :param address: of the API server, without a slash at the end.
    """

    def __init__(self, *, address: str, login: Login) -> None:
        self._address = address
        self._login = login
        self._session = requests.Session()
        self._session.trust_env = False

    @property
    def token(self) -> str:
        """A token of the user; a browser takes it as the cookie ``_token``."""
        if "Authorization" not in self._session.headers:
            answer = self._session.post(
                f"{self._address}/auth/token",
                json={"username": self._login.username, "password": self._login.password},
                timeout=_TIMEOUT_S,
            )
            answer.raise_for_status()
            self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return str(self._session.headers["Authorization"]).removeprefix("Bearer ")

    def call(
        self, method: str, path: str, *, body: Any = None, params: Mapping[str, Any] | None = None
    ) -> requests.Response:
        """Send a request and return whatever is answered.

        :param path: below ``/api/v2``, with a leading slash.
        :raises requests.ConnectionError: nothing answers.
        """
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        url = f"{self._address}/api/v2{path}"
        return self._session.request(method, url, json=body, params=params, headers=headers, timeout=_TIMEOUT_S)

    def json(self, method: str, path: str, *, body: Any = None, params: Mapping[str, Any] | None = None) -> Any:
        """Send a request and return the JSON that it answers.

        :raises LocalAirflowError: the answer is not a success; the message shows it.
        """
        answer = self.call(method, path, body=body, params=params)
        if not answer.ok:
            raise LocalAirflowError(f"{method} {answer.url} answered {answer.status_code}: {answer.text}")
        return answer.json() if answer.content else None

    def health(self) -> dict[str, str | None]:
        """The status of each of Airflow's components, by its name; empty while nothing answers."""
        try:
            answer = self._session.get(f"{self._address}/api/v2/monitor/health", timeout=_TIMEOUT_S)
            parts = answer.json() if answer.ok else {}
        except requests.RequestException:
            return {}
        return {name: (part or {}).get("status") for name, part in parts.items()}

    def rows(self, path: str, *, key: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows of a list, page after page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.json("GET", path, params={**(params or {}), "limit": _PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found


def run_path(dag_id: str, run_id: str) -> str:
    """The path of a DAG run below ``/api/v2``."""
    return f"/dags/{quote(dag_id, safe='')}/dagRuns/{quote(run_id, safe='')}"


def iso(moment: datetime) -> str:
    """ISO 8601 of an aware datetime.

    :raises ValueError: the datetime is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"a date without a timezone: {moment!r}")
    return moment.isoformat()


def log_text(answer: Mapping[str, Any]) -> str:
    """The lines of a task's log: level, message, then the other fields as JSON."""
    content = answer["content"]
    if isinstance(content, str):
        return content
    return "\n".join(_log_line(entry) for entry in content)


def _log_line(entry: Mapping[str, Any] | str) -> str:
    if isinstance(entry, str):
        return entry
    rest = {key: value for key, value in entry.items() if key not in _SHOWN_OR_DULL | _SAME_IN_EVERY_LINE and value}
    parts = [entry.get("level") or "", str(entry.get("event", "")), json.dumps(rest) if rest else ""]
    return " ".join(filter(None, parts))
