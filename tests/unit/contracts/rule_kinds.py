"""Every kind of rule in buf.validate, each on a field with values that keep it and values that break it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

NO_VALUE = object()
"""The field is not set."""


@dataclass(frozen=True)
class Rule:
    """A rule (`given`, a text-format FieldRules) on a field of one protobuf type, and values on both sides of it.

    plain_only: the rule cannot move to a oneof, a list or a nested message and mean the same.
    edges: more values that keep it, but so narrowly that protovalidate is asked.
    """

    type: str
    given: str
    good: list[Any]
    bad: list[Any]
    plain_only: bool = False
    edges: tuple[Any, ...] = ()


INTEGERS = [f"{sign}{bits}" for sign in ("int", "uint", "sint", "fixed", "sfixed") for bits in (32, 64)]
FLOATS = ["float", "double"]
HTTP_NAME, HTTP_VALUE = "KNOWN_REGEX_HTTP_HEADER_NAME", "KNOWN_REGEX_HTTP_HEADER_VALUE"
UUID = "123e4567-e89b-12d3-a456-426614174000"


def rules() -> list[Rule]:
    """All of them."""
    each: list[Rule] = []
    for kind in [*INTEGERS, *FLOATS]:
        each += _numbers(kind)
    each += [*_floats(), *_strings(), *_formats(), *_bytes(), *_others(), *_times(), *_many(), *_any_field()]
    return each


def _numbers(kind: str) -> Iterator[Rule]:
    signed = not kind.startswith(("uint", "fixed"))
    most = 2**31 - 1 if kind.endswith("32") else 2**63 - 1
    most = 2**24 if kind in FLOATS else most if signed else 2 * most + 1
    low, high = (-(2**24) if kind in FLOATS else -most - 1 if signed else 0), most
    for given, good, bad in (
        ("const: 7", [7], [6, 8, low, high]),
        ("lt: 10", [9, low], [10, 11, high]),
        ("lte: 10", [10, 9, low], [11, high]),
        ("gt: 10", [11, high], [10, 9, low]),
        ("gte: 10", [10, 11, high], [9, low]),
        ("gt: 5 lt: 10", [6, 9], [5, 10, low, high]),
        ("gte: 5 lte: 10", [5, 10], [4, 11, low, high]),
        ("gt: 10 lt: 5", [11, 4, low, high], [10, 5, 7]),
        ("gte: 10 lte: 5", [10, 5, low, high], [9, 6, 7]),
        ("in: [1, 2, 3]", [1, 2, 3], [4, low, high]),
        ("not_in: [1, 2, 3]", [4, low, high], [1, 2, 3]),
    ):
        yield Rule(kind, f"{kind}: {{ {given} }}", good, bad)


def _floats() -> Iterator[Rule]:
    for kind in FLOATS:
        yield Rule(kind, f"{kind}: {{ finite: true }}", [0.0, 1.5, -0.0], [math.inf, -math.inf, math.nan])
        yield Rule(kind, f"{kind}: {{ in: [0, 1.5] }}", [0.0, -0.0, 1.5], [math.nan, math.inf, 2.0])
        yield Rule(kind, f"{kind}: {{ not_in: [0, 1.5] }}", [math.nan, 2.0], [0.0, -0.0, 1.5])
        yield Rule(kind, f"{kind}: {{ gt: 0 }}", [0.5, math.inf], [0.0, -0.0, math.nan, -math.inf])


def _strings() -> Iterator[Rule]:
    for given, good, bad in (
        ('const: "ab"', ["ab"], ["", "AB", "abc"]),
        ("len: 2", ["ab", "äö", "🌊🌊"], ["a", "abc", ""]),
        ("min_len: 2", ["ab", "äöü"], ["", "🌊"]),
        ("max_len: 2", ["", "ab", "🌊🌊"], ["abc", "äöü"]),
        ("len_bytes: 2", ["ab", "ä"], ["a", "äö", ""]),
        ("min_bytes: 2", ["ab", "ä"], ["a", ""]),
        ("max_bytes: 2", ["", "ab", "ä"], ["abc", "äö"]),
        (r'pattern: "^[a-z]+[0-9]?$"', ["abc", "a1"], ["", "A", "a\n", "1"]),
        (r'pattern: "^\\D*$"', ["", "abc"], ["1", "a٣9"]),
        ('prefix: "ab"', ["ab", "abc"], ["", "ba"]),
        ('suffix: "ab"', ["ab", "cab"], ["", "ba"]),
        ('contains: "a.b"', ["a.b", "xa.bx"], ["", "axb"]),
        ('not_contains: "ab"', ["", "ba"], ["ab", "cabc"]),
        ('in: ["a", "b"]', ["a", "b"], ["", "c"]),
        ('not_in: ["a", "b"]', ["", "c"], ["a", "b"]),
    ):
        yield Rule("string", f"string: {{ {given} }}", good, bad)


def _formats() -> Iterator[Rule]:
    """Well-known formats; texts both on the short way (a kernel's pattern) and only in the rule's own grammar."""
    for name, good, bad in (
        ("email", ["a@b.example", "x+y@localhost", "o'k@a-b.c"], ["a", "@b", "a@", "a b@c", "a@-b", "a@b\n"]),
        ("hostname", ["a.example", "A-1.b", "a.example.", "1a.x"], ["", "-a", "a..b", "1.2", "a_b", "x" * 64 + ".a"]),
        ("ip", ["1.2.3.4", "::1", "1:2:3:4:5:6:7:8"], ["1.2.3", "256.1.1.1", "g::1", "01.2.3.4"]),
        ("ipv4", ["127.0.0.1", "255.255.255.255"], ["::1", "1.2.3.4.5", "1.2.3.256", ""]),
        ("ipv6", ["::1", "2001:db8::ff", "1:2:3:4:5:6:7:8"], ["1.2.3.4", "1:2", "1:2:3:4:5:6:7:8:9", ":::"]),
        ("uri", ["https://a.example/b?c=d", "http://a:80", "mailto:a@b.c"], ["", "a b", "//a", "https://a b", "é:"]),
        ("uri_ref", ["https://a.example/", "./a?b", "", "#x"], ["a b", "\x00", "http://[", "%zz"]),
        ("address", ["a.example", "1.2.3.4", "::1"], ["", "-a", "a b", "1.2.3.256"]),
        ("uuid", [UUID, UUID.upper()], ["", UUID[:-1], UUID.replace("-", ""), f"{UUID}\n", "g" + UUID[1:]]),
        ("tuuid", [UUID.replace("-", "")], ["", UUID, "0" * 31, "g" * 32]),
        (
            "ulid",
            ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "7" * 26],
            ["", "8" + "0" * 25, "01ARZ3NDEKTSV4RRFFQ69G5FAU", "0" * 25],
        ),
        ("host_and_port", ["a.example:80", "1.2.3.4:65535", "[::1]:1"], ["a", "a:", "a:65536", ":80", "1.2.3.4"]),
        ("ip_with_prefixlen", ["1.2.3.4/8", "::1/64"], ["1.2.3.4", "1.2.3.4/33", "a/8"]),
        ("ipv4_with_prefixlen", ["1.2.3.4/0", "1.2.3.4/32"], ["1.2.3.4", "::1/8", "1.2.3.4/33", "1.2.3.4/08"]),
        ("ipv6_with_prefixlen", ["::1/128", "2001:db8::/32"], ["::1", "1.2.3.4/8", "::1/129"]),
        ("ip_prefix", ["1.0.0.0/8", "2001:db8::/32"], ["1.2.3.4/8", "1.0.0.0", "x/8"]),
        ("ipv4_prefix", ["1.0.0.0/8"], ["1.2.3.4/8", "2001:db8::/32", ""]),
        ("ipv6_prefix", ["2001:db8::/32"], ["2001:db8::1/32", "1.0.0.0/8", ""]),
        ("protobuf_fqn", ["a.B_1", "_x"], ["", ".a", "a..b", "1a", "a."]),
        ("protobuf_dot_fqn", [".a.B_1", "._x"], ["", "a", ".a..b", ".1a", "."]),
    ):
        yield Rule("string", f"string: {{ {name}: true }}", good, bad)
    for strict in ("", "strict: false"):
        name_bad, value_bad = ["", "a\n", "b\0"], ["a\n", "b\0", "\r"]
        yield Rule("string", f"string: {{ well_known_regex: {HTTP_NAME} {strict} }}", ["Accept", ":path"], name_bad)
        yield Rule(
            "string", f"string: {{ well_known_regex: {HTTP_VALUE} {strict} }}", ["", "text/html; q=1"], value_bad
        )


def _bytes() -> Iterator[Rule]:
    v4, v6, other = b"\x01\x02\x03\x04", b"\0" * 16, b"\0" * 5
    for given, good, bad in (
        ('const: "ab"', [b"ab"], [b"", b"AB"]),
        ("len: 2", [b"ab", b"\xff\xfe"], [b"", b"abc"]),
        ("min_len: 2", [b"ab", b"abc"], [b"", b"a"]),
        ("max_len: 2", [b"", b"ab"], [b"abc", b"\0\0\0"]),
        ('pattern: "^a+$"', [b"a", b"aa"], [b"", b"b"]),
        ('prefix: "ab"', [b"ab", b"ab\xff"], [b"", b"ba"]),
        ('suffix: "ab"', [b"ab", b"\xffab"], [b"", b"ba"]),
        ('contains: "ab"', [b"ab", b"\xffab\0"], [b"", b"ba"]),
        ('in: ["a", "b"]', [b"a", b"b"], [b"", b"c"]),
        ('not_in: ["a", "b"]', [b"", b"c"], [b"a", b"b"]),
        ("ip: true", [v4, v6], [b"", other]),
        ("ipv4: true", [v4], [b"", v6, other]),
        ("ipv6: true", [v6], [b"", v4, other]),
        ("uuid: true", [v6], [b"", v4]),
    ):
        yield Rule("bytes", f"bytes: {{ {given} }}", good, bad)


def _others() -> Iterator[Rule]:
    yield Rule("bool", "bool: { const: true }", [True], [False])
    yield Rule("Kind", "enum: { const: 1 }", [1], [0, 2, 9])
    yield Rule("Kind", "enum: { defined_only: true }", [0, 1, 2], [3, -1, 2**31 - 1])
    yield Rule("Kind", "enum: { in: [1, 2] }", [1, 2], [0, 9])
    yield Rule("Kind", "enum: { not_in: [0] }", [1, 9], [0])
    any_ = "google.protobuf.Any"
    yield Rule(any_, 'any: { in: ["t/a.A", "t/b.B"] }', [{"type_url": "t/a.A"}], [{"type_url": "t/c.C"}, {}])
    yield Rule(any_, 'any: { not_in: ["t/a.A"] }', [{"type_url": "t/c.C"}], [{"type_url": "t/a.A", "value": b"x"}])
    mask = "google.protobuf.FieldMask"
    yield Rule(mask, 'field_mask: { const: { paths: ["a"] } }', [{"paths": ["a"]}], [{"paths": ["b"]}, {}])
    yield Rule(mask, 'field_mask: { in: ["a", "b"] }', [{"paths": ["a", "b"]}], [{"paths": ["a", "c"]}])
    yield Rule(mask, 'field_mask: { not_in: ["c"] }', [{"paths": ["a", "b"]}], [{"paths": ["a", "c"]}])


def _times() -> Iterator[Rule]:
    """Times in µs since 1970, or from now where the text ends with "now"; durations in µs."""
    second = 1_000_000
    for name, unit in (("timestamp", "google.protobuf.Timestamp"), ("duration", "google.protobuf.Duration")):
        for given, good, edges, bad in (
            ("const: { seconds: 9 }", [9 * second], (), [9 * second + 1, 0]),
            ("lt: { seconds: 9 }", [8 * second, -second], (9 * second - 1,), [9 * second, 10 * second]),
            ("lte: { seconds: 9 }", [8 * second, 0], (9 * second,), [9 * second + 1]),
            ("lte: { seconds: 9 nanos: 500 }", [8 * second, 0], (9 * second,), [9 * second + 1]),
            ("gt: { seconds: 9 }", [9 * second + 2], (9 * second + 1,), [9 * second, -1]),
            ("gte: { seconds: 9 }", [9 * second + 2], (9 * second,), [9 * second - 1, -second]),
            ("gt: { seconds: 5 } lt: { seconds: 9 }", [6 * second], (5 * second + 1,), [5 * second, 9 * second]),
            ("gte: { seconds: 9 } lte: { seconds: 5 }", [10 * second, 0], (5 * second,), [6 * second, 8 * second]),
        ):
            yield Rule(unit, f"{name}: {{ {given} }}", good, bad, edges=edges)
    for given, good, bad in (("in", [second, 2 * second], [0, 3 * second]), ("not_in", [0], [second, 2 * second])):
        some = "[{ seconds: 1 }, { seconds: 2 }]"
        yield Rule("google.protobuf.Duration", f"duration: {{ {given}: {some} }}", good, bad)
    hour = 3600 * second
    for given, past, future in (("lt_now: true", True, False), ("gt_now: true", False, True)):
        before, after = [("now", -hour), 0], [("now", hour)]
        good, bad = (before, after) if past and not future else (after, before)
        yield Rule("google.protobuf.Timestamp", f"timestamp: {{ {given} }}", good, bad)
    near, far = [("now", -hour), ("now", hour)], [("now", -3 * hour), ("now", 3 * hour), 0]
    yield Rule("google.protobuf.Timestamp", "timestamp: { within: { seconds: 7200 } }", near, far)


def _many() -> Iterator[Rule]:
    """Lists and maps: how many, and each of them; the type says what they hold."""
    some = [["a", "b"], ["c", "d", "ee"]]
    for given, good, bad in (
        ("repeated: { min_items: 2 }", some, [[], ["a"]]),
        ("repeated: { max_items: 2 }", [[], ["a", "b"]], [["a", "b", "c"]]),
        ("repeated: { unique: true }", [[], *some], [["a", "a"], ["b", "a", "b"]]),
        ('repeated: { items: { string: { pattern: "^[a-c]$" } } }', [[], ["a", "b"]], [["a", "d"], ["", "e"]]),
        ("repeated: { items: { string: { email: true } } }", [[], ["a@b.c"]], [["a@b.c", "d"], [""]]),
        ("repeated: { items: { ignore: IGNORE_IF_ZERO_VALUE string: { min_len: 2 } } }", [[], ["", "aa"]], [["a"]]),
        ("required: true", some, [[]]),
        ("ignore: IGNORE_IF_ZERO_VALUE repeated: { min_items: 2 }", [[], ["a", "b"]], [["a"]]),
    ):
        yield Rule("repeated string", given, good, bad, plain_only=True)
    yield Rule("repeated Kind", "repeated: { items: { enum: { defined_only: true } } }", [[0, 2]], [[0, 9]], True)
    yield Rule("repeated double", "repeated: { items: { double: { gt: 0 } } }", [[1.0]], [[1.0, math.nan], [0.0]], True)
    pairs = {"aa": 1, "bb": 2}
    for given, good, bad in (
        ("map: { min_pairs: 2 }", [pairs], [{}, {"a": 1}]),
        ("map: { max_pairs: 1 }", [{}, {"a": 1}], [pairs]),
        ("map: { keys: { string: { min_len: 2 } } }", [{}, pairs], [{"a": 1}, {"aa": 1, "b": 1}]),
        ("map: { values: { int64: { gt: 0 } } }", [{}, pairs], [{"a": 0}, {"aa": 1, "b": -1}]),
        ("map: { values: { cel: { id: 'odd' expression: 'this % 2 == 1' } } }", [{"a": 1}], [{"a": 2}, pairs]),
        ("required: true", [pairs], [{}]),
    ):
        yield Rule("map<string, int64>", given, good, bad, plain_only=True)


def _any_field() -> Iterator[Rule]:
    """What a field of any kind may have: CEL, required, ignore, predefined rules."""
    yield Rule("int64", "cel: { id: 'even' message: 'even' expression: 'this % 2 == 0' }", [0, 2], [1, -3])
    yield Rule("string", "cel: { id: 'text' expression: \"this == '' ? '' : 'not empty'\" }", [""], ["a", "ä"])
    yield Rule("int64", "cel_expression: 'this > 5'", [6], [5, 0])
    yield Rule("int64", "int64: { [rule.v1.even]: true }", [0, 2], [1, -3])
    yield Rule("int64", "int64: { lt: 100 [rule.v1.even]: true }", [0, 2], [1, 102])
    for kind, good, bad in (
        ("int64", [1], [0]),
        ("string", ["a"], [""]),
        ("bool", [True], [False]),
        ("double", [1.0, math.nan], [0.0]),
        ("bytes", [b"a"], [b""]),
        ("Kind", [1], [0]),
    ):
        yield Rule(kind, "required: true", good, bad, plain_only=True)
    for kind, good in (("optional int64", [0, 1]), ("google.protobuf.Timestamp", [0]), ("Inner", [{}, {"a": 1}])):
        yield Rule(kind, "required: true", good, [NO_VALUE], plain_only=True)
    ignored = "ignore: IGNORE_IF_ZERO_VALUE"
    yield Rule("string", f"{ignored} string: {{ min_len: 2 }}", ["", "ab"], ["a"], plain_only=True)
    yield Rule("int64", f"{ignored} int64: {{ gt: 5 }}", [0, 6], [5, 1], plain_only=True)
    yield Rule("double", f"{ignored} double: {{ gt: 5 }}", [0.0, 6.0], [5.0, math.nan], plain_only=True)
    yield Rule("int64", f"{ignored} cel_expression: 'this > 5'", [0, 6], [5, 1], plain_only=True)
    yield Rule("optional string", f"{ignored} string: {{ min_len: 2 }}", ["ab", NO_VALUE], ["", "a"], plain_only=True)
    for kind, given in (("int64", "int64: { gt: 5 }"), ("Strict", "required: true")):
        values = [0, 6] if kind == "int64" else [{"a": 0}, NO_VALUE]
        yield Rule(kind, f"ignore: IGNORE_ALWAYS {given}", values, [], plain_only=True)
    yield Rule("Strict", "", [{"a": 1}, NO_VALUE], [{"a": 0}, {}], plain_only=True)
    yield Rule("repeated Strict", "", [[], [{"a": 1}]], [[{"a": 1}, {"a": 0}]], plain_only=True)
    yield Rule("map<int32, Strict>", "", [{}, {1: {"a": 1}}], [{1: {"a": 1}, 2: {"a": 0}}], plain_only=True)
    yield Rule("Strict", "cel: { id: 'whole' expression: 'this.a < 9' }", [{"a": 1}], [{"a": 9}], plain_only=True)
    yield Rule("optional int64", "int64: { gt: 5 }", [NO_VALUE, 6], [0, 5], plain_only=True)
