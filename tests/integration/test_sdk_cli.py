"""The command line against the real service."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tidemill
from tidemill.cli import main

CSV = """EventId,InvoiceNo,StockCode,Description,Quantity,UnitPrice,When,CustomerId,Country
{0}-1,536365,85123A,LANTERN,6,2.550,2011-12-05 08:26:00,17850,United Kingdom
{0}-2,536365,71053,,0,3.390,2011-12-05 08:26:00,,United Kingdom
{0}-3,C536366,71053,MUG,-2,cheap,2011-12-05 08:27:00,,France
{0}-4,536367,71053,MUG,2,1.450,2011-12-05 08:28:00,,France
"""


def run(capsys: pytest.CaptureFixture[str], service: Any, *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments, "--address", service.address])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_file_is_sent_and_each_bad_row_told(
    shared_ingest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "till.csv"
    file.write_text(CSV.format("csv"))
    sending = ["send", "order_lines", str(file), "--map", "invoiced_at=When", "--timezone", "Europe/London"]
    code, out, err = run(capsys, shared_ingest, *sending)
    assert (code, err) == (0, "")
    assert "4 rows sent" in out
    assert "2 appended, 0 duplicate, 2 quarantined, 0 late" in out
    assert "quarantined row 1: quantity: " in out
    assert "quarantined row 2: unit_price: " in out

    code, out, _ = run(capsys, shared_ingest, *sending, "--json", "--again")
    told = json.loads(out)
    assert code == 0
    assert {name: told["summary"][name] for name in ("sent", "appended", "duplicate", "quarantined")} == {
        "sent": 4, "appended": 0, "duplicate": 2, "quarantined": 2,
    }  # fmt: skip

    code, out, _ = run(capsys, shared_ingest, "quarantine", "list", "order_lines", "--json", "--limit", "2")
    assert [json.loads(line)["field"] for line in out.splitlines()] == ["quantity", "unit_price"]


def test_what_cannot_be_sent_is_one_line(
    shared_ingest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "till.csv"
    file.write_text(CSV.format("bad"))
    for arguments, said in (
        (["nowhere", str(file)], "there is no stream 'nowhere'; the streams are: order_lines"),
        (["order_lines", str(tmp_path / "none.csv")], "there is no file"),
        (["order_lines", str(file)], "has no column for invoiced_at"),
        (["order_lines", str(file), "--map", "invoiced_at=When"], "have no time zone"),
    ):
        code, out, err = run(capsys, shared_ingest, "send", *arguments)
        assert code == 1
        assert said in err
        assert (out, err.count("\n")) == ("", 1)


def test_a_simulated_day_is_sent_once(ingest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    day = ["simulate", "--date", "2025-03-04", "--lines", "2000", "--json"]
    code, out, err = run(capsys, ingest, *day)
    first = json.loads(out)
    assert (code, err) == (0, "")
    assert (first["appended"], first["duplicate"], first["quarantined"]) == (1998, 3, 2)
    second = json.loads(run(capsys, ingest, *day)[1])
    assert (second["appended"], second["duplicate"], second["quarantined"]) == (0, 2001, 2)

    code, out, _ = run(capsys, ingest, "simulate", "--lines", "40", "--rate", "400")
    assert code == 0
    assert "40 rows sent" in out

    code, out, _ = run(capsys, ingest, "status")
    assert code == 0
    assert "order_lines" in out
    assert "sales_by_minute" in out
    code, out, _ = run(capsys, ingest, "status", "--json")
    assert json.loads(out)["streams"][0]["counts"]["sent"] == 2003 + 2003 + 40
    code, out, _ = run(capsys, ingest, "view", "query", "sales_by_minute", "--where", "revenue>0", "--order-by",
                       "-revenue", "--limit", "3", "--after", "2038")  # fmt: skip
    assert code == 0
    assert out.splitlines()[0].split() == [
        "window_start", "country", "lines", "revenue", "customers", "_window_state",
    ]  # fmt: skip
    assert len(out.splitlines()) == 5
    code, out, _ = run(capsys, ingest, "view", "query", "sales_by_minute", "--limit", "1", "--json")
    assert list(json.loads(out)) == [
        "window_start", "country", "lines", "revenue", "customers", "_window_state",
    ]  # fmt: skip
    for arguments in (["stream", "list"], ["stream", "show", "order_lines"], ["view", "list"]):
        code, out, err = run(capsys, ingest, *arguments)
        assert (code, err) == (0, "")
        assert "order_lines" in out
        code, out, err = run(capsys, ingest, *arguments, "--json")
        assert (code, err) == (0, "")
        assert [json.loads(line) for line in out.splitlines()]


def test_views_that_are_not_there_are_one_line(shared_ingest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["view", "query", "nothing"], ["view", "query", "sales_by_minute", "--where", "nothing=1"]):
        code, out, err = run(capsys, shared_ingest, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)


def test_ctrl_c_ends_the_simulated_shop_with_a_summary(ingest: Any) -> None:
    # A shell that runs tests in the background has SIGINT ignored; the command must see it.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tidemill.cli import main; sys.exit(main())"
    )
    arguments = ["simulate", "--forever", "--rate", "500", "--json", "--address", ingest.address]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        with tidemill.connect(ingest.address) as tm:
            while not tm.stream_status("order_lines").counts.appended:
                assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    told = json.loads(out)
    with tidemill.connect(ingest.address) as tm:
        assert told["sent"] == told["appended"] + told["quarantined"] == tm.stream_status("order_lines").counts.sent
