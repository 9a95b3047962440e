# SPDX-License-Identifier: Apache-2.0
"""State of an emulator: flows, runs, tokens, plans and request counts. Only one thread may use it."""

from __future__ import annotations

import secrets
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from airflow_flowservice.emulator.ceilings import Ceilings
from airflow_flowservice.emulator.creation_rules import Creation
from airflow_flowservice.emulator.errors import EmulatedApiError
from airflow_flowservice.emulator.faults import FaultPlan
from airflow_flowservice.emulator.model import EmulatedFlow, EmulatedRun
from airflow_flowservice.emulator.outcomes import OutcomePlan
from airflow_flowservice.emulator.query import ListQuery, at_path, paginate, select
from airflow_flowservice.emulator.render import batch_json, flow_json, run_json
from airflow_flowservice.emulator.settings import (
    DISABLED_FLOW_ID,
    FILE_FLOW_ID,
    HOURLY_FLOW_ID,
    TABLE_FLOW_ID,
    Settings,
    ShowWindow,
)


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a list, the address of the next page, and the number of items on all pages."""

    items: list[dict[str, Any]]
    next_href: str | None
    total: int


class EmulatorState:
    """State of an emulator.

    Args:
        settings: the settings of the emulator.
        clock: function that returns epoch seconds. `settings.clock_offset_s` is added to its value.

    Attributes:
        url: base URL of the server, for links; empty links are relative.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.url = ""
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}
        self.reset()

    def reset(self) -> None:
        """Restore the initial flows and delete all runs, plans and counts. Tokens stay valid."""
        self.flows: dict[str, EmulatedFlow] = {}
        self.runs: dict[str, EmulatedRun] = {}
        self.requests: Counter[str] = Counter()
        self.faults = FaultPlan()
        self.outcomes = OutcomePlan()
        self.ceilings = Ceilings(self.settings)
        self._runs_of: defaultdict[str, list[EmulatedRun]] = defaultdict(list)
        for flow in _initial_flows(self.now()):
            self.flows[flow.id] = flow

    def now(self) -> float:
        """Return the time of the emulator's clock in epoch seconds."""
        return self._clock() + self.settings.clock_offset_s

    # Tokens

    def issue_token(self, client_id: str) -> str:
        """Issue a token for a client."""
        token = secrets.token_urlsafe(96)
        self._tokens[token] = (client_id, self.now() + self.settings.token_ttl_s)
        return token

    def token_owner(self, token: str) -> str | None:
        """Return the client id of a token; None if the token is unknown or has expired."""
        client_id, expires_at = self._tokens.get(token, ("", 0.0))
        return client_id if self.now() < expires_at else None

    def expire_tokens(self) -> None:
        """Invalidate all tokens."""
        self._tokens.clear()

    # Runs

    def require_room(self, flow_id: str) -> None:
        """Return if a client may create another run of a flow.

        Raises:
            EmulatedApiError: 429 if as many runs are in flight as a ceiling allows.
        """
        self.ceilings.require_room(of_flow=self.runs_of(flow_id), of_sandbox=self.runs.values(), now=self.now())

    def add_run(self, creation: Creation, *, client_id: str, delay_s: float = 0.0) -> EmulatedRun:
        """Record a valid run. Clients can read it after `delay_s` seconds."""
        flow = creation.flow
        if flow.kind == "table" and flow.delta_column is None and self.settings.update_s:
            flow.state, flow.state_until = "updating", self.now() + self.settings.update_s
            flow.next_state = "enabled"
        flow.delta_column = creation.delta_column
        return self._record(
            flow_id=creation.flow.id,
            client_id=client_id,
            params=creation.params,
            start_time=creation.start_time,
            window=(creation.window_start, creation.window_end),
            delay_s=delay_s,
        )

    def retrigger(self, run_id: str, *, client_id: str, delay_s: float = 0.0) -> EmulatedRun:
        """Record a new run with the window of an ended run.

        Raises:
            EmulatedApiError: 404 if there is no such run; 400 with code 1388 if its flow is disabled, or with code 1387
                if it neither failed nor succeeded without records; 429 by a ceiling.
        """
        now = self.now()
        old = self.visible_run(run_id)
        flow = self.flows[old.flow_id]
        if (state := flow.state_at(now)) != "enabled":
            raise EmulatedApiError(400, "1388", f"Flow {flow.id} is {state}; enable it to re-trigger its runs.")
        first, end = old.source_records
        if not old.has_ended(now) or not (old.outcome.failed or first == end):
            raise EmulatedApiError(400, "1387", f"Run {run_id} is {old.status(now)} and cannot be re-triggered now.")
        self.require_room(flow.id)
        new = self._record(
            flow_id=old.flow_id,
            client_id=client_id,
            params={**old.params, "startTime": type(old.params["startTime"])(int(now))},
            start_time=int(now),
            window=(old.window_start, old.window_end),
            delay_s=delay_s,
            parent_id=old.id,
        )
        old.child_ids.append(new.id)
        return new

    def _record(
        self,
        *,
        flow_id: str,
        client_id: str,
        params: dict[str, Any],
        start_time: int,
        window: tuple[int, int],
        delay_s: float,
        parent_id: str | None = None,
    ) -> EmulatedRun:
        now = self.now()
        outcome = self.outcomes.take(flow_id=flow_id, window=window)
        starts_at = max(now, float(start_time)) + _value_or_default(outcome.queue_s, self.settings.queue_s)
        ends_at = starts_at + _value_or_default(outcome.run_s, self.settings.run_s)
        run = EmulatedRun(
            id=str(uuid.uuid4()),
            etag=f'"{secrets.token_hex(4)}-0000-0200-0000-{int(now):012x}"',
            flow_id=flow_id,
            client_id=client_id,
            params=params,
            window_start=window[0],
            window_end=window[1],
            created_at=now,
            visible_at=now + delay_s,
            starts_at=starts_at,
            ends_at=ends_at,
            batch_ends_at=ends_at + _value_or_default(outcome.batch_s, self.settings.batch_s),
            outcome=outcome,
            parent_id=parent_id,
        )
        self.runs[run.id] = run
        self._runs_of[flow_id].append(run)
        return run

    def runs_of(self, flow_id: str) -> list[EmulatedRun]:
        """Return all runs of a flow in the order of their creation, including hidden runs."""
        return self._runs_of.get(flow_id, [])

    def end_runs(self, flow_id: str, *, count: int | None) -> int:
        """End active runs of a flow now and return their number.

        Args:
            flow_id: the flow.
            count: end only the oldest `count` runs; None means all active runs.
        """
        now = self.now()
        chosen = [run for run in self.runs_of(flow_id) if run.phase(now) != "ended"][:count]
        for run in chosen:
            batch_s = run.batch_ends_at - run.ends_at
            run.starts_at, run.ends_at, run.batch_ends_at = min(run.starts_at, now), now, now + batch_s
        return len(chosen)

    def visible_run(self, run_id: str) -> EmulatedRun:
        """Return a run that clients can read.

        Raises:
            EmulatedApiError: 404 with code 1101 if the run does not exist, is still hidden or has vanished.
        """
        run = self.runs.get(run_id)
        if run is None or not run.is_visible(self.now()):
            raise EmulatedApiError(404, "1101", f"There is no flow run {run_id!r}.")
        return run

    def read_run(self, run_id: str, *, show_window: ShowWindow) -> dict[str, Any]:
        """Return the JSON of a run and count the read. A run with a `vanish` outcome vanishes afterwards."""
        return self._show(self.visible_run(run_id), show_window)

    def list_runs(self, query: ListQuery, *, show_window: ShowWindow) -> ListPage:
        """Return one page of the runs that match a query."""
        now = self.now()

        def value(run: EmulatedRun, path: str) -> Any:
            if path == "id":
                return run.id
            if path == "flowId":
                return run.flow_id
            if path == "createdAt":
                return int(run.created_at * 1000)
            return at_path(run_json(run, settings=self.settings, show_window=show_window, now=now, url=self.url), path)

        candidates, rest = self._candidates(query)
        found = select([run for run in candidates if run.is_visible(now)], rest, value=value)
        page_items, href = paginate(found, query, value=value, path="/runs")
        return ListPage([self._show(run, show_window) for run in page_items], href, len(found))

    def _candidates(self, query: ListQuery) -> tuple[Iterable[EmulatedRun], ListQuery]:
        """Return the runs selected by an indexed filter, and the query without that filter."""
        if by_id := query.equality("id"):
            wanted = (self.runs[run_id] for run_id in dict.fromkeys(by_id.values) if run_id in self.runs)
            return sorted(wanted, key=lambda run: run.created_at), query.without(by_id)
        by_flow = query.equality("flowId")
        if by_flow and len(by_flow.values) == 1:
            return self.runs_of(by_flow.values[0]), query.without(by_flow)
        return self.runs.values(), query

    def _show(self, run: EmulatedRun, show_window: ShowWindow) -> dict[str, Any]:
        document = run_json(run, settings=self.settings, show_window=show_window, now=self.now(), url=self.url)
        run.times_shown += 1
        return document

    # Batches

    def read_batches(self, batch_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the JSON of the batches that the catalogue shows now, by id.

        Raises:
            EmulatedApiError: 404 if it shows none of them.
        """
        wanted, now = set(batch_ids), self.now()
        found = {
            run.batch_id: batch_json(run, dataset_id=self.flows[run.flow_id].dataset_id, now=now)
            for run in self.runs.values()
            if run.batch_id in wanted and run.batch_status(now) is not None
        }
        if not found:
            raise EmulatedApiError(404, "1101", f"The catalogue has no batch {', '.join(sorted(wanted))}.")
        return found

    # Flows

    def flow(self, flow_id: str) -> EmulatedFlow:
        """Return a flow.

        Raises:
            EmulatedApiError: 404 with code 1101 if the flow does not exist.
        """
        if flow_id not in self.flows:
            raise EmulatedApiError(404, "1101", f"There is no flow {flow_id!r}.")
        return self.flows[flow_id]

    def read_flow(self, flow: EmulatedFlow) -> dict[str, Any]:
        """Return the JSON of a flow with its last run."""
        runs = self.runs_of(flow.id)
        last = runs[-1] if runs else None
        return flow_json(flow, last, settings=self.settings, now=self.now())

    def list_flows(self, query: ListQuery) -> ListPage:
        """Return one page of the flows that match a query."""
        found = select([self.read_flow(flow) for flow in self.flows.values()], query, value=at_path)
        page_items, href = paginate(found, query, value=at_path, path="/flows")
        return ListPage(page_items, href, len(found))


def _value_or_default(value: float | None, default: float) -> float:
    return default if value is None else value


def _initial_flows(now: float) -> list[EmulatedFlow]:
    return [
        EmulatedFlow(id=TABLE_FLOW_ID, name="Orders (table, one-time)", kind="table", created_at=now),
        EmulatedFlow(id=FILE_FLOW_ID, name="Clicks (files, one-time)", kind="file", created_at=now),
        EmulatedFlow(
            id=HOURLY_FLOW_ID,
            name="Customers (table, hourly)",
            kind="table",
            created_at=now,
            frequency="hour",
            delta_column={"name": "updated_at"},
        ),
        EmulatedFlow(
            id=DISABLED_FLOW_ID,
            name="Returns (table, disabled)",
            kind="table",
            created_at=now,
            state="disabled",
        ),
    ]
