# SPDX-License-Identifier: Apache-2.0
"""Fixtures: an emulator with a manual clock, and an HTTP client that shares no code with the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import requests

from airflow_flowservice.emulator import Emulator, Settings, running_emulator
from airflow_flowservice.emulator.settings import TABLE_FLOW_ID

START_TIME = 1_750_000_020.0
"""Time at which every test starts, in epoch seconds."""

DAY = 86_400
DELTA = {"name": "updated_at"}


class Clock:
    """Manual clock. Its time changes only in `advance`."""

    def __init__(self) -> None:
        self.now = START_TIME

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.now += seconds


@dataclass
class Client:
    """Client of one emulator. It sends valid headers by default."""

    emulator: Emulator
    clock: Clock
    session: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        self.session.trust_env = False
        settings = self.emulator.settings
        self.session.headers.update(
            {
                "x-gw-ims-org-id": settings.org_id,
                "x-sandbox-name": settings.sandbox,
            }
        )

    def request_token(self, **changes: Any) -> requests.Response:
        """Request a token from IMS; `changes` replace form fields, and None removes a field."""
        form = {
            "grant_type": "client_credentials",
            "client_id": "emulator-client",
            "client_secret": "emulator-secret",
            "scope": "openid,AdobeID",
        }
        form = {name: value for name, value in {**form, **changes}.items() if value is not None}
        return self.session.post(f"{self.emulator.url}/ims/token/v3", data=form)

    def log_in(self, client_id: str = "emulator-client") -> Client:
        """Get a token and use it for the next requests."""
        token = self.request_token(client_id=client_id).json()["access_token"]
        self.session.headers.update({"Authorization": f"Bearer {token}", "x-api-key": client_id})
        return self

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send a request to Flow Service."""
        return self.session.request(
            method, f"{self.emulator.url}/data/foundation/flowservice{path}", **{"timeout": 10, **kwargs}
        )

    def get(self, path: str, **params: Any) -> requests.Response:
        """Send a GET request to Flow Service."""
        return self.request("GET", path, params=params)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return the JSON of a run."""
        return self.get(f"/runs/{run_id}").json()["items"][0]

    def status(self, run_id: str) -> str:
        """Return the status of a run."""
        return self.run(run_id)["metrics"]["statusSummary"]["status"]

    def create(self, flow_id: str = TABLE_FLOW_ID, **changes: Any) -> requests.Response:
        """Request a new run. `timeout` (seconds) is for the HTTP request; the other changes replace params.

        None removes a parameter.
        """
        timeout = changes.pop("timeout", 10)
        params = {
            "startTime": int(self.clock.now),
            "windowStartTime": 0,
            "windowEndTime": 3600,
            "deltaColumn": DELTA,
            **changes,
        }
        params = {name: value for name, value in params.items() if value is not None}
        return self.request("POST", "/runs", json={"flowId": flow_id, "params": params}, timeout=timeout)

    def created(self, flow_id: str = TABLE_FLOW_ID, **changes: Any) -> str:
        """Create a run and return its id. The emulator must use the response format `items`."""
        return self.create(flow_id, **changes).json()["items"][0]["id"]

    def retrigger(self, run_id: str, op: str = "re-trigger") -> requests.Response:
        """Request a re-trigger of a run."""
        return self.request("POST", f"/runs/{run_id}/action", params={"op": op})


class ClientWith(Protocol):
    """Function that starts an emulator with custom settings and returns its client."""

    def __call__(self, **settings: Any) -> AbstractContextManager[Client]: ...


@pytest.fixture
def clock() -> Clock:
    """Return a manual clock."""
    return Clock()


@pytest.fixture(scope="session")
def _emulator_and_clock() -> Iterator[tuple[Emulator, Clock]]:
    clock = Clock()
    with running_emulator(Settings(queue_s=10, run_s=20), clock=clock) as emulator:
        yield emulator, clock


@pytest.fixture
def client(_emulator_and_clock: tuple[Emulator, Clock]) -> Client:
    """Return a client of a reset emulator. Runs are scheduled for 10 s, then in progress for 20 s."""
    emulator, clock = _emulator_and_clock
    clock.now = START_TIME
    emulator.reset()
    client = Client(emulator, clock).log_in()
    emulator.reset()
    return client


@pytest.fixture
def client_with(clock: Clock) -> ClientWith:
    """Return a function that starts an emulator with custom settings."""

    @contextmanager
    def start(**settings: Any) -> Iterator[Client]:
        with running_emulator(Settings(**{"queue_s": 10, "run_s": 20, **settings}), clock=clock) as emulator:
            yield Client(emulator, clock).log_in()

    return start
