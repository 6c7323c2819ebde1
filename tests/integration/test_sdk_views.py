"""Live views from the SDK and the command line, against the real service, which dies at times."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from integration.conftest import SALES_BY_MINUTE, live_manifest

import tidemill
import tidemill.aio
from tidemill.cli import main
from tidemill.v1 import views_pb2, views_pb2_grpc

ROOT = Path(__file__).parents[2]
VIEW = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())", "view"]
AT = dt.datetime(2011, 12, 5, 8, 26, tzinfo=dt.UTC)
_ids = itertools.count()


@pytest.fixture
def tm(ingest: Any) -> Iterator[tidemill.Client]:
    with tidemill.connect(ingest.address, options=tidemill.ProducerOptions(retry_for_s=30)) as client:
        yield client


def send(tm: tidemill.Client, *, country: str = "France", minute: int = 0, quantity: int = 1) -> int:
    """Sends an order line; the offset that a view has to cover to have it."""
    event = {
        "event_id": f"line-{next(_ids)}", "invoice_no": "536365", "stock_code": "85123A", "quantity": quantity,
        "unit_price": "2.550", "country": country, "invoiced_at": AT + dt.timedelta(minutes=minute),
    }  # fmt: skip
    return tm.stream("order_lines").send(event).result(60).after_offset


class Copy:
    """A watcher's copy of sales_by_minute, kept by what it is told."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.resets = 0
        self.resume = ""

    def take(self, change: tidemill.ViewChange) -> None:
        if change.reset:
            self.rows.clear()
            self.resets += 1
        for row in change:
            self.rows[row["window_start"], row["country"]] = row
        self.resume = change.resume

    def is_the_view(self, view: tidemill.View) -> bool:
        return sorted(self.rows.values(), key=str) == sorted(view.query().rows(), key=str)


