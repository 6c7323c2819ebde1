"""A changed contract takes effect in a running log: no append is lost, old rows are null in new columns."""

import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from support.logs import NOON_US, SCHEMA, SPEC, SetClock, append, batch, ids_in

from ingest_service.errors import ContractError
from ingest_service.log import Append, Log, LogSpec, Rows

# In the middle: a field may stand anywhere in its message.
WIDER = pa.schema([SCHEMA.field(0), pa.field("shop", pa.string()), SCHEMA.field(1), SCHEMA.field(2)])


def spec_of(schema: pa.Schema, **changes: object) -> LogSpec:
    return replace(SPEC, schema=schema, contract_version=2, **changes)


def wide(ids: list[str], shop: str) -> Append:
    rows = batch(ids)
    columns = [rows.column(0), pa.array([shop] * len(ids)), rows.column(1), rows.column(2)]
    return Append(pa.RecordBatch.from_arrays(columns, schema=WIDER), len(ids))


def shops_in(log: Log) -> list[str | None]:
    reader = log.reader(0)
    try:
        entries = reader.read(1 << 20, 0)
    finally:
        reader.close()
    return [shop for entry in entries if isinstance(entry, Rows) for shop in entry.batch["shop"].to_pylist()]


def test_new_columns_are_null_in_old_rows_also_after_a_restart(tmp_path):
    log = Log.open(tmp_path, SPEC, clock=SetClock())
    log.append(append(["a", "b"])).result(10)
    early = log.reader(0)
    log.apply_spec(spec_of(WIDER))
    # Validated before, committed after.
    log.append(append(["c"])).result(10)
    log.append(wide(["d"], "Leeds")).result(10)
    assert log.schema.names == [
        "event_id",
        "shop",
        "amount",
        "at",
        "_partition",
        "_offset",
        "_append_time",
        "event_date",
    ]
    assert shops_in(log) == [None, None, None, "Leeds"]
    # Whoever reads on keeps the columns that it began with.
    rows = [entry for entry in early.read(100, 0) if isinstance(entry, Rows)]
    assert {tuple(each.batch.schema.names) for each in rows} == {tuple(early.schema.names)}
    assert sum(each.batch.num_rows for each in rows) == 4
    assert "shop" not in early.schema.names
    early.close()
    assert len(log.segments) == 2
    log.close()
    reopened = Log.open(tmp_path, spec_of(WIDER), clock=SetClock())
    assert shops_in(reopened) == [None, None, None, "Leeds"]
    assert ids_in(reopened) == ["a", "b", "c", "d"]
    reopened.close()


def test_producers_ids_and_seals_go_on_across_a_change(tmp_path):
    log = Log.open(tmp_path, SPEC, clock=SetClock())
    first = log.append(append(["a"], producer="p", sequence=0)).result(10)
    log.apply_spec(spec_of(WIDER))
    again = log.append(append(["a"], producer="p", sequence=0)).result(10)
    assert (again.replayed, again.base_offset) == (True, first.base_offset)
    duplicate = log.append(append(["a"], producer="p", sequence=1)).result(10)
    assert duplicate.rows_appended == 0
    log.close()


def test_a_larger_lateness_moves_the_watermark(tmp_path):
    log = Log.open(tmp_path, SPEC, clock=SetClock())
    log.append(append(["a"])).result(10)
    log.apply_spec(spec_of(SCHEMA, out_of_orderness_s=7200))
    assert log.watermark_us == NOON_US - 7200 * 1_000_000
    log.close()


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (pa.schema([SCHEMA.field(0), SCHEMA.field(2)]), "'amount' was int64 in the log and is gone"),
        (SCHEMA.set(1, pa.field("amount", pa.string())), "'amount' was int64 in the log and is string now"),
        (SCHEMA.append(pa.field("shop", pa.string(), nullable=False)), "'shop' is new and not optional"),
    ],
)
def test_a_spec_that_old_rows_do_not_fit_is_refused(tmp_path, schema, reason):
    log = Log.open(tmp_path, SPEC, clock=SetClock())
    log.append(append(["a"])).result(10)
    with pytest.raises(ContractError, match=reason):
        log.apply_spec(spec_of(schema))
    log.append(append(["b"])).result(10)
    assert ids_in(log) == ["a", "b"]
    log.close()


def test_appends_from_many_threads_are_kept_while_specs_change(tmp_path):
    log = Log.open(tmp_path, SPEC)
    schemas = [WIDER]
    for i in range(4):
        schemas.append(schemas[-1].append(pa.field(f"n{i}", pa.int64())))
    acknowledged: list[list[str]] = [[] for _ in range(3)]
    stop = threading.Event()

    def produce(number: int) -> None:
        sequence = 0
        while not stop.is_set():
            ids = [f"{number}-{sequence}-{i}" for i in range(3)]
            log.append(append(ids, producer=f"p{number}", sequence=sequence)).result(10)
            acknowledged[number] += ids
            sequence += 1

    threads = [threading.Thread(target=produce, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for version, schema in enumerate(schemas, 2):
        before = log.durable_offset
        assert log.wait_readable(lambda before=before: log.durable_offset > before + 30, 30)
        log.apply_spec(replace(spec_of(schema), contract_version=version))
    stop.set()
    for thread in threads:
        thread.join(30)
    found = ids_in(log)
    assert sorted(found) == sorted(each for sent in acknowledged for each in sent)
    for number, sent in enumerate(acknowledged):
        assert [each for each in found if each.startswith(f"{number}-")] == sent
    log.close()
    reopened = Log.open(tmp_path, spec_of(schemas[-1]))
    assert ids_in(reopened) == found
    reopened.close()
