# SPDX-License-Identifier: Apache-2.0
"""Decisions of `create_once` as a table: state and event to the next state.

In each state, `CreateOnce` performs one action, which returns an event. An error of an action that is not
an event ends the attempt. The drawing in docs/guarantees.md is made from `TRANSITIONS`
(tests/unit/runs/test_creation_states.py).
"""

from __future__ import annotations

from enum import Enum
from typing import Literal


class CreationState(Enum):
    """States of one attempt. The values are the texts of the drawing."""

    READ_INTENT = "read the stored intent"
    READ_NAMED_RUN = "read the named flow run"
    READ_LEDGER = "read the ledger"
    READ_OTHER_RUN = "read the other task's flow run"
    AWAIT_CLAIM = "wait for the other task's claim"
    CHECK_INTENT = "check the intent"
    READ_FLOW_RUN = "read the intent's flow run"
    CREATE = "store an intent, POST"
    CREATE_LATER = "POST with a later start time"
    COMPARE = "compare the flow runs"
    # Final states.
    CREATED = "CREATED"
    RESUMED = "RESUMED"
    ADOPTED = "ADOPTED"
    REUSED = "REUSED"
    ASKED = "ASKED"
    FAILED = "FAILED"


class CreationEvent(Enum):
    """Results of an action. The values are the texts of the drawing."""

    RUN_NAMED = "the conf names a flow run"
    NO_RUN_NAMED = "no flow run is named"

    USABLE = "running or succeeded"
    FAILED = "failed"
    ANOTHER_TASKS = "of another dataflow or window"

    FREE = "no other task's entry"
    OTHERS_FLOW_RUN = "another task's flow run"
    OTHERS_CLAIM = "another task's claim"
    INGESTED_REUSE = "ingested, on_ingested=reuse"
    INGESTED_FAIL = "ingested, on_ingested=fail or skip"
    INGESTED_RESTATE = "ingested, ingest again"
    OVERLAPS = "parts ingested, on_overlap=fail"
    GONE = "does not exist"
    CLAIM_CHANGED = "the claim changed"
    CLAIM_STAYS = "unchanged, after patience"

    NO_INTENT = "no intent"
    WITH_ID = "with a flow run id"
    WITHOUT_ID = "without a flow run id"

    RUNNING = "running"
    NOT_READABLE = "not readable yet"
    SUCCEEDED = "succeeded"
    OUTCOME_UNKNOWN = "ended without a status"
    CLEARED_AFTER_SUCCESS = "ended, task cleared"
    CLEARED_AND_GONE = "does not exist, task cleared"

    ID_RETURNED = "an id"
    START_TIME_PASSED = "start time is in the past"
    REFUSED = "refused (4xx) or not sent"
    UNKNOWN = "outcome unknown"
    UNKNOWN_AGAIN = "outcome unknown, third POST"

    MATCH = "one has this window and start time"
    NO_CANDIDATE = "no new flow run, after patience"
    CANDIDATES_FAIL = "hidden windows, on_uncertain=fail"
    CANDIDATES_ADOPT = "hidden windows, on_uncertain=adopt"
    CANDIDATES_CREATE = "hidden windows, on_uncertain=create"
    CANDIDATES_ASK = "hidden windows, on_uncertain=ask"
    ASKED_BEFORE = "an earlier attempt asked"
    ANSWER_ADOPT = "a person chose a flow run"
    ANSWER_CREATE = "a person chose create"


INITIAL = CreationState.READ_INTENT
FINAL = frozenset(
    {
        CreationState.CREATED,
        CreationState.RESUMED,
        CreationState.ADOPTED,
        CreationState.REUSED,
        CreationState.ASKED,
        CreationState.FAILED,
    }
)

HOW: dict[CreationState, Literal["created", "resumed", "adopted", "reused"]] = {
    CreationState.CREATED: "created",
    CreationState.RESUMED: "resumed",
    CreationState.ADOPTED: "adopted",
    CreationState.REUSED: "reused",
}

