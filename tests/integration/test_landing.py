"""Files in the landing folder reach their stream, each once, with the real service; bad ones are set aside."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from support.object_store import ObjectStore, object_store

import tidemill
from quality import landing
from quality.config import DayConfig
from quality.errors import ConfigWrong, LandingFailed, ServiceFailed
from quality.landing_folder import LandingFolder

AT = dt.datetime(2011, 12, 5, 8, 0, tzinfo=dt.UTC)


class Landing:
    """A landing folder beside a service, with a clock that the test sets."""

    def __init__(self, tmp_path: Path, address: str) -> None:
        project = tmp_path / "project"
        project.mkdir()
        (project / "dbt_project.yml").write_text("name: small\n")
        self.config = DayConfig(tmp_path / "data", project, address)
        self.root = tmp_path / "landing"
        (self.root / "order_lines").mkdir(parents=True)
        self.now = 1_000_000.0
        self.prefix = f"{uuid.uuid4().hex[:12]}-"
        self.folder = LandingFolder.open(str(self.root))
        # Tests share a service: what is there already is not this one's.
        self._before = self._counts()

    def _counts(self) -> tidemill.Counts:
        with tidemill.connect(self.config.address) as tm:
            return tm.stream_status("order_lines").counts

    def received(self) -> int:
        """How many rows the service received since the test began."""
        return self._counts().received - self._before.received

    def lines(self, first: int, count: int, **columns: Any) -> pa.Table:
        """Order lines whose ids tell their number, on two dates in turn."""
        numbers = range(first, first + count)
        made = {
            "event_id": [f"{self.prefix}{number}" for number in numbers],
            "invoice_no": ["536365"] * count,
            "stock_code": ["85123A"] * count,
            "quantity": [1] * count,
            "unit_price": ["2.550"] * count,
            "country": ["France"] * count,
            "invoiced_at": [AT + dt.timedelta(days=number % 2, seconds=number % 1000) for number in numbers],
        }
        return pa.table({**made, **columns})

    @property
    def stream(self) -> Path:
        return self.root / "order_lines"

    def look(self) -> list[dict[str, Any]]:
        return landing.look(self.config, self.folder, lambda: self.now)

    def ready(self) -> list[dict[str, Any]]:
        self.look()
        self.now += landing.SETTLE_S
        return self.look()

    def take(self, file: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(landing.take(self.config, file, self.folder, lambda: self.now)))

    def take_all(self) -> list[dict[str, Any]]:
        return [self.take(file) for file in self.ready()]

    def rows(self) -> list[str]:
        """The event ids that came into the stream since the test began, as its lake has them, without their prefix."""
        with tidemill.connect(self.config.address) as tm:
            uri = tm.export("order_lines").lake_uri
        files = [str(path) for path in Path(uri).rglob("*.parquet") if "_delta_log" not in path.parts]
        if not files:
            return []
        found = duckdb.sql(
            f"select event_id from read_parquet({files!r}) where _offset >= {self._before.appended} order by _offset"
        ).fetchall()
        return [event_id.removeprefix(self.prefix) for (event_id,) in found]


@pytest.fixture
def here(tmp_path: Path, shared_ingest: Any) -> Landing:
    return Landing(tmp_path, shared_ingest.address)


@pytest.fixture
def alone(tmp_path: Path, ingest: Any) -> Landing:
    """The same beside a service of the test's own, which it may kill, or whose dates it may seal."""
    return Landing(tmp_path, ingest.address)


def test_every_format_is_sent_and_moved(here: Landing) -> None:
    pq.write_table(here.lines(0, 10), here.stream / "a.parquet")
    pa_csv.write_csv(here.lines(10, 10), here.stream / "b.csv")
    with gzip.open(here.stream / "c.jsonl.gz", "wt") as file:
        for row in here.lines(20, 10).to_pylist():
            file.write(json.dumps({**row, "invoiced_at": row["invoiced_at"].isoformat()}) + "\n")
    results = here.take_all()
    assert [(result["file"], result["state"], result["appended"]) for result in results] == [
        ("a.parquet", "sent", 10), ("b.csv", "sent", 10), ("c.jsonl.gz", "sent", 10)
    ]  # fmt: skip
    assert here.rows() == [str(number) for number in range(30)]
    assert sorted(path.name for path in (here.stream / "done").iterdir()) == ["a.parquet", "b.csv", "c.jsonl.gz"]
    assert [path.name for path in here.stream.iterdir()] == ["done"]
    assert results[0] | {"seconds": 0} == {
        "state": "sent", "stream": "order_lines", "file": "a.parquet", "rows": 10, "sha256": results[0]["sha256"],
        "appended": 10, "duplicate": 0, "quarantined": 0, "late": 0, "late_dates": {}, "samples": [],
        "rows_of_earlier_starts": 0, "dates": {"2011-12-05": 5, "2011-12-06": 5}, "first_date": "2011-12-05",
        "last_date": "2011-12-06", "notes": [], "seconds": 0, "moved_to": "order_lines/done/a.parquet",
    }  # fmt: skip
    assert here.take_all() == []
    assert not list(here.config.data.glob("landing/work/*"))


