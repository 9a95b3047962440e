# SPDX-License-Identifier: Apache-2.0
"""Fill gaps by the page's buttons with Airflow's FAB auth manager: two users log in by its form in a real browser.

The FAB auth manager needs a separate environment, see `fab_roles` in `.ci/run`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import copy
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from backfills import complete_backfills, repeat_lost_failures
from patience import wait_until

from tests.e2e.test_fill import DAG_ID, backfills, february, listed, picture
from tests.e2e.test_page import Page, chromium

if TYPE_CHECKING:
    from airflow_flowservice.demo.emulator import EmulatedFlowService
    from airflow_flowservice.demo.local_airflow import LocalAirflow

__all__ = ["chromium"]
AUTH_MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
# Users by the name of their role.
PASSWORDS = {"Op": "an-operator-of-these-tests", "Viewer": "a-viewer-of-these-tests"}


@pytest.fixture(scope="session")
def airflow(emulator: EmulatedFlowService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    """Start an Airflow with the FAB auth manager and users with a role; viewers may read plugins."""
    from airflow_flowservice.demo.local_airflow import LocalAirflow

    dags = tmp_path_factory.mktemp("dags")
    copy(Path(__file__).parent / "dags" / "e2e_fill.py", dags)
    with LocalAirflow(
        home=tmp_path_factory.mktemp("airflow"),
        dags_folder=dags,
        connections={"flowservice_default": emulator.connection},
        config={
            "AIRFLOW__CORE__AUTH_MANAGER": AUTH_MANAGER,
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
            # The tests log in more often than five times in 40 seconds.
            "AIRFLOW__FAB__AUTH_RATE_LIMITED": "False",
        },
    ) as running:
        create_user(running, running.login.username, role="Admin", password=running.login.password)
        for role, password in PASSWORDS.items():
            create_user(running, role.lower(), role=role, password=password)
        # As docs/coverage.md states: without it, Airflow shows no pages of plugins to a Viewer.
        command(running, "roles", "add-perms", "Viewer", "--resource", "Plugins", "--action", "can_read")
        running.wait_healthy(timeout=400)
        yield running


def create_user(airflow: LocalAirflow, name: str, *, role: str, password: str) -> None:
    names = ("--username", name, "--firstname", name, "--lastname", name, "--email", f"{name}@example.org")
    command(airflow, "users", "create", *names, "--role", role, "--password", password)


def command(airflow: LocalAirflow, *arguments: str) -> None:
    done = airflow.cli(*arguments)
    assert 0 == done.returncode, done.stderr


@pytest.fixture(scope="module")
def gaps(
    airflow: LocalAirflow, backfill: Callable[..., Any], tell: Callable[..., Any], flow_of: Callable[[str], str]
) -> None:
    """Ingest 1 February; 2 February fails. The other days have no DAG run."""
    tell("outcomes", flow_id=flow_of(DAG_ID), status="failed", times=None, covering="2026-02-02T12:00:00Z")
    backfill(DAG_ID, first=february(2), last=february(3), count=2)
    complete_backfills(airflow, DAG_ID)
    repeat_lost_failures(airflow, DAG_ID)
    tell("outcomes", method="DELETE")


@pytest.fixture
def log_in(chromium: Any, airflow: LocalAirflow) -> Callable[[str], Page]:
    """Return a function that logs in by the form as the user of a role."""

    def submit(role: str) -> Page:
        chromium.switch_to.default_content()
        chromium.get(f"{airflow.address}/flowservice/static/icon.svg")
        chromium.delete_all_cookies()
        chromium.execute_script("localStorage.setItem('theme', 'light')")
        page = Page(chromium, address=airflow.address)
        chromium.get(airflow.address)
        page.wait(lambda: page.all("input[name=username]"))
        page.one("input[name=username]").send_keys(role.lower())
        page.one("input[name=password]").send_keys(PASSWORDS[role])
        page.one("input[type=submit]").click()
        page.wait(lambda: "/auth/" not in chromium.current_url and chromium.get_cookie("_token"))
        return page

    return submit


@pytest.fixture
def open_days(log_in: Callable[[str], Page], gaps: None, flow_of: Callable[[str], str]) -> Callable[..., Page]:
    """Return a function that logs in as the user of a role, and opens days of the dataflow in Airflow's frame."""

    def open_as(role: str, *, first: int, last: int) -> Page:
        page = log_in(role)
        dates = f"from={february(first):%Y-%m-%dT00:00:00Z}&to={february(last + 1):%Y-%m-%dT00:00:00Z}"
        page.open(f"/plugin/flowservice#flow_id={flow_of(DAG_ID)}&dag_id={DAG_ID}&{dates}")
        page.rows()
        return page

    return open_as


