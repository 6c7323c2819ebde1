"""The append log: one replayable, fsynced sequence of rows a stream.

Owns the frames and segments on disk, offsets, exactly-once appends (producers and event ids), the watermark, seals,
quarantine and retention. Does not know contracts' rules, protobuf or gRPC. The main types are `Log`, `LogReader`,
`Retention` and those of `records`.
"""

from ingest_service.log.log import Log
from ingest_service.log.reader import LogReader
from ingest_service.log.records import (
    PARTITION,
    SYSTEM_COLUMNS,
    Append,
    AppendResult,
    Counts,
    Entry,
    KeptRow,
    LogSpec,
    QuarantinedRow,
    Replayed,
    Rows,
    RowVerdict,
    Seal,
    Verdict,
    with_system_columns,
)
from ingest_service.log.retention import Retention, RetentionHold
from ingest_service.log.settings import LogSettings

__all__ = [
    "PARTITION",
    "SYSTEM_COLUMNS",
    "Append",
    "AppendResult",
    "Counts",
    "Entry",
    "KeptRow",
    "Log",
    "LogReader",
    "LogSettings",
    "LogSpec",
    "QuarantinedRow",
    "Replayed",
    "Retention",
    "RetentionHold",
    "RowVerdict",
    "Rows",
    "Seal",
    "Verdict",
    "with_system_columns",
]
