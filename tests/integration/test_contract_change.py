"""Contracts that change: in a running service, at its start, and for one stream among others."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from deltalake import DeltaTable
from integration.conftest import ROOT, IngestProcess, live_manifest
from unit.repo.blocks import blocks

import tidemill
import tidemill.testing
from tidemill.cli import main
from tidemill.v1 import streams_pb2, streams_pb2_grpc

COUNTRY = "  // Country where the customer lives."
PINGS = """syntax = "proto3";
package pings.v1;
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
// A sign of life.
message Ping {
  option (tidemill.v1.stream) = { name: "pings" event_time: "at" version: 1 };
  google.protobuf.Timestamp at = 1;
  string host = 2;
}
"""


class InProcess:
    """A service in this process, in a data folder that stays."""

    def __init__(self, folder: Path, proto: Path) -> None:
        self.data = folder / "data"
        self._proto, self._manifest = proto, live_manifest(folder)
        self._running = contextlib.ExitStack()
        self.address = ""

    def start(self) -> None:
        service = tidemill.testing.service(self._proto, manifest=self._manifest, data=self.data)
        self.address = self._running.enter_context(service).address

    def stop(self) -> None:
        self._running.close()


class Shop:
    """A service with a folder of contracts and a dbt project of its own."""

    def __init__(self, folder: Path) -> None:
        self.proto = folder / "proto"
        self.order_line = self.proto / "retail" / "v1" / "order_line.proto"
        shutil.copytree(ROOT / "proto" / "retail", self.proto / "retail")
        self.dbt_project = folder / "dbt_project"
        self.sources = self.dbt_project / "models" / "sources"
        shutil.copytree(ROOT / "dbt_project" / "models" / "sources", self.sources)
        self.service = InProcess(folder, self.proto)

    def change(self, *changes: tuple[str, str], version: int = 2) -> None:
        """Texts of the contract's file replaced, and its version counted up."""
        text = (ROOT / "proto" / "retail" / "v1" / "order_line.proto").read_text(encoding="utf-8")
        for old, new in (*changes, ("version: 1", f"version: {version}")):
            assert old in text
            text = text.replace(old, new)
        self.order_line.write_text(text, encoding="utf-8")

    def tidemill(self, *arguments: str) -> int:
        return main(["contract", *arguments, "--proto", str(self.proto)])

    def apply(self, *arguments: str) -> int:
        project = ["--dbt-project", str(self.dbt_project), "--address", self.service.address]
        return self.tidemill("apply", *(arguments or ["order_lines"]), *project)

    def connect(self) -> tidemill.Client:
        return tidemill.connect(self.service.address)

    def restart(self) -> None:
        self.service.stop()
        self.service.start()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.service.start()
    yield made
    made.service.stop()


def line(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{number}",
        "invoice_no": "536365",
        "stock_code": "85123A",
        "quantity": 6,
        "unit_price": Decimal("2.550"),
        "invoiced_at": dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC),
        "country": "United Kingdom",
        **changes,
    }


def status_of(client: tidemill.Client, stream: str) -> streams_pb2.StreamStatus:
    stub = client._connection.stub(streams_pb2_grpc.StreamServiceStub)
    listed = client._connection.call(stub.ListStreams, streams_pb2.ListStreamsRequest()).streams
    return next(status for status in listed if status.stream == stream)


SHOP_FIELD = (COUNTRY, "  // The shop's number, from 2012 on.\n  optional string shop = 10;\n" + COUNTRY)


