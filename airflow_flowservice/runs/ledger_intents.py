# SPDX-License-Identifier: Apache-2.0
"""Intent of one window in the ledger, and what the ledger allows a task to do with the window."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from airflow_flowservice.exceptions import AttemptOvertakenError, FlowRunActiveError, LedgerConflictError, LedgerError
from airflow_flowservice.ledger.entry import EarlierRun, EntryState, LedgerEntry
from airflow_flowservice.runs.intent import Intent

if TYPE_CHECKING:
    from airflow_flowservice.ledger.entry import DataflowKey
    from airflow_flowservice.ledger.store import Ledger
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

# Bounds the entry's size. An ingestion of a longer window is shown as duplicated beyond these parts.
_MAX_RESTATED = 1000
_OVERTAKEN = "another attempt or task has claimed this window in the ledger; this one sent nothing"

OnIngested = Literal["reuse", "fail", "skip", "restate"]
OnOverlap = Literal["fail", "rest", "restate"]


@dataclass(frozen=True, kw_only=True)
class LedgerPolicy:
    """Ledger of a task, and the task's reaction to windows that the ledger has already.

    :param dataflow: of the task.
    :param owner: the task instance: `DAG_ID/RUN_ID/TASK_ID/MAP_INDEX`.
    :param continues: earlier dataflows whose windows count as windows of this one.
    :param on_ingested: reaction if another task instance ingested exactly this window; `skip` differs from `fail`
        only in the operator.
    :param on_overlap: reaction if other windows that overlap this one are ingested. With `rest`, the operator orders
        only the pieces that `CreateOnce.pieces` returns; an overlap that appears afterwards is an error.
    :param restate: the DAG run's conf requests to ingest again what is ingested.
    """

    ledger: Ledger
    dataflow: DataflowKey
    owner: str
    continues: tuple[DataflowKey, ...] = ()
    on_ingested: OnIngested = "reuse"
    on_overlap: OnOverlap = "fail"
    restate: bool = False

    @property
    def allows_restating(self) -> bool:
        """Return whether an ingested window of another task instance is ingested again."""
        return self.restate or self.on_ingested == "restate"


@dataclass(kw_only=True)
class LedgerIntents:
    """Intent of one order, kept in the ledger's entry of its window. Has the methods of `IntentStore`.

    :param order: key of the order (`Order.key`).
    :param now: return epoch seconds, for `LedgerEntry.updated_at`.
    """

    policy: LedgerPolicy
    window: IngestionWindow
    order: str
    now: Callable[[], float] = time.time
    is_durable: bool = field(default=True, init=False)
    _found: list[LedgerEntry] | None = field(default=None, init=False)
    _before_claim: LedgerEntry | None = field(default=None, init=False)
    _replaced: str | None = field(default=None, init=False)

    def refresh(self) -> None:
        """Read the entries that overlap the window.

        :raises LedgerUnavailableError: the store cannot be reached.
        """
        dataflows = (self.policy.dataflow, *self.policy.continues)
        self._found = self.policy.ledger.overlapping(dataflows, self.window)

    @property
    def entry(self) -> LedgerEntry | None:
        """Return the entry of exactly this window, of the task's dataflow if there are several."""
        exact = [entry for entry in self._entries if entry.window == self.window]
        return min(exact, key=lambda entry: entry.dataflow != self.policy.dataflow, default=None)

    @property
    def others(self) -> list[LedgerEntry]:
        """Return the other entries that overlap the window; also those of exactly it in other dataflows."""
        exact = self.entry
        return [entry for entry in self._entries if exact is None or entry.key != exact.key]

    @property
    def own(self) -> list[LedgerEntry]:
        """Return the entries inside the window that this task instance claimed last, of the task's dataflow."""
        key = self.policy.dataflow, self.policy.owner
        found = [entry for entry in self._entries if (entry.dataflow, entry.owner) == key]
        return [entry for entry in found if self.window.contains(entry.window)]

    @property
    def is_own(self) -> bool:
        """Return whether this task instance made the entry's last claim."""
        return self._own is not None

    @property
    def delivered(self) -> bool:
        """Return whether this task instance ended as a success with the entry's flow run."""
        return self._own is not None and self._own.delivered

    def read(self, *, otherwise: Intent) -> Intent | None:
        """Return the intent of an earlier attempt of this task instance, or None.

        :param otherwise: returned if the entry has no intent that can be parsed.
        """
        return self.intent_of(self._own, otherwise=otherwise) if self._own else None

    def intent_of(self, entry: LedgerEntry, *, otherwise: Intent) -> Intent:
        """Return the intent of an entry, with the entry's flow run."""
        intent = Intent.from_json(entry.intent)
        if intent is None or intent.order != self.order:
            # Without a readable intent, the flow runs since the claim are compared.
            intent = replace(otherwise, written_at=min(otherwise.written_at, entry.updated_at))
        return replace(intent, flow_run_id=entry.flow_run_id)

    def replaces(self, flow_run_id: str) -> None:
        """Note that this flow run ingested the window, and that the next claim is a request to ingest it again."""
        self._replaced = flow_run_id

    def write(self, intent: Intent) -> None:
        """Claim the window with the intent.

        :raises AttemptOvertakenError: another attempt or task changed the entry meanwhile.
        :raises LedgerUnavailableError: the store cannot be reached.
        """
        stored = self._stored
        if self._before_claim is None:
            self._before_claim = stored
        claim = LedgerEntry(
            dataflow=self.policy.dataflow,
            window=self.window,
            state=EntryState.CLAIMED,
            owner=self.policy.owner,
            intent=replace(intent, restates=self._overlapping_runs()).to_json(),
            earlier=self._earlier(stored),
            updated_at=self.now(),
            version=stored.version if stored else 0,
        )
        try:
            self._remember(self.policy.ledger.put(claim))
        except LedgerConflictError as error:
            raise AttemptOvertakenError(_OVERTAKEN) from error

    def require_no_overlapping_claim(self) -> None:
        """Read the entries again after a claim. If another one changed meanwhile, undo the claim.

        Two tasks whose windows overlap can both read before both claim. The one that claims last sees the other claim.

        :raises FlowRunActiveError: another task claimed an overlapping window; nothing was sent.
        :raises AttemptOvertakenError: another attempt or task claimed the same window; nothing was sent.
        """
        if self.policy.restate or self.policy.on_overlap == "restate":
            return
        claim, before = self._stored, {entry.key: entry.version for entry in self.others}
        try:
            self.refresh()
        except LedgerError:
            self.drop()
            raise
        if claim is None or self._stored is None or self._stored.intent != claim.intent:
            raise AttemptOvertakenError(_OVERTAKEN)
        changed = [entry for entry in self.others if before.get(entry.key) != entry.version]
        if changed:
            self.drop()
            raise FlowRunActiveError(
                f"{changed[0].owner} claimed {changed[0].window}, which overlaps this window, at the same time"
            )

    def drop(self) -> None:
        """Undo the claim of a refused request. Only log errors of the ledger."""
        claim, before = self._stored, self._before_claim
        if claim is None:
            return
        try:
            if before is None:
                self.policy.ledger.remove(claim)
                self._found = [entry for entry in self._entries if entry.key != claim.key]
            else:
                self._remember(self.policy.ledger.put(replace(before, version=claim.version)))
            self._before_claim = None
        except LedgerError as error:  # The task must report the refusal. A retry compares, and finds no flow run.
            log.warning("The claim of a refused request could not be removed from the ledger: %s", error)

    def complete(self, intent: Intent, *, flow_run_id: str) -> None:
        """Add the flow run to the entry. Only log errors of the ledger."""
        stored = self._stored
        claim = Intent.from_json(stored.intent) if stored else None
        if claim and not intent.restates:
            intent = replace(intent, restates=claim.restates)
        is_own = stored is not None and (stored.flow_run_id, stored.owner) == (flow_run_id, self.policy.owner)
        if stored and is_own and claim == replace(intent, known=(), flow_run_id=None):
            return
        if stored and stored.state is EntryState.INGESTED and stored.flow_run_id not in (None, flow_run_id):
            self.replaces(str(stored.flow_run_id))
        entry = LedgerEntry(
            dataflow=self.policy.dataflow,
            window=self.window,
            state=EntryState.CREATED,
            owner=self.policy.owner,
            flow_run_id=flow_run_id,
            # The ids of other flow runs are needed only until this one is known.
            intent=replace(intent, known=()).to_json(),
            earlier=self._earlier(stored),
            updated_at=self.now(),
            version=stored.version if stored else 0,
        )
        try:
            self._remember(self.policy.ledger.put(entry))
        except LedgerError as error:  # The flow run exists. The intent stored before the POST still protects it.
            log.warning(
                "Flow run %s could not be stored in the ledger (%s); a retry finds it by its intent", flow_run_id, error
            )

    @property
    def _entries(self) -> list[LedgerEntry]:
        if self._found is None:
            self.refresh()
        return self._found or []

    @property
    def _stored(self) -> LedgerEntry | None:
        """Return the entry of the task's own dataflow, whose version the next change must have."""
        return next((entry for entry in self._entries if entry.key == (self.policy.dataflow, self.window)), None)

    @property
    def _own(self) -> LedgerEntry | None:
        stored = self._stored
        return stored if stored is not None and stored.owner == self.policy.owner else None

    def _remember(self, entry: LedgerEntry) -> None:
        self._found = [entry, *(each for each in self._entries if each.key != entry.key)]

    def _overlapping_runs(self) -> tuple[str, ...]:
        """Return the flow runs of other windows that overlap this one, for `Intent.restates`."""
        found = [entry.flow_run_id for entry in self.others if entry.flow_run_id]
        return tuple(dict.fromkeys(found))[:_MAX_RESTATED]

    def _earlier(self, stored: LedgerEntry | None) -> tuple[EarlierRun, ...]:
        earlier = stored.earlier if stored else ()
        if self._replaced is None or self._replaced in [run.flow_run_id for run in earlier]:
            return earlier
        replaced = EarlierRun(flow_run_id=self._replaced, replaced_at=self.now(), replaced_by=self.policy.owner)
        return (*earlier, replaced)