def test_the_same_content_is_sent_once_whatever_its_name(here: Landing) -> None:
    pq.write_table(here.lines(0, 10, event_id=[here.prefix] * 10), here.stream / "a.parquet")
    content = (here.stream / "a.parquet").read_bytes()
    (sent,) = here.take_all()
    assert (sent["appended"], sent["duplicate"]) == (1, 9)
    for name in ("a.parquet", "b.parquet"):
        (here.stream / name).write_bytes(content)
        (again,) = here.take_all()
        assert (again["state"], again["imported_as"], again["imported"]["appended"]) == ("duplicate", "a.parquet", 1)
    assert here.received() == 10
    names = sorted(path.name for path in (here.stream / "done").iterdir())
    assert names == sorted(["a.parquet", f"a-{sent['sha256'][:12]}.parquet", "b.parquet"])


def test_a_file_that_was_sent_by_hand_is_not_sent_again(here: Landing, tmp_path: Path) -> None:
    pq.write_table(here.lines(0, 10), tmp_path / "by_hand.parquet")
    command = [sys.executable, "-m", "tidemill.cli", "send", "order_lines", str(tmp_path / "by_hand.parquet")]
    command = [str(Path(sys.executable).with_name("tidemill")), *command[3:], "--address", here.config.address]
    subprocess.run(command, check=True, capture_output=True)
    (here.stream / "landed.parquet").write_bytes((tmp_path / "by_hand.parquet").read_bytes())
    (result,) = here.take_all()
    assert (result["state"], result["appended"], result["rows_of_earlier_starts"]) == ("sent", 0, 10)
    assert here.received() == 10


def test_how_a_streams_files_are_read_stands_beside_them(here: Landing) -> None:
    (here.stream / "import.yml").write_text(
        "map:\n  event_id: r{source_row}\n  invoiced_at: when\n  country: \"'France'\"\ntimezone: Europe/Paris\n"
    )
    table = here.lines(0, 2).drop_columns(["event_id", "country", "invoiced_at"])
    table = table.append_column("source_row", [[7, 8]]).append_column("when", [["2011-12-05 00:30:00"] * 2])
    pa_csv.write_csv(table, here.stream / "shop.csv")
    (result,) = here.take_all()
    assert (result["appended"], result["dates"]) == (2, {"2011-12-04": 2})
    assert here.rows() == ["r7", "r8"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("map: [", "while parsing"),
        ("maps: {}", "expected the keys map and timezone alone"),
        ("map: 3", "expected under map FIELD: SOURCE"),
        ("map: [event_id]", "expected FIELD=COLUMN"),
        ("map: {event_id: [a, b]}", "expected under map FIELD: SOURCE"),
    ],
)
def test_wrong_settings_are_no_files_fault(here: Landing, text: str, problem: str) -> None:
    (here.stream / "import.yml").write_text(text)
    pq.write_table(here.lines(0, 2), here.stream / "a.parquet")
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match=problem) as raised:
        here.take(file)
    assert (raised.value.retryable, raised.value.moved_to) == (False, "")
    assert (here.stream / "a.parquet").exists()
    (here.stream / "import.yml").unlink()
    assert here.take(file)["state"] == "sent"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.parquet", b"no parquet", "expected a Parquet file with its footer"),
        ("text.csv.gz", b"no gzip", "expected a gzip file"),
        ("half.csv.gz", gzip.compress(b"event_id\n" * 1000, mtime=0)[:-9], "expected a whole gzip file"),
        ("words.docx", b"words", "expected a name that ends in .parquet"),
        ("empty.csv", b"", "empty.csv"),
        ("columns.csv", b"event_id,price\na,1\n", "columns.csv has no column for invoice_no, .*in import.yml, map:"),
        ("broken.jsonl", b'{"event_id": "a"}\n{"event_id"', "broken.jsonl"),
    ],
)
def test_a_bad_file_is_set_aside_with_the_reason(here: Landing, name: str, content: bytes, reason: str) -> None:
    (here.stream / name).write_bytes(content)
    file = (here.ready() or here.look() or [here_file(here, name)])[0]
    here.now += landing.HALF_WRITTEN_S
    with pytest.raises(LandingFailed, match=reason) as raised:
        here.take(file)
    error = raised.value
    assert (error.stream, error.file, error.moved_to) == ("order_lines", name, f"order_lines/failed/{name}")
    assert not error.retryable
    assert (here.root / error.moved_to).read_bytes() == content
    told = (here.root / f"{error.moved_to}.reason.txt").read_text()
    assert error.reason in told
    assert "No row of it was sent." in told
    assert here.rows() == []
    assert here.take_all() == []


