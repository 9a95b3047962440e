"""Reads many runs with one request, and each by itself where the service does not take part in that."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from airflow_flowservice.exceptions import ApiError, RunNotFoundError, RunRefusedError

if TYPE_CHECKING:
    from airflow_flowservice.api.models import FlowRun

log = logging.getLogger(__name__)

# Of an address of 4 KiB, what ids may take; the rest is for the host, the path and the other parameters.
_LENGTH = 3500
_COMMA = len("%2C")
_UNRESERVED = re.compile(r"[\w.~-]*", re.ASCII)
_ONE_BY_ONE = 10
# The service may give fewer on a page than were asked for; one that ignores the filter has pages without end.
_PAGES = 5
# A list may lag behind; one that lacks runs again and again does not heed its filter.
_STRIKES = 3


class Service(Protocol):
    """What is asked of Flow Service; `api.client.FlowServiceClient` is one."""

    def get_run(self, flow_run_id: str, /) -> FlowRun:
        """Read one run."""

    def list_runs(
        self, *, ids: Iterable[str], order_by: str | None, limit: int | None, max_pages: int | None, briefly: bool
    ) -> Iterable[FlowRun]:
        """Read these runs; briefly, of those that have not ended no more than their status."""


@dataclass
class BatchReader:
    """Reads runs of one service together; blocks, and is used by one thread at a time.

    Falls back to one request a run, for good, when the service refuses the filter by id, or three times in a row
    leaves out a run that it has.
    """

    service: Service
    together: bool = field(default=True, init=False)
    _strikes: int = field(default=0, init=False)

    def share(self, flow_run_id: str) -> float:
        """How much of one reading this id takes up; together they must not exceed 1."""
        if not self.together:
            return 1 / _ONE_BY_ONE
        # Nearly all are UUIDs, and each is measured before each poll.
        quoted = flow_run_id if _UNRESERVED.fullmatch(flow_run_id) else quote(flow_run_id, safe="")
        return (len(quoted) + _COMMA) / _LENGTH

    def read(self, wanted: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """Each run, or the error that reading it gives.

        :param wanted: ids, and whether the run could be read before: then its absence from a list is looked into.
        """
        if self.together:
            try:
                found = self._listed(wanted)
            except RunRefusedError as error:
                self._fall_back(f"refuses to list runs by their ids ({error.message})")
            except ApiError as error:
                return dict.fromkeys(wanted, error)
            else:
                return found | self._absent({run_id: seen for run_id, seen in wanted.items() if run_id not in found})
        return {run_id: self._single(run_id) for run_id in wanted}

    def _listed(self, wanted: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """What a list shows of these runs; further pages are read only while some are missing."""
        found: dict[str, FlowRun | ApiError] = {}
        # Hundreds of runs are looked at each minute, and most of them have nothing new to tell.
        runs = self.service.list_runs(ids=wanted, order_by=None, limit=len(wanted), max_pages=_PAGES, briefly=True)
        for run in runs:
            if run.id in wanted:
                found[run.id] = run
            if len(found) == len(wanted):
                break
        return found

    def _absent(self, absent: Mapping[str, bool]) -> dict[str, FlowRun | ApiError]:
        """Runs that a list lacks: new ones that do not show yet, vanished ones, or it did not heed the filter.

        Those that were seen are read by themselves, and one of the others.
        """
        looked_into = [run_id for run_id, seen in absent.items() if seen] or list(absent)[:1]
        answers: dict[str, FlowRun | ApiError] = {
            run_id: RunNotFoundError("the flow run does not show in the list of runs", flow_run_id=run_id)
            for run_id in absent
        }
        singles = {run_id: self._single(run_id) for run_id in looked_into}
        lacking = any(not isinstance(answer, ApiError) for answer in singles.values())
        self._strikes = self._strikes + 1 if lacking else 0
        if self._strikes >= _STRIKES:
            self._fall_back("leaves out runs that exist when it lists them by their ids")
        return answers | singles

    def _single(self, flow_run_id: str) -> FlowRun | ApiError:
        try:
            return self.service.get_run(flow_run_id)
        except ApiError as error:
            return error

    def _fall_back(self, why: str) -> None:
        self.together = False
        log.warning("Flow Service %s, so each flow run that is waited for takes a request of its own", why)
