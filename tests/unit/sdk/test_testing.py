"""`tidemill.testing`: the real service inside a test."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import tidemill
import tidemill.testing

ROOT = Path(__file__).parents[3]
PROTO = ROOT / "proto"


def line(number: int) -> dict[str, Any]:
    return {
        "event_id": f"e{number}", "invoice_no": "536365", "stock_code": "A", "quantity": 1, "unit_price": "1.5",
        "invoiced_at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "country": "UK",
    }  # fmt: skip


def test_a_service_for_a_test_and_nothing_is_left_of_it() -> None:
    before = set(threading.enumerate())
    with tidemill.testing.service(PROTO) as tm:
        assert tm.stream("order_lines").send(line(0)).result(20).offset == 0
        with tidemill.connect(tm.address) as other:
            assert other.stream_status("order_lines").counts.appended == 1
        address = tm.address
    with tidemill.connect(address) as gone, pytest.raises(tidemill.ServiceUnavailable):
        gone.streams()
    left = {thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()}
    assert not {name for name in left if not name.startswith("grpc")}, left


def test_the_environments_credentials_are_not_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_API_KEY", "tm_someone_elses")
    monkeypatch.setenv("TIDEMILL_TLS", "1")
    with tidemill.testing.service(PROTO) as tm:
        assert tm.stream_status("order_lines").durable_offset == 0


def test_two_services_know_nothing_of_each_other() -> None:
    with tidemill.testing.service(PROTO) as one, tidemill.testing.service(PROTO) as other:
        assert one.address != other.address
        one.stream("order_lines").send(line(0)).result(20)
        assert other.stream_status("order_lines").durable_offset == 0


def test_a_data_folder_that_is_given_stays(tmp_path: Path) -> None:
    with tidemill.testing.service(PROTO, data=tmp_path / "data") as tm:
        tm.stream("order_lines").send(line(0)).result(20)
    with tidemill.testing.service(PROTO, data=tmp_path / "data") as tm:
        assert tm.stream("order_lines").send(line(0)).result(20).verdict is tidemill.Verdict.DUPLICATE
        assert tm.export("order_lines").lake_offset == 1


def test_an_error_in_the_block_is_the_one_that_is_raised() -> None:
    def use() -> None:
        with tidemill.testing.service(PROTO) as tm:
            tm.stream("order_lines").send(line(0)).result(20)
            raise KeyError("the test's own")

    with pytest.raises(KeyError):
        use()


def test_a_service_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(tidemill.TidemillError, match=r"can't be started: --proto: expected a folder"),
        tidemill.testing.service(tmp_path / "none"),
    ):
        pass


def test_the_example_in_the_documents_runs(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "test-your-code.md").read_text(encoding="utf-8")
    for name, code in re.findall(r"^```py\n# (\S+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(code, encoding="utf-8")
    (tmp_path / "proto").symlink_to(PROTO)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
