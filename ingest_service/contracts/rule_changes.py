"""Whether a field's buf.validate rules became looser or tighter.

A looser rule lets every row pass that passed before. Where that cannot be told (another pattern, another CEL
expression) the rule counts as tighter, unless it is gone altogether: rows in the log may break it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ingest_service.contracts.change import Change, breaks, fine
from ingest_service.contracts.value_range import RANGE_RULES, covers, ranges_of

_IGNORE = {0: "none", 1: "IGNORE_IF_ZERO_VALUE", 3: "IGNORE_ALWAYS"}
_IGNORE_ALWAYS = 3
_SMALLEST = frozenset({"min_len", "min_bytes", "min_items", "min_pairs"})
_LARGEST = frozenset({"max_len", "max_bytes", "max_items", "max_pairs", "within"})
_NO_RULE = frozenset({"example", "message", "id"})
_FALSE_SAYS_SOMETHING = frozenset({"const", "strict"})
_CEL = frozenset({"cel", "cel_expression"})

Rules = Mapping[str, Any]
"""A rule message's rules by name; what is not set, or says no more than that, is left out."""


def rule_changes(old: Message | None, new: Message | None, path: str, prefix: str = "") -> Iterator[Change]:
    """The differences between two `buf.validate` rule messages (FieldRules, StringRules, MessageRules, …).

    old, new: None where there are no rules; they may come from different descriptor pools.
    path: the field's, for the changes. prefix: where in the field's rules this message stands, such as "string.".
    """
    before, after = _rules(old), _rules(new)
    yield from _range_changes(before, after, path, prefix)
    for name in sorted((before.keys() | after.keys()) - RANGE_RULES):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if isinstance(was, Message) or isinstance(now, Message):
            yield from rule_changes(was, now, path, f"{prefix}{name}.")
        elif name in _CEL:
            yield from _cel_changes(was or {}, now or {}, path, f"{prefix}{name}")
        elif name == "ignore":
            was, now = was or 0, now or 0
            yield _judged(was < now, path, "ignore", _IGNORE.get(was, was), _IGNORE.get(now, now))
        else:
            yield _judged(_is_looser(name, was, now), path, prefix + name, was, now)


def _is_looser(name: str, was: Any, now: Any) -> bool:
    if was is None or now is None:
        # `strict` holds unless it is said to be false.
        return now is None and name != "strict"
    if name in _SMALLEST:
        return bool(now <= was)
    if name in _LARGEST:
        return bool(now >= was)
    if name == "in":
        return set(was) <= set(now)
    return name in {"not_in", "oneof"} and set(now) <= set(was)


def _judged(looser: bool, path: str, rule: str, was: Any, now: Any) -> Change:
    change = f"rule {rule}: {_text(was)} → {_text(now)}"
    if looser:
        return fine(path, f"{change}, which is looser")
    return breaks(path, f"{change}: rows in the log, and what producers send, may break it")


def _range_changes(before: Rules, after: Rules, path: str, prefix: str) -> Iterator[Change]:
    """The bounds together: what was allowed has to stay allowed."""
    was, now = ({name: rules[name] for name in sorted(RANGE_RULES & rules.keys())} for rules in (before, after))
    if was != now:
        looser = covers(ranges_of(now), ranges_of(was))
        yield _judged(looser, path, f"{prefix}range", _bounds(was), _bounds(now))


def _bounds(rules: Rules) -> str | None:
    return ", ".join(f"{name} {value}" for name, value in rules.items()) or None


def _cel_changes(was: Mapping[str, str], now: Mapping[str, str], path: str, rule: str) -> Iterator[Change]:
    """CEL expressions, each for itself: it is there or it is not; nobody can tell which of two is looser."""
    for expression in was:
        if expression not in now:
            yield _judged(True, path, rule, was[expression] or expression, None)
    for expression, name in now.items():
        if expression not in was:
            yield _judged(False, path, rule, None, name or expression)


def _rules(message: Message | None) -> Rules:
    """What a rule message asks for. `ignore: IGNORE_ALWAYS` takes everything beside it back."""
    if message is None:
        return {}
    rules = dict(_each_rule(message))
    if rules.get("ignore") == _IGNORE_ALWAYS:
        return {}
    beyond = _unknown(message)
    return rules | {"predefined": beyond} if beyond else rules


def _each_rule(message: Message) -> Iterator[tuple[str, Any]]:
    for field, value in message.ListFields():
        if field.name in _NO_RULE or field.is_extension or (value is False and field.name not in _FALSE_SAYS_SOMETHING):
            continue
        if field.name in _CEL:
            # By expression; an id only names it, and another message breaks nothing.
            rules = [(each, "") if isinstance(each, str) else (each.expression, each.id) for each in value]
            yield field.name, dict(rules)
        else:
            yield field.name, _plain(field, value)


def _plain(field: FieldDescriptor, value: Any) -> Any:
    if field.is_repeated:
        single: Callable[[Any], Any] = _message if field.message_type is not None else lambda each: each
        return tuple(single(each) for each in value)
    return _message(value) if field.message_type is not None else value


def _message(value: Any) -> Any:
    """Times as nanoseconds, so that they compare; other rule messages as they are, to be looked into."""
    if value.DESCRIPTOR.full_name in {"google.protobuf.Duration", "google.protobuf.Timestamp"}:
        return value.seconds * 1_000_000_000 + value.nanos
    if value.DESCRIPTOR.full_name == "buf.validate.MessageOneofRule":
        return (tuple(value.fields), value.required)
    return value


def _unknown(message: Message) -> bytes:
    """Predefined rules: extensions and unknown fields, which are CEL by way of another file."""
    rest = type(message)()
    rest.CopyFrom(message)
    for field, _ in message.ListFields():
        if not field.is_extension:
            rest.ClearField(field.name)
    return rest.SerializeToString(deterministic=True)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
