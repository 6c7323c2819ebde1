"""Which models, seeds and tests dbt builds in which layer; from its manifest, so that each is built exactly once.

A model's layer is its folder (`models/staging`, `models/intermediate`, `models/operations`), or `live` by its tag; any
other is a mart. A model that reads one of a later layer moves up to it, and a test runs with the last model it reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from quality.run import LAYERS

OPERATIONS = "operations"
"""The layer that is built when a run is published: what is known of the runs."""
_ORDER = (*LAYERS, OPERATIONS)
_BUILT = ("model", "seed", "snapshot")
_MART = "marts"

Node = Mapping[str, Any]


class Layers:
    """The nodes of one manifest, by layer. Immutable."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        """Take dbt's manifest.json."""
        built = (*_BUILT, "test")
        self._nodes: dict[str, Node] = {
            name: node for name, node in manifest["nodes"].items() if node["resource_type"] in built
        }
        self._nodes.update(manifest.get("unit_tests", {}))
        self._sources: Mapping[str, Node] = manifest["sources"]
        self._layer: dict[str, int] = {}
        for name in self._nodes:
            self._place(name)

    def selected(
        self, layer: str, streams: Collection[str] | None, existing: Collection[tuple[str, str]]
    ) -> list[Node]:
        """Give what is built in a layer.

        streams: only what reads one of these, or what is in no table of `existing` (schema and name) yet. None: all.
        """
        wanted = [name for name in self._nodes if self._layer[name] == _ORDER.index(layer)]
        if streams is not None:
            chosen = self._chosen(set(streams), set(existing))
            wanted = [name for name in wanted if name in chosen or not self._built_parents(name).isdisjoint(chosen)]
        return [self._nodes[name] for name in sorted(wanted)]

    def _place(self, name: str) -> int:
        """Find a node's layer: its own, or the last one of what it reads."""
        if name not in self._layer:
            parents = [self._place(parent) for parent in self._parents(name) if parent in self._nodes]
            self._layer[name] = max([_ORDER.index(_own_layer(self._nodes[name])), *parents])
        return self._layer[name]

    def _parents(self, name: str) -> Iterator[str]:
        yield from self._nodes[name].get("depends_on", {}).get("nodes", [])

    def _built_parents(self, name: str) -> set[str]:
        """Give what a test reads; nothing for what is built."""
        if self._nodes[name]["resource_type"] in _BUILT:
            return set()
        return {parent for parent in self._parents(name) if parent in self._nodes}

    def _chosen(self, streams: set[str], existing: set[tuple[str, str]]) -> set[str]:
        """Give what reads one of the streams, directly or not, what is in no table yet, and all seeds."""
        chosen: set[str] = set()
        added = True
        while added:
            added = False
            for name in self._nodes:
                if name not in chosen and self._is_chosen(name, chosen, streams, existing):
                    chosen.add(name)
                    added = True
        return chosen

    def _is_chosen(self, name: str, chosen: set[str], streams: set[str], existing: set[tuple[str, str]]) -> bool:
        """Whether it is chosen, given what is by now."""
        node = self._nodes[name]
        parents = list(self._parents(name))
        if any(parent in self._sources and self._reads(parent, streams) for parent in parents):
            return True
        if node["resource_type"] not in _BUILT:
            return False
        # A seed is loaded in every run: that it was is no reason to build what reads it.
        if any(parent in chosen and self._nodes[parent]["resource_type"] != "seed" for parent in parents):
            return True
        is_missing = (node["schema"], node.get("alias") or node["name"]) not in existing
        return node["resource_type"] == "seed" or (is_missing and node["config"].get("materialized") != "ephemeral")

    def _reads(self, source: str, streams: set[str]) -> bool:
        """Whether a source is of one of the streams, or of what is known of the runs: that is new in every run."""
        node = self._sources[source]
        meta = {**node.get("meta", {}), **node.get("config", {}).get("meta", {})}
        return "operations" in meta or meta.get("stream") in streams


def selector(node: Node) -> str:
    """Give the text by which dbt selects exactly this node."""
    return "fqn:" + ".".join(node["fqn"])


def _own_layer(node: Node) -> str:
    if node["resource_type"] not in ("model", "snapshot"):
        return LAYERS[0]
    if "live" in node.get("tags", []):
        return "live"
    folder = str(node["path"]).replace("\\", "/").partition("/")[0]
    return folder if folder in ("staging", "intermediate", OPERATIONS) else _MART
