"""Waiting for a flow run to end: when to look, what a look means, when to give up.

The same rules hold on a worker and in the triggerer; only the sleeping differs, and that is the caller's.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_flowservice.exceptions import (
    ApiError,
    FlowRunTimeoutError,
    FlowRunVanishedError,
    FlowServiceError,
    RunNotFoundError,
)

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun

log = logging.getLogger(__name__)

# Adobe says that a new run may take two to three minutes to show.
NOT_YET_READABLE = 300.0
ERROR_BUDGET = 1800.0
_FIRST_LOOK = 1.0
_JITTER = 0.1
_UNREADABLE_YET, _UNREADABLE = "cannot be read yet", "could not be read"


@dataclass(kw_only=True, slots=True)
class RunWatch:
    """What is known of one run that is waited for.

    :param poll_interval: seconds between two looks, once the run is no longer young.
    :param timeout: seconds after which waiting ends; None means never.
    :param error_budget: seconds without a good answer after which waiting ends.
    :param url: the run's page, for messages.
    """

    flow_run_id: str
    poll_interval: float = 30.0
    timeout: float | None = None
    error_budget: float = ERROR_BUDGET
    url: str | None = None
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    last: FlowRun | None = None
    _began: float = field(init=False)
    _good: float = field(init=False)
    _reported: str | None = field(default=None, init=False)
    _seen: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._began = self._good = self.monotonic()

    def look(self, read: Callable[[str], FlowRun]) -> FlowRun | None:
        """Read the run once; the run if it has ended, else None.

        :param read: reads a run by its id, such as `FlowServiceClient.get_run`.
        :raises FlowRunVanishedError: it was there, and is not any more.
        :raises FlowRunTimeoutError: `timeout` is over.
        :raises ApiError: no good answer for `error_budget`, or one that waiting cannot mend.
        """
        try:
            run = read(self.flow_run_id)
        except ApiError as error:
            self._bad_answer(error)
        else:
            self._good_answer(run)
            if run.status.ended:
                return run
        self._require_time()
        return None

    @property
    def delay(self) -> float:
        """Seconds until the next look: short while the run is young, with jitter so that looks spread.

        Never beyond the time limit.
        """
        age = self.monotonic() - self._began
        pause = min(self.poll_interval, max(_FIRST_LOOK, age / 4)) * random.uniform(1 - _JITTER, 1 + _JITTER)
        return pause if self.timeout is None else max(0.0, min(pause, self.timeout - age))

    @property
    def seen(self) -> bool:
        """Whether the run could be read, now or in an earlier process."""
        return self._seen

    def to_carry_over(self) -> dict[str, Any]:
        """What a process that looks only once has to remember for the next one, as JSON."""
        silent = self.monotonic() - self._good
        good = self.wall() - silent
        return {
            "id": self.flow_run_id,
            "seen": self._seen,
            "said": self._reported,
            "good": good,
            "url": self.url,
        }

    def carry_over(self, value: Any) -> None:
        """Take up what an earlier process remembered of the same run; anything else is passed over."""
        if not isinstance(value, dict) or value.get("id") != self.flow_run_id:
            return
        try:
            silent = max(0.0, self.wall() - value["good"])
            self._seen, self._reported = bool(value["seen"]), value["said"]
        except (KeyError, TypeError):  # another version's
            return
        self.url = self.url or value.get("url")
        self._good = self.monotonic() - silent

    @property
    def _last_word(self) -> str:
        reported = None if self._reported in (_UNREADABLE_YET, _UNREADABLE) else self._reported
        return (self.last.status_word if self.last else reported) or "not known"

    @property
    def _window(self) -> str | None:
        return str(self.last.window) if self.last and self.last.window else None

    def _good_answer(self, run: FlowRun) -> None:
        self._good = self.monotonic()
        self.last, self._seen = run, True
        if run.status_word == self._reported:
            return
        self._reported = run.status_word
        if run.status.value != "unknown" or not run.status_word:
            log.info("Flow run %s is %s", run.id, run.status_word or "waiting")
        else:
            log.warning("Flow run %s is %r, a status nobody has heard of; waiting on", run.id, run.status_word)

    def _bad_answer(self, error: ApiError) -> None:
        error.about(flow_run_id=self.flow_run_id, url=self.url)
        silent = self.monotonic() - self._good
        if isinstance(error, RunNotFoundError):
            if self._seen:
                raise FlowRunVanishedError(
                    f"the flow run was {self._last_word} and is now unknown to Flow Service",
                    flow_id=self.last.flow_id if self.last else None,
                    flow_run_id=self.flow_run_id,
                    http_status=error.http_status,
                    code=error.code,
                    request_id=error.request_id,
                    url=self.url,
                ) from error
            budget, what = NOT_YET_READABLE, _UNREADABLE_YET
        else:
            # What worked before may work again: a token can be renewed, a permission given back.
            budget, what = self.error_budget if error.retryable or self._seen else 0.0, _UNREADABLE
        if silent >= budget:
            raise error
        if self._reported != what:
            why = "" if what == _UNREADABLE_YET else f", waiting on: {error}"
            log.warning("Flow run %s %s%s", self.flow_run_id, what, why)
            self._reported = what

    def _require_time(self) -> None:
        if self.timeout is not None and self.monotonic() - self._began >= self.timeout:
            raise self.timed_out("wait_timeout", self.timeout)

    def timed_out(self, limit: str, seconds: float | None = None) -> FlowRunTimeoutError:
        """The error for a wait that ends while the run goes on.

        :param limit: the name of the time limit.
        :param seconds: how long it is, if that is known.
        """
        length = "" if seconds is None else f", {seconds:g} second{'' if seconds == 1 else 's'}"
        return FlowRunTimeoutError(
            f"the flow run has not ended within {limit}{length}; its last status is {self._last_word}",
            flow_id=self.last.flow_id if self.last else None,
            window=self._window,
            flow_run_id=self.flow_run_id,
            url=self.url,
        )

    def last_look(self, read: Callable[[str], FlowRun]) -> FlowRun | None:
        """Read the run once more after a time limit; the run if it has ended after all.

        Nothing that goes wrong is raised: the time limit is what ends the wait.
        """
        try:
            return self.look(read)
        except FlowServiceError as error:
            log.warning("Flow run %s %s: %s", self.flow_run_id, _UNREADABLE, error)
            return None


def wait_for_end(
    watch: RunWatch, read: Callable[[str], FlowRun], *, sleep: Callable[[float], None] = time.sleep
) -> FlowRun:
    """Block until the run has ended, and return it; raises what `RunWatch.look` raises."""
    while (run := watch.look(read)) is None:
        sleep(watch.delay)
    return run
