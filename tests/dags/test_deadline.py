"""A scheduled date that is not published by its hour raises an alert."""

from __future__ import annotations

import datetime as dt

import pytest
from support.hook import Hook

from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow


def test_a_date_that_is_not_published_in_time_alerts(client: AirflowClient, stack: Stack, hook: Hook) -> None:
    client.wait_dag("overdue", check=stack.check)
    client.unpause("overdue")
    alert = hook.wait(kind="deadline")
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert alert["dag_id"] == "overdue"
    # Midnight may pass while this runs.
    assert alert["name"] in {str(yesterday), str(yesterday - dt.timedelta(days=1))}
    assert f"{alert['name']} is not published by 00:00 UTC" in alert["message"]
    assert alert["url"].startswith(f"{stack.airflow_url}/dags/overdue/runs/scheduled__")
