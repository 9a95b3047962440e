"""What the attempts of a task tell each other of an intent, through a store that survives them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import AttemptOvertakenError
from airflow_flowservice.runs.intent import Intent

if TYPE_CHECKING:
    from airflow_flowservice.runs.intent import Store

log = logging.getLogger(__name__)

STORE_KEY = "flowservice_intent"
_OVERTAKEN = "another attempt of this task has taken over; this one sent nothing"


@dataclass(kw_only=True)
class Record:
    """One intent in a store, and what this attempt last saw of it.

    :param store: None where Airflow has none (before 3.3): then nothing is written, and nothing is there to read.
    """

    store: Store | None
    _last_seen: Any = field(default=None, init=False)

    def read(self, *, otherwise: Intent) -> Intent | None:
        """The intent of an earlier attempt, or None.

        :param otherwise: what stands for one that is there and cannot be read.
        """
        self._last_seen = None if self.store is None else self.store.get(STORE_KEY)
        if self._last_seen is None:
            return None
        if intent := Intent.from_json(self._last_seen):
            return intent
        log.warning("The stored intent cannot be read (another version's?), so the flow's runs are compared instead")
        return otherwise

    def write(self, intent: Intent) -> None:
        """Write the intent, unless the task was started again elsewhere while this worker hung.

        :raises AttemptOvertakenError: it was.
        """
        if self.store is None:
            return
        if self.store.get(STORE_KEY) != self._last_seen:
            raise AttemptOvertakenError(_OVERTAKEN)
        self._last_seen = intent.to_json()
        self.store.set(STORE_KEY, self._last_seen)
        if self.store.get(STORE_KEY) != self._last_seen:
            raise AttemptOvertakenError(_OVERTAKEN)

    def drop(self) -> None:
        """Remove the intent of a request that was refused; an error of the store is logged only."""
        if self.store is None:
            return
        try:
            self.store.delete(STORE_KEY)
            self._last_seen = None
        except Exception as error:  # Flow Service's refusal is the news; a retry compares, and finds nothing.
            log.warning("The intent of a refused request could not be dropped: %s", error)

    def complete(self, intent: Intent, *, flow_run_id: str) -> None:
        """Add the run to the intent; an error of the store is logged only."""
        if self.store is None:
            return
        try:
            self.store.set(STORE_KEY, replace(intent, flow_run_id=flow_run_id).to_json())
        except Exception as error:  # The run exists: what was written before the POST still protects it.
            log.warning("Flow run %s could not be stored (%s); a retry will find it by its intent", flow_run_id, error)
