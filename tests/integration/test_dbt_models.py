"""The models: what they promise of themselves, and a small day whose every mart was worked out by hand."""

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from support.dbt_by_hand import ROOT, dbt, project, warehouse
from support.lakes import ORDER_LINES

from quality.operations import TABLES
from tidemill.lake import source_tables

PROJECT = ROOT / "dbt_project"
STAMP = pa.timestamp("us", tz="UTC")
TYPES = {
    "VARCHAR": pa.string(), "BIGINT": pa.int64(), "INTEGER": pa.int32(), "DOUBLE": pa.float64(), "DATE": pa.date32(),
    "DECIMAL(12,3)": pa.decimal128(12, 3), "TIMESTAMP WITH TIME ZONE": STAMP,
}  # fmt: skip
SPAN = ("--event-time-start", "2011-11-30", "--event-time-end", "2011-12-07")
DETERMINED = ("path:models/staging", "path:models/intermediate", "path:models/marts")

Rows = list[tuple[Any, ...]]

# Two dates, sealed at offsets 10 and 12; line 10 is late, line 12 is beyond the run's seal.
LINES = [
    ("536001", "85123A", " LANTERN ", 6, "2.550", "2011-11-30 10:00:00", 1, "France"),
    ("536002", "85123a", "LANTERN", 10, "2.550", "2011-12-05 08:00:00", 1, "France"),
    ("536002", "POST", "POSTAGE", 1, "18.000", "2011-12-05 08:00:00", 1, "France"),
    ("536003", "22423", "CAKESTAND", 2, "12.750", "2011-12-05 08:30:00", 2, "Unspecified"),
    ("C536004", "85123A", "LANTERN", -4, "2.550", "2011-12-05 08:59:59", 1, "France"),
    ("C536005", "22423", "CAKESTAND", -3, "12.750", "2011-12-05 09:30:00", 2, "Unspecified"),
    ("536006", "22423", "damaged", -1, "0.000", "2011-12-05 12:00:00", None, "United Kingdom"),
    ("A536007", "B", "Adjust bad debt", 1, "-11062.060", "2011-12-05 13:00:00", None, "United Kingdom"),
    ("536008", "22423", None, 1, "10.950", "2011-12-05 14:00:00", None, "United Kingdom"),
    ("C536009", "POST", "POSTAGE", -1, "18.000", "2011-12-05 15:00:00", 1, "France"),
    ("536010", "85123A", "LANTERN", 1, "2.950", "2011-12-05 16:00:00", 3, "United Kingdom"),
    ("C536011", "85123A", "LANTERN", -1, "2.950", "2011-12-06 09:00:00", 4, "EIRE"),
    ("536012", "85123A", "LANTERN", 99, "2.950", "2011-12-06 09:00:00", 4, "EIRE"),
]
REQUESTS = [
    ("ada", "/", 200, 10), ("bob", "/", 200, 10), ("ada", "/map?1,2", 404, 0), ("ada", "/logo.gif", 200, 5),
]  # fmt: skip


def day_of(text: str) -> dt.date:
    return dt.date.fromisoformat(text[:10])


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def money(text: str) -> Decimal:
    return Decimal(text)


def table(columns: dict[str, str], rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=pa.schema([(name, TYPES[kind]) for name, kind in columns.items()]))


def write_lake(data: Path) -> None:
    """The three streams as the exporter leaves them."""
    columns = source_tables(PROJECT / "models" / "sources")
    assert columns["order_lines"] == ORDER_LINES
    streams = {
        "order_lines": [
            dict(zip(
                ("invoice_no", "stock_code", "description", "quantity", "unit_price", "invoiced_at", "customer_id",
                 "country"), (*line[:4], money(line[4]), at(line[5]), *line[6:]), strict=True,
            )) for line in LINES
        ],
        "web_requests": [
            {"requested_at": at("1995-08-01 04:00:00"), "host": host, "method": "GET", "url": url, "status": status,
             "bytes": size} for host, url, status, size in REQUESTS
        ],
        "readings": [
            {"measured_at": at("2026-01-01 00:00:00"), "host": "here", "sensor": "cpu", "metric": "used_percent",
             "value": 50.0, "unit": "percent"}
        ] * 2,
    }  # fmt: skip
    for stream, rows in streams.items():
        time = yaml.safe_load((PROJECT / "models" / "sources" / f"{stream}.yml").read_text())
        event_time = time["sources"][0]["tables"][0]["config"]["event_time"]
        full = [
            {**row, "event_id": f"e{offset}", "_partition": 0, "_offset": offset, "_append_time": row[event_time],
             "event_date": row[event_time].date()} for offset, row in enumerate(rows)
        ]  # fmt: skip
        write_deltalake(str(data / "lake" / stream), table(columns[stream], full), partition_by=["event_date"])


