"""A rule change that is called compatible is: by protovalidate, on values around every bound."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from protovalidate import Validator

from ingest_service.contracts import Contract, load_contracts
from ingest_service.contracts.compare import compare
from ingest_service.contracts.contract import message_class

FIELDS = 300
NUMBERS = range(-7, 8)
TEXTS = ["", "a", "b", "ab", "ba", "abc", "aab", "bbbb", "é", "éé", "aé"]


def number_rule(chance: random.Random, kind: str) -> str:
    """Bounds, lists or a constant, some of them together."""
    rules = []
    for low, high in ((("gt", "gte"), ("lt", "lte")),):
        rules += [f"{chance.choice(side)}: {chance.choice(NUMBERS)}" for side in (low, high) if chance.random() < 0.6]
    for name in ("in", "not_in"):
        if chance.random() < 0.2:
            rules.append(f"{name}: {chance.sample(list(NUMBERS), chance.randint(1, 4))}")
    if chance.random() < 0.1:
        rules.append(f"const: {chance.choice(NUMBERS)}")
    return f"(buf.validate.field).{kind} = {{ {' '.join(rules)} }}"


def text_rule(chance: random.Random, _kind: str) -> str:
    rules = []
    for name in ("min_len", "max_len", "len", "min_bytes", "max_bytes"):
        if chance.random() < 0.25:
            rules.append(f"{name}: {chance.randint(0, 4)}")
    for name in ("prefix", "suffix", "contains", "not_contains", "const"):
        if chance.random() < 0.1:
            rules.append(f"{name}: '{chance.choice(['a', 'b', 'ab'])}'")
    for name in ("in", "not_in"):
        if chance.random() < 0.15:
            rules.append(f"{name}: {chance.sample(TEXTS[1:8], chance.randint(1, 5))}")
    return f"(buf.validate.field).string = {{ {' '.join(rules)} }}"


def with_presence(chance: random.Random, rule: str) -> str:
    """The rule, and now and then what changes when it holds."""
    parts = [rule]
    if chance.random() < 0.2:
        parts.append(f"(buf.validate.field).ignore = {chance.choice(['IGNORE_IF_ZERO_VALUE', 'IGNORE_ALWAYS'])}")
    if chance.random() < 0.15:
        parts.append("(buf.validate.field).required = true")
    return ", ".join(parts)


def mutated(chance: random.Random, rule: str, make: Callable[[], str]) -> str:
    """Mostly another draw; often the same rule with one of its numbers moved by one."""
    digits = [i for i, letter in enumerate(rule) if letter.isdigit() and rule[i - 1] in " [" and "'" not in rule]
    if not digits or chance.random() < 0.4:
        return make()
    at = chance.choice(digits)
    return f"{rule[:at]}{max(0, int(rule[at]) + chance.choice([-1, 1]))}{rule[at + 1 :]}"


def contract(proto_text: Callable[..., str], kind: str, rules: Iterable[str], version: int) -> Contract:
    fields = "".join(f"{kind} x{i} = {i + 10} [{rule}];" for i, rule in enumerate(rules))
    option = f'option (tidemill.v1.stream) = {{ name: "things" event_time: "at" version: {version} }};'
    text = proto_text(f"message T {{ {option} google.protobuf.Timestamp at = 1; {fields} }}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "things.proto").write_text(text, encoding="utf-8")
        loaded = load_contracts(Path(folder))
    assert loaded.problems == (), loaded.problems[0].text[:2000]
    return loaded.contracts["things"]


def broken(contract: Contract, values: Iterable[Any]) -> list[set[str]]:
    """For each value, given to all fields: the fields whose rules it breaks."""
    make, validator = message_class(contract.descriptor()), Validator()
    found = []
    for value in values:
        message = make(**{f"x{i}": value for i in range(FIELDS)})
        violations = validator.collect_violations(message)
        found.append({each.proto.field.elements[0].field_name for each in violations})
    return found


@pytest.mark.parametrize(
    ("kind", "draw", "values"),
    [
        ("int64", number_rule, list(NUMBERS)),
        ("optional sint32", number_rule, list(NUMBERS)),
        ("double", number_rule, [each / 2 for each in range(-15, 16)]),
        ("string", text_rule, TEXTS),
        ("optional string", text_rule, TEXTS),
    ],
)
def test_what_passed_before_a_compatible_change_passes_after_it(
    proto_text: Callable[..., str], kind: str, draw: Callable[[random.Random, str], str], values: list[Any]
) -> None:
    seed = int(os.environ.get("TIDEMILL_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    chance = random.Random(f"{seed} {kind}")
    plain = kind.removeprefix("optional ")
    before = [with_presence(chance, draw(chance, plain)) for _ in range(FIELDS)]
    after = [mutated(chance, rule, lambda: with_presence(chance, draw(chance, plain))) for rule in before]
    old, new = contract(proto_text, kind, before, 1), contract(proto_text, kind, after, 2)
    refused = {change.field for change in compare(old, new) if not change.compatible}
    tighter: set[str] = set()
    for was, now in zip(broken(old, values), broken(new, values), strict=True):
        tighter |= now - was
    missed = {field: (before[int(field[1:])], after[int(field[1:])]) for field in tighter - refused}
    assert missed == {}
    # Of both there are enough for the test to mean something.
    assert len(tighter) > FIELDS / 10
    assert FIELDS - len(refused) > FIELDS / 10
