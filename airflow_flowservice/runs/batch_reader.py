# SPDX-License-Identifier: Apache-2.0
"""Read many flow runs with one request, so that an error reaches only the run that causes it.

The catalogue's batches are read in the same way (`batch_watch`).
"""

from __future__ import annotations

import logging
import math
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar
from urllib.parse import quote

from airflow_flowservice.exceptions import (
    ApiError,
    AuthenticationError,
    BatchNotFoundError,
    FlowServiceError,
    NoAnswerError,
    NotSentError,
    OrganizationError,
    RateLimitedError,
    RunNotFoundError,
    RunRefusedError,
    SandboxError,
    UnreadableAnswerError,
)

log = logging.getLogger(__name__)

# Maximum length of the ids in an address of 4 KiB; the rest is for the host, the path and other parameters.
_MAX_IDS_LENGTH = 3500
_COMMA_LENGTH = len("%2C")
_UNRESERVED = re.compile(r"[\w.~-]*", re.ASCII)
_MAX_SINGLE_READS = 10
# Flow Service may return fewer runs per page than requested. If it ignores the filter, the pages do not end.
_MAX_PAGES = 5
# A list may lag behind. If it omits existing runs several times in a row, it never shows them: it ignores its filter if
# these are most of the runs, otherwise it hides them.
_MAX_OMISSIONS = 3
# Seconds until single reads are replaced by lists again. The pause doubles if lists still fail.
_FIRST_APART_S, _MAX_APART_S = 300.0, 3600.0
# One refused id among ninety is found with 14 lists.
_MAX_HALVINGS = 16
# Errors that pass, such as a 503, are attributed to one run only after several failed lists in a row.
_FAILURES_BEFORE_HALVING = 3
_MAX_COUNTED = 10_000
_SAMPLE_SIZE = 2
# The connection causes these errors, not a run.
_CREDENTIAL_ERRORS = (AuthenticationError, OrganizationError, SandboxError)
_TRANSPORT_ERRORS = (NotSentError, RateLimitedError)


class Identified(Protocol):
    """Object with an id: a `FlowRun`, or a `CatalogBatch`."""

    @property
    def id(self) -> str:
        """Return the id, which is unique among the objects of its kind."""


Item = TypeVar("Item", bound=Identified)
_Read = TypeVar("_Read", bound=Identified, covariant=True)


@dataclass(frozen=True, kw_only=True)
class ItemKind:
    """Kind of the objects that a `BatchReader` reads.

    :param noun: name of the kind in messages.
    :param not_found: error for an object that does not exist.
    """

    noun: str
    plural: str
    not_found: type[ApiError]

    def absent_error(self, item_id: str) -> ApiError:
        """Return the error for an object that a list omits."""
        if self.not_found is RunNotFoundError:
            return RunNotFoundError("the flow run does not show in the list of runs", flow_run_id=item_id)
        return self.not_found(f"the {self.noun} {item_id} does not show in the list of {self.plural}")


FLOW_RUNS = ItemKind(noun="flow run", plural="runs", not_found=RunNotFoundError)
CATALOG_BATCHES = ItemKind(noun="batch", plural="batches", not_found=BatchNotFoundError)


class RunReader(Protocol[_Read]):
    """Read access to flow runs, for example `api.client.FlowServiceClient`; or to objects of another kind."""

    def get_run(self, flow_run_id: str, /, *, within_s: float) -> _Read:
        """Read one run, within some seconds."""

    def list_runs(
        self,
        *,
        ids: Iterable[str],
        order_by: str | None,
        limit: int | None,
        max_pages: int | None,
        briefly: bool,
        within_s: float,
    ) -> Iterable[_Read]:
        """Read these runs; if briefly, only id, dataflow and status of runs that have not ended."""


