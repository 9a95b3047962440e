"""What the page's data endpoints answer when they cannot answer: text that says what to do, never HTML."""

from __future__ import annotations

from fastapi.responses import JSONResponse


class Problem(Exception):
    """A request that cannot be answered.

    :param status: the HTTP status.
    :param error: what is wrong, as one sentence without secrets.
    :param remedy: what to do about it.
    """

    def __init__(self, status: int, error: str, *, remedy: str | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.remedy = remedy

    def response(self) -> JSONResponse:
        """`{"error": text, "remedy": text or null}`."""
        return JSONResponse({"error": self.error, "remedy": self.remedy}, status_code=self.status)