def pin(data: Path, run_id: str) -> Path:
    """A run's record, as far as dbt reads it: every stream at its first version; the last order line is not sealed."""
    offsets = {"order_lines": 12, "web_requests": 4, "readings": 2}
    file = data / "runs" / run_id / "run.json"
    file.parent.mkdir(parents=True)
    streams = {
        stream: {"lake_uri": str(data / "lake" / stream), "lake_version": 0, "seal_offset": offset}
        for stream, offset in offsets.items()
    }
    file.write_text(json.dumps({"streams": streams}), encoding="utf-8")
    return file


def tell(run_file: Path, **tables: Rows) -> None:
    """Write what is known of streams and runs, as a run does."""
    folder = run_file.parent / "operations"
    folder.mkdir(exist_ok=True)
    with duckdb.connect(":memory:") as connection:
        connection.execute("set TimeZone = 'UTC'")
        for name, rows in tables.items():
            columns = ", ".join(f'"{column}" {kind}' for column, kind in TABLES[name].items())
            connection.execute(f"create table {name} ({columns})")
            if rows:
                marks = ", ".join("?" * len(TABLES[name]))
                connection.executemany(f"insert into {name} values ({marks})", rows)
            connection.execute(f"copy {name} to '{folder / name}.parquet' (format parquet)")


class Built:
    """The small day, built by hand from a run's pins; with docs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / ".tidemill"
        write_lake(self.data)
        self.run = pin(self.data, "first")
        sealed = at("2011-12-06 00:10:00")
        tell(
            self.run,
            seals=[
                ("order_lines", day_of("2011-12-05"), 10, sealed),
                ("order_lines", day_of("2011-12-06"), 12, sealed + dt.timedelta(days=1)),
                ("order_lines", day_of("2011-12-05"), 12, sealed + dt.timedelta(days=1)),
                ("readings", day_of("2026-01-01"), 1, at("2026-01-02 00:10:00")),
            ],
            quarantined_rows=[
                ("order_lines", "q7", 3, at("2011-12-05 08:30:01"), "till-1", 2, 0, "int64.not_in", "quantity", "is 0",
                 False),
            ],
        )  # fmt: skip
        self.said = self.dbt("build", *SPAN)
        self.dbt("docs", "generate")
        target = project(folder) / "target"
        self.manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
        self.catalog = json.loads((target / "catalog.json").read_text(encoding="utf-8"))

    def dbt(self, *arguments: str, run: Path | None = None) -> str:
        return dbt(self.folder, *arguments, TIDEMILL_PINS=str(run or self.run))

    @contextlib.contextmanager
    def opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with duckdb.connect(str(warehouse(self.folder)), read_only=True) as connection:
            connection.execute("set TimeZone = 'UTC'")
            yield connection

    def ask(self, sql: str) -> Rows:
        with self.opened() as connection:
            return connection.execute(sql).fetchall()

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        return {node["name"]: node for node in self.manifest["nodes"].values() if node["resource_type"] == "model"}

    def tests_of(self, model: str) -> list[dict[str, Any]]:
        nodes = self.manifest["nodes"].values()
        return [
            node for node in nodes
            if node["resource_type"] == "test" and (node.get("attached_node") or "").endswith(f".{model}")
        ]  # fmt: skip

    def content(self) -> dict[str, str]:
        """A hash over each table's rows, whatever their order."""
        names = [name for name, node in self.models.items() if node["path"].split("/")[0] not in ("live", "operations")]
        hashed = (
            "select coalesce(md5(string_agg(line, '|' order by line)), '') from (select t::varchar as line from {} t)"
        )
        return {name: self.ask(hashed.format(name))[0][0] for name in names}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("models"))


# What the models promise of themselves.


