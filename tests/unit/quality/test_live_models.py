import json
from pathlib import Path
from typing import Any

import pytest

from quality.config import DayConfig
from quality.errors import ModelFailed, RunWrong
from quality.live_models import LiveModel, applied_seeds, keep_live_models, load_live_models
from quality.run import Run
from tidemill import ViewStatus

SQL = 'select customer, count(*) as n\nfrom "w"."events"."payments" -- all\ngroup by customer'


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest as `dbt compile --select tag:live` writes it: a live model with a seed, and another model."""
    (tmp_path / "regions.csv").write_bytes(b"country,region\r\nFrance,Europe\r\n")
    base = {"config": {"materialized": "table"}, "schema": "main", "alias": None, "original_file_path": "x.sql"}

    def node(name: str, kind: str = "model", **fields: Any) -> dict[str, Any]:
        return {**base, "name": name, "resource_type": kind, "tags": [], "depends_on": {"nodes": []}, **fields}

    nodes = {
        "model.p.by_customer": node(
            "by_customer", tags=["live"], compiled_code=SQL, depends_on={"nodes": ["seed.p.regions"]}
        ),
        "model.p.by_day": node(
            "other", alias="by_day", tags=["live"], compiled_code=SQL, config={"materialized": "incremental"}
        ),
        "model.p.marts": node("marts", compiled_code=SQL),
        "seed.p.regions": node(
            "regions", "seed", schema="raw", root_path=str(tmp_path), original_file_path="regions.csv", depends_on={}
        ),
    }
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({"metadata": {}, "nodes": nodes, "sources": {}}))
    return file


def status(sql: str) -> ViewStatus:
    return ViewStatus("by_customer", "payments", 0, 0, 0, (), "", "", "", (), sql=sql)


def test_the_live_models_of_a_build_are_kept(config: DayConfig, run: Run, manifest: Path):
    keep_live_models(config, run, manifest)
    models = load_live_models(config, run)
    text = "country,region\r\nFrance,Europe\r\n"
    assert models == {
        "by_customer": LiveModel(
            "by_customer",
            'work."main"."by_customer"',
            SQL,
            False,
            {"regions": text},
            {"regions": 'work."raw"."regions"'},
        ),
        "by_day": LiveModel("by_day", 'work."main"."by_day"', SQL, True, {}, {}),
    }


def test_a_run_that_kept_none_must_build_again(config: DayConfig, run: Run):
    with pytest.raises(RunWrong, match="Run build again"):
        load_live_models(config, run)


def test_a_seed_that_cannot_travel_fails_the_build(config: DayConfig, run: Run, manifest: Path, tmp_path: Path):
    (tmp_path / "regions.csv").write_bytes(b"country\n\xff\n")
    with pytest.raises(ModelFailed, match=r"regions.*not UTF-8"):
        keep_live_models(config, run, manifest)


@pytest.mark.parametrize(
    ("sql", "same"),
    [
        (SQL, True),
        ("", True),
        ('SELECT customer, COUNT(*) AS n FROM "w"."events"."payments" GROUP BY customer', True),
        (SQL.replace('"w"', '"scratch"'), True),
        (SQL.replace("count(*)", "sum(amount)"), False),
        (SQL.replace('"events"', '"raw"'), False),
        (SQL.replace('"payments"', '"others"'), False),
        ("select from from", False),
    ],
)
def test_a_definition_is_compared_apart_from_its_layout(
    config: DayConfig, run: Run, manifest: Path, sql: str, same: bool
):
    keep_live_models(config, run, manifest)
    assert load_live_models(config, run)["by_day"].is_defined_as(status(sql), {}) is same


def test_a_seed_that_the_service_has_otherwise_is_another_definition(config: DayConfig, run: Run, manifest: Path):
    keep_live_models(config, run, manifest)
    model = load_live_models(config, run)["by_customer"]
    # A service elsewhere: what it has is not known.
    assert applied_seeds(config) == {}
    assert model.is_defined_as(status(SQL), applied_seeds(config))
    for text, same in (("country,region\r\nFrance,Europe\r\n", True), ("country,region\nFrance,Europe\n", False)):
        seed = {"name": "regions", "resource_type": "seed", "tidemill_content": text}
        file = config.data / "live" / "manifest.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"nodes": {"seed.p.regions": seed, "model.p.x": {"name": "x"}}}))
        assert model.is_defined_as(status(SQL), applied_seeds(config)) is same
    file.write_text("no json")
    assert applied_seeds(config) == {}