def here_file(here: Landing, name: str) -> dict[str, Any]:
    """A file that `look` keeps back, for it is not whole."""
    here.now += landing.HALF_WRITTEN_S
    return next(file for file in here.look() if file["name"] == name)


def test_nothing_is_sent_of_a_file_with_a_bad_value_far_behind(here: Landing) -> None:
    prices = ["2.550"] * 20_000
    times: list[str] = ["2011-12-05T08:00:00Z"] * 20_000
    times[17_000] = "yesterday"
    pa_csv.write_csv(here.lines(0, 20_000, invoiced_at=times, unit_price=prices), here.stream / "late_error.csv")
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match=r"17000.*yesterday"):
        here.take(file)
    assert here.received() == 0


def test_a_stream_that_there_is_not_and_a_file_beside_the_streams(here: Landing) -> None:
    (here.root / "sales").mkdir()
    pq.write_table(here.lines(0, 2), here.root / "sales" / "a.parquet")
    pq.write_table(here.lines(0, 2), here.root / "b.parquet")
    unknown, beside = here.ready()
    with pytest.raises(LandingFailed, match="in the folder of its stream, such as order_lines/; came one beside them"):
        here.take(beside)
    with pytest.raises(LandingFailed, match=r"sales.*order_lines"):
        here.take(unknown)
    assert (here.root / "failed" / "b.parquet").exists()
    assert "sales" in (here.root / "sales" / "failed" / "a.parquet.reason.txt").read_text()


def test_rows_that_break_the_contract_stop_nothing(here: Landing) -> None:
    pq.write_table(here.lines(0, 10, quantity=[0] * 3 + [1] * 7), here.stream / "a.parquet")
    (result,) = here.take_all()
    assert (result["state"], result["appended"], result["quarantined"]) == ("sent", 7, 3)
    assert len(result["samples"]) == 3
    assert "row 0: quantity" in result["samples"][0]


def test_rows_of_sealed_dates_are_late_and_counted_by_date(alone: Landing) -> None:
    pq.write_table(alone.lines(0, 10), alone.stream / "a.parquet")
    alone.take_all()
    with tidemill.connect(alone.config.address) as tm:
        tm.seal("order_lines", AT.date(), force=True)
    pq.write_table(alone.lines(10, 12_000), alone.stream / "b.parquet")
    (result,) = alone.take_all()
    assert (result["appended"], result["late"]) == (12_000, 6_000)
    assert result["late_dates"] == {"2011-12-05": 6_000}
    with tidemill.connect(alone.config.address) as tm:
        assert tm.stream_status("order_lines").counts.late == 6_000


def test_a_file_waits_until_it_is_the_same_in_two_looks(here: Landing) -> None:
    path = here.stream / "a.csv"
    pa_csv.write_csv(here.lines(0, 2), path)
    assert here.look() == []
    here.now += landing.SETTLE_S - 0.1
    assert here.look() == []
    with path.open("ab") as file:
        file.write(b'"e2","536365","85123A",1,"2.550","France","2011-12-05T08:00:00Z"\n')
    here.now += landing.SETTLE_S
    assert here.look() == []
    here.now += landing.SETTLE_S
    (file,) = here.look()
    with path.open("ab") as more:
        more.write(b'"e3","536365","85123A",1,"2.550","France","2011-12-05T08:00:00Z"\n')
    # It was ready, and grew after all.
    assert here.take(file) == {"state": "waiting", "stream": "order_lines", "file": "a.csv"}
    assert here.rows() == []
    (result,) = here.take_all()
    assert result["appended"] == 4
    assert here.take(file)["state"] == "gone"