def test_every_model_says_its_grain_and_tests_its_key(built: Built):
    wrong = []
    for name, model in built.models.items():
        if not model["description"].startswith("One row per "):
            wrong.append(f"{name}: its description does not begin with its grain")
        never_null = {
            column["name"] for column in model["columns"].values()
            if any(each["type"] == "not_null" for each in column["constraints"])
        }  # fmt: skip
        keys = []
        for test in built.tests_of(name):
            kind, arguments = test["test_metadata"]["name"], test["test_metadata"]["kwargs"]
            if kind == "never_null":
                never_null.update(arguments["columns"])
            elif kind in ("unique", "unique_together"):
                keys.append(arguments.get("columns") or [arguments["column_name"]])
        # A group of a live view may be NULL: it is a value there.
        if not any(never_null.issuperset(key) for key in keys):
            wrong.append(f"{name}: no test of a key whose columns are never NULL (keys: {keys})")
    assert not wrong


def test_every_column_is_described_and_no_other_is_there(built: Built):
    wrong = []
    for kind in ("nodes", "sources"):
        for unique_id, table in built.catalog[kind].items():
            node = built.manifest[kind][unique_id]
            if not node["description"]:
                wrong.append(f"{unique_id}: no description")
            described = [name for name, column in node["columns"].items() if column["description"].strip()]
            if sorted(described) != sorted(table["columns"]):
                wrong.append(f"{unique_id}: described {sorted(described)}, in the table {sorted(table['columns'])}")
    assert not wrong
    catalogued = {unique_id.rpartition(".")[2] for unique_id in built.catalog["nodes"]}
    assert catalogued >= built.models.keys() | {"regions", "service_codes"}


def test_all_models_but_the_live_ones_have_a_contract(built: Built):
    for name, model in built.models.items():
        folder = model["path"].split("/")[0]
        assert model["config"]["contract"]["enforced"] == (folder != "live"), name
        assert model["config"]["group"], f"{name} is of no group: nobody owns it"
    # In a contract, the order of the columns is that of the description: `select *` gives what the docs show.
    for unique_id, table in built.catalog["nodes"].items():
        node = built.manifest["nodes"][unique_id]
        if node["resource_type"] == "model" and node["config"]["contract"]["enforced"]:
            in_table = sorted(table["columns"].values(), key=lambda column: column["index"])
            assert [column["name"] for column in in_table] == list(node["columns"])


def test_a_model_is_named_by_its_layer(built: Built):
    prefixes = {
        "staging": r"(stg_\w+|staging_filtered)", "intermediate": r"int_\w+", "marts": r"(fct|dim)_\w+", "live": r"\w+",
        "operations": r"\w+",
    }  # fmt: skip
    order = list(prefixes)
    for name, model in built.models.items():
        folder = model["path"].split("/")[0]
        assert re.fullmatch(prefixes[folder], name), f"{name} in {folder}"
        read = [
            built.manifest["nodes"][parent] for parent in model["depends_on"]["nodes"] if parent.startswith("model.")
        ]
        later = [parent["name"] for parent in read if order.index(parent["path"].split("/")[0]) > order.index(folder)]
        assert not later, f"{name} reads {later} of a later layer"


def test_a_passed_column_has_the_contracts_own_words(built: Built):
    for model in ("stg_order_lines", "stg_web_requests", "stg_readings"):
        (source,) = (built.manifest["sources"][each] for each in built.models[model]["depends_on"]["nodes"])
        passed = built.models[model]["columns"].keys() & source["columns"].keys()
        assert len(passed) >= 10
        for name in passed:
            assert built.models[model]["columns"][name]["description"] == source["columns"][name]["description"], name


def test_what_the_runs_tell_has_the_types_in_which_it_is_written(built: Built):
    aliases = {"timestamptz": "timestamp with time zone"}
    declared = {
        source["name"]: {name: column["data_type"].lower() for name, column in source["columns"].items()}
        for source in built.manifest["sources"].values() if source["source_name"] == "operations"
    }  # fmt: skip
    assert declared == {
        name: {column: aliases.get(kind, kind) for column, kind in columns.items()} for name, columns in TABLES.items()
    }


def test_each_piece_of_logic_has_a_unit_test(built: Built):
    tested = {test["model"] for test in built.manifest["unit_tests"].values()}
    # These take rows as they are told; what they do beside is tested below.
    plain = {name for name, model in built.models.items() if model["path"].startswith("operations")}
    plain |= {"stg_readings", "staging_filtered"}
    assert built.models.keys() - tested <= plain


def test_no_model_asks_for_the_time_or_for_chance(built: Built):
    for name, model in built.models.items():
        found = re.search(r"\b(now|random|today|current_\w+|uuid|get_current_\w+)\b\s*\(?", model["raw_code"])
        assert not found, f"{name}: {found and found.group()}"


