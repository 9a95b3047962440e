# SPDX-License-Identifier: Apache-2.0
"""The overview of all dataflows in a real browser, served by Airflow's API server on loopback.

Without a browser the module is skipped; in CI its tests fail instead.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from airflow_flowservice._airflow import fleet_reader, versions
from airflow_flowservice._airflow.fleet_reader import Fleet
from airflow_flowservice.demo.postgres import free_port
from airflow_flowservice.windows.window import IngestionWindow
from tests.dag_history import DagHistory
from tests.integration.plugins.conftest import FLOW, HOSTILE, _token, day, window

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HAS_BROWSER = bool(BROWSER and DRIVER and find_spec("selenium"))
if not HAS_BROWSER and not os.environ.get("CI"):
    pytest.skip("no browser: pip install selenium; apt-get install chromium chromium-driver", allow_module_level=True)

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1400,1000")
PATIENCE = 60


@pytest.fixture(scope="module")
def address(database: str, server: Any) -> Iterator[str]:
    """Serve Airflow on loopback, at the eleventh day, with some more dataflows."""
    import uvicorn

    for number in range(3):
        more = DagHistory(dag_id="page_seen", flow_id=f"flow-{number}", task_id=f"task_{number}")
        for index in range(1, 10 - number):
            run_id = f"more_{number}_{index}"
            more.add_run(day(index), window=window(index - 1), manual=True, run_id=run_id)
        more.write(database)
    port = free_port()
    uvicorn_server = uvicorn.Server(uvicorn.Config(server, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=uvicorn_server.run, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "utc_now", lambda: day(10) + timedelta(hours=2))
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not uvicorn_server.started and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        uvicorn_server.should_exit = True
        thread.join(timeout=PATIENCE)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start a browser; fail without one."""
    from selenium import webdriver as selenium

    options = selenium.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = BROWSER
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


class Overview:
    """Driver of the overview."""

    patience = PATIENCE  # seconds to wait for a condition

    def __init__(self, browser: Any, *, address: str) -> None:
        self.browser = browser
        self.address = address

    def open(self, fragment: str = "") -> Overview:
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}/flowservice/{fragment}")
        return self

    def wait(self, condition: Callable[[], Any]) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = [StaleElementReferenceException]
        return WebDriverWait(self.browser, self.patience, ignored_exceptions=ignored).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def js(self, code: str) -> Any:
        return self.browser.execute_script(code)

    def flows(self) -> list[str]:
        """Return the dataflows of the rows, when there are any."""
        return [row.get_attribute("data-flow") for row in self.wait(lambda: self.all("#fleet-rows tr"))]


def save(overview: Overview, name: str) -> None:
    """Write a screenshot to look at, if FLEET_SCREENSHOTS names a folder."""
    if folder := os.environ.get("FLEET_SCREENSHOTS"):
        overview.browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.fixture
def overview(chromium: Any, address: str) -> Overview:
    """Open the overview, logged in, with the light theme."""
    chromium.get(f"{address}/flowservice/static/icon.svg")
    chromium.add_cookie({"name": "_token", "value": _token("viewer", user=None), "path": "/"})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_script("localStorage.setItem('theme', 'light')")
    page = Overview(chromium, address=address).open()
    page.flows()
    return page


def test_worst_dataflow_is_first(overview: Overview) -> None:
    """The rows have state, sandbox, DAGs, lag and counts, and a bar with a text for screen readers."""
    flows = overview.flows()
    assert FLOW == flows[0]
    assert {"flow-0", "flow-1", "flow-2", HOSTILE} <= set(flows)
    first = overview.all("#fleet-rows tr")[0]
    assert all(text in first.text for text in ("Duplicated", "page_seen", "1 failed", "unknown sandbox"))
    assert "Duplicated" in first.find_element("css selector", "svg.fleet-bar").get_attribute("aria-label")
    assert f"{len(flows)} of {len(flows)} dataflows" in overview.one("#fleet-text").text
    assert not overview.one("#coverage").is_displayed()
    for theme in ("light", "dark"):
        overview.js(f"document.documentElement.dataset.theme = '{theme}'")
        save(overview, f"fleet-{theme}")


def test_search_and_filters_are_in_the_address(overview: Overview) -> None:
    """A colleague who opens the address sees the same rows."""
    from selenium.webdriver.support.ui import Select

    overview.one("#fleet-search").send_keys("FLOW-1")
    overview.wait(lambda: overview.flows() == ["flow-1"])
    fragment = overview.js("return location.hash")
    overview.open(fragment)
    assert ["flow-1"] == overview.flows()
    assert "FLOW-1" == overview.one("#fleet-search").get_attribute("value")
    overview.one("#fleet-search").clear()
    overview.one("#fleet-search").send_keys("\ue009a\ue009\ue003")
    Select(overview.one("#fleet-state")).select_by_value("twice")
    overview.wait(lambda: overview.flows() == [FLOW])
    overview.open(overview.js("return location.hash"))
    assert [FLOW] == overview.flows()