def test_a_look_gives_some_files_those_that_lie_there_longest(here: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "FILES_MAX", 2)
    for number, name in enumerate(("c", "a", "b")):
        (here.stream / f"{name}.csv").write_text("event_id\n")
        os.utime(here.stream / f"{name}.csv", (1000 + number, 1000 + number))
    assert [file["name"] for file in here.ready()] == ["c.csv", "a.csv"]


@pytest.mark.parametrize("name", ["a.parquet.part", ".a.parquet.x7", "a.parquet.tmp", "_SUCCESS", "import.yml"])
def test_names_of_unfinished_files_are_not_looked_at(here: Landing, name: str) -> None:
    (here.stream / name).write_bytes(b"")
    here.look()
    here.now += landing.HALF_WRITTEN_S
    assert here.look() == []


def test_a_parquet_file_without_its_footer_and_a_short_gz_wait_for_a_while(here: Landing) -> None:
    pq.write_table(here.lines(0, 5_000), here.stream / "a.parquet")
    pa_csv.write_csv(here.lines(5_000, 5_000), here.stream / "plain.csv")
    whole = {"a.parquet": (here.stream / "a.parquet").read_bytes()}
    whole["b.csv.gz"] = gzip.compress((here.stream / "plain.csv").read_bytes())
    (here.stream / "plain.csv").unlink()
    for name, content in whole.items():
        (here.stream / name).write_bytes(content[: len(content) // 2])
    (gz,) = here.ready()
    result = here.take(gz)
    assert (result["state"], result["file"]) == ("waiting", "b.csv.gz")
    assert "expected a whole gzip file" in result["why"]
    for name, content in whole.items():
        (here.stream / name).write_bytes(content)
    assert [result["appended"] for result in here.take_all()] == [5_000, 5_000]


def test_links_lead_nowhere(here: Landing, tmp_path: Path) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    pq.write_table(here.lines(0, 2), secret / "a.parquet")
    (here.stream / "link.parquet").symlink_to(secret / "a.parquet")
    (here.root / "linked").symlink_to(secret)
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match="came a link to one elsewhere"):
        here.take(file)
    assert (secret / "a.parquet").exists()
    for stream, name in (("..", "data"), ("order_lines", "../../x"), ("order_lines", ".."), ("a/b", "c"), ("", "/etc")):
        with pytest.raises(LandingFailed, match="plain names"):
            here.take(file | {"stream": stream, "name": name})
    with pytest.raises(LandingFailed, match="as `look` gives it"):
        here.take({"path": "/etc/passwd"})
    pq.write_table(here.lines(0, 2), here.stream / "b.parquet")
    (here.stream / "done").symlink_to(secret)
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match="done is a link out of the landing folder"):
        here.take(file)
    assert [path.name for path in secret.iterdir()] == ["a.parquet"]
    (here.stream / "done").unlink()
    # It was sent; only the move is left.
    assert here.take(file)["state"] == "sent"
    assert len(here.rows()) == 2


def test_a_reason_is_not_written_through_a_link(here: Landing, tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (here.stream / "failed").mkdir()
    (here.stream / "failed" / "words.docx.reason.txt").symlink_to(mine)
    (here.stream / "words.docx").write_text("words")
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match="expected a name that ends in"):
        here.take(file)
    assert mine.read_text() == "mine"
    assert (here.stream / "failed" / "words.docx").exists()


