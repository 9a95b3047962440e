"""Headers of each answer: what comes from outside could otherwise run as a script with the user's login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Application = Callable[..., Awaitable[None]]

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "connect-src": "'self'",
    "img-src": "'self' data:",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'self'",
}
HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class SafeAnswers:
    """Adds the headers to all that an ASGI application answers, errors too.

    :param data: answers below this path are never stored; others are, and asked for again when they have changed.
    """

    def __init__(self, application: Application, *, data: str) -> None:
        self._application = application
        self._data = data

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        """Answer a request."""
        # Airflow's own path may stand in front of it, or not, if a proxy cuts it off.
        caching = "no-store" if self._data in scope.get("path", "") else "no-cache"
        added = [(name.encode(), value.encode()) for name, value in {**HEADERS, "cache-control": caching}.items()]

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._application(scope, receive, send_safely)