def test_the_sample_of_the_design(ingest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with tidemill.connect(ingest.address) as tm:
        send(tm, country="Spain")
        covered = send(tm, quantity=3)
        sales = tm.view("sales_by_minute")
        assert sales.query(after=covered).to_pandas()["country"].tolist().count("France") == 1
        for change in sales.watch(country="France"):
            print(change)
            break
    out = capsys.readouterr().out
    assert out.startswith(
        "ViewChange(offset=2, reset=True, rows=[{'window_start': datetime.datetime(2011, 12, 5, 8, 26"
    )
    assert "'country': 'France', 'lines': 1" in out
    assert "Spain" not in out


@pytest.mark.parametrize("arrow", [True, False])
def test_changes_come_as_rows_and_as_arrow(tm: tidemill.Client, arrow: bool) -> None:
    tm.view("sales_by_minute").query(after=send(tm))
    with tm.view("sales_by_minute").watch(arrow=arrow) as watch:
        first = next(watch)
        assert (first.reset, first.complete, first.offset, len(first)) == (True, True, 1, 1)
        assert first.rows()[0]["revenue"] == Decimal("2.550")
        send(tm)
        second = next(watch)
        assert (second.reset, second.offset, [row["lines"] for row in second]) == (False, 2, [2])
        assert second.to_arrow()["country"].to_pylist() == ["France"]
        assert [column.name for column in second.columns][:2] == ["window_start", "country"]
        assert watch.resume == second.resume != first.resume
    with pytest.raises(StopIteration):
        next(watch)
    # What came meanwhile comes first.
    send(tm, country="Spain")
    send(tm, country="Italy")
    with tm.view("sales_by_minute").watch(resume=second.resume, arrow=arrow) as watch:
        countries: set[Any] = set()
        while countries != {"Spain", "Italy"}:
            change = next(watch)
            assert not change.reset
            countries |= {row["country"] for row in change}


def test_conditions_hold_for_what_is_told(tm: tidemill.Client) -> None:
    for number, country in enumerate(("France", "Spain", "France"), 1):
        tm.view("sales_by_minute").query(after=send(tm, country=country, quantity=number, minute=number))
    watch = tm.view("sales_by_minute").watch(where=[("revenue", ">", Decimal("3"))], country="France")
    assert [row["revenue"] for row in next(watch)] == [Decimal("7.650")]
    with pytest.raises(tidemill.RequestRefused, match="no column 'shop'"):
        next(tm.view("sales_by_minute").watch(shop="A"))
    with pytest.raises(tidemill.BadQuery, match="no operator"):
        tm.view("sales_by_minute").watch(where=[("country", "like", "F%")])
    with pytest.raises(tidemill.NotFound, match="no live view 'nope'"):
        next(tm.view("nope").watch())
    with pytest.raises(tidemill.RequestRefused, match="expected what an earlier answer gave"):
        next(tm.view("sales_by_minute").watch(resume="nonsense"))
    watch.close()


@pytest.mark.parametrize("seed", range(2))
def test_a_watcher_keeps_its_copy_though_the_service_is_killed(ingest: Any, tm: tidemill.Client, seed: int) -> None:
    chance = random.Random(seed)
    copy = Copy()
    total = 120
    ended = threading.Event()

    def follow() -> None:
        with tidemill.connect(ingest.address) as other, other.view("sales_by_minute").watch() as watch:
            for change in watch:
                copy.take(change)
                if change.offset >= total and change.complete:
                    ended.set()
                    return

    follower = threading.Thread(target=follow)
    follower.start()
    for number in range(total):
        send(tm, country=f"C{chance.randint(0, 5)}", minute=chance.randint(0, 3), quantity=chance.randint(1, 9))
        if number in (30, 60, 90):
            ingest.kill()
            ingest.start()
            tm.wait_ready(60)
        if number == 75:
            tm.view("sales_by_minute").rebuild()
    assert ended.wait(60), f"seed {seed}"
    follower.join(10)
    tm.view("sales_by_minute").query(after=total)
    assert copy.is_the_view(tm.view("sales_by_minute")), f"seed {seed}"
    # At first, and by the rebuild, if it watched before that: not each time that the service was gone.
    assert copy.resets in (1, 2)


def test_patience_ends(ingest: Any) -> None:
    with tidemill.connect(ingest.address, options=tidemill.ProducerOptions(retry_for_s=0.3)) as tm:
        watch = tm.view("sales_by_minute").watch()
        send(tm)
        next(watch)
        ingest.kill()
        with pytest.raises(tidemill.ServiceUnavailable):
            list(watch)


def test_another_thread_may_end_it(shared_ingest: Any) -> None:
    with tidemill.connect(shared_ingest.address, wait_s=20) as tm:
        watch = tm.view("sales_by_minute").watch()
        ended: list[list[Any]] = []
        waiting = threading.Thread(target=lambda: ended.append(list(watch)))
        waiting.start()
        watch.close()
        waiting.join(20)
        assert len(ended) == 1


def test_a_client_that_is_closed_ends_its_watches(shared_ingest: Any) -> None:
    tm = tidemill.connect(shared_ingest.address, wait_s=20)
    watch = tm.view("sales_by_minute").watch()
    next(watch)
    tm.close()
    with pytest.raises(tidemill.ClientClosed):
        list(watch)


def test_asyncio_watches_too(ingest: Any, tm: tidemill.Client) -> None:
    async def run() -> None:
        async with tidemill.aio.connect(ingest.address) as client:
            view = client.view("sales_by_minute")
            await view.query(after=await asyncio.to_thread(send, tm), window_state=True)
            async with view.watch(country="France") as watch:
                first = await anext(watch)
                assert (first.reset, len(first)) == (True, 1)
                # A wait that runs out loses nothing.
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(watch), 0.05)
                await asyncio.to_thread(send, tm)
                second = await anext(watch)
                assert [row["lines"] for row in second] == [2]
                assert watch.resume == second.resume
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
            await view.rebuild()
            with pytest.raises(tidemill.RequestRefused, match="has no copy"):
                await view.confirm_reconciled(AT.date(), AT.date(), 7)
            applied = await client.apply_views(live_manifest(ingest.data).read_bytes(), check_only=True)
            assert [(each.view, each.change) for each in applied] == [("sales_by_minute", "same")]

    asyncio.run(run())


