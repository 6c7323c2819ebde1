import random

import pytest

from quality.layers import OPERATIONS, Layers, selector
from quality.run import LAYERS

ALL = (*LAYERS, OPERATIONS)


def model(name: str, folder: str, *parents: str, tags: tuple[str, ...] = (), kind: str = "model") -> dict:
    return {
        "name": name, "resource_type": kind, "path": f"{folder}/{name}.sql", "fqn": ["p", *folder.split("/"), name],
        "depends_on": {"nodes": list(parents)}, "tags": list(tags), "schema": "main", "alias": name,
        "config": {"materialized": "table"},
    }  # fmt: skip


def check_of(name: str, *parents: str, kind: str = "test") -> dict:
    return {"name": name, "resource_type": kind, "fqn": ["p", name], "depends_on": {"nodes": list(parents)}}


NODES = {
    "seed.s": {**model("s", ""), "resource_type": "seed", "path": "s.csv"},
    "model.stg_a": model("stg_a", "staging", "source.a"),
    "model.stg_b": model("stg_b", "staging", "source.b"),
    "model.int_a": model("int_a", "intermediate", "model.stg_a"),
    "model.late_stg": model("late_stg", "staging/deep", "model.int_a"),
    "model.fct_a": model("fct_a", "marts", "model.int_a", "seed.s"),
    "model.fct_ab": model("fct_ab", "elsewhere", "model.fct_a", "model.stg_b"),
    "model.view_a": model("view_a", "live", "source.a", tags=("live",)),
    "model.over_live": model("over_live", "marts", "model.view_a"),
    "model.runs": model("runs", "operations", "source.runs"),
    "model.over_runs": model("over_runs", "marts", "model.runs"),
    "model.quarantine": model("quarantine", "marts", "source.quarantined"),
    "snapshot.kept": model("kept", "snapshots", "model.stg_b", kind="snapshot"),
    "test.stg_in_mart": check_of("stg_in_mart", "model.stg_a", "model.fct_a"),
    "test.source": check_of("source", "source.a"),
    "test.nothing": check_of("nothing"),
    "test.stg_b": check_of("stg_b_unique", "model.stg_b"),
    "analysis.x": {**model("x", ""), "resource_type": "analysis"},
}
SOURCES = {
    "source.a": {"meta": {"stream": "a"}},
    "source.b": {"config": {"meta": {"stream": "b"}}},
    "source.runs": {"meta": {"operations": "runs"}},
    "source.quarantined": {"meta": {"operations": "quarantined_rows"}},
}
UNIT = {"unit_test.fct_a.x": check_of("x", "model.fct_a", kind="unit_test")}
EVERYTHING = {(node["schema"], node["alias"]) for node in NODES.values() if "schema" in node}


def names(layers: Layers, layer: str, streams: tuple[str, ...] | None = None, existing: set = EVERYTHING) -> set[str]:
    return {node["name"] for node in layers.selected(layer, streams, existing)}


def test_each_model_is_in_its_folders_layer_or_in_that_of_what_it_reads():
    layers = Layers({"nodes": NODES, "sources": SOURCES, "unit_tests": UNIT})
    assert names(layers, "staging") == {"s", "stg_a", "stg_b", "source", "nothing", "stg_b_unique"}
    assert names(layers, "intermediate") == {"int_a", "late_stg"}
    assert names(layers, "marts") == {"fct_a", "fct_ab", "quarantine", "kept", "stg_in_mart", "x"}
    assert names(layers, "live") == {"view_a", "over_live"}
    assert names(layers, OPERATIONS) == {"runs", "over_runs"}
    assert selector(NODES["model.late_stg"]) == "fqn:p.staging.deep.late_stg"


def test_of_chosen_streams_only_what_reads_them_is_built_and_what_was_never_built():
    layers = Layers({"nodes": NODES, "sources": SOURCES, "unit_tests": UNIT})
    of_b = {layer: names(layers, layer, ("b",)) for layer in ALL}
    assert of_b == {
        "staging": {"s", "stg_b", "stg_b_unique"},
        "intermediate": set(),
        "marts": {"fct_ab", "quarantine", "kept"},
        "live": set(),
        # What is known of the runs is new in every run.
        "operations": {"runs", "over_runs"},
    }
    never = EVERYTHING - {("main", "int_a")}
    assert names(layers, "intermediate", ("b",), never) == {"int_a", "late_stg"}
    assert "fct_a" in names(layers, "marts", ("b",), never)


@pytest.mark.parametrize("seed", range(20))
def test_every_node_is_built_once_and_never_before_what_it_reads(seed: int):
    chance = random.Random(seed)
    nodes: dict[str, dict] = {}
    for number in range(60):
        parents = [name for name in nodes if name.startswith("model") and chance.random() < 0.1]
        if chance.random() < 0.4:
            nodes[f"test.{number}"] = check_of(str(number), *parents)
            continue
        tags = ("live",) if chance.random() < 0.2 else ()
        folder = chance.choice(["staging", "intermediate", "marts", "operations", "other"])
        nodes[f"model.{number}"] = model(str(number), folder, *parents, "source.a", tags=tags)
    # In any order of the file.
    shuffled = dict(chance.sample(list(nodes.items()), len(nodes)))
    layers = Layers({"nodes": shuffled, "sources": SOURCES})
    built: list[str] = []
    for layer in ALL:
        selected = {node["name"] for node in layers.selected(layer, None, set())}
        ready = {*built, *selected}
        for name in selected:
            node = next(each for each in nodes.values() if each["name"] == name)
            assert {parent.partition(".")[2] for parent in node["depends_on"]["nodes"] if "model" in parent} <= ready
        built += selected
    assert sorted(built) == sorted(node["name"] for node in nodes.values()), f"seed {seed}"
