"""What is different between two versions of a contract, and whether rows, readers and producers stay valid.

    compatible       a new field that may be absent, a looser rule, a new enum value, comments, the version
    breaks           a field that is gone, renamed, renumbered or of another type; a field that has to have a value now;
                     a tighter rule, or one of which nobody can tell; another event time, event id or message

All differences are found, not only the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor
from protovalidate import EvaluationError, Validator

from ingest_service.contracts.change import Change, breaks, fine
from ingest_service.contracts.contract import Contract, extension, message_class
from ingest_service.contracts.rule_changes import rule_changes

_GOOGLE = "google.protobuf."
_Type = descriptor_pb2.FieldDescriptorProto.Type


def compare(old: Contract, new: Contract) -> tuple[Change, ...]:
    """Every difference of `new` from `old`, two versions of one stream's contract; () where there is none.

    Where anything but a comment differs, the version has to be higher: that it is not is a change that breaks, too.
    """
    changes = [*_option_changes(old, new), *_message_changes(old.descriptor(), new.descriptor(), "")]
    changes += _new_field_changes(old, new)
    if new.version < old.version or (changes and new.version == old.version):
        changes.append(
            breaks(
                "",
                f"version {old.version} → {new.version}: expected {old.version + 1} or more, to tell the two apart; "
                "count `version` up in the (tidemill.v1.stream) option",
            )
        )
    elif new.version > old.version:
        changes.append(fine("", f"version {old.version} → {new.version}"))
    return (*changes, *_comment_changes(old, new))


def _option_changes(old: Contract, new: Contract) -> Iterator[Change]:
    if old.message_type != new.message_type:
        yield breaks("", f"message {old.message_type} → {new.message_type}: producers send the one they know")
    if old.event_time != new.event_time:
        yield breaks("", f"event_time {old.event_time} → {new.event_time}: the rows in the log have their dates by it")
    if old.event_id != new.event_id:
        was, now = old.event_id or "none", new.event_id or "none"
        yield breaks("", f"event_id {was} → {now}: which rows are duplicates was decided by it")
    if old.key != new.key:
        yield fine("", f"key {old.key or 'none'} → {new.key or 'none'}")
    if old.out_of_orderness_s != new.out_of_orderness_s:
        yield fine("", f"out_of_orderness_s {old.out_of_orderness_s} → {new.out_of_orderness_s}")


def _message_changes(old: Descriptor, new: Descriptor, prefix: str) -> Iterator[Change]:
    """The differences of two messages: the stream's own, and those inside it, whose fields have `prefix` in front."""
    yield from rule_changes(_rules(old, "message"), _rules(new, "message"), prefix.rstrip("."))
    after = dict(new.fields_by_name.items())
    for field in old.fields:
        if field.name in after:
            yield from _field_changes(field, after[field.name], prefix + field.name)
        elif (now := new.fields_by_number.get(field.number)) and now.name not in old.fields_by_name:
            yield breaks(prefix + field.name, f"renamed to {now.name}: columns, dbt models and producers know its name")
        else:
            yield breaks(prefix + field.name, "gone: the rows in the log have it, dbt models and producers may use it")
    for oneof in new.oneofs:
        was = old.oneofs_by_name.get(oneof.name)
        yield from rule_changes(_rules(was, "oneof") if was else None, _rules(oneof, "oneof"), prefix + oneof.name)
    if prefix:
        for field in new.fields:
            if field.name not in old.fields_by_name and field.number not in old.fields_by_number:
                yield breaks(prefix + field.name, "new inside a message: the rows in the log lack it there")


def _field_changes(old: FieldDescriptor, new: FieldDescriptor, path: str) -> Iterator[Change]:
    if old.number != new.number:
        yield breaks(path, f"number {old.number} → {new.number}: what producers send would be read as another field")
    was, now = _type(old), _type(new)
    if was != now:
        yield breaks(path, f"{was} → {now}: the rows in the log, and what producers send, are {was}")
        return
    if _oneof(old) != _oneof(new):
        where = f"oneof {_oneof(old) or 'none'} → {_oneof(new) or 'none'}"
        yield breaks(path, f"{where}: setting one of a oneof's fields takes the others away")
    elif old.has_presence and not new.has_presence:
        yield breaks(path, "optional → not optional: rows in the log may have no value")
    elif new.has_presence and not old.has_presence:
        yield breaks(path, "not optional → optional: a producer's zero, which does not travel, would be no value")
    yield from _option_of_field_changes(old, new, path)
    yield from rule_changes(_rules(old, "field"), _rules(new, "field"), path)
    if old.enum_type is not None and new.enum_type is not None:
        yield from _enum_changes(old.enum_type, new.enum_type, path)
    elif (
        old.message_type is not None
        and new.message_type is not None
        and not old.message_type.full_name.startswith(_GOOGLE)
    ):
        yield from _message_changes(old.message_type, new.message_type, f"{path}.")


