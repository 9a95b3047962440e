# SPDX-License-Identifier: Apache-2.0
"""Error responses of the page's data endpoints: JSON with an error text and a remedy, never HTML."""

from __future__ import annotations

from fastapi.responses import JSONResponse


class PageRequestError(Exception):
    """Raised if a request to the page's data endpoints cannot be served.

    :param status: HTTP status of the response.
    :param error: one sentence that states the error; it contains no secrets.
    :param remedy: an instruction that fixes the error, if there is one.
    """

    def __init__(self, status: int, error: str, *, remedy: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.remedy = remedy

    def response(self) -> JSONResponse:
        """Return the response with the body `{"error": text, "remedy": text or null}`."""
        return JSONResponse({"error": self.error, "remedy": self.remedy}, status_code=self.status)


def require_printable(conn_id: str) -> None:
    """Refuse a connection id that a database cannot store.

    :raises PageRequestError: 400, it has unprintable characters.
    """
    if not conn_id.isprintable():
        raise PageRequestError(400, "conn_id has characters that no connection id can have", remedy="correct it")
