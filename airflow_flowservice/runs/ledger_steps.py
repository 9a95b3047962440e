"""Steps of `create_once` that depend on entries of other task instances in the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from airflow_flowservice.exceptions import (
    FlowRunActiveError,
    FlowRunOutcomeUnknownError,
    FlowRunVanishedError,
    FlowServiceError,
    RunNotFoundError,
    WindowIngestedError,
    WindowOverlapError,
)
from airflow_flowservice.ledger.entry import EntryState
from airflow_flowservice.runs.creation_states import CreationEvent
from airflow_flowservice.runs.intent import Outcome
from airflow_flowservice.runs.watch import NOT_YET_READABLE

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.runs.intent import Intent
    from airflow_flowservice.runs.ledger_intents import LedgerIntents

log = logging.getLogger(__name__)

_MAX_LISTED = 20


@dataclass(kw_only=True)
class LedgerSteps:
    """Decide by the ledger whether the task may create the flow run of its window.

    :param get_run: read a flow run, with the error budget of the task.
    :param has_failed: return whether a flow run has ended and ingested nothing.
    :param is_first_try: True also for a DAG run that was deleted from Airflow's database and created again.
    :param patience: seconds after which a claim without a flow run id is compared with the dataflow's flow runs.
    :param flow_run_id: result: the flow run to use instead of a new one.
    :param error: result: the reason why the attempt fails.
    """

    intents: LedgerIntents
    get_run: Callable[[str], FlowRun]
    has_failed: Callable[[FlowRun], bool]
    is_first_try: bool
    patience: float
    poll: float = 5.0
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    flow_run_id: str | None = field(default=None, init=False)
    error: FlowServiceError | None = field(default=None, init=False)

    def read_ledger(self) -> CreationEvent:
        """Return how the ledger knows the window.

        :raises FlowRunActiveError: a part of the window is being ingested.
        """
        entry = self.intents.entry
        if entry is None:
            return self._check_overlaps()
        if self.intents.is_own:
            return self._own(entry)
        if entry.state is EntryState.INGESTED and entry.flow_run_id:
            return self._ingested(entry.flow_run_id, entry)
        if entry.flow_run_id:
            self.flow_run_id = entry.flow_run_id
            return CreationEvent.OTHERS_FLOW_RUN
        return CreationEvent.OTHERS_CLAIM

    def read_other_run(self) -> CreationEvent:
        """Read the flow run that another task instance created for exactly this window."""
        entry, flow_run_id = self.intents.entry, self.flow_run_id
        if entry is None or flow_run_id is None:
            raise TypeError("the ledger has no flow run for the window")
        try:
            run = self.get_run(flow_run_id)
        except RunNotFoundError:
            if self.now().timestamp() - entry.updated_at <= NOT_YET_READABLE:
                return CreationEvent.NOT_READABLE
            self.error = FlowRunVanishedError(
                f"{entry.owner} created flow run {flow_run_id} for this window, and Flow Service no longer has it",
                flow_run_id=flow_run_id,
            )
            return CreationEvent.GONE
        if not run.status.ended:
            log.warning(
                "Using flow run %s (%s), which %s created for this window", run.id, run.status_word, entry.owner
            )
            return CreationEvent.RUNNING
        if not self.has_failed(run):
            return self._ingested(run.id, entry) if run.status.succeeded else self._unclear(run)
        if entry.earlier:
            return self._ingested(entry.earlier[-1].flow_run_id, entry)
        log.warning("Flow run %s of %s ended as %s; creating another", run.id, entry.owner, run.status_word)
        return CreationEvent.FAILED

    def await_claim(self) -> CreationEvent:
        """Wait until the other task instance's claim changes, or is older than `patience`."""
        claim = self.intents.entry
        if claim is None:
            return CreationEvent.CLAIM_CHANGED
        log.warning("%s has claimed this window; waiting for its flow run", claim.owner)
        # A claim from the future, by a wrong clock, must not be waited for longer.
        remaining = min(self.patience, self.patience - (self.now().timestamp() - claim.updated_at))
        end = self.monotonic() + remaining
        while self.monotonic() < end:
            self.sleep(min(self.poll, max(0.0, end - self.monotonic())))
            self.intents.refresh()
            current = self.intents.entry
            if current is None or current.version != claim.version:
                return CreationEvent.CLAIM_CHANGED
        return CreationEvent.CLAIM_STAYS

    def outcome(self) -> Outcome:
        """Return the flow run to use instead of a new one, with what the ledger knows about it."""
        entry = self.intents.entry
        if self.flow_run_id is None or entry is None:
            raise TypeError("the ledger has no flow run for the window")
        is_ingested = entry.state is EntryState.INGESTED and entry.flow_run_id == self.flow_run_id
        return Outcome(
            flow_run_id=self.flow_run_id,
            how="reused",
            is_ingested=is_ingested,
            output_records=entry.output_records if is_ingested else None,
        )

    def other_intent(self, *, otherwise: Intent) -> Intent:
        """Return the intent of the other task instance's claim.

        :param otherwise: returned if there is no claim any more.
        """
        entry = self.intents.entry
        return otherwise if entry is None else self.intents.intent_of(entry, otherwise=otherwise)

    def _unclear(self, run: FlowRun) -> CreationEvent:
        self.error = FlowRunOutcomeUnknownError(
            f"flow run {run.id} ended without a status, so it may have ingested this window", flow_run_id=run.id
        )
        return CreationEvent.OUTCOME_UNKNOWN

    def _own(self, entry: LedgerEntry) -> CreationEvent:
        if not self.is_first_try or entry.state is not EntryState.INGESTED or entry.flow_run_id is None:
            return CreationEvent.FREE
        log.warning("Flow run %s of this task ingested this window; no new one is created", entry.flow_run_id)
        self.flow_run_id = entry.flow_run_id
        return CreationEvent.INGESTED_REUSE

    def _ingested(self, flow_run_id: str, entry: LedgerEntry) -> CreationEvent:
        policy = self.intents.policy
        if policy.allows_restating:
            log.warning("Flow run %s of %s ingested this window; ingesting it again", flow_run_id, entry.owner)
            self.intents.replaces(flow_run_id)
            return CreationEvent.INGESTED_RESTATE
        self.flow_run_id = flow_run_id
        if policy.on_ingested == "reuse":
            log.warning("Flow run %s of %s ingested this window; no new one is created", flow_run_id, entry.owner)
            return CreationEvent.INGESTED_REUSE
        self.error = WindowIngestedError(
            f"the window is ingested already, by {entry.owner}", flow_run_id=flow_run_id, flow_id=entry.dataflow.flow_id
        )
        return CreationEvent.INGESTED_FAIL

    def _check_overlaps(self) -> CreationEvent:
        others = self.intents.others
        if not others or self.intents.policy.allows_overlaps:
            return CreationEvent.FREE
        parts = [part for entry in others if (part := self._part(entry))]
        if not parts:
            return CreationEvent.FREE
        more = f"; and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
        self.error = WindowOverlapError(f"parts of the window are ingested: {'; '.join(parts[:_MAX_LISTED])}{more}")
        return CreationEvent.OVERLAPS

    def _part(self, entry: LedgerEntry) -> str | None:
        """Return the text of an overlapping entry that is ingested or unclear, or None if its flow run failed.

        :raises FlowRunActiveError: its flow run is active, or was just claimed.
        """
        flow_run_id = entry.flow_run_id
        if flow_run_id is None:
            if self.now().timestamp() - entry.updated_at < self.patience:
                raise FlowRunActiveError(f"{entry.owner} has claimed {entry.window}, which overlaps this window")
            return f"{entry.window} claimed by {entry.owner}, result unknown"
        if entry.state is not EntryState.INGESTED:
            run = self.get_run(flow_run_id)
            if not run.status.ended:
                raise FlowRunActiveError(
                    f"flow run {flow_run_id} is active for {entry.window}, which overlaps this window",
                    flow_run_id=flow_run_id,
                )
            if self.has_failed(run) and not entry.earlier:
                return None
        return f"{entry.window} by flow run {flow_run_id} of {entry.owner}"
