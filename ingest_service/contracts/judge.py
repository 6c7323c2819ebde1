"""The exact verdict over single rows: protovalidate's, and Tidemill's own rules beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from protovalidate import EvaluationError, Validator

from ingest_service.contracts.contract import Contract
from ingest_service.contracts.field_column import is_wrapper
from ingest_service.contracts.own_rules import RULE_FAILED
from ingest_service.contracts.shown import SHOWN_CHARACTERS, shown


class Broken(NamedTuple):
    """A rule that a row breaks.

    field: the path of the value, such as `quantity`, `lines[2].price` or `labels["colour"]`; a oneof's name where the
        rule is about the oneof; empty where it is about the message as a whole.
    """

    rule: str
    field: str
    message: str


class Judge:
    """Asks protovalidate about rows that the kernels could not prove; thread-safe."""

    def __init__(self, contract: Contract) -> None:
        self._validator = Validator()
        self._order: dict[str, int] = {}
        for index, column in enumerate(contract.columns):
            self._order[column.name] = index
            if column.oneof:
                self._order.setdefault(column.oneof, index)

    def broken(self, message: Message) -> list[Broken]:
        """The buf.validate rules that the message breaks, by field and rule."""
        try:
            violations = self._validator.collect_violations(message)
        except EvaluationError as error:
            return [Broken(RULE_FAILED, "", f"expected rules that can judge the row, but one failed: {error}")]
        return [_broken(violation.proto, message) for violation in violations]

    def first(self, broken: Iterable[Broken]) -> Broken | None:
        """The verdict: the first rule in the order of fields; rules of one field keep the order given.

        Rules about the message as a whole come last; None if there is no rule.
        """
        return min(broken, key=self._position, default=None)

    def _position(self, broken: Broken) -> int:
        root = re.split(r"[.\[{]", broken.field, maxsplit=1)[0]
        return self._order.get(root, len(self._order))


def _broken(proto: Any, message: Message) -> Broken:
    path = list(proto.field.elements) if proto.field else []
    text = proto.message or f"must keep the rule {proto.rule_id}"
    if not path:
        return Broken(proto.rule_id, "", f"expected of the row: {text}")
    if proto.for_key:
        return Broken(proto.rule_id, shown_path(path), f"of the key: {text}, came {shown(path[-1].subscript.value)}")
    return Broken(proto.rule_id, shown_path(path), f"{text}, came {_came(message, path)}")


def shown_path(path: Sequence[Any]) -> str:
    """A violation's place as protovalidate writes it: `lines[2].price`, `labels["colour"]`."""
    text = ""
    for element in path:
        text += f".{element.field_name}" if text else element.field_name
        subscript = element.subscript
        if subscript is not None:
            text += f"[{json.dumps(subscript.value, ensure_ascii=False)}]"
    return text


def _came(message: Message, path: Sequence[Any]) -> str:
    """The value at a place, for a message; a oneof's is what is missing."""
    value: Any = message
    for element in path:
        field = value.DESCRIPTOR.fields_by_name.get(element.field_name)
        if field is None or (field.has_presence and not value.HasField(element.field_name)):
            return shown(None)
        value = getattr(value, element.field_name)
        if element.subscript is not None:
            value = value[element.subscript.value]
        elif is_wrapper(field):
            value = value.value
    if not isinstance(value, Message):
        return shown(value)
    try:
        return str(value.ToJsonString())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        # No time or duration, or one that the calendar does not have.
        return " ".join(str(value).split())[:SHOWN_CHARACTERS] or "nothing in it"
