"""The lake: a stream's rows as a Delta table, by event date, a function of the log.

Owns the export, the compaction of a date, the vacuum, and reading rows back in the order of their offsets, for readers
of what the log no longer keeps. Does not own retention, nor queries (dbt and users read the table as it is). The main
types are `LakeExporter`, `LakeState` and `WholeLog`.
"""

from ingest_service.lake.exporter import ExportSettings, LakeExporter
from ingest_service.lake.table import LakeState
from ingest_service.lake.whole_log import WholeLog, WholeLogReader

__all__ = ["ExportSettings", "LakeExporter", "LakeState", "WholeLog", "WholeLogReader"]
