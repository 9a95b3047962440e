"""The page in Airflow's UI, in a real browser, on a real Airflow with a year of windows."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from tests.past import Past, year_of_days

from airflow_flowservice._airflow.versions import versions

if TYPE_CHECKING:
    from airflow_flowservice.demo.local_airflow import LocalAirflow

pytestmark = pytest.mark.skipif(versions.version() < (3, 1), reason="Airflow has no pages before 3.1")

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MANY = 10_000
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1400,1000")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser; skips without one, which in CI is a failure."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver and find_spec("selenium")):
        reason = (
            "no selenium, chromium and chromedriver: pip install selenium; apt-get install chromium chromium-driver"
        )
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    from selenium import webdriver as selenium

    options = selenium.ChromeOptions()
    for option in OPTIONS:
        options.add_argument(option)
    options.binary_location = browser
    started = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    started.set_page_load_timeout(120)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def midnight() -> datetime:
    """The end of the year that the page shows."""
    return datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def _past(
    airflow: LocalAirflow,
    tell: Callable[..., Any],
    flow_of: Callable[[str], str],
    ingest_elsewhere: Callable[..., None],
    midnight: datetime,
) -> None:
    """A year of days, ten thousand hours, ids that look like HTML; and a flow run that no task made."""
    for dag_id in ("e2e_page", "e2e_page_hourly", "e2e_page_hostile", "e2e_page_many"):
        airflow.wait_for_dag(dag_id)
    database = airflow.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    year_of_days(dag_id="e2e_page", flow_id=flow_of("e2e_page"), midnight=midnight).write(database)
    hours = Past(dag_id="e2e_page_hourly", flow_id=flow_of("e2e_page_hourly"))
    for back in range(MANY, 0, -1):
        if back % 100:
            date = midnight - (back - 1) * HOUR
            hours.ran(date, window=(date - HOUR, date))
    hours.write(database)
    hostile = Past(dag_id="e2e_page_hostile", flow_id=HOSTILE)
    window = (midnight - DAY, midnight)
    hostile.ran(midnight, window=window, manual=True, run_id=HOSTILE, id=f"{HOSTILE}1", url="javascript:alert(1)")
    hostile.write(database)
    for number in range(9):
        one = Past(dag_id="e2e_page_many", flow_id=f"flow-{number}", task_id=f"task_{number}")
        date = midnight - number * DAY
        one.ran(date, window=(date - DAY, date))
        one.write(database)
    tell("flows", id=flow_of("e2e_page"), name="e2e_page", kind="file", state="enabled")
    ingest_elsewhere(flow_of("e2e_page"), begin=midnight - 40 * DAY, end=midnight - 39 * DAY)


class Page:
    """A browser on the page."""

    def __init__(self, browser: Any, *, address: str) -> None:
        self.browser = browser
        self.address = address

    def open(self, path: str) -> Page:
        """Open one of Airflow's pages, and go into the frame if there is one."""
        self.browser.switch_to.default_content()
        self.browser.get("about:blank")
        self.browser.get(self.address + path)
        if not path.startswith("/flowservice/"):
            self.enter()
        return self

    def enter(self) -> Page:
        """Go into the frame."""
        self.browser.switch_to.default_content()
        self.browser.switch_to.frame(self.wait(lambda: self.all("iframe"))[0])
        return self

    def wait(self, condition: Callable[[], Any], *, timeout: float = 90) -> Any:
        """Wait until something is so; give it. An element that is drawn anew meanwhile is looked for again."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        gone = [StaleElementReferenceException]
        return WebDriverWait(self.browser, timeout, ignored_exceptions=gone).until(lambda _: condition())

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """What an element says; for one that is not shown, nothing."""
        return " ".join(element.text for element in self.all(selector))

    def rows(self) -> list[Any]:
        return self.wait(lambda: self.all("#rows tr"))

    def js(self, code: str, *arguments: Any) -> Any:
        return self.browser.execute_script(code, *arguments)

    def click(self, selector: str) -> None:
        self.js("arguments[0].scrollIntoView({block: 'center'})", self.one(selector))
        self.one(selector).click()


@pytest.fixture
def page(chromium: Any, airflow: LocalAirflow, _past: None) -> Page:
    """The browser, logged in, in Airflow's light theme."""
    chromium.switch_to.default_content()
    chromium.get(f"{airflow.address}/flowservice/static/icon.svg")
    chromium.add_cookie({"name": "_token", "value": airflow.rest.token, "path": "/"})
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chromium.execute_script("localStorage.setItem('theme', 'light')")
    return Page(chromium, address=airflow.address)


@pytest.fixture
def days(page: Page, flow_of: Callable[[str], str]) -> Page:
    """The page in Airflow's frame, with the year of days chosen."""
    page.open(f"/plugin/flowservice#flow_id={flow_of('e2e_page')}")
    page.rows()
    return page


def counts(page: Page) -> dict[str, int]:
    """How many windows the legend counts of each state."""
    return {
        button.get_attribute("data-state"): int(button.find_element("css selector", ".count").text.replace(",", ""))
        for button in page.all("#legend button")
        if button.find_element("css selector", ".count").text != "0"
    }


