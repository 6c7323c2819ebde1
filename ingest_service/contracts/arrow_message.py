"""An Arrow row as the protobuf message that it stands for."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pt
from google.protobuf.message import Message

from ingest_service.contracts.contract import Column, Contract
from ingest_service.contracts.field_column import TIMESTAMP_TYPE
from ingest_service.contracts.wire_rows import WireRows

_US = 1_000_000


class MessageBuilder:
    """Builds the messages of single rows: those that protovalidate has to judge. Thread-safe.

    By hand, as `ptars` cannot be trusted with it: a null where protobuf has none ends the process's thread in a panic,
    and a negative zero gets lost.
    """

    def __init__(self, contract: Contract, message: type[Message]) -> None:
        self._columns = contract.columns
        self._message = message

    def build(self, rows: WireRows, row: int) -> Message:
        """The message of a row; what is null, or did not fit, is not set."""
        message = self._message()
        for column in self._columns:
            values = rows.finished.get(column.name, rows.columns[column.name])
            _set(message, column, values[row])
        return message


def _set(message: Any, column: Column, scalar: pa.Scalar) -> None:
    if not scalar.is_valid:
        return
    kind = scalar.type
    if pt.is_map(kind):
        _set_map(getattr(message, column.name), column, scalar)
    elif pt.is_list(kind):
        _set_list(message, column, scalar)
    elif pt.is_struct(kind) or kind == TIMESTAMP_TYPE or pt.is_duration(kind):
        _merge(getattr(message, column.name), column, scalar)
    else:
        field = message.DESCRIPTOR.fields_by_name[column.name]
        value = _plain(scalar)
        if field.message_type is None:
            setattr(message, column.name, value)
        else:
            getattr(message, column.name).value = value
            # A wrapper is set also where its value is zero.
            getattr(message, column.name).SetInParent()


def _set_list(message: Any, column: Column, scalar: pa.Scalar) -> None:
    element = column.children[0]
    holder = getattr(message, column.name)
    is_message = message.DESCRIPTOR.fields_by_name[column.name].message_type is not None
    for each in scalar.values:
        if not is_message:
            if each.is_valid:
                holder.append(_plain(each))
        else:
            _merge(holder.add(), element, each)


def _set_map(holder: Any, column: Column, scalar: pa.Scalar) -> None:
    is_message = hasattr(holder, "GetEntryClass") and (
        holder.GetEntryClass().DESCRIPTOR.fields_by_name["value"].message_type is not None
    )
    for pair in scalar.values:
        key, value = _plain(pair["key"]), pair["value"]
        if is_message:
            _merge(holder[key], column.children[1], value)
        elif value.is_valid:
            holder[key] = _plain(value)


def _merge(message: Any, column: Column, scalar: pa.Scalar) -> None:
    """Sets a message to a value: of a struct, a time, a duration or, as an element, a wrapper."""
    message.SetInParent()
    if not scalar.is_valid:
        return
    kind = scalar.type
    if pt.is_struct(kind):
        for child in column.children:
            _set(message, child, scalar[child.name])
    elif kind == TIMESTAMP_TYPE:
        seconds, us = divmod(scalar.value, _US)
        message.seconds, message.nanos = seconds, us * 1000
    elif pt.is_duration(kind):
        # Both parts of a duration have one sign.
        seconds, us = divmod(abs(scalar.value), _US)
        sign = -1 if scalar.value < 0 else 1
        message.seconds, message.nanos = sign * seconds, sign * us * 1000
    else:
        message.value = _plain(scalar)


def _plain(scalar: pa.Scalar) -> object:
    value = scalar.as_py()
    return format(value, "f") if pt.is_decimal(scalar.type) else value
