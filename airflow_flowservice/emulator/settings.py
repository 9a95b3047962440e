"""What can be set about an emulator, and the flows that it is born with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

AnswerShape = Literal["items", "flat"]
ShowWindow = Literal["params", "activity", "none"]
ErrorShape = Literal["report", "plain", "gateway"]
EpochFormat = Literal["any", "string", "integer"]

TABLE_FLOW_ID = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
"""Table-based, one-time, without a delta column until its first run."""

FILE_FLOW_ID = "c9cef9cb-c934-4467-8ef9-cbc934546741"
"""File-based, one-time."""

HOURLY_FLOW_ID = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
"""Table-based and scheduled hourly: on-demand runs are refused (1386)."""

DISABLED_FLOW_ID = "7d15ab1e-0f10-4d15-8ab1-ed0000000001"
"""Table-based, one-time and disabled: runs are refused (1380)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an emulator behaves. All durations are seconds.

    Attributes:
        client_id: the client that may do everything; sent as `x-api-key`.
        client_secret: its secret, and the reader's.
        reader_id: a client that may read, and whose attempts to create a run end with 403, 1427.
        org_id: the only organization that exists.
        sandbox: the only sandbox that exists.
        answer_shape: a created run is answered as `{"items": [{"id", "etag"}]}` with 200 (`items`, Adobe's
            tutorial) or as `{"id", "etag"}` with 201 (`flat`, Adobe's OpenAPI file).
        show_window: a run that is read shows its window in `params`, in its first activity once it
            left `scheduled` (`activity`), or not at all (`none`).
        error_shape: Flow Service's errors come as `{"type", "title", "status", "report",
            "error-chain"}` (`report`), `{"code", "message"}` (`plain`) or `{"error_code", "message"}`
            (`gateway`). What a gateway refuses (token, API key, missing header) has the last shape always.
        epoch_format: which JSON type of epoch seconds a creation may use; the other one is refused (1384).
        queue_s: how long a run stays `scheduled`, counted from its creation or `startTime`, the later.
        run_s: how long it is `inProgress` after that.
        start_tolerance_s: how far a `startTime` may lie in the past before it is refused (1360).
        token_ttl_s: how long a token is valid.
        clock_offset_s: how far the emulator's clock is ahead of this machine's; negative: behind. The
            `Date` header shows the emulator's clock.

    Raises:
        ValueError: for a word that is not one of those listed, or a negative duration.
    """

    client_id: str = "emulator-client"
    client_secret: str = "emulator-secret"
    reader_id: str = "emulator-reader"
    org_id: str = "EMULATOR@AdobeOrg"
    sandbox: str = "prod"
    answer_shape: AnswerShape = "items"
    show_window: ShowWindow = "params"
    error_shape: ErrorShape = "report"
    epoch_format: EpochFormat = "any"
    queue_s: float = 1.0
    run_s: float = 2.0
    start_tolerance_s: float = 60.0
    token_ttl_s: float = 86399.0
    clock_offset_s: float = 0.0

    def __post_init__(self) -> None:
        self._check_word("answer_shape", get_args(AnswerShape))
        self._check_word("show_window", get_args(ShowWindow))
        self._check_word("error_shape", get_args(ErrorShape))
        self._check_word("epoch_format", get_args(EpochFormat))
        for name in ("queue_s", "run_s", "start_tolerance_s", "token_ttl_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative: {getattr(self, name)}")

    def connection(self, url: str) -> dict[str, Any]:
        """The Airflow connection to the emulator that listens there; as JSON, what `AIRFLOW_CONN_...` takes."""
        return {
            "conn_type": "flowservice",
            "host": url,
            "login": self.client_id,
            "password": self.client_secret,
            "extra": {"org_id": self.org_id, "sandbox": self.sandbox, "ims_url": url},
        }

    def _check_word(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}: {getattr(self, name)!r}")
