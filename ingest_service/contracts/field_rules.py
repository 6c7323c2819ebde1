"""A contract's rules in a neutral form, for those who check stored rows: the generated dbt sources carry them.

A field's rules are a mapping of

    not_null            the row has a value                    not_zero       it is not its type's zero, nor empty
    zero_passes         a zero keeps every other rule          gt gte lt lte  bounds; if the lower one lies above the
    in, not_in          lists of values                                       upper one, the values between are excluded
    finite              neither infinite nor NaN               min_len max_len min_bytes max_bytes     of text and bytes
    pattern             a regular expression of RE2's syntax   prefix suffix contains not_contains     of text
    min_items max_items unique_items                           of lists; of maps the number of pairs
    unique          no other row has the value (the event id)
    items keys values   rules of each element                  fields         rules of a message's fields, by name

Times are texts in UTC, durations whole microseconds. Stored times have whole microseconds: their bounds are a
microsecond wider than the contract's. A row that the contract lets in keeps them all; what has no such form (CEL, many
formats, rules about now) is listed in `not_checked`, by the rule's name.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts.contract import Column, Contract, extension
from ingest_service.contracts.field_column import is_map, message_within
from ingest_service.contracts.formats import FORMATS
from ingest_service.contracts.portable_pattern import is_portable

NOT_CHECKED = "not_checked"
_IGNORE_ALWAYS = 3
_PLAIN = frozenset({"required", "ignore"})
_NOT_A_RULE = frozenset({"example"})
_NUMBERS = frozenset(
    {"float", "double", *(f"{sign}{bits}" for sign in ("int", "uint", "sint", "fixed", "sfixed") for bits in (32, 64))}
)
_BOUNDS = frozenset({"gt", "gte", "lt", "lte"})
_LENGTHS = {
    "min_len": ("min_len",),
    "max_len": ("max_len",),
    "len": ("min_len", "max_len"),
    "min_bytes": ("min_bytes",),
    "max_bytes": ("max_bytes",),
    "len_bytes": ("min_bytes", "max_bytes"),
}
_TEXTS = frozenset({"prefix", "suffix", "contains", "not_contains"})
_EXACT_FORMATS = frozenset({"uuid", "tuuid", "ulid"})
"""The formats whose expression is the whole rule; the others' match a part of what the rule lets pass."""
_LONGEST_US = 315_576_000_000 * 1_000_000
_YEAR_10000_S = 253_402_300_800
_YEAR_1_S = -62_135_596_800

RULE_NAMES = frozenset(
    {
        *_BOUNDS, *_TEXTS, "not_null", "not_zero", "zero_passes", "in", "not_in", "finite", "pattern",
        "min_len", "max_len", "min_bytes", "max_bytes", "min_items", "max_items", "unique_items", "unique",
        "items", "keys", "values", "fields", "required", "oneofs", NOT_CHECKED,
    }
)  # fmt: skip
"""All that rules are called; none of them is a word of YAML."""

Rules = dict[str, Any]


def field_rules(contract: Contract) -> dict[str, Rules]:
    """Give each column's rules, for the columns that have any."""
    descriptor = contract.descriptor()
    found = {}
    for column in contract.columns:
        rules = _rules_of(descriptor.fields_by_name[column.name], column)
        if column.name == contract.event_time or not column.nullable:
            rules = {"not_null": True, **rules}
        if column.name == contract.event_id:
            rules = {**rules, "min_len": max(rules.get("min_len", 0), 1), "unique": True}
        if rules:
            found[column.name] = rules
    return found


def message_rules(contract: Contract) -> Rules:
    """Give the rules about several fields together: `oneofs`, fields of which one has a value, or one at most.

    What has no neutral form is in `not_checked`.
    """
    descriptor = contract.descriptor()
    oneofs, left_out = [], []
    for oneof in descriptor.oneofs:
        names = [field.name for field in oneof.fields]
        rules = extension(oneof, "buf.validate.oneof")
        required = rules is not None and bool(rules.required)
        if len(names) > 1 or (required and not names[0].startswith("_")):
            oneofs.append({"fields": names, "required": required})
    rules = extension(descriptor, "buf.validate.message")
    if rules is not None:
        left_out += [_cel_name(each) for each in rules.cel]
        left_out += [
            f"{field.name}: {value}".replace("\n", " ") for field, value in rules.ListFields() if field.name != "cel"
        ]
    found: Rules = {"oneofs": oneofs} if oneofs else {}
    return {**found, NOT_CHECKED: left_out} if left_out else found


