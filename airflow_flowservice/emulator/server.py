# SPDX-License-Identifier: Apache-2.0
"""Server of the emulator on loopback, in the foreground or in a thread of a test."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import uvicorn

from airflow_flowservice.emulator.app import create_app
from airflow_flowservice.emulator.settings import Settings
from airflow_flowservice.emulator.state import EmulatorState

HOST = "127.0.0.1"
_START_TIMEOUT_S = 20.0

# Ignore http_proxy, because the emulator is on loopback.
_opener = build_opener(ProxyHandler({}))


class Emulator:
    """Client of a running emulator, for tests. Each method sends a request to a `/_emulator` route.

    Attributes:
        url: base URL of both Flow Service and IMS, without a trailing slash.
        settings: the settings of the emulator.
        state: the state of the emulator. A server thread uses it, so access it only between requests.
    """

    def __init__(self, url: str, state: EmulatorState) -> None:
        self.url = url
        self.settings = state.settings
        self.state = state

    @property
    def connection(self) -> dict[str, Any]:
        """Return the Airflow connection to the emulator; its JSON is a valid value of `AIRFLOW_CONN_...`."""
        return self.settings.connection(self.url)

    def ledger(
        self,
        flow_id: str | None = None,
        start: str | float | datetime | None = None,
        end: str | float | datetime | None = None,
    ) -> dict[str, Any]:
        """Return request counts in `requests` and the runs of each flow in `flows`.

        If `flow_id` is given, the result also contains counts for a range of that flow: `expected`,
        `ingested`, `missing` and `duplicated`.

        Args:
            flow_id: the flow of the range.
            start: start of the range (inclusive): ISO 8601, epoch seconds or an aware datetime. Default: the
                start of the earliest window.
            end: end of the range (exclusive). Default: the end of the latest window.

        Raises:
            ValueError: for an unknown flow or an unparsable instant.
        """
        params = {"flow_id": flow_id, "from": _as_text(start), "to": _as_text(end)}
        query = urlencode({name: value for name, value in params.items() if value is not None})
        return self._request("GET", f"ledger?{query}")

    def plan_fault(self, **fields: Any) -> None:
        """Plan a fault. The docstring of `faults.py` lists the fields.

        Raises:
            ValueError: if the fault is malformed.
        """
        self._request("POST", "faults", fields)

    def faults(self) -> list[dict[str, Any]]:
        """Return the planned faults. `struck` is the number of requests that a fault affected."""
        faults: list[dict[str, Any]] = self._request("GET", "faults")["faults"]
        return faults

    def clear_faults(self) -> None:
        """Remove all planned faults."""
        self._request("DELETE", "faults")

    def plan_outcome(self, **fields: Any) -> None:
        """Plan the outcome of the next runs. The docstring of `outcomes.py` lists the fields.

        Raises:
            ValueError: if the outcome is malformed.
        """
        self._request("POST", "outcomes", fields)

    def add_flow(self, **fields: Any) -> str:
        """Add a flow, or change the flow with this `id`, and return its id.

        Args:
            **fields: `id`, `name`, `kind` (`table`, `file`, `streaming`), `frequency` (`once`), `state`
                (`enabled`), `state_s` (seconds after which the state becomes `next_state`), `next_state`
                (`enabled`), `delta_column` (a name or an object), `dataset_id`, `source_works`. All are optional.

        Raises:
            ValueError: for an unknown field or kind.
        """
        return str(self._request("POST", "flows", fields)["id"])

    def add_run(self, **fields: Any) -> str:
        """Add a flow run that Adobe's schedule or another client made, and return its id.

        Args:
            **fields: `flow_id`, `window_start` and `window_end` (ISO 8601, epoch seconds or datetimes); optionally
                `client_id` (the creator) and `delay_s` (seconds until it is listed).

        Raises:
            ValueError: for an unknown field or flow, or an invalid window.
        """
        return str(self._request("POST", "runs", fields)["id"])

    def reset(self) -> None:
        """Restore the initial flows and delete all runs, plans and counts. Tokens stay valid."""
        self._request("POST", "reset")

    def _request(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if fields is None else json.dumps(fields, default=_as_text).encode()
        request = Request(f"{self.url}/_emulator/{path}", data=data, method=method)
        try:
            with _opener.open(request, timeout=60) as response:
                body: dict[str, Any] = json.load(response)
                return body
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None


@contextmanager
def running_emulator(settings: Settings | None = None, *, clock: Callable[[], float] = time.time) -> Iterator[Emulator]:
    """Run an emulator on a free loopback port, in a thread, until the `with` block ends.

    Args:
        settings: the settings of the emulator. Default: `Settings()`.
        clock: function that returns the current time in epoch seconds. A test can pass a manual clock.

    Raises:
        RuntimeError: if the server does not start within 20 seconds.
    """
    state = EmulatorState(settings or Settings(), clock=clock)
    with _bound_socket(0) as bound:
        state.url = _url(bound)
        ready = threading.Event()
        server = _Server(state, on_ready=ready.set)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[bound])),
            name="flow-service-emulator",
            daemon=True,
        )
        thread.start()
        if not ready.wait(_START_TIMEOUT_S):
            raise RuntimeError(f"The emulator did not start within {_START_TIMEOUT_S:.0f} s.")
        try:
            yield Emulator(state.url, state)
        finally:
            server.should_exit = True
            thread.join(_START_TIMEOUT_S)


def serve(settings: Settings, *, port: int) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM, and print one line when the server is ready.

    Args:
        settings: the settings of the emulator.
        port: TCP port; 0 selects a free port.

    Raises:
        OSError: if the port is in use.
    """
    with _bound_socket(port) as bound:
        state = EmulatorState(settings)
        state.url = _url(bound)

        def print_ready() -> None:
            print(f"Flow Service emulator ready on {state.url}", flush=True)

        server = _Server(state, on_ready=print_ready)
        asyncio.run(_serve_until_signal(server, bound))


async def _serve_until_signal(server: _Server, bound: socket.socket) -> None:
    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[bound])


class _Server(uvicorn.Server):
    """uvicorn server without logs and signal handlers. It closes open connections when it stops."""

    def __init__(self, state: EmulatorState, *, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            create_app(state),
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._on_ready = on_ready

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        await super().shutdown(sockets=sockets)


@contextmanager
def _bound_socket(port: int) -> Iterator[socket.socket]:
    # asyncio disables Nagle's algorithm only for sockets with the TCP protocol number. Otherwise a POST takes 40 ms.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        yield bound


def _url(bound: socket.socket) -> str:
    return f"http://{HOST}:{bound.getsockname()[1]}"


def _as_text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return None if value is None else str(value)