TRANSITIONS: dict[CreationState, dict[CreationEvent, CreationState]] = {
    CreationState.READ_INTENT: {
        CreationEvent.RUN_NAMED: CreationState.READ_NAMED_RUN,
        CreationEvent.NO_RUN_NAMED: CreationState.READ_LEDGER,
    },
    CreationState.READ_NAMED_RUN: {
        CreationEvent.USABLE: CreationState.ADOPTED,
        CreationEvent.FAILED: CreationState.READ_LEDGER,
        CreationEvent.ANOTHER_TASKS: CreationState.FAILED,
    },
    CreationState.READ_LEDGER: {
        CreationEvent.FREE: CreationState.CHECK_INTENT,
        CreationEvent.OTHERS_FLOW_RUN: CreationState.READ_OTHER_RUN,
        CreationEvent.OTHERS_CLAIM: CreationState.AWAIT_CLAIM,
        CreationEvent.INGESTED_REUSE: CreationState.REUSED,
        CreationEvent.INGESTED_FAIL: CreationState.FAILED,
        CreationEvent.INGESTED_RESTATE: CreationState.CREATE,
        CreationEvent.OVERLAPS: CreationState.FAILED,
    },
    CreationState.READ_OTHER_RUN: {
        CreationEvent.RUNNING: CreationState.REUSED,
        CreationEvent.NOT_READABLE: CreationState.REUSED,
        CreationEvent.INGESTED_REUSE: CreationState.REUSED,
        CreationEvent.INGESTED_FAIL: CreationState.FAILED,
        CreationEvent.INGESTED_RESTATE: CreationState.CREATE,
        CreationEvent.FAILED: CreationState.CREATE,
        CreationEvent.OVERLAPS: CreationState.FAILED,
        CreationEvent.OUTCOME_UNKNOWN: CreationState.FAILED,
        CreationEvent.GONE: CreationState.FAILED,
    },
    CreationState.AWAIT_CLAIM: {
        CreationEvent.CLAIM_CHANGED: CreationState.READ_LEDGER,
        CreationEvent.CLAIM_STAYS: CreationState.COMPARE,
    },
    CreationState.CHECK_INTENT: {
        CreationEvent.NO_INTENT: CreationState.CREATE,
        CreationEvent.WITH_ID: CreationState.READ_FLOW_RUN,
        CreationEvent.WITHOUT_ID: CreationState.COMPARE,
    },
    CreationState.READ_FLOW_RUN: {
        CreationEvent.RUNNING: CreationState.RESUMED,
        CreationEvent.NOT_READABLE: CreationState.RESUMED,
        CreationEvent.SUCCEEDED: CreationState.RESUMED,
        CreationEvent.OUTCOME_UNKNOWN: CreationState.RESUMED,
        CreationEvent.FAILED: CreationState.CREATE,
        CreationEvent.INGESTED_REUSE: CreationState.REUSED,
        CreationEvent.INGESTED_FAIL: CreationState.FAILED,
        CreationEvent.INGESTED_RESTATE: CreationState.CREATE,
        CreationEvent.OVERLAPS: CreationState.FAILED,
        CreationEvent.CLEARED_AFTER_SUCCESS: CreationState.CREATE,
        CreationEvent.CLEARED_AND_GONE: CreationState.CREATE,
    },
    CreationState.CREATE: {
        CreationEvent.ID_RETURNED: CreationState.CREATED,
        CreationEvent.START_TIME_PASSED: CreationState.CREATE_LATER,
        CreationEvent.REFUSED: CreationState.FAILED,
        CreationEvent.UNKNOWN: CreationState.COMPARE,
        CreationEvent.UNKNOWN_AGAIN: CreationState.FAILED,
    },
    CreationState.CREATE_LATER: {
        CreationEvent.ID_RETURNED: CreationState.CREATED,
        CreationEvent.REFUSED: CreationState.FAILED,
        CreationEvent.UNKNOWN: CreationState.COMPARE,
        CreationEvent.UNKNOWN_AGAIN: CreationState.FAILED,
    },
    CreationState.COMPARE: {
        CreationEvent.MATCH: CreationState.ADOPTED,
        CreationEvent.NO_CANDIDATE: CreationState.CREATE,
        CreationEvent.INGESTED_REUSE: CreationState.REUSED,
        CreationEvent.INGESTED_FAIL: CreationState.FAILED,
        CreationEvent.INGESTED_RESTATE: CreationState.CREATE,
        CreationEvent.OVERLAPS: CreationState.FAILED,
        CreationEvent.CANDIDATES_FAIL: CreationState.FAILED,
        CreationEvent.CANDIDATES_ADOPT: CreationState.ADOPTED,
        CreationEvent.CANDIDATES_CREATE: CreationState.CREATE,
        CreationEvent.CANDIDATES_ASK: CreationState.ASKED,
        CreationEvent.ASKED_BEFORE: CreationState.ASKED,
        CreationEvent.ANSWER_ADOPT: CreationState.ADOPTED,
        CreationEvent.ANSWER_CREATE: CreationState.CREATE,
    },
}
