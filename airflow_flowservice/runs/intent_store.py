"""Store of the intent that the attempts of a task share."""

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
class IntentStore:
    """One intent in a store, with the value that this attempt last read or wrote.

    :param store: None if Airflow has none (before 3.3); then nothing is read or written.
    """

    store: Store | None
    _last_seen: Any = field(default=None, init=False)

    def read(self, *, otherwise: Intent) -> Intent | None:
        """Return the intent of an earlier attempt, or None.

        :param otherwise: returned if there is a value that cannot be parsed.
        """
        self._last_seen = None if self.store is None else self.store.get(STORE_KEY)
        if self._last_seen is None:
            return None
        if intent := Intent.from_json(self._last_seen):
            return intent
        log.warning("The stored intent cannot be parsed (another version's?), so the dataflow's flow runs are compared")
        return otherwise

    def write(self, intent: Intent) -> None:
        """Write the intent, and read it back.

        :raises AttemptOvertakenError: another attempt wrote meanwhile, for instance while this worker hung.
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
        """Remove the intent of a refused request. Only log errors of the store."""
        if self.store is None:
            return
        try:
            self.store.delete(STORE_KEY)
            self._last_seen = None
        except Exception as error:  # The task must report the refusal. A retry compares, and finds no flow run.
            log.warning("The intent of a refused request could not be removed: %s", error)

    def complete(self, intent: Intent, *, flow_run_id: str) -> None:
        """Add the flow run to the intent. Only log errors of the store."""
        if self.store is None:
            return
        try:
            self.store.set(STORE_KEY, replace(intent, flow_run_id=flow_run_id).to_json())
        except Exception as error:  # The flow run exists. The intent stored before the POST still protects it.
            log.warning("Flow run %s could not be stored (%s); a retry will find it by its intent", flow_run_id, error)
