"""The buf.validate rules that can be proven over a whole batch, nested ones included.

A kernel only ever proves that a row keeps a rule. What it cannot prove goes to protovalidate, whose verdict is exact;
so a kernel may be narrower than its rule, never wider. A field's rule that no Arrow kernel proves is asked about once
for each distinct value (`asked.py`). What is left are rules about a whole message, or about the elements of a list
together: with one of these, every row goes to protovalidate.

Rules are read as protovalidate reads them: a field that tracks presence (`optional`, messages, members of a oneof) is
checked when it is set; one that does not is always checked, its zero value included; `ignore` changes that; `required`
asks for a value that is set, and not zero where presence is not tracked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from google.protobuf.descriptor import Descriptor, FieldDescriptor, OneofDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet
from protovalidate import Validator

from ingest_service.contracts.asked import asking_kernel
from ingest_service.contracts.contract import extension
from ingest_service.contracts.field_column import is_map, message_within
from ingest_service.contracts.kernels import Kernel, kernels_of
from ingest_service.contracts.leaves import entries, rows_where_all
from ingest_service.contracts.proofs import FieldProof, Proofs

_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_IGNORE_UNSPECIFIED, _IGNORE_IF_ZERO_VALUE, _IGNORE_ALWAYS = 0, 1, 3


def proofs_of(message: Descriptor, wire: pa.Schema) -> Proofs:
    """Reads a message's rules, and finds the kernels that prove them; `wire` has the types that they will see."""
    return _Rules(Validator()).proofs(message, {field.name: field.type for field in wire})


