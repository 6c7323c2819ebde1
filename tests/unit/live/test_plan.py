"""Which models can be live views, and what the others are told."""

from typing import Any

import pytest

from ingest_service.errors import ViewRefused

S = '"db"."schema"."order_lines"'
SEED = '"db"."schema"."regions"'

REFUSED = [
    # the model's SQL, with $ for the source; a part of the message
    ("select country, count(*) from $ group by all having count(*) > 1", "1:79: HAVING cannot be kept"),
    ("select country, count(*) from $ group by all order by 2", "ORDER BY cannot be kept"),
    ("select country, count(*) from $ group by all limit 5", "LIMIT cannot be kept"),
    ("select country, count(*) from $ group by all offset 5", "OFFSET cannot be kept"),
    ("select country, count(*) from $ group by all qualify row_number() over () = 1", "QUALIFY cannot be kept"),
    ("select distinct country from $", "DISTINCT cannot be kept up to date.*write `group by all` instead"),
    ("select country, now() as t, count(*) from $ group by all", r"now\(\) cannot.*depends on when.*_append_time"),
    ("select current_date as d, count(*) from $ group by all", "current_date cannot"),
    ("select count(*) from $ where invoiced_at > current_timestamp", "current_timestamp cannot"),
    ("select count(*) from $ where random() < 0.5", r"random\(\) cannot"),
    ("select count(*) from $ where age(invoiced_at) < interval 1 day", "age.* cannot"),
    ("select uuid() as id, count(*) from $ group by all", r"uuid\(\) cannot"),
    ("select a.country, count(*) from $ a join $ b using (event_id) group by all", "reading a stream twice"),
    ("select a.country, count(*) from $ a, $ b group by all", "reading a stream twice"),
    (
        "select s.region, count(*) from @ s join $ o using (country) group by all",
        "joining a stream to a seed.*into FROM",
    ),
    (
        "select s.region, count(*) from $ o right join @ s using (country) group by all",
        "RIGHT JOIN.*stream on the left",
    ),
    ("select s.region, count(*) from $ o full join @ s using (country) group by all", "FULL JOIN"),
    ("select s.region, count(*) from $ o asof join @ s on o.quantity >= s.rank group by all", "ASOF JOIN"),
    ("select s.region, count(*) from $ o natural join @ s group by all", "NATURAL JOIN"),
    ("select region, count(*) from @ group by all", "a model without a stream"),
    ("select o._offset, o.invoiced_at, s.region from $ o join @ s using (country)", "may find several rows of s"),
    ("select first(region order by o._offset) from $ o join @ s on o.country = s.country", "several rows of s.*unique"),
    ("with c as (select country from $ group by all) select country, count(*) from c group by all", "grouping before"),
    ("select country, count(*), sum(count(*)) over () from $ group by all", "a window function cannot be kept"),
    ("select country,\n    sum(max(quantity))\nfrom $ group by all", "sales.sql:2:5: an aggregate in an aggregate"),
    ("select max(n) from (select count(*) as n from $ group by country)", "aggregating twice"),
    ("with c as (select country, count(*) n from $ group by all) select country from c", "aggregating twice"),
    ("select country, count(*) from $ group by all union all select 'x', 1 from $", "UNION cannot"),
    ("select country, median(quantity) from $ group by all", r"median\(quantity\).*only approx_count.*can be merged"),
    ("select string_agg(country) from $", "only approx_count_distinct, .*, sum, .* can be merged"),
    ("select any_value(country) from $", "only approx_count_distinct|this aggregate depends on the order"),
    ("select first(country) from $", r"rows that are equal in its order.*write first\(… order by …, _offset\)"),
    ("select last(country order by invoiced_at) from $", r"write last\(… order by …, _offset\)"),
    ("select arg_max(country, quantity) from $", r"write arg_max\(country, \(quantity, _offset\)\)"),
    ("select arg_min(country, (_offset, quantity)) from $", "any could be taken"),
    ("select arg_max(country, _offset, 3) from $", "takes 2 arguments here"),
    ("select approx_quantile(weight, 1.5) from $", r"DuckDB refuses its SQL: .*range \[0, 1\]"),
    ("select approx_quantile(weight, [0.5, 0.9]) from $", "for several one column each"),
    ("select approx_quantile(weight, 0.5) * 2 from $", "an expression over approx_quantile.*column of its own"),
    ("select sum(distinct quantity) from $", "only count, of one expression, can be merged"),
    ("select sum(quantity order by country) from $", "ORDER BY in an aggregate"),
    ("select country from $", "a view of events without _offset.*select _offset and invoiced_at as columns"),
    ("select _offset from $", "a view of events without invoiced_at"),
    ("select _offset + 1 as _offset, invoiced_at from $", "a view of events without _offset"),
    ("select * from $", "`\\*` in the select list"),
    ("select country, count(*) from $ group by rollup (country)", "ROLLUP cannot"),
    ("select count(*) from $ group by country", "grouping by country without showing it.*select list"),
    ("select country, count(*) from $ where country in (select country from $) group by all", "a subquery in an expr"),
    ("select unnest([country]) as c, count(*) from $ group by all", "UNNEST cannot"),
    ("select [country] as c, count(*) from $ group by all", r"VARCHAR\[\].*one plain value"),
    ("select count(distinct [country]) from $", r"VARCHAR\[\].*one plain value"),
    ("select count(*) from $ tablesample 10%", "SAMPLE cannot"),
    ("select count(*) from range(5)", "only a stream's rows arrive"),
    ("select count(*) from 'x.parquet'", "it is no stream's source"),
    (
        'select count(*) from "db"."schema"."stg_order_lines"',
        "no stream's source, and no seed; read db.schema.order_lines directly",
    ),
    ("select 1 as x", "a SELECT without FROM"),
    ("with recursive r as (select 1 as x from $) select count(*) from r", "WITH RECURSIVE"),
    ("select nope, count(*) from $ group by all", 'DuckDB refuses its SQL: Binder Error.*"nope" not found'),
    ("select country, quantity + count(*) from $ group by country", "must appear in the GROUP BY|beside aggregates"),
    ("select country, count(* from $", r"sales.sql:1:\d+: this SQL is not understood"),
    ("insert into x select 1", "anything but one SELECT"),
    ("select count(*) from $; select count(*) from $", "anything but one SELECT"),
]


