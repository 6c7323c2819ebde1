"""For every kind of rule in buf.validate, and wherever it may stand: both ways in give protovalidate's own verdict.

Contracts are made and compiled at run time. Each has one rule; its rows are drawn from values that keep it, values
that break it, and others at random.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import protovalidate
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts import Contract, Intake, judge, load_contracts, rules
from ingest_service.contracts.contract import extension, message_class, private_pool
from ingest_service.contracts.field_column import is_map
from tests.unit.contracts.rule_kinds import FLOATS, INTEGERS, NO_VALUE, Rule
from tests.unit.contracts.rule_kinds import rules as all_rules

SEED = random.SystemRandom().randrange(2**32)
ROWS = 120
"""So many that kernels are used; every row is also judged among a few, where they are not."""
FEW = 30
WRAPPERS = {
    "int64": "Int64Value", "uint64": "UInt64Value", "int32": "Int32Value", "uint32": "UInt32Value",
    "float": "FloatValue", "double": "DoubleValue", "bool": "BoolValue", "string": "StringValue", "bytes": "BytesValue",
}  # fmt: skip
PLACES = ["optional", "oneof", "wrapper", "repeated", "map", "nested", "deep"]
"""Where a rule may stand beside a plain field."""
COMMON = {
    *("required", "len", "min_len", "max_len", "len_bytes", "min_bytes", "max_bytes", "pattern", "in", "not_in"),
    *("const", "lt", "lte", "gt", "gte", "defined_only", "finite", "lt_now", "gt_now", "within", "min_items"),
    *("max_items", "min_pairs", "max_pairs", "items", "keys", "values", "uuid", "tuuid", "ulid", "prefix", "suffix"),
    *("contains", "not_contains", "repeated", "map", "timestamp", "string", "bool", "enum", "duration", "seconds"),
    *("nanos", *INTEGERS, *FLOATS),
}
"""Rules that valid rows keep without protovalidate's being asked, and what is written around them."""
NOT_AT_ONCE = re.compile(r"\\\\D|\[rule|(timestamp|duration): { (const|in|not_in)")
"""Those that are about nanoseconds, which rows don't have, that mean more to one engine than to another, or are CEL."""


@dataclass(frozen=True)
class Case:
    """A rule at a place; `declared` is the field `n`, `helpers` are messages that it needs."""

    rule: Rule
    place: str
    declared: str
    helpers: str = ""

    def __str__(self) -> str:
        return f"{self.rule.type} {self.place} {self.rule.given}"[:90]


def cases() -> Iterator[Case]:
    for index, rule in enumerate(all_rules()):
        option = f"[(buf.validate.field) = {{ {rule.given} }}]" if rule.given else ""
        yield Case(rule, "plain", f"{rule.type} n = 2 {option};")
        if not rule.plain_only:
            # One more place for each rule, so that all rules are at some and all places have many.
            place = PLACES[index % len(PLACES)]
            if place == "wrapper" and rule.type not in WRAPPERS:
                place = "nested"
            yield _at_place(rule, place, option, f"H{index}")


def _at_place(rule: Rule, place: str, option: str, name: str) -> Case:
    kind, given, helpers = rule.type, rule.given, ""
    if place == "optional":
        declared = f"optional {kind} n = 2 {option};"
    elif place == "oneof":
        declared = f"oneof o {{ {kind} n = 2 {option}; string m = 3; }}"
    elif place == "wrapper":
        declared = f"google.protobuf.{WRAPPERS[kind]} n = 2 {option};"
    elif place == "repeated":
        declared = f"repeated {kind} n = 2 [(buf.validate.field) = {{ repeated: {{ items: {{ {given} }} }} }}];"
    elif place == "map":
        declared = f"map<string, {kind}> n = 2 [(buf.validate.field) = {{ map: {{ values: {{ {given} }} }} }}];"
    else:
        helpers = f"message {name} {{ {kind} v = 1 {option}; }}"
        declared = f"{'repeated ' if place == 'deep' else ''}{name} n = 2;"
    return Case(rule, place, declared, helpers)


def _is_common(rule: Rule) -> bool:
    names = re.findall(r"[a-z_0-9]+(?=:)", rule.given)
    return bool(names) and set(names) <= COMMON and not NOT_AT_ONCE.search(rule.given)


