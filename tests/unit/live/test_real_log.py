"""The views over the service's own log, restarts of both included."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pyarrow as pa

from ingest_service.lake import LakeExporter, WholeLog
from ingest_service.live import LiveViews, SealedRange, ViewQuery
from ingest_service.log import Log, LogSettings, Retention, RetentionHold, Seal
from ingest_service.log.records import Append

DAY = dt.date(2011, 12, 5)


def batch(kit: Any, lines: list[dict[str, Any]]) -> pa.RecordBatch:
    columns = [pa.array([line[f.name] for line in lines], f.type) for f in kit.SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=kit.SCHEMA)


def test_acknowledged_rows_and_seals_reach_the_view(kit: Any) -> None:
    manifest = kit.manifest({"sales": kit.SALES})
    for part in range(2):
        log = Log.open(kit.folder / "log", kit.log.spec)
        views = LiveViews.open(manifest, kit.url, {"order_lines": log})
        try:
            rows = batch(kit, [kit.line(minute, customer_id=minute) for minute in range(300)])
            acks = [log.append(Append(rows.slice(start, 100), 100)) for start in range(0, 300, 100)]
            last = acks[-1].result(timeout=30)
            after = last.base_offset + last.rows_appended
            assert views.query(ViewQuery("sales", after_offset=after)).table.num_rows == 300
            seal = log.seal(DAY, DAY, force=True)
            copied = views.query(ViewQuery("sales", sealed=SealedRange(DAY, DAY, seal.seal_offset)))
            assert copied.table["lines"].to_pylist() == [part + 1] * 300
        finally:
            views.close()
            log.close()
    assert seal.seal_offset == 600


def test_views_go_on_when_the_contract_gains_a_column(kit: Any) -> None:
    manifest = kit.manifest({"sales": kit.SALES})
    log = Log.open(kit.folder / "log", kit.log.spec)
    views = LiveViews.open(manifest, kit.url, {"order_lines": log})
    try:
        rows = batch(kit, [kit.line(minute, customer_id=minute) for minute in range(10)])
        log.append(Append(rows, 10)).result(timeout=30)
        # In the middle, as a field may stand in its message.
        wider = kit.SCHEMA.insert(2, pa.field("shop", pa.string()))
        log.apply_spec(replace(log.spec, schema=wider, contract_version=2))
        new = [rows.column(name) if name != "shop" else pa.array(["Leeds"] * 10) for name in wider.names]
        log.append(Append(pa.RecordBatch.from_arrays(new, schema=wider), 10)).result(timeout=30)
        assert views.query(ViewQuery("sales", after_offset=20)).table["lines"].to_pylist() == [2] * 10
    finally:
        views.close()
    # A new contract version is another definition: the view is rebuilt from the log, old rows included.
    views = LiveViews.open(manifest, kit.url, {"order_lines": log})
    try:
        log.append(Append(pa.RecordBatch.from_arrays(new, schema=wider), 10)).result(timeout=30)
        assert views.query(ViewQuery("sales", after_offset=30)).table["lines"].to_pylist() == [3] * 10
        assert [status.error for status in views.status()] == [""]
    finally:
        views.close()
        log.close()


def test_a_view_is_rebuilt_over_what_retention_has_dropped(kit: Any) -> None:
    bounds = LogSettings(segment_bytes=20_000, retain_bytes=1)
    log = Log.open(kit.folder / "log", kit.log.spec, settings=bounds)
    lake = LakeExporter(log, "order_lines", str(kit.folder / "lake"))
    lake.ensure()
    seals = []
    for part in range(10):
        rows = batch(kit, [kit.line(minute, customer_id=part, weight=0.1 * minute) for minute in range(100)])
        log.append(Append(rows, 100)).result(timeout=30)
        if part % 3 == 0:
            seals.append(log.seal(DAY, DAY, force=True))
    expected = answers(kit, log, log, seals)
    lake.export()
    hold = RetentionHold(kit.folder / "HOLD")
    retention = Retention(log, kit.folder / "log", lambda: lake.state().offset, hold, settings=bounds)
    assert retention.run().segments >= 2
    assert 300 < log.start_offset < 1000
    (kit.folder / "live.sqlite").unlink()
    assert answers(kit, log, WholeLog(log, str(kit.folder / "lake")), seals) == expected
    log.close()


def answers(kit: Any, log: Log, source: Any, seals: list[Seal]) -> list[Any]:
    """The view's rows and its copies at each seal, once it has followed `source` from the first row on."""
    views = LiveViews.open(kit.manifest({"sales": kit.SALES}), kit.url, {"order_lines": source})
    try:
        asked = [ViewQuery("sales", after_offset=log.durable_offset)]
        asked += [ViewQuery("sales", sealed=SealedRange(DAY, DAY, seal.seal_offset)) for seal in seals]
        return [sorted(map(str, views.query(each).table.to_pylist())) for each in asked]
    finally:
        views.close()
