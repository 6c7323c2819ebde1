"""`tidemill send` goes on where it stopped, however it was ended, and sends nothing twice."""

from __future__ import annotations

import datetime as dt
import json
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import tidemill
from tidemill.cli import main
from tidemill.input import PART_ROWS

ROWS = 300_000


def lines(rows: int, salt: str = "") -> pa.Table:
    at = dt.datetime(2011, 12, 5, tzinfo=dt.UTC)
    return pa.table(
        {
            "event_id": [f"{salt}{number}" for number in range(rows)],
            "invoice_no": ["536365"] * rows,
            "stock_code": ["A"] * rows,
            "quantity": list(range(1, rows + 1)),
            "unit_price": ["1.5"] * rows,
            "invoiced_at": [at] * rows,
            "country": ["UK"] * rows,
        }
    )


def send(capsys: pytest.CaptureFixture[str], service: Any, file: Path, *more: str) -> dict[str, Any]:
    code = main(["send", "order_lines", str(file), "--address", service.address, "--json", *more])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    told: dict[str, Any] = json.loads(captured.out)
    return told


def test_a_killed_start_is_gone_on_with(ingest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1 << 30)
    rng = random.Random(seed)
    file = tmp_path / "till.parquet"
    pq.write_table(lines(ROWS), file, row_group_size=30_001)
    command = [sys.executable, "-m", "tidemill.cli", "send", "order_lines", str(file), "--address", ingest.address]
    command[1:3] = ["-c", "import sys; from tidemill.cli import main; sys.exit(main())"]
    with tidemill.connect(ingest.address) as tm:
        for _ in range(2):
            have = tm.stream_status("order_lines").durable_offset
            until = have + rng.randrange(1, ROWS // 4)
            with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
                while tm.stream_status("order_lines").durable_offset < until:
                    assert process.poll() is None, f"seed {seed}: it ended before it could be killed"
                process.kill()
        # What has left goes on being appended for a moment.
        told = send(capsys, ingest, file)
        assert 0 < told["rows_sent_before"] < ROWS, f"seed {seed}"
        assert told["rows_sent_before"] % PART_ROWS == 0
        assert told["summary"]["sent"] == ROWS - told["rows_sent_before"]
        assert told["already_sent"] is False
        told = send(capsys, ingest, file)
        assert (told["already_sent"], told["rows_sent_before"], told["summary"]["sent"]) == (True, ROWS, 0)
        export = tm.export("order_lines")
        counts = tm.stream_status("order_lines").counts
    assert (counts.sent, counts.received, counts.appended, counts.duplicate) == (ROWS, ROWS, ROWS, 0), f"seed {seed}"
    files = [str(path) for path in Path(export.lake_uri).rglob("*.parquet")]
    rows = duckdb.sql(f"select quantity from read_parquet({files!r}) order by _offset").fetchall()
    assert [quantity for (quantity,) in rows] == list(range(1, ROWS + 1)), f"seed {seed}"
    assert main(["send", "order_lines", str(file), "--address", ingest.address]) == 0
    assert "was sent already: all of its 300,000 rows" in capsys.readouterr().out


def test_two_starts_at_once_send_it_once(ingest: Any, tmp_path: Path) -> None:
    file = tmp_path / "till.csv"
    pyarrow.csv.write_csv(lines(30_000), file)
    codes: list[int] = []
    arguments = ["send", "order_lines", str(file), "--address", ingest.address, "--json"]
    threads = [threading.Thread(target=lambda: codes.append(main(arguments))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert codes == [0, 0]
    with tidemill.connect(ingest.address) as tm:
        counts = tm.stream_status("order_lines").counts
    assert (counts.appended, counts.duplicate) == (30_000, 0)


def test_what_makes_a_file_another_one(shared_ingest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "till.csv"
    pyarrow.csv.write_csv(lines(10, "other-"), file)
    assert send(capsys, shared_ingest, file)["summary"]["appended"] == 10
    copy = tmp_path / "copy.csv"
    copy.write_bytes(file.read_bytes())
    assert send(capsys, shared_ingest, copy)["already_sent"]
    assert send(capsys, shared_ingest, copy, "--again")["summary"]["duplicate"] == 10
    mapped = send(capsys, shared_ingest, file, "--map", "country='France'", "--map", "event_id=x{event_id}")
    assert mapped["summary"]["appended"] == 10
    assert send(capsys, shared_ingest, file, "--map", "stock_code=country")["summary"]["duplicate"] == 10
    with file.open("a") as more:
        more.write("other-10,536365,A,1,1.5,2011-12-05T00:00:00Z,UK\n")
    told = send(capsys, shared_ingest, file)
    assert (told["rows_sent_before"], told["summary"]["appended"], told["summary"]["duplicate"]) == (0, 1, 10)


def test_a_bad_row_keeps_its_number_in_the_file(
    shared_ingest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = lines(PART_ROWS + 5, "bad-")
    quantities = table["quantity"].to_pylist()
    quantities[PART_ROWS + 2] = 0
    file = tmp_path / "till.parquet"
    pq.write_table(table.set_column(3, "quantity", pa.array(quantities)), file)
    summary = send(capsys, shared_ingest, file)["summary"]
    assert (summary["appended"], summary["quarantined"]) == (PART_ROWS + 4, 1)
    assert [sample["index"] for sample in summary["samples"]] == [PART_ROWS + 2]