def sent(page: Page, path: str, body: Any, **options: Any) -> int:
    """Send a POST to Airflow from the document that the browser shows, with the browser's cookies.

    :return: the status; 0 if the document may not see it.
    """
    code = """
        const [url, options, done] = arguments;
        fetch(url, options).then(({ status }) => done(status), () => done(0));
    """
    page.browser.set_script_timeout(60)
    request = {"method": "POST", "credentials": "include", "body": json.dumps(body), **options}
    return int(page.browser.execute_async_script(code, page.address + path, request))


def creating_requests(airflow: LocalAirflow) -> dict[str, Any]:
    """Return the path and body of each kind of request that the page's buttons send."""
    (run_id, *_) = [run["dag_run_id"] for run in airflow.dag_runs(DAG_ID)]
    clear = {"dry_run": False, "dag_run_id": run_id, "task_ids": ["ingest"], "only_failed": False}
    dates = {"from_date": february(4).isoformat(), "to_date": february(5).isoformat()}
    return {
        "/api/v2/backfills": {"dag_id": DAG_ID, **dates},
        f"/api/v2/dags/{DAG_ID}/dagRuns": {"logical_date": february(4).isoformat()},
        f"/api/v2/dags/{DAG_ID}/clearTaskInstances": clear,
    }


def history(airflow: LocalAirflow) -> tuple[int, list[tuple[str, str, int]]]:
    """Return the number of backfills, and the id, state and try of each DAG run's task."""
    runs = [run["dag_run_id"] for run in airflow.dag_runs(DAG_ID)]
    tasks = [(run_id, task) for run_id in runs for task in airflow.task_instances(DAG_ID, run_id)]
    return backfills(airflow), [(run_id, task["state"], task["try_number"]) for run_id, task in tasks]


def set_token(page: Page, token: str) -> None:
    page.browser.delete_cookie("_token")
    page.browser.add_cookie({"name": "_token", "value": token, "path": "/", "httpOnly": True, "sameSite": "Lax"})


def expire(page: Page, airflow: LocalAirflow) -> None:
    """Replace the login by the same one, a minute after its end."""
    token = page.browser.get_cookie("_token")["value"]
    claims = jwt.decode(token, options={"verify_signature": False}) | {"exp": int(time.time()) - 60}
    (algorithm, secret) = jwt.get_unverified_header(token)["alg"], airflow.environment["AIRFLOW__API_AUTH__JWT_SECRET"]
    set_token(page, jwt.encode(claims, secret, algorithm=algorithm))


def log_out(page: Page, _: LocalAirflow) -> None:
    """Log out in another tab."""
    here = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    page.browser.get(f"{page.address}/api/v2/auth/logout")
    page.wait(lambda: page.all("input[name=username]"))
    page.browser.close()
    page.browser.switch_to.window(here)
    page.enter()


def use_revoked_login(page: Page, airflow: LocalAirflow) -> None:
    """Log out, but send the cookie of before."""
    token = page.browser.get_cookie("_token")["value"]
    log_out(page, airflow)
    set_token(page, token)


def test_viewer_sees_why_the_buttons_are_disabled(open_days: Callable[..., Page], airflow: LocalAirflow) -> None:
    """Airflow refuses the requests of the buttons if the viewer's browser sends them."""
    page = open_days("Viewer", first=1, last=6)
    assert "You may not create runs of DAG e2e_fill" in page.text("#fill-reason")
    assert [False] * 3 == [page.one(f"#{name}-button").is_enabled() for name in ("fill", "retry", "restate")]
    picture(page, "fab-viewer")
    before = history(airflow)
    headers = {"Content-Type": "application/json"}
    for path, body in creating_requests(airflow).items():
        assert (path, 403) == (path, sent(page, path, body, headers=headers))
    assert before == history(airflow)


