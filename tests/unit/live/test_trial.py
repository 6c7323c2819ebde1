"""Trials of live models: that both sides agree where they do, and that wrong merges are found."""

from __future__ import annotations

import dataclasses
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from ingest_service.contracts import load_contracts
from ingest_service.live.column_types import StoreForm
from ingest_service.live.description import ViewColumn, ViewDescription
from ingest_service.live.session import MergeSession
from ingest_service.live.store import WriteTransaction
from ingest_service.live.trial import run
from ingest_service.live.trial.__main__ import main
from ingest_service.live.trial.batch import BATCH_SIDE, BOUNDS_SIDE
from ingest_service.live.trial.compare import ROW, compare
from ingest_service.live.trial.events import EventMaker
from ingest_service.live.trial.hints import Hints
from ingest_service.live.trial.log import TrialLog
from ingest_service.log.records import Rows, Seal

PROTO = Path(__file__).parents[3] / "proto"
SEED = random.SystemRandom().randrange(2**31)
Run = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def trial(kit: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the tool over models by name; gives what it said of them, the last line first checked against its status."""

    def run_it(models: dict[str, str], *options: str, given: dict[str, str] | None = None) -> list[dict[str, Any]]:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"given": given or {}}) + "\n"))
        arguments = [f"--manifest={kit.manifest(models)}", f"--proto={PROTO}", f"--seed={SEED}", "--rows=600"]
        code = main([*arguments, *options])
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == (0 if all(line.get("agrees", True) for line in said) else 1), f"seed {SEED}"
        return [line for line in said if "model" in line]

    return run_it


def models(source: str) -> dict[str, str]:
    return {
        "by_customer": f"""select customer_id, count(*) as n, sum(quantity) as units, min(unit_price) as low,
            max(unit_price) as high, avg(quantity) as average, stddev_samp(quantity) as deviation,
            count(distinct invoice_no) as invoices, bool_and(quantity > 0) as sold, approx_count_distinct(country) as c,
            last(country order by _offset) as country from {source} group by all""",
        "by_minute": f"""select time_bucket(interval '1 minute', invoiced_at) as window_start, country,
            sum(quantity * unit_price) filter (where quantity > 0) as revenue, approx_quantile(quantity, 0.5) as median
            from {source} group by all""",
        "events": f"select _offset, invoiced_at, country from {source} where quantity < 0",
        "total": f"select count(*) as n, sum(quantity) / count(*) as q from {source}",
    }


def test_both_sides_agree(kit: Any, trial: Run) -> None:
    for line in trial(models(kit.SOURCE)):
        assert line["agrees"], f"{line} with seed {SEED}"
        assert line["events"] == 600
        assert line["restarts"] == 2
        assert line["micro_batches"] >= 3
        assert line["rows_compared"]
        assert line["seed"] == SEED


def forgotten(*_: object, **__: object) -> list[object]:
    return []


def half_dropped(method: Any) -> Any:
    calls: list[int] = []

    def partial(self: Any, *arguments: Any, **more: Any) -> Any:
        calls.append(1)
        return method(self, *arguments, **more) if len(calls) % 2 else []

    return partial


def doubled(method: Any) -> Any:
    return lambda self, states, *others, **more: method(self, [*states, states[0]], *others, **more)


def nothing(*_: object, **__: object) -> None:
    pass


@pytest.mark.parametrize(
    ("of", "name", "fault"),
    [
        (WriteTransaction, "states", lambda _: forgotten),
        (WriteTransaction, "seal", lambda _: nothing),
        (WriteTransaction, "save", lambda _: nothing),
        (MergeSession, "partial", half_dropped),
        (MergeSession, "merge", doubled),
    ],
    ids=["states forgotten", "nothing sealed", "checkpoint not written", "batches dropped", "a state merged twice"],
)
def test_a_fault_is_found(
    kit: Any, trial: Run, monkeypatch: pytest.MonkeyPatch, of: type, name: str, fault: Any
) -> None:
    monkeypatch.setattr(of, name, fault(getattr(of, name)))
    (line,) = trial(models(kit.SOURCE), "by_customer")
    assert not line["agrees"], f"seed {SEED}"
    assert line["problem"] or line["difference_count"]


@pytest.mark.parametrize(("right", "wrong"), [("sum(", "max("), ("min(", "max("), ("max(", "min(")])
def test_a_wrong_merge_is_found_and_named(
    kit: Any, trial: Run, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    def wrong_plan(*arguments: Any) -> Any:
        plan = run_plan(*arguments)
        assert right in plan.final_sql
        return dataclasses.replace(plan, final_sql=plan.final_sql.replace(right, wrong))

    run_plan = run.plan_view
    monkeypatch.setattr(run, "plan_view", wrong_plan)
    sql = f"select country, {right}quantity) as merged, count(quantity) as n from {kit.SOURCE} group by all"
    (line,) = trial({"m": sql})
    assert not line["agrees"], f"seed {SEED}"
    assert line["difference_count"] >= len(line["differences"]) > 0
    first = line["differences"][0]
    assert list(first["group"]) == ["country"]
    assert "merged" in {each["column"] for each in line["differences"]}
    assert first["live"] != first["batch"]


def test_a_set_that_loses_values_is_found(kit: Any, trial: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    original = WriteTransaction.add_values
    monkeypatch.setattr(WriteTransaction, "add_values", lambda *given: original(*given)[1:])
    (line,) = trial(models(kit.SOURCE), "by_customer")
    assert {each["column"] for each in line["differences"]} == {"invoices"}, f"seed {SEED}"


def test_what_no_side_can_take_is_told_of_both(kit: Any, trial: Run) -> None:
    (line,) = trial({"m": f"select country, sum(cast(stock_code as integer)) as s from {kit.SOURCE} group by all"})
    assert "the live view stopped at offset" in line["problem"]
    assert "the model's SQL fails as batch" in line["problem"]


def test_a_view_that_stops_where_dbt_goes_on_is_told(kit: Any, trial: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = kit.manifest

    def limited(models: dict[str, str]) -> Path:
        path: Path = manifest(models)
        content = json.loads(path.read_text())
        content["nodes"]["model.p.m"]["config"]["meta"] = {"live": {"distinct_values_max": 2}}
        path.write_text(json.dumps(content))
        return path

    monkeypatch.setattr(kit, "manifest", limited)
    (line,) = trial({"m": f"select count(distinct invoice_no) as n, max(quantity) as q from {kit.SOURCE}"})
    assert "more than 2 different values" in line["problem"]
    assert "dbt takes it" in line["problem"]


def test_a_refused_model_is_told_with_its_place(kit: Any, trial: Run) -> None:
    found = trial({"bad": f"select country,\n median(quantity) as m from {kit.SOURCE} group by 1", "good": kit.SALES})
    assert "models/live/bad.sql:2:2" in found[0]["problem"]
    assert found[1]["agrees"]


def test_given_events_are_taken_and_those_that_break_the_contract_left_out(
    kit: Any, trial: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contract = load_contracts(PROTO).contracts["order_lines"]
    events = EventMaker(contract, Hints(), random.Random(SEED)).table(40)
    wrong = events.slice(0, 3).set_column(4, "quantity", pa.array([0, 0, 0]))  # which the contract forbids
    file = tmp_path / "events.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, events.schema) as writer:
        writer.write_table(events)
        writer.write_table(wrong.cast(events.schema))
    (line,) = trial({"total": models(kit.SOURCE)["total"]}, given={"order_lines": str(file)})
    assert line["agrees"]
    assert line["events"] == 40


def test_the_same_seed_makes_the_same_course(kit: Any, trial: Run) -> None:
    chosen = {name: models(kit.SOURCE)[name] for name in ("total", "by_minute")}
    took = {"live_s", "batch_s"}
    runs = [trial(chosen), trial(chosen), trial(chosen, "total")]
    first, second, alone = ([{k: v for k, v in line.items() if k not in took} for line in each] for each in runs)
    assert first == second
    assert alone == [line for line in first if line["model"] == "total"], "whichever other models are run beside it"


def test_the_log_is_whole_in_order_and_sealed_once(kit: Any) -> None:
    contract = load_contracts(PROTO).contracts["order_lines"]
    for rows in (1, 2, 500):
        log = TrialLog(contract.log_spec(), EventMaker(contract, Hints(), random.Random(SEED)).table(rows))
        for seed in range(20):
            entries = log.entries(random.Random(seed))
            batches = [entry for entry in entries if isinstance(entry, Rows)]
            assert pa.Table.from_batches([entry.batch for entry in batches]).equals(log.rows)
            (seal,) = (entry for entry in entries if isinstance(entry, Seal))
            before = entries[: entries.index(seal)]
            assert sum(entry.batch.num_rows for entry in before if isinstance(entry, Rows)) == seal.seal_offset
        taken = log.rows["_append_time"].to_pylist()
        assert taken == sorted(taken)
        assert all(a >= b for a, b in zip(taken, log.rows["invoiced_at"].to_pylist(), strict=True))


# --- the comparison by itself ---

COLUMNS = {
    "g": ViewColumn("g", "DOUBLE", exact=True, relative_tolerance=0.0),
    "e": ViewColumn("e", "DOUBLE", exact=True, relative_tolerance=0.0),
    "t": ViewColumn("t", "DOUBLE", exact=False, relative_tolerance=1e-9),
    "q": ViewColumn("q", "DOUBLE", exact=False, relative_tolerance=0.0, rank_error=0.05),
}
DESCRIPTION = ViewDescription(
    view="v", stream="s", definition_hash="", columns=tuple(COLUMNS.values()), forms=(StoreForm.DOUBLE,) * 4,
    whole_seconds=(), group_columns=("g",), window_column="", states=0, value_sets=(), bounds_sql="-",
)  # fmt: skip
BATCH = "(1.0, 5.0, 1000.0, 3.0)"
NAN = float("nan")


def compared(live: list[tuple[float | None, ...]], batch: str = BATCH, bounds: str = "(1.0, 2.0, 4.0)") -> list[Any]:
    with duckdb.connect() as duck:
        duck.execute(f"create table {BATCH_SIDE} (g double, e double, t double, q double)")
        duck.execute(f"insert into {BATCH_SIDE} values {batch}")
        duck.execute(f"create table {BOUNDS_SIDE} (g double, q__low double, q__high double)")
        duck.execute(f"insert into {BOUNDS_SIDE} values {bounds}")
        columns = list(zip(*live, strict=True)) or [()] * 4
        table = pa.table({name: pa.array(column, pa.float64()) for name, column in zip(COLUMNS, columns, strict=True)})
        found = compare(duck, DESCRIPTION, table)
    assert found.difference_count == len(found.differences)
    return [(each.column, each.live, each.batch) for each in found.differences]


def test_equal_rows_and_rows_within_bounds_are_no_difference() -> None:
    assert compared([(1.0, 5.0, 1000.0, 3.0)]) == []
    assert compared([(1.0, 5.0, 1000.0 + 9e-7, 2.0)]) == []
    assert compared([(1.0, 5.0, 1000.0 - 9e-7, 4.0)]) == []
    assert compared([(None, -0.0, NAN, None)], "(null, 0.0, 'nan', null)", "(null, null, null)") == []
    assert compared([(NAN, None, None, NAN)], "('nan', null, null, 'nan')", "('nan', 1.0, 'nan')") == []


@pytest.mark.parametrize(
    ("live", "column"),
    [
        ((1.0, 5.0000001, 1000.0, 3.0), "e"),
        ((1.0, None, 1000.0, 3.0), "e"),
        ((1.0, NAN, 1000.0, 3.0), "e"),
        ((1.0, 5.0, 1000.0 + 2e-6, 3.0), "t"),
        ((1.0, 5.0, None, 3.0), "t"),
        ((1.0, 5.0, NAN, 3.0), "t"),
        ((1.0, 5.0, 1000.0, 1.9), "q"),
        ((1.0, 5.0, 1000.0, 4.1), "q"),
        ((1.0, 5.0, 1000.0, None), "q"),
    ],
)
def test_each_kind_of_difference_is_found(live: tuple[float | None, ...], column: str) -> None:
    ((found, _, _),) = compared([live])
    assert found == column


def test_rows_of_one_side_and_rows_twice_are_differences() -> None:
    absent, there = "(no such row)", "(a row)"
    assert compared([]) == [(ROW, absent, there)]
    assert compared([(1.0, 5.0, 1000.0, 3.0), (2.0, 5.0, 1000.0, 3.0)]) == [(ROW, there, absent)]
    assert compared([(1.0, 5.0, 1000.0, 3.0)] * 2) == [(ROW, "2 rows", there)]
    assert compared([(None, 5.0, 1000.0, 3.0)]) == [(ROW, absent, there), (ROW, there, absent)]


def test_other_types_are_a_difference() -> None:
    with duckdb.connect() as duck:
        duck.execute(f"create table {BATCH_SIDE} (g double, e integer, t double, q double)")
        found = compare(duck, DESCRIPTION, pa.table({name: pa.array([], pa.float64()) for name in COLUMNS}))
    assert found.difference_count == 1
    assert (found.differences[0].live, found.differences[0].batch) == ("e DOUBLE", "e INTEGER")
