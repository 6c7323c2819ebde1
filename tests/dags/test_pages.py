"""What a person sees in a browser, cut off from every network: a day's form, its report, the days, both docs."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import json
import re
import shutil
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError
from support.airflow_runs import new_run, run_dag, send_lines

import tidemill
from quality import turn
from quality.config import DayConfig
from quality.run import Options, Pin, Run, save_run
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack
from tidemill.simulate import simulate_day

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
DATE = dt.date(2011, 12, 8)
HOSTILE = "<script>document.title = 'owned'</script><img src=x onerror=alert(1)>\u202egpj"

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: pages are not looked at"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-quic"]  # fmt: skip
    # The machine has other work, too: what is waited for is that it comes, not when.
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of its own, cut off from every network but this machine; its last state is kept as a picture."""
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(60_000)
    asked_elsewhere: list[str] = []

    def cut(route: object) -> None:
        url = route.request.url  # type: ignore[attr-defined]
        if is_here(url):
            route.continue_()  # type: ignore[attr-defined]
        else:
            asked_elsewhere.append(url)
            route.abort()  # type: ignore[attr-defined]

    page.route("**/*", cut)
    yield page
    picture(page, request.node.name)
    page.close()
    assert asked_elsewhere == [], "a page asked for something outside of this machine"


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for frame in page.frames:
        # What is in a frame is there before it is painted. A frame may be gone by then: a page's parts are made anew.
        with contextlib.suppress(PlaywrightError):
            frame.evaluate("() => new Promise(painted => requestAnimationFrame(() => requestAnimationFrame(painted)))")
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def is_here(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:"))


def log_in(page: Page, stack: Stack) -> None:
    page.goto(stack.airflow_url)
    page.get_by_label("Username").fill(stack.login.user)
    page.get_by_label("Password").fill(stack.login.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")


def framed(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def runs(client: AirflowClient) -> set[str]:
    """The ids of all runs of `daily`."""
    return {run["dag_run_id"] for run in client._call("GET", "/dags/daily/dagRuns?limit=100")["dag_runs"]}


def newest_run(client: AirflowClient, but: set[str]) -> str:
    """The run that the form starts; the form answers before the run is there."""
    deadline = time.monotonic() + 30
    while not (new := runs(client) - but):
        assert time.monotonic() < deadline, "the form started no run"
    return new.pop()


def config_of(stack: Stack) -> DayConfig:
    return DayConfig(data=stack.folder.root, project=stack.project, address=stack.address)


@pytest.fixture(scope="module")
def day(browser: Browser, stack: Stack, client: AirflowClient) -> str:
    """The run of a day that a person triggers from the form and watches to its end."""
    # It would take the late rows in before they are seen.
    client._call("PATCH", "/dags/late_by_itself", {"is_paused": True}, accept=(404,))
    with tidemill.connect(stack.address) as tm:
        lines = tm.stream("order_lines", on_rejected=lambda row: None)
        lines.send_table(simulate_day(DATE, lines=600).table).result(60)
    before = runs(client)
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(60_000)
    page.route("**/*", lambda route: route.continue_() if is_here(route.request.url) else route.abort())
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily")
    page.get_by_role("button", name="Trigger").first.click()
    page.locator('input[name="element_date"]').fill(str(DATE))
    page.locator('label:has(input[name="element_force"])').click()
    dialog = page.get_by_role("dialog")
    picture(page, "trigger_form")
    dialog.get_by_role("button", name="Trigger").last.click()
    run_id = newest_run(client, but=before)
    page.goto(f"{stack.airflow_url}/dags/daily/runs/{urllib.parse.quote(run_id, safe='')}/plugin/run-report")
    # The report of a run that goes on follows it by itself, to its end.
    expect(framed(page).locator("h1 .badge")).to_have_text(re.compile("queued|running|published|failed"))
    expect(framed(page).get_by_role("heading", name=re.compile("Stages|Tasks")).first).to_be_visible()
    picture(page, "report_of_a_running_day")
    for _ in client.follow("daily", run_id, timeout_s=900, check=stack.check):
        pass
    assert client.run_state("daily", run_id) == "success", client.failures("daily", run_id)
    expect(framed(page).locator("h1 .badge")).to_have_text("published")
    page.close()
    return run_id


def test_a_day_is_triggered_from_its_form(day: str, client: AirflowClient) -> None:
    assert client.result("daily", day, "publish")["date"] == str(DATE)


def test_the_run_report_shows_what_the_run_did(page: Page, stack: Stack, client: AirflowClient, day: str) -> None:
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily/runs/{urllib.parse.quote(day, safe='')}")
    page.get_by_role("link", name="Run report").click()
    report = framed(page)
    expect(report.locator("h1")).to_contain_text(str(DATE))
    expect(report.locator("h1 .badge")).to_have_text("published")
    picture(page, "run_report")
    rows = {name: report.locator(f"h2:has-text('{name}') ~ .card").first.locator("tbody tr")
            for name in ("Stages", "Models", "Balance", "Reconciliation", "Streams")}  # fmt: skip
    for stage in ("wait", "take_turn", "seal", "export", "balance", "dbt.marts", "reconcile", "publish"):
        (row,) = [text for text in rows["Stages"].all_inner_texts() if text.split("\t")[0] == stage]
        assert "done" in row
        assert row.split("\t")[3].endswith(" s")
    built = client.result("daily", day, "dbt.marts")["models"]
    orders = rows["Models"].filter(has=report.locator("a", has_text="fct_orders")).first.inner_text().split("\t")
    assert orders[2] == f"{built['fct_orders']['rows']:,}"
    assert orders[3].endswith(" s")
    assert orders[5] == "all passed"
    assert any("seal offset" in line and "\t=\t" in line for line in rows["Balance"].all_inner_texts())
    view = client.result("daily", day, "reconcile")["views"]["sales_by_minute"]
    (shown,) = [text for text in rows["Reconciliation"].all_inner_texts() if text.startswith("sales_by_minute\t")]
    assert shown.split("\t")[2:5] == [f"{view['windows']:,}", f"{view['rows']:,}", "0"]
    seal = client.result("daily", day, "seal")["streams"]["order_lines"]["seal_offset"]
    (stream,) = [text for text in rows["Streams"].all_inner_texts() if text.startswith("order_lines")]
    assert f"\t{seal:,}\t" in stream
    # What a check of the contract found, and what had broken it on arrival.
    expect(report.get_by_text("checks passed").first).to_be_visible()
    expect(report.get_by_role("columnheader", name="Rows in quarantine")).to_be_visible()
    # The frame lets its reader go on to Airflow's own page of a task.
    report.get_by_role("link", name="reconcile", exact=True).click()
    page.wait_for_url("**/tasks/reconcile**")


def test_the_days_are_one_click_away(page: Page, stack: Stack, day: str) -> None:
    send_lines(stack, DATE, 3, name="late")
    log_in(page, stack)
    page.get_by_role("link", name="Days").click()
    days = framed(page)
    row = days.locator("tbody tr").filter(has_text=str(DATE))
    expect(row).to_contain_text("published")
    expect(row).to_contain_text("live = batch")
    assert row.inner_text().split("\t")[5].strip() == "3"
    picture(page, "days")
    days.get_by_role("link", name="with late rows").click()
    # The page of before has the row, too.
    expect(days.locator("a.chip.chosen")).to_contain_text("with late rows")
    expect(days.locator("tbody tr").filter(has_text=str(DATE))).to_be_visible()
    days.get_by_label("Go to").fill(str(DATE))
    expect(days.get_by_label("Go to")).to_have_value(str(DATE))
    days.get_by_role("button", name="Go").click()
    expect(days.locator("tr.chosen")).to_contain_text(str(DATE))
    days.locator("tr.chosen").get_by_role("link", name="run report").click()
    page.wait_for_url(f"**/dags/daily/runs/{urllib.parse.quote(day, safe='')}/plugin/run-report")
    late = framed(page).locator("h2:has-text('Late and quarantined') ~ .card").first.locator("tbody tr")
    expect(late.filter(has_text="order_lines").first).to_contain_text(str(DATE))


def test_the_days_are_on_the_dags_page(page: Page, stack: Stack, day: str) -> None:
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily")
    # One in the navigation, and the DAG's own, which comes later.
    links = page.get_by_role("link", name="Days", exact=True)
    expect(links.nth(1)).to_be_visible()
    links.last.click()
    page.wait_for_url("**/dags/daily/plugin/dates")
    expect(framed(page).locator("tbody tr").filter(has_text=str(DATE))).to_contain_text("published")


def test_a_dark_airflow_has_dark_pages(browser: Browser, stack: Stack, day: str) -> None:
    page = browser.new_page(viewport={"width": 1500, "height": 950}, color_scheme="dark")
    page.set_default_timeout(60_000)
    log_in(page, stack)
    page.get_by_role("link", name="Days").click()
    expect(framed(page).locator("html")).to_have_css("color-scheme", "dark")
    picture(page, "days_in_the_dark")
    page.close()


def test_dbt_docs_show_a_model_with_its_columns_and_lineage(page: Page, stack: Stack, day: str) -> None:
    log_in(page, stack)
    page.get_by_role("link", name="dbt docs").click()
    expect(framed(page).get_by_placeholder("Search for models")).to_be_visible()
    # From the report each model leads to its own page.
    page.goto(f"{stack.airflow_url}/dags/daily/runs/{urllib.parse.quote(day, safe='')}/plugin/run-report")
    framed(page).get_by_role("link", name="fct_orders", exact=True).click()
    page.wait_for_url("**/plugin/dbt-docs/**")
    docs = framed(page)
    expect(docs.get_by_text("One row per invoice").first).to_be_visible()
    expect(docs.get_by_text("customer_id").first).to_be_visible()
    picture(page, "dbt_docs_columns")
    docs.locator(".launcher-btn a").click()
    expect(docs.get_by_text("Lineage Graph", exact=True).first).to_be_visible()
    expect(docs.locator("canvas").first).to_be_visible()


def test_data_docs_lead_to_a_run(page: Page, stack: Stack, day: str) -> None:
    log_in(page, stack)
    page.get_by_role("link", name="Data docs").click()
    docs = framed(page)
    docs.get_by_role("link", name=str(DATE)).first.click()
    expect(docs.locator("h1")).to_contain_text(str(DATE))
    expect(docs.get_by_text("order_lines").first).to_be_visible()


def test_a_failed_run_says_what_failed(page: Page, stack: Stack, client: AirflowClient) -> None:
    run, state = run_dag(client, stack, "daily", {"date": "2011-12-09", "as_of": "2011-12-09_no-such-run"})
    assert state == "failed"
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily/runs/{run}/plugin/run-report")
    report = framed(page)
    expect(report.locator("h1 .badge")).to_have_text("failed")
    expect(report.locator(".problem")).to_contain_text("2011-12-09_no-such-run")
    expect(report.locator(".problem")).to_contain_text("seal")
    expect(report.get_by_text("No model has been built")).to_be_visible()


def test_a_run_that_was_shared_leads_to_the_one_that_published(
    page: Page, stack: Stack, client: AirflowClient, day: str
) -> None:
    config = config_of(stack)
    holder = {"ticket_id": "test_pages", "run_id": "test_pages", "date": "2001-01-01", "last_date": "2001-01-01"}
    held = turn.take(config, turn.Ticket.of({**holder, "holder": turn.this_process()}))
    assert held["turn"] == "held"
    first, second = new_run(), new_run()
    try:
        for run, date in ((first, "2011-11-01"), (second, "2011-11-02")):
            client.trigger("daily", {"date": date, "force": True, "streams": ["readings"]}, run)
        deadline = time.monotonic() + 300
        while len(turn.waiting(config)) < 2:
            stack.check()
            assert time.monotonic() < deadline, "two runs should wait for their turn"
    finally:
        turn.give(config, "test_pages", failed=True)
    for run in (first, second):
        for _ in client.follow("daily", run, timeout_s=900, check=stack.check):
            pass
    tasks = {run: client._call("GET", f"/dags/daily/dagRuns/{run}/taskInstances/take_turn") for run in (first, second)}
    (shared,) = [run for run, task in tasks.items() if task["state"] == "skipped"]
    (publisher,) = {first, second} - {shared}
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/daily/runs/{shared}/plugin/run-report")
    expect(framed(page).locator("h1")).to_contain_text("Published by another run")
    picture(page, "report_of_a_shared_run")
    framed(page).get_by_role("link", name="its run report").click()
    page.wait_for_url(f"**/dags/daily/runs/{publisher}/plugin/run-report")
    expect(framed(page).locator("h1")).to_contain_text("2011-11-01 to 2011-11-02")


def test_a_run_without_a_record_has_a_clear_page(page: Page, stack: Stack, client: AirflowClient) -> None:
    run, _ = run_dag(client, stack, "small", {})
    log_in(page, stack)
    page.goto(f"{stack.airflow_url}/dags/small/runs/{run}/plugin/run-report")
    expect(framed(page).get_by_text("small publishes no days")).to_be_visible()
    answer = page.goto(f"{stack.airflow_url}/tidemill/runs/daily/no-such-run")
    assert answer is not None
    assert answer.status == 404
    expect(page.locator("h1")).to_have_text("Nothing here")
    assert "Traceback" not in page.content()


@pytest.fixture
def hostile(stack: Stack) -> Iterator[str]:
    """The record of a run that failed by rows which somebody sent on purpose; gone again before any other run."""
    config = config_of(stack)
    difference = {"view": "sales_by_minute", "window": "2001-09-09 08:26", "group": f"country={HOSTILE}",
                  "column": "revenue", "live": "12.50", "batch": "10.00", "difference": "2.50"}  # fmt: skip
    checked = {"suite": "orders", "subject": HOSTILE, "expectation": f"is not {HOSTILE}", "severity": "WARN",
               "success": False, "name": f"orders.{HOSTILE}", "rows": 1_234_567, "unexpected_rows": 1,
               "observed": HOSTILE, "sample": [{"event_id": HOSTILE}], "file": ""}  # fmt: skip
    times = {"started_at": "2001-09-10T00:00:05+00:00", "ended_at": "2001-09-10T00:00:09+00:00"}
    run = Run(
        "2001-09-09_hostile",
        "2001-09-09",
        "2001-09-09",
        streams={HOSTILE: Pin(12, counts={"appended": 12, "appended_by_date": {"2001-09-09": 12}})},
        stages={
            "seal": {"result": {}, **times},
            "check_sources": {
                "result": {"checks": 1, "verdict": HOSTILE, "warnings": [checked], "results": [checked]},
                **times,
            },
        },
        failures=(
            {"stage": "reconcile", "at": times["ended_at"], "error": f"{HOSTILE}: differs", "names": [HOSTILE],
             "rows": 1_234, "sample": [HOSTILE], "file": f"{config.data}/runs/{HOSTILE}"},
        ),
        options=Options(dag_id="", dag_run_id=""),
        began_at="2001-09-10T00:00:00+00:00",
    )  # fmt: skip
    save_run(config, run)
    folder = config.run_folder(run.run_id)
    compared = {"view": HOSTILE, "stream": HOSTILE, "windows_compared": 3, "rows_compared": 3, "difference_count": 1,
                "differences": [difference], "expired": HOSTILE}  # fmt: skip
    (folder / "reconciliation.json").write_text(json.dumps({"views": [compared], "not_compared": [HOSTILE]}))
    yield run.run_id
    shutil.rmtree(folder)


def test_what_events_say_is_shown_and_never_run(page: Page, stack: Stack, hostile: str) -> None:
    log_in(page, stack)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for address in (f"records/{hostile}", "days?show=failed&date=2001-09-09"):
        answer = page.goto(f"{stack.airflow_url}/tidemill/{address}")
        assert answer is not None
        assert answer.status == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        expect(page.get_by_text("<script>").first).to_be_visible()
        assert "owned" not in page.title()
        assert page.locator("main script, main img").count() == 0
        # Writing is not turned around, and nothing is wider than the page.
        assert "\u202e" not in page.locator("main").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.goto(f"{stack.airflow_url}/tidemill/records/{hostile}")
    expect(page.locator(".problem")).to_contain_text("1,234 rows")
    expect(page.get_by_text("1,234,567")).to_be_visible()
    expect(page.get_by_text("UNEXPLAINED").first).to_be_visible()
    assert dialogs == []


ROUTES = ["/", "/days", "/days?show=late", "/runs/daily/x", "/records/x", "/docs/dbt", "/docs/dbt/",
          "/docs/dbt/index.html", "/docs/data", "/docs/data/", "/docs/data/index.html", "/docs/data/runs/x.html",
          "/docs/data/gx/a/b.css", "/static/pages.css", "/static/pages.js", "/static/days.svg", "/static/no-such",
          "/openapi.json", "/docs", "/redoc", "/no/such/page", "/docs/data/../../airflow/login.json"]  # fmt: skip


def ask(stack: Stack, method: str, path: str, token: str = "") -> tuple[int, dict[str, str], bytes]:
    """Ask for exactly this path; browsers and libraries would tidy it up."""
    host = urllib.parse.urlsplit(stack.airflow_url).netloc
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, f"/tidemill{path}", headers={"Authorization": f"Bearer {token}"} if token else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body


@pytest.mark.parametrize("path", ROUTES)
def test_without_login_every_page_is_refused(stack: Stack, client: AirflowClient, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(stack, method, path)[0] == 401, method
    assert ask(stack, "GET", path, "no-token-of-ours")[0] in {401, 403}


def test_no_path_leads_out_of_the_docs(stack: Stack, client: AirflowClient, day: str) -> None:
    token = client._new_token()
    secret = stack.login.password.encode()
    outside = stack.folder.data_docs.parent / "outside.html"
    outside.symlink_to(stack.login.file)
    try:
        for way in (
            "../../airflow/login.json", "%2e%2e/%2e%2e/airflow/login.json", "..%2f..%2fairflow%2flogin.json",
            "runs/../../../airflow/login.json", f"/{stack.login.file}",
            urllib.parse.quote(str(stack.login.file), safe=""),
            "outside.html", "..%5c..%5cairflow%5clogin.json", "%00", "%2e%2e%2f%2e%2e%2frun.json",
        ):  # fmt: skip
            for folder in ("data", "dbt"):
                status, _, body = ask(stack, "GET", f"/docs/{folder}/{way}", token)
                assert status == 404, way
                assert secret not in body
    finally:
        outside.unlink()
    status, headers, body = ask(stack, "GET", "/docs/data/", token)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert headers["x-content-type-options"] == "nosniff"
    assert "script-src" not in headers["content-security-policy"]
    assert b"Data docs" in body
    assert ask(stack, "GET", "/static/days.svg", token)[1]["content-type"] == "image/svg+xml"