CASES = list(cases())
COMMON_CASES = [index for index, case in enumerate(CASES) if _is_common(case.rule)]
MESSAGES = [
    ("option (buf.validate.message).cel = { id: 'order' expression: 'this.a < this.b' };", [(1, 2)], [(2, 1), (0, 0)]),
    ("option (buf.validate.message).cel_expression = 'this.a < this.b';", [(1, 2)], [(2, 1), (0, 0)]),
    ("option (buf.validate.message).oneof = { fields: ['a', 'b'] };", [(1, 0), (0, 0)], [(1, 1)]),
    ("option (buf.validate.message).oneof = { fields: ['a', 'b'] required: true };", [(1, 0)], [(1, 1), (0, 0)]),
]
"""Rules of a whole message, of the two fields a and b."""
ONEOF = "oneof o { option (buf.validate.oneof).required = true; int64 a = 2; string b = 3; }"

PREDEFINED = """syntax = "proto2"; package rule.v1; import "buf/validate/validate.proto";
extend buf.validate.Int64Rules { optional bool even = 80048952 [
  (buf.validate.predefined).cel = { id: "int64.even" message: "must be even" expression: "this % 2 == 0" }]; }
"""
HELPERS = """import "buf/validate/validate.proto";
enum Kind { KIND_UNSPECIFIED = 0; KIND_ONE = 1; KIND_TWO = 2; }
message Inner { int64 a = 1; }
message Strict { int64 a = 1 [(buf.validate.field).int64.gt = 0]; }
"""
IMPORTS = """import "google/protobuf/any.proto"; import "google/protobuf/duration.proto"; import "predefined.proto";
import "google/protobuf/field_mask.proto"; import "google/protobuf/wrappers.proto"; import "helpers.proto";
"""
PER_FILE = 16


@pytest.fixture(scope="module")
def contracts(tmp_path_factory: pytest.TempPathFactory, proto_text: Callable[..., str]) -> dict[str, Contract]:
    root: Path = tmp_path_factory.mktemp("every_rule")
    (root / "predefined.proto").write_text(PREDEFINED, encoding="utf-8")
    stream = 'option (tidemill.v1.stream) = {{ name: "{}" event_time: "at" }}; google.protobuf.Timestamp at = 1;'
    bodies = {f"c{index}": case.declared for index, case in enumerate(CASES)}
    bodies |= {f"m{index}": f"{option} int64 a = 2; int64 b = 3;" for index, (option, *_) in enumerate(MESSAGES)}
    bodies["oneof"] = ONEOF
    (root / "helpers.proto").write_text(f'syntax = "proto3"; package rule.v1; {HELPERS}', encoding="utf-8")
    # Several files: what a contract costs to load grows with the file that it is in.
    names = list(bodies)
    for start in range(0, len(names), PER_FILE):
        messages = [
            f"message T_{name} {{ {stream.format(name)} {bodies[name]} }}" for name in names[start : start + PER_FILE]
        ]
        helpers = [case.helpers for case in CASES[start : start + PER_FILE]]
        (root / f"every_{start}.proto").write_text(
            proto_text("\n".join([IMPORTS, *helpers, *messages]), "rule.v1"), encoding="utf-8"
        )
    loaded = load_contracts(root)
    assert loaded.problems == ()
    return loaded.contracts


@pytest.mark.parametrize("index", range(len(CASES)), ids=map(str, CASES))
def test_the_verdict_is_protovalidates(contracts: dict[str, Contract], ipc: Callable[..., bytes], index: int) -> None:
    case, chance = CASES[index], random.Random(SEED + index)
    contract = contracts[f"c{index}"]
    message = message_class(contract.descriptor())
    rows = [_row(message, case, chance) for _ in range(ROWS)]
    rejected = _check(contract, rows, ipc)
    if case.rule.bad:
        assert 0.3 <= rejected / ROWS <= 0.9, (SEED, rejected)


@pytest.mark.parametrize("index", range(len(MESSAGES)))
def test_rules_of_a_whole_message(contracts: dict[str, Contract], ipc: Callable[..., bytes], index: int) -> None:
    _, good, bad = MESSAGES[index]
    contract = contracts[f"m{index}"]
    message = message_class(contract.descriptor())
    chance = random.Random(SEED)
    rows: list[Any] = []
    for _ in range(ROWS):
        a, b = chance.choice(bad if chance.random() < 0.5 else good)
        rows.append(message(a=a, b=b))
    assert 0.3 <= _check(contract, rows, ipc) / ROWS <= 0.9