@pytest.mark.soak
def test_a_call_that_is_idle_for_long_keeps_its_connection(shared_ingest: Any) -> None:
    """Its client asks now and then whether the service is still there: more often than gRPC's own rule allows."""
    options = [("grpc.keepalive_time_ms", 11_000), ("grpc.http2.max_pings_without_data", 0)]
    with grpc.insecure_channel(shared_ingest.address, options) as channel:
        stub = views_pb2_grpc.ViewServiceStub(channel)
        call = stub.WatchView(views_pb2.WatchViewRequest(view="sales_by_minute"), timeout=60)
        with pytest.raises(grpc.RpcError) as ended:
            list(call)
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def manifest_of(tmp_path: Path, sql: str, name: str = "sales_by_minute") -> bytes:
    found = json.loads(live_manifest(tmp_path).read_text())
    model = found["nodes"]["model.m"]
    model.update(name=name, compiled_code=sql, raw_code=sql)
    return json.dumps(found).encode()


def test_views_that_were_applied_outlive_a_kill(ingest: Any, tm: tidemill.Client, tmp_path: Path) -> None:
    view = tm.view("sales_by_minute")
    view.query(after=send(tm, quantity=4))
    changed = manifest_of(tmp_path, SALES_BY_MINUTE.replace("count(*)", "max(quantity)"))
    copy = Copy()
    with view.watch() as watch:
        copy.take(next(watch))
        assert [each.change for each in tm.apply_views(changed)] == [tidemill.DefinitionChange.CHANGED]
        copy.take(next(watch))
    assert (copy.resets, [row["lines"] for row in copy.rows.values()]) == (2, [4])
    for _ in range(2):
        ingest.kill()
        ingest.start()
        tm.wait_ready(60)
        rows = view.query(after=1, wait_s=30)
        assert [row["lines"] for row in rows] == [4]
    assert [each.change for each in tm.apply_views(changed, check_only=True)] == ["same"]
    status = view.status()
    assert (status.state, "max(quantity)" in status.sql) == (tidemill.ViewState.FOLLOWING, True)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 10))])
