"""Gives fields values, whatever they hold: single values, times, messages, lists, maps."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ingest_service.contracts.contract import extension
from ingest_service.contracts.field_column import DURATION, TIMESTAMP, is_map, is_wrapper
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.scalars import Scalars, listed

ANCHOR = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
"""The day at which made-up times begin: always the same, so that a seed makes the same events at any time."""
SPAN = dt.timedelta(days=3)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
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
            made.FromMicroseconds(self._span_us(_of_kind(rules, "duration")))
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
        if typed is not None and (typed.HasField("within") or typed.gt_now):
            span = SPAN if typed.gt_now else dt.timedelta(seconds=1)
            return to_us(
                dt.datetime.now(dt.UTC) + (span if typed.gt_now else dt.timedelta()) + span * self._rng.random()
            )
        return self._between(typed, to_us(ANCHOR), to_us(ANCHOR + SPAN))

    def _span_us(self, typed: Any) -> int:
        """A duration: mostly of seconds."""
        return self._between(typed, 0, self._rng.choice([1_000_000, 90_000_000, 86_400_000_000]))

    def _between(self, typed: Any, low: int, high: int) -> int:
        """A number of µs: between two, or as near to them as a time's or duration's rules let it be."""
        given = listed(typed)
        if given:
            return int(self._rng.choice(given).ToMicroseconds())
        bounds = {each.name: value for each, value in typed.ListFields()} if typed is not None else {}
        least = next((bounds[name].ToMicroseconds() + 1 for name in ("gt", "gte") if name in bounds), None)
        most = next((bounds[name].ToMicroseconds() - 1 for name in ("lt", "lte") if name in bounds), None)
        if least is not None and most is not None and least > most:
            most = None  # buf.validate takes these as: outside of the two
        width = high - low
        low = low if least is None else max(low, least)
        high = high if most is None else min(high, most)
        if low > high:
            low = least if least is not None else high - width
            high = most if most is not None else low + width
        return self._rng.randint(low, high)


def to_us(at: dt.datetime) -> int:
    """A time as µs since 1970 UTC."""
    return (at - _EPOCH) // dt.timedelta(microseconds=1)


def _of_kind(rules: Any, kind: str) -> Any:
    """The rules of one kind of value, or None."""
    return getattr(rules, kind) if rules is not None and rules.HasField(kind) else None


def _part(typed: Any, name: str) -> Any:
    """The rules of a list's items, of a map's keys or values, or None."""
    return getattr(typed, name) if typed is not None and typed.HasField(name) else None
