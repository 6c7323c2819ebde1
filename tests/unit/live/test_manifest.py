import json
from pathlib import Path
from typing import Any

import pytest

from ingest_service.errors import ConfigError
from ingest_service.live.manifest import read_manifest


def write(path: Path, nodes: dict[str, Any], sources: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"nodes": nodes, "sources": sources}))
    return path


def model(name: str, **fields: Any) -> dict[str, Any]:
    node = {"resource_type": "model", "name": name, "tags": ["live"], "compiled_code": "select 1", "config": {}}
    return node | {"original_file_path": f"models/live/{name}.sql", "raw_code": "select 1"} | fields


def test_only_live_models_are_read_by_name(tmp_path: Path) -> None:
    nodes = {
        "b": model("b"),
        "a": model("a", config={"materialized": "incremental", "incremental_strategy": "microbatch"}),
        "nightly": model("nightly", tags=["nightly"]),
        "test": model("test", resource_type="test"),
        "by_config": model("c", tags=[], config={"tags": "live"}),
    }
    found = read_manifest(write(tmp_path / "m.json", nodes, {}))
    assert [(m.name, m.path, m.materialized) for m in found] == [
        ("a", "models/live/a.sql", "incremental"),
        ("b", "models/live/b.sql", "view"),
        ("c", "models/live/c.sql", "view"),
    ]


def test_a_source_is_the_stream_that_its_meta_names_or_else_its_table(tmp_path: Path) -> None:
    sources = {
        "1": {"name": "order_lines", "relation_name": '"DB"."Events"."order_lines"', "meta": {}},
        "2": {"name": "t", "relation_name": '"db"."events"."t"', "meta": {"stream": "requests"}},
        "3": {"name": "u", "relation_name": '"db"."events"."u"', "config": {"meta": {"stream": "readings"}}},
        "4": {"name": "file", "relation_name": "read_parquet('x.parquet')"},
        "5": {"name": "path", "relation_name": "'x.parquet'"},
    }
    (found,) = read_manifest(write(tmp_path / "m.json", {"a": model("a")}, sources))
    assert {k: v for k, v in found.streams.items() if len(k) == 3} == {
        ("db", "events", "order_lines"): "order_lines",
        ("db", "events", "t"): "requests",
        ("db", "events", "u"): "readings",
    }


def test_a_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no dbt manifest at .*m\.json.*dbt compile.*tidemill up"):
        read_manifest(tmp_path / "m.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nodes": 1}'])
def test_what_is_no_manifest_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ConfigError, match="dbt compile") as caught:
        read_manifest(tmp_path / "m.json")
    assert "\n" not in str(caught.value)


def test_a_manifest_without_compiled_sql_names_the_models(tmp_path: Path) -> None:
    nodes = {"a": model("a", compiled_code=None), "b": model("b")}
    with pytest.raises(ConfigError, match="no compiled SQL for a: dbt run and dbt build strip it"):
        read_manifest(write(tmp_path / "m.json", nodes, {}))