@pytest.mark.parametrize(("sql", "message"), REFUSED)
def test_what_cannot_be_a_live_view_is_refused_with_place_and_reason(kit: Any, sql: str, message: str) -> None:
    with pytest.raises(ViewRefused, match=message) as caught:
        kit.plan(sql.replace("$", S).replace("@", SEED))
    assert str(caught.value).startswith("models/live/sales.sql")
    assert "\n" not in str(caught.value)


ACCEPTED = [
    # SQL; group columns; window column
    ("select country, count(*) from $ group by all", ("country",), ""),
    ("select country, count(*) from $ group by 1", ("country",), ""),
    ("select count(*) as n, country from $ group by country", ("country",), ""),
    ("select upper(country) as c, count(*) from $ group by c", ("c",), ""),
    ("select o.country, count(*) from $ as o where o.quantity > 0 group by o.country", ("country",), ""),
    ("select order_lines.country, count(*) from $ group by all", ("country",), ""),
    ("select count(*), sum(quantity) from $", (), ""),
    ("with a as (select * from $ where quantity > 0) select country, count(*) from a group by all", ("country",), ""),
    ("with a as (select country from $ group by all) select * from a", ("country",), ""),
    ("select * from (select country, count(*) as n from $ group by all)", ("country",), ""),
    ("select country as k, k || '!' as l, count(*) from $ where k > 'a' group by all", ("k", "l"), ""),
    ("select date_trunc('hour', invoiced_at) as h, count(*) from $ group by all", ("h",), "h"),
    ("select date_trunc('week', invoiced_at) as h, count(*) from $ group by all", ("h",), "h"),
    ("select time_bucket('5 minutes'::interval, invoiced_at) as w, count(*) from $ group by all", ("w",), "w"),
    ("select event_date, count(*) from $ group by all", ("event_date",), "event_date"),
    ("select country, invoiced_at::date as d, count(*) from $ group by all", ("country", "d"), "d"),
    ("select time_bucket(interval '1 minute', _append_time) as w, count(*) from $ group by all", ("w",), ""),
    ("select _offset, invoiced_at as at, quantity * unit_price as amount from $", ("_offset",), "at"),
    (
        "with a as (select * from $) select a.invoiced_at, a._offset from a where quantity > 5",
        ("_offset",),
        "invoiced_at",
    ),
    ("select s.region, count(*) from $ o left join @ s on o.country = s.country group by all", ("region",), ""),
    (
        "with r as (select * from @) select region, o.country, count(*) from $ o join r using (country) group by all",
        ("region", "country"),
        "",
    ),
    ("select country, count(*) from $ semi join @ using (country) group by all", ("country",), ""),
    ("select o._offset, o.invoiced_at from $ o semi join @ using (country)", ("_offset",), "invoiced_at"),
    (
        "select _offset, invoiced_at, region from $ o join @ s on o.country = s.country and o.customer_id = s.rank",
        ("_offset",),
        "invoiced_at",
    ),
    (
        (
            "with a as (select t.* from $ t) select (event_date) as d, first(country order by _offset) from a "
            "group by (event_date)"
        ),
        ("d",),
        "d",
    ),
    (
        (
            "select country, arg_max(customer_id, (invoiced_at, _offset)) as c, "
            "first(weight order by quantity desc, _offset) filter (where quantity > 0) as w from $ group by all"
        ),
        ("country",),
        "",
    ),
    ("select stddev(weight), var_pop(quantity), bool_and(quantity > 0), count_if(quantity > 0) from $", (), ""),
    ("select approx_count_distinct(customer_id), approx_quantile(weight, 0.95) from $", (), ""),
    (
        (
            "with a as (select invoiced_at as t, quantity from $), b as (select * from a) "
            "select date_trunc('day', t) as d, sum(quantity) from b group by all"
        ),
        ("d",),
        "d",
    ),
]