def test_a_new_column_while_a_producer_sends(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    stop, fifty, sent = threading.Event(), threading.Semaphore(0), 0
    acks: list[tidemill.Ack] = []

    def produce(stream: tidemill.Stream) -> None:
        nonlocal sent
        while not stop.is_set():
            acks.append(stream.send(line(sent)))
            sent += 1
            if sent % 50 == 0:
                acks[-1].result(30)
                fifty.release()

    with shop.connect() as tm:
        old = tm.stream("order_lines")
        producer = threading.Thread(target=produce, args=(old,))
        producer.start()
        try:
            assert all(fifty.acquire(timeout=30) for _ in range(4))
            shop.change(SHOP_FIELD)
            assert shop.apply() == 0
            while fifty.acquire(blocking=False):
                pass
            assert all(fifty.acquire(timeout=30) for _ in range(4))
        finally:
            stop.set()
            producer.join(60)
        old.flush(30)
        # Nothing was lost or doubled, nothing came out of order.
        assert [ack.result(0).offset for ack in acks] == list(range(sent))
        said = capsys.readouterr().out
        assert "order_lines: version 2 is in force" in said
        assert "shop: new, string; null in the rows before" in said
        with shop.connect() as another:
            new = another.stream("order_lines")
            assert "shop" in new.schema.names
            new.send(line(sent, shop="L1")).result(30)
            # Whoever has the old contract goes on.
            assert old.send(line(sent + 1)).result(30).offset == sent + 1
            sales = another.view("sales_by_minute").query(after=old.send(line(sent + 2)).result(30)).to_arrow()
        assert sum(sales["lines"].to_pylist()) == sent + 3
    source = yaml.safe_load((shop.sources / "order_lines.yml").read_text(encoding="utf-8"))
    columns = {column["name"]: column for column in source["sources"][0]["tables"][0]["columns"]}
    assert columns["shop"]["description"] == "The shop's number, from 2012 on."

    for _ in range(2):
        with shop.connect() as tm:
            assert tm.stream_status("order_lines").contract_version == 2
            export = tm.export("order_lines")
        rows = DeltaTable(export.lake_uri).to_pyarrow_table(columns=["_offset", "event_id", "shop"]).sort_by("_offset")
        assert rows["event_id"].to_pylist() == [f"e{number}" for number in range(sent + 3)]
        assert rows["shop"].to_pylist() == [None] * sent + ["L1", None, None]
        shop.restart()


def test_what_breaks_is_listed_and_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.change(
        ("int64 quantity", "sint64 quantity"), (".int64 = {", ".sint64 = {"), ("scale: 3", "scale: 2"), SHOP_FIELD
    )
    with shop.connect() as tm:
        tm.stream("order_lines").send(line(0)).result(30)
        for command in (lambda: shop.tidemill("check", "--address", shop.service.address), shop.apply):
            assert command() == 1
            shown = capsys.readouterr()
            assert "breaks quantity: int64 → sint64" in shown.out
            assert "breaks unit_price: DECIMAL(12, 3) → DECIMAL(12, 2)" in shown.out
            assert "fine   shop: new, string" in shown.out
            assert "docs/contracts.md" in shown.err
        assert shop.tidemill("check", "--address", shop.service.address, "--json") == 1
        found = json.loads(capsys.readouterr().out)
        assert [(each["field"], each["compatible"]) for each in found["changes"]] == [
            ("quantity", False), ("unit_price", False), ("shop", True), ("", True),
        ]  # fmt: skip
        descriptors = descriptors_of(shop, capsys)
        with pytest.raises(tidemill.RequestRefused, match="2 of the changes break something") as refused:
            tm.apply_contract(descriptors)
        assert refused.value.reason == "CONTRACT_INCOMPATIBLE"
        assert [each[0] for each in refused.value.violations] == ["quantity", "unit_price"]
        assert [each.compatible for each in tm.apply_contract(descriptors, check_only=True)] == [False]
        # The one in force goes on.
        assert tm.stream("order_lines").send(line(1)).result(30).offset == 1
        assert tm.stream_status("order_lines").contract_version == 1
    assert "name: shop" not in (shop.sources / "order_lines.yml").read_text(encoding="utf-8")


def descriptors_of(shop: Shop, capsys: pytest.CaptureFixture[str]) -> bytes:
    import base64

    from ingest_service.contracts import check

    assert check.main(["--proto", str(shop.proto), "--describe"]) == 0
    return base64.b64decode(json.loads(capsys.readouterr().out)["descriptors"])


def test_a_looser_rule_holds_at_once_and_a_second_apply_does_nothing(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    with shop.connect() as tm:
        stream = tm.stream("order_lines")
        with pytest.raises(tidemill.RowQuarantined):
            stream.send(line(0, quantity=2_000_000)).result(30)
        shop.change(("lte: 1000000", "lte: 9000000"))
        assert shop.apply("retail/v1/order_line.proto", "--json") == 0
        assert json.loads(capsys.readouterr().out)["applied"] is True
        assert stream.send(line(0, quantity=2_000_000)).result(30).offset == 0
        assert shop.apply(str(shop.order_line), "--json") == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["applied"], said["changes"], said["version_in_force"]) == (False, [], 2)
        # A check alone changes nothing.
        shop.change(SHOP_FIELD, ("lte: 1000000", "lte: 9000000"), version=3)
        assert shop.apply("order_lines", "--check-only") == 0
        assert tm.stream_status("order_lines").contract_version == 2


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[IngestProcess]:
    """A service to be killed, in the place of a shop's own."""
    process = IngestProcess(tmp_path, None, "--proto", str(tmp_path / "proto"), "--http-listen", "none")
    yield process
    process.kill()


def test_an_applied_contract_outlives_a_kill_and_a_folder_that_is_behind(tmp_path: Path, killed: IngestProcess) -> None:
    shop = Shop(tmp_path)
    killed.start()
    shop.service.address = killed.address
    shop.change(SHOP_FIELD)
    assert shop.apply() == 0
    with shop.connect() as tm:
        tm.stream("order_lines").send(line(0, shop="L1")).result(30)
    shutil.copy(ROOT / "proto" / "retail" / "v1" / "order_line.proto", shop.order_line)
    killed.kill()
    killed.start()
    with shop.connect() as tm:
        assert tm.stream("order_lines").send(line(1, shop="L1")).result(30).offset == 1
        assert tm.stream_status("order_lines").contract_version == 2
    assert "the folder has version 1 of its contract, version 2 is in force" in killed.log.read_text()


def test_a_compatible_change_takes_effect_at_a_start(shop: Shop) -> None:
    with shop.connect() as tm:
        tm.stream("order_lines").send(line(0)).result(30)
        tm.export("order_lines")
    shop.change(SHOP_FIELD)
    shop.restart()
    with shop.connect() as tm:
        tm.stream("order_lines").send(line(1, shop="L1")).result(30)
        rows = DeltaTable(tm.export("order_lines").lake_uri).to_pyarrow_table().sort_by("_offset")
    assert rows["shop"].to_pylist() == [None, "L1"]
    assert sorted(file.name for file in (shop.service.data / "contracts" / "order_lines").iterdir()) == [
        "1.binpb",
        "2.binpb",
    ]


def test_a_bad_contract_stops_its_stream_alone(shop: Shop) -> None:
    reason = '"int65" is not defined'
    with shop.connect() as tm:
        tm.stream("order_lines").send(line(0)).result(30)
    shop.service.stop()
    (shop.proto / "pings.proto").write_text(PINGS, encoding="utf-8")
    shop.change(("int64 quantity", "int65 quantity"))
    shop.service.start()
    with shop.connect() as tm:
        ping = {"at": dt.datetime(2011, 12, 5, tzinfo=dt.UTC), "host": "a"}
        assert tm.stream("pings").send(ping).result(30).offset == 0
        assert status_of(tm, "pings").error == ""
        stopped = status_of(tm, "order_lines")
        assert reason in stopped.error
        assert stopped.durable_offset == 1
        with pytest.raises(tidemill.RequestRefused) as refused:
            tm.stream("order_lines").send(line(1)).result(30)
        assert reason in str(refused.value)
        # Old rows stay readable, by the contract that they were written under.
        export = tm.export("order_lines")
        assert DeltaTable(export.lake_uri).to_pyarrow_table()["event_id"].to_pylist() == ["e0"]
    # Corrected and applied, it takes events again, without a restart.
    shop.change(SHOP_FIELD)
    assert shop.apply() == 0
    with shop.connect() as tm:
        assert tm.stream("order_lines").send(line(1, shop="L1")).result(30).offset == 1
        assert status_of(tm, "order_lines").error == ""


def test_a_service_without_a_usable_contract_starts_and_says_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.service.stop()
    shutil.rmtree(shop.service.data)
    shop.change(('event_time: "invoiced_at"', 'event_time: "when"'))
    shop.service.start()
    with shop.connect() as tm:
        assert "no field of that name" in status_of(tm, "order_lines").error
        with pytest.raises(tidemill.RequestRefused, match="no field of that name"):
            tm.stream("order_lines")
    assert "no stream takes events" in caplog.text


def test_requests_that_are_no_contract_are_refused(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    from google.protobuf import descriptor_pb2

    whole = descriptor_pb2.FileDescriptorSet.FromString(descriptors_of(shop, capsys))
    alone = descriptor_pb2.FileDescriptorSet(file=[whole.file[-1]])
    other = descriptor_pb2.FileDescriptorSet(file=whole.file[:1])
    with shop.connect() as tm:
        for descriptors, message, reason in (
            (b"", "", "came no file"),
            (alone.SerializeToString(), "", "can't be linked"),
            (other.SerializeToString(), "", r"expected a contract \(any\) in .*; it has: none"),
            (whole.SerializeToString(), "retail.v1.Other", r"it has: retail\.v1\.OrderLine"),
        ):
            with pytest.raises(tidemill.RequestRefused, match=reason):
                tm.apply_contract(descriptors, message)


def test_a_new_stream_waits_for_a_start(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (shop.proto / "pings.proto").write_text(PINGS, encoding="utf-8")
    assert shop.tidemill("check", "--address", shop.service.address) == 0
    assert "pings: a new stream" in capsys.readouterr().out
    assert shop.apply("pings") == 1
    assert "no stream 'pings'" in capsys.readouterr().err


def test_the_way_out_is_a_second_stream_and_a_union(tmp_path: Path) -> None:
    """The documents' own contracts and model, from events to the warehouse."""
    import duckdb

    from ingest_service.contracts import load_contracts
    from ingest_service.contracts.compare import compare
    from ingest_service.contracts.dbt_sources import dbt_source

    page = ROOT / "docs" / "contracts.md"
    first, second = (block.text for block in blocks(page, "proto"))
    (model,) = (block.text for block in blocks(page, "sql"))
    project, data = tmp_path / "dbt_project", tmp_path / "data"
    for version, text in enumerate((first, second), 1):
        file = tmp_path / "proto" / "payments" / f"v{version}" / "payment.proto"
        file.parent.mkdir(parents=True)
        file.write_text(text, encoding="utf-8")
    for folder in ("sources", "staging"):
        (project / "models" / folder).mkdir(parents=True)
    for name in ("profiles.yml", "dbt_project.yml"):
        shutil.copy(ROOT / "dbt_project" / name, project)
    contracts = load_contracts(tmp_path / "proto").contracts
    for stream, contract in contracts.items():
        (project / "models" / "sources" / f"{stream}.yml").write_text(dbt_source(contract), encoding="utf-8")
    (project / "models" / "staging" / "stg_payments.sql").write_text(model, encoding="utf-8")
    # One in place of the other would have broken something: that is why there are two.
    assert not all(change.compatible for change in compare(contracts["payments"], contracts["payments_v2"]))

    payment = {"paid_at": dt.datetime(2026, 3, 4, 12, tzinfo=dt.UTC), "account": "DE1"}
    with tidemill.testing.service(proto=tmp_path / "proto", data=data) as tm:
        tm.stream("payments").send({**payment, "payment_id": "1" * 20, "amount": "1.25"}).result(30)
        more = {"payment_id": "2" * 20, "amount": "0.1234", "currency": "CHF"}
        tm.stream("payments_v2").send({**payment, **more}).result(30)
        for stream in contracts:
            tm.export(stream)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DBT_"))}
    done = subprocess.run(
        [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "run"],
        cwd=project, env={**clean, "TIDEMILL_DATA": str(data)}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    warehouse = data / "warehouse" / "dev" / "warehouse.duckdb"
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = connection.execute("select payment_id, amount, currency from stg_payments order by all").fetchall()
    assert found == [("1" * 20, Decimal("1.2500"), "EUR"), ("2" * 20, Decimal("0.1234"), "CHF")]