def _rules_of(field: FieldDescriptor, column: Column) -> Rules:
    """The rules of a field, and of what is within it."""
    rules = extension(field, "buf.validate.field")
    if rules is not None and rules.ignore == _IGNORE_ALWAYS:
        return {}
    found = _one(rules, field, column, many=field.is_repeated) if rules is not None else {}
    if field.is_repeated:
        _merge(found, _elements(rules, field, column))
    else:
        _merge(found, _within(field, column))
    if rules is not None and rules.required:
        found["not_null" if field.has_presence else "not_zero"] = True
    # Where presence is tracked, what is unset is ignored, not a zero that is set.
    if rules is not None and rules.ignore and not field.has_presence and found.keys() - {"not_zero", NOT_CHECKED}:
        found["zero_passes"] = True
    return found


def _one(rules: Any, field: FieldDescriptor, column: Column, *, many: bool = False) -> Rules:
    """The rules that are given for one value, or for a list or map as a whole."""
    found: Rules = {}
    left_out: list[str] = []
    kind = rules.WhichOneof("type")
    for each, value in rules.ListFields():
        if each.name == kind and not each.is_extension:
            continue
        if each.name == "cel":
            left_out += [_cel_name(one) for one in value]
        elif each.name not in _PLAIN:
            left_out.append(each.name)
    if kind is not None:
        for each, value in getattr(rules, kind).ListFields():
            if each.name in _NOT_A_RULE:
                continue
            neutral = None if each.is_extension else _neutral(kind, each.name, value, field, column, many)
            if neutral is None:
                left_out.append(f"{kind}.{each.name}")
            else:
                _merge(found, neutral)
    if kind in ("timestamp", "duration") and found.keys() >= {"gte", "lte"} and _is_excluded(getattr(rules, kind)):
        # Bounds that are a microsecond wider may meet, and would mean the contrary then.
        left_out.append(f"{kind}: all but between two bounds")
        found = {}
    if left_out:
        found[NOT_CHECKED] = left_out
    return found


def _is_excluded(typed: Any) -> bool:
    """Whether the lower bound lies above the upper one."""
    lower, upper = (
        next(getattr(typed, name) for name in names if typed.HasField(name)) for names in (("gt", "gte"), ("lt", "lte"))
    )
    return bool(lower.ToNanoseconds() > upper.ToNanoseconds())


