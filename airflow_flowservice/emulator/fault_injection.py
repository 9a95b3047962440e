"""The outermost layer: counts requests, stamps answers, and breaks what a planned fault says.

Under uvicorn `receive` is a method of the request's cycle, which holds the connection: the one way to
close it without an answer.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any

from airflow_flowservice.emulator.errors import EmulatedApiError
from airflow_flowservice.emulator.faults import Fault, RequestFaults
from airflow_flowservice.emulator.state import EmulatorState

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BASE_PATH = "/data/foundation/flowservice"
TOKEN_PATH = "/ims/token/v3"
REQUEST_FAULTS_KEY = "emulator.request_faults"

_RESOURCES = frozenset({"runs", "flows", "flowSpecs", "targetConnections", "sourceConnections"})


def request_kind(method: str, path: str) -> str:
    """A request's kind, as the ledger counts it and faults name it: `GET /runs/{id}`; `other` if unknown."""
    if path.rstrip("/") == TOKEN_PATH:
        return f"{method} {TOKEN_PATH}"
    resource, *rest = path.removeprefix(BASE_PATH).strip("/").split("/")
    if not path.startswith(f"{BASE_PATH}/") or resource not in _RESOURCES:
        return "other"
    if rest[1:] not in ([], ["action"]):
        return "other"
    return f"{method} /{'/'.join([resource, *(['{id}'] if rest else []), *rest[1:]])}"


class BufferedResponse:
    """An answer that is held back. An instance's `send` takes it from an application."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.body += message.get("body", b"")

    async def forward(self, send: Send, *, share: float = 1.0) -> None:
        """Send it, or only the first share of its body, with a length that promises all of it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        part = self.body[: int(len(self.body) * share)]
        await send({"type": "http.response.body", "body": part, "more_body": share < 1.0})


class FaultInjectionMiddleware:
    """The emulator's ASGI application: another one, and faults."""

    def __init__(self, app: App, state: EmulatorState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stamped = self._stamped(send)
        path = scope["path"]
        if path.startswith("/_emulator"):
            scope[REQUEST_FAULTS_KEY] = RequestFaults()
            return await self._app(scope, receive, stamped)
        kind = request_kind(scope["method"], path)
        self._state.requests[kind] += 1
        request_faults = self._state.faults.faults_for(kind, now=self._state.now())
        if request_faults.expire_tokens:
            self._state.expire_tokens()
        scope[REQUEST_FAULTS_KEY] = request_faults
        if request_faults.response_fault is None:
            return await self._app(scope, receive, stamped)
        await self._break(request_faults.response_fault, scope, receive, stamped)

    def _stamped(self, send: Send) -> Send:
        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                stamps = [
                    (b"x-request-id", str(uuid.uuid4()).encode()),
                    (b"date", formatdate(self._state.now(), usegmt=True).encode()),
                ]
                message["headers"] = [*message["headers"], *(pair for pair in stamps if pair[0] not in names)]
            await send(message)

        return stamp

    async def _break(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        if fault.action in ("refuse", "answer"):
            return await self._planned_answer(fault).forward(send)
        if fault.action == "record_late":
            await asyncio.sleep(fault.seconds)
        answer = self._planned_answer(fault)
        if _records(fault, scope["method"]):
            answer = await self._do(scope, body)
        if fault.action == "record_and_status":
            return await self._planned_answer(fault).forward(send)
        if fault.action == "slow":
            await asyncio.sleep(fault.seconds)
            return await answer.forward(send)
        if fault.action.endswith("half_body"):
            await answer.forward(send, share=0.5)
        if fault.action.endswith("hang"):
            await _wait_for_disconnect(receive, fault.seconds)
        await _close(receive)

    async def _do(self, scope: Scope, body: bytes) -> BufferedResponse:
        """Let the application do what was asked, whatever becomes of the connection."""
        answer = BufferedResponse()

        async def replay() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, answer.send)
        return answer

    def _planned_answer(self, fault: Fault) -> BufferedResponse:
        answer = BufferedResponse()
        answer.status = fault.status
        content, content_type = self._planned_body(fault)
        answer.body = content
        answer.headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(content)).encode()),
            *((name.lower().encode(), str(value).encode()) for name, value in fault.headers.items()),
        ]
        return answer

    def _planned_body(self, fault: Fault) -> tuple[bytes, bytes]:
        content = fault.body
        if content is None:
            if fault.action == "answer":
                return b"", b"text/plain"
            code = fault.code or {429: "429050"}.get(fault.status, "1102")
            message = fault.message or f"The emulator was told to answer {fault.status}."
            error = EmulatedApiError(fault.status, code, message, gateway=fault.status == 429)
            content = error.body(self._state.settings.error_shape)
        if not isinstance(content, str):
            return json.dumps(content).encode(), b"application/json"
        kind = b"text/html" if content.lstrip().startswith("<") else b"text/plain"
        return content.encode(), kind


def _records(fault: Fault, method: str) -> bool:
    if fault.action == "half_body":
        return method == "GET"
    return fault.action.startswith("record_") or fault.action == "slow"


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _wait_for_disconnect(receive: Receive, seconds: float) -> None:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), seconds)
    except asyncio.TimeoutError:
        return


async def _close(receive: Receive) -> None:
    cycle: Any = receive
    cycle.__self__.transport.close()
    await _wait_for_disconnect(receive, 5.0)
