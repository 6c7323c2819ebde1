"""Airflow reads this file: the nightly upkeep. See `orchestration.maintain`."""

from __future__ import annotations

from orchestration import maintain_dag

maintain = maintain_dag(tags=["retail"])