def test_a_kill_in_the_middle_of_a_change_leaves_one_or_the_other(
    ingest: Any, tm: tidemill.Client, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    view = tm.view("sales_by_minute")
    view.query(after=send(tm, quantity=4))
    before, after = SALES_BY_MINUTE, SALES_BY_MINUTE.replace("count(*)", "max(quantity)")
    in_force = before
    for _ in range(3):
        wanted = after if in_force is before else before
        answered: list[bool] = []

        def apply(content: bytes, answered: list[bool] = answered) -> None:
            try:
                tm.apply_views(content)
            except tidemill.ServiceUnavailable:
                return
            answered.append(True)

        applying = threading.Thread(target=apply, args=(manifest_of(tmp_path, wanted),))
        applying.start()
        applying.join(chance.random() * 0.2)
        ingest.kill()
        applying.join(30)
        ingest.start()
        tm.wait_ready(60)
        status = view.status()
        # The manifest and the views are of one mind, and what was answered holds.
        kept = json.loads((ingest.data / "live" / "manifest.json").read_text())
        in_force = kept["nodes"]["model.m"]["compiled_code"]
        assert in_force in (before, after), f"seed {seed}"
        assert in_force == wanted or not answered, f"seed {seed}"
        end = time.monotonic() + 30
        while status.sql != in_force or status.rebuild_offset is not None:
            assert time.monotonic() < end, f"seed {seed}: {status}"
            status = view.status()
        assert [row["lines"] for row in view.query(after=1)] == [1 if in_force == before else 4], f"seed {seed}"
        in_force = before if in_force == before else after


def run(capsys: pytest.CaptureFixture[str], ingest: Any, *arguments: str) -> tuple[int, str, str]:
    code = main(["view", *arguments, "--address", ingest.address])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_says_what_each_view_does(
    ingest: Any, tm: tidemill.Client, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tm.view("sales_by_minute").query(after=send(tm))
    tm.apply_views(manifest_of(tmp_path, f"{SALES_BY_MINUTE} order by 1"))
    code, out, _ = run(capsys, ingest, "list")
    header, line = out.splitlines()
    assert code == 0
    assert header.split() == [
        "view", "stream", "state", "lag", "lag", "ms", "watermark", "rows", "grain", "problem",
    ]  # fmt: skip
    # What served under that name goes on, and says what is wrong with its newest model.
    assert line.split()[:8] == [
        "sales_by_minute", "order_lines", "following", "0", "0", "2011-12-05", "07:26:00Z", "1",
    ]  # fmt: skip
    assert "ORDER BY" in line
    status = json.loads(run(capsys, ingest, "list", "--json")[1])
    assert (status["state"], status["offset"], status["lag_ms"]) == ("following", 1, 0)
    assert status["watermark"] == "2011-12-05T07:26:00+00:00"
    assert status["columns"][4]["name"] == "customers"


def test_a_query_shows_the_state_of_windows(
    ingest: Any, tm: tidemill.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    send(tm)
    tm.view("sales_by_minute").query(after=send(tm, minute=120))
    code, out, _ = run(capsys, ingest, "query", "sales_by_minute", "--order-by", "window_start")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert lines[0][-1] == "_window_state"
    assert [line[-1] for line in lines[1:3]] == ["closed", "open"]
    code, out, _ = run(capsys, ingest, "query", "sales_by_minute", "--json", "--where", "_window_state=open")
    assert [json.loads(line)["_window_state"] for line in out.splitlines()] == ["open"]


@pytest.fixture
def watching(ingest: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `tidemill view watch`; what still runs at the end is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [*VIEW, "watch", "sales_by_minute", "--address", ingest.address, *arguments]
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_watch_prints_rows_until_ctrl_c(watching: Any, tm: tidemill.Client) -> None:
    tm.view("sales_by_minute").query(after=send(tm))
    process = watching("--where", "lines>0")
    first = line_of(process)
    assert first == ("1 window_start=2011-12-05T08:26:00Z country=France lines=1 revenue=2.550 customers=0")
    send(tm, country="United Kingdom", quantity=2)
    assert line_of(process).split()[:2] == ["2", "window_start=2011-12-05T08:26:00Z"]
    tm.view("sales_by_minute").rebuild()
    again = {line_of(process), line_of(process)}
    assert first.replace("1 ", "2 ", 1) in again
    assert any('country="United Kingdom"' in line for line in again)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err == "sales_by_minute was rebuilt: all of its rows follow\n"


def test_watch_goes_on_where_it_was(watching: Any, tm: tidemill.Client) -> None:
    tm.view("sales_by_minute").query(after=send(tm))
    process = watching("--json")
    first = json.loads(line_of(process))
    assert (first["reset"], first["complete"], first["offset"]) == (True, True, 1)
    assert first["rows"][0]["revenue"] == "2.550"
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=30), process.returncode) == (("", ""), 0)
    send(tm, country="Spain")
    process = watching("--json", "--resume", first["resume"])
    change = json.loads(line_of(process))
    assert (change["reset"], [row["country"] for row in change["rows"]]) == (False, ["Spain"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    process = watching("--resume", "nonsense")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)


def test_rebuild_waits_until_the_new_rows_serve(
    ingest: Any, tm: tidemill.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    tm.view("sales_by_minute").query(after=send(tm))
    code, out, err = run(capsys, ingest, "rebuild", "sales_by_minute", "--wait")
    assert (code, out, err) == (0, "sales_by_minute was rebuilt: 1 rows, the log's below offset 1\n", "")
    code, out, _ = run(capsys, ingest, "rebuild", "sales_by_minute", "--wait", "--json")
    assert json.loads(out)["rebuild_offset"] is None
    code, out, _ = run(capsys, ingest, "rebuild", "sales_by_minute")
    assert (code, out.startswith("sales_by_minute ")) == (0, True)
    code, out, err = run(capsys, ingest, "rebuild", "nope")
    assert (code, out, "there is no live view 'nope'" in err) == (1, "", True)


def test_the_copy_of_a_slow_reader_is_whole(tm: tidemill.Client) -> None:
    """Whoever takes changes slowly gets rows as they are by then, some of them at once."""
    copy = Copy()
    total = 60
    taken = threading.Event()

    def follow(wait: Callable[[], object]) -> None:
        with tm.view("sales_by_minute").watch() as watch:
            for change in watch:
                copy.take(change)
                wait()
                if change.offset >= total:
                    return

    follower = threading.Thread(target=follow, args=(lambda: taken.wait(0.05),))
    follower.start()
    for number in range(total):
        send(tm, minute=number % 7)
    follower.join(60)
    assert not follower.is_alive()
    tm.view("sales_by_minute").query(after=total)
    assert copy.is_the_view(tm.view("sales_by_minute"))
