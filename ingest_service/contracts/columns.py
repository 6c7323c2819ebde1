"""The columns of a contract: one for each field of its message."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.descriptor import Descriptor

from ingest_service.contracts.contract import Column
from ingest_service.contracts.field_column import check_case, column_of
from ingest_service.contracts.source_info import SourceInfo
from ingest_service.errors import ContractError
from ingest_service.log.records import SYSTEM_COLUMNS


def columns_of(message: Descriptor, event_time: str, source: SourceInfo) -> tuple[Column, ...]:
    """One column for each field, in the fields' order. The event time's column is not nullable.

    Raises ContractError where a field cannot be a column, or two columns would have one name.
    """
    columns = []
    for field in message.fields:
        column = column_of(field, source.where(field))
        nullable = column.nullable and field.name != event_time
        columns.append(replace(column, nullable=nullable, doc=source.comment(field)))
    _check_names(message, source)
    return tuple(columns)


def _check_names(message: Descriptor, source: SourceInfo) -> None:
    """The log adds columns of its own."""
    taken = {column.name for column in SYSTEM_COLUMNS}
    for index, field in enumerate(message.fields):
        lower = field.name.lower()
        if lower.startswith("_") or lower in taken:
            raise ContractError(
                f"{source.where(field)}: the name {field.full_name} is Tidemill's: every row gets the columns "
                f"{', '.join(sorted(taken))}, and names with an underscore in front are kept for more; rename the field"
            )
        check_case([each.name for each in message.fields[: index + 1]], message.full_name, source.where(field))