@pytest.mark.parametrize(("sql", "groups", "window"), ACCEPTED)
def test_what_can_be_a_live_view(kit: Any, sql: str, groups: tuple[str, ...], window: str) -> None:
    description = kit.plan(sql.replace("$", S).replace("@", SEED)).description
    assert description.group_columns == groups
    assert description.window_column == window
    assert description.stream == "order_lines"


@pytest.mark.parametrize(
    ("window", "fits"),
    [
        ("time_bucket(interval '1 minute', invoiced_at)", True),
        ("time_bucket(interval '24 hours', invoiced_at)", True),
        ("time_bucket(interval '250 milliseconds', invoiced_at)", True),
        ("time_bucket(interval '7 minutes', invoiced_at)", False),
        ("time_bucket(interval '2 days', invoiced_at)", False),
        ("time_bucket(interval '1 hour', invoiced_at, interval '30 minutes')", False),
        ("date_trunc('day', invoiced_at)", True),
        ("date_trunc('month', invoiced_at)", False),
        ("event_date", True),
        ("country", False),
    ],
)
def test_a_model_that_dbt_builds_by_day_needs_windows_inside_a_day(kit: Any, window: str, fits: bool) -> None:
    sql = f"select {window} as w, count(*) as n from {S} group by all"
    kit.plan(sql)
    if fits:
        kit.plan(sql, materialized="incremental")
        return
    with pytest.raises(ViewRefused, match="set materialized='table', or group by a window over invoiced_at"):
        kit.plan(sql, materialized="incremental")


def test_columns_have_the_models_types_and_say_how_exact_they_are(kit: Any) -> None:
    aggregates = "avg(quantity) as a, sum(weight) as w, sum(weight) / count(*) as r, sum(quantity) / count(*) as q"
    columns = kit.plan(kit.SALES.replace("count(distinct", f"{aggregates}, count(distinct")).description.columns
    assert [(c.name, c.type, c.relative_tolerance) for c in columns] == [
        ("window_start", "TIMESTAMP WITH TIME ZONE", 0.0),
        ("country", "VARCHAR", 0.0),
        ("lines", "BIGINT", 0.0),
        ("units", "HUGEINT", 0.0),
        ("revenue", "DECIMAL(38,3)", 0.0),
        ("a", "DOUBLE", 1e-9),
        ("w", "DOUBLE", 1e-9),
        ("r", "DOUBLE", 1e-9),
        ("q", "DOUBLE", 0.0),
        ("customers", "BIGINT", 0.0),
    ]


def test_equal_states_are_kept_once(kit: Any) -> None:
    sql = f"select sum(quantity), avg(quantity), sum(quantity) / count(quantity), count(Quantity) from {S}"
    assert kit.plan(sql).description.states == 2


def test_the_definition_hash_ignores_layout_and_sees_everything_else(kit: Any) -> None:
    def hash_of(sql: str) -> str:
        return str(kit.plan(sql).description.definition_hash)

    base = hash_of(kit.SALES)
    assert hash_of(kit.SALES.replace("\n", "  ").replace("COUNT", "count")) == base
    assert hash_of(kit.SALES.replace("from", "-- a comment\nFROM")) == base
    assert hash_of(kit.SALES.replace("<> 0", "> 0")) != base
    assert hash_of(kit.SALES.replace("as units", "as pieces")) != base
    kit.log = kit.ListLog(version=2)
    assert hash_of(kit.SALES) != base


def test_a_place_is_the_files_also_where_jinja_moved_the_line(kit: Any) -> None:
    from ingest_service.live.manifest import LiveModel
    from ingest_service.live.plan import plan_view

    compiled = f"\n\nselect country, count(*)\nfrom {S}\ngroup by all\norder by country\n"
    head = "{{ config(\n  tags=['live']) }}\n\n\n"
    raw = head + "select country, count(*)\nfrom {{ source() }}\ngroup by all\norder by country\n"
    model = LiveModel(
        "m", "models/m.sql", compiled, raw, "table", None, {("db", "schema", "order_lines"): "order_lines"}
    )
    with pytest.raises(ViewRefused, match=r"models/m\.sql:8:10: ORDER BY"):
        plan_view(model, {"order_lines": kit.log}, kit.duck)


def test_an_unknown_stream_is_named_with_the_known_ones(kit: Any) -> None:
    from ingest_service.live.plan import plan_view

    with pytest.raises(ViewRefused, match="the stream order_lines, which is unknown; the streams are: readings"):
        plan_view(kit.model(kit.SALES), {"readings": kit.log}, kit.duck)
