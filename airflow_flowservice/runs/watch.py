# SPDX-License-Identifier: Apache-2.0
"""Wait for one flow run: when to poll, how to read the response, and when to give up.

The same rules apply on a worker and in the triggerer. The caller sleeps between two polls.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_flowservice.api.models import FlowRunStatus
from airflow_flowservice.exceptions import (
    ApiError,
    FlowRunTimeoutError,
    FlowRunVanishedError,
    FlowServiceError,
    RunNotFoundError,
    error_context,
)

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun
    from airflow_flowservice.runs.batch_watch import BatchWatch, ReadBatches

log = logging.getLogger(__name__)

# According to Adobe, it can take two to three minutes until a new run can be read.
NOT_YET_READABLE = 300.0
ERROR_BUDGET = 1800.0
# A completion time may become visible before the status.
STATUS_PATIENCE = 120.0
# A run with a completion time and an unknown status has ended, unless another status follows.
UNKNOWN_PATIENCE = 1800.0
_MIN_DELAY_S = 1.0
# A read that begins when a time limit ends has this time, so that a run that has ended by then is found.
MIN_READ_S = 1.0
# The process that handles a time limit of the triggerer has no token and no connection yet.
AFTER_LIMIT_READ_S = 10.0
_JITTER = 0.1
# These texts are stored in the task state, so other versions of this package read them.
_NOT_READABLE_YET, _NOT_READABLE = "cannot be read yet", "could not be read"


class ReadRun(Protocol):
    """Reads a flow run by its id, for example `FlowServiceClient.get_run`."""

    def __call__(self, flow_run_id: str, /, *, within_s: float | None) -> FlowRun:
        """Read a run; `within_s` limits all requests of the read, in seconds."""


@dataclass(kw_only=True, slots=True)
class RunWatch:
    """State of waiting for one flow run.

    :param poll_interval: seconds between two polls; the first polls come sooner.
    :param timeout: seconds after which waiting ends; None means never.
    :param error_budget: seconds without a valid response after which waiting ends.
    :param caller_limit: seconds until a time limit that the caller enforces between two polls; it limits each read.
    :param url: the run's page, for messages.
    :param wait_for_batch: after the run has succeeded, also wait until its batches have ended in the catalogue.
    """

    flow_run_id: str
    poll_interval: float = 30.0
    timeout: float | None = None
    error_budget: float = ERROR_BUDGET
    caller_limit: float | None = None
    url: str | None = None
    wait_for_batch: bool = False
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    last: FlowRun | None = None
    _began: float = field(init=False)
    _last_valid: float = field(init=False)
    _logged: str | None = field(default=None, init=False)
    _seen: bool = field(default=False, init=False)
    _without_status_since: float | None = field(default=None, init=False)
    _batches: BatchWatch | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._began = self._last_valid = self.monotonic()
        if self.wait_for_batch:
            from airflow_flowservice.runs.batch_watch import BatchWatch

            self._batches = BatchWatch(error_budget=self.error_budget, monotonic=self.monotonic, wall=self.wall)

    def poll(self, read: ReadRun, read_batches: ReadBatches | None = None) -> FlowRun | None:
        """Read the run one time, or the batches of a run that has succeeded. Return the run if all ended, else None.

        A run that has ended without a status is returned `STATUS_PATIENCE` seconds later. A run that has ended with an
        unknown status is returned as `ENDED_UNCLEAR`, `UNKNOWN_PATIENCE` seconds later.

        Each read takes at most the time that is left of a time limit, and at least `MIN_READ_S`.

        :param read: reads a run by its id, for example `FlowServiceClient.get_run`.
        :param read_batches: reads batches, for example `CatalogReader.read`. If it is None and the watch waits for
            batches, the caller polls them with `poll_batches`.
        :raises FlowRunVanishedError: the run could be read before, and Flow Service does not know it any more.
        :raises FlowRunTimeoutError: `timeout` has passed.
        :raises ApiError: no valid response for `error_budget` seconds, or an error that waiting cannot fix.
        """
        if not self.pending_batches:
            try:
                run = read(self.flow_run_id, within_s=self._read_limit)
            except ApiError as error:
                self._handle_error(error)
            else:
                self._handle_run(run)
                if self._has_final_status(run) and not self._must_wait_for_batches(run):
                    is_unclear = run.status is FlowRunStatus.UNKNOWN
                    return replace(run, status=FlowRunStatus.ENDED_UNCLEAR) if is_unclear else run
        if read_batches is not None and self.pending_batches:
            return self.poll_batches(read_batches)
        self._require_time()
        return None

    def poll_batches(self, read: ReadBatches) -> FlowRun | None:
        """Read the pending batches one time. Return the run with its batches if all have ended, else None.

        :raises FlowServiceError: as `poll`.
        """
        if self._batches is None or self.last is None:
            raise TypeError("the watch does not wait for batches")
        with error_context(flow_run_id=self.flow_run_id, url=self.url):
            if self._batches.poll(read, within_s=self._read_limit):
                return replace(self.last, batches=self._batches.batches)
        self._require_time()
        return None

    @property
    def pending_batches(self) -> dict[str, bool]:
        """Return the batches to poll next, and whether each could be read before; empty while the run is polled."""
        return self._batches.pending if self._batches else {}

    def poll_after_limit(self, read: ReadRun, read_batches: ReadBatches | None = None) -> FlowRun | None:
        """Read the run one more time after a time limit. Return the run if it has ended, else None.

        The read takes at most `AFTER_LIMIT_READ_S` seconds. Errors are logged and not raised, because the time limit
        ends the wait.
        """
        self.caller_limit = self.age + AFTER_LIMIT_READ_S
        try:
            return self.poll(read, read_batches)
        except FlowServiceError as error:
            log.warning("Flow run %s %s: %s", self.flow_run_id, _NOT_READABLE, error)
            return None

    @property
    def delay(self) -> float:
        """Return the seconds until the next poll.

        The delay grows with the time waited, up to `poll_interval`, and has jitter, so that the polls of many runs
        are spread. It never exceeds the remaining time.
        """
        age = self.age
        pause = min(self.poll_interval, max(_MIN_DELAY_S, age / 4)) * random.uniform(1 - _JITTER, 1 + _JITTER)
        return pause if self.timeout is None else max(0.0, min(pause, self.timeout - age))

    @property
    def seen(self) -> bool:
        """Return whether the run could be read, in this process or in an earlier one."""
        return self._seen

    def mark_seen(self) -> None:
        """Note that an earlier process could read the run just now."""
        self._seen = True

    def to_json(self) -> dict[str, Any]:
        """Return the state that the next process needs, for a sensor that polls once per process.

        The keys are `id`, `seen`, `said` (last logged status), `good` (epoch seconds of the last valid response)
        and `url`; while batches are polled, also `batches`.
        """
        silent = self.monotonic() - self._last_valid
        return {
            "id": self.flow_run_id,
            "seen": self._seen,
            "said": self._logged,
            "good": self.wall() - silent,
            "url": self.url,
            **({"batches": self._batches.to_json()} if self._batches and self._has_succeeded else {}),
        }

    def restore(self, value: Any) -> None:
        """Continue from the state that an earlier process stored for the same run; ignore any other value."""
        if not isinstance(value, dict) or value.get("id") != self.flow_run_id:
            return
        try:
            silent = max(0.0, self.wall() - value["good"])
            self._seen, self._logged = bool(value["seen"]), value["said"]
        except (KeyError, TypeError):  # written by another version
            return
        self.url = self.url or value.get("url")
        self._last_valid = self.monotonic() - silent
        if self._batches is not None:
            self._batches.restore(value.get("batches"))

    def timed_out(self, limit: str, seconds: float | None = None) -> FlowRunTimeoutError:
        """Return the error for a wait that ends before the run does.

        :param limit: name of the time limit.
        :param seconds: length of the time limit, if it is known.
        """
        length = "" if seconds is None else f", {seconds:g} second{'' if seconds == 1 else 's'}"
        if self._batches is not None and self._has_succeeded:
            state = f"succeeded, and its batches have not ended within {limit}{length}"
            state = f"{state}: {self._batches.describe_pending()}"
        else:
            state = f"has not ended within {limit}{length}; its last status is {self._last_status}"
        return FlowRunTimeoutError(
            f"the flow run {state}",
            flow_id=self.last.flow_id if self.last else None,
            window=self.last.window if self.last else None,
            flow_run_id=self.flow_run_id,
            url=self.url,
        )

    @property
    def age(self) -> float:
        """Return the seconds since the watch was made."""
        return self.monotonic() - self._began

    @property
    def _read_limit(self) -> float | None:
        """Return the maximum of seconds for a read, or None if there is no time limit."""
        limits = [limit for limit in (self.timeout, self.caller_limit) if limit is not None]
        return max(MIN_READ_S, min(limits) - self.age) if limits else None

    @property
    def _last_status(self) -> str:
        logged = None if self._logged in (_NOT_READABLE_YET, _NOT_READABLE) else self._logged
        return (self.last.status_word if self.last else logged) or "not known"

    def _has_final_status(self, run: FlowRun) -> bool:
        is_unknown = run.status is FlowRunStatus.UNKNOWN and run.completed_at is not None
        if run.status is not FlowRunStatus.ENDED_UNCLEAR and not is_unknown:
            return run.status.ended
        now = self.monotonic()
        if self._without_status_since is None:
            self._without_status_since = now
        since_end = 0.0 if run.completed_at is None else self.wall() - run.completed_at.timestamp()
        patience = UNKNOWN_PATIENCE if is_unknown else STATUS_PATIENCE
        return max(now - self._without_status_since, since_end) >= patience

    @property
    def _has_succeeded(self) -> bool:
        return self.last is not None and self.last.status.succeeded

    def _must_wait_for_batches(self, run: FlowRun) -> bool:
        if self._batches is None:
            return False
        with error_context(flow_run_id=self.flow_run_id, url=self.url):
            return self._batches.begin(run)

    def _handle_run(self, run: FlowRun) -> None:
        self._last_valid = self.monotonic()
        self.last, self._seen = run, True
        if run.status_word == self._logged:
            return
        self._logged = run.status_word
        if run.status.value != "unknown" or not run.status_word:
            log.info("Flow run %s is %s", run.id, run.status_word or "waiting")
        else:
            log.warning("Flow run %s has the unknown status %r; continuing to wait", run.id, run.status_word)

    def _handle_error(self, error: ApiError) -> None:
        error.about(flow_run_id=self.flow_run_id, url=self.url)
        silent = self.monotonic() - self._last_valid
        if isinstance(error, RunNotFoundError):
            if self._seen:
                raise self._vanished(error) from error
            budget, state = NOT_YET_READABLE, _NOT_READABLE_YET
        else:
            # If the run could be read before, any error can pass: a token is renewed, or a permission restored.
            budget, state = self.error_budget if error.retryable or self._seen else 0.0, _NOT_READABLE
        if silent >= budget:
            raise error
        if self._logged != state:
            reason = "" if state == _NOT_READABLE_YET else f"; continuing to wait: {error}"
            log.warning("Flow run %s %s%s", self.flow_run_id, state, reason)
            self._logged = state

    def _vanished(self, error: RunNotFoundError) -> FlowRunVanishedError:
        return FlowRunVanishedError(
            f"the flow run was {self._last_status} and is now unknown to Flow Service",
            flow_id=self.last.flow_id if self.last else None,
            flow_run_id=self.flow_run_id,
            http_status=error.http_status,
            code=error.code,
            request_id=error.request_id,
            url=self.url,
        )

    def _require_time(self) -> None:
        if self.timeout is not None and self.age >= self.timeout:
            raise self.timed_out("wait_timeout", self.timeout)


def wait_for_end(
    watch: RunWatch,
    read: ReadRun,
    read_batches: ReadBatches | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> FlowRun:
    """Block until the run has ended, and return it.

    :param read_batches: for a watch that also waits for the run's batches.
    :raises FlowServiceError: as `RunWatch.poll`.
    """
    while (run := watch.poll(read, read_batches)) is None:
        sleep(watch.delay)
    return run


def read_known_run(
    read: ReadRun,
    flow_run_id: str,
    *,
    error_budget: float,
    poll: float = 5.0,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> FlowRun:
    """Read a known run. Errors that can pass do not fail the attempt until the error budget is used up.

    :param error_budget: seconds without a valid response after which reading ends; with 0, the run is read once.
    :param poll: seconds between two reads.
    :raises ApiError: the run cannot be read.
    """
    end, is_logged = monotonic() + error_budget, False
    while True:
        try:
            return read(flow_run_id, within_s=max(MIN_READ_S, end - monotonic()) if error_budget else None)
        except ApiError as error:
            if not error.retryable or monotonic() >= end:
                error.about(flow_run_id=flow_run_id)
                raise
            if not is_logged:
                log.warning("Flow run %s could not be read; continuing to read it: %s", flow_run_id, error)
            is_logged = True
        sleep(max(0.0, min(poll, end - monotonic())))