def test_a_year_is_seen_at_one_look(days: Page) -> None:
    """The sentence, the totals, the bar and the newest rows say the same."""
    assert "5 windows missing, 1 window failed, 1 window in twice." == days.text("#verdict strong")
    expected = {"ingested": 357, "failed": 1, "missing": 5, "twice": 1, "unknown": 1}
    assert expected == counts(days)
    drawn = days.js("return [...document.querySelectorAll('#timeline .shape')].map(each => each.dataset.state)")
    assert {"failed": 1, "missing": 2, "twice": 1, "unknown": 1} == {
        state: drawn.count(state) for state in expected if state != "ingested"
    }
    assert 50 == len(days.rows())
    assert "Unknown" in days.rows()[0].text
    assert 1 == len(days.all("#unplaced-runs li"))


def test_the_legend_filters_and_a_reload_keeps_it(days: Page) -> None:
    """As Airflow's own address has it; by keyboard too."""
    days.one("#legend [data-state=missing]").send_keys("\ue007")
    assert ["Missing"] * 5 == [
        re.sub(r"\W", "", row.find_element("css selector", ".badge").text) for row in days.rows()
    ]
    days.one("#timeline").send_keys("+")
    view = days.text("#view-text")
    days.browser.switch_to.default_content()
    days.browser.refresh()
    days.enter().rows()
    assert "true" == days.one("#legend [data-state=missing]").get_attribute("aria-pressed")
    assert view == days.text("#view-text")
    days.one("#timeline").send_keys("0")
    assert view != days.text("#view-text")


def test_dragging_over_the_time_line_zooms_and_a_click_finds_the_row(days: Page) -> None:
    """And the table shows what the time line shows."""
    from selenium.webdriver import ActionChains

    line = days.one("#timeline")
    width = line.size["width"]
    left = int(-width * 0.2)
    drag = ActionChains(days.browser).move_to_element_with_offset(line, left, -20).click_and_hold()
    drag.move_by_offset(int(width * 0.1), 0).release().perform()
    assert 30 < sum(counts(days).values()) < 45
    ActionChains(days.browser).move_to_element_with_offset(line, 0, -20).click().perform()
    assert 1 == len(days.all("#rows tr.selected"))


def test_a_dag_run_opens_as_airflows_own_page(days: Page) -> None:
    """Not inside the frame."""
    link = days.rows()[3].find_element("css selector", "td[data-label='DAG run'] a")
    run_id = link.text
    days.js("arguments[0].click()", link)
    days.browser.switch_to.default_content()
    days.wait(lambda: "/dags/e2e_page/runs/" in days.browser.current_url)
    days.wait(lambda: not days.all("iframe") and "e2e_page" in days.text("body"))
    assert run_id.partition("__")[2][:10] in days.browser.current_url


def test_a_flow_run_opens_in_experience_platform(days: Page) -> None:
    """In a new tab, and only with an address that may be followed."""
    before = set(days.browser.window_handles)
    link = days.rows()[3].find_element("css selector", "td[data-label='Flow run'] a")
    assert link.get_attribute("href").startswith("https://experience.adobe.com/")
    days.js("arguments[0].click()", link)
    (tab,) = days.wait(lambda: set(days.browser.window_handles) - before)
    here = days.browser.current_window_handle
    days.browser.switch_to.window(tab)
    days.browser.close()
    days.browser.switch_to.window(here)


