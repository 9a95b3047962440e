# SPDX-License-Identifier: Apache-2.0
"""Fill gaps on a real Airflow: by the command line, and by the page's buttons in a real browser with two roles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from backfills import complete_backfills, repeat_lost_failures
from command_line import run

from tests.e2e.test_page import Page, chromium

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

__all__ = ["chromium"]
DAG_ID = "e2e_fill"
YEAR_ID = "e2e_fill_year"
DAY = timedelta(days=1)
ENTER = "\ue007"
# A folder for pictures of the page, to look at.
PICTURES = os.environ.get("FLOWSERVICE_PICTURES")

_TOKEN_CODE = """
import sys
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.app import create_app, get_auth_manager
create_app(apps="core")
print("token:" + get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=sys.argv[1], role=sys.argv[1])))
"""


def february(day: int) -> datetime:
    """Return the start of a window of February 2026."""
    return datetime(2026, 2, 1, tzinfo=timezone.utc) + (day - 1) * DAY


@pytest.fixture(scope="module")
def token_of(airflow: LocalAirflow) -> Callable[[str], str]:
    """Return a function that creates the token of a user with a role."""

    def create(role: str) -> str:
        command = [sys.executable, "-c", _TOKEN_CODE, role]
        done = subprocess.run(
            command, env=airflow.environment, capture_output=True, text=True, timeout=180, check=False
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("token:")]
        assert lines, done.stderr
        return lines[0].removeprefix("token:")

    return create


@pytest.fixture(scope="module")
def gaps(
    airflow: LocalAirflow,
    emulator: EmulatedFlowService,
    backfill: Callable[..., Any],
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
) -> None:
    """Ingest 1, 2, 4 and 7 February; 3 fails. The other days have no DAG run."""
    tell("outcomes", flow_id=flow_of(DAG_ID), status="failed", times=None, covering="2026-02-03T12:00:00Z")
    backfill(DAG_ID, first=february(2), last=february(5), count=4)
    complete_backfills(airflow, DAG_ID)
    backfill(DAG_ID, first=february(8), last=february(8), count=5)
    complete_backfills(airflow, DAG_ID)
    repeat_lost_failures(airflow, DAG_ID)
    requests.delete(f"{emulator.url}/_emulator/outcomes", timeout=30).raise_for_status()


@pytest.fixture
def open_page(chromium: Any, airflow: LocalAirflow, gaps: None, flow_of: Callable[[str], str]) -> Callable[..., Page]:
    """Return a function that opens the dataflow's page with a token, in Airflow's frame."""

    def open_with(token: str, *, first: int, last: int) -> Page:
        chromium.switch_to.default_content()
        chromium.get(f"{airflow.address}/flowservice/static/icon.svg")
        chromium.delete_all_cookies()
        chromium.add_cookie({"name": "_token", "value": token, "path": "/"})
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_script("localStorage.setItem('theme', 'light')")
        page = Page(chromium, address=airflow.address)
        dates = f"from={february(first):%Y-%m-%dT00:00:00Z}&to={february(last + 1):%Y-%m-%dT00:00:00Z}"
        page.open(f"/plugin/flowservice#flow_id={flow_of(DAG_ID)}&dag_id={DAG_ID}&{dates}")
        page.rows()
        return page

    return open_with


def backfills(airflow: LocalAirflow) -> int:
    return int(airflow.api("GET", f"/backfills?dag_id={DAG_ID}")["total_entries"])


def picture(page: Page, name: str) -> None:
    if PICTURES:
        page.browser.save_screenshot(str(Path(PICTURES) / f"{name}.png"))


def listed(page: Page) -> list[str]:
    """Return the day and action of each window in the preview."""
    page.wait(lambda: page.all("#fill-windows tr"))
    rows = [[cell.text for cell in row.find_elements("css selector", "td")] for row in page.all("#fill-windows tr")]
    return [f"{start[8:10]} {action}" for start, _, action, _ in rows]


def test_command_fills_a_year_by_twelve_flow_runs(
    airflow: LocalAirflow, release: Callable[..., None], verdict: Callable[..., tuple[int, int]], flow_of: Any
) -> None:
    """A second command meanwhile creates nothing."""
    release(YEAR_ID)
    dates = ("--from", "2025-01-01T00:00:00+00:00", "--to", "2026-01-01T00:00:00+00:00")
    options = ["flowservice", "fill", "--dag-id", YEAR_ID, *dates, "--chunk", "1mo", "--yes", "--output=json"]
    done = run(airflow, options)
    assert 0 == done.returncode, done.stderr
    assert (12, 12) == (json.loads(done.stdout)["dag_runs"], json.loads(done.stdout)["filled"])
    again = run(airflow, options)
    assert (0, 0) == (again.returncode, json.loads(again.stdout)["filled"]), again.stderr
    airflow.wait_for_runs(YEAR_ID, count=12, timeout=300)
    first, last = datetime(2025, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert (0, 0) == verdict(YEAR_ID, first, last)
    shown = run(airflow, ["flowservice", "coverage", "--dag-id", YEAR_ID, *dates, "--output=json"])
    assert (0, {"ingested"}) == (shown.returncode, {span["state"] for span in json.loads(shown.stdout)["spans"]})


def test_viewer_sees_why_the_buttons_are_disabled(
    open_page: Callable[..., Page], token_of: Callable[[str], str]
) -> None:
    page = open_page(token_of("viewer"), first=1, last=10)
    assert "You may not create runs of DAG e2e_fill" in page.text("#fill-reason")
    assert [False] * 3 == [page.one(f"#{name}-button").is_enabled() for name in ("fill", "retry", "restate")]
    picture(page, "viewer")


def test_expired_login_creates_nothing(airflow: LocalAirflow, open_page: Callable[..., Page]) -> None:
    """The dialog reports it, and a new preview shows the same windows."""
    before = backfills(airflow)
    page = open_page(airflow.rest.token, first=1, last=10)
    page.click("#fill-button")
    listed(page)
    page.browser.delete_all_cookies()
    page.click("#fill-confirm")
    page.wait(lambda: "Your login has expired" in page.text(".fill-dialog [role=alert]"))
    assert "log in to Airflow" in page.text(".fill-dialog [role=alert]")
    assert before == backfills(airflow)


def test_lost_connection_repeats_nothing(airflow: LocalAirflow, open_page: Callable[..., Page]) -> None:
    before = backfills(airflow)
    page = open_page(airflow.rest.token, first=1, last=10)
    page.click("#fill-button")
    listed(page)
    page.browser.execute_cdp_cmd("Network.enable", {})
    try:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/api/v2/backfills*"]})
        page.click("#fill-confirm")
        page.wait(lambda: "Airflow does not respond" in page.text(".fill-dialog [role=alert]"))
    finally:
        page.browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
        page.browser.execute_cdp_cmd("Network.disable", {})
    assert before == backfills(airflow)


# Runs the page's module against a stand-in for Airflow's API, with `plans` and `answers` as queues.
_MODULE_CODE = """
const [address, plans, answers, done] = arguments;
const calls = [];
const plan = { steps: plans.shift() };
const respond = ([status, body]) => new Response(JSON.stringify(body), { status });
const original = window.fetch;
window.fetch = async (url, options = {}) => {
  const path = new URL(url).pathname.replace(/^.*(api|flowservice)/, "$1");
  calls.push(`${options.method ?? "GET"} ${path}`);
  if (path.endsWith("/data/fill")) return respond([200, { steps: plans.length > 1 ? plans.shift() : plans[0] }]);
  const answer = answers.shift();
  if (answer === null) throw new TypeError("no response");
  return respond(answer);
};
import(`${address}/flowservice/static/fill_requests.js`)
  .then(async ({ fillWindows }) => {
    const { signal } = new AbortController();
    return fillWindows({ dag_id: "d" }, plan, { signal, onProgress: () => {}, pause: async () => {} });
  })
  .then((result) => ({ result, calls }), (error) => ({ error: `${error.message}`, calls }))
  .then((value) => ((window.fetch = original), done(value)));
