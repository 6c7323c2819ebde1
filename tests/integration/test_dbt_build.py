"""dbt as its user runs it: by hand, in the project's folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from deltalake import write_deltalake
from support.lakes import order_lines

ROOT = Path(__file__).parents[2]
RETAIL = ROOT.parent / "shared" / "data" / "online_retail.parquet"
BUILD_S = 300


def dbt(folder: Path, *arguments: str, **environment: str) -> str:
    """Run dbt in a copy of the project, whose data folder is beside it; give what it said."""
    project = folder / "dbt_project"
    if not project.exists():
        shutil.copytree(ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DBT_"))}
    done = subprocess.run(
        [sys.executable, "-c", "from dbt.cli.main import cli; cli()", *arguments],
        cwd=project, env={**clean, **environment}, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


def warehouse(folder: Path) -> Path:
    return folder / ".tidemill" / "warehouse" / "dev" / "warehouse.duckdb"


def test_a_build_by_hand_on_an_empty_warehouse_ends_and_reads_the_latest_lake(tmp_path: Path):
    said = dbt(tmp_path, "build")
    # Some days of the view by minute, not all since the first event.
    assert "Batch 8 of 8" in said
    assert "ERROR=0" in said
    with duckdb.connect(str(warehouse(tmp_path)), read_only=True) as connection:
        assert connection.execute("select lake_rows, filtered_rows from staging_filtered").fetchall() == [(0, 0)]

    lake = tmp_path / ".tidemill" / "lake" / "order_lines"
    write_deltalake(str(lake), order_lines(100, [5, 6]), partition_by=["event_date"])
    said = dbt(tmp_path, "run", "--event-time-start", "2011-12-05", "--event-time-end", "2011-12-07")
    assert "ERROR=0" in said
    with duckdb.connect(str(warehouse(tmp_path)), read_only=True) as connection:
        assert connection.execute("select count(*) from stg_order_lines").fetchall() == [(100,)]
        assert connection.execute("select count(distinct window_start::date) from sales_by_minute").fetchall() == [(2,)]


@pytest.mark.skipif(not RETAIL.exists(), reason=f"{RETAIL} is not there")
def test_the_real_set_passes_every_test_with_its_control_totals(tmp_path: Path):
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        lines = connection.sql(
            "select source_row::varchar as event_id, invoice_no, stock_code, description, "
            "quantity::bigint as quantity, "
            "unit_price::decimal(12, 3) as unit_price, timezone('UTC', invoice_date) as invoiced_at, "
            "customer_id::bigint as customer_id, country, 0::int as _partition, source_row::bigint - 1 as _offset, "
            f"now() as _append_time, invoice_date::date as event_date from '{RETAIL}' order by source_row"
        ).to_arrow_table()
    write_deltalake(str(tmp_path / ".tidemill" / "lake" / "order_lines"), lines, partition_by=["event_date"])
    span = ["--event-time-start", "2010-12-01", "--event-time-end", "2011-12-10"]
    assert "ERROR=0" in dbt(tmp_path, "build", *span, "--vars", "{batch_size: month}")
    with duckdb.connect(str(warehouse(tmp_path)), read_only=True) as connection:
        connection.execute("set TimeZone = 'UTC'")
        totals = connection.execute(
            "select count(*), sum(quantity), sum(line_amount)::varchar, count(distinct invoice_no), "
            "count(distinct stock_code), count(distinct customer_id), count(distinct country), "
            "count(distinct event_date) from stg_order_lines"
        ).fetchall()
        assert totals == [(541909, 5176450, "9747747.934", 25900, 4070, 4372, 38, 305)]
        for table in ("fct_orders", "fct_daily_sales"):
            assert connection.execute(
                f"select sum(lines), sum(units), sum(revenue)::varchar from {table}"
            ).fetchall() == [(541909, 5176450, "9747747.934")]
        assert connection.execute("select count(*) from fct_orders").fetchall() == [(25900,)]
        assert connection.execute("select count(*) from dim_customers").fetchall() == [(4372,)]
        # The view by minute is what the lake gives when it is asked directly, in every window.
        connection.register("lines", lines)
        direct = (
            "select time_bucket(interval '1 minute', invoiced_at) as w, country, count(*), sum(quantity), "
            "sum(quantity * unit_price), count(distinct customer_id) from lines where quantity > 0 group by all"
        )
        assert connection.execute(f"select count(*) from (({direct}) except (from sales_by_minute))").fetchall() == [
            (0,)
        ]
        assert connection.execute(f"select count(*) from ((from sales_by_minute) except ({direct}))").fetchall() == [
            (0,)
        ]
