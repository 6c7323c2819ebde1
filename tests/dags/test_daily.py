"""`daily` in a real Airflow, over a real service: sealed, checked, built, reconciled, published, documented."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest

import tidemill
from tidemill.local.airflow_client import AirflowClient
from tidemill.local.stack import Stack

pytestmark = pytest.mark.airflow
DATE = dt.date(2011, 12, 5)
STAGES = ["seal", "check_sources", "dbt", "check_marts", "reconcile", "publish", "docs"]
ROWS = 500


@pytest.fixture(scope="module")
def sent(stack: Stack) -> int:
    """A morning of sales."""
    start = dt.datetime.combine(DATE, dt.time(8), dt.UTC)
    with tidemill.connect(stack.address) as service:
        lines = service.stream("order_lines")
        acks = [
            lines.send(
                {
                    "event_id": f"line-{number}",
                    "invoice_no": str(536365 + number // 5),
                    "stock_code": f"S{number % 17}",
                    "description": "a lantern",
                    "quantity": 1 + number % 3,
                    "unit_price": Decimal("2.55"),
                    "invoiced_at": start + dt.timedelta(seconds=20 * number),
                    "customer_id": 17850 + number % 40,
                    "country": ("France", "Germany")[number // 5 % 2],
                }
            )
            for number in range(ROWS)
        ]
        for ack in acks:
            ack.result()
    return ROWS


def run_daily(client: AirflowClient, stack: Stack, conf: dict[str, Any]) -> tuple[str, str]:
    run = f"test {uuid.uuid4().hex[:8]}".replace(" ", "~")
    client.trigger("daily", conf, run)
    for _ in client.follow("daily", run, check=stack.check):
        pass
    return run, client.run_state("daily", run)


def test_a_day_is_published_and_may_be_run_again(client: AirflowClient, stack: Stack, sent: int) -> None:
    conf = {"date": DATE.isoformat(), "force": True}
    for _ in range(2):
        run, state = run_daily(client, stack, conf)
        assert state == "success", client.failures("daily", run)
        results = {stage: client.result("daily", run, stage) for stage in STAGES}
        assert results["seal"]["streams"]["order_lines"]["seal_offset"] == sent
        view = results["reconcile"]["views"]["sales_by_minute"]
        assert view["windows"] > 0
        assert view["differences"] == 0
        assert results["publish"]["date"] == DATE.isoformat()
    for made in (stack.folder.warehouse, stack.folder.dbt_docs, stack.folder.data_docs):
        assert made.stat().st_size > 0


def test_a_date_that_is_not_complete_fails_at_once_and_says_so(client: AirflowClient, stack: Stack, sent: int) -> None:
    run, state = run_daily(client, stack, {"date": dt.datetime.now(dt.UTC).date().isoformat()})
    assert state == "failed"
    (failure,) = client.failures("daily", run)
    assert failure.task_id == "seal"
    assert "watermark" in failure.message


def test_a_run_without_any_date_says_what_is_missing(client: AirflowClient, stack: Stack) -> None:
    run, state = run_daily(client, stack, {})
    assert state == "failed"
    (failure,) = client.failures("daily", run)
    assert failure.message == "this run has neither a date nor a data interval: trigger it again with a date"
