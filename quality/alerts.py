"""Alerts: what somebody should know of, one JSON file each in `alerts` of the data folder.

The next publication takes them into the warehouse (`quality.operations`).
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Sequence
from typing import Any

from quality.config import DayConfig
from quality.files import write_atomically

FIELDS = ("alert_id", "raised_at", "kind", "dag_id", "run_id", "task_id", "message", "sample", "where")


def raise_alert(
    config: DayConfig,
    kind: str,
    dag_id: str,
    run_id: str,
    task_id: str,
    message: str,
    sample: Sequence[str] = (),
    where: str = "",
) -> dict[str, Any]:
    """Write an alert, on disk when this returns; give it.

    kind: what sort of thing happened, such as "failed" or "deadline". sample: some of the rows that it is about.
    where: the file that holds all of them, or the log. Two alerts never share a file.
    """
    raised_at = dt.datetime.now(dt.UTC)
    alert = {
        "alert_id": uuid.uuid4().hex,
        "raised_at": raised_at.isoformat(),
        "kind": kind,
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "message": message,
        "sample": list(sample),
        "where": where,
    }
    name = f"{raised_at:%Y%m%dT%H%M%S.%fZ}-{alert['alert_id'][:12]}.json"
    write_atomically(config.alerts / name, json.dumps(alert, indent=2, ensure_ascii=False) + "\n")
    return alert


def list_alerts(config: DayConfig, since: dt.datetime | None = None) -> list[dict[str, Any]]:
    """Give the alerts, oldest first; only those raised at or after `since`, where it is given.

    A file that is none of ours is passed over.
    """
    if not config.alerts.is_dir():
        return []
    # Names begin with the time, of a fixed width: their order is the time's.
    from_name = f"{since.astimezone(dt.UTC):%Y%m%dT%H%M%S.%fZ}" if since else ""
    alerts = []
    for file in sorted(config.alerts.glob("*.json")):
        if file.name < from_name:
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.keys() >= set(FIELDS):
            alerts.append(content)
    return alerts
