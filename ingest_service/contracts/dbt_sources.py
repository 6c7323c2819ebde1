"""A contract as a dbt source: its comments become the descriptions that the dbt docs show, its rules the columns' meta.

What the rules say is in `field_rules`; the day checks the rows in the lake by them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.field_rules import RULE_NAMES, field_rules, message_rules
from ingest_service.log.records import SYSTEM_COLUMNS

HEADER = "# Generated from {file} by `make proto` (python -m ingest_service.contracts.codegen). Do not edit."
SOURCE = "events"
"""The dbt source that all streams are tables of: dbt merges files that declare different tables of one source."""
PLUGIN = "lake"
"""Alias of the dbt-duckdb plugin (`tidemill/dbt_plugin.py`) that finds a stream's rows."""

_SYSTEM_DOCS = {
    "_partition": "The partition of the stream that took the row; the embedded log has one, 0.",
    "_offset": "The row's number in its partition, from 0, without gaps, in the order acknowledged.",
    "_append_time": "When the log took the row.",
    "event_date": "The UTC date of {event_time}; the lake is divided by it.",
}
_DUCKDB_TYPES = {
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP WITH TIME ZONE",
}


def dbt_source(contract: Contract) -> str:
    """The text of `dbt_project/models/sources/<stream>.yml`.

    Strings are written as JSON, which is YAML: nothing in a comment can break the file.
    """
    lines = [
        HEADER.format(file=f"proto/{contract.file}"),
        "version: 2",
        "",
        "sources:",
        f"  - name: {SOURCE}",
        "    tables:",
        f"      - name: {contract.stream}",
        f"        description: {_text(contract.doc)}",
        "        config:",
        f"          event_time: {contract.event_time}",
        # `dbt source freshness`: when the newest row arrived.
        "          loaded_at_field: _append_time",
        "          meta:",
        f"            plugin: {PLUGIN}",
        f"            stream: {contract.stream}",
        f"            contract_version: {contract.version}",
    ]
    of_message, of_fields = message_rules(contract), field_rules(contract)
    if of_message:
        lines.append(f"            rules: {_flow(of_message)}")
    lines.append("        columns:")
    for column in contract.columns:
        lines += _column(column.name, column.type, _description(column))
        meta = ["personal: true"] if column.personal else []
        if column.name in of_fields:
            meta.append(f"rules: {_flow(of_fields[column.name])}")
        if meta:
            lines += ["            config:", "              meta:", *(f"                {line}" for line in meta)]
    for field in SYSTEM_COLUMNS:
        lines += _column(field.name, field.type, _SYSTEM_DOCS[field.name].format(event_time=contract.event_time))
    return "\n".join(lines) + "\n"


def duckdb_type(arrow: pa.DataType) -> str:
    """The DuckDB type that reads this column from the lake."""
    if pt.is_list(arrow):
        return f"{duckdb_type(arrow.value_type)}[]"
    if pt.is_map(arrow):
        return f"MAP({duckdb_type(arrow.key_type)}, {duckdb_type(arrow.item_type)})"
    if pt.is_struct(arrow):
        return f"STRUCT({', '.join(f'{_name(each.name)} {duckdb_type(each.type)}' for each in arrow)})"
    if pt.is_decimal(arrow):
        return f"DECIMAL({arrow.precision},{arrow.scale})"
    return _DUCKDB_TYPES[arrow]


def _column(name: str, arrow: pa.DataType, description: str) -> list[str]:
    return [
        f"          - name: {name}",
        f"            data_type: {duckdb_type(arrow)}",
        f"            description: {_text(description)}",
    ]


def _name(name: str) -> str:
    """A struct's field, quoted: it may be a word of SQL. protobuf's names have no quotes in them."""
    return f'"{name}"'


def _description(column: Column) -> str:
    text = column.doc or f"{column.name} of the event; the contract has no comment on it."
    return f"{text} In microseconds." if column.is_duration else text


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _flow(rules: Mapping[str, Any]) -> str:
    """Rules in one line, for people to read: `{not_null: true, gte: 0}`; texts as JSON."""
    return f"{{{', '.join(f'{name}: {_value(value)}' for name, value in rules.items())}}}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return _flow({_key(name): each for name, each in value.items()})
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _key(name: str) -> str:
    """A field's name, which may be a word of YAML: "on", "null"."""
    return name if name in RULE_NAMES else _text(name)