def test_exposures_name_who_reads(built: Built):
    read = {parent for exposure in built.manifest["exposures"].values() for parent in exposure["depends_on"]["nodes"]}
    layers = ("marts", "live", "operations")
    models = {model["unique_id"] for model in built.models.values() if model["path"].split("/")[0] in layers}
    assert read == models
    assert all(exposure["description"] and exposure["owner"] for exposure in built.manifest["exposures"].values())


def test_the_overview_lists_every_table_to_ask(built: Built):
    text = (PROJECT / "models" / "overview.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| \[(\w+)\]\(#!/model/model\.tidemill_retail\.\1\) \|", text, re.MULTILINE))
    layers = ("marts", "live", "operations")
    assert listed == {name for name, model in built.models.items() if model["path"].split("/")[0] in layers}


# The small day, mart by mart.


def test_orders(built: Built):
    assert "ERROR=0" in built.said
    assert "WARN=0" in built.said
    rows = built.ask("select invoice_no, customer_id, lines, articles, units, revenue from fct_orders order by 1")
    assert rows == [
        ("536001", 1, 1, 1, 6, money("15.300")),
        ("536002", 1, 2, 2, 11, money("43.500")),
        ("536003", 2, 1, 1, 2, money("25.500")),
        ("536006", None, 1, 1, -1, money("0.000")),
        ("536008", None, 1, 1, 1, money("10.950")),
        ("536010", 3, 1, 1, 1, money("2.950")),
        ("A536007", None, 1, 1, 1, money("-11062.060")),
        ("C536004", 1, 1, 1, -4, money("-10.200")),
        ("C536005", 2, 1, 1, -3, money("-38.250")),
        ("C536009", 1, 1, 1, -1, money("-18.000")),
        ("C536011", 4, 1, 1, -1, money("-2.950")),
    ]


def test_daily_sales(built: Built):
    rows = built.ask(
        "select sales_date, country, orders, cancellations, lines, revenue from fct_daily_sales order by all"
    )
    fifth = day_of("2011-12-05")
    assert rows == [
        (day_of("2011-11-30"), "France", 1, 0, 1, money("15.300")),
        (fifth, "France", 1, 2, 4, money("15.300")),
        (fifth, "United Kingdom", 4, 0, 4, money("-11048.160")),
        (fifth, "Unspecified", 1, 1, 2, money("-12.750")),
        (day_of("2011-12-06"), "EIRE", 0, 1, 1, money("-2.950")),
    ]


def test_customers(built: Built):
    rows = built.ask(
        "select customer_id, orders, cancellations, units, revenue, lifetime_value, first_invoice_no, last_invoice_no, "
        "cohort_month, recency_days, recency_score, frequency_score, monetary_score, segment "
        "from dim_customers order by 1"
    )
    november, december = day_of("2011-11-01"), day_of("2011-12-01")
    assert rows == [
        (1, 2, 2, 12, money("30.600"), money("30.600"), "536001", "536002", november, 1, 5, 4, 4, "champion"),
        (2, 1, 1, -1, money("-12.750"), money("-12.750"), "536003", "536003", december, 1, 5, 1, 1, "newcomer"),
        (3, 1, 0, 1, money("2.950"), money("2.950"), "536010", "536010", december, 1, 5, 1, 2, "newcomer"),
        (4, 0, 1, -1, money("-2.950"), money("-2.950"), None, None, None, None, None, None, None, "never ordered"),
    ]


def test_cohorts(built: Built):
    rows = built.ask("select * exclude (months_since_first) from fct_customer_cohorts order by 1, 2")
    november, december, whole = day_of("2011-11-01"), day_of("2011-12-01"), money("1.000000")
    assert rows == [
        (november, november, 1, 1, whole, 1, money("15.300")),
        (november, december, 1, 1, whole, 1, money("43.500")),
        (december, december, 2, 2, whole, 2, money("28.450")),
    ]


def test_products(built: Built):
    rows = built.ask(
        "select product_code, product_name, names, spellings, service, last_price, lowest_price, highest_price, "
        "customers, lines, units_sold, units_cancelled, revenue from dim_products order by 1"
    )
    prices = (money("10.950"), money("10.950"), money("12.750"))
    assert rows == [
        ("22423", "CAKESTAND", 2, 1, None, *prices, 1, 4, 3, 3, money("-1.800")),
        ("85123A", "LANTERN", 1, 2, None, money("2.950"), money("2.550"), money("2.950"), 2, 5, 17, 5, money("30.600")),
        ("B", "Adjust bad debt", 1, 1, "bad debt", None, None, None, 0, 1, 0, 0, money("-11062.060")),
        ("POST", "POSTAGE", 1, 1, "postage", *[money("18.000")] * 3, 1, 2, 1, 1, money("0.000")),
    ]


