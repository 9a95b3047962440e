# SPDX-License-Identifier: Apache-2.0
"""The dialog that fills gaps, in a real browser, with a stand-in for Airflow's own API.

Without a browser the module is skipped; in CI its tests fail instead.
"""

from __future__ import annotations

from tests.integration.plugins.conftest import FLOW, _token
from tests.integration.plugins.test_fleet_page import Overview, address, chromium

__all__ = ["address", "chromium"]

# Another backfill of the DAG is active, so Airflow accepts none.
_BUSY_CODE = """
const original = window.fetch;
window.fetch = (url, options) =>
  new URL(url, location).pathname.startsWith("/api/v2/backfills")
    ? Promise.resolve(new Response(JSON.stringify({ backfills: [{ id: 7, completed_at: null }] })))
    : original(url, options);
"""


def test_window_that_is_not_requested_yet_has_not_ended(chromium: object, address: str) -> None:
    """A failed window waits while another backfill is active; its former failure is no end."""
    page = Overview(chromium, address=address)
    page.browser.get(f"{address}/flowservice/static/icon.svg")
    page.browser.add_cookie({"name": "_token", "value": _token("admin", user=None), "path": "/"})
    page.open(f"#flow_id={FLOW}&dag_id=page_seen&from=2026-01-02T00:00:00Z&to=2026-01-05T00:00:00Z")
    page.wait(lambda: page.all("#rows tr"))
    page.js(_BUSY_CODE)
    page.js("document.getElementById('fill-button').click()")
    page.wait(lambda: len(page.all("#fill-windows tr")) == 2)
    page.js("document.getElementById('fill-confirm').click()")
    page.wait(lambda: "Waiting for backfill 7" in page.one("#fill-progress").text)
    page.wait(lambda: page.one("#fill-states").text)
    assert "0 of 2 windows ended: 2 waiting." == page.one("#fill-states").text
    assert "0" == page.one(".fill-progress progress").get_attribute("value")
