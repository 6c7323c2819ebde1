"""Airflow reads this file: dates that got rows after their publication. See `orchestration.late_events`."""

from __future__ import annotations

from orchestration import late_events_dag

late_events = late_events_dag(tags=["retail"])
