"""What a person sees in a browser: Airflow's form for a day, and the dbt docs, opened without any network."""

from __future__ import annotations

import datetime as dt
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

import tidemill
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack
from tidemill.simulate import simulate_day

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DATE = dt.date(2011, 12, 8)

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: pages are not looked at"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of its own, cut off from every network but this machine; its last state is kept as a picture."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(60_000)
    page.route("**/*", lambda route: route.continue_() if is_here(route.request.url) else route.abort())
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png")
    page.close()


def is_here(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "http://localhost:", "file:", "data:", "blob:"))


def log_in(page: Page, stack: Stack) -> None:
    page.goto(stack.airflow_url)
    page.get_by_label("Username").fill(stack.login.user)
    page.get_by_label("Password").fill(stack.login.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


def runs(client: AirflowClient) -> set[str]:
    """The ids of all runs of `daily`."""
    return {run["dag_run_id"] for run in client._call("GET", "/dags/daily/dagRuns?limit=100")["dag_runs"]}


def newest_run(client: AirflowClient, but: set[str]) -> str:
    """The run that the form starts; the form answers before the run is there."""
    deadline = time.monotonic() + 30
    while not (new := runs(client) - but):
        assert time.monotonic() < deadline, "the form started no run"
    return new.pop()


def test_a_day_is_triggered_from_its_form(page: Page, stack: Stack, client: AirflowClient) -> None:
    with tidemill.connect(stack.address) as tm:
        lines = tm.stream("order_lines", on_rejected=lambda row: None)
        lines.send_table(simulate_day(DATE, lines=600).table).result(60)
    before = runs(client)
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily")
    page.get_by_role("button", name="Trigger").first.click()
    page.locator('input[name="element_date"]').fill(str(DATE))
    page.locator('label:has(input[name="element_force"])').click()
    dialog = page.get_by_role("dialog")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "trigger_form.png")
    dialog.get_by_role("button", name="Trigger").last.click()
    run_id = newest_run(client, but=before)
    for _ in client.follow("daily", run_id, check=stack.check):
        pass
    assert client.run_state("daily", run_id) == "success", client.failures("daily", run_id)
    assert client.result("daily", run_id, "publish")["date"] == str(DATE)


def test_dbt_docs_show_a_model_with_its_columns(page: Page, stack: Stack) -> None:
    assert stack.folder.dbt_docs.is_file(), "written by the day before"
    page.goto(f"{stack.folder.dbt_docs.as_uri()}#!/model/model.tidemill_retail.fct_orders")
    expect(page.get_by_text("One row per invoice").first).to_be_visible()
    expect(page.get_by_text("customer_id").first).to_be_visible()


def test_data_docs_show_a_validation(page: Page, stack: Stack) -> None:
    page.goto(stack.folder.data_docs.as_uri())
    expect(page.get_by_text("order_lines").first).to_be_visible()
