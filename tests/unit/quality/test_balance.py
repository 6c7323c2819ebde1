import dataclasses
import shutil
from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable, write_deltalake
from support.lakes import payments

from quality.balance import balance_lake, balance_staging
from quality.config import DayConfig
from quality.errors import BalanceFailed, LakeFailed
from quality.run import Run


def with_pin(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, streams={"payments": dataclasses.replace(run.streams["payments"], **changes)})


def with_counts(run: Run, **changes: object) -> Run:
    return with_pin(run, counts={**run.streams["payments"].counts, **changes})


def staging(config: DayConfig, kept: int, lake_rows: int, filtered: int) -> None:
    work = config.work_copy("r1")
    work.parent.mkdir(parents=True)
    with duckdb.connect(str(work)) as connection:
        connection.execute(f"create table stg_payments as from range({kept})")
        connection.execute(
            "create table staging_filtered as select 'payments' as stream, 'stg_payments' as model, "
            f"{lake_rows} as lake_rows, {filtered} as filtered_rows"
        )


def test_equal_counts_balance_although_events_came_after_the_seal(config: DayConfig, run: Run):
    texts = [line["text"] for line in balance_lake(config, run)]
    assert texts == [
        "payments: sent by the producers' own count 9 = received 9",
        "payments: received 9 = appended 6 + duplicate 1 + quarantined 2 = 9",
        "payments: appended 6 = lake rows 6",
        "payments: seal offset 4 = lake rows below it 4",
        "payments: seal offset 4 = different offsets below it 4",
        "payments: appended on 2011-12-05 4 = lake rows 4",
    ]


def test_a_stream_that_never_had_an_event_balances(config: DayConfig, run: Run, tmp_path: Path):
    uri = str(tmp_path / "empty")
    DeltaTable.create(uri, payments(0, []).schema, partition_by=["event_date"])
    counts = dict.fromkeys(run.streams["payments"].counts, 0) | {"appended_by_date": {}}
    texts = [
        line["text"]
        for line in balance_lake(
            config, with_pin(run, seal_offset=0, lake_uri=uri, lake_version=0, lake_offset=0, counts=counts)
        )
    ]
    assert texts[2:] == [
        "payments: appended 0 = lake rows 0",
        "payments: seal offset 0 = lake rows below it 0",
        "payments: seal offset 0 = different offsets below it 0",
        "payments: appended on 2011-12-05 0 = lake rows 0",
    ]


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        ({"sent": 10}, "sent by the producers' own count 10 ≠ received 9 (difference +1)"),
        ({"duplicate": 0}, "received 9 ≠ appended 6 + duplicate 0 + quarantined 2 = 8 (difference +1)"),
        ({"appended": 7, "received": 10}, "appended 7 ≠ lake rows 6 (difference +1)"),
        ({"appended_by_date": {"2011-12-05": 5, "2011-12-06": 1}}, "appended on 2011-12-05 5 ≠ lake rows 4"),
        ({"appended_by_date": {"2011-12-04": 2, "2011-12-05": 4}}, "appended on 2011-12-06 0 ≠ lake rows 1"),
    ],
)
def test_a_wrong_count_is_named_with_both_numbers(config: DayConfig, run: Run, counts: dict, line: str):
    with pytest.raises(BalanceFailed) as caught:
        balance_lake(config, with_counts(run, **counts))
    assert f"payments: {line}" in str(caught.value)


def test_a_row_that_is_missing_or_doubled_in_the_lake_is_found(config: DayConfig, run: Run):
    with pytest.raises(BalanceFailed, match="seal offset 7 ≠ lake rows below it 6"):
        balance_lake(config, with_pin(run, seal_offset=7))
    uri = run.streams["payments"].lake_uri
    write_deltalake(uri, payments(0, [4]), mode="append")
    with pytest.raises(BalanceFailed) as caught:
        balance_lake(config, with_pin(run, lake_version=2))
    assert caught.value.lines == [
        "payments: appended 6 ≠ lake rows 7 (difference -1)",
        "payments: seal offset 4 ≠ lake rows below it 5 (difference -1)",
        "payments: appended on 2011-12-04 1 ≠ lake rows 2 (difference -1)",
    ]


def test_a_lake_that_is_gone_is_named(config: DayConfig, run: Run):
    shutil.rmtree(Path(run.streams["payments"].lake_uri))
    with pytest.raises(LakeFailed, match="version 1; found no Delta table"):
        balance_lake(config, run)
    with pytest.raises(LakeFailed, match="version 9"):
        balance_lake(config, with_pin(run, lake_version=9))


def test_staging_and_what_it_filters_make_the_lake(config: DayConfig, run: Run):
    staging(config, kept=3, lake_rows=4, filtered=1)
    assert [line["text"] for line in balance_staging(config, run)] == [
        "payments: seal offset 4 = lake rows that dbt read 4",
        "payments: lake rows 4 = stg_payments 3 + filtered 1 = 4",
    ]


@pytest.mark.parametrize(
    ("kept", "lake_rows", "filtered", "line"),
    [
        (3, 4, 0, "lake rows 4 ≠ stg_payments 3 + filtered 0 = 3 (difference +1)"),
        (5, 5, 0, "seal offset 4 ≠ lake rows that dbt read 5 (difference -1)"),
    ],
)
def test_rows_lost_on_the_way_to_staging_are_named(
    config: DayConfig, run: Run, kept: int, lake_rows: int, filtered: int, line: str
):
    staging(config, kept, lake_rows, filtered)
    with pytest.raises(BalanceFailed) as caught:
        balance_staging(config, run)
    assert line in str(caught.value)