def test_a_file_that_is_gone_when_it_is_looked_into_stops_no_other(
    here: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(here.lines(0, 2), here.stream / "a.parquet")
    pq.write_table(here.lines(2, 2), here.stream / "b.parquet")
    pq.write_table(here.lines(4, 2), here.stream / "c.parquet")
    here.look()
    here.now += landing.SETTLE_S
    whole = LandingFolder.read_end

    def read_end(self: LandingFolder, path: str, size_bytes: int) -> bytes:
        if path.endswith("a.parquet"):
            (here.stream / "a.parquet").unlink()
        if path.endswith("b.parquet"):
            raise PermissionError(path)
        return whole(self, path, size_bytes)

    monkeypatch.setattr(LandingFolder, "read_end", read_end)
    # What may not be read is `take`'s to tell of.
    assert [file["name"] for file in here.look()] == ["b.parquet", "c.parquet"]


@pytest.mark.parametrize("place", ["", "data", "data/warehouse", "data/landing"])
def test_the_data_folders_own_files_are_not_taken(here: Landing, tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    with pytest.raises(ConfigWrong, match="expected a folder of its own"):
        landing.look(here.config, LandingFolder.open(str(tmp_path / place)))


def test_a_landing_folder_may_be_in_the_data_folder_under_a_name_of_its_own(here: Landing) -> None:
    incoming = here.config.data / "incoming"
    incoming.mkdir(parents=True)
    assert landing.look(here.config, LandingFolder.open(str(incoming))) == []


def test_the_service_away_costs_nothing(alone: Landing, ingest: Any) -> None:
    pq.write_table(alone.lines(0, 10), alone.stream / "a.parquet")
    (file,) = alone.ready()
    ingest.kill()
    with pytest.raises(ServiceFailed) as raised:
        alone.take(file)
    assert raised.value.retryable
    ingest.start()
    assert alone.take(file)["appended"] == 10


PROGRAM = """
import json, sys
from pathlib import Path
from quality import landing
from quality.config import DayConfig
from quality.landing_folder import LandingFolder
data, project, address, root, file = sys.argv[1:]
config = DayConfig(Path(data), Path(project), address)
print(json.dumps(landing.take(config, json.loads(file), LandingFolder.open(root), lambda: 2_000_000.0)), flush=True)
"""


def test_killed_at_any_moment_every_row_is_there_once(alone: Landing) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    count = 60_000
    # What was received counts: the dedup window would hide rows that were sent twice.
    pq.write_table(alone.lines(0, count), alone.stream / "large.parquet")
    (file,) = alone.ready()
    config = alone.config
    arguments = [str(config.data), str(config.project), config.address, str(alone.root), json.dumps(file)]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pause = threading.Event()
    with tidemill.connect(config.address) as tm:
        for kill in range(3):
            threshold = int(count * (kill + chance.random()) / 4)
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
                while process.poll() is None and tm.stream_status("order_lines").counts.received < threshold:
                    pause.wait(0.002)
                process.send_signal(signal.SIGKILL)
        ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        result = json.loads(ended.stdout)
        counts = tm.stream_status("order_lines").counts
    assert (counts.received, counts.appended, counts.duplicate) == (count, count, 0), f"seed {seed}"
    assert alone.rows() == [str(number) for number in range(count)], f"seed {seed}"
    assert result["state"] in {"sent", "gone"}
    if result["state"] == "sent":
        assert result["rows"] == count
        assert result["appended"] + result["rows_of_earlier_starts"] == count
    assert (alone.stream / "done" / "large.parquet").exists()
    (alone.stream / "again.parquet").write_bytes((alone.stream / "done" / "large.parquet").read_bytes())
    assert [result["state"] for result in alone.take_all()] == ["duplicate"]


def test_an_import_that_the_service_has_forgotten_is_not_guessed_about(here: Landing) -> None:
    pq.write_table(here.lines(0, 10_000), here.stream / "a.parquet")
    content = (here.stream / "a.parquet").read_bytes()
    here.take_all()
    (known,) = here.config.data.glob("landing/ledger/order_lines/*.json")
    entry = json.loads(known.read_text())
    # As it is when a start was killed, and its producer was forgotten since.
    known.write_text(json.dumps(entry | {"state": "sending", "producer_id": "forgotten", "parts": 1, "moved_to": ""}))
    (here.stream / "a.parquet").write_bytes(content)
    (file,) = here.ready()
    with pytest.raises(LandingFailed, match=r"cut off after it began .* with 5,000 rows sent at the least") as raised:
        here.take(file)
    assert raised.value.rows_sent == 5_000
    assert here.received() == 10_000


def test_two_that_take_the_same_file_send_it_once(here: Landing) -> None:
    from concurrent.futures import ThreadPoolExecutor

    pq.write_table(here.lines(0, 20_000), here.stream / "a.parquet")
    (file,) = here.ready()
    with ThreadPoolExecutor(4) as threads:
        states = [each.result()["state"] for each in [threads.submit(here.take, file) for _ in range(4)]]
    assert "sent" in states
    assert set(states) <= {"sent", "waiting", "gone", "duplicate"}
    assert here.received() == 20_000


@pytest.fixture
def bucket(here: Landing, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The landing folder is in a bucket: `in/` of `bucket`."""
    for name, value in (("ACCESS_KEY_ID", "key"), ("SECRET_ACCESS_KEY", "secret"), ("EC2_METADATA_DISABLED", "true")):
        monkeypatch.setenv(f"AWS_{name}", value)
    with object_store() as store:
        store.put("bucket/in/order_lines/.keep", b"")
        here.folder = LandingFolder.open(store.url("bucket/in"))
        yield store


def parquet(table: pa.Table, tmp_path: Path) -> bytes:
    pq.write_table(table, tmp_path / "made.parquet")
    return (tmp_path / "made.parquet").read_bytes()


def test_a_bucket_is_a_landing_folder_too(here: Landing, bucket: ObjectStore, tmp_path: Path) -> None:
    place = "bucket/in/order_lines/"
    bucket.put(f"{place}import.yml", b"map: {country: \"'Spain'\"}")
    bucket.put(f"{place}a.parquet", parquet(here.lines(0, 10).drop_columns(["country"]), tmp_path))
    bucket.put(f"{place}b.csv.gz", gzip.compress(b"event_id\nx\n"))
    bucket.put(f"{place}half.parquet", b"PAR1")
    first, second, _ = here.ready()
    assert here.take(first)["moved_to"] == "order_lines/done/a.parquet"
    with pytest.raises(LandingFailed, match=r"b\.csv\.gz has no column for"):
        here.take(second)
    bucket.put(f"{place}half.parquet", b"changed since")
    assert here.look() == []
    assert [name for name in bucket.names(place) if name] == [
        ".keep", "done/a.parquet", "failed/b.csv.gz", "failed/b.csv.gz.reason.txt", "half.parquet", "import.yml"
    ]  # fmt: skip
    bucket.put(f"{place}c.parquet", bucket.objects[f"{place}done/a.parquet"][0])
    (file,) = [file for file in here.ready() if file["name"] == "c.parquet"]
    assert here.take(file)["state"] == "duplicate"
    assert here.rows() == [str(number) for number in range(10)]


def test_where_nothing_may_be_moved_a_file_is_done_with_once(
    here: Landing, bucket: ObjectStore, tmp_path: Path
) -> None:
    place = "bucket/in/order_lines/"
    bucket.put(f"{place}a.parquet", parquet(here.lines(0, 10), tmp_path))
    bucket.put(f"{place}bad.csv", b"bad\n")
    bucket.read_only = True
    good, bad = here.ready()
    assert here.take(good)["moved_to"] == "order_lines/a.parquet"
    with pytest.raises(LandingFailed, match=r"It is in order_lines/bad\.csv now"):
        here.take(bad)
    assert here.take_all() == []
    assert bucket.names(place) == [".keep", "a.parquet", "bad.csv"]
    # Another content under its name is another file.
    bucket.put(f"{place}a.parquet", parquet(here.lines(10, 11), tmp_path))
    assert [result["appended"] for result in here.take_all()] == [11]


def test_the_folder_has_to_be_named_and_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TIDEMILL_LANDING", raising=False)
    with pytest.raises(ConfigWrong, match=r"an s3:// URL in TIDEMILL_LANDING; it is not set"):
        landing.landing_folder()
    monkeypatch.setenv("TIDEMILL_LANDING", str(tmp_path / "none"))
    with pytest.raises(ConfigWrong, match="expected a folder at"):
        landing.landing_folder()
    monkeypatch.setenv("TIDEMILL_LANDING", "gopher://x")
    with pytest.raises(ConfigWrong, match="cannot be opened"):
        landing.landing_folder()
    monkeypatch.setenv("TIDEMILL_LANDING", tmp_path.as_uri())
    assert landing.landing_folder().local == tmp_path


def test_the_command_imports_what_lies_there(here: Landing) -> None:
    pq.write_table(here.lines(0, 10), here.stream / "a.parquet")
    (here.stream / "b.csv").write_text("event_id\nx\n")
    command = [str(Path(sys.executable).with_name("tidemill")), "import", "--data", str(here.config.data)]
    command += ["--address", here.config.address, "--project", str(Path(__file__).parents[2]), str(here.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    good, bad = done.stdout.splitlines()
    assert good == "order_lines/a.parquet: 10 rows sent: 10 appended, 0 duplicate, 0 quarantined, 0 late"
    assert "b.csv has no column for invoice_no" in bad
    assert (done.returncode, done.stderr) == (1, "")
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = subprocess.run([*command[:-1], str(here.root / "none")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "expected a folder at" in done.stderr
