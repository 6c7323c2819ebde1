"""`tidemill demo` as a newcomer runs it: a process of its own, with everything real behind it."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.processes import processes_of
from unit.repo.blocks import commands

import tidemill
from tidemill.cli.day_report import TASKS

ROOT = Path(__file__).parents[2]
TIDEMILL = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())"]

CSV = """\
event_id,InvoiceNo,stock_code,description,quantity,unit_price,invoiced_at,customer_id,country
l-1,536365,85123A,A LANTERN,6,2.55,2011-07-04 09:00:00,17850,France
l-2,536365,22423,,1,12.75,2011-07-04 09:00:00,17850,France
l-3,536366,22423,A CAKESTAND,3,1.60,2011-07-04 00:30:00,,France
l-4,none,22423,A CAKESTAND,3,1.60,2011-07-04 10:30:00,,France
"""

pytestmark = pytest.mark.airflow


def run(*arguments: str, timeout_s: int = 420) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TIDEMILL, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=420, check=False
    )


def is_service(process: psutil.Process, folder: Path) -> bool:
    """Whether the process is the ingest service of that data folder."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return "ingest_service" in words and str(folder) in words


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


@pytest.fixture(scope="module")
def broken(data) -> subprocess.CompletedProcess[str]:
    """A demo with the fault at its end: the plain one is the same up to there."""
    return run("demo", "--break", "--data", str(data))


def test_it_shows_every_part_and_ends_well(broken, data):
    assert broken.returncode == 0, broken.stdout + broken.stderr
    out = broken.stdout
    assert re.search(r"5,003 rows sent in .* 4,995 appended, 3 duplicate, 5 quarantined, 0 late", out)
    assert re.search(r"quarantined row [\d,]+: quantity: must not be in list \[0\], came 0 \(rule int64.not_in\)", out)
    assert "it covers all 4,995 events" in out
    for task in TASKS:
        assert re.search(rf"✓ {task} +\d", out), task
    assert re.search(r"\d+ orders · revenue [\d,]+\.\d{3} · [\d,]+ units", out)
    assert "top countries: United Kingdom" in out
    assert "received 5,003 = appended 4,995 + duplicate 3 + quarantined 5" in out
    assert "appended 4,995 = lake rows 4,995" in out
    assert re.search(r"sales_by_minute: \d+ windows compared, 0 differences", out)
    assert "make up" in out
    assert "\x1b" not in out  # no colour where there is no terminal
    for page in ("docs/dbt/index.html", "docs/data/index.html", "warehouse/warehouse.duckdb"):
        assert (data / page).is_file(), page


def test_a_live_row_changed_by_hand_is_named_and_nothing_is_published(broken):
    assert "✗ reconcile" in broken.stdout
    found = re.search(r"Found: UNEXPLAINED: sales_by_minute (.*): revenue live (\S+), batch (\S+), difference 1.000",
                      broken.stdout)  # fmt: skip
    assert found, broken.stdout[-3000:]
    assert "country=" in found[1]
    assert "Nothing was published" in broken.stdout


def test_it_leaves_no_process_behind(broken, data):
    assert broken.returncode == 0
    assert processes_of(data) == []


def test_it_can_be_run_again_with_a_file_of_your_own(broken, data, tmp_path):
    assert broken.returncode == 0
    path = tmp_path / "order_lines.csv"
    path.write_text(CSV)
    done = make("demo", f"INPUT={path}", f"ARGS=--json --timezone Europe/London --data {data}")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    # A summer evening in London after half past midnight is the day before in UTC.
    assert report["dates"] == ["2011-07-03", "2011-07-04"]
    assert (report["sent"]["appended"], report["sent"]["quarantined"]) == (3, 1)
    assert (report["headline"]["orders"], report["headline"]["revenue"]) == (2, "32.850")
    assert report["day"]["reconcile"]["views"]["sales_by_minute"]["differences"] == 0
    # The earlier day is still in the warehouse, beside the new ones.
    first = re.search(r"simulated shop's (\S+),", broken.stdout)[1]
    (command,) = [line for line in commands(ROOT / "README.md") if line.startswith("tidemill sql")]
    shown = run(*shlex.split(command)[1:], "--data", str(data), "--json")
    assert {json.loads(row)["sales_date"] for row in shown.stdout.splitlines()} == {first, *report["dates"]}


def test_up_keeps_everything_running_until_ctrl_c(data):
    """What `make up` runs, with free ports."""
    process = subprocess.Popen(
        ["make", "-s", "up", f"ARGS=--port 0 --airflow-port 0 --data {data}"], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line
        if "password" in line.lower():
            break
    address = re.search(r"127\.0\.0\.1:\d+|localhost:\d+", shown)[0]
    with tidemill.connect(address) as tm:
        assert tm.view("sales_by_minute").query(limit=1).rows()
    (service,) = [p for p in psutil.process_iter() if is_service(p, data)]
    service.kill()
    for line in process.stdout:
        shown += line
        if re.search(r"ingest-service.*(again|restart)", line):
            break
    with tidemill.connect(address, wait_s=60) as tm:
        assert tm.view("sales_by_minute").query(limit=1, wait_s=30).rows()
    os.killpg(process.pid, signal.SIGINT)
    rest, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors + rest
    assert processes_of(data) == []


def test_ctrl_c_stops_every_child(tmp_path):
    process = subprocess.Popen(
        [*TIDEMILL, "demo", "--data", str(tmp_path / "data")], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "acknowledged" in line:
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert processes_of(tmp_path) == []