def test_a_command_is_copied(days: Page) -> None:
    """The very text."""
    origin = {"origin": days.address, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    days.browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    command = days.text("#commands li:first-child code")
    assert command.startswith("airflow backfill create --dag-id e2e_page --from-date ")
    days.click("#commands li:first-child button")
    days.wait(lambda: days.text("#commands li:first-child button") == "Copied")
    days.js("document.body.append(Object.assign(document.createElement('textarea'), {id: 'paste'}))")
    days.one("#paste").send_keys("\ue009v")
    assert command == days.one("#paste").get_attribute("value")


def test_flow_service_shows_what_was_made_outside(days: Page) -> None:
    """The day that no DAG run has; what cannot be asked is told, and the rest stays."""
    days.click("#service summary")
    field = days.one("#conn")
    field.clear()
    field.send_keys("none_such")
    days.click("#ask-button")
    days.wait(lambda: "none_such" in days.text("#service-error"))
    assert 5 == counts(days)["missing"]
    field.clear()
    field.send_keys("flowservice_default")
    days.click("#ask-button")
    days.wait(lambda: "Flow Service has" in days.text("#verdict"))
    assert (4, 1) == (counts(days)["missing"], counts(days)["outside"])
    assert "" == days.text("#service-error")


def test_a_dags_page_has_it_with_that_dag_chosen(page: Page) -> None:
    """As a tab."""
    page.browser.get(f"{page.address}/dags/e2e_page")
    tab = page.wait(lambda: [each for each in page.all("a") if each.text == "Flow Service"])[0]
    tab.click()
    page.enter().rows()
    assert "e2e_page" == page.one("#dag").get_attribute("value")
    assert ["e2e_page.ingest"] == [each.text.partition(" ")[0] for each in page.all("#flow option")]


def test_one_of_many_dataflows_is_found_by_its_name(page: Page, midnight: datetime) -> None:
    """With more than eight there is a field to search; what is chosen already stays in the list."""
    page.open("/flowservice/?dag_id=e2e_page").rows()
    assert not page.one("#search").is_displayed()
    page.open("/flowservice/?dag_id=e2e_page_many").rows()
    assert 9 == len(page.all("#flow option"))
    page.one("#search").send_keys("TASK_7")
    page.wait(lambda: len(page.all("#flow option")) == 2)
    found = page.all("#flow option")[1]
    assert "e2e_page_many.task_7 (flow-7)" == found.text
    found.click()
    page.wait(lambda: "flow_id=flow-7" in page.js("return location.hash"))
    page.wait(lambda: f"{midnight - 8 * DAY:%Y-%m-%d}" in page.text("#rows"))


def test_what_comes_from_outside_stays_text(page: Page) -> None:
    """Ids that look like HTML are shown as they are, and a script's address is no link."""
    page.open("/dags/e2e_page_hostile/plugin/flowservice-dag").rows()
    assert HOSTILE in page.text("#flow")
    assert HOSTILE in page.text("#rows [data-label='DAG run']")
    assert [] == page.all("img") + page.all("#rows [data-label='Flow run'] a")
    assert "Flow Service" == page.js("return document.title")


def test_nothing_there_yet_is_told(page: Page) -> None:
    """On the page of a DAG that feeds no dataflow."""
    page.open("/dags/e2e_page_hostile/plugin/flowservice-dag")
    page.rows()
    page.open("/flowservice/?dag_id=e2e_plain")
    page.wait(lambda: "No task of the DAG e2e_plain has created a flow run yet" in page.text("#status"))
    assert [] == page.all("#rows tr")


def test_without_a_login_the_page_says_so(page: Page) -> None:
    """Outside of Airflow's frame."""
    page.browser.delete_all_cookies()
    page.open("/flowservice/")
    page.wait(lambda: "Not authenticated" in page.text("#error"))
    assert "log in" in page.text("#error-remedy")


def test_loading_and_failing_are_told_and_can_be_tried_again(page: Page) -> None:
    """While an answer takes its time, and when none comes."""
    cdp = page.browser.execute_cdp_cmd
    cdp("Network.enable", {})
    try:
        cdp("Network.setBlockedURLs", {"urls": ["*/data/dataflows*"]})
        page.open("/flowservice/")
        page.wait(lambda: "Airflow does not answer" in page.text("#error"))
        cdp("Network.setBlockedURLs", {"urls": []})
        slow = {"offline": False, "latency": 4000, "downloadThroughput": -1, "uploadThroughput": -1}
        cdp("Network.emulateNetworkConditions", slow)
        page.click("#retry")
        assert "Loading ..." == page.text("#status")
        cdp("Network.emulateNetworkConditions", {**slow, "latency": 0})
        page.rows()
        assert "" == page.text("#error") + page.text("#status")
    finally:
        cdp("Network.disable", {})


def test_it_follows_airflows_theme(days: Page) -> None:
    """At once, when the user changes it."""
    theme = "return document.documentElement.dataset.theme"
    assert "light" == days.js(theme)
    ground = days.js("return getComputedStyle(document.documentElement).backgroundColor")
    days.js("parent.document.documentElement.classList.replace('light', 'dark')")
    days.wait(lambda: days.js(theme) == "dark")
    assert ground != days.js("return getComputedStyle(document.documentElement).backgroundColor")


@pytest.mark.parametrize("width", [428, 1032, 1328])
def test_nothing_sticks_out(page: Page, flow_of: Callable[[str], str], width: int) -> None:
    """On a phone, as a DAG's tab, as a page."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.open(f"/flowservice/#flow_id={flow_of('e2e_page')}").rows()
    assert width == page.js("return innerWidth")
    assert page.js("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_ten_thousand_windows_are_quick(page: Page, flow_of: Callable[[str], str], midnight: datetime) -> None:
    """They are drawn in less time than Airflow's own page around them needs to load."""
    start = (midnight - MANY * HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")
    page.open(f"/plugin/flowservice#flow_id={flow_of('e2e_page_hourly')}&from={start}").rows()
    assert MANY <= sum(counts(page).values()) < MANY + 30
    assert 50 == len(page.rows())
    drawn = page.js("return performance.getEntriesByName('drawn')[0].duration")
    airflow = page.js("return parent.performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert drawn < airflow


@pytest.mark.usefixtures("_past")
def test_no_process_of_airflow_warns_of_the_plugin(airflow: LocalAirflow) -> None:
    """Neither at its start nor when the page was asked for."""
    lines = [line for each in airflow.components for line in airflow.logs(each, lines=100_000).splitlines()]
    assert lines
    ours = re.compile(r"plugin|external.view|fastapi.app", re.IGNORECASE)
    bad = re.compile(r"\[(warning|error|critical) *\]|exception|traceback", re.IGNORECASE)
    assert [] == [line for line in lines if ours.search(line) and bad.search(line)]