def test_a_oneof_that_has_to_be_set(contracts: dict[str, Contract], ipc: Callable[..., bytes]) -> None:
    message: Any = message_class(contracts["oneof"].descriptor())
    rows = [[message(), message(a=0), message(b="")][index % 3] for index in range(ROWS)]
    assert _check(contracts["oneof"], rows, ipc) == ROWS / 3


@pytest.mark.parametrize("index", COMMON_CASES, ids=lambda index: str(CASES[index]))
def test_valid_rows_of_common_rules_never_reach_protovalidate(
    contracts: dict[str, Contract], monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    class Nobody:
        def collect_violations(self, message: Any) -> list[Any]:
            raise AssertionError(f"protovalidate was asked about {message}")

    monkeypatch.setattr(rules, "Validator", Nobody)
    monkeypatch.setattr(judge, "Validator", Nobody)
    case, chance, now_us = CASES[index], random.Random(SEED + index), time.time_ns() // 1000
    message = message_class(contracts[f"c{index}"].descriptor())
    good = [_set(message, case, chance.choice(case.rule.good), chance) for _ in range(FEW * 2)]
    for row in good:
        row.at.FromMicroseconds(now_us)
        assert not protovalidate.collect_violations(row)
    checked = Intake(contracts[f"c{index}"]).from_proto([row.SerializeToString() for row in good], now_us)
    assert checked.rows.num_rows == len(good)


def test_every_kind_of_rule_is_among_the_cases(contracts: dict[str, Contract]) -> None:
    """The kinds are those of validate.proto itself: a newer one brings its own, and fails here until it is tried."""
    pool = private_pool(contracts["c0"].descriptor_set)
    file = pool.FindFileByName("buf/validate/validate.proto")
    kinds = {
        f"{message.name}.{field.name}"
        for message in file.message_types_by_name.values()
        if message.name.endswith("Rules") or message.name in ("MessageOneofRule", "PredefinedRules")
        for field in message.fields
        if field.name != "example"
    }
    kinds |= {f"Ignore.{value.name}" for value in file.enum_types_by_name["Ignore"].values}
    kinds |= {f"KnownRegex.{value.name}" for value in file.enum_types_by_name["KnownRegex"].values}
    kinds -= {"KnownRegex.KNOWN_REGEX_UNSPECIFIED"}
    used = {"Ignore.IGNORE_UNSPECIFIED"}
    for contract in contracts.values():
        used |= _used(contract.descriptor())
    assert kinds - used == set()


def _check(contract: Contract, rows: list[Any], ipc: Callable[..., bytes]) -> int:
    """Compares the verdicts on rows, which get their event time here; gives how many are rejected."""
    now_us = time.time_ns() // 1000
    for row in rows:
        row.at.FromMicroseconds(now_us)
    sent = [row.SerializeToString() for row in rows]
    expected = [(index, *verdict) for index, row in enumerate(rows) if (verdict := _expected(row))]
    intake = Intake(contract)
    checked = intake.from_proto(sent, now_us)
    assert _verdicts(checked.quarantined) == expected, SEED
    in_parts = [
        (start + index, *rest)
        for start in range(0, len(sent), FEW)
        for index, *rest in _verdicts(intake.from_proto(sent[start : start + FEW], now_us).quarantined)
    ]
    assert in_parts == expected, SEED
    batch, malformed = intake._decoder.decode(sent)
    assert malformed == {}
    from_arrow = intake.from_arrow(ipc(batch), now_us)
    assert _verdicts(from_arrow.quarantined) == expected, SEED
    # By their text: NaN is not even itself.
    assert str(from_arrow.rows.to_pylist()) == str(checked.rows.to_pylist()), SEED
    return len(expected)


def _verdicts(quarantined: Any) -> list[tuple[int, str, str]]:
    return [(row.index, row.rule, row.field) for row in quarantined]


def _expected(row: Any) -> tuple[str, str] | None:
    """protovalidate's first violation, in the order of fields; those of the whole message last."""
    found = []
    for violation in protovalidate.collect_violations(row):
        elements = list(violation.proto.field.elements) if violation.proto.field else []
        path = ""
        for element in elements:
            path += f".{element.field_name}" if path else element.field_name
            if element.subscript is not None:
                key = element.subscript.value
                path += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
        found.append((elements[0].field_number if elements else math.inf, violation.proto.rule_id, path))
    first = min(found, key=lambda each: each[0], default=None)
    return first[1:] if first else None


def _row(message: Any, case: Case, chance: random.Random) -> Any:
    drawn = chance.random()
    if drawn < 0.5 and case.rule.bad:
        value = chance.choice(case.rule.bad)
    elif drawn < 0.8:
        value = chance.choice([*case.rule.good, *case.rule.edges])
    else:
        value = _any_value(case.rule, chance)
    return _set(message, case, value, chance)


def _any_value(rule: Rule, chance: random.Random) -> Any:
    """A value of the rule's type, whatever the rule; for types without a generator one of the rule's own."""
    kind = rule.type.removeprefix("optional ")
    if kind == "string":
        return "".join(chance.choice("ab1.@-:/ \né٣🌊") for _ in range(chance.randrange(5)))
    if kind == "bytes":
        # Text, as a pattern of bytes that are none is an error, and not a verdict.
        return bytes(chance.choice(b"ab1 \0") for _ in range(chance.randrange(5)))
    if kind in INTEGERS:
        low = 0 if kind.startswith(("uint", "fixed")) else -12
        return chance.randrange(low, 13)
    if kind in FLOATS:
        return chance.choice([chance.uniform(-20, 20), 0.0, -0.0, math.inf, -math.inf, math.nan])
    if kind in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return chance.randrange(-(10**7), 2 * 10**7)
    return chance.choice([*rule.good, *rule.bad])


def _set(message: Any, case: Case, value: Any, chance: random.Random) -> Any:
    row = message()
    good = case.rule.good[0]
    if value is NO_VALUE:
        pass
    elif case.place in ("plain", "optional", "oneof"):
        _assign(row, "n", value)
    elif case.place == "wrapper":
        row.n.SetInParent()
        row.n.value = value
    elif case.place == "repeated":
        for each in [good, value, good][chance.randrange(2) :]:
            _append(row.n, each)
    elif case.place == "map":
        for key, each in (("k", value), ("l", good)):
            _put(row.n, key, each)
    elif case.place == "nested":
        row.n.SetInParent()
        _assign(row.n, "v", value)
    else:
        for each in [good, value][chance.randrange(2) :]:
            _assign(row.n.add(), "v", each)
    return row


def _assign(message: Any, name: str, value: Any) -> None:
    field: FieldDescriptor = message.DESCRIPTOR.fields_by_name[name]
    holder = getattr(message, name)
    if is_map(field):
        for key, each in value.items():
            _put(holder, key, each)
    elif field.is_repeated:
        for each in value:
            _append(holder, each)
    elif field.message_type is None:
        setattr(message, name, value)
    else:
        _fill(holder, value)


def _append(holder: Any, value: Any) -> None:
    if hasattr(holder, "add"):
        _fill(holder.add(), value)
    else:
        holder.append(value)


def _put(holder: Any, key: Any, value: Any) -> None:
    if holder.GetEntryClass().DESCRIPTOR.fields_by_name["value"].message_type is None:
        holder[key] = value
    else:
        _fill(holder[key], value)


def _fill(message: Any, value: Any) -> None:
    message.SetInParent()
    if isinstance(value, dict):
        message.MergeFrom(type(message)(**value))
    elif isinstance(value, tuple):
        message.FromMicroseconds(time.time_ns() // 1000 + value[1])
    else:
        message.FromMicroseconds(value)


def _used(message: Descriptor) -> set[str]:
    """The kinds of rules that a message uses, also in the messages within it: "Int64Rules.gt"."""
    used: set[str] = set()
    for options in [extension(message, "buf.validate.message"), *_of_fields(message)]:
        if options is not None:
            used |= _set_fields(options)
    for field in message.fields:
        inner = field.message_type
        if inner is not None and not inner.full_name.startswith("google."):
            used |= _used(inner)
    return used


def _of_fields(message: Descriptor) -> Iterator[Any]:
    for field in message.fields:
        yield extension(field, "buf.validate.field")
    for oneof in message.oneofs:
        yield extension(oneof, "buf.validate.oneof")


def _set_fields(options: Any) -> set[str]:
    used = set()
    name = options.DESCRIPTOR.name
    for field, value in options.ListFields():
        if field.is_extension:
            used.add("PredefinedRules.cel")
            continue
        used.add(f"{name}.{field.name}")
        if field.enum_type is not None and field.enum_type.name in ("Ignore", "KnownRegex"):
            used.add(f"{field.enum_type.name}.{field.enum_type.values_by_number[value].name}")
        if field.message_type is not None and field.message_type.file.name == "buf/validate/validate.proto":
            for each in value if field.is_repeated else [value]:
                used |= _set_fields(each)
    return used
