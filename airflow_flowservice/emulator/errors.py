# SPDX-License-Identifier: Apache-2.0
"""Error responses of the emulator.

- `EmulatedApiError`: an error response of Flow Service or of the gateway in front of it.
- `EmulatedImsError`: an error response of IMS to a token request.
- `ForeignOriginError`: an error response of the control routes.
"""

from __future__ import annotations

import time
from typing import Any

from airflow_flowservice.emulator.settings import ErrorShape


class EmulatedApiError(Exception):
    """Error response of Flow Service or of the gateway in front of it.

    Args:
        status: HTTP status.
        code: Adobe's error code without the status, such as `1382`.
        message: human-readable message.
        gateway: True if the gateway refused the request. The body then always has the gateway's format.
    """

    def __init__(self, status: int, code: str, message: str, *, gateway: bool = False) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.gateway = gateway

    def body(self, shape: ErrorShape) -> dict[str, Any]:
        """Return the JSON body in one of the formats of Adobe's services (see `Settings.error_shape`)."""
        if self.gateway:
            return {"error_code": self.code, "message": self.message}
        if shape == "gateway":
            return {"error_code": self._code_with_status, "message": self.message}
        if shape == "plain":
            return {"code": self.code, "message": self.message}
        return self._report_body()

    @property
    def _code_with_status(self) -> str:
        return f"{self.code}-{self.status}"

    def _report_body(self) -> dict[str, Any]:
        link = {
            "serviceId": "FLOW",
            "errorCode": self._code_with_status,
            "invokingServiceId": "emulator",
            "unixTimeStampMs": int(time.time() * 1000),
        }
        return {
            "type": f"http://ns.adobe.com/aep/errors/FLOW-{self._code_with_status}",
            "title": self.message,
            "status": self.status,
            "report": {"detailed-message": self.message},
            "error-chain": [link],
        }


class EmulatedValidationError(EmulatedApiError):
    """Error response of a server that validates requests by a schema, for a value of the wrong JSON type.

    Args:
        path: path of the value in the body.
        expected: JSON type that the schema requires.
    """

    def __init__(self, path: tuple[str, ...], expected: str) -> None:
        super().__init__(422, "type", f"Request body property {'.'.join(path)} must be {expected}")
        self.path = path

    def body(self, shape: ErrorShape) -> dict[str, Any]:
        """Return the JSON body, which has the same format for each shape."""
        problem = {"location": ["body", *self.path], "severity": "Error", "code": "type", "message": self.message}
        return {"title": "Invalid request", "status": self.status, "validation": [problem]}


class EmulatedImsError(Exception):
    """Error response of IMS to a token request, as in RFC 6749, section 5.2."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(f"{status} {error}: {description}")
        self.status = status
        self.error = error
        self.description = description

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": self.error, "error_description": self.description}


class ForeignOriginError(Exception):
    """Refusal of a request to a control route that a web page of another host may have sent.

    Args:
        header: name of the header that is missing or foreign.
    """

    status = 403

    def __init__(self, header: str) -> None:
        super().__init__(f"The header {header} must name this machine, for example 127.0.0.1.")

    def body(self) -> dict[str, Any]:
        """Return the JSON body of the control routes' errors."""
        return {"error": str(self)}
