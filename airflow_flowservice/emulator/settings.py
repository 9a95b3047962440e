# SPDX-License-Identifier: Apache-2.0
"""Settings of the emulator, and the ids of its initial flows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

AnswerShape = Literal["items", "flat"]
ShowWindow = Literal["params", "activity", "none"]
ErrorShape = Literal["report", "plain", "gateway"]
EpochFormat = Literal["any", "string", "integer"]
EpochRefusal = Literal["code", "validation"]
RetriggerAction = Literal["any", "re-trigger", "RE_TRIGGER"]

TABLE_FLOW_ID = "3abea21c-7e36-4be1-bec1-d3bad0e3e0de"
"""Id of a table-based, one-time flow. It has no delta column before its first run."""

FILE_FLOW_ID = "c9cef9cb-c934-4467-8ef9-cbc934546741"
"""Id of a file-based, one-time flow."""

HOURLY_FLOW_ID = "2edc08ac-4df5-4fe6-936f-81a19ce92f5c"
"""Id of a table-based flow with an hourly schedule. It rejects on-demand runs (1386)."""

DISABLED_FLOW_ID = "7d15ab1e-0f10-4d15-8ab1-ed0000000001"
"""Id of a disabled table-based, one-time flow. It rejects runs (1380)."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of an emulator. All durations are in seconds.

    Attributes:
        client_id: id of the client with all permissions, sent as `x-api-key`.
        client_secret: secret of both clients.
        reader_id: id of a read-only client. If it creates a run, it gets a 403 response with code 1427.
        org_id: the only organization.
        sandbox: the only sandbox.
        answer_shape: format of the response to a run creation. `items` (Adobe's tutorial) is
            `{"items": [{"id", "etag"}]}` with status 200. `flat` (Adobe's OpenAPI file) is
            `{"id", "etag"}` with status 201.
        show_window: location of the window in a flow run: `params`, `activity` (in the first activity, after
            the run has left `scheduled`) or `none`.
        error_shape: format of Flow Service's errors. `report` is `{"type", "title", "status", "report",
            "error-chain"}`, `plain` is `{"code", "message"}` and `gateway` is `{"error_code", "message"}`.
            Errors of the gateway (token, API key, missing header) always have the format `gateway`.
        epoch_format: JSON type of epoch seconds in a run creation: `any`, `string` or `integer`. Other types
            are rejected.
        epoch_refusal: response to another type: `code` is status 400 with code 1384, and `validation` is the 422 of a
            server that validates requests by Adobe's OpenAPI file.
        retrigger_action: the name of the action that re-triggers a run; another name is rejected (1401).
        update_s: time that a table-based flow is `updating` after its first run was created.
        queue_s: time that a run stays `scheduled`, from its creation or `startTime`, whichever is later.
        run_s: time that a run is then `inProgress`.
        batch_s: time from the end of a run to the end of its batch in the catalogue.
        start_tolerance_s: maximum age of a `startTime`. An older one is rejected (1360).
        token_ttl_s: lifetime of a token.
        max_flow_runs: the most flow runs of a flow in flight; a further creation gets a 429. None is no ceiling.
        max_sandbox_runs: the same for all flows together.
        clock_offset_s: offset of the emulator's clock from the clock of this machine; negative if it is
            behind. The `Date` header shows the emulator's clock.

    Raises:
        ValueError: for a value that is not listed here, for a negative duration, or for a ceiling below 1.
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
    epoch_refusal: EpochRefusal = "code"
    retrigger_action: RetriggerAction = "any"
    update_s: float = 0.0
    queue_s: float = 1.0
    run_s: float = 2.0
    batch_s: float = 0.0
    start_tolerance_s: float = 60.0
    token_ttl_s: float = 86399.0
    clock_offset_s: float = 0.0
    max_flow_runs: int | None = None
    max_sandbox_runs: int | None = None

    def __post_init__(self) -> None:
        self._check_choice("answer_shape", get_args(AnswerShape))
        self._check_choice("show_window", get_args(ShowWindow))
        self._check_choice("error_shape", get_args(ErrorShape))
        self._check_choice("epoch_format", get_args(EpochFormat))
        self._check_choice("epoch_refusal", get_args(EpochRefusal))
        self._check_choice("retrigger_action", get_args(RetriggerAction))
        for name in ("queue_s", "run_s", "batch_s", "update_s", "start_tolerance_s", "token_ttl_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}.")
        for name in ("max_flow_runs", "max_sandbox_runs"):
            if (limit := getattr(self, name)) is not None and limit < 1:
                raise ValueError(f"{name} must be at least 1, but is {limit}.")

    def connection(self, url: str) -> dict[str, Any]:
        """Return the Airflow connection to an emulator at `url`; its JSON is a valid value of `AIRFLOW_CONN_...`."""
        return {
            "conn_type": "flowservice",
            "host": url,
            "login": self.client_id,
            "password": self.client_secret,
            "extra": {"org_id": self.org_id, "sandbox": self.sandbox, "ims_url": url},
        }

    def _check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if getattr(self, name) not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}.")