def test_filters_without_rows_show_a_count(overview: Overview) -> None:
    overview.one("#fleet-search").send_keys("nothing has this name")
    overview.wait(lambda: "0 of" in overview.one("#fleet-text").text)
    assert not overview.one("#fleet-table").is_displayed()


def test_row_opens_the_coverage_and_a_link_returns(overview: Overview) -> None:
    """Both work with the keyboard, and the filters are kept."""
    overview.one("#fleet-search").send_keys("page_seen")
    link = overview.one(f"#fleet-rows tr[data-flow='{FLOW}'] a.id")
    link.send_keys("\ue007")
    overview.wait(lambda: overview.all("#rows tr"))
    assert f"flow_id={FLOW}" in overview.js("return location.hash")
    assert not overview.one("#fleet").is_displayed()
    overview.one("#to-fleet").send_keys("\ue007")
    overview.wait(lambda: overview.one("#fleet").is_displayed())
    assert "page_seen" == overview.one("#fleet-search").get_attribute("value")
    assert "flow_id" not in overview.js("return location.hash")


def test_link_with_the_dataflow_in_upper_case(overview: Overview) -> None:
    """Otherwise, the page would show another dataflow."""
    overview.open(f"#flow_id={FLOW.upper()}")
    overview.wait(lambda: overview.all("#rows tr"))
    assert FLOW == overview.one("#flow").get_attribute("value")


def test_unreadable_ledgers_are_stated(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning about a ledger that no task uses differs from the notice that windows are unknown."""
    assert ("", "") == tuple(overview.one(f"#fleet-{name}").text for name in ("notice", "warning"))
    connection = '{"conn_type": "flowservice", "extra": {"ledger_conn_id": "secret_ledger"}}'
    monkeypatch.setenv("AIRFLOW_CONN_FORMER", connection)
    overview.open().flows()
    assert overview.one("#fleet-warning").text.startswith("A connection that no task uses, or its ledger,")
    assert "" == overview.one("#fleet-notice").text
    save(overview, "fleet-warning")
    monkeypatch.setenv("AIRFLOW__FLOWSERVICE__LEDGER_CONN_ID", "other_secret")
    overview.open().flows()
    assert overview.one("#fleet-notice").text.startswith("The ledger of ingested windows cannot be read")
    assert "secret" not in overview.one("body").text


def test_unreadable_ledger_is_stated_without_dataflows(overview: Overview, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, a user would think that there is no dataflow."""
    empty = Fleet(rows=(), within=IngestionWindow(*window(1)), error="secret", warnings=("secret",))
    monkeypatch.setattr(fleet_reader, "read_fleet", lambda *_, **__: empty)
    overview.open()
    texts = ("No task of a DAG that you may read", "The ledger of ingested windows cannot be read", "A connection that")
    overview.wait(lambda: all(text in overview.one("#status").text for text in texts))
    assert "secret" not in overview.one("body").text


def test_hostile_ids_stay_text(overview: Overview) -> None:
    assert HOSTILE in overview.one("#fleet-rows").text
    assert ([], "Flow Service") == (overview.all("img"), overview.js("return document.title"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [428, 1032, 1328])
def test_page_fits_the_width(overview: Overview, width: int) -> None:
    """The widths are those of a phone, a DAG's tab and a page."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    overview.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    overview.open().flows()
    assert overview.js("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    save(overview, f"fleet-{width}")


def test_dag_tab_shows_the_coverage(overview: Overview) -> None:
    """The query `dag_id` of the DAG's tab selects a dataflow of the DAG."""
    overview.open("?dag_id=page_seen")
    overview.wait(lambda: overview.all("#rows tr"))
    assert not overview.one("#fleet").is_displayed()
    assert not overview.one("#to-fleet").is_displayed()


@pytest.mark.slow
def test_error_has_a_retry(overview: Overview) -> None:
    cdp = overview.browser.execute_cdp_cmd
    cdp("Network.enable", {})
    try:
        cdp("Network.setBlockedURLs", {"urls": ["*/data/fleet*"]})
        overview.open()
        overview.wait(lambda: "Airflow does not respond" in overview.one("#error").text)
        cdp("Network.setBlockedURLs", {"urls": []})
        overview.one("#retry").click()
        assert FLOW in overview.flows()
        assert "" == overview.one("#error").text
    finally:
        cdp("Network.disable", {})
