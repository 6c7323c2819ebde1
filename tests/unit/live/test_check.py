"""Live models before they are put in force: what their views would be, or where and why they are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest_service.errors import ConfigError
from ingest_service.live.check import checked, main

PROTO = Path(__file__).parents[3] / "proto"


def lines(kit: Any, models: dict[str, str], *names: str, proto: Path = PROTO) -> dict[str, dict[str, Any]]:
    return {line["model"]: line for line in checked(kit.manifest(models), proto, names)}


def test_it_says_what_a_view_would_be(kit: Any) -> None:
    line = lines(kit, {"sales": kit.SALES})["sales"]
    assert "problem" not in line
    assert (line["stream"], line["group_columns"], line["window_column"]) == (
        "order_lines", ["window_start", "country"], "window_start",
    )  # fmt: skip
    told = {column["name"]: column for column in line["columns"]}
    assert told["country"]["in_grain"]
    assert (told["revenue"]["type"], told["revenue"]["compared"]) == ("DECIMAL(38,3)", "equal")


def test_it_says_how_exactly_each_column_is_compared(kit: Any) -> None:
    sql = f"""select country, avg(quantity) as a, var_pop(quantity) as v, approx_quantile(quantity, 0.5) as q,
        approx_count_distinct(customer_id) as d, count(*) as n from {kit.SOURCE} group by all"""
    told = {column["name"]: column["compared"] for column in lines(kit, {"m": sql})["m"]["columns"]}
    assert told["n"] == told["d"] == "equal"
    assert told["a"] == "within 1e-09, relative to batch"
    assert told["v"] == "within 1e-06, relative to batch"
    assert told["q"].startswith("between the exact quantiles 0.")


@pytest.mark.parametrize(
    ("sql", "line", "column", "why"),
    [
        ("select country,\n  median(quantity) as m\nfrom {source}\ngroup by 1", 2, 3, "median"),
        ("select country, count(*) as n\nfrom {source}\ngroup by 1\nhaving count(*) > 3", 4, 8, "HAVING"),
        ("select country, count(*) as n\nfrom {source}\ngroup by 1\norder by 1", 4, 10, "sort where the view is read"),
        ("select country, now() as t, count(*) as n\nfrom {source}\ngroup by all", 1, 17, "when it is asked"),
        ("select a.country\nfrom {source} as a\njoin {source} as b using (country)\ngroup by 1", 3, 6, "twice"),
    ],
)  # fmt: skip
def test_a_refusal_names_line_column_and_reason(kit: Any, sql: str, line: int, column: int, why: str) -> None:
    found = lines(kit, {"m": sql.format(source=kit.SOURCE)})["m"]
    assert found["file"] == "models/live/m.sql"
    assert (found["line"], found["column"], found["compiled"]) == (line, column, False)
    assert why in found["problem"]
    assert "models/live" not in found["problem"], "the place stands apart"


def test_a_place_in_the_compiled_sql_says_so(kit: Any) -> None:
    manifest = kit.manifest({"m": f"select country, median(quantity) as m\nfrom {kit.SOURCE} group by 1"})
    content = json.loads(manifest.read_text())
    content["nodes"]["model.p.m"]["raw_code"] = "select {{ columns() }}\nfrom {{ source('events', 'order_lines') }}"
    manifest.write_text(json.dumps(content))
    (line,) = checked(manifest, PROTO)
    assert (line["line"], line["column"], line["compiled"]) == (1, 17, True)
    assert "compiled SQL" not in line["problem"]


def test_a_problem_without_a_place_has_none(kit: Any) -> None:
    line = lines(kit, {"m": f"select no_such_column, count(*) as n from {kit.SOURCE} group by all"})["m"]
    assert (line["line"], line["column"]) == (None, None)
    assert "no_such_column" in line["problem"]


def test_names_that_clash_are_refused_whichever_are_asked_for(kit: Any) -> None:
    sql = f"select country, count(*) as n from {kit.SOURCE} group by all"
    found = lines(kit, {"a": sql, "a__state": sql}, "a__state")
    assert list(found) == ["a__state"]
    assert "clash" in found["a__state"]["problem"]


def test_a_wrong_contract_is_told_beside_the_models_that_need_it(kit: Any, tmp_path: Path) -> None:
    proto = tmp_path / "proto"
    proto.mkdir()
    (proto / "broken.proto").write_text('syntax = "proto3";\nmessage {')
    told = list(checked(kit.manifest({"sales": kit.SALES}), proto))
    assert told[0]["file"] == "broken.proto"
    assert "problem" in told[0]
    assert "reads the stream order_lines, which is unknown" in told[1]["problem"]


def test_an_unknown_model_is_an_error(kit: Any) -> None:
    with pytest.raises(ConfigError, match=r"no live model b; the live models are: a"):
        lines(kit, {"a": kit.SALES}, "b")


def test_the_command_says_a_line_a_model(kit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bad = f"select country, median(quantity) as m from {kit.SOURCE} group by 1"
    manifest = kit.manifest({"good": kit.SALES, "bad": bad})
    arguments = [f"--manifest={manifest}", f"--proto={PROTO}"]
    assert main(arguments) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["model"] for line in told] == ["bad", "good"]
    assert main([*arguments, "good"]) == 0
    assert main([f"--manifest={manifest}.missing", f"--proto={PROTO}"]) == 1
    assert "there is no dbt manifest" in capsys.readouterr().err
