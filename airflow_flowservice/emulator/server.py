"""The emulator as a server on loopback: in the foreground, or in a thread beside a test."""

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

# Without proxies: the emulator is on loopback, whatever http_proxy says.
_opener = build_opener(ProxyHandler({}))


class Emulator:
    """A running emulator, as a test sees it. Every method is a request to its `/_emulator` routes.

    Attributes:
        url: where it listens, without a slash at its end; both the platform's URL and IMS's.
        settings: how it behaves.
        state: its memory. Another thread serves it: touch it only while no request is under way.
    """

    def __init__(self, url: str, state: EmulatorState) -> None:
        self.url = url
        self.settings = state.settings
        self.state = state

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to it; as JSON, what `AIRFLOW_CONN_...` takes."""
        return self.settings.connection(self.url)

    def ledger(
        self,
        flow_id: str | None = None,
        start: str | float | datetime | None = None,
        end: str | float | datetime | None = None,
    ) -> dict[str, Any]:
        """The truth: `requests` by kind, `flows` with their runs; for a flow also `missing` and `duplicated`.

        Args:
            flow_id: whose account of a range is added.
            start: the range's first instant: ISO 8601, epoch seconds or an aware datetime; None: the
                earliest window's start.
            end: the first instant after the range; None: the latest window's end.

        Raises:
            ValueError: for an unknown flow or an instant that cannot be read.
        """
        asked = {"flow_id": flow_id, "from": _as_text(start), "to": _as_text(end)}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return self._ask("GET", f"ledger?{query}")

    def plan_fault(self, **fields: Any) -> None:
        """Plan a fault; the fields are those of `faults.py`.

        Raises:
            ValueError: when it is malformed.
        """
        self._ask("POST", "faults", fields)

    def faults(self) -> list[dict[str, Any]]:
        """The planned faults; `struck` says how often each one happened."""
        faults: list[dict[str, Any]] = self._ask("GET", "faults")["faults"]
        return faults

    def clear_faults(self) -> None:
        """Forget all planned faults."""
        self._ask("DELETE", "faults")

    def plan_outcome(self, **fields: Any) -> None:
        """Plan how the next runs end; the fields are those of `outcomes.py`.

        Raises:
            ValueError: when it is malformed.
        """
        self._ask("POST", "outcomes", fields)

    def add_flow(self, **fields: Any) -> str:
        """Add a flow, or change the one with this `id`; the answer is its id.

        Args:
            **fields: `id`, `name`, `kind` (`table`, `file`, `streaming`), `frequency` (`once`), `state`
                (`enabled`), `delta_column` (a name or an object), `dataset_id`. All may be left out.

        Raises:
            ValueError: for an unknown field or kind.
        """
        return str(self._ask("POST", "flows", fields)["id"])

    def reset(self) -> None:
        """Back to birth: the born flows, no runs, plans or counts. Tokens stay valid."""
        self._ask("POST", "reset")

    def _ask(self, method: str, path: str, fields: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if fields is None else json.dumps(fields, default=_as_text).encode()
        request = Request(f"{self.url}/_emulator/{path}", data=data, method=method)
        try:
            with _opener.open(request, timeout=60) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except HTTPError as error:
            with error:
                raise ValueError(json.load(error)["error"]) from None


@contextmanager
def running_emulator(settings: Settings | None = None, *, clock: Callable[[], float] = time.time) -> Iterator[Emulator]:
    """An emulator on a free loopback port, served by a thread until the block ends.

    Args:
        settings: how it behaves; None: the defaults.
        clock: now, in epoch seconds; a test may pass its own to move time by hand.
    """
    state = EmulatorState(settings or Settings(), clock=clock)
    with _bound_socket(0) as bound:
        ready = threading.Event()
        server = _Server(state, on_ready=ready.set)
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[bound])),
            name="flow-service-emulator",
            daemon=True,
        )
        thread.start()
        if not ready.wait(_START_TIMEOUT_S):
            raise RuntimeError("the emulator did not start")
        try:
            yield Emulator(_url(bound), state)
        finally:
            server.should_exit = True
            thread.join(_START_TIMEOUT_S)


def serve(settings: Settings, *, port: int) -> None:
    """Serve on 127.0.0.1 until SIGINT or SIGTERM, and print one line when ready.

    Args:
        settings: how the emulator behaves.
        port: 0 chooses a free one.

    Raises:
        OSError: when the port is taken.
    """
    with _bound_socket(port) as bound:
        url = _url(bound)
        server = _Server(
            EmulatorState(settings), on_ready=lambda: print(f"Flow Service emulator ready on {url}", flush=True)
        )
        asyncio.run(_serve_until_signal(server, bound))


async def _serve_until_signal(server: _Server, bound: socket.socket) -> None:
    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for wanted in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(wanted, stop)
    await server.serve(sockets=[bound])


class _Server(uvicorn.Server):
    """uvicorn without its logs and signal handlers; stopping does not wait for clients."""

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
    # asyncio turns Nagle's algorithm off only for sockets that say they are TCP; with it a POST takes 40 ms.
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
