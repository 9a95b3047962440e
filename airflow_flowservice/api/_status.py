"""What Adobe's status words mean; public as `models.FlowRunStatus`."""

from __future__ import annotations

from enum import Enum
from typing import Any


class FlowRunStatus(str, Enum):
    """Where a flow run stands. An unknown word is neither ended nor succeeded."""

    SCHEDULED = "scheduled"
    IN_PROGRESS = "in_progress"
    SUCCESS = "success"
    PARTIAL_SUCCESS = "partial_success"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, word: Any) -> FlowRunStatus:
        """Adobe's word without regard to case, `_`, `-` and spaces; anything else is `UNKNOWN`.

        `QUEUED` is scheduled and `COMPLETED` a success. `PARTIAL_FAILURE` is a failure: a word that
        says so is never reported as success.
        """
        if not isinstance(word, str):
            return cls.UNKNOWN
        return _STATUS_OF_WORD.get(word.lower().translate(_PASSED_OVER), cls.UNKNOWN)

    @property
    def ended(self) -> bool:
        """Nothing more will happen to the run."""
        return self.succeeded or self.failed

    @property
    def succeeded(self) -> bool:
        """It ended and its data are in; partial success too (look at `failed_records`)."""
        return self in (FlowRunStatus.SUCCESS, FlowRunStatus.PARTIAL_SUCCESS)

    @property
    def failed(self) -> bool:
        """It ended as failed."""
        return self is FlowRunStatus.FAILED


_PASSED_OVER = str.maketrans("", "", "_- \t\r\n")
_STATUS_OF_WORD = {
    "scheduled": FlowRunStatus.SCHEDULED,
    "queued": FlowRunStatus.SCHEDULED,
    "inprogress": FlowRunStatus.IN_PROGRESS,
    "success": FlowRunStatus.SUCCESS,
    "completed": FlowRunStatus.SUCCESS,
    "partialsuccess": FlowRunStatus.PARTIAL_SUCCESS,
    "failed": FlowRunStatus.FAILED,
    "partialfailure": FlowRunStatus.FAILED,
}
