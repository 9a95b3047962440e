# SPDX-License-Identifier: Apache-2.0
"""Create a flow run at most once per window, also after faults.

Flow Service has no idempotency key. Therefore, an intent is stored before the POST: what the attempt is about to
create, and the dataflow's newest flow runs. If a later attempt finds an intent without a flow run id, it compares the
dataflow's flow runs with the intent before it creates anything.

`creation_states` has the decisions as a table. The client and the store are protocols, and time is an argument.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    ApiError,
    AttemptOvertakenError,
    ConfigurationError,
    FlowRunUncertainError,
    FlowServiceError,
    NoAnswerError,
    RunNotFoundError,
    ServerError,
    StartTimeInPastError,
    UnreadableAnswerError,
)
from airflow_flowservice.runs.before_post import MAX_KNOWN_RUNS, BeforePost
from airflow_flowservice.runs.creation_states import FINAL, HOW, INITIAL, TRANSITIONS, CreationEvent, CreationState
from airflow_flowservice.runs.flow_check import OrderCheck
from airflow_flowservice.runs.intent import Attempt, FlowRunService, Intent, Order, Outcome, Store
from airflow_flowservice.runs.intent_store import IntentStore
from airflow_flowservice.runs.ledger_intents import LedgerIntents
from airflow_flowservice.runs.ledger_steps import LedgerSteps
from airflow_flowservice.runs.question import REMEDY, PersonNeededError, Question, answer_to, open_question
from airflow_flowservice.runs.service_clock import MAX_CLOCK_CORRECTION, ServiceClock
from airflow_flowservice.runs.watch import NOT_YET_READABLE, read_known_run

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.flow_check import FlowCheck
    from airflow_flowservice.runs.ledger_intents import LedgerPolicy
    from airflow_flowservice.runs.question import Answer
    from airflow_flowservice.windows.window import IngestionWindow

log = logging.getLogger(__name__)

OnUncertain = Literal["fail", "adopt", "create", "ask"]

_START_MARGIN = timedelta(seconds=2)
_LATER_START_MARGIN = timedelta(seconds=60)
_MAX_RUNS_READ = 10_000
# Limit per attempt. After each POST with an unknown outcome, the flow runs are compared.
_MAX_POSTS = 3
# Flow Service's clock stamps the flow runs, the worker's clock stamps the intent.
_MAX_CLOCK_DIFFERENCE = timedelta(minutes=15)
# If Flow Service also reports that the start time is in the past, a larger difference is believed.
_MAX_CONFIRMED_CORRECTION = timedelta(days=1)
# Without a store, only the time distinguishes the flow runs of this DAG run from older ones.
_MAX_SEARCH_CORRECTION_WITHOUT_STORE = timedelta(days=1)
_MIN_DELAY_THAT_COUNTS = 5.0  # A busy machine delays each attempt by some seconds.
_OUTCOME_UNKNOWN = (NoAnswerError, ServerError, UnreadableAnswerError)


@dataclass(kw_only=True)
class CreateOnce:
    """Create the flow run of an order, or find the one that exists. For one call per attempt.

    :param store: None before Airflow 3.3 with `intent_store` `none`; then only the list of flow runs shows what exists.
    :param ledger: None if the task uses no ledger; the intent is then only in the store.
    :param check_flow: read the dataflow before the POST, and refuse an order that cannot work (`flow_check`).
    :param shared_check: dataflows that passed this check some minutes ago; None to read the dataflow each time.
    :param on_uncertain: reaction to new flow runs that show no window.
    :param ask: show a question to people, and return the options that they see; for `on_uncertain` `ask`.
    :param ask_timeout: seconds in which a question must be answered.
    :param answer: of a person, to the question of an earlier attempt or of an earlier process of this one.
    :param adopt: id of the flow run that the DAG run's conf names for this order.
    :param patience: seconds to wait until a flow run that may have been created appears in the list. Adobe
        states two to three minutes.
    :param poll: seconds between two reads of the list, or of a flow run whose response is an error.
    :param error_budget: seconds without a valid response after which reading a known flow run ends.
    :param clock_offset: the service's clock minus the local one; None if unknown. A difference of more than
        `MAX_CLOCK_CORRECTION` is not believed, but the search for a lost flow run begins at the earlier clock.
    :param has_failed_batches: return whether nothing of a succeeded flow run is ingested, because its batches failed
        in the catalogue. Such a flow run counts as failed. It is called for flow runs that would be accepted.
    :param link: return the page address of a flow run id, for messages.
    """

    service: FlowRunService
    store: Store | None
    attempt: Attempt
    ledger: LedgerPolicy | None = None
    check_flow: bool = False
    shared_check: FlowCheck | None = None
    on_uncertain: OnUncertain = "fail"
    ask: Callable[[Question], Collection[str]] = lambda _: ()
    ask_timeout: float = 86400.0
    answer: Answer | None = None
    adopt: str | None = None
    patience: float = 180.0
    poll: float = 5.0
    error_budget: float = 0.0
    clock_offset: Callable[[], timedelta | None] = lambda: None
    has_failed_batches: Callable[[FlowRun], bool] = lambda _: False
    link: Callable[[str], str] = str
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _order: Order = field(init=False, repr=False)
    _before: BeforePost = field(init=False, repr=False)
    _intents: IntentStore | LedgerIntents = field(init=False, repr=False)
    _steps: LedgerSteps | None = field(default=None, init=False, repr=False)
    _intent: Intent = field(init=False, repr=False)
    _flow_run_id: str = field(init=False, repr=False)
    _error: FlowServiceError = field(init=False, repr=False)
    _needed: PersonNeededError | None = field(default=None, init=False, repr=False)
    _has_earlier_intent: bool = field(default=False, init=False, repr=False)
    _posts: int = field(default=0, init=False, repr=False)
    _clock: ServiceClock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._clock = ServiceClock(local=self.now, difference=self.clock_offset)

    def __call__(self, order: Order) -> Outcome:
        """Return the flow run of this order.

        :raises ApiError: Flow Service refused the request, or could not be reached; nothing was created.
        :raises FlowRunUncertainError: a flow run may exist, and `on_uncertain` is `fail`.
        :raises AttemptOvertakenError: another attempt may have taken over; nothing was sent.
        :raises PersonNeededError: a flow run may exist, `on_uncertain` is `ask`, and the question has no answer yet.
        """
        self._order = order
        check = OrderCheck(order=order, read_flow=self.service.get_flow, shared=self.shared_check)
        self._before = BeforePost(service=self.service, order=order, check=check if self.check_flow else None)
        self._intents = self._choose_intents(order)
        actions, state = self._actions(), INITIAL
        try:
            while state not in FINAL:
                state = TRANSITIONS[state][actions[state]()]
            if state is CreationState.FAILED:
                raise self._error
        except FlowServiceError as error:
            error.about(flow_id=order.flow_id, window=order.window)
            raise
        if self._needed is not None:
            raise self._needed
        if state is CreationState.REUSED and self._steps is not None:
            return self._steps.outcome()
        intent = replace(self._intent, max_tries=self.attempt.max_tries, question=None)
        self._intents.complete(intent, flow_run_id=self._flow_run_id)
        return Outcome(flow_run_id=self._flow_run_id, how=HOW[state])

    def pieces(self, order: Order) -> list[IngestionWindow]:
        """Return the windows to order instead of the order's window, for `on_overlap="rest"`; see `LedgerSteps.pieces`.

        A request to ingest again, and a named flow run, are for the whole window.
        """
        self._choose_intents(order)
        if self._steps is None or self.ledger is None or self.ledger.restate or self.adopt:
            return [] if order.window is None else [order.window]
        return self._steps.pieces()

    def _choose_intents(self, order: Order) -> IntentStore | LedgerIntents:
        if self.ledger is None or order.window is None or order.retrigger is not None:
            is_first, clocks = self._is_only_attempt, (self.monotonic, self.now)
            return IntentStore(store=self.store, order=order.key, is_first=is_first, clocks=clocks)
        intents = LedgerIntents(
            policy=self.ledger, window=order.window, order=order.key, now=lambda: self.now().timestamp()
        )
        self._steps = LedgerSteps(
            intents=intents,
            get_run=self._get_run,
            has_failed=self._has_failed,
            is_first_try=self.attempt.try_number == 1,
            patience=self.patience,
            poll=self.poll,
            now=self.now,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )
        return intents

    def _actions(self) -> dict[CreationState, Callable[[], CreationEvent]]:
        return {
            CreationState.READ_INTENT: self._read_intent,
            CreationState.READ_NAMED_RUN: self._read_named_run,
            CreationState.READ_LEDGER: partial(self._by_ledger, LedgerSteps.read_ledger),
            CreationState.READ_OTHER_RUN: partial(self._by_ledger, LedgerSteps.read_other_run),
            CreationState.AWAIT_CLAIM: partial(self._by_ledger, LedgerSteps.await_claim),
            CreationState.CHECK_INTENT: self._check_intent,
            CreationState.READ_FLOW_RUN: self._read_flow_run,
            CreationState.CREATE: self._create,
            CreationState.CREATE_LATER: self._create_later,
            CreationState.COMPARE: self._compare,
        }

    def _read_intent(self) -> CreationEvent:
        self._intent = assumed = self._assumed_intent()
        if not self._intents.is_durable:
            log.warning("The task has no store for its intent, so protection against double runs is reduced")
            self._has_earlier_intent = not self.attempt.is_first or self.answer is not None
        else:
            # With a ledger, the reading may show that no request is needed.
            if self._steps is None and self._is_only_attempt:
                self._before.send_early()
            if stored := self._intents.read(otherwise=assumed) or self._read_intent_without_ledger():
                self._intent, self._has_earlier_intent = stored, True
                self._before.forget()
        # A named flow run is adopted once: a clear afterwards requests the window again.
        is_named = self.adopt and self._intent.adopted != self.adopt
        return CreationEvent.RUN_NAMED if is_named else CreationEvent.NO_RUN_NAMED

    @property
    def _is_only_attempt(self) -> bool:
        return self.attempt.try_number == 1 and self.attempt.is_first and not self.adopt

    def _read_intent_without_ledger(self) -> Intent | None:
        """Return the intent of an earlier attempt that used no ledger, for instance before an upgrade."""
        if self._steps is None or self.store is None or (self.attempt.try_number == 1 and self.attempt.is_first):
            return None
        return IntentStore(store=self.store, order=self._order.key).read(otherwise=self._intent)

    def _assumed_intent(self) -> Intent:
        """Return the intent to assume for an earlier attempt that left nothing readable."""
        since = self.attempt.began or self._clock.now() - timedelta(days=1)
        return Intent(order=self._order.key, max_tries=self.attempt.max_tries, token="", written_at=since.timestamp())

    def _read_named_run(self) -> CreationEvent:
        order, run = self._order, self._get_run(str(self.adopt))
        other_window = order.window and run.window and run.window != order.window
        if run.flow_id not in (None, order.flow_id) or other_window:
            self._error = ConfigurationError(
                f"the flow run to adopt is of another task: its dataflow is {run.flow_id}, its window {run.window}",
                flow_run_id=run.id,
                remedy="name the right run; for one of several tasks as "
                '{"flowservice": {"adopt": {"TASK_ID": "FLOW_RUN_ID"}}}',
            )
            return CreationEvent.ANOTHER_TASKS
        if self._has_failed(run):
            log.warning("Flow run %s ended as %s, so it is not adopted", run.id, run.status_word)
            return CreationEvent.FAILED
        log.warning("Adopting flow run %s (%s), as the DAG run's conf requests", run.id, run.status_word)
        self._intent, self._flow_run_id = replace(self._assumed_intent(), adopted=self.adopt), run.id
        return CreationEvent.USABLE

    def _by_ledger(self, step: Callable[[LedgerSteps], CreationEvent]) -> CreationEvent:
        steps = self._steps
        if steps is None:
            return CreationEvent.FREE
        event = step(steps)
        self._flow_run_id = steps.flow_run_id or ""
        if steps.error is not None:
            self._error = steps.error
        if event is CreationEvent.CLAIM_STAYS:
            # The other task waits for the answer to its question.
            self._intent = replace(steps.other_intent(otherwise=self._assumed_intent()), question=None)
        return event

    def _check_intent(self) -> CreationEvent:
        if not self._has_earlier_intent:
            return CreationEvent.NO_INTENT
        if self._intent.flow_run_id is not None:
            self._flow_run_id = self._intent.flow_run_id
            return CreationEvent.WITH_ID
        if self._intents.is_durable:
            log.warning("An earlier attempt may have created a flow run; comparing the dataflow's flow runs")
        return CreationEvent.WITHOUT_ID

    def _read_flow_run(self) -> CreationEvent:
        flow_run_id = self._flow_run_id
        # The tries of a DAG run that a cleaned database has forgotten are no clear.
        cleared = self._intent.max_tries != self.attempt.max_tries and self.attempt.was_cleared
        try:
            run = self._get_run(flow_run_id)
        except RunNotFoundError:
            if cleared and self._clock.now().timestamp() - self._intent.written_at > NOT_YET_READABLE:
                if (event := self._by_ledger(LedgerSteps.reuse_undelivered)) is not CreationEvent.FREE:
                    return event
                log.info("Flow run %s does not exist, and the task was cleared; creating a new one", flow_run_id)
                return CreationEvent.CLEARED_AND_GONE
            log.info("Flow run %s of an earlier attempt is not readable yet; no new one is created", flow_run_id)
            return CreationEvent.NOT_READABLE
        if cleared and run.status.succeeded and not self._intents.delivered and not self._has_failed(run):
            log.info("Flow run %s is %s, and no task has ended with it; no new one is created", run.id, run.status_word)
            return CreationEvent.SUCCEEDED
        if run.status.ended and (cleared or self._has_failed(run)):
            if run.status.succeeded and not self._has_failed(run):
                self._intents.replaces(run.id)
            why = "the task was cleared" if cleared else "this is a retry"
            log.info("Flow run %s ended as %s, and %s; a new one is needed", run.id, run.status_word, why)
            is_request = cleared and not run.status.failed
            return CreationEvent.CLEARED_AFTER_SUCCESS if is_request else self._unless_ingested(CreationEvent.FAILED)
        log.info("Flow run %s of an earlier attempt is %s; no new one is created", flow_run_id, run.status_word)
        if run.status is FlowRunStatus.ENDED_UNCLEAR:
            return CreationEvent.OUTCOME_UNKNOWN
        return CreationEvent.SUCCEEDED if run.status.ended else CreationEvent.RUNNING

    def _unless_ingested(self, event: CreationEvent) -> CreationEvent:
        """Return the event, which creates a flow run, unless other flow runs have ingested the window or parts."""
        check = partial(LedgerSteps.check_before_another, after=event, intent=self._intent)
        return event if (found := self._by_ledger(check)) is CreationEvent.FREE else found

    def _get_run(self, flow_run_id: str) -> FlowRun:
        """Read a known flow run. Errors that can pass do not fail the attempt until the error budget is used up."""
        return read_known_run(
            self.service.get_run,
            flow_run_id,
            error_budget=self.error_budget,
            poll=self.poll,
            monotonic=self.monotonic,
            sleep=self.sleep,
        )

    def _create(self) -> CreationEvent:
        self._order = self._before.check_order(is_retry=not self.attempt.is_first or self._posts > 0)
        event = self._post(self._start_time(margin=_START_MARGIN))
        is_final = event is CreationEvent.START_TIME_PASSED and self._order.start_time is not None
        return CreationEvent.REFUSED if is_final else event

    def _create_later(self) -> CreationEvent:
        confirmed = min(self._clock.offset(), _MAX_CONFIRMED_CORRECTION) - self._clock.correction()
        start = self._start_time(margin=_LATER_START_MARGIN + max(confirmed, timedelta(0)))
        log.warning("Flow Service reports that the start time is in the past; trying again with %s", start)
        event = self._post(start)
        return CreationEvent.REFUSED if event is CreationEvent.START_TIME_PASSED else event

    def _post(self, start: datetime) -> CreationEvent:
        self._write_intent(start)
        self._posts += 1
        try:
            created = self._order.send(self.service, start_time=start)
        except _OUTCOME_UNKNOWN as error:
            log.warning("The outcome of the POST is unknown: %s", error)
            self._error = error
            return CreationEvent.UNKNOWN_AGAIN if self._posts >= _MAX_POSTS else CreationEvent.UNKNOWN
        except ApiError as error:
            self._intents.drop()
            self._error = error
            check = self._before.check
            if check is not None and (changed := check.after_refusal(error, self._order)):
                log.warning("Flow Service refused the request, and the dataflow has changed; sending it again")
                self._order = changed
                return self._post(start)
            return CreationEvent.START_TIME_PASSED if isinstance(error, StartTimeInPastError) else CreationEvent.REFUSED
        self._flow_run_id = created.id
        return CreationEvent.ID_RETURNED

    def _write_intent(self, start: datetime) -> None:
        runs = self._before.newest_runs()
        created = [run.created_at.timestamp() for run in runs if run.created_at]
        self._intent = Intent(
            order=self._order.key,
            max_tries=self.attempt.max_tries,
            token=uuid4().hex,
            written_at=self._clock.now().timestamp(),
            start_time=int(start.timestamp()),
            known=tuple(run.id for run in runs),
            oldest_known=min(created) if len(created) == MAX_KNOWN_RUNS else None,
            adopted=self.adopt,
            flow_name=self._order.flow_name,
        )
        self._intents.write(self._intent)
        self._intents.require_no_overlapping_claim()
        delay = self._clock.now().timestamp() - self._intent.written_at
        if self._intents.is_durable and delay > max(self.patience / 2, _MIN_DELAY_THAT_COUNTS):
            raise AttemptOvertakenError("this attempt was delayed before it sent anything, so it ends without sending")

    def _compare(self) -> CreationEvent:
        answer = None if self._posts else answer_to(self._intent, self.answer)
        question = open_question(self._intent, self.attempt) if self.on_uncertain == "ask" else None
        if answer is not None and answer.flow_run_id is not None:
            self._flow_run_id = answer.flow_run_id
            return CreationEvent.ANSWER_ADOPT
        is_asked = answer is not None or question is not None
        runs = self._search(patience=0.0 if is_asked else self.patience)
        if run := next(filter(self._is_ours, runs), None):
            log.warning("Found flow run %s (%s) of this window; no other is created", run.id, run.status_word)
            self._flow_run_id = run.id
            return CreationEvent.MATCH
        event = self._unless_ingested(CreationEvent.NO_CANDIDATE)
        if event not in (CreationEvent.NO_CANDIDATE, CreationEvent.INGESTED_RESTATE):
            return event
        if answer is not None:
            return CreationEvent.ANSWER_CREATE
        if question is not None:
            log.warning("An earlier attempt asked which flow run is of this window; waiting for the answer")
            self._needed = PersonNeededError(question, is_new=False)
            return CreationEvent.ASKED_BEFORE
        # A failed flow run has ingested nothing, so it is no candidate.
        unclear = [run for run in runs if self._intent.match(run, self._order) == "unclear" and not run.status.failed]
        if not unclear:
            log.warning("No flow run was created for this window before")
            return event
        return self._resolve(unclear)

    def _is_ours(self, run: FlowRun) -> bool:
        """Return whether the intent's POST created this flow run.

        A failed flow run of an earlier attempt does not count: another one is needed.
        """
        return self._intent.match(run, self._order) == "ours" and (self._posts > 0 or not self._has_failed(run))

    def _has_failed(self, run: FlowRun) -> bool:
        """Return whether the flow run has ended and ingested nothing; False if its outcome is not known."""
        if not run.status.succeeded:
            return run.status.failed
        if not self.has_failed_batches(run):
            return False
        log.warning("Flow run %s succeeded, and all its batches failed, so its data is not ingested", run.id)
        return True

    def _resolve(self, candidates: list[FlowRun]) -> CreationEvent:
        lines = "; ".join(
            f"{run.id} created {run.created_at}, {run.status_word}, {self.link(run.id)}" for run in candidates
        )
        if self.on_uncertain == "create":
            log.warning("on_uncertain=create: creating a flow run although these may be of this window: %s", lines)
            return CreationEvent.CANDIDATES_CREATE
        if self.on_uncertain == "adopt":
            chosen = min(candidates, key=lambda run: (run.created_at is None, run.created_at))
            log.warning("on_uncertain=adopt: adopting flow run %s out of: %s", chosen.id, lines)
            self._flow_run_id = chosen.id
            return CreationEvent.CANDIDATES_ADOPT
        if self.on_uncertain == "ask" and self._ask(candidates):
            return CreationEvent.CANDIDATES_ASK
        self._error = FlowRunUncertainError(
            f"a flow run may have been created, and the dataflow's new flow runs show no window: {lines}", remedy=REMEDY
        )
        return CreationEvent.CANDIDATES_FAIL

    def _ask(self, runs: list[FlowRun]) -> bool:
        """Ask a person which flow run is of this window. Return False if Airflow does not show all of them."""
        until = self.now().timestamp() + self.ask_timeout
        # Without a store, the process that receives the answer assumes an intent without a token.
        intent = self._intent if self._intents.is_durable else replace(self._intent, token="")
        question = Question.of(runs, intent=intent, attempt=self.attempt, until=until, link=self.link)
        shown = question.shown_as(self.ask(question))
        if shown is None:
            log.warning("Airflow shows the options of the task's first question, in which a flow run is missing")
            return False
        # Only after this may the task wait: a retry that finds the question reads its answer.
        self._intent = replace(self._intent, question=shown.to_json())
        self._intents.write(self._intent)
        self._needed = PersonNeededError(shown, is_new=True)
        return True

    def _search(self, *, patience: float) -> list[FlowRun]:
        """Return the new flow runs: at once if one matches, otherwise when `patience` (seconds) ends.

        :raises FlowRunUncertainError: there are too many to compare.
        """
        end = self.monotonic() + patience
        while True:
            is_last = self.monotonic() >= end
            try:
                runs = self._new_runs()
            except ApiError as error:
                if is_last or not error.retryable:
                    raise
            else:
                if is_last or any(map(self._is_ours, runs)):
                    return runs
            self.sleep(min(self.poll, max(0.0, end - self.monotonic())))

    def _new_runs(self) -> list[FlowRun]:
        order, intent = self._order, self._intent
        listed = self.service.list_runs(flow_id=order.flow_id, created_since=self._search_start(), limit=100)
        runs = list(islice(listed, _MAX_RUNS_READ))
        if len(runs) == _MAX_RUNS_READ and not any(intent.match(run, order) == "ours" for run in runs):
            raise FlowRunUncertainError(
                f"a flow run may have been created, and the dataflow has {_MAX_RUNS_READ} or more new flow runs"
            )
        return [run for run in runs if run.flow_id in (None, order.flow_id) and intent.is_new(run)]

    def _search_start(self) -> datetime:
        """Return the time from which on a lost flow run is searched: the earlier of both clocks, with a margin."""
        behind = min(self._clock.offset(), timedelta(0))
        if not self._intents.is_durable:
            behind = max(behind, -_MAX_SEARCH_CORRECTION_WITHOUT_STORE)
        # The intent's time may contain a correction that was wrong.
        margin = MAX_CLOCK_CORRECTION + _MAX_CLOCK_DIFFERENCE
        earliest = self._intent.written_at + behind.total_seconds()
        if self._intent.oldest_known is not None:
            earliest = max(earliest, self._intent.oldest_known)
        return datetime.fromtimestamp(max(earliest - margin.total_seconds(), 0.0), tz=timezone.utc)

    def _start_time(self, *, margin: timedelta) -> datetime:
        if self._order.start_time is not None:
            return self._order.start_time
        soon = (self._clock.now() + margin).replace(microsecond=0) + timedelta(seconds=1)
        return max(soon, self._order.window.end) if self._order.window else soon
