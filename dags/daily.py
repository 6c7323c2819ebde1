"""Airflow reads this file: the retail project's day. What it does is in the DAG's docs and in `orchestration.daily`."""

from __future__ import annotations

from orchestration import daily_dag

daily = daily_dag(tags=["retail"])
