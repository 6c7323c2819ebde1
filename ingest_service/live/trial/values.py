"""Gives fields values, whatever they hold: single values, times, messages, lists, maps."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts.contract import extension
from ingest_service.contracts.field_column import DURATION, TIMESTAMP, is_map, is_wrapper
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.scalars import Scalars

ANCHOR = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
"""The day at which made-up times begin: always the same, so that a seed makes the same events at any time."""
SPAN = dt.timedelta(days=3)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MANY = 3
_PRESENT = 0.8


class FieldValues:
    """Values of fields of any kind; draws from one random generator, so the same seed gives the same values."""

    def __init__(self, hints: Hints, rng: random.Random) -> None:
        self._rng = rng
        self._scalars = Scalars(hints, rng)

    def put(self, made: Any, field: FieldDescriptor) -> None:
        """Give a message's field a value, or several where it holds several.

        Raises ValueError or TypeError where its rules are such that nothing is made up.
        """
        rules = extension(field, "buf.validate.field")
        if is_map(field):
            self._put_map(getattr(made, field.name), field, _of_kind(rules, "map"))
        elif field.is_repeated:
            self._put_list(getattr(made, field.name), field, _of_kind(rules, "repeated"))
        elif field.message_type is not None:
            getattr(made, field.name).SetInParent()
            self._fill(getattr(made, field.name), field, rules)
        else:
            setattr(made, field.name, self._scalars.make(field, rules))

    def _put_list(self, values: Any, field: FieldDescriptor, typed: Any) -> None:
        least = int(typed.min_items) if typed is not None else 0
        most = int(typed.max_items) if typed is not None and typed.max_items else least + _MANY
        for _ in range(self._rng.randint(least, min(most, least + _MANY))):
            if field.message_type is not None:
                self._fill(values.add(), field, _part(typed, "items"))
            else:
                values.append(self._scalars.make(field, _part(typed, "items")))

    def _put_map(self, values: Any, field: FieldDescriptor, typed: Any) -> None:
        assert field.message_type is not None
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        least = int(typed.min_pairs) if typed is not None else 0
        most = int(typed.max_pairs) if typed is not None and typed.max_pairs else least + _MANY
        for _ in range(self._rng.randint(least, min(most, least + _MANY))):
            name = self._scalars.make(key, _part(typed, "keys"))
            if value.message_type is not None:
                self._fill(values[name], value, _part(typed, "values"))
            else:
                values[name] = self._scalars.make(value, _part(typed, "values"))

    def _fill(self, made: Any, field: FieldDescriptor, rules: Any) -> None:
        message = field.message_type
        assert message is not None
        if message.full_name == TIMESTAMP:
            made.FromMicroseconds(self._time_us(_of_kind(rules, "timestamp")))
        elif message.full_name == DURATION:
            made.FromMicroseconds(self._rng.choice([0, 1, 500_000, 1_500_000, 90_000_000, 86_400_000_000]))
        elif is_wrapper(field):
            made.value = self._scalars.make(message.fields_by_name["value"], rules)
        else:
            self._fill_message(made, message)

    def _fill_message(self, made: Any, message: Descriptor) -> None:
        oneofs = [oneof for oneof in message.oneofs if len(oneof.fields) > 1]
        left_out = {
            field.name for each in oneofs for field in self._rng.sample(list(each.fields), len(each.fields) - 1)
        }
        for field in message.fields:
            if field.name not in left_out and (not field.has_presence or self._rng.random() < _PRESENT):
                self.put(made, field)

    def _time_us(self, typed: Any) -> int:
        """A time of the made-up days; near now where the rules speak of now."""
        begin, span = ANCHOR, SPAN
        if typed is not None and typed.HasField("within"):
            begin, span = dt.datetime.now(dt.UTC), dt.timedelta(seconds=1)
        elif typed is not None and typed.gt_now:
            begin = dt.datetime.now(dt.UTC) + SPAN
        elif typed is not None and (typed.HasField("gt") or typed.HasField("gte")):
            bound = typed.gt if typed.HasField("gt") else typed.gte
            begin = max(begin, bound.ToDatetime(tzinfo=dt.UTC) + dt.timedelta(seconds=1))
        return (begin + span * self._rng.random() - EPOCH) // dt.timedelta(microseconds=1)


def _of_kind(rules: Any, kind: str) -> Any:
    """The rules of one kind of value, or None."""
    return getattr(rules, kind) if rules is not None and rules.HasField(kind) else None


def _part(typed: Any, name: str) -> Any:
    """The rules of a list's items, of a map's keys or values, or None."""
    return getattr(typed, name) if typed is not None and typed.HasField(name) else None