def deliver(
    ledger: Ledger,
    *,
    dataflow: DataflowKey,
    window: IngestionWindow,
    flow_run_id: str,
    owner: str | None,
    output_records: int | None = None,
    succeeded: bool = True,
    now: Callable[[], float] = time.time,
) -> None:
    """Record the success of a task with the flow run of a window. Only log errors of the ledger.

    :param owner: the task instance that created the flow run, if it is the one that succeeds. None for a sensor,
        which does not deliver the success of the task that created the flow run.
    :param succeeded: False if the task only created the flow run, and did not wait for its result.
    """
    try:
        stored = ledger.get(dataflow, window)
        changed = _delivered(
            stored
            or LedgerEntry(
                dataflow=dataflow, window=window, state=EntryState.CREATED, owner=owner or "", flow_run_id=flow_run_id
            ),
            flow_run_id=flow_run_id,
            owner=owner,
            output_records=output_records,
            succeeded=succeeded,
        )
        if changed is not None and changed != stored:
            ledger.put(replace(changed, updated_at=now()))
    except LedgerError as error:  # The next task that needs the entry reads the flow run.
        log.warning("The result of flow run %s could not be stored in the ledger: %s", flow_run_id, error)


def record_repetition(
    ledger: Ledger,
    *,
    dataflow: DataflowKey,
    window: IngestionWindow,
    flow_run_id: str,
    owner: str,
    repeats: str | None = None,
    now: Callable[[], float] = time.time,
) -> bool:
    """Record a new flow run that repeats the window's flow run. Log errors of the ledger, and return False.

    :param repeats: change the entry only if it has this flow run.
    """
    try:
        stored = ledger.get(dataflow, window)
        if stored is not None and (stored.flow_run_id == flow_run_id or repeats not in (None, stored.flow_run_id)):
            return True
        earlier = stored.earlier if stored else ()
        if stored and stored.state is EntryState.INGESTED and stored.flow_run_id:
            earlier += (EarlierRun(flow_run_id=stored.flow_run_id, replaced_at=now(), replaced_by=owner),)
        ledger.put(
            LedgerEntry(
                dataflow=dataflow,
                window=window,
                state=EntryState.CREATED,
                owner=owner,
                flow_run_id=flow_run_id,
                earlier=earlier,
                updated_at=now(),
                version=stored.version if stored else 0,
            )
        )
    except LedgerError as error:
        log.warning("Flow run %s could not be stored in the ledger: %s", flow_run_id, error)
        return False
    return True


def _delivered(
    entry: LedgerEntry, *, flow_run_id: str, owner: str | None, output_records: int | None, succeeded: bool
) -> LedgerEntry | None:
    if entry.flow_run_id != flow_run_id:
        return None  # Another flow run has replaced this one.
    state = EntryState.INGESTED if succeeded else entry.state
    return replace(
        entry,
        state=state,
        delivered=entry.delivered or owner == entry.owner,
        output_records=entry.output_records if output_records is None else output_records,
    )
