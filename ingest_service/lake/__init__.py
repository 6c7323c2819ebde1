"""The lake: a stream's rows as a Delta table, by event date, a function of the log.

Owns the export and the compaction of a date. Does not own retention, nor reading the lake (dbt and users do that).
The main types are `LakeExporter` and `LakeState`.
"""

from ingest_service.lake.exporter import ExportSettings, LakeExporter
from ingest_service.lake.table import LakeState

__all__ = ["ExportSettings", "LakeExporter", "LakeState"]
