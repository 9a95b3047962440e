# SPDX-License-Identifier: Apache-2.0
"""Store of the intents that the attempts of a task share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import AttemptOvertakenError
from airflow_flowservice.runs.intent import Intent

if TYPE_CHECKING:
    from airflow_flowservice.runs.intent import Store

log = logging.getLogger(__name__)

STORE_KEY = "flowservice_intent"
# About as long as one message to the API server takes (10 to 60 ms), in seconds.
_FRESH_S = 0.1
_OVERTAKEN = "another attempt of this task has taken over; this one sent nothing"


@dataclass(kw_only=True)
class IntentStore:
    """Intent of one order in a task's store, with the value that this attempt last read or wrote.

    The first order of a task uses the key `flowservice_intent`, as all versions do. If a task creates several flow
    runs, each further order has a separate key: `flowservice_intent_` and a hash of the order.

    :param store: None before Airflow 3.3 with `intent_store` `none`; then nothing is read or written.
    :param order: key of the order (`Order.key`).
    :param is_first: no earlier attempt of the task can have stored a value, except an earlier start of this attempt;
        and the intent is written directly after it was read.
    :param clocks: for the age of a reading: the monotonic clock, in seconds, and the wall clock. A monotonic clock may
        stop while a machine is suspended.
    """

    store: Store | None
    order: str
    is_first: bool = False
    clocks: tuple[Callable[[], float], Callable[[], datetime]] = (time.monotonic, partial(datetime.now, timezone.utc))
    _key: str = field(default=STORE_KEY, init=False)
    _last_seen: Any = field(default=None, init=False)
    _read_at: tuple[float, float] | None = field(default=None, init=False)
    _had_value: bool = field(default=False, init=False)

    @property
    def is_durable(self) -> bool:
        """Return whether the intent survives the attempt."""
        return self.store is not None

    @property
    def delivered(self) -> bool:
        """Return True, because a task's state does not show whether the task ended as a success."""
        return True

    def replaces(self, flow_run_id: str) -> None:
        """Do nothing: only a ledger records which flow run is replaced."""

    def read(self, *, otherwise: Intent) -> Intent | None:
        """Return the order's intent of an earlier attempt, or None.

        :param otherwise: returned if there is a value that cannot be parsed.
        """
        if self.store is None:
            return None
        separate_key = f"{STORE_KEY}_{sha256(self.order.encode()).hexdigest()[:16]}"
        self._read_at = self._seconds()
        first = self.store.get(STORE_KEY)
        # A further order is stored only beside a first one, and `drop` never removes a first one that existed before.
        # Versions that removed it may have left a further one for later attempts.
        separate = None if first is None and self.is_first else self.store.get(separate_key)
        intent = Intent.from_json(first)
        if separate is not None or (intent is not None and intent.order != self.order):
            self._key, self._last_seen = separate_key, separate
            intent = Intent.from_json(separate)
        else:
            self._key, self._last_seen = STORE_KEY, first
        self._had_value = self._last_seen is not None
        if self._last_seen is None or intent is not None:
            return intent if intent is not None and intent.order == self.order else None
        log.warning("The stored intent is missing or cannot be parsed, so the dataflow's flow runs are compared")
        return otherwise

    def write(self, intent: Intent) -> None:
        """Write the intent, and read it back.

        The value is read before, unless a first attempt read it at most `_FRESH_S` ago. This is as safe as another
        message: its response is also that old when the next message leaves.

        :raises AttemptOvertakenError: another attempt wrote meanwhile, for instance while this worker hung.
        """
        if self.store is None:
            return
        if not (self.is_first and self._has_fresh_value()) and self.store.get(self._key) != self._last_seen:
            raise AttemptOvertakenError(_OVERTAKEN)
        self._read_at = None
        self._last_seen = intent.to_json()
        self.store.set(self._key, self._last_seen)
        if self.store.get(self._key) != self._last_seen:
            raise AttemptOvertakenError(_OVERTAKEN)

    def _has_fresh_value(self) -> bool:
        """Return whether both clocks show that the value was read at most `_FRESH_S` ago."""
        if self._read_at is None:
            return False
        # A wall clock that was set back shows no age.
        return all(0 <= now - then <= _FRESH_S for now, then in zip(self._seconds(), self._read_at, strict=True))

    def _seconds(self) -> tuple[float, float]:
        monotonic, wall = self.clocks
        return monotonic(), wall().timestamp()

    def require_no_overlapping_claim(self) -> None:
        """Do nothing: only a ledger has other windows."""

    def drop(self) -> None:
        """Remove the intent of a refused request. Only log errors of the store."""
        if self.store is None:
            return
        try:
            if self._key == STORE_KEY and self._had_value:
                # An intent of no order: a further order of this task may be stored, and is found only beside a first.
                self._last_seen = Intent(order="", max_tries=0, token="", written_at=0.0).to_json()
                self.store.set(self._key, self._last_seen)
            else:
                self.store.delete(self._key)
                self._last_seen = None
        except Exception as error:  # The task must report the refusal. A retry compares, and finds no flow run.
            log.warning("The intent of a refused request could not be removed: %s", error)

    def complete(self, intent: Intent, *, flow_run_id: str) -> None:
        """Add the flow run to the intent. Only log errors of the store."""
        if self.store is None:
            return
        try:
            self.store.set(self._key, replace(intent, flow_run_id=flow_run_id).to_json())
        except Exception as error:  # The flow run exists. The intent stored before the POST still protects it.
            log.warning("Flow run %s could not be stored (%s); a retry will find it by its intent", flow_run_id, error)
