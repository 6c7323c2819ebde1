"""Alerts: a task that failed for good, a date that was not published in time. Each is kept, and sent to a webhook.

Kept: by `quality.alerts` in the data folder, from where the `alerts` table takes them. Sent: a POST of JSON to
TIDEMILL_ALERT_WEBHOOK, if set, with what a person needs to begin: name, count, sample, where the full set is, and the
run's page. Nothing here may fail a run more than it has failed: an alert that can't be sent is a line in the log.

Airflow calls `task_failed` in the task's own process; after a task's process was killed, in the DAG processor, without
the error. `deadline_missed` runs in the executor.
"""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

WEBHOOK_VARIABLE = "TIDEMILL_ALERT_WEBHOOK"
ATTEMPTS = 3
TIMEOUT_S = 5.0
PAUSE_S = 1.0
_KILLED = "its process ended before the task did (killed, or out of memory): see the task's log"

log = logging.getLogger(__name__)


def task_failed(context: Mapping[str, Any]) -> None:
    """Raise the alert of a task that will not be tried again. A failure callback: takes Airflow's context."""
    ti = context["ti"]
    error = context.get("exception")
    message = str(error) if error is not None else _KILLED
    raise_alert(
        kind="failed",
        dag_id=ti.dag_id,
        dag_run_id=ti.run_id,
        task_id=ti.task_id,
        message=message,
        **_details(_run_of(context), ti.task_id),
    )


def deadline_missed(hour: str, context: Mapping[str, Any]) -> None:
    """Raise the alert of a scheduled date that is not published by the hour. Called with Airflow's short context."""
    run = context["dag_run"]
    if run["run_type"] != "scheduled":
        # A backfill's dates are past any deadline, and who triggers a run looks at it.
        return
    date = str(run["logical_date"])[:10]
    if _is_published(date):
        return
    raise_alert(
        kind="deadline",
        dag_id=run["dag_id"],
        dag_run_id=run["dag_run_id"],
        task_id=None,
        message=f"{date} is not published by {hour} UTC; its run is {run['state']}",
        name=date,
    )


def raise_alert(**alert: Any) -> None:
    """Keep an alert and send it; neither raises. Takes what `send_alert` does."""
    try:
        _keep(_body(**alert))
    except Exception:
        log.exception("the alert could not be kept in the data folder")
    send_alert(**alert)


def send_alert(**alert: Any) -> bool:
    """Send an alert to the webhook, if there is one; whether it was taken. Never raises.

    kind, dag_id, dag_run_id, task_id, message are needed. run_id: the run's folder, where it has one. name (of the
    model or check), count, sample and where (the file with the full set) are what is known beside them.
    """
    webhook = os.environ.get(WEBHOOK_VARIABLE)
    return bool(webhook) and send(str(webhook), _body(**alert))


def _body(
    *,
    kind: str,
    dag_id: str,
    dag_run_id: str,
    task_id: str | None,
    message: str,
    run_id: str | None = None,
    **details: Any,
) -> dict[str, Any]:
    return {
        "kind": kind,
        "dag_id": dag_id,
        "dag_run_id": dag_run_id,
        "run_id": run_id,
        "task_id": task_id,
        "message": message,
        "name": details.get("name") or task_id,
        "count": details.get("count"),
        "sample": details.get("sample"),
        "where": details.get("where"),
        "url": run_url(dag_id, dag_run_id, task_id),
        "raised_at": dt.datetime.now(dt.UTC).isoformat(),
    }


def send(webhook: str, body: Mapping[str, Any]) -> bool:
    """POST an alert, again after a pause when nobody took it; whether somebody did. Never raises.

    The address may hold a secret: it is named in no log, but for its host. Only http and https are taken, and no
    redirection is followed: a POST would become a GET without the alert, to somebody else's address.
    """
    try:
        parts = urllib.parse.urlsplit(webhook)
        host = parts.hostname or "the webhook"
    except ValueError:
        parts, host = None, "the webhook"
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        log.warning("alert not sent: %s is no http:// or https:// address with a host", WEBHOOK_VARIABLE)
        return False
    opener = urllib.request.build_opener(_NoRedirects)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        try:
            request = _request(webhook, json.dumps(body, default=str).encode())
            with opener.open(request, timeout=TIMEOUT_S):
                log.info("alert sent to %s", host)
                return True
        except urllib.error.HTTPError as error:
            with error:
                log.warning("alert not taken by %s: it answered %s", host, error.code)
            if error.code < 500 and error.code != 429:
                return False
        except (OSError, ValueError, http.client.HTTPException) as error:
            # By its kind alone: some of these say the address.
            log.warning("alert not sent to %s: %s", host, type(getattr(error, "reason", error)).__name__)
    return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection as what it is: an answer that is not the alert's being taken."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nowhere."""


