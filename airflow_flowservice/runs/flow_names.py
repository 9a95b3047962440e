# SPDX-License-Identifier: Apache-2.0
"""Find a dataflow of a sandbox by its name. Names are unique neither in Flow Service nor over time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from airflow_flowservice.api.validation import is_identifier
from airflow_flowservice.exceptions import FlowNameError
from airflow_flowservice.plain_text import clean_text

if TYPE_CHECKING:
    from airflow_flowservice.api.models import Flow
    from airflow_flowservice.api.shared_cache import SharedCache

_MAX_AGE_S = 300.0
"""Seconds for which a found id is used without reading the dataflows again."""
_MAX_CANDIDATES = 10
# Ids that this process has found, by scope and name, with the monotonic time of the search.
_found: dict[tuple[str, ...], tuple[str, float]] = {}


@dataclass(frozen=True, kw_only=True)
class FlowNames:
    """Names of the dataflows of a sandbox.

    :param scope: platform, organization, sandbox and client id.
    :param list_flows: return all dataflows of the sandbox.
    :param cache: shares found ids with other processes; None keeps them in this process.
    :param sandbox: for messages.
    """

    scope: tuple[str, ...]
    list_flows: Callable[[], Iterable[Flow]]
    cache: SharedCache | None
    sandbox: str

    def find(self, name: str) -> str:
        """Return the id of the only dataflow with this name.

        :raises FlowNameError: no dataflow, or several dataflows have the name.
        :raises ApiError: the dataflows cannot be read.
        """
        key = (*self.scope, name)
        found, at = _found.get(key, ("", 0.0))
        if found and time.monotonic() - at <= _MAX_AGE_S:
            return found
        with self._shared(name) as shared:
            flow_id = shared or self._read(name)
        _found[key] = flow_id, time.monotonic()
        return flow_id

    @contextmanager
    def _shared(self, name: str) -> Iterator[str | None]:
        """Yield the id that another process has found, or None. Then only this process searches."""
        if self.cache is None:
            yield None
            return
        entry_name = self.cache.name("name", *self.scope, name)
        with self.cache.lock(entry_name):
            entry = self.cache.read(entry_name, max_age_s=_MAX_AGE_S)
            found = entry.value.get("flow_id") if entry else None
            yield found if isinstance(found, str) and is_identifier(found) else None

    def _read(self, name: str) -> str:
        flows = [flow for flow in self.list_flows() if flow.name]
        matches = {flow.id: flow for flow in flows if (flow.name or "").strip() == name}
        if len(matches) != 1:
            raise self._error(name, list(matches.values()), flows)
        (flow_id,) = matches
        if self.cache is not None:
            self.cache.write(self.cache.name("name", *self.scope, name), {"flow_id": flow_id})
        return flow_id

    def _error(self, name: str, matches: list[Flow], flows: list[Flow]) -> FlowNameError:
        shown = clean_text(name, length=200)
        if matches:
            return FlowNameError(
                f"{len(matches)} dataflows of sandbox {self.sandbox} have the name {shown!r}: {_listed(matches)}",
                remedy="use flow_id with one of these ids, or rename the others in Experience Platform",
            )
        near = _near(name, flows)
        hint = f"; similar names: {_listed(near)}" if near else f"; its dataflows: {_listed(flows)}" if flows else ""
        return FlowNameError(f"no dataflow of sandbox {self.sandbox} has the name {shown!r}{hint}")


def _near(name: str, flows: list[Flow]) -> list[Flow]:
    by_text: dict[str, list[Flow]] = {}
    for flow in flows:
        by_text.setdefault((flow.name or "").strip().casefold(), []).append(flow)
    wanted = name.strip().casefold()
    similar = get_close_matches(wanted, by_text, n=_MAX_CANDIDATES)
    containing = sorted(text for text in by_text if wanted and wanted in text)
    texts = dict.fromkeys([*similar, *containing])
    return [flow for text in texts for flow in by_text[text]]


def _listed(flows: list[Flow]) -> str:
    shown = [f"{flow.id} ({flow.name!r}, {flow.state or 'state unknown'})" for flow in flows[:_MAX_CANDIDATES]]
    more = len(flows) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more > 0 else [])])