@pytest.mark.parametrize("end_login", [expire, log_out, use_revoked_login])
def test_ended_login_creates_nothing(
    open_days: Callable[..., Page], airflow: LocalAirflow, end_login: Callable[..., None]
) -> None:
    """The dialog reports it, with a remedy."""
    page = open_days("Op", first=1, last=4)
    before = history(airflow)
    page.click("#fill-button")
    assert ["02 backfill", "03 backfill", "04 backfill"] == listed(page)
    end_login(page, airflow)
    page.click("#fill-confirm")
    page.wait(lambda: "Your login has expired" in page.text(".fill-dialog [role=alert]"))
    assert "log in to Airflow" in page.text(".fill-dialog [role=alert]")
    assert before == history(airflow)


def test_other_site_creates_nothing(open_days: Callable[..., Page], airflow: LocalAirflow) -> None:
    """Airflow gets the requests of another site without the login of an operator who has the site open."""
    page = open_days("Op", first=1, last=4)
    before = history(airflow)
    page.browser.switch_to.default_content()
    # The same server, but another site for the browser. Airflow's documents have no policy that prevents requests.
    page.browser.get(airflow.address.replace("127.0.0.1", "localhost") + "/api/v2/version")
    for path, body in creating_requests(airflow).items():
        known = count_refused(airflow, path)
        assert 0 == sent(page, path, body, mode="no-cors")
        # The server logs a request after it has responded.
        wait_until(lambda path=path, known=known: count_refused(airflow, path) > known, what=f"401 for {path}")
    assert before == history(airflow)


def count_refused(airflow: LocalAirflow, path: str) -> int:
    """Return the number of POSTs to a path that the API server has answered with 401."""
    lines = airflow.logs("api-server", lines=100_000).splitlines()
    return sum(f"path={path}" in line and "method=POST" in line and "status_code=401" in line for line in lines)


def test_operator_fills_the_gaps(
    open_days: Callable[..., Page], airflow: LocalAirflow, verdict: Callable[..., tuple[int, int]]
) -> None:
    """The buttons create one backfill for the failed window, and one for the others, also with a double click."""
    page = open_days("Op", first=1, last=4)
    before = backfills(airflow)
    page.click("#retry-button")
    assert ["02 backfill"] == listed(page)
    page.click("#fill-confirm")
    ended(page, "1 of 1 window ended: 1 ingested.")
    page.wait(lambda: not page.one("#retry-button").is_enabled())
    page.click("#fill-button")
    assert ["03 backfill", "04 backfill"] == listed(page)
    assert "This would create 2 DAG runs:" == page.text("#fill-text")
    picture(page, "fab-preview")
    page.js("const each = document.getElementById('fill-confirm'); each.click(); each.click();")
    ended(page, "2 of 2 windows ended: 2 ingested.")
    assert before + 2 == backfills(airflow)
    assert (0, 0) == verdict(DAG_ID, february(1), february(5))


def test_operator_triggers_a_longer_window(
    open_days: Callable[..., Page], verdict: Callable[..., tuple[int, int]]
) -> None:
    """To ingest it again, the operator types the number of DAG runs."""
    page = open_days("Op", first=5, last=11)
    page.click("#fill-button")
    page.wait(lambda: len(listed(page)) == 7)
    page.js(
        "const each = document.getElementById('fill-chunk'); each.value = '1w'; each.dispatchEvent(new Event('change'))"
    )
    page.wait(lambda: listed(page) == ["05 trigger"])
    page.click("#fill-confirm")
    ended(page, "1 of 1 window ended: 1 ingested.")
    assert (0, 0) == verdict(DAG_ID, february(5), february(12))
    page.wait(lambda: page.one("#restate-button").is_enabled())
    page.click("#restate-button")
    page.wait(lambda: page.all("#fill-number"))
    assert not page.one("#fill-confirm").is_enabled()
    count = len(listed(page))
    page.one("#fill-number").send_keys(str(count))
    page.click("#fill-confirm")
    page.wait(lambda: f"{count} restated." in page.text("#fill-states"), timeout=180)
    assert (0, 7 * 1440) == verdict(DAG_ID, february(5), february(12))


def ended(page: Page, states: str) -> None:
    """Wait until the dialog shows these states, and close it."""
    page.wait(lambda: states == page.text("#fill-states"), timeout=180)
    picture(page, f"fab-ended-{states[0]}")
    page.click(".fill-close")
