"""A contract with a field of every kind that a column can hold, and random events of it."""

from __future__ import annotations

import math
import random
from decimal import Decimal
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

SCALARS = (
    "double", "float", "int32", "sint32", "sfixed32", "int64", "sint64", "sfixed64", "uint32", "fixed32", "uint64",
    "fixed64", "bool", "string", "bytes", "Kind",
)  # fmt: skip
WRAPPERS = ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
KEYS = ("int32", "sint64", "uint32", "fixed64", "bool", "string")
DECIMAL = "[(tidemill.v1.field).decimal = {precision: 20 scale: 9}]"
_NOT_FLOAT = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


def _fields() -> list[str]:
    fields = ["string id", "google.protobuf.Timestamp at"]
    for kind in SCALARS:
        name = kind.lower()
        fields += [f"{kind} plain_{name}", f"optional {kind} maybe_{name}", f"repeated {kind} many_{name}"]
    fields += [f"google.protobuf.{kind}Value wrapped_{kind.lower()}" for kind in WRAPPERS]
    fields += [f"map<{key}, string> by_{key}" for key in KEYS]
    fields += [
        "google.protobuf.Timestamp time", "repeated google.protobuf.Timestamp times",
        "google.protobuf.Duration span", "repeated google.protobuf.Duration spans",
        f"string amount {DECIMAL}", f"optional string maybe_amount {DECIMAL}", f"repeated string amounts {DECIMAL}",
        "string whole [(tidemill.v1.field).decimal = {precision: 38 scale: 0}]",
        "string price [(tidemill.v1.field).decimal = {precision: 12 scale: 3}]",
        "Inner inner", "repeated Inner inners", "map<string, Inner> inner_by", "map<int64, double> double_by",
    ]  # fmt: skip
    return fields


def proto() -> str:
    """The .proto file of the stream `every_kind`."""
    lines = []
    number = 1
    for field in _fields():
        declared, _, options = field.partition(" [")
        lines.append(f"  {declared} = {number}{' [' + options if options else ''};")
        number += 1
    lines.append(f"  oneof choice {{ int64 a_number = {number}; string a_text = {number + 1}; "
                 f"Inner an_inner = {number + 2}; }}")  # fmt: skip
    body = "\n".join(lines)
    return f"""syntax = "proto3";
package every.v1;
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "tidemill/v1/options.proto";
enum Kind {{ KIND_UNSPECIFIED = 0; KIND_ONE = 1; KIND_MINUS = -3; }}
message Inner {{
  double ratio = 1;
  optional string note = 2;
  string amount = 3 {DECIMAL};
  google.protobuf.Timestamp at = 4;
  repeated int32 numbers = 5;
  google.protobuf.Duration span = 6;
  uint64 big = 7;
}}
message EveryKind {{
  option (tidemill.v1.stream) = {{ name: "every_kind" event_id: "id" event_time: "at" }};
{body}
  string far = 5000;
}}
"""


def event(message: Any, number: int, chance: random.Random, now_us: int) -> Any:
    """A random event of the class `message`, with values at the edges of their types, in the log's precision."""
    made = message()
    _fill(made, message.DESCRIPTOR, chance)
    made.id = f"event-{number}"
    made.at.FromMicroseconds(chance.choice([0, -1, 1_323_073_560_000_000, now_us]))
    return made


def _fill(made: Any, descriptor: Descriptor, chance: random.Random) -> None:
    oneofs = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    left_out = {field.name for oneof in oneofs for field in chance.sample(list(oneof.fields), len(oneof.fields) - 1)}
    for field in descriptor.fields:
        if field.name.endswith("amount") or field.name in ("whole", "price"):
            # A decimal cannot be empty text.
            if not field.has_presence or chance.random() < 0.7:
                setattr(made, field.name, _decimal(field.name, chance))
        elif field.name in left_out or chance.random() < 0.3:
            continue
        elif _is_map(field):
            _fill_map(getattr(made, field.name), field, chance)
        elif field.is_repeated:
            values = getattr(made, field.name)
            for _ in range(chance.randrange(4)):
                if field.message_type is not None:
                    _fill_message(values.add(), field.message_type, chance)
                else:
                    values.append(_decimal("amount", chance) if field.name == "amounts" else _scalar(field, chance))
        elif field.message_type is not None:
            getattr(made, field.name).SetInParent()
            _fill_message(getattr(made, field.name), field.message_type, chance)
        else:
            setattr(made, field.name, _scalar(field, chance))


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _fill_map(values: Any, field: FieldDescriptor, chance: random.Random) -> None:
    assert field.message_type is not None
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for _ in range(chance.randrange(4)):
        if value.message_type is not None:
            _fill_message(values[_scalar(key, chance)], value.message_type, chance)
        else:
            values[_scalar(key, chance)] = _scalar(value, chance)


def _fill_message(made: Any, descriptor: Descriptor, chance: random.Random) -> None:
    match descriptor.full_name:
        case "google.protobuf.Timestamp":
            made.FromMicroseconds(chance.choice([0, -1, 1, -62_135_596_800_000_000, 253_402_300_799_999_999]))
        case "google.protobuf.Duration":
            made.FromMicroseconds(chance.choice([0, 1, -1, -1_500_000, 10**15]))
        case _:
            _fill(made, descriptor, chance)


def _decimal(name: str, chance: random.Random) -> str:
    least = Decimal(1).scaleb(-{"whole": 0, "price": 3}.get(name, 9))
    value = chance.choice([Decimal(0), Decimal(1), Decimal(-1), least, -least, Decimal(98765)])
    return format(value.quantize(least), "f")


def _scalar(field: FieldDescriptor, chance: random.Random) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return chance.choice([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308])
        case FieldDescriptor.CPPTYPE_FLOAT:
            return chance.choice([0.0, -0.0, 1.5, math.inf, math.nan, 2.0**-149])
        case FieldDescriptor.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case FieldDescriptor.CPPTYPE_ENUM:
            return chance.choice([0, 1, -3, 77])
        case FieldDescriptor.CPPTYPE_STRING:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return chance.choice([b"", b"\0\xff", b"x" * 300])
            return chance.choice(["", "x", "ü\0€", "long " * 40])
    bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    signed = field.cpp_type in _NOT_FLOAT
    edges = [-(2 ** (bits - 1)), -1, 0, 1, 2 ** (bits - 1) - 1] if signed else [0, 1, 2**bits - 1]
    return chance.choice(edges)
