import datetime as dt
import json
import os

from quality.alerts import FIELDS, list_alerts, raise_alert
from quality.config import DayConfig


def test_an_alert_is_a_file_of_its_own_and_is_listed_in_its_order(config: DayConfig):
    assert list_alerts(config) == []
    first = raise_alert(config, "failed", "daily", "r1", "check_marts", "3 of 4 rows ≠", ["a=1"], "/rows.parquet")
    second = raise_alert(config, "deadline", "daily", "", "", "not published")
    assert list_alerts(config) == [first, second]
    assert set(first) == set(FIELDS)
    assert (first["sample"], first["where"], second["sample"]) == (["a=1"], "/rows.parquet", [])
    assert len(os.listdir(config.alerts)) == 2


def test_only_those_since_a_time_are_listed(config: DayConfig):
    raise_alert(config, "failed", "daily", "r1", "t", "old")
    since = dt.datetime.now(dt.UTC)
    new = raise_alert(config, "failed", "daily", "r1", "t", "new")
    assert list_alerts(config, since) == [new]
    assert list_alerts(config, since.astimezone(dt.timezone(dt.timedelta(hours=9)))) == [new]


def test_what_is_no_alert_is_passed_over(config: DayConfig):
    alert = raise_alert(config, "failed", "daily", "r1", "t", "one")
    for name, text in {"x.json": "{", "y.json": "[]", "z.json": json.dumps({"kind": "failed"}), "n.txt": "no"}.items():
        (config.alerts / name).write_text(text)
    assert list_alerts(config) == [alert]
