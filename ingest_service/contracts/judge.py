"""The exact verdict over single rows: protovalidate's, and Tidemill's own rules beside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from google.protobuf.message import Message
from protovalidate import EvaluationError, Validator

from ingest_service.contracts.contract import Contract
from ingest_service.contracts.own_rules import RULE_FAILED
from ingest_service.contracts.shown import shown


class Broken(NamedTuple):
    """A rule that a row breaks. `field` is empty where the rule is about the message as a whole."""

    rule: str
    field: str
    message: str


class Judge:
    """Asks protovalidate about rows that the kernels could not prove; thread-safe."""

    def __init__(self, contract: Contract) -> None:
        self._validator = Validator()
        self._order = {column.name: index for index, column in enumerate(contract.columns)}

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
        return min(broken, key=lambda each: self._order.get(each.field, len(self._order)), default=None)


def _broken(proto: Any, message: Message) -> Broken:
    field = proto.field.elements[0].field_name if proto.field and proto.field.elements else ""
    text = proto.message or f"must keep the rule {proto.rule_id}"
    if not field:
        return Broken(proto.rule_id, "", f"expected of the row: {text}")
    return Broken(proto.rule_id, field, f"{text}, came {_shown_field(message, field)}")


def _shown_field(message: Message, field: str) -> str:
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    if descriptor.has_presence and not message.HasField(field):
        return shown(None)
    value = getattr(message, field)
    if descriptor.message_type is None:
        return shown(value)
    try:
        return str(value.ToJsonString())
    except ValueError:
        # A time that the calendar does not have.
        return f"{value.seconds} s since 1970"
