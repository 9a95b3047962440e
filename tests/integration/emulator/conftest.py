"""One emulator with a clock moved by hand, and a plain client that shares no code with the product."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import requests

from airflow_flowservice.emulator import Emulator, Settings, running_emulator
from airflow_flowservice.emulator.settings import TABLE_FLOW_ID

NOON = 1_750_000_020.0
"""Epoch seconds at which every test begins."""

DAY = 86_400
DELTA = {"name": "updated_at"}


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Client:
    """Requests to one emulator, with valid headers unless a test changes them."""

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

    def ask_token(self, **changes: Any) -> requests.Response:
        form = {
            "grant_type": "client_credentials",
            "client_id": "emulator-client",
            "client_secret": "emulator-secret",
            "scope": "openid,AdobeID",
        }
        form = {name: value for name, value in {**form, **changes}.items() if value is not None}
        return self.session.post(f"{self.emulator.url}/ims/token/v3", data=form)

    def log_in(self, client_id: str = "emulator-client") -> Client:
        token = self.ask_token(client_id=client_id).json()["access_token"]
        self.session.headers.update({"Authorization": f"Bearer {token}", "x-api-key": client_id})
        return self

    def ask(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        return self.session.request(
            method, f"{self.emulator.url}/data/foundation/flowservice{path}", **{"timeout": 10, **kwargs}
        )

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.ask("GET", path, params=params)

    def run(self, run_id: str) -> dict[str, Any]:
        return self.get(f"/runs/{run_id}").json()["items"][0]

    def status(self, run_id: str) -> str:
        return self.run(run_id)["metrics"]["statusSummary"]["status"]

    def create(self, flow_id: str = TABLE_FLOW_ID, **changes: Any) -> requests.Response:
        """Ask for a run; `timeout` and `json` go to requests, the other changes go to the params."""
        timeout = changes.pop("timeout", 10)
        params = {
            "startTime": int(self.clock.now),
            "windowStartTime": 0,
            "windowEndTime": 3600,
            "deltaColumn": DELTA,
            **changes,
        }
        params = {name: value for name, value in params.items() if value is not None}
        return self.ask("POST", "/runs", json={"flowId": flow_id, "params": params}, timeout=timeout)

    def created(self, flow_id: str = TABLE_FLOW_ID, **changes: Any) -> str:
        """The id of a new run of an emulator that answers `items`."""
        return self.create(flow_id, **changes).json()["items"][0]["id"]

    def retrigger(self, run_id: str, op: str = "re-trigger") -> requests.Response:
        return self.ask("POST", f"/runs/{run_id}/action", params={"op": op})


class ClientWith(Protocol):
    """A fixture that starts an emulator with settings of its own."""

    def __call__(self, **settings: Any) -> AbstractContextManager[Client]: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def _shared() -> Iterator[tuple[Emulator, Clock]]:
    clock = Clock()
    with running_emulator(Settings(queue_s=10, run_s=20), clock=clock) as emulator:
        yield emulator, clock


@pytest.fixture
def client(_shared: tuple[Emulator, Clock]) -> Client:
    """A client of an emulator as new: runs are scheduled for 10 s and in progress for 20 s."""
    emulator, clock = _shared
    clock.now = NOON
    emulator.reset()
    client = Client(emulator, clock).log_in()
    emulator.reset()
    return client


@pytest.fixture
def client_with(clock: Clock) -> ClientWith:
    @contextmanager
    def start(**settings: Any) -> Iterator[Client]:
        with running_emulator(Settings(**{"queue_s": 10, "run_s": 20, **settings}), clock=clock) as emulator:
            yield Client(emulator, clock).log_in()

    return start
