# SPDX-License-Identifier: Apache-2.0
"""Security headers of all responses.

A response contains ids and texts from Adobe and from users. The headers prevent the browser from running any of it
as a script with the user's login.
"""

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


class SecurityHeadersMiddleware:
    """ASGI middleware that adds the headers to all responses, including errors.

    :param data_path: browsers never store responses below this path; other responses are stored and revalidated.
    """

    def __init__(self, application: Application, *, data_path: str) -> None:
        self._application = application
        self._data_path = data_path

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        """Handle a request."""
        # The path may begin with Airflow's prefix, unless a proxy removes it.
        caching = "no-store" if self._data_path in scope.get("path", "") else "no-cache"
        added = [(name.encode(), value.encode()) for name, value in {**HEADERS, "cache-control": caching}.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._application(scope, receive, send_with_headers)
