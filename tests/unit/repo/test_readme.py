"""Every command in the documents is known, and runs: here over a real service, or in the test that is named."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from unit.repo import compose
from unit.repo.blocks import DOCUMENTS, ROOT, blocks, commands
from unit.repo.services import Containers

README = ROOT / "README.md"

# Run by other tests: each of them takes its command from here, so that the README's words are what runs.
ELSEWHERE = {
    "make demo": "tests/e2e/test_demo.py",
    "make demo ARGS=--break": "tests/e2e/test_demo.py",
    "make demo INPUT=order_lines.csv": "tests/e2e/test_demo.py",
    "make up": "tests/e2e/test_demo.py",
    "tidemill sql 'from fct_daily_sales order by sales_date'": "tests/e2e/test_demo.py",
    "make setup": ".ci/run",
    "make bench": "benchmarks",
    **dict.fromkeys(
        (
            "tidemill init shop",
            "cd shop",
            "make test",
            "tidemill new stream page_views",
            "tidemill new view page_views_by_hour --stream page_views --window hour --by kind",
            "tidemill new model fct_daily_page_views --from stg_page_views",
            "tidemill new suite page_views --stream page_views",
            "make check",
        ),
        "tests/e2e/test_own_project.py",
    ),
    "make bench ONLY=append_typed": "benchmarks",
    "tidemill day run 2011-12-05": "tests/dags/test_day_cli.py",
    "tidemill day run 2011-12-05 --local": "tests/integration/test_day_runs.py",
    "tidemill day backfill --from 2010-12-01 --to 2011-12-09 --force": "tests/dags/test_day_cli.py",
}

CSV = """\
Event ID,InvoiceNo,stock_code,quantity,unit_price,invoiced_at,country
f-1,536365,85123A,6,2.55,2011-12-05T08:26:00Z,France
f-2,536365,22423,1,12.75,2011-12-05T08:26:00Z,France
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The ingest service with the live views, and a folder with the files that the documents name."""
    made = Containers(tmp_path_factory.mktemp("readme"))
    try:
        made.run_once("manifest")
        made.start("ingest")
        made.wait_healthy("ingest")
        work = made.folder / "work"
        work.mkdir()
        (work / "order_lines.csv").write_text(CSV, encoding="utf-8")
        write_shop(work / "shop.parquet")
        write_warehouse(work / ".tidemill" / "warehouse" / "warehouse.duckdb")
        (work / "proto").symlink_to(ROOT / "proto")
        (work / "dbt_project").symlink_to(ROOT / "dbt_project")
        yield made
    finally:
        made.stop()


def write_shop(path: Path) -> None:
    """A file as docs/import-files.md describes one: times without a zone, no event id."""
    import datetime as dt

    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"source_row": 1, "invoice_no": "536365", "stock_code": "22423", "quantity": 1, "unit_price": "12.75",
           "invoice_date": dt.datetime(2011, 12, 5, 8, 26), "country": "France"}  # noqa: DTZ001 # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), path)


def write_warehouse(path: Path) -> None:
    """A published warehouse, as far as docs/query-the-warehouse.md asks it."""
    import duckdb

    path.parent.mkdir(parents=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("create table fct_daily_sales as select date '2011-12-05' as sales_date, 1.25 as revenue")
        connection.execute(
            "create table tidemill_published as select '2011-12-05_a' as run_id, date '2011-12-05' as first_date, "
            "date '2011-12-05' as last_date, json('{}') as streams, now() as built_at, now() as published_at"
        )


def tidemill_commands() -> list[str]:
    every = dict.fromkeys(line for file in DOCUMENTS for line in commands(file))
    return [line for line in every if line.startswith("tidemill ") and line not in ELSEWHERE]


def test_every_command_is_known():
    unknown = [
        f"{file.relative_to(ROOT)}: {line}"
        for file in DOCUMENTS
        for line in commands(file)
        if line not in ELSEWHERE and line not in tidemill_commands()
    ]
    assert unknown == [], "say in ELSEWHERE which test runs it, or write it so that this one can"


def test_commands_elsewhere_are_still_in_the_documents():
    every = {line for file in DOCUMENTS for line in commands(file)}
    assert [line for line in ELSEWHERE if line not in every] == []
    assert [where for where in ELSEWHERE.values() if not (ROOT / where).exists()] == []


@pytest.mark.parametrize("line", [line for line in ELSEWHERE if line.startswith("make ")])
def test_make_targets_exist(line):
    _, *words = shlex.split(line)
    target = next(word for word in words if "=" not in word)
    variables = [word for word in words if "=" in word]
    shown = subprocess.run(
        ["make", "--dry-run", target, *variables], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"$({word.split('=')[0]})" in makefile for word in variables)


@pytest.mark.parametrize("line", tidemill_commands())
def test_command_runs(service, line):
    words = [
        sys.executable,
        "-c",
        "import sys; from tidemill.cli import main; sys.exit(main())",
        *shlex.split(line)[1:],
    ]
    environment = {**os.environ, "TIDEMILL_ADDRESS": f"127.0.0.1:{service.here.ingest_port}"}
    done = subprocess.run(
        words, env=environment, cwd=service.folder / "work", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


PYTHON = [block for file in DOCUMENTS for block in blocks(file, "python")]
SUITES = [block for block in PYTHON if "from quality.suite import" in block.text]


@pytest.mark.parametrize("block", SUITES, ids=lambda block: block.place)
def test_example_is_a_suite(block, tmp_path):
    from quality.suite_files import load_suites

    (tmp_path / "example.py").write_text(block.text, encoding="utf-8")
    found = load_suites(tmp_path)
    assert any(suite.expectations for suite in [*found.sources, *found.marts])


@pytest.mark.parametrize("block", [block for block in PYTHON if block not in SUITES], ids=lambda block: block.place)
def test_example_runs(service, block):
    program = block.text.replace("localhost:7433", f"127.0.0.1:{service.here.ingest_port}")
    assert program != block.text or ".tidemill/warehouse" in program, "an example connects to localhost:7433"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False,
        cwd=service.folder / "work",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example shows something"


def test_readme_has_what_a_newcomer_asks_for():
    text = README.read_text(encoding="utf-8")
    for word in ("make demo", "make up", "7433", "8080", "Python 3.11, 3.12 or 3.13", "login.json", "GB", "arm64"):
        assert word in text
    assert len(text.splitlines()) < 150


def test_links_lead_somewhere():
    wrong = []
    for file in [*DOCUMENTS, ROOT / "CHANGELOG.md"]:
        for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            if path.startswith("http"):
                continue
            found = (file.parent / path).resolve() if path else file
            if not found.exists() or (anchor and anchor not in anchors(found)):
                wrong.append(f"{file.relative_to(ROOT)}: {target}")
    assert wrong == []


def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_ports_are_those_of_the_code():
    from tidemill.cli import up

    text = README.read_text(encoding="utf-8")
    assert f"`localhost:{up.SERVICE_PORT}`" in text
    assert f"`http://localhost:{up.AIRFLOW_PORT}`" in text
    assert f"${{AIRFLOW_PORT:-{up.AIRFLOW_PORT}}}" in compose.FILE.read_text(encoding="utf-8")
