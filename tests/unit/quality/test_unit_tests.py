"""When dbt's unit tests run at night: after anything has changed that they depend on."""

import copy
import json

import pytest

from quality import unit_tests
from quality.config import DayConfig

MANIFEST = {
    "nodes": {"model.a.b": {"raw_code": "select 1", "checksum": {"checksum": "x"}, "columns": {}, "created_at": 1}},
    "sources": {"source.a.b": {"columns": {"id": {"data_type": "BIGINT"}}}},
    "macros": {"macro.a.b": {"macro_sql": "true", "created_at": 1}},
    "unit_tests": {"unit_test.a.b": {"given": [], "expect": {"rows": []}, "model": "b"}},
}


def test_what_passed_is_remembered_layer_by_layer(config: DayConfig):
    project = unit_tests.digest(MANIFEST)
    assert not unit_tests.have_passed(config, "marts", project)
    unit_tests.keep_passed(config, "marts", project)
    assert unit_tests.have_passed(config, "marts", project)
    assert not unit_tests.have_passed(config, "live", project)
    unit_tests.keep_passed(config, "live", project)
    assert unit_tests.have_passed(config, "marts", project)


@pytest.mark.parametrize("kind", ["nodes", "sources", "macros", "unit_tests"])
def test_whatever_changes_they_run_again(kind: str):
    changed = copy.deepcopy(MANIFEST)
    (described,) = changed[kind].values()
    described[next(iter(described))] = "another"
    assert unit_tests.digest(changed) != unit_tests.digest(MANIFEST)
    assert unit_tests.digest(MANIFEST, "vars: {days: 30}") != unit_tests.digest(MANIFEST, "vars: {days: 7}")


def test_the_time_of_a_parse_changes_nothing():
    again = copy.deepcopy(MANIFEST)
    again["nodes"]["model.a.b"]["created_at"] = 2
    assert unit_tests.digest(again) == unit_tests.digest(MANIFEST)


def test_a_broken_file_counts_as_none(config: DayConfig):
    unit_tests.keep_passed(config, "marts", "x")
    (config.runs / "unit_tests.json").write_text("[")
    assert not unit_tests.have_passed(config, "marts", "x")
    unit_tests.keep_passed(config, "marts", "x")
    assert json.loads((config.runs / "unit_tests.json").read_text()) == {"marts": "x"}