class _Rules:
    """Reads rules; `None` instead of kernels says that there are rules which cannot be proven."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    def proofs(self, message: Descriptor, types: Mapping[str, pa.DataType]) -> Proofs:
        fields = []
        complete = extension(message, "buf.validate.message") is None
        for field in message.fields:
            rules = extension(field, "buf.validate.field")
            if rules is not None and rules.ignore == _IGNORE_ALWAYS:
                continue
            kernels = self._of_field(field, rules, types[field.name])
            if kernels is None:
                complete = False
            elif kernels or (rules is not None and rules.required):
                fields.append(_field_proof(field, rules, kernels))
        oneofs = tuple(tuple(each.name for each in oneof.fields) for oneof in message.oneofs if _is_required(oneof))
        return Proofs(tuple(fields), oneofs, complete)

    def _of_field(self, field: FieldDescriptor, rules: Any, column: pa.DataType) -> tuple[Kernel, ...] | None:
        """The kernels of a field: of its own rules, and of those of the messages within it."""
        inner = message_within(field)
        if field.is_repeated:
            return self._of_many(field, rules, column)
        if inner is None:
            return self._of_value(field, rules, column)
        # A message has no rules of a kind, apart from Any and FieldMask; what is within it is checked where it is set.
        own = () if rules is None or _says_only(rules, "required", "ignore") else None
        nested = self._of_message(inner, column)
        if own is None or nested is None or (rules is not None and rules.ignore):
            return None
        return nested

    def _of_message(self, message: Descriptor, column: pa.DataType) -> tuple[Kernel, ...] | None:
        """The kernel of all rules within a message; none where it has no rules."""
        proofs = self.proofs(message, {field.name: field.type for field in column})
        if not proofs.complete:
            return None
        if not proofs.fields and not proofs.oneofs:
            return ()

        def kernel(values: pa.Array) -> pa.Array:
            # A null struct's fields are null.
            proven = proofs.proven({field.name: pc.struct_field(values, field.name) for field in values.type})
            if proven is None:
                proven = pa.repeat(pa.scalar(True), len(values))
            return pc.if_else(values.is_valid(), pc.fill_null(proven, False), pa.scalar(None, pa.bool_()))

        return (kernel,)

    def _of_value(self, field: FieldDescriptor, rules: Any, column: pa.DataType) -> tuple[Kernel, ...] | None:
        if rules is None:
            return ()
        kernels = None if _is_beyond_kernels(field, rules) else _typed_kernels(rules, field, column)
        if kernels is not None:
            return kernels
        if pt.is_timestamp(column) or pt.is_duration(column):
            # The column lacks the nanoseconds that a rule may be about.
            return None
        if rules.ignore and field.message_type is not None:
            return None
        return (asking_kernel(field, self._validator),)

    def _of_many(self, field: FieldDescriptor, rules: Any, column: pa.DataType) -> tuple[Kernel, ...] | None:
        """Those of a list or map: about how many, and about each."""
        kind, parts = "repeated", {"items": field}
        if is_map(field):
            assert field.message_type is not None
            kind, parts = "map", {f"{name}s": field.message_type.fields_by_name[name] for name in ("key", "value")}
        if rules is not None and not _says_only(rules, "required", "ignore", kind):
            return None
        typed = getattr(rules, kind) if rules is not None else None
        known = [_count_kernels(typed, kind)]
        known += [self._of_each(part, typed, name, column) for name, part in parts.items()]
        # None of them may be left out.
        return None if None in known else tuple(kernel for kernels in known for kernel in kernels or ())

    def _of_each(self, part: FieldDescriptor, typed: Any, name: str, column: pa.DataType) -> tuple[Kernel, ...] | None:
        """The kernels of a list's elements, of a map's keys or values, as kernels of whole rows."""
        rules = getattr(typed, name) if typed is not None and typed.HasField(name) else None
        if rules is not None and rules.ignore == _IGNORE_ALWAYS:
            return ()
        kind = column.value_type if name == "items" else column.key_type if name == "keys" else column.item_type
        inner = message_within(part)
        kernels: tuple[Kernel, ...] | None = ()
        if rules is not None:
            beyond = _is_beyond_kernels(part, rules) or rules.required or rules.ignore
            kernels = None if beyond else _typed_kernels(rules, part, kind)
        nested = () if inner is None else self._of_message(inner, kind)
        if kernels is None or nested is None:
            return None
        return tuple(_each(kernel, name) for kernel in (*kernels, *nested))


def _field_proof(field: FieldDescriptor, rules: Any, kernels: tuple[Kernel, ...]) -> FieldProof:
    ignore = 0 if rules is None else rules.ignore
    return FieldProof(
        column=field.name,
        kernels=kernels,
        required=rules is not None and rules.required,
        # Where presence is tracked, protovalidate ignores what is unset, not a zero that is set.
        ignore_zero=ignore == _IGNORE_IF_ZERO_VALUE and not field.has_presence,
        has_presence=field.has_presence,
        is_zero=_zero_kernel(field),
    )


def _zero_kernel(field: FieldDescriptor) -> Kernel:
    if field.is_repeated:
        return lambda values: pc.equal(_counts(values), 0)
    # Not asked of what tracks presence.
    zero = None if field.message_type is not None else field.default_value
    if field.type in _FLOATS:
        # In a list 0.0 stands for itself alone; -0.0 is equal to it, but no zero value.
        return lambda values: pc.is_in(values, value_set=pa.array([zero], values.type))
    return lambda values: pc.equal(values, pa.scalar(zero, values.type))


def _each(kernel: Kernel, name: str) -> Kernel:
    """A kernel of elements as one of the rows that they are in."""

    def of_rows(values: pa.Array) -> pa.Array:
        elements, rows = entries(values)
        if name != "items":
            elements = pc.struct_field(elements, name[:-1])
        return rows_where_all(kernel(elements), rows, len(values))

    return of_rows


def _count_kernels(typed: Any, kind: str) -> tuple[Kernel, ...] | None:
    """The kernels about how many elements there are; None where a rule is about all of them together."""
    if typed is None:
        return ()
    least, most, parts = (
        ("min_items", "max_items", ("items",)) if kind == "repeated" else ("min_pairs", "max_pairs", ("keys", "values"))
    )
    if not _says_only(typed, least, most, *parts):
        return None
    kernels: list[Kernel] = []
    if typed.HasField(least):
        at_least = getattr(typed, least)
        kernels.append(lambda values: pc.greater_equal(_counts(values), pa.scalar(at_least, pa.uint64())))
    if typed.HasField(most):
        at_most = getattr(typed, most)
        kernels.append(lambda values: pc.less_equal(_counts(values), pa.scalar(at_most, pa.uint64())))
    return tuple(kernels)


def _counts(values: pa.Array) -> pa.Array:
    if pt.is_map(values.type):
        pair = pa.struct([("key", values.type.key_type), ("value", values.type.item_type)])
        values = values.cast(pa.list_(pair))
    return pc.list_value_length(values).cast(pa.uint64())


def _typed_kernels(rules: Any, field: FieldDescriptor, column: pa.DataType) -> tuple[Kernel, ...] | None:
    """The kernels of the rules of a value's kind; None where a rule has none."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return ()
    typed: Message = getattr(rules, kind)
    # `example` is documentation.
    given = {each.name: value for each, value in typed.ListFields() if each.name != "example"}
    return kernels_of(kind, given, field, column)


def _is_beyond_kernels(field: FieldDescriptor, rules: Any) -> bool:
    kind = rules.WhichOneof("type")
    if not _says_only(rules, "required", "ignore", kind):
        return True
    if rules.ignore not in (_IGNORE_UNSPECIFIED, _IGNORE_IF_ZERO_VALUE):
        return True
    if rules.ignore and field.message_type is not None:
        return True
    # Extensions and unknown fields of a kind's message are predefined rules, which are CEL.
    return kind is not None and not _says_only(getattr(rules, kind), *_names(getattr(rules, kind)))


def _says_only(rules: Any, *names: str | None) -> bool:
    """Whether no other fields are set, nor extensions and fields that this version does not know."""
    if len(UnknownFieldSet(rules)) > 0:
        return False
    return all(each.name in names and not each.is_extension for each, _ in rules.ListFields())


def _names(rules: Any) -> Iterator[str]:
    return (field.name for field in rules.DESCRIPTOR.fields)


def _is_required(oneof: OneofDescriptor) -> bool:
    rules = extension(oneof, "buf.validate.oneof")
    return rules is not None and bool(rules.required)
