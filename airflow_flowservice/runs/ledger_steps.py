# SPDX-License-Identifier: Apache-2.0
"""Steps of `create_once` that depend on entries of other task instances in the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
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
from airflow_flowservice.runs.intent import IngestedPart, Outcome
from airflow_flowservice.runs.watch import NOT_YET_READABLE
from airflow_flowservice.windows.contiguity import uncovered

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.ledger.entry import LedgerEntry
    from airflow_flowservice.runs.intent import Intent
    from airflow_flowservice.runs.ledger_intents import LedgerIntents
    from airflow_flowservice.windows.window import IngestionWindow

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
    _parts: tuple[IngestedPart, ...] = field(default=(), init=False)

    def pieces(self) -> list[IngestionWindow]:
        """Return the windows that this task has to order, by time, if it ingests only the rest of its window.

        These are the windows that it ordered before, and the contiguous pieces that neither they nor ingested windows
        of other tasks contain. So each attempt finds the same pieces. If a flow run of the task failed, and its window
        now overlaps another one, the window is not kept. Return the whole window if nothing is ingested, or all.

        :raises FlowRunActiveError: another task ingests a part of the window now.
        :raises WindowOverlapError: the result of a part is unknown, so the rest is unknown.
        """
        intents, window, exact = self.intents, self.intents.window, self.intents.entry
        if exact is not None and not intents.is_own and not self._is_failed(exact):
            return [window]
        own = intents.own
        parts, unclear = self._read_parts(entry for entry in intents.others if entry not in own)
        if unclear:
            raise _overlap_error(parts, unclear)
        taken = [*(entry.window for entry in own), *(part.window for part in parts)]
        kept = [
            entry.window
            for entry in own
            if sum(entry.window.overlaps(other) for other in taken) == 1 or not self._is_failed(entry)
        ]
        return sorted([*kept, *uncovered(window, [*kept, *(part.window for part in parts)])]) or [window]

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
        if (event := self.check_before_another()) is not CreationEvent.FREE:
            return event
        log.warning("Flow run %s of %s ended as %s; creating another", run.id, entry.owner, run.status_word)
        return CreationEvent.FAILED

    def check_before_another(
        self, *, after: CreationEvent = CreationEvent.FAILED, intent: Intent | None = None
    ) -> CreationEvent:
        """Return whether other flow runs ingested the window, before a new one replaces a failed or claimed one.

        Meanwhile, other tasks may have ingested parts of the window. If the replaced flow run was a request to ingest
        the window again, an earlier flow run has ingested it.

        :param after: event after which the task creates a flow run.
        :param intent: of the replaced flow run. If a user named that flow run, it was no request to ingest again.
        :raises FlowRunActiveError: a part of the window is being ingested.
        """
        entry, is_own = self.intents.entry, self.intents.is_own
        if is_own and after is not CreationEvent.FAILED:
            return CreationEvent.FREE  # The task's own claim: other tasks ingest no parts meanwhile.
        if entry is None or not entry.earlier:
            return self._check_overlaps()
        is_named = intent is not None and intent.adopted is not None and intent.adopted == intent.flow_run_id
        if is_own and not is_named:
            return CreationEvent.FREE  # The task's own request to ingest the window again.
        return self._ingested(entry.earlier[-1].flow_run_id, entry)

    def reuse_undelivered(self) -> CreationEvent:
        """Use the task's own flow run, if it ingested the window, and the task did not end with it."""
        entry = self.intents.entry
        if entry is None or not self.intents.is_own or entry.delivered or entry.state is not EntryState.INGESTED:
            return CreationEvent.FREE
        log.warning("Flow run %s of this task ingested this window; no new one is created", entry.flow_run_id)
        self.flow_run_id = entry.flow_run_id
        return CreationEvent.INGESTED_REUSE

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
        if self.flow_run_id is not None and self._parts:
            records = self._parts[-1].output_records
            return Outcome(
                flow_run_id=self.flow_run_id, how="reused", is_ingested=True, output_records=records, parts=self._parts
            )
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
        policy, others = self.intents.policy, self.intents.others
        if not others or policy.restate:
            return CreationEvent.FREE
        if policy.on_overlap == "restate":  # Other parts are not read, because they do not matter.
            others = [entry for entry in others if entry.state is EntryState.INGESTED]
        parts, unclear = self._read_parts(others)
        if parts and not uncovered(self.intents.window, [part.window for part in parts]):
            return self._ingested_in_parts(sorted(parts, key=lambda part: (part.window.end, part.window.start)))
        if policy.on_overlap == "restate" or not (parts or unclear):
            return CreationEvent.FREE
        self.error = _overlap_error(parts, unclear)
        return CreationEvent.OVERLAPS

    def _ingested_in_parts(self, parts: list[IngestedPart]) -> CreationEvent:
        """Return the event for a window that several windows together have ingested; parts are sorted by time."""
        policy, last = self.intents.policy, parts[-1]
        if policy.on_ingested == "restate":
            log.warning("This window is ingested in parts (%s); ingesting it again", _listed(parts))
            return CreationEvent.INGESTED_RESTATE
        if policy.on_ingested == "reuse":
            log.warning("This window is ingested in parts (%s); no new flow run is created", _listed(parts))
            self.flow_run_id, self._parts = last.flow_run_id, tuple(parts)
            return CreationEvent.INGESTED_REUSE
        self.error = WindowIngestedError(
            f"the window is ingested already, in parts: {_listed(parts)}",
            flow_run_id=last.flow_run_id,
            flow_id=last.flow_id,
        )
        return CreationEvent.INGESTED_FAIL

    def _read_parts(self, entries: Iterable[LedgerEntry]) -> tuple[list[IngestedPart], list[str]]:
        """Return the ingested ones of overlapping entries, and texts of those whose result is unknown.

        :raises FlowRunActiveError: a flow run is active, or was just claimed.
        """
        found = [part for entry in entries if (part := self._part(entry))]
        return [part for part in found if not isinstance(part, str)], [part for part in found if isinstance(part, str)]

    def _part(self, entry: LedgerEntry) -> IngestedPart | str | None:
        """Return the part that an overlapping entry ingested, or a text if this is unknown. None if it failed.

        :raises FlowRunActiveError: its flow run is active, or was just claimed.
        """
        flow_run_id, records = entry.flow_run_id, entry.output_records
        if flow_run_id is None:
            if self.now().timestamp() - entry.updated_at < self.patience:
                raise FlowRunActiveError(f"{entry.owner} has claimed {entry.window}, which overlaps this window")
            return f"{entry.window} claimed by {entry.owner}, result unknown"
        if entry.state is not EntryState.INGESTED:
            try:
                run = self.get_run(flow_run_id)
            except RunNotFoundError:
                if self.now().timestamp() - entry.updated_at <= NOT_YET_READABLE:
                    raise FlowRunActiveError(
                        f"flow run {flow_run_id} of {entry.owner} for {entry.window}, which overlaps this window, "
                        "cannot be read yet",
                        flow_run_id=flow_run_id,
                    ) from None
                return f"{entry.window} by flow run {flow_run_id} of {entry.owner}, which Flow Service no longer has"
            if not run.status.ended:
                raise FlowRunActiveError(
                    f"flow run {flow_run_id} is active for {entry.window}, which overlaps this window",
                    flow_run_id=flow_run_id,
                )
            records = run.output_records
            if self.has_failed(run):
                if not entry.earlier:
                    return None
                flow_run_id, records = entry.earlier[-1].flow_run_id, None
            elif not run.status.succeeded:
                return f"{entry.window} by flow run {flow_run_id} of {entry.owner}, result unknown"
        return IngestedPart(
            window=entry.window,
            flow_id=entry.dataflow.flow_id,
            flow_run_id=flow_run_id,
            owner=entry.owner,
            output_records=records,
        )

    def _is_failed(self, entry: LedgerEntry) -> bool:
        """Return whether nothing of an entry's window is ingested, since its flow run failed."""
        if entry.state is EntryState.INGESTED or entry.flow_run_id is None or entry.earlier:
            return False
        try:
            return self.has_failed(self.get_run(entry.flow_run_id))
        except RunNotFoundError:
            return False


def _overlap_error(parts: Sequence[IngestedPart], unclear: Sequence[str]) -> WindowOverlapError:
    texts = sorted([*map(str, parts), *unclear])
    return WindowOverlapError(f"parts of the window are ingested: {_listed(texts)}")


def _listed(parts: Sequence[object]) -> str:
    more = f"; and {len(parts) - _MAX_LISTED} more" if len(parts) > _MAX_LISTED else ""
    return f"{'; '.join(map(str, parts[:_MAX_LISTED]))}{more}"
