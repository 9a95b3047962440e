# SPDX-License-Identifier: Apache-2.0
"""Addresses of dataflows and flow runs in Adobe Experience Platform's user interface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

_EXPERIENCE = "https://experience.adobe.com"
_RUN_FOLDER = "/activity/"


@dataclass(frozen=True, kw_only=True)
class ExperiencePages:
    """Pages of one sandbox.

    :param organization: organization id, `…@AdobeOrg`.
    :param sandbox: the sandbox's name, not its title.
    """

    organization: str
    sandbox: str

    def dataflow(self, flow_id: str | None) -> str:
        """Return the page of a dataflow's runs, or of all dataflows if there is no id."""
        organization, sandbox = quote(self.organization, safe="@"), quote(self.sandbox, safe="")
        folder = f"{_EXPERIENCE}/#/@{organization}/sname:{sandbox}/platform/source/dataflows"
        return f"{folder}/{quote(flow_id, safe='')}" if flow_id else folder

    def flow_run(self, flow_id: str | None, flow_run_id: str | None) -> str:
        """Return the page of a flow run, or of its dataflow if there is no run id."""
        dataflow = self.dataflow(flow_id)
        return f"{dataflow}{_RUN_FOLDER}{quote(flow_run_id, safe='')}" if flow_id and flow_run_id else dataflow


def pages_of(url: Any) -> ExperiencePages | None:
    """Return the pages to which a URL belongs; None if it is no page of a sandbox."""
    if not is_experience_page(url):
        return None
    organization, _, rest = url.removeprefix(f"{_EXPERIENCE}/#/@").partition("/")
    sandbox, slash, _ = rest.partition("/")
    if not organization or not slash or not sandbox.startswith("sname:") or sandbox == "sname:":
        return None
    return ExperiencePages(organization=unquote(organization), sandbox=unquote(sandbox.removeprefix("sname:")))


def is_experience_page(url: Any, *, organization: str | None = None) -> bool:
    """Return whether a URL, for example from an XCom that a user can change, is a page of Experience Platform.

    :param organization: the organization that the page must belong to, if it is known.
    """
    if not isinstance(url, str) or not url.startswith(f"{_EXPERIENCE}/#/@") or not url.isprintable():
        return False
    named = unquote(url.removeprefix(f"{_EXPERIENCE}/#/@").partition("/")[0])
    return organization is None or named == organization


def dataflow_page(url: str) -> str:
    """Return the page of the dataflow, from the page of one of its runs.

    For a process that has only the run's address, for example from an XCom. Otherwise use `ExperiencePages`.
    """
    return url.partition(_RUN_FOLDER)[0]