def test_countries(built: Built):
    rows = built.ask(
        "select country, region, orders, cancellations, customers, lines, units, revenue from dim_countries order by 1"
    )
    assert rows == [
        ("EIRE", "Europe", 0, 1, 1, 1, -1, money("-2.950")),
        ("France", "Europe", 2, 2, 1, 5, 12, money("30.600")),
        ("United Kingdom", "United Kingdom", 4, 0, 1, 4, 2, money("-11048.160")),
        ("Unspecified", "Unknown", 1, 1, 1, 2, -1, money("-12.750")),
    ]


def test_cancellations(built: Built):
    rows = built.ask(
        "select _offset, units, amount, status, sale_offset, sale_invoice_no, sale_units, sale_units_left, "
        "days_since_sale from fct_cancellations order by 1"
    )
    none = (None,) * 5
    assert rows == [
        # Of the two sales, the later; its code was in small letters.
        (4, 4, money("10.200"), "matched", 1, "536002", 10, 6, 0),
        # Three of two: too few were sold.
        (5, 3, money("38.250"), "no sale found", *none),
        (9, 1, money("18.000"), "no product", *none),
        (11, 1, money("2.950"), "no sale found", *none),
    ]


def test_sessions(built: Built):
    rows = built.ask(
        "select session_id, started_at, seconds, invoices, articles, lines, units, revenue, has_cancellation "
        "from fct_sessions order by 1"
    )
    assert rows == [
        ("1-1", at("2011-11-30 10:00:00"), 0, 1, 1, 1, 6, money("15.300"), False),
        ("1-2", at("2011-12-05 08:00:00"), 3599, 2, 3, 3, 7, money("33.300"), True),
        ("1-3", at("2011-12-05 15:00:00"), 0, 1, 1, 1, -1, money("-18.000"), True),
        ("2-1", at("2011-12-05 08:30:00"), 0, 1, 1, 1, 2, money("25.500"), False),
        # An hour later, to the second: another session.
        ("2-2", at("2011-12-05 09:30:00"), 0, 1, 1, 1, -3, money("-38.250"), True),
        ("3-1", at("2011-12-05 16:00:00"), 0, 1, 1, 1, 1, money("2.950"), False),
        ("4-1", at("2011-12-06 09:00:00"), 0, 1, 1, 1, -1, money("-2.950"), True),
    ]


def test_pages_and_traffic(built: Built):
    rows = built.ask("select path, kind, requests, errors, hosts, bytes from dim_pages order by 1")
    assert rows == [("/", "page", 2, 0, 2, 20), ("/logo.gif", "image", 1, 0, 1, 5), ("/map", "page", 1, 1, 1, 0)]
    first = day_of("1995-08-01")
    rows = built.ask("select * from fct_web_traffic_daily order by kind")
    assert rows == [(first, "image", 1, 0, 1, 1, 5), (first, "page", 3, 1, 2, 2, 20)]


def test_no_table_of_web_requests_shows_a_host(built: Built):
    hosts = {host for host, *_ in REQUESTS}
    with built.opened() as connection:
        texts = connection.execute(
            "select table_name, column_name from information_schema.columns where data_type = 'VARCHAR' "
            "and table_schema = 'main'"
        ).fetchall()
        shown = {
            f"{table}.{column}" for table, column in texts
            if hosts & {value for (value,) in connection.execute(f'select "{column}" from "{table}"').fetchall()}
        }  # fmt: skip
    assert ("stg_web_requests", "host_hash") in texts
    assert not shown


def test_late_events_and_quarantined_rows(built: Built):
    rows = built.ask(
        "select stream, _offset, event_id, first_seal_offset, first_sealed_at from fct_late_events order by all"
    )
    assert rows == [
        ("order_lines", 10, "e10", 10, at("2011-12-06 00:10:00")),
        ("readings", 1, "e1", 1, at("2026-01-02 00:10:00")),
    ]
    rows = built.ask("select stream, row_id, append_date, at_offset, rule, field, replayed from fct_quarantined_rows")
    assert rows == [("order_lines", "q7", day_of("2011-12-05"), 3, "int64.not_in", "quantity", False)]


