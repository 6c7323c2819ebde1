"""Reads a compiled `.proto` file: which of its messages are contracts, and whether they can be."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from protovalidate import CompilationError, EvaluationError, Validator

from ingest_service.contracts.columns import columns_of
from ingest_service.contracts.contract import Column, Contract, extension, message_class, private_pool
from ingest_service.contracts.field_column import TIMESTAMP, message_within
from ingest_service.contracts.protoc import OPTIONS_FILE
from ingest_service.contracts.source_info import SourceInfo
from ingest_service.errors import ContractError

STREAM_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
DEFAULT_OUT_OF_ORDERNESS_S = 3600


def declared_contracts(compiled: descriptor_pb2.FileDescriptorSet, file: str) -> Iterator[Contract | ContractError]:
    """The contracts that one compiled file declares, nested messages included; an error in place of each wrong one.

    compiled: the file with its source info, and all that it imports, imports first.
    """
    declaring = next(each for each in compiled.file if each.name == file)
    source = SourceInfo(declaring)
    plain, commented = _without_source_info(compiled, but=""), _without_source_info(compiled, but=file)
    messages = list(private_pool(plain).FindFileByName(file).message_types_by_name.values())
    while messages:
        message = messages.pop(0)
        messages += message.nested_types
        stream = extension(message, "tidemill.v1.stream")
        if stream is None:
            continue
        try:
            if declaring.syntax != "proto3":
                raise ContractError(f'{file}: a contract is written in proto3; expected `syntax = "proto3";`')
            yield _contract(message, stream, source, plain, commented)
        except ContractError as error:
            yield ContractError(str(error), stream.name)


def _contract(message: Descriptor, stream: Any, source: SourceInfo, plain: bytes, commented: bytes) -> Contract:
    where = source.where(message)
    if not STREAM_NAME.fullmatch(stream.name):
        raise ContractError(
            f"{where}: {message.full_name} names its stream {stream.name!r}; expected up to 63 lower case letters, "
            "digits and underscores, a letter first"
        )
    columns = columns_of(message, stream.event_time, source)
    _check_event_time(message, stream.event_time, where)
    _check_event_id(message, stream.event_id, columns, where)
    if stream.key:
        _field(message, "key", stream.key, where)
    _check_rules(message, where)
    return Contract(
        stream=stream.name,
        message_type=message.full_name,
        file=message.file.name,
        version=stream.version or 1,
        event_time=stream.event_time,
        event_id=stream.event_id or None,
        key=stream.key or None,
        out_of_orderness_s=stream.out_of_orderness_s or DEFAULT_OUT_OF_ORDERNESS_S,
        doc=source.comment(message),
        columns=columns,
        schema=pa.schema([pa.field(c.name, c.type, nullable=c.nullable) for c in columns]),
        descriptor_set=plain,
        source=commented,
        content_hash=_content_hash(plain),
    )


def _check_event_time(message: Descriptor, name: str, where: str) -> None:
    if not name:
        raise ContractError(
            f"{where}: {message.full_name} does not say when its events happened; add `event_time:` with the name of a "
            f"{TIMESTAMP} field to its (tidemill.v1.stream) option"
        )
    field = _field(message, "event_time", name, where)
    if field.is_repeated or field.message_type is None or field.message_type.full_name != TIMESTAMP:
        raise ContractError(
            f"{where}: {message.full_name} has `event_time: {name!r}`, which is {_kind(field)}; expected a {TIMESTAMP}"
        )


def _check_event_id(message: Descriptor, name: str, columns: tuple[Column, ...], where: str) -> None:
    if not name:
        return
    field = _field(message, "event_id", name, where)
    column = next(column for column in columns if column.name == name)
    if field.is_repeated or field.type != FieldDescriptor.TYPE_STRING or column.is_decimal:
        raise ContractError(
            f"{where}: {message.full_name} has `event_id: {name!r}`, which is {_kind(field)}; expected a string field"
        )


def _field(message: Descriptor, option: str, name: str, where: str) -> FieldDescriptor:
    field = message.fields_by_name.get(name)
    if field is None:
        raise ContractError(
            f"{where}: {message.full_name} has `{option}: {name!r}`, but no field of that name; its fields are "
            f"{', '.join(message.fields_by_name)}"
        )
    return field


def _kind(field: FieldDescriptor) -> str:
    if field.is_repeated:
        return "repeated"
    if field.message_type is not None:
        return f"a {field.message_type.full_name}"
    name = next(name for name, number in descriptor_pb2.FieldDescriptorProto.Type.items() if number == field.type)
    return f"of type {name.removeprefix('TYPE_').lower()}"


def _check_rules(message: Descriptor, where: str) -> None:
    """Lets protovalidate compile the rules, also of messages within; it does so when it first sees a message."""
    for inner in {each.full_name: each for field in message.fields if (each := message_within(field))}.values():
        _check_rules(inner, where)
    try:
        Validator().collect_violations(message_class(message)())
    except CompilationError as error:
        raise ContractError(
            f"{where}: the buf.validate rules of {message.full_name} cannot be compiled: {error}; correct the rule; "
            "its kind must be that of the field"
        ) from error
    except EvaluationError:
        # The rules are well formed; this one only cannot judge an empty message.
        return


def _without_source_info(compiled: descriptor_pb2.FileDescriptorSet, *, but: str) -> bytes:
    """All files without lines and comments, but one."""
    plain = descriptor_pb2.FileDescriptorSet()
    plain.CopyFrom(compiled)
    for file in plain.file:
        if file.name != but:
            file.ClearField("source_code_info")
    return plain.SerializeToString(deterministic=True)


def _content_hash(plain: bytes) -> str:
    """Only the files that the stream's owner wrote: a newer protovalidate must not look like a changed contract."""
    digest = hashlib.sha256()
    for file in descriptor_pb2.FileDescriptorSet.FromString(plain).file:
        if not file.name.startswith(("google/protobuf/", "buf/validate/")) and file.name != OPTIONS_FILE:
            digest.update(file.SerializeToString(deterministic=True))
    return digest.hexdigest()
