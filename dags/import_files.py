"""Airflow reads this file: the landing folder's files, sent to their streams. See `orchestration.import_files`."""

from __future__ import annotations

from orchestration import import_files_dag

import_files = import_files_dag(tags=["retail"])
