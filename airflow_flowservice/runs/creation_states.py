"""Decisions of `create_once` as a table: state and event to the next state.

In each state, `CreateOnce` performs one action, which returns an event. An error of an action that is not
an event ends the attempt. The drawing in docs/guarantees.md is made from `TRANSITIONS`
(tests/unit/runs/test_creation_states.py).
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """States of one attempt. The values are the texts of the drawing."""

    READ_INTENT = "read the stored intent"
    READ_NAMED_RUN = "read the named flow run"
    CHECK_INTENT = "check the intent"
    READ_FLOW_RUN = "read the intent's flow run"
    CREATE = "store an intent, POST"
    CREATE_LATER = "POST with a later start time"
    COMPARE = "compare the flow runs"
    # Final states.
    CREATED = "CREATED"
    RESUMED = "RESUMED"
    ADOPTED = "ADOPTED"
    FAILED = "FAILED"


class Event(Enum):
    """Results of an action. The values are the texts of the drawing."""

    RUN_NAMED = "the conf names a flow run"
    NO_RUN_NAMED = "no flow run is named"

    USABLE = "running or succeeded"
    FAILED = "failed"
    ANOTHER_TASKS = "of another dataflow or window"

    NO_INTENT = "no intent"
    WITH_ID = "with a flow run id"
    WITHOUT_ID = "without a flow run id"

    RUNNING = "running"
    NOT_READABLE = "not readable yet"
    SUCCEEDED = "succeeded"
    CLEARED_AFTER_SUCCESS = "succeeded, task cleared"
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


INITIAL = State.READ_INTENT
FINAL = frozenset({State.CREATED, State.RESUMED, State.ADOPTED, State.FAILED})

TRANSITIONS: dict[State, dict[Event, State]] = {
    State.READ_INTENT: {
        Event.RUN_NAMED: State.READ_NAMED_RUN,
        Event.NO_RUN_NAMED: State.CHECK_INTENT,
    },
    State.READ_NAMED_RUN: {
        Event.USABLE: State.ADOPTED,
        Event.FAILED: State.CHECK_INTENT,
        Event.ANOTHER_TASKS: State.FAILED,
    },
    State.CHECK_INTENT: {
        Event.NO_INTENT: State.CREATE,
        Event.WITH_ID: State.READ_FLOW_RUN,
        Event.WITHOUT_ID: State.COMPARE,
    },
    State.READ_FLOW_RUN: {
        Event.RUNNING: State.RESUMED,
        Event.NOT_READABLE: State.RESUMED,
        Event.SUCCEEDED: State.RESUMED,
        Event.FAILED: State.CREATE,
        Event.CLEARED_AFTER_SUCCESS: State.CREATE,
        Event.CLEARED_AND_GONE: State.CREATE,
    },
    State.CREATE: {
        Event.ID_RETURNED: State.CREATED,
        Event.START_TIME_PASSED: State.CREATE_LATER,
        Event.REFUSED: State.FAILED,
        Event.UNKNOWN: State.COMPARE,
        Event.UNKNOWN_AGAIN: State.FAILED,
    },
    State.CREATE_LATER: {
        Event.ID_RETURNED: State.CREATED,
        Event.REFUSED: State.FAILED,
        Event.UNKNOWN: State.COMPARE,
        Event.UNKNOWN_AGAIN: State.FAILED,
    },
    State.COMPARE: {
        Event.MATCH: State.ADOPTED,
        Event.NO_CANDIDATE: State.CREATE,
        Event.CANDIDATES_FAIL: State.FAILED,
        Event.CANDIDATES_ADOPT: State.ADOPTED,
        Event.CANDIDATES_CREATE: State.CREATE,
    },
}
