"""Which changes of a contract are compatible: each kind by itself, and all of them listed at once."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest_service.contracts import Contract, load_contracts
from ingest_service.contracts.change import Change
from ingest_service.contracts.compare import compare

Text = Callable[..., str]

BASE = """
  google.protobuf.Timestamp at = 1 [(buf.validate.field).required = true];
  string id = 2 [(buf.validate.field).string.min_len = 1];
  int64 n = 3 [(buf.validate.field).int64 = { gte: 0 lte: 100 }];
  optional string note = 4;
  string price = 5 [(tidemill.v1.field).decimal = { precision: 12 scale: 3 }];
  Kind kind = 6;
"""
ENUM = "enum Kind { KIND_UNSPECIFIED = 0; KIND_A = 1; KIND_B = 2; }"
OPTIONS = 'name: "things" event_time: "at" event_id: "id"'


@functools.cache
def compiled(text: str) -> Contract:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "things.proto").write_text(text, encoding="utf-8")
        loaded = load_contracts(Path(folder))
    assert loaded.problems == ()
    return loaded.contracts["things"]


@pytest.fixture
def contract(proto_text: Text) -> Callable[..., Contract]:
    """A contract of these fields; `extra` is more inside the message, `before` more in front of it."""

    def make(
        fields: str = BASE, *, options: str = OPTIONS, extra: str = "", before: str = ENUM, version: int = 2,
        name: str = "T",
    ) -> Contract:  # fmt: skip
        option = f"option (tidemill.v1.stream) = {{ {options} version: {version} }};"
        return compiled(proto_text(f"{before} message {name} {{ {option} {fields} {extra} }}"))

    return make


def differences(old: Contract, new: Contract) -> list[tuple[str, bool]]:
    """Field and compatibility of each change, but for the version's."""
    return [(each.field, each.compatible) for each in compare(old, new) if not each.message.startswith("version")]


def test_a_contract_is_like_itself(contract: Callable[..., Contract]) -> None:
    assert compare(contract(), contract()) == ()


def field(old: str, new: str) -> Callable[[str], str]:
    def change(fields: str) -> str:
        assert old in fields
        return fields.replace(old, new)

    return change