def _option_of_field_changes(old: FieldDescriptor, new: FieldDescriptor, path: str) -> Iterator[Change]:
    was, now = _decimal(old), _decimal(new)
    if was != now:
        yield breaks(path, f"{was} → {now}: the rows in the log are {was}")
    if _personal(old) != _personal(new):
        yield fine(path, f"personal {_personal(old)} → {_personal(new)}".lower())


def _enum_changes(old: EnumDescriptor, new: EnumDescriptor, path: str) -> Iterator[Change]:
    before, after = ({value.number: value.name for value in each.values} for each in (old, new))
    for number, name in before.items():
        if number not in after:
            yield breaks(path, f"enum value {name} = {number} is gone: rows in the log may have it")
        elif after[number] != name:
            yield breaks(path, f"enum value {number} was {name} and is {after[number]}: producers know its name")
    for number, name in after.items():
        if number not in before:
            yield fine(path, f"new enum value {name} = {number}")


def _new_field_changes(old: Contract, new: Contract) -> Iterator[Change]:
    """Fields that only the new contract has: rows and producers without them have to stay valid."""
    before, after = old.descriptor(), new.descriptor()
    known = {column.name for column in old.columns}
    demanding = _broken_when_absent(after)
    for column in new.columns:
        number = after.fields_by_name[column.name].number
        if column.name in known or number in before.fields_by_number:
            continue
        if not column.nullable:
            yield breaks(column.name, "new and not optional: the rows in the log have no value for it; say `optional`")
        elif column.name in demanding:
            yield breaks(column.name, f"new, and {demanding[column.name]}: today's producers do not send it")
        elif _is_reserved(before, number, column.name):
            yield breaks(column.name, f"new with a number or name that was reserved ({number}): take another one")
        else:
            yield fine(column.name, f"new, {column.type}; null in the rows before")


def _broken_when_absent(message: Descriptor) -> dict[str, str]:
    """What protovalidate says of the fields of a message in which nothing is set."""
    try:
        violations = Validator().collect_violations(message_class(message)())
    except EvaluationError:
        return {}
    protos = [violation.proto for violation in violations]
    return {each.field.elements[0].field_name: each.message for each in protos if each.field and each.field.elements}


def _is_reserved(message: Descriptor, number: int, name: str) -> bool:
    proto = descriptor_pb2.DescriptorProto()
    message.CopyToProto(proto)
    return name in proto.reserved_name or any(each.start <= number < each.end for each in proto.reserved_range)


def _comment_changes(old: Contract, new: Contract) -> Iterator[Change]:
    """A comment that is not there says nothing: descriptors may come without any."""
    before = {column.name: column.doc for column in old.columns}
    pairs = [("", old.doc, new.doc), *((each.name, before.get(each.name), each.doc) for each in new.columns)]
    for field, was, now in pairs:
        if now and was is not None and was != now:
            yield Change(field, True, "another comment", is_comment=True)


def _type(field: Any) -> str:
    """The type of a FieldDescriptor, as people write it; a map's is its entry message."""
    named = field.message_type or field.enum_type
    name = named.full_name if named else _Type.Name(field.type).removeprefix("TYPE_").lower()
    return f"repeated {name}" if field.is_repeated else name


def _oneof(field: FieldDescriptor) -> str:
    """The oneof that the field is a member of; the one that protoc makes of a proto3 `optional` does not count."""
    oneof = field.containing_oneof
    return "" if oneof is None or oneof.name == f"_{field.name}" else str(oneof.name)


def _rules(of: Descriptor | FieldDescriptor | OneofDescriptor, kind: str) -> Any:
    return extension(of, f"buf.validate.{kind}")


def _decimal(field: FieldDescriptor) -> str:
    options = extension(field, "tidemill.v1.field")
    if options is None or not options.HasField("decimal"):
        return "text" if field.type == FieldDescriptor.TYPE_STRING else "no decimal"
    return f"DECIMAL({options.decimal.precision}, {options.decimal.scale})"


def _personal(field: FieldDescriptor) -> bool:
    options = extension(field, "tidemill.v1.field")
    return options is not None and bool(options.personal)
