"""The data folders of earlier releases: this one opens them, finds in them what was there, and goes on.

A release that changes a format adds a folder (`make.py`), and never touches the older ones.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from golden.make import NEXT_DAY_US, STREAM, Producer, SetClock, make, observe, payment, served

import tidemill
from ingest_service.data.folder import DataFolder
from ingest_service.data.verify import verify

FOLDERS = sorted(path for path in Path(__file__).parent.glob("v[0-9]*") if path.is_dir())
CONTRACT = 2


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of the folder, and what was seen in it when it was made."""
    data = tmp_path / "data"
    shutil.copytree(request.param / "data", data)
    return data, json.loads((request.param / "expected.json").read_bytes())


def seen(data: Path, key: str) -> dict[str, Any]:
    with served(data, CONTRACT, SetClock(NEXT_DAY_US)) as address:
        return observe(address, key)


def test_it_is_sound_and_holds_what_was_in_it(golden: tuple[Path, dict[str, Any]]) -> None:
    data, expected = golden
    report = verify(DataFolder.existing(data))
    assert report.damages == report.notes == []
    key = expected.pop("api_key")
    for _ in range(2):
        found = seen(data, key)
        # One by one: a difference in a row is not to be looked for in all of them.
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name] == value, name
    assert verify(DataFolder.existing(data)).damages == []


def test_it_has_all_that_a_folder_can_have(golden: tuple[Path, dict[str, Any]]) -> None:
    data, expected = golden
    names = {path.suffix or path.name for path in data.rglob("*") if path.is_file()}
    assert names >= {".seg", ".snapshot", ".quarantine", ".binpb", ".parquet", ".sqlite", ".json", "FORMAT"}
    log = verify(DataFolder.existing(data)).logs[0]
    assert log.segments > 1
    assert 0 < log.start_offset < log.next_offset
    counts = expected["counts"]
    assert all(counts[name] for name in ("appended", "duplicate", "quarantined", "late"))
    assert counts["sent"] == counts["appended"] + counts["duplicate"] + counts["quarantined"]
    assert len(expected["seals"]) == 2
    assert expected["lake_offset"] < expected["durable_offset"]
    notes = [row[list(expected["columns"]).index("note")] for row in expected["rows"]]
    assert (notes.count(None), notes.count("note 200")) == (len(notes) - 20, 1)


def test_producers_go_on_where_they_were(golden: tuple[Path, dict[str, Any]]) -> None:
    data, expected = golden
    key, end = expected["api_key"], expected["durable_offset"]
    sequence, rows_sent = expected["producers"]["till-3"]
    clock = SetClock(NEXT_DAY_US)
    with served(data, CONTRACT, clock) as address, tidemill.connect(address, api_key=key) as tm:
        stream = tm.stream(STREAM)
        producer = Producer(address, "till-3", key=key, sequence=sequence, rows_sent=rows_sent)
        last = [stream.serialize(payment(number, clock.us)) for number in range(230, 240)]
        again = producer.send(last, again=True)
        assert (again.replayed, again.base_offset, again.rows_appended) == (True, end - 10, 10)
        assert [verdict.index for verdict in producer.send(last).verdicts] == list(range(10))
        new = producer.send([stream.serialize(payment(number, clock.us)) for number in range(240, 243)])
        assert (new.replayed, new.base_offset, new.rows_appended) == (False, end, 3)
        producer.close()
        rows = tm.view("payments_by_hour").query(after=end + 3).rows()
        assert sum(row["payments"] for row in rows) == end + 3
        tm.export(STREAM)
    report = verify(DataFolder.existing(data))
    assert report.damages == []
    assert report.lakes[0].offset == end + 3


def test_live_views_are_rebuilt_from_lake_and_log(golden: tuple[Path, dict[str, Any]]) -> None:
    data, expected = golden
    for path in (data / "live").glob("live.sqlite*"):
        path.unlink()
    key, end = expected["api_key"], expected["durable_offset"]
    with served(data, CONTRACT, SetClock(NEXT_DAY_US)) as address, tidemill.connect(address, api_key=key) as tm:
        tm.view("payments_by_hour").query(after=end, wait_s=60)
        again = observe(address, key)
    assert again["view"] == expected["view"]
    assert again["sealed"] == expected["sealed"]


def test_this_release_makes_the_newest_folder(tmp_path: Path) -> None:
    expected = json.loads((FOLDERS[-1] / "expected.json").read_bytes())
    key = make(tmp_path / "data")
    found = seen(tmp_path / "data", key)
    expected.pop("api_key")
    assert found == expected, "a format changed: make a new folder, and leave the old one as it is"