FINE = {
    "a new optional field": field("Kind kind", "optional string shop = 9; Kind kind"),
    "a new repeated field": field("Kind kind", "repeated string tags = 9; Kind kind"),
    "a new message field": field("Kind kind", "google.protobuf.Timestamp seen = 9; Kind kind"),
    "a new optional field with a rule": field(
        "Kind kind", "optional string shop = 9 [(buf.validate.field).string.min_len = 3]; Kind kind"
    ),
    "a wider range": field("lte: 100", "lte: 101"),
    "a bound less": field("lte: 100", ""),
    "an exclusive bound made inclusive": field("gte: 0", "gte: -1"),
    "no rule any more": field(" [(buf.validate.field).string.min_len = 1]", ""),
    "a shorter least length": field("min_len = 1", "min_len = 0"),
    "not required any more": field(" [(buf.validate.field).required = true]", ""),
    "a personal field": field(
        "optional string note = 4", "optional string note = 4 [(tidemill.v1.field).personal = true]"
    ),
}
BREAKS = {
    "a field that is gone": (field("optional string note = 4;", ""), "note", "gone"),
    "another name": (field("string note", "string remark"), "note", "renamed to remark"),
    "another number": (field("note = 4", "note = 44"), "note", "number 4 → 44"),
    "another type": (field("optional string note", "optional bytes note"), "note", "string → bytes"),
    "another integer": (field("  Kind kind", "  int32 kind"), "kind", "Kind → int32"),
    "repeated": (field("optional string note", "repeated string note"), "note", "string → repeated string"),
    "not optional any more": (field("optional string note", "string note"), "note", "optional → not optional"),
    "optional": (field("  Kind kind", "  optional Kind kind"), "kind", "not optional → optional"),
    "into a oneof": (field("optional string note = 4;", "oneof o { string note = 4; }"), "note", "oneof none → o"),
    "a new field that is not optional": (field("Kind kind", "string shop = 9; Kind kind"), "shop", "say `optional`"),
    "a new required field": (
        field("Kind kind", "optional string shop = 9 [(buf.validate.field).required = true]; Kind kind"), "shop",
        "today's producers",
    ),
    "a new list that needs items": (
        field("Kind kind", "repeated string tags = 9 [(buf.validate.field).repeated.min_items = 1]; Kind kind"), "tags",
        "today's producers",
    ),
    "another scale": (field("scale: 3", "scale: 2"), "price", "DECIMAL(12, 3) → DECIMAL(12, 2)"),
    "another precision": (field("precision: 12", "precision: 14"), "price", "DECIMAL(14, 3)"),
    "no decimal": (field(" [(tidemill.v1.field).decimal = { precision: 12 scale: 3 }]", ""), "price", "→ text"),
    "required": (field("note = 4", "note = 4 [(buf.validate.field).required = true]"), "note", "required"),
    "a narrower range": (field("lte: 100", "lte: 99"), "n", "may break it"),
    "a bound more": (field("gte: 0 ", ""), "n", None),
    "a first rule": (field("note = 4", "note = 4 [(buf.validate.field).string.email = true]"), "note", "string.email"),
    "a pattern": (field("note = 4", "note = 4 [(buf.validate.field).string.pattern = 'a']"), "note", "string.pattern"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FINE)
def test_what_is_compatible(contract: Callable[..., Contract], kind: str) -> None:
    old, new = contract(version=1), contract(FINE[kind](BASE))
    found = compare(old, new)
    assert [each.compatible for each in found] == [True, True], found
    assert found[-1] == Change("", True, "version 1 → 2")


@pytest.mark.parametrize("kind", sorted(set(BREAKS) - {"a bound more"}))
def test_what_breaks(contract: Callable[..., Contract], kind: str) -> None:
    change, path, text = BREAKS[kind]
    broken = [each for each in compare(contract(version=1), contract(change(BASE))) if not each.compatible]
    assert [each.field for each in broken] == [path], broken
    assert text in broken[0].message, broken


def test_a_bound_more_breaks(contract: Callable[..., Contract]) -> None:
    change, path, _ = BREAKS["a bound more"]
    assert differences(contract(change(BASE)), contract()) == [(path, False)]


RULES = [
    ("int64", "int64 = { in: [1, 2] }", "int64 = { in: [1, 2, 3] }", True),
    ("int64", "int64 = { in: [1, 2] }", "int64 = { in: [1, 3] }", False),
    ("int64", "int64 = { not_in: [1, 2] }", "int64 = { not_in: [2] }", True),
    ("int64", "int64 = { not_in: [1] }", "int64 = { not_in: [1, 2] }", False),
    ("int64", "int64.const = 1", "int64.const = 2", False),
    ("int64", "int64.const = 1", "int64 = {}", True),
    # Outside of 5 … 10, and then of 6 … 9.
    ("int64", "int64 = { lt: 5 gt: 10 }", "int64 = { lt: 6 gt: 9 }", True),
    ("int64", "int64 = { lt: 5 gt: 10 }", "int64 = { lt: 4 gt: 10 }", False),
    ("int64", "int64 = { lt: 5 gt: 10 }", "int64 = { gt: 10 }", False),
    ("int64", "int64 = { gt: 10 }", "int64 = { lt: 5 gt: 10 }", True),
    ("int64", "int64 = { gt: 10 }", "int64 = { gte: 10 }", True),
    ("int64", "int64 = { gte: 10 }", "int64 = { gt: 10 }", False),
    ("int64", "int64 = { gte: 0 lte: 9 }", "int64 = { gt: -1 lt: 10 }", True),
    ("int64", "required = true", "required = false", True),
    ("int64", "ignore = IGNORE_UNSPECIFIED, (buf.validate.field).int64.gt = 5",
     "ignore = IGNORE_IF_ZERO_VALUE, (buf.validate.field).int64.gt = 5", True),
    ("int64", "ignore = IGNORE_IF_ZERO_VALUE, (buf.validate.field).int64.gt = 5",
     "ignore = IGNORE_UNSPECIFIED, (buf.validate.field).int64.gt = 5", False),
    ("int64", "int64.gt = 5", "ignore = IGNORE_ALWAYS, (buf.validate.field).int64.gt = 50", True),
    ("int64", "ignore = IGNORE_ALWAYS, (buf.validate.field).int64.gt = 5", "int64.gt = 5", False),
    ("int64", "cel = { id: 'a' expression: 'this > 1' message: 'x' }", "int64 = {}", True),
    ("int64", "cel = { id: 'a' expression: 'this > 1' message: 'x' }",
     "cel = { id: 'b' expression: 'this > 1' message: 'y' }", None),
    ("int64", "int64 = {}", "cel = { id: 'a' expression: 'this > 1' message: 'x' }", False),
    ("int64", "int64.example = 1", "int64.example = 2", None),
    ("string", "string.max_len = 5", "string.max_len = 6", True),
    ("string", "string.max_len = 5", "string.max_len = 4", False),
    ("string", "string.len = 5", "string.len = 6", False),
    ("string", "string.prefix = 'a'", "string.prefix = 'ab'", False),
    ("string", "string.uuid = true", "string = {}", True),
    ("string", "string = {}", "string.email = true", False),
    ("string", "string = { well_known_regex: KNOWN_REGEX_HTTP_HEADER_NAME strict: false }",
     "string = { well_known_regex: KNOWN_REGEX_HTTP_HEADER_NAME }", False),
    ("bool", "bool.const = false", "bool = {}", True),
    ("bool", "bool = {}", "bool.const = false", False),
    ("google.protobuf.Timestamp", "timestamp.within.seconds = 60", "timestamp.within.seconds = 90", True),
    ("google.protobuf.Timestamp", "timestamp.within.seconds = 60", "timestamp.within.seconds = 59", False),
    ("google.protobuf.Timestamp", "timestamp.gt = {seconds: 9}", "timestamp.gt = {seconds: 8 nanos: 1}", True),
    ("repeated string", "repeated.items.string.min_len = 2", "repeated.items.string.min_len = 1", True),
    ("repeated string", "repeated.items.string.min_len = 2", "repeated.items.string.min_len = 3", False),
    ("repeated string", "repeated.unique = true", "repeated.unique = false", True),
    ("Kind", "enum.defined_only = true", "enum = {}", True),
    ("Kind", "enum = {}", "enum.defined_only = true", False),
]  # fmt: skip
"""Type, rule before, rule after, and whether that is compatible; None: no difference at all."""


@pytest.fixture(scope="module")
def rule_differences(proto_text: Text) -> dict[str, list[bool]]:
    """All of RULES as fields of one message, x0, x1, …: by field, the compatibility of each difference."""
    both = []
    for place in (1, 2):
        fields = "".join(
            f"{row[0]} x{i} = {i + 20} [(buf.validate.field).{row[place]}];" for i, row in enumerate(RULES)
        )
        option = f"option (tidemill.v1.stream) = {{ {OPTIONS} version: {place} }};"
        both.append(compiled(proto_text(f"{ENUM} message T {{ {option} {BASE} {fields} }}")))
    found: dict[str, list[bool]] = {}
    for path, compatible in differences(*both):
        found.setdefault(path, []).append(compatible)
    return found


@pytest.mark.parametrize("index", range(len(RULES)), ids=lambda i: f"{RULES[i][1]} → {RULES[i][2]}")
def test_looser_and_tighter_rules(rule_differences: dict[str, list[bool]], index: int) -> None:
    compatible = RULES[index][3]
    assert rule_differences.get(f"x{index}", []) == ([] if compatible is None else [compatible])


def test_rules_of_the_message(contract: Callable[..., Contract]) -> None:
    rule = "option (buf.validate.message).cel = { id: 'r' expression: 'this.n < 50' message: 'x' };"
    assert differences(contract(extra=rule), contract()) == [("", True)]
    assert differences(contract(), contract(extra=rule)) == [("", False)]
    either = "oneof o { %s string a = 10; string b = 11; }"
    required = "option (buf.validate.oneof).required = true;"
    assert differences(contract(extra=either % required), contract(extra=either % "")) == [("o", True)]
    assert differences(contract(extra=either % ""), contract(extra=either % required)) == [("o", False)]
    more = "oneof o { string a = 10; string b = 11; string c = 12; }"
    assert differences(contract(extra=either % ""), contract(extra=more)) == [("c", True)]


def test_enums_gain_values_and_lose_none(contract: Callable[..., Contract]) -> None:
    old = contract()
    more = ENUM.replace("KIND_B = 2;", "KIND_B = 2; KIND_C = 3;")
    assert differences(old, contract(before=more)) == [("kind", True)]
    assert differences(contract(before=more), old) == [("kind", False)]
    assert differences(old, contract(before=ENUM.replace("KIND_B", "KIND_BB"))) == [("kind", False)]


def test_messages_inside_stay_as_they_are(contract: Callable[..., Contract]) -> None:
    inner = ENUM + " message Inner { string a = 1; %s }"
    holds = BASE + "Inner inner = 10;"
    old = contract(holds, before=inner % "")
    assert differences(old, contract(holds, before=inner % "optional string b = 2;")) == [("inner.b", False)]
    tight = inner % "int64 c = 3 [(buf.validate.field).int64.gt = 5];"
    loose = inner % "int64 c = 3 [(buf.validate.field).int64.gt = 4];"
    assert differences(contract(holds, before=tight), contract(holds, before=loose)) == [("inner.c", True)]
    assert differences(contract(holds, before=loose), contract(holds, before=tight)) == [("inner.c", False)]


@pytest.mark.parametrize(
    ("options", "compatible"),
    [
        ('name: "things" event_time: "seen" event_id: "id"', False),
        ('name: "things" event_time: "at"', False),
        ('name: "things" event_time: "at" event_id: "note"', False),
        ('name: "things" event_time: "at" event_id: "id" key: "id"', True),
        ('name: "things" event_time: "at" event_id: "id" out_of_orderness_s: 7200', True),
    ],
)
def test_options_of_the_stream(contract: Callable[..., Contract], options: str, compatible: bool) -> None:
    fields = BASE + "google.protobuf.Timestamp seen = 10;"
    found = compare(contract(fields, version=1), contract(fields, options=options))
    # What becomes the event time is not optional any more, and what was it may be absent.
    assert (False in [each.compatible for each in found]) is not compatible
    assert found[0].field == ""


def test_another_message_is_another_contract(contract: Callable[..., Contract]) -> None:
    assert differences(contract(), contract(name="U")) == [("", False)]


def test_a_change_counts_the_version_up(contract: Callable[..., Contract]) -> None:
    wider = BASE.replace("lte: 100", "lte: 200")
    same, older = compare(contract(), contract(wider)), compare(contract(version=3), contract(wider))
    for found, expected in ((same, "version 2 → 2: expected 3 or more"), (older, "version 3 → 2: expected 4 or more")):
        assert [each.compatible for each in found] == [True, False]
        assert expected in found[1].message
    assert compare(contract(version=1), contract(version=3)) == (Change("", True, "version 1 → 3"),)


def test_comments_count_for_nothing(contract: Callable[..., Contract]) -> None:
    commented = BASE.replace("  string id", "  // Names it.\n  string id")
    assert compare(contract(), contract(commented)) == (Change("id", True, "another comment", is_comment=True),)
    # Descriptors without comments say nothing about them.
    assert compare(contract(commented), contract()) == ()


def test_reserved_numbers_and_names_stay_so(contract: Callable[..., Contract]) -> None:
    old = contract(extra="reserved 9, 20 to 30; reserved 'shop';")
    assert differences(old, contract(extra="optional string a = 9;")) == [("a", False)]
    assert differences(old, contract(extra="optional string a = 30;")) == [("a", False)]
    assert differences(old, contract(extra="optional string shop = 40;")) == [("shop", False)]
    assert differences(old, contract(extra="optional string a = 31;")) == [("a", True)]


def test_every_difference_is_listed(contract: Callable[..., Contract]) -> None:
    fields = BASE
    for change in (BREAKS["another number"][0], BREAKS["another scale"][0], BREAKS["a narrower range"][0]):
        fields = change(fields)
    found = differences(contract(version=1), contract(fields, extra="optional int32 more = 11;"))
    assert found == [("n", False), ("note", False), ("price", False), ("more", True)]