def _neutral(kind: str, name: str, value: Any, field: FieldDescriptor, column: Column, many: bool) -> Rules | None:
    """One rule in neutral form; {} where it says nothing, None where it has no such form."""
    found: Rules | None = None
    if many:
        found = _of_many(kind, name, value)
    elif column.is_decimal:
        # Its text is gone: the column has the number.
        found = None
    elif kind in _NUMBERS or kind == "enum":
        found = _of_number(name, value, field)
    elif kind == "bool" and name == "const":
        found = {"in": [value]}
    elif kind == "string":
        found = _of_text(name, value)
    elif kind == "bytes" and name in _LENGTHS:
        found = dict.fromkeys((each.replace("len", "bytes") for each in _LENGTHS[name]), value)
    elif kind == "timestamp" and name in _BOUNDS:
        found = _of_time(name, value)
    elif kind == "duration" and name in _BOUNDS:
        found = {f"{name[:2]}e": value.ToNanoseconds() // 1000 + (-1 if name in ("gt", "gte") else 1)}
    return found


def _of_many(kind: str, name: str, value: Any) -> Rules | None:
    if kind == "repeated" and name == "unique":
        return {"unique_items": True} if value else {}
    counts = {"min_items": "min_items", "max_items": "max_items", "min_pairs": "min_items", "max_pairs": "max_items"}
    if name in counts:
        return {counts[name]: value}
    return {} if name in ("items", "keys", "values") else None


def _of_number(name: str, value: Any, field: FieldDescriptor) -> Rules | None:
    if name == "defined_only" and field.enum_type is not None:
        return {"in": sorted(field.enum_type.values_by_number)} if value else {}
    if name == "finite":
        return {"finite": True} if value else {}
    values = list(value) if name in ("in", "not_in") else [value]
    if any(isinstance(each, float) and not math.isfinite(each) for each in values):
        return None
    if name in ("in", "not_in"):
        return {name: values}
    if name == "const":
        return {"in": values}
    return {name: value} if name in _BOUNDS else None


def _of_text(name: str, value: Any) -> Rules | None:
    if name in _LENGTHS:
        return dict.fromkeys(_LENGTHS[name], value)
    if name in _TEXTS:
        return {name: value}
    if name in ("const", "in", "not_in"):
        return {"in": [value]} if name == "const" else {name: list(value)}
    pattern = (
        stored_pattern(value) if name == "pattern" else FORMATS[name] if name in _EXACT_FORMATS and value else None
    )
    if pattern is not None:
        return {"pattern": pattern}
    # A format that is set to false asks for nothing.
    return {} if value is False else None


def stored_pattern(pattern: str) -> str | None:
    """A pattern that RE2 finds in every text that the rule's own engine finds it in; None where that cannot be told.

    To RE2 `\\d` and `\\s` are ASCII, to others all of Unicode: they are spelt out.
    """
    if not is_portable(pattern):
        return None
    text, position, in_class = "", 0, False
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            escaped = pattern[position + 1]
            if escaped == "w":
                return None
            members = {"d": r"\p{Nd}", "s": r"\t\n\v\f\r\x{85}\p{Z}"}.get(escaped)
            text += f"\\{escaped}" if members is None else members if in_class else f"[{members}]"
            position += 2
            continue
        in_class = char == "[" or (in_class and char != "]")
        text += char
        position += 1
    return text


def _of_time(name: str, value: Any) -> Rules | None:
    if not _YEAR_1_S < value.seconds < _YEAR_10000_S - 1:
        return None
    slack_us = -1 if name in ("gt", "gte") else 1
    moment = dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=value.ToNanoseconds() // 1000 + slack_us)  # noqa: DTZ001
    return {f"{name[:2]}e": f"{moment.isoformat(sep=' ')}+00"}


def _within(field: FieldDescriptor, column: Column) -> Rules:
    """The rules of a message's fields, and Tidemill's own about a value."""
    if column.is_duration:
        return {"gte": -_LONGEST_US, "lte": _LONGEST_US}
    inner = message_within(field)
    if inner is None or not column.children:
        return {}
    return _of_fields(inner, column)


def _of_fields(message: Descriptor, column: Column) -> Rules:
    found: Rules = {}
    fields = {}
    for child in column.children:
        rules = _rules_of(message.fields_by_name[child.name], child)
        if rules:
            fields[child.name] = rules
    if fields:
        found["fields"] = fields
    if extension(message, "buf.validate.message") is not None:
        found[NOT_CHECKED] = [f"rules of the message {message.full_name}"]
    required = [
        each.name for each in message.oneofs if getattr(extension(each, "buf.validate.oneof"), "required", False)
    ]
    if required:
        found.setdefault(NOT_CHECKED, []).extend(f"oneof {name} is set" for name in required)
    return found


def _elements(rules: Any, field: FieldDescriptor, column: Column) -> Rules:
    """The rules of each element of a list, of each key and value of a map."""
    found: Rules = {}
    for name, part, child in _parts(field, column):
        kind = "map" if is_map(field) else "repeated"
        typed = getattr(rules, kind) if rules is not None and rules.WhichOneof("type") == kind else None
        own = getattr(typed, name) if typed is not None and typed.HasField(name) else None
        if own is not None and own.ignore == _IGNORE_ALWAYS:
            continue
        each = _one(own, part, child) if own is not None else {}
        _merge(each, _within(part, child))
        if own is not None and own.required:
            each["not_zero"] = True
        if own is not None and own.ignore and each:
            each["zero_passes"] = True
        if each:
            found[name] = each
    return found


def _parts(field: FieldDescriptor, column: Column) -> Iterator[tuple[str, FieldDescriptor, Column]]:
    if not is_map(field):
        yield "items", field, column.children[0]
        return
    assert field.message_type is not None
    entry = field.message_type.fields_by_name
    for child in column.children:
        yield f"{child.name}s", entry[child.name], child


def _merge(rules: Rules, more: Rules) -> None:
    """Add rules to others: of two bounds the narrower one holds, what is not checked is listed together."""
    for name, value in more.items():
        if name == NOT_CHECKED:
            rules[name] = [*rules.get(name, []), *value]
        elif name in rules and name in ("gt", "gte", "min_len", "min_items", "min_bytes"):
            rules[name] = max(rules[name], value)
        elif name in rules and name in ("lt", "lte", "max_len", "max_items", "max_bytes"):
            rules[name] = min(rules[name], value)
        else:
            rules[name] = value


def _cel_name(rule: Any) -> str:
    return f"cel: {rule.id or rule.message or rule.expression}".replace("\n", " ")
