"""The buf.validate rules that Arrow kernels can prove over a whole batch.

A kernel only ever proves that a row keeps a rule. What it cannot prove goes to protovalidate, whose verdict is exact;
so a kernel may be narrower than its rule, never wider. A rule that has no kernel here sends every row there.

Rules are read as protovalidate reads them: a field that tracks presence (`optional`, messages) is checked when it is
set; one that does not is always checked, its zero value included; `ignore` changes that; `required` asks for a value
that is set, and not zero where presence is not tracked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ingest_service.contracts.contract import extension
from ingest_service.contracts.kernels import Kernel, kernels_of

_FEW_ROWS = 32
"""So few rows are judged faster by protovalidate (3 µs each) than proven by some twenty kernels (4 µs each or more)."""
_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_IGNORE_UNSPECIFIED, _IGNORE_IF_ZERO_VALUE, _IGNORE_ALWAYS = 0, 1, 3


@dataclass(frozen=True, slots=True)
class FieldProof:
    """How the rules of one column are proven. `zero` is its type's zero value; None where presence is tracked."""

    column: str
    kernels: tuple[Kernel, ...]
    required: bool
    ignore_zero: bool
    has_presence: bool
    zero: Any

    def prove(self, values: pa.Array) -> pa.Array | None:
        """For each row whether its value keeps all rules; None where all do."""
        proven = None
        for kernel in self.kernels:
            proven = _and(proven, kernel(values))
        if proven is not None and self.ignore_zero:
            proven = pc.or_(proven, pc.equal(values, pa.scalar(self.zero, values.type)))
        if self.has_presence:
            if self.required:
                proven = _and(proven, values.is_valid()) if values.null_count else proven
            elif proven is not None and values.null_count:
                proven = pc.or_kleene(proven, values.is_null())
        elif self.required:
            proven = _and(proven, pc.not_equal(values, pa.scalar(self.zero, values.type)))
        return proven


@dataclass(frozen=True, slots=True)
class Proofs:
    """All rules of a message. `complete` is False where a rule has no kernel: then no row can be proven."""

    fields: tuple[FieldProof, ...]
    complete: bool

    @property
    def columns(self) -> frozenset[str]:
        """The columns whose values the kernels look at."""
        return frozenset(field.column for field in self.fields)

    def prove(self, columns: Mapping[str, pa.Array], row_count: int) -> pa.Array | None:
        """For each row whether it keeps all rules (a BooleanArray without nulls); None where all rows do."""
        if not self.complete or row_count <= _FEW_ROWS:
            return pa.repeat(pa.scalar(False), row_count)
        proven = None
        for field in self.fields:
            proven = _and(proven, field.prove(columns[field.column]))
        if proven is not None and proven.null_count:
            # A null where none can be: the caller has a rule of its own for it.
            proven = pc.fill_null(proven, False)
        return None if proven is None or proven.true_count == row_count else proven


def proofs_of(message: Descriptor, wire: pa.Schema) -> Proofs:
    """Reads a message's rules, and finds the kernels that prove them; `wire` has the types that they will see."""
    fields = []
    complete = extension(message, "buf.validate.message") is None
    for field in message.fields:
        rules = extension(field, "buf.validate.field")
        if rules is None or rules.ignore == _IGNORE_ALWAYS:
            continue
        kernels = _kernels(field, rules, wire.field(field.name).type)
        if kernels is None:
            complete = False
            continue
        fields.append(
            FieldProof(
                column=field.name,
                kernels=kernels,
                required=rules.required,
                # Where presence is tracked, protovalidate ignores what is unset, not a zero that is set.
                ignore_zero=rules.ignore == _IGNORE_IF_ZERO_VALUE and not field.has_presence,
                has_presence=field.has_presence,
                zero=None if field.message_type is not None else field.default_value,
            )
        )
    return Proofs(tuple(fields), complete)


def _kernels(field: FieldDescriptor, rules: Any, column: pa.DataType) -> tuple[Kernel, ...] | None:
    """The kernels of one field's rules; None where a rule has none."""
    kind = rules.WhichOneof("type")
    if _is_beyond_kernels(field, rules, kind):
        return None
    if kind is None:
        return ()
    typed: Message = getattr(rules, kind)
    # `example` is documentation.
    given = {each.name: value for each, value in typed.ListFields() if each.name != "example"}
    return kernels_of(kind, given, field, column)


def _is_beyond_kernels(field: FieldDescriptor, rules: Any, kind: str | None) -> bool:
    known = {"required", "ignore", kind}
    if any(each.name not in known for each, _ in rules.ListFields()) or len(UnknownFieldSet(rules)):
        return True
    if rules.ignore not in (_IGNORE_UNSPECIFIED, _IGNORE_IF_ZERO_VALUE):
        return True
    if rules.ignore and field.message_type is not None:
        return True
    if rules.required and not field.has_presence and field.type in _FLOATS:
        # Whether -0.0 is zero is for protovalidate to say.
        return True
    if kind is None:
        return False
    # Extensions and unknown fields of a kind's message are predefined rules, which are CEL.
    typed = getattr(rules, kind)
    return len(UnknownFieldSet(typed)) > 0 or any(each.is_extension for each, _ in typed.ListFields())


def _and(left: pa.Array | None, right: pa.Array | None) -> pa.Array | None:
    if left is None or right is None:
        return right if left is None else left
    return pc.and_kleene(left, right)
