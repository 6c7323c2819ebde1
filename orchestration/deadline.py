"""The hour by which a date is to be published."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import Any

DEADLINE_VARIABLE = "TIDEMILL_DEADLINE"
_HOUR = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def publication_deadline(hour: str | None) -> Any:
    """Give the DeadlineAlert of a DAG whose interval is a date; None without an hour.

    hour: UTC, such as "06:00", of the day after the date; None: TIDEMILL_DEADLINE. Raises ValueError for another form:
    the DAG then shows as broken.
    """
    wanted = os.environ.get(DEADLINE_VARIABLE, "") if hour is None else hour
    if not wanted:
        return None
    from airflow.sdk.definitions.callback import SyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    found = _HOUR.fullmatch(wanted)
    if not found:
        raise ValueError(f'{DEADLINE_VARIABLE}: expected an hour of the day (UTC) such as "06:00", came {wanted!r}')
    after = timedelta(days=1, hours=int(found[1]), minutes=int(found[2]))
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_LOGICAL_DATE,
        interval=after,
        # By the executor, not the triggerer: the webhook may take its time.
        callback=SyncCallback("orchestration.alerts.deadline_missed", kwargs={"hour": wanted}),
        name=f"published by {wanted} UTC",
    )
