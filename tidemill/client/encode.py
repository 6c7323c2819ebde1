"""Events given as dicts, as messages of their contract.

Types are checked here, where the sender can still see its own line of code; what a value may be is the contract's to
say, and the service's to check.
"""

from __future__ import annotations

import datetime as dt
import difflib
import operator
from collections.abc import Callable, Container, Iterable, Mapping
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from tidemill.errors import BadEvent
from tidemill.v1 import options_pb2

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIMESTAMP = "google.protobuf.Timestamp"
_DURATION = "google.protobuf.Duration"

Convert = Callable[[object, str], object]

_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, (1 << 64) - 1),
}


class DictEncoder:
    """Makes messages from dicts: one converter a field, chosen once. Thread-safe."""

    def __init__(self, message: type[Message], decimals: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._message = message
        descriptor: Any = message.DESCRIPTOR
        self._convert = _converters(descriptor, decimals or {})

    def encode(self, event: Mapping[str, object]) -> bytes:
        """The event as a serialized message; None leaves a field out. Raises BadEvent with the field's path."""
        message: Message = self._message(**_values(event, self._convert, ""))
        return message.SerializeToString()


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The text for a name that does not exist: which, the nearest one that does, and all of them."""
    listed = sorted(known)
    near = difflib.get_close_matches(name, listed, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"there is no {what} {name!r}{hint}; the {what}s are: {', '.join(listed) or 'none'}"


def _values(event: Mapping[str, object], converters: Mapping[str, Convert], path: str) -> dict[str, object]:
    values = {}
    for name, value in event.items():
        convert = converters.get(name)
        if convert is None:
            raise BadEvent(unknown_name("field", f"{path}{name}", [path + known for known in converters]), path + name)
        if value is not None:
            values[name] = convert(value, path + name)
    return values


def _converters(descriptor: Descriptor, decimals: Container[str]) -> dict[str, Convert]:
    return {field.name: _converter(field, field.name in decimals) for field in descriptor.fields}


def _converter(field: FieldDescriptor, decimal: bool) -> Convert:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return _map(message)
    single = _decimal if decimal else _single(field)
    return _repeated(single) if field.is_repeated else single


def _single(field: FieldDescriptor) -> Convert:
    kind = field.cpp_type
    if kind in _BITS:
        return _integer(*_BITS[kind])
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        message = field.message_type
        assert message is not None
        return _message(message)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes if field.type == FieldDescriptor.TYPE_BYTES else _string
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        assert field.enum_type is not None
        return _enum(field.enum_type)
    return _bool if kind == FieldDescriptor.CPPTYPE_BOOL else _float


def _message(message: Descriptor) -> Convert:
    if message.full_name == _TIMESTAMP:
        return _timestamp
    if message.full_name == _DURATION:
        return _duration
    is_google = message.full_name.startswith("google.protobuf.")
    if is_google and list(message.fields_by_name) == ["value"]:
        # A wrapper, such as Int64Value: a value that may be missing.
        return _wrapped(_single(message.fields_by_name["value"]))
    return _nested(message)


def _wrong(path: str, expected: str, value: object, hint: str = "") -> BadEvent:
    came = f"{type(value).__name__} {value!r}"
    return BadEvent(f"field {path!r}: expected {expected}, came {came[:120]}{hint}", path)


def _string(value: object, path: str) -> object:
    if not isinstance(value, str):
        raise _wrong(path, "a str", value)
    return value


def _bytes(value: object, path: str) -> object:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise _wrong(path, "bytes", value)
    return bytes(value)


def _bool(value: object, path: str) -> object:
    if not isinstance(value, bool):
        raise _wrong(path, "a bool", value)
    return value


def _float(value: object, path: str) -> object:
    if isinstance(value, bool) or not (isinstance(value, int | float) or hasattr(value, "__float__")):
        raise _wrong(path, "a number", value)
    return float(value)


def _integer(least: int, most: int) -> Convert:
    def convert(value: object, path: str) -> object:
        try:
            number = operator.index(value)  # type: ignore[arg-type]  # also numpy's integers
        except TypeError:
            raise _wrong(path, "an int", value) from None
        if isinstance(value, bool):
            raise _wrong(path, "an int", value)
        if not least <= number <= most:
            raise _wrong(path, f"an int from {least} to {most}", value)
        return number

    return convert


def _decimal(value: object, path: str) -> object:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        hint = "; a float is not exact: give Decimal('2.55') or '2.55'" if isinstance(value, float) else ""
        raise _wrong(path, "a decimal number (Decimal, int or str)", value, hint)
    if isinstance(value, Decimal) and not value.is_finite():
        raise _wrong(path, "a finite decimal number", value)
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _timestamp(value: object, path: str) -> object:
    moment = value
    if isinstance(value, str):
        try:
            moment = dt.datetime.fromisoformat(value)
        except ValueError:
            raise _wrong(path, "a time such as '2011-12-05T08:26:00Z'", value) from None
    if isinstance(moment, Message) and moment.DESCRIPTOR.full_name == _TIMESTAMP:
        stamp: Any = moment
        return {"seconds": stamp.seconds, "nanos": stamp.nanos}
    if not isinstance(moment, dt.datetime):
        raise _wrong(path, "a datetime with a time zone", value)
    if moment.utcoffset() is None:
        hint = "; say which zone it is in: datetime(..., tzinfo=datetime.UTC), or value.replace(tzinfo=ZoneInfo(...))"
        raise _wrong(path, "a datetime with a time zone", value, hint)
    since = moment - _EPOCH
    return {"seconds": since.days * 86_400 + since.seconds, "nanos": since.microseconds * 1000}


def _duration(value: object, path: str) -> object:
    if isinstance(value, Message) and value.DESCRIPTOR.full_name == _DURATION:
        given: Any = value
        return {"seconds": given.seconds, "nanos": given.nanos}
    if not isinstance(value, dt.timedelta):
        raise _wrong(path, "a timedelta", value)
    # Both parts have one sign.
    size = abs(value)
    sign = 1 if value == size else -1
    return {"seconds": sign * (size.days * 86_400 + size.seconds), "nanos": sign * size.microseconds * 1000}


def _wrapped(single: Convert) -> Convert:
    return lambda value, path: {"value": single(value, path)}


def _enum(descriptor: EnumDescriptor) -> Convert:
    names = descriptor.values_by_name

    def convert(value: object, path: str) -> object:
        if isinstance(value, str):
            if value not in names:
                raise BadEvent(f"field {path!r}: {unknown_name('value', value, names)}", path)
            return names[value].number
        return _integer(*_BITS[FieldDescriptor.CPPTYPE_INT32])(value, path)

    return convert


def _nested(descriptor: Descriptor) -> Convert:
    # Made at first use: a message may hold itself.
    converters: dict[str, Convert] = {}

    def convert(value: object, path: str) -> object:
        if not isinstance(value, Mapping):
            raise _wrong(path, f"a dict ({descriptor.full_name})", value)
        if not converters:
            converters.update(_converters(descriptor, _decimals(descriptor)))
        return _values(value, converters, f"{path}.")

    return convert


def _decimals(descriptor: Descriptor) -> set[str]:
    """The fields that are decimal numbers, where the message's options are known."""
    declared: Any = options_pb2.field
    return {field.name for field in descriptor.fields if field.GetOptions().Extensions[declared].HasField("decimal")}


def _repeated(single: Convert) -> Convert:
    def convert(value: object, path: str) -> object:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            raise _wrong(path, "a list", value)
        return [single(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return convert


def _map(entry: Descriptor) -> Convert:
    key, single = (_single(entry.fields_by_name[name]) for name in ("key", "value"))

    def convert(value: object, path: str) -> object:
        if not isinstance(value, Mapping):
            raise _wrong(path, "a dict", value)
        return {key(name, path): single(item, f"{path}[{name!r}]") for name, item in value.items()}

    return convert
