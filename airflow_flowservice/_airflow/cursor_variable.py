# SPDX-License-Identifier: Apache-2.0
"""Progress of a `FlowRunsTrigger` in an Airflow Variable, so that another triggerer continues with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from airflow_flowservice._airflow.variables import read_variable, variable_keys, write_variable
from airflow_flowservice.exceptions import ConfigurationError, LedgerUnavailableError
from airflow_flowservice.runs.event_cursor import EventCursor

# As in `variable_ledger`, a key has no word for which Airflow masks the value.
WATCHER_PREFIX = "flowservice.watcher."


class CursorVariable:
    """Variable with the progress of one watched dataflow. Blocks, so call it by `versions.in_thread`.

    Airflow's `asset_state_store` needs 3.3, and its rows are deleted when no active DAG uses the asset.

    :param identity: JSON values that distinguish this progress from that of other triggers.
    :param description: stored without encryption.
    """

    def __init__(self, identity: Mapping[str, Any], *, description: str) -> None:
        self.key = WATCHER_PREFIX + sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]
        self._description = description

    def read(self) -> EventCursor | None:
        """Return the progress; None if there is no Variable.

        Before Airflow 3.3, None does not prove that there is none.

        :raises LedgerUnavailableError: Airflow does not respond, or cannot read the Variable.
        :raises ConfigurationError: the Variable has another value.
        """
        text = read_variable(self.key)
        if text is None:
            if self.key in (variable_keys(self.key) or ()):
                raise LedgerUnavailableError(f"Airflow has the Variable {self.key}, but cannot read it")
            return None
        try:
            return EventCursor.from_json(json.loads(text))
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"the Variable {self.key} does not contain the progress of a FlowRunsTrigger",
                remedy=f"delete it with `airflow variables delete {self.key}`; then events begin as at a first start",
            ) from None

    def write(self, cursor: EventCursor) -> None:
        """Store the progress.

        :raises LedgerUnavailableError: Airflow does not respond, or denies access.
        """
        write_variable(self.key, json.dumps(cursor.to_json()), description=self._description)