"""
NO_BACKFILL = [200, {"backfills": [{"id": 1, "completed_at": "2026-01-01"}]}]
ACTIVE = [200, {"backfills": [{"id": 2, "completed_at": None}]}]


def step(action: str, *days: int) -> dict[str, Any]:
    windows = [{"window_start": f"2026-01-{day:02}", "window_end": f"2026-01-{day + 1:02}"} for day in days]
    count = 1 if action == "backfill" else len(days)
    return {"action": action, "windows": windows, "requests": [{"path": f"/api/v2/{action}", "body": {}}] * count}


BACKFILL, TRIGGER = step("backfill", 1, 2), step("trigger", 4, 5)
PLAN, LIST, POST = "GET flowservice/data/fill", "GET api/v2/backfills", "POST api/v2/backfill"


@pytest.mark.parametrize(
    ("plans", "answers", "expected", "calls"),
    [
        ([[BACKFILL], [BACKFILL], []], [NO_BACKFILL, [200, {}]], (2, 2), [PLAN, LIST, POST, PLAN]),
        ([[BACKFILL], [BACKFILL]], [NO_BACKFILL, [200, {}]], (2, 2), [PLAN, LIST, POST, PLAN]),
        ([[BACKFILL], []], [], (0, 2), [PLAN]),
        (
            [[BACKFILL], [BACKFILL], [BACKFILL], []],
            [ACTIVE, NO_BACKFILL, [200, {}]],
            (2, 2),
            [PLAN, LIST, PLAN, LIST, POST, PLAN],
        ),
        (
            [[BACKFILL], [BACKFILL], [BACKFILL], []],
            [NO_BACKFILL, [409, {}], NO_BACKFILL, [200, {}]],
            (2, 2),
            [PLAN, LIST, POST, PLAN, LIST, POST, PLAN],
        ),
        ([[TRIGGER], [TRIGGER]], [[409, {}], [200, {}]], (2, 2), [PLAN, *["POST api/v2/trigger"] * 2, PLAN]),
        ([[BACKFILL], [BACKFILL]], [NO_BACKFILL, [401, {}]], "Your login has expired", [PLAN, LIST, POST]),
        (
            [[BACKFILL], [BACKFILL]],
            [NO_BACKFILL, [403, {"detail": "no"}]],
            "Airflow refused the request: no",
            [PLAN, LIST, POST],
        ),
        ([[BACKFILL], [BACKFILL]], [NO_BACKFILL, None], "Airflow does not respond", [PLAN, LIST, POST]),
        ([[BACKFILL], [step("backfill", 1, 2, 3)]], [], "The gaps have changed since the preview", [PLAN]),
    ],
    ids=[
        "created",
        "still open afterwards",
        "filled meanwhile",
        "other backfill is active",
        "other backfill was created",
        "DAG run exists",
        "login expired",
        "no permission",
        "lost response",
        "other windows",
    ],
)
def test_each_window_is_requested_at_most_once(
    open_page: Callable[..., Page],
    airflow: LocalAirflow,
    plans: Any,
    answers: Any,
    expected: tuple[int, int] | str,
    calls: list[str],
) -> None:
    page = open_page(airflow.rest.token, first=1, last=10)
    page.browser.set_script_timeout(60)
    shown = page.browser.execute_async_script(_MODULE_CODE, airflow.address, plans, answers)
    assert calls == shown["calls"]
    if isinstance(expected, str):
        assert expected == shown["error"]
    else:
        assert {"requested": expected[0], "confirmed": expected[1]} == shown["result"]


def test_button_fills_exactly_the_gaps(
    airflow: LocalAirflow, open_page: Callable[..., Page], verdict: Callable[..., tuple[int, int]]
) -> None:
    """Three ranges need three backfills, one after the other; a double click creates nothing twice."""
    before = backfills(airflow)
    page = open_page(airflow.rest.token, first=1, last=10)
    page.click("#fill-button")
    expected = ["03 backfill", *[f"{day:02} backfill" for day in (5, 6, 8, 9, 10)]]
    assert expected == listed(page)
    assert "This would create 5 DAG runs and run 1 again:" == page.text("#fill-text")
    assert "Fill 6 windows" == page.text("#fill-confirm")
    picture(page, "preview")
    page.js("parent.document.documentElement.classList.replace('light', 'dark')")
    page.wait(lambda: page.js("return document.documentElement.dataset.theme") == "dark")
    picture(page, "preview-dark")
    page.js("const each = document.getElementById('fill-confirm'); each.click(); each.click();")
    page.wait(lambda: "Waiting for backfill" in page.text("#fill-progress"), timeout=180)
    picture(page, "progress-dark")
    page.wait(lambda: "6 of 6 windows ended: 6 ingested." == page.text("#fill-states"), timeout=420)
    picture(page, "ended-dark")
    assert before + 3 == backfills(airflow)
    assert (0, 0) == verdict(DAG_ID, february(1), february(11))
    page.click(".fill-close")
    page.wait(lambda: "Every window is ingested exactly once." in page.text("#coverage-summary"))
    assert not page.one("#fill-button").is_enabled()


def test_chunks_fill_a_span_with_few_flow_runs(
    airflow: LocalAirflow, open_page: Callable[..., Page], verdict: Callable[..., tuple[int, int]]
) -> None:
    page = open_page(airflow.rest.token, first=11, last=20)
    page.click("#fill-button")
    assert 10 == len(listed(page))
    page.js(
        "const each = document.getElementById('fill-chunk'); each.value = '1w';each.dispatchEvent(new Event('change'));"
    )
    page.wait(lambda: listed(page) == ["11 trigger", "18 trigger"])
    page.click("#fill-confirm")
    page.wait(lambda: "2 of 2 windows ended: 2 ingested." == page.text("#fill-states"), timeout=300)
    assert (0, 0) == verdict(DAG_ID, february(11), february(21))


def test_restating_needs_the_number(
    airflow: LocalAirflow, open_page: Callable[..., Page], verdict: Callable[..., tuple[int, int]]
) -> None:
    """The window is ingested a second time, and the page shows it as restated."""
    complete_backfills(airflow, DAG_ID)
    page = open_page(airflow.rest.token, first=9, last=10)
    page.click("#restate-button")
    assert ["09 backfill", "10 backfill"] == listed(page)
    size = {"width": 428, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    picture(page, "restate-phone")
    page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert not page.one("#fill-confirm").is_enabled()
    page.one("#fill-number").send_keys("2")
    page.one("#fill-confirm").send_keys(ENTER)
    page.wait(lambda: "2 of 2 windows ended: 2 restated." == page.text("#fill-states"), timeout=300)
    assert (0, 2 * 1440) == verdict(DAG_ID, february(9), february(11))