def test_the_day_is_reckoned_as_of_the_newest_sealed_date(built: Built):
    rows = built.ask("select * from int_stream_dates order by stream")
    sixth, first, new_year = day_of("2011-12-06"), day_of("1995-08-01"), day_of("2026-01-01")
    assert rows == [
        ("order_lines", sixth, sixth, sixth),
        ("readings", new_year, new_year, new_year),
        ("web_requests", None, first, first),
    ]


def test_lake_is_staging_and_filtered(built: Built):
    rows = built.ask("select stream, lake_rows, filtered_rows from staging_filtered order by 1")
    assert rows == [("order_lines", 12, 0), ("readings", 2, 0), ("web_requests", 4, 0)]
    for stream, lake_rows, _ in rows:
        assert built.ask(f"select count(*) from stg_{stream}") == [(lake_rows,)]


def test_built_again_every_table_has_the_same_content(built: Built):
    before = built.content()
    assert len(before) > 15
    built.dbt("run", "--select", *DETERMINED, *SPAN)
    assert built.content() == before


# What the runs tell of themselves.


def told(run_id: str, differences: int, state: str = "failed") -> dict[str, Rows]:
    began = at("2011-12-06 00:10:00")
    return {
        "runs": [(run_id, "daily", "scheduled", day_of("2011-12-05"), day_of("2011-12-05"), state, None, None, began,
                  began + dt.timedelta(seconds=41.5), "{}", 0)],
        "run_stages": [(run_id, "seal", began, 0.5, "success"), (run_id, "export", began, 1.0, "success")],
        "balance_lines": [(run_id, "order_lines", "appended", 12, "lake rows", 11, False)] * 2,
        "compared_views": [(run_id, "sales_by_minute", "order_lines", 9, 9, differences, 1, None)],
        "differences": [(run_id, "sales_by_minute", "2011-12-05 08:26", "country=France", "(row)", f"{n}", "absent", "",
                         "UNEXPLAINED") for n in range(differences)],
        "check_results": [(run_id, "suite", "customer_id", "is known", "WARN", False, 12, 3, "25%")] * 2,
        "alerts": [(f"alert-{run_id}", began, "failure", "daily", run_id, "reconcile", "differs")],
    }  # fmt: skip


def test_the_history_outlives_the_run_folders_and_follows_a_run_that_is_repeated(built: Built):
    histories = (
        "pipeline_runs", "pipeline_stages", "balance", "reconciliation", "reconciliation_differences", "check_history",
        "alerts",
    )  # fmt: skip

    def build(folder: str, *runs: dict[str, Rows], options: tuple[str, ...] = ()) -> dict[str, dict[str, int]]:
        run = pin(built.data, folder)
        tell(run, **{name: [row for each in runs for row in each[name]] for name in runs[0]})
        said = built.dbt("build", "--select", "path:models/operations", *options, run=run)
        assert "ERROR=0" in said
        counted = "select run_id, count(*) from {} group by 1"
        return {name: dict(built.ask(counted.format(name))) for name in histories}

    found = build("second", told("a", 3), told("b", 2))
    assert found["reconciliation_differences"] == {"a": 3, "b": 2}
    assert built.ask("select line_no, difference from balance where run_id = 'a' order by 1") == [(1, 1), (2, 1)]
    assert built.ask("select run_id, differences, unexplained from reconciliation order by 1") == [
        ("a", 3, 2),
        ("b", 2, 1),
    ]
    assert built.ask("select run_id, seconds, state from pipeline_runs order by 1") == [
        ("a", 41.5, "failed"),
        ("b", 41.5, "failed"),
    ]

    # The folder of a is gone; b was repeated, and nothing differs any more: all that it tells replaces what it told.
    found = build("third", told("b", 0, "published"), told("c", 1))
    assert found["reconciliation_differences"] == {"a": 3, "c": 1}
    assert found["pipeline_runs"] == found["reconciliation"] == found["alerts"] == {"a": 1, "b": 1, "c": 1}
    assert found["balance"] == found["pipeline_stages"] == found["check_history"] == {"a": 2, "b": 2, "c": 2}
    assert built.ask("select state from pipeline_runs where run_id = 'b'") == [("published",)]

    # What they tell is nowhere else, so that they are never made anew.
    found = build("fourth", told("d", 0), options=("--full-refresh",))
    assert found["pipeline_runs"] == {"a": 1, "b": 1, "c": 1, "d": 1}
