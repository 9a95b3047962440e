"""Create a flow run once, whatever fails.

Flow Service has no idempotency key, so a written intent takes its place: before the POST, what is about to
be created goes into a store that survives the attempt, together with the runs that the flow has already.
Whoever finds an intent without a run id later compares the flow's runs with it before creating anything.

    no intent ─────────> write intent ──> POST ──┬─ an id ───────────> store it, wait for the run
    intent with id ──┬─ active: wait             ├─ refused (4xx) ───> drop the intent, fail
                     ├─ succeeded: done          └─ anything else ───> reconcile
                     └─ failed: create anew
    intent without id ───────────────────────────────────────────────> reconcile

    reconcile ──┬─ a new run shows our window and start time ─> adopt it
                ├─ no new run, after patience ────────────────> create
                └─ new runs that show no window ──────────────> on_uncertain: fail, adopt or create

Whatever is stored, a run that somebody names (`adopt`) is taken, unless it failed.

The client and the store are protocols, and time is an argument, so all of it can be tried in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

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
from airflow_flowservice.runs.intent import Attempt, Intent, Order, Outcome, Service, Store
from airflow_flowservice.runs.record import Record
from airflow_flowservice.runs.search import Search
from airflow_flowservice.runs.watch import NOT_YET_READABLE

if TYPE_CHECKING:
    from airflow_flowservice.api.models import CreatedRun, FlowRun

log = logging.getLogger(__name__)

OnUncertain = Literal["fail", "adopt", "create"]

_START_MARGIN = timedelta(seconds=2)
_LATER_START_MARGIN = timedelta(seconds=60)
_REMEMBERED = 50
# A POST whose answer is lost is repeated after a comparison, within one attempt only so often.
_POSTS_AT_MOST = 3
_UNCERTAIN = (NoAnswerError, ServerError, UnreadableAnswerError)


@dataclass(kw_only=True)
class CreateOnce:
    """Creates the run of an order, or finds the one that is there already.

    :param store: None where Airflow has none (before 3.3): then only the list of runs can tell.
    :param on_uncertain: what to do when new runs exist that show no window.
    :param adopt: the run that somebody says is this order's.
    :param patience: seconds to wait for a run that may have been created to show in the list; Adobe
        says that a run may take two to three minutes.
    :param poll: seconds between two looks at the list meanwhile.
    :param clock_offset: the service's clock minus ours, if it is known.
    :param prepare: a last look at the order before anything is created; may raise, or change it.
    :param link: makes the page address of a run, for messages.
    """

    service: Service
    store: Store | None
    attempt: Attempt
    on_uncertain: OnUncertain = "fail"
    adopt: str | None = None
    patience: float = 180.0
    poll: float = 5.0
    clock_offset: Callable[[], timedelta | None] = lambda: None
    prepare: Callable[[Order], Order] = lambda order: order
    link: Callable[[str], str] = str
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _posts: int = field(default=0, init=False)
    _record: Record = field(init=False)

    def __post_init__(self) -> None:
        self._record = Record(store=self.store)

    def __call__(self, order: Order) -> Outcome:
        """The one run of this order.

        :raises ApiError: Flow Service refused, or could not be reached; nothing was created.
        :raises FlowRunUncertainError: a run may exist, and `on_uncertain` is `fail`.
        """
        try:
            return self._without_store(order) if self.store is None else self._with_store(order)
        except FlowServiceError as error:
            error.about(flow_id=order.flow_id, window=str(order.window) if order.window else None)
            raise

    def _with_store(self, order: Order) -> Outcome:
        intent = self._record.read(otherwise=self._unwritten(order))
        if intent is not None and intent.order != order.key:
            intent = None
        if self.adopt and (intent is None or intent.adopted != self.adopt) and (adopted := self._adopt(order)):
            return adopted
        if intent is None:
            return self._create(order)
        if intent.flow_run_id is not None:
            return self._resume(order, intent, intent.flow_run_id)
        log.warning("An earlier attempt may have created a flow run; comparing the flow's runs with its intent")
        return self._reconcile(order, intent, earlier=True)

    def _without_store(self, order: Order) -> Outcome:
        log.warning("This Airflow keeps no task state (3.3 and later do): protection against double runs is reduced")
        if self.adopt and (adopted := self._adopt(order)):
            return adopted
        if self.attempt.is_first:
            return self._create(order)
        return self._reconcile(order, self._unwritten(order), earlier=True)

    def _unwritten(self, order: Order) -> Intent:
        """What an earlier attempt may have intended that left nothing to read."""
        since = self.attempt.began or self._service_now() - timedelta(days=1)
        return Intent(order=order.key, max_tries=self.attempt.max_tries, token="", written_at=since.timestamp())

    def _adopt(self, order: Order) -> Outcome | None:
        """The run that was named; None if it failed, since then its window is not in."""
        run = self.service.get_run(str(self.adopt))
        other_window = order.window and run.window and run.window != order.window
        if run.flow_id not in (None, order.flow_id) or other_window:
            raise ConfigurationError(
                f"the flow run to adopt is of another task: its dataflow is {run.flow_id}, its window {run.window}",
                flow_run_id=run.id,
                remedy="name the right run; for one of several tasks as "
                '{"flowservice": {"adopt": {"TASK_ID": "FLOW_RUN_ID"}}}',
            )
        if run.status.ended and not run.status.succeeded:
            log.warning("Flow run %s was to be adopted, but it ended as %s, so it is not", run.id, run.status_word)
            return None
        log.warning("Adopting flow run %s (%s), since the DAG run's conf says so", run.id, run.status_word)
        return self._keep(replace(self._unwritten(order), adopted=self.adopt), run.id, how="adopted")

    def _resume(self, order: Order, intent: Intent, flow_run_id: str) -> Outcome:
        cleared = intent.max_tries != self.attempt.max_tries
        try:
            run = self.service.get_run(flow_run_id)
        except RunNotFoundError:
            if cleared and self._service_now().timestamp() - intent.written_at > NOT_YET_READABLE:
                log.info("Flow run %s is gone and the task was cleared; creating a new run", flow_run_id)
                return self._create(order)
            run = None
        if run is not None and run.status.ended and (cleared or not run.status.succeeded):
            why = "the task was cleared" if cleared else "a retry wants the window again"
            log.info("Flow run %s ended as %s and %s; creating a new run", run.id, run.status_word, why)
            return self._create(order)
        status = run.status_word if run else "not readable yet"
        log.info("Flow run %s of an earlier attempt is %s; no new run is created", flow_run_id, status)
        return self._keep(replace(intent, max_tries=self.attempt.max_tries), flow_run_id, how="resumed")

    def _create(self, order: Order) -> Outcome:
        order = self.prepare(order)
        start = self._start_time(order, margin=_START_MARGIN)
        try:
            return self._post(order, start)
        except StartTimeInPastError:
            if order.start_time is not None:
                raise
            later = self._start_time(order, margin=_LATER_START_MARGIN)
            log.warning("Flow Service finds the start time %s in the past; trying once more with %s", start, later)
            return self._post(order, later)

    def _post(self, order: Order, start: datetime) -> Outcome:
        intent = self._write_intent(order, start)
        self._posts += 1
        try:
            created = self._submit(order, start)
        except _UNCERTAIN as error:
            log.warning("Nobody knows whether the flow run was created: %s", error)
            if self._posts >= _POSTS_AT_MOST:
                raise
            return self._reconcile(order, intent, earlier=False)
        except ApiError:
            self._record.drop()
            raise
        return self._keep(intent, created.id, how="created")

    def _submit(self, order: Order, start: datetime) -> CreatedRun:
        if order.retrigger is not None:
            return self.service.retrigger_run(order.retrigger)
        if order.window is None:
            raise TypeError("an order needs a window or a run to repeat")
        return self.service.create_run(
            flow_id=order.flow_id,
            window=order.window,
            start_time=start,
            delta_column=order.delta_column,
        )

    def _write_intent(self, order: Order, start: datetime) -> Intent:
        runs = list(islice(self.service.list_runs(flow_id=order.flow_id, limit=_REMEMBERED), _REMEMBERED))
        created = [run.created_at.timestamp() for run in runs if run.created_at]
        intent = Intent(
            order=order.key,
            max_tries=self.attempt.max_tries,
            token=uuid4().hex,
            written_at=self._service_now().timestamp(),
            start_time=int(start.timestamp()),
            known=tuple(run.id for run in runs),
            oldest_known=min(created) if len(created) == _REMEMBERED else None,
            adopted=self.adopt,
        )
        self._record.write(intent)
        if self.store is not None and self._service_now().timestamp() - intent.written_at > self.patience:
            raise AttemptOvertakenError("this attempt hung before it sent anything, so it ends without sending")
        return intent

    def _keep(self, intent: Intent, flow_run_id: str, *, how: Literal["created", "resumed", "adopted"]) -> Outcome:
        self._record.complete(intent, flow_run_id=flow_run_id)
        return Outcome(flow_run_id=flow_run_id, how=how)

    def _reconcile(self, order: Order, intent: Intent, *, earlier: bool) -> Outcome:
        """Find the run that the intent speaks of.

        :param earlier: the intent is an earlier attempt's; a run of it that failed is not waited for.
        """

        def is_it(run: FlowRun) -> bool:
            failed = run.status.ended and not run.status.succeeded
            return intent.judge(run, order) == "ours" and not (earlier and failed)

        runs = self._search(order, intent, is_it)
        if run := next(filter(is_it, runs), None):
            log.warning("Found flow run %s (%s), which is this window's; no other is created", run.id, run.status_word)
            return self._keep(replace(intent, max_tries=self.attempt.max_tries), run.id, how="adopted")
        # A run that failed has left its window out, whosever it is.
        unclear = [run for run in runs if intent.judge(run, order) == "unclear" and not run.status.failed]
        if not unclear:
            log.warning("No flow run was created for this window before; creating it")
            return self._create(order)
        return self._decide(order, intent, unclear)

    def _search(self, order: Order, intent: Intent, is_it: Callable[[FlowRun], bool]) -> list[FlowRun]:
        search = Search(
            service=self.service, patience=self.patience, poll=self.poll, monotonic=self.monotonic, sleep=self.sleep
        )
        return search(order, intent, is_it)

    def _decide(self, order: Order, intent: Intent, candidates: list[FlowRun]) -> Outcome:
        lines = "; ".join(
            f"{run.id} created {run.created_at}, {run.status_word}, {self.link(run.id)}" for run in candidates
        )
        if self.on_uncertain == "create":
            log.warning("on_uncertain=create: creating a flow run although these may be this window's: %s", lines)
            return self._create(order)
        if self.on_uncertain == "adopt":
            chosen = min(candidates, key=lambda run: (run.created_at is None, run.created_at))
            log.warning("on_uncertain=adopt: taking flow run %s out of: %s", chosen.id, lines)
            return self._keep(replace(intent, max_tries=self.attempt.max_tries), chosen.id, how="adopted")
        raise FlowRunUncertainError(
            f"a flow run may have been created, and the flow's new runs show no window: {lines}",
            remedy=(
                "look whether one of them is this window's. If it is, mark the task as success, or run it again "
                'with {"flowservice": {"adopt": "FLOW_RUN_ID"}} as conf. If none is, set on_uncertain=\'create\' and '
                "clear the task (on_uncertain='adopt' would take the oldest of them)"
            ),
        )

    def _start_time(self, order: Order, *, margin: timedelta) -> datetime:
        if order.start_time is not None:
            return order.start_time
        soon = (self._service_now() + margin).replace(microsecond=0) + timedelta(seconds=1)
        return max(soon, order.window.end) if order.window else soon

    def _service_now(self) -> datetime:
        return self.now() + (self.clock_offset() or timedelta(0))
