# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware that counts requests, adds response headers and injects planned faults."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

from airflow_flowservice.emulator.errors import EmulatedApiError
from airflow_flowservice.emulator.faults import Fault, RequestFaults
from airflow_flowservice.emulator.render import EXPORT_PATH
from airflow_flowservice.emulator.state import EmulatorState

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BASE_PATH = "/data/foundation/flowservice"
CATALOG_PATH = "/data/foundation/catalog"
TOKEN_PATH = "/ims/token/v3"
REQUEST_FAULTS_KEY = "emulator.request_faults"

_RESOURCES = frozenset({"runs", "flows", "flowSpecs", "targetConnections", "sourceConnections", "connections"})


def request_kind(method: str, path: str) -> str:
    """Return the kind of a request for the ledger and for faults, such as `GET /runs/{id}`.

    The kind of an unknown route is `other`.
    """
    if path.rstrip("/") == TOKEN_PATH:
        return f"{method} {TOKEN_PATH}"
    if path.startswith(f"{CATALOG_PATH}/batches/"):
        return f"{method} /batches/{{ids}}"
    export, _, rest_of_export = path.partition(f"{EXPORT_PATH}/batches/")
    if rest_of_export and not export:
        part = rest_of_export.rpartition("/")[2]
        return f"{method} /batches/{{id}}/{part}" if part in ("meta", "failed") else "other"
    resource, *rest = path.removeprefix(BASE_PATH).strip("/").split("/")
    if not path.startswith(f"{BASE_PATH}/") or resource not in _RESOURCES:
        return "other"
    if rest[1:] not in ([], ["action"], ["test"]):
        return "other"
    return f"{method} /{'/'.join([resource, *(['{id}'] if rest else []), *rest[1:]])}"


class BufferedResponse:
    """Response of an application, before it is forwarded to the client."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def send(self, message: Message) -> None:
        """Store a message of the application."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")

    async def forward(self, send: Send, *, share: float = 1.0) -> None:
        """Forward the response. If `share` is below 1, send only that part of the body.

        The Content-Length header is always the length of the whole body.
        """
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        part = self.body[: int(len(self.body) * share)]
        await send({"type": "http.response.body", "body": part, "more_body": share < 1.0})


class FaultInjectionMiddleware:
    """ASGI application that wraps the emulator's application and injects planned faults."""

    def __init__(self, app: App, state: EmulatorState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send = self._add_headers(send)
        path = scope["path"]
        if path.startswith("/_emulator"):
            scope[REQUEST_FAULTS_KEY] = RequestFaults()
            return await self._app(scope, receive, send)
        kind = request_kind(scope["method"], path)
        self._state.requests[kind] += 1
        request_faults = self._state.faults.faults_for(kind, now=self._state.now())
        if request_faults.expire_tokens:
            self._state.expire_tokens()
        scope[REQUEST_FAULTS_KEY] = request_faults
        if request_faults.response_fault is None:
            return await self._app(scope, receive, send)
        await self._inject(request_faults.response_fault, scope, receive, send)

    def _add_headers(self, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                added = [
                    (b"x-request-id", str(uuid.uuid4()).encode()),
                    (b"date", formatdate(self._state.now(), usegmt=True).encode()),
                ]
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in names)]
            await send(message)

        return send_with_headers

    async def _inject(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        if fault.action in ("refuse", "answer"):
            return await self._planned_response(fault).forward(send)
        if fault.action == "record_late":
            await asyncio.sleep(fault.seconds)
        response = self._planned_response(fault)
        if _executes_request(fault, scope["method"]):
            response = await self._execute(scope, body)
        if fault.action == "record_and_status":
            return await self._planned_response(fault).forward(send)
        if fault.action == "slow":
            await asyncio.sleep(fault.seconds)
            return await response.forward(send)
        if fault.action.endswith("half_body"):
            await response.forward(send, share=0.5)
        if fault.action.endswith("hang"):
            await _wait_for_disconnect(receive, fault.seconds)
        await _close(receive)

    async def _execute(self, scope: Scope, body: bytes) -> BufferedResponse:
        """Execute a request independently of the connection and return its response."""
        response = BufferedResponse()

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, response.send)
        return response

    def _planned_response(self, fault: Fault) -> BufferedResponse:
        response = BufferedResponse()
        response.status = fault.status
        content, content_type = self._planned_body(fault)
        response.body = content
        response.headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(content)).encode()),
            *((name.lower().encode(), str(value).encode()) for name, value in fault.headers.items()),
        ]
        return response

    def _planned_body(self, fault: Fault) -> tuple[bytes, bytes]:
        content = fault.body
        if content is None:
            if fault.action == "answer":
                return b"", b"text/plain"
            code = fault.code or {429: "429050"}.get(fault.status, "1102")
            message = fault.message or f"A planned fault of the emulator sets status {fault.status}."
            error = EmulatedApiError(fault.status, code, message, gateway=fault.status == 429)
            content = error.body(self._state.settings.error_shape)
        if not isinstance(content, str):
            return json.dumps(content).encode(), b"application/json"
        kind = b"text/html" if content.lstrip().startswith("<") else b"text/plain"
        return content.encode(), kind


def _executes_request(fault: Fault, method: str) -> bool:
    if fault.action == "half_body":
        return method == "GET"
    return fault.action.startswith("record_") or fault.action == "slow"


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _wait_for_disconnect(receive: Receive, seconds: float) -> None:
    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(disconnect(), seconds)
    except asyncio.TimeoutError:
        return


async def _close(receive: Receive) -> None:
    # Under uvicorn, `receive` is a method of the request cycle. The cycle holds the connection's transport, which is
    # the only means to close a connection without a response.
    cycle: Any = receive
    cycle.__self__.transport.close()
    await _wait_for_disconnect(receive, 5.0)