def _request(webhook: str, body: bytes) -> urllib.request.Request:
    """Make the POST; a user and a password in the address are sent as such, which urllib does not do by itself."""
    parts = urllib.parse.urlsplit(webhook)
    headers = {"Content-Type": "application/json", "User-Agent": "tidemill"}
    if parts.username is not None:
        words = ":".join(urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return urllib.request.Request(parts.geturl(), data=body, headers=headers, method="POST")  # noqa: S310  # the operator's own address


def run_url(dag_id: str, dag_run_id: str, task_id: str | None = None) -> str:
    """Give the page of a run, or of a task in it."""
    from airflow.sdk.configuration import conf

    parts = ["dags", dag_id, "runs", dag_run_id, *(["tasks", task_id] if task_id else [])]
    base = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    return "/".join([base, *(urllib.parse.quote(part, safe="") for part in parts)])


def _run_of(context: Mapping[str, Any]) -> str | None:
    """Name the run's folder as the turn named it; None when the run has not come so far."""
    ti = context["ti"]
    prefix = _prefix(ti.task_id)
    try:
        turn = ti.xcom_pull(task_ids=f"{prefix}take_turn", map_indexes=ti.map_index)
    except Exception:  # noqa: BLE001  # in the DAG processor there is nobody to ask
        return None
    return turn["run_id"] if isinstance(turn, dict) else None


def _prefix(task_id: str) -> str:
    """Give the task group that a stage's day is in: "dates." in late_events, nothing in daily."""
    return "dates." if task_id.startswith("dates.") else ""


def _details(run_id: str | None, task_id: str) -> dict[str, Any]:
    """Take from the run's record what failed: names, rows, a sample, and the file with all of it."""
    if run_id is None:
        return {}
    try:
        from quality.config import DayConfig
        from quality.run import load_run

        failures = load_run(DayConfig.from_environment(), run_id).failures
    except Exception:
        log.exception("run %s cannot be read", run_id)
        return {"run_id": run_id}
    stage = task_id.removeprefix(_prefix(task_id))
    found = [failure for failure in failures if failure["stage"] == {"docs": "document"}.get(stage, stage)]
    rows = [failure["rows"] for failure in found if failure["rows"] is not None]
    return {
        "run_id": run_id,
        "name": ", ".join(name for failure in found for name in failure["names"]) or None,
        "count": sum(rows) if rows else None,
        "sample": next((failure["sample"] for failure in found if failure["sample"]), None),
        "where": next((failure["file"] for failure in found if failure["file"]), None),
    }


def _is_published(date: str) -> bool:
    """Whether the date is published, with all streams that have events of it; False when that cannot be told."""
    try:
        from quality import late
        from quality.config import DayConfig
        from quality.publish import publications

        config = DayConfig.from_environment()
        held = any(each["first_date"] <= date <= each["last_date"] for each in publications(config))
        return held and not any(date in dates for dates in late.left_out(config).values())
    except Exception:
        log.exception("the warehouse, or the ingest service, cannot be asked for %s", date)
        return False


def _keep(body: Mapping[str, Any]) -> None:
    from quality import alerts
    from quality.config import DayConfig

    sample = [row if isinstance(row, str) else json.dumps(row, default=str) for row in body["sample"] or []]
    alerts.raise_alert(
        DayConfig.from_environment(),
        body["kind"],
        body["dag_id"],
        body["run_id"] or body["dag_run_id"],
        body["task_id"] or "",
        body["message"],
        sample,
        body["where"] or body["url"],
    )
