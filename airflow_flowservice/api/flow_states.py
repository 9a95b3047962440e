# SPDX-License-Identifier: Apache-2.0
"""States of a dataflow that end without an action of a user.

Source: https://developer.adobe.com/experience-platform-apis/references/flow-service/. The first flow run of a
table-based dataflow changes the dataflow, which can be `updating` meanwhile.
"""

from __future__ import annotations

import re

PASSING_STATES = ("initializing", "pending", "enabling", "enabled-finalizing", "updating")

_PLAIN_STATES = frozenset(re.sub(r"[\W_]", "", state) for state in PASSING_STATES)
_IN_TEXT = re.compile(
    r"(?<![\w-])(?:" + "|".join(state.replace("-", "[-_ ]?") for state in PASSING_STATES) + r")(?![\w-])",
    re.IGNORECASE,
)

# Adobe's documents have such a message for another API: a run is already in progress for a dataflow.
_ACTIVE_RUN = re.compile(
    r"\b(?:already|currently|still)\s+(?:running|going\s+on|in[\s-]?progress|active)\b"
    r"|\banother\s+(?:flow[\s-]?)?run\b|\brun\b[^.]{0,60}\bis\s+in[\s-]?progress\b",
    re.IGNORECASE,
)


def is_passing_state(state: str) -> bool:
    """Return whether a dataflow's state is a passing one, ignoring case and punctuation."""
    return re.sub(r"[\W_]", "", state).lower() in _PLAIN_STATES


def names_passing_state(message: str) -> bool:
    """Return whether a message of Flow Service contains the name of a passing state."""
    return _IN_TEXT.search(message) is not None


def names_active_run(message: str) -> bool:
    """Return whether a message of Flow Service states that a run of the dataflow is active."""
    return _ACTIVE_RUN.search(message) is not None
