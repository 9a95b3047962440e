"""What the emulator refuses, and the bodies that say so.

EmulatedApiError    Flow Service, or the gateway in front of it, refuses
EmulatedImsError    IMS refuses to give a token
"""

from __future__ import annotations

import time
from typing import Any

from airflow_flowservice.emulator.settings import ErrorShape


class EmulatedApiError(Exception):
    """A refusal with an HTTP status, Adobe's bare code and a message.

    Args:
        status: HTTP status.
        code: Adobe's code without the status, such as `1382`.
        message: what a person would read.
        gateway: the gateway refused, so the body has the gateway's shape whatever is set.
    """

    def __init__(self, status: int, code: str, message: str, *, gateway: bool = False) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.gateway = gateway

    def body(self, shape: ErrorShape) -> dict[str, Any]:
        """The JSON body in one of the shapes that Adobe's services answer with."""
        if self.gateway:
            return {"error_code": self.code, "message": self.message}
        if shape == "gateway":
            return {"error_code": self._suffixed, "message": self.message}
        if shape == "plain":
            return {"code": self.code, "message": self.message}
        return self._report()

    @property
    def _suffixed(self) -> str:
        return f"{self.code}-{self.status}"

    def _report(self) -> dict[str, Any]:
        link = {
            "serviceId": "FLOW",
            "errorCode": self._suffixed,
            "invokingServiceId": "emulator",
            "unixTimeStampMs": int(time.time() * 1000),
        }
        return {
            "type": f"http://ns.adobe.com/aep/errors/FLOW-{self._suffixed}",
            "title": self.message,
            "status": self.status,
            "report": {"detailed-message": self.message},
            "error-chain": [link],
        }


class EmulatedImsError(Exception):
    """IMS gives no token, in the way of RFC 6749."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(f"{status} {error}: {description}")
        self.status = status
        self.error = error
        self.description = description

    def body(self) -> dict[str, Any]:
        return {"error": self.error, "error_description": self.description}