@dataclass
class BatchReader(Generic[Item]):
    """Read many runs with one request. Blocks; only one thread at a time may use it.

    A list that fails because of one run is halved until that run is found. The run is then read with a separate
    request for some minutes. The same applies to existing runs that lists omit `_MAX_OMISSIONS` times in a row. All
    runs are read singly for some minutes if Flow Service refuses all lists by id, or omits half of the existing runs.

    :param kind: kind of the objects; a comment or docstring about runs applies to each kind.
    :param together: False while all runs are read singly.
    """

    service: RunReader[Item]
    kind: ItemKind = FLOW_RUNS
    monotonic: Callable[[], float] = time.monotonic
    together: bool = field(default=True, init=False)
    _together_at: float = field(default=math.inf, init=False)
    _apart_s: float = field(default=_FIRST_APART_S, init=False)
    _separate_until: dict[str, float] = field(default_factory=dict, init=False)
    _omissions: Counter[str] = field(default_factory=Counter, init=False)
    _shown: set[str] = field(default_factory=set, init=False)
    _poor_lists: int = field(default=0, init=False)
    _failures: Counter[str] = field(default_factory=Counter, init=False)
    _ends_at: float = field(default=math.inf, init=False)
    _within_s: float = field(default=math.inf, init=False)

    def share(self, flow_run_id: str) -> float:
        """Return the share of one request that this id needs; the sum over one request must not exceed 1."""
        if not self.together or flow_run_id in self._separate_until:
            return 1 / _MAX_SINGLE_READS
        # Almost all ids are UUIDs, and each id is measured before each poll.
        quoted = flow_run_id if _UNRESERVED.fullmatch(flow_run_id) else quote(flow_run_id, safe="")
        return (len(quoted) + _COMMA_LENGTH) / _MAX_IDS_LENGTH

    def read(self, wanted: Mapping[str, bool], *, within_s: float = math.inf) -> dict[str, Item | FlowServiceError]:
        """Return each run, or the error from reading it. Ids without a result must be read again.

        :param wanted: ids, and whether the run could be read before. If so, its absence from a list is verified.
        :param within_s: limit in seconds for all requests together; afterwards, no further request is sent.
        """
        self._within_s, self._ends_at = within_s, self.monotonic() + within_s
        self._end_pauses()
        if not self.together:
            return self._singles(wanted)
        separate = self._singles(run_id for run_id in wanted if run_id in self._separate_until)
        shared = {run_id: seen for run_id, seen in wanted.items() if run_id not in separate}
        return separate | self._read_together(shared) if shared else separate

    def _read_together(self, wanted: Mapping[str, bool]) -> dict[str, Item | FlowServiceError]:
        found = self._listed(wanted)
        if not isinstance(found, FlowServiceError):
            for run_id in wanted:
                self._failures.pop(run_id, None)
            return self._with_absent(found, wanted)
        if len(wanted) == 1:
            return self._single_after(found, next(iter(wanted)))
        if isinstance(found, _TRANSPORT_ERRORS):
            return dict.fromkeys(wanted, found)
        is_credential = isinstance(found, _CREDENTIAL_ERRORS)
        if not (isinstance(found, ApiError) and found.retryable) and not is_credential:
            return self._isolated(wanted, found)
        if self._has_failed_repeatedly(wanted) and self._can_read_singly(wanted):
            return self._isolated(wanted, found)
        unseen = [run_id for run_id, seen in wanted.items() if not seen]
        if is_credential and unseen and self._can_read_singly(wanted):
            # This error would end the wait for a run that could not be read before.
            return {run_id: found for run_id, seen in wanted.items() if seen}
        return dict.fromkeys(wanted, found)

    def _has_failed_repeatedly(self, wanted: Iterable[str]) -> bool:
        """Count a failed list of these runs; return True for every third failure in a row of one of them."""
        if len(self._failures) > _MAX_COUNTED:
            self._failures.clear()
        self._failures.update(wanted)
        return max(self._failures[run_id] for run_id in wanted) % _FAILURES_BEFORE_HALVING == 0

    def _single_after(self, error: FlowServiceError, flow_run_id: str) -> dict[str, Item | FlowServiceError]:
        """Return the result for the only run of a list that failed with this error."""
        if not isinstance(error, RunRefusedError):
            return {flow_run_id: error}
        result = self._single(flow_run_id)
        if not isinstance(result, FlowServiceError):
            self._separate([flow_run_id], _refusal(error))
        return {flow_run_id: result}

    def _isolated(self, wanted: Mapping[str, bool], error: FlowServiceError) -> dict[str, Item | FlowServiceError]:
        """Return the results of smaller lists, and of a single read for each run whose list fails.

        The number of lists is bounded; ids without a result are read again by the caller.
        """
        results: dict[str, Item | FlowServiceError] = {}
        failing: list[str] = []
        groups = _halves(list(wanted))
        is_accepted = False
        for _ in range(_MAX_HALVINGS):
            if not groups:
                break
            group = groups.pop()
            found = self._listed({run_id: wanted[run_id] for run_id in group})
            if not isinstance(found, FlowServiceError):
                is_accepted = True
                results |= self._with_absent(found, {run_id: wanted[run_id] for run_id in group})
            elif isinstance(found, _TRANSPORT_ERRORS) or self._is_over:
                return results | dict.fromkeys([*group, *(each for rest in groups for each in rest)], found)
            elif len(group) > 1:
                groups += _halves(group)
            else:
                failing += group
                results |= self._singles(group)
                # If two runs can be read, and no list of them, the filter is refused and not the runs.
                if not is_accepted and sum(not isinstance(results[each], FlowServiceError) for each in failing) > 1:
                    break
        if is_accepted:
            self._separate(failing, _refusal(error))
        else:
            self._fall_back(f"refuses to list {self.kind.plural} by their ids ({error.message})")
        return results

    def _listed(self, wanted: Mapping[str, bool]) -> dict[str, Item | FlowServiceError] | FlowServiceError:
        """Return the runs that a list shows, or its error; read further pages only while runs are missing."""
        found: dict[str, Item | FlowServiceError] = {}
        try:
            # Hundreds of runs are read each minute, and most have not changed, so they are read briefly.
            runs = self.service.list_runs(
                ids=wanted,
                order_by=None,
                limit=len(wanted),
                max_pages=_MAX_PAGES,
                briefly=True,
                within_s=self._remaining_s(),
            )
            for run in runs:
                if run.id in wanted:
                    found[run.id] = run
                if len(found) == len(wanted):
                    break
        except BaseException as error:  # a SystemExit would end the event loop with all other triggers
            return as_service_error(error)
        return found

    def _with_absent(
        self, found: Mapping[str, Item | FlowServiceError], wanted: Mapping[str, bool]
    ) -> dict[str, Item | FlowServiceError]:
        """Add results for runs that the list omits: new runs, vanished runs, or runs that the filter missed.

        Runs that could be read before are read singly; if there are none, one of the other runs is.
        """
        absent = {run_id: seen for run_id, seen in wanted.items() if run_id not in found}
        results: dict[str, Item | FlowServiceError] = {run_id: self.kind.absent_error(run_id) for run_id in absent}
        singles = self._singles([run_id for run_id, seen in absent.items() if seen] or list(absent)[:1])
        self._count_omissions(found, singles, absent=len(absent))
        if not absent:
            self._apart_s = _FIRST_APART_S
        return {**found, **results, **singles}

    def _count_omissions(
        self, found: Collection[str], singles: Mapping[str, Item | FlowServiceError], *, absent: int
    ) -> None:
        """Count the existing runs that a list omits. If it is not the first time, read them, or all runs, singly.

        :param absent: number of runs that the list omits; `singles` has only some of them.
        """
        for run_id in found:
            self._omissions.pop(run_id, None)
            self._shown.add(run_id)
        omitted = [run_id for run_id, result in singles.items() if not isinstance(result, FlowServiceError)]
        self._omissions.update(omitted)
        hidden = [run_id for run_id in omitted if self._omissions[run_id] >= _MAX_OMISSIONS]
        known = [run_id for run_id in self._separate_until if self._omissions[run_id] >= _MAX_OMISSIONS]
        # Lists that show most runs do not ignore their filter.
        many = min(len(self._shown), _MAX_SINGLE_READS)
        is_poor = bool(omitted) and absent * len(omitted) >= min(len(found) or many, many) * len(singles)
        self._poor_lists = self._poor_lists + 1 if is_poor else 0
        if self._poor_lists >= _MAX_OMISSIONS or (hidden and len(hidden) + len(known) >= many):
            self._poor_lists = 0
            self._fall_back(f"omits existing {self.kind.plural} when it lists them by their ids")
        elif hidden:
            self._separate(hidden, "omits {} from lists")

    def _can_read_singly(self, wanted: Mapping[str, bool]) -> bool:
        """Return whether Flow Service responds to a read of one of two random runs."""
        sample = random.sample(list(wanted), min(_SAMPLE_SIZE, len(wanted)))
        return any(
            not isinstance(result, FlowServiceError) or isinstance(result, self.kind.not_found)
            for result in map(self._single, sample)
        )

    def _singles(self, flow_run_ids: Iterable[str]) -> dict[str, Item | FlowServiceError]:
        return {run_id: self._single(run_id) for run_id in flow_run_ids}

    def _single(self, flow_run_id: str) -> Item | FlowServiceError:
        try:
            return self.service.get_run(flow_run_id, within_s=self._remaining_s())
        except BaseException as error:  # as in `_listed`
            return as_service_error(error)

    @property
    def _is_over(self) -> bool:
        """Return whether the time of the read is used up; then no error is attributed to one run."""
        return self.monotonic() >= self._ends_at

    def _remaining_s(self) -> float:
        """Return the seconds until the read must end.

        :raises NoAnswerError: the time is used up.
        """
        remaining = self._ends_at - self.monotonic()
        if remaining <= 0:
            raise NoAnswerError(f"Adobe did not send all {self.kind.plural} within {self._within_s:g} s")
        return remaining

    def _end_pauses(self) -> None:
        """Read runs together again whose pause is over."""
        now = self.monotonic()
        if max(len(self._omissions), len(self._shown)) > _MAX_COUNTED:
            self._omissions.clear()
            self._shown.clear()
        self._separate_until = {run_id: until for run_id, until in self._separate_until.items() if until > now}
        if not self.together and now >= self._together_at:
            self.together = True
            self._omissions.clear()
            self._shown.clear()
            log.info("Reading each %s with shared requests again", self.kind.noun)

    def _separate(self, flow_run_ids: Iterable[str], problem: str) -> None:
        """Read these runs with separate requests for some minutes.

        :param problem: what Flow Service does, with braces in the place of a run.
        """
        for run_id in flow_run_ids:
            self._separate_until[run_id] = self.monotonic() + _FIRST_APART_S
            log.warning(
                "Flow Service %s; reading it separately for %.0f minutes",
                problem.replace("{}", f"{self.kind.noun} {run_id}"),
                _FIRST_APART_S / 60,
            )

    def _fall_back(self, reason: str) -> None:
        self.together, self._together_at = False, self.monotonic() + self._apart_s
        log.warning(
            "Flow Service %s; reading each %s with a separate request for %.0f minutes",
            reason,
            self.kind.noun,
            self._apart_s / 60,
        )
        self._apart_s = min(2 * self._apart_s, _MAX_APART_S)


def _refusal(error: FlowServiceError) -> str:
    """Return the problem of a list that Flow Service refuses because of one run."""
    return f"refuses to list {{}} with others ({error.message})"


def as_service_error(error: BaseException) -> FlowServiceError:
    """Return an error of this package unchanged; log any other, and return an error that can pass."""
    if isinstance(error, FlowServiceError):
        return error
    log.error("Polling failed unexpectedly", exc_info=error)
    return UnreadableAnswerError(f"polling failed: {type(error).__name__}")


def _halves(flow_run_ids: list[str]) -> list[list[str]]:
    middle = len(flow_run_ids) // 2
    return [flow_run_ids[middle:], flow_run_ids[:middle]]
