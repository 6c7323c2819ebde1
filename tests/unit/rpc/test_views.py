"""The calls of live views against a service: what it tells of them, their rows, their changes, and which there are."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.rpc import error_details_pb2, status_pb2
from unit.rpc.view_service import (
    ARROW,
    BY_COUNTRY,
    BY_MINUTE,
    REFUSED,
    SOURCE,
    VIEWS,
    Copy,
    ServedViews,
    eventually,
    manifest,
    serving,
)

import tidemill
from ingest_service.access import KeyFile, Right
from ingest_service.access.key import new_key
from ingest_service.rpc import commits, view_manifest, view_parts, views, watching, writing
from ingest_service.rpc.server import STOP_GRACE_S
from tidemill.v1 import views_pb2

CLIENT_BYTES_MAX = 4 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedViews]:
    with serving(tmp_path, manifest({**VIEWS, "refused": REFUSED})) as served:
        yield served


def table(response: Any) -> list[dict[str, Any]]:
    with pa.ipc.open_stream(response.arrow) as reader:
        return reader.read_all().to_pylist()


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()


def test_a_status_says_all_that_is_known(served: ServedViews) -> None:
    covered = served.send({"units": 5}, {"country": "Spain", "minute": 1})
    served.rows("by_minute", covered)
    served.rows("by_country", covered)
    response = served.stub.ListViews(views_pb2.ListViewsRequest())
    assert [each.view for each in response.views] == ["by_country", "by_minute", "refused"]
    by_country, by_minute, refused = response.views
    assert (by_minute.state, by_minute.stream) == (views_pb2.VIEW_STATE_FOLLOWING, "sales")
    assert (by_minute.offset, by_minute.lag, by_minute.lag_ms, by_minute.rows) == (2, 0, 0, 2)
    assert list(by_minute.group_columns) == ["window_start", "country"]
    assert (by_minute.window_column, by_country.window_column) == ("window_start", "")
    assert by_minute.HasField("watermark")
    assert not by_minute.HasField("rebuild_offset")
    assert not by_minute.HasField("expired_before")
    assert by_minute.retain_s == 0
    assert (by_minute.sql, by_minute.bounds_sql, by_minute.error) == (BY_MINUTE, "", "")
    assert [(column.name, column.type, column.exact) for column in by_country.columns] == [
        ("country", "VARCHAR", True), ("sales", "BIGINT", True), ("units", "HUGEINT", True), ("note", "VARCHAR", True),
    ]  # fmt: skip
    assert (refused.state, refused.stream, refused.offset) == (views_pb2.VIEW_STATE_REFUSED, "", 0)
    assert "ORDER BY" in refused.error
    status = served.tm.view("by_minute").status()
    assert (status.state, status.rebuild_offset) == (tidemill.ViewState.FOLLOWING, None)
    assert status.watermark is not None
    assert served.tm.view("refused").status().state is tidemill.ViewState.REFUSED


def test_rows_come_with_the_state_of_their_windows(served: ServedViews) -> None:
    # Out of order by more than the contract says: the first minute has closed by then.
    first = served.send({"country": "France"})
    served.rows("by_minute", first)
    second = served.send({"minute": 40})
    served.rows("by_minute", second)
    third = served.send({"country": "Spain"})
    view = served.tm.view("by_minute")
    expected = {("France", 0): "closed", ("France", 40): "open", ("Spain", 0): "corrected"}
    for arrow in (True, False):
        rows = view.query(after=third, window_state=True, arrow=arrow)
        assert rows.columns[-1].name == "_window_state"
        found = {(row["country"], row["window_start"].minute - 13): row["_window_state"] for row in rows}
        assert found == expected
        only = view.query(where=[("_window_state", "=", "closed")], window_state=True, arrow=arrow)
        assert [row["country"] for row in only] == ["France"]
    assert "_window_state" not in [column.name for column in view.query().columns]
    assert [row["_window_state"] for row in served.tm.view("by_country").query(window_state=True)] == [None, None]


def test_who_waits_for_a_view_holds_no_thread(served: ServedViews) -> None:
    served.send({})
    threads = threading.active_count()
    queries = [
        served.stub.QueryView.future(views_pb2.QueryViewRequest(view="by_country", after_offset=2, wait_ms=60_000))
        for _ in range(200)
    ]
    # All others are answered meanwhile, and there are not more threads than those that read.
    assert len(served.stub.ListViews(views_pb2.ListViewsRequest()).views) == 3
    assert len(served.stub.QueryView(views_pb2.QueryViewRequest(view="by_country", after_offset=1)).values) == 1
    assert threading.active_count() <= threads + 4
    assert not any(query.done() for query in queries)
    served.send({"country": "Spain"})
    assert {(query.result(30).offset, len(query.result().values)) for query in queries} == {(2, 2)}


def test_a_wait_ends_in_time_or_when_it_can_not_help(served: ServedViews) -> None:
    request = views_pb2.QueryViewRequest(view="by_country", after_offset=1 << 40, wait_ms=20)
    code, said = refusal(lambda: served.stub.QueryView(request))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert said == f"the view by_country has not reached offset {1 << 40} in 0.02 s"


def test_a_sealed_copy_is_waited_for(served: ServedViews) -> None:
    served.send({})
    seal = served.tm.seal(
        "sales", served.tm.view("by_minute").query(after=1).rows()[0]["window_start"].date(), force=True
    )
    begun = time.monotonic()
    found = served.tm.view("by_minute").sealed(seal.date, seal.last_date, seal.seal_offset, wait_s=60)
    assert found["sales"].to_pylist() == [1]
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"resume": "nonsense"}, "expected what an earlier answer gave"),
        ({"resume": "x" * 5000}, "came 5000 characters"),
        ({"filters": [views_pb2.Filter(column="nope", value="1")]}, "no column 'nope'"),
        ({"filters": [views_pb2.Filter(column="units", operator=99, value="1")]}, "operator 99 is not known"),
        ({"filters": [views_pb2.Filter(column="units", value="many")]}, "expects a value of type"),
        ({"filters": [views_pb2.Filter(column="units", value="1")] * 101}, "100 filters at the most, came 101"),
    ],
)
def test_what_can_not_be_watched_is_refused(served: ServedViews, request_: Any, said: str) -> None:
    code, text = refusal(lambda: next(served.watch("by_country", **request_)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert said in text


def test_views_that_are_not_there_are_not_watched(served: ServedViews) -> None:
    code, text = refusal(lambda: next(served.watch("nope")))
    assert (code, text) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no live view 'nope'; the live views are: by_country, by_minute, refused",
    )
    code, text = refusal(lambda: next(served.watch("refused")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "ORDER BY" in text


def test_a_watch_tells_all_rows_and_then_what_changes(served: ServedViews) -> None:
    served.rows("by_country", served.send({}, {"country": "Spain"}))
    calls = [served.watch("by_country", format=ARROW), served.watch("by_country")]
    firsts = [next(call) for call in calls]
    assert [(first.reset, first.offset, bool(first.resume)) for first in firsts] == [(True, 2, True)] * 2
    assert [row["country"] for row in sorted(table(firsts[0]), key=str)] == ["France", "Spain"]
    served.send({"units": 7, "note": "late"})
    changes = [next(call) for call in calls]
    assert [(change.reset, change.offset) for change in changes] == [(False, 3)] * 2
    (row,) = table(changes[0])
    assert (row["country"], row["sales"], row["units"], row["note"]) == ("France", 2, 8, "late")
    assert [column.name for column in changes[1].columns] == ["country", "sales", "units", "note"]
    assert [value.string_value for value in changes[1].values[0].values][::3] == ["France", "late"]
    for call in calls:
        call.cancel()


def test_the_first_response_comes_at_once(served: ServedViews) -> None:
    served.rows("by_country", served.send({}))
    new = served.watch("by_country", only_new=True)
    first = next(new)
    assert (first.reset, len(first.values), bool(first.resume)) == (False, 0, True)
    again = served.watch("by_country", resume=first.resume)
    position = next(again)
    assert (position.resume, len(position.values), position.reset) == (first.resume, 0, False)
    served.send({"country": "Spain"})
    for call in (new, again):
        assert [row.values[0].string_value for row in next(call).values] == ["Spain"]
        call.cancel()


def test_a_filter_holds_for_what_is_told(served: ServedViews) -> None:
    watch = served.watch("by_country", filters=[views_pb2.Filter(column="country", value="Spain")])
    assert (len(next(watch).values), served.send({})) == (0, 1)
    served.rows("by_country", 1)
    served.send({"country": "Spain", "units": 3})
    change = next(watch)
    assert ([row.values[0].string_value for row in change.values], change.offset) == (["Spain"], 2)
    watch.cancel()


def test_changes_without_a_row_move_the_place_only_now_and_then(
    served: ServedViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "QUIET_S", 0.0)
    watch = served.watch("by_country", filters=[views_pb2.Filter(column="country", value="Spain")])
    before = next(watch)
    served.send({})
    after = next(watch)
    assert (len(after.values), after.reset, after.offset) == (0, False, 1)
    assert after.resume != before.resume
    watch.cancel()


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_that_is_kept_by_changes_is_the_view(served: ServedViews, seed: int) -> None:
    chance = random.Random(seed)
    countries = [f"C{number}" for number in range(12)]
    copies = [Copy("country"), Copy("window_start", "country")]
    names = ["by_country", "by_minute"]
    total = 400

    def follow(copy: Copy, name: str, seed: int) -> None:
        cuts = random.Random(seed)
        arrow = cuts.random() < 0.5
        offset = 0
        while offset < total:
            with served.tm.view(name).watch(resume=copy.resume, arrow=arrow) as watch:
                for change in watch:
                    copy.take(change)
                    offset = change.offset
                    if offset >= total or cuts.random() < 0.3:
                        break

    with ThreadPoolExecutor() as threads:
        following = [threads.submit(follow, *pair, seed) for pair in zip(copies, names, strict=True)]
        left = total
        while left:
            count = min(left, chance.randint(1, 20))
            left -= count
            served.send(
                *(
                    {
                        "country": chance.choice(countries),
                        "minute": chance.randint(0, 30),
                        "units": chance.randint(0, 9),
                    }
                    for _ in range(count)
                )
            )
            if chance.random() < 0.1:
                served.tm.view(chance.choice(names)).rebuild()
        for each in following:
            each.result(60)
    for copy, name in zip(copies, names, strict=True):
        rows = sorted(served.tm.view(name).query(after=total).rows(), key=str)
        assert copy.sorted() == rows, f"seed {seed}"
        assert copy.resets >= 1


def test_a_rebuild_is_told_as_a_reset(served: ServedViews) -> None:
    served.rows("by_country", served.send({}, {"country": "Spain"}))
    watch = served.watch("by_country", only_new=True)
    next(watch)
    served.stub.RebuildView(views_pb2.RebuildViewRequest(view="by_country"))
    change = next(watch)
    assert (change.reset, change.offset, len(change.values)) == (True, 2, 2)
    code, _ = refusal(lambda: served.stub.RebuildView(views_pb2.RebuildViewRequest(view="nope")))
    assert code is grpc.StatusCode.NOT_FOUND
    watch.cancel()


@pytest.mark.parametrize("form", [views_pb2.ROW_FORMAT_VALUES, ARROW])
def test_large_answers_come_in_parts_that_any_client_takes(served: ServedViews, form: Any) -> None:
    sizes = [10, 3_000_000, 900_000, 10, 2_000_000, 200_000, 1_500_000, 2_500_000, 10, *[50_000] * 60]
    covered = 0
    for number, size in enumerate(sizes):
        covered = served.send({"country": f"C{number:03}", "note": "x" * size})
    served.rows("by_country", covered)
    watch = served.watch("by_country", format=form)
    seen: dict[str, int] = {}
    parts = 0
    for response in watch:
        assert response.reset == (parts == 0)
        assert response.ByteSize() < CLIENT_BYTES_MAX
        parts += 1
        if form == ARROW:
            seen |= {row["country"]: len(row["note"]) for row in table(response)}
        else:
            seen |= {row.values[0].string_value: len(row.values[3].string_value) for row in response.values}
        if response.resume:
            break
    assert [seen[country] for country in sorted(seen)] == sizes
    assert 8 < parts < 69
    watch.cancel()


def test_an_answer_that_no_message_holds_says_what_to_do(served: ServedViews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "RESPONSE_BYTES_MAX", 1 << 20)
    covered = served.send({"note": "x" * 600_000}, {"country": "Spain", "note": "x" * 600_000})
    view = served.tm.view("by_country")
    for arrow in (True, False):
        with pytest.raises(tidemill.RequestRefused, match=r"2 rows and 1 MiB, more than 1: ask for less"):
            view.query(after=covered, arrow=arrow)
        assert len(view.query(limit=1, arrow=arrow)) == 1


def commits_of(served: ServedViews) -> commits.Commits:
    """What wakes this service's watchers."""
    found = [
        each for each in gc.get_objects() if type(each) is commits.Commits and each._views is served.service._views
    ]
    assert len(found) == 1
    return found[0]


def watching_of(served: ServedViews) -> watching.Watching:
    found = [
        each for each in gc.get_objects()
        if type(each) is watching.Watching and each._views is served.service._views
    ]  # fmt: skip
    return found[0]


def first_change(tm: tidemill.Client) -> tidemill.ViewChange:
    with contextlib.closing(tm.view("by_country").watch()) as watch:
        return next(watch)


def watchers(served: ServedViews) -> int:
    return sum(len(each) for each in commits_of(served)._watching.values())


def test_a_thousand_idle_watchers_cost_no_threads(served: ServedViews) -> None:
    served.rows("by_country", served.send({}))
    served.watch("by_country").cancel()
    threads = threading.active_count()
    calls = [served.watch("by_country", only_new=number % 2 == 0) for number in range(1000)]
    for call in calls:
        next(call)
    # grpc's own client has a thread a call; the service has none.
    names = [thread.name for thread in threading.enumerate()]
    assert len([name for name in names if name.startswith(("watch", "query", "live", "asyncio"))]) <= 10
    assert threading.active_count() >= threads
    eventually(lambda: watchers(served) == 1000)
    served.send({"country": "Spain"})
    assert {next(call).offset for call in calls} == {2}
    for call in calls:
        call.cancel()
    # They have gone: nothing is left of them.
    eventually(lambda: watchers(served) == 0)
    assert watching_of(served)._held_bytes == 0


def test_watchers_that_ask_the_same_share_the_answer(served: ServedViews, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(view_parts.Answer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            made.append(1)

    monkeypatch.setattr(watching, "Answer", Counted)
    served.rows("by_country", served.send({}))
    calls = [served.watch("by_country") for _ in range(50)]
    for call in calls:
        next(call)
    eventually(lambda: watchers(served) == 50)
    made.clear()
    served.send({"country": "Spain"})
    assert {next(call).offset for call in calls} == {2}
    assert 1 <= len(made) <= -(-50 // commits.AT_ONCE)
    for call in calls:
        call.cancel()


def test_a_watcher_that_never_reads_holds_little_and_gets_all_later(
    served: ServedViews, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "STALL_S", 0.2)
    monkeypatch.setattr(watching, "HELD_BYTES_MAX", 2 << 20)
    covered = 0
    for start in range(0, 200, 20):
        covered = served.send(*({"country": f"C{start + number:03}", "note": "x" * 100_000} for number in range(20)))
    served.rows("by_country", covered)
    # Each asks for something of its own: none shares an answer of 20 MB.
    filters = [[views_pb2.Filter(column="units", operator=4, value=str(1000 + number))] for number in range(10)]
    calls = [served.watch("by_country", filters=each, format=ARROW) for each in filters]
    firsts = [next(call) for call in calls]
    held = watching_of(served)
    eventually(lambda: held._held_bytes <= 2 << 20)
    begun = time.monotonic()
    served.rows("by_country", served.send({"country": "new"}))
    assert time.monotonic() - begun < 30
    resets = 0
    for first, call in zip(firsts, calls, strict=True):
        countries: set[str] = set()
        for response in itertools.chain([first], call):
            countries |= {row["country"] for row in table(response)}
            resets += response.reset
            if response.resume and response.offset == 201:
                break
        assert len(countries) == 201
        call.cancel()
    # What was given up was asked for anew.
    assert resets > len(calls)
    eventually(lambda: held._held_bytes == 0)


def test_questions_are_answered_while_views_come_and_go(served: ServedViews) -> None:
    covered = served.send({}, {"country": "Spain"})
    served.rows("by_country", covered)
    done = threading.Event()

    def ask() -> int:
        asked = 0
        while not done.is_set():
            asked += 1
            assert "by_country" in [view.view for view in served.tm.views()]
            assert len(served.tm.view("by_country").query()) == 2
            try:
                with served.tm.view("by_minute").watch() as watch:
                    assert len(next(watch)) in (0, 2)
                served.tm.view("by_minute").query()
            except tidemill.NotFound:
                pass
        return asked

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        try:
            for _ in range(4):
                apply(served, {"by_country": BY_COUNTRY})
                apply(served, {**VIEWS, **{f"more_{number}": BY_MINUTE for number in range(5)}})
        finally:
            done.set()
        assert all(each.result(60) for each in asking)


def test_a_service_that_stops_tells_its_watchers(tmp_path: Path) -> None:
    ended: list[grpc.RpcError] = []

    def follow(call: Any) -> None:
        try:
            next(call)
        except grpc.RpcError as error:
            ended.append(error)

    with serving(tmp_path, manifest(VIEWS)) as served:
        # A channel that outlives the service: closing it would end the call first.
        channel = grpc.insecure_channel(served.address)
        served_by = ServedViews(served.service, served.tm, channel)
        watch = served_by.watch("by_country")
        next(watch)
        query = served_by.stub.QueryView.future(views_pb2.QueryViewRequest(view="by_country", after_offset=9))
        eventually(lambda: watchers(served) == 1 and len(commits_of(served)._waiting) == 1)
        waiting = threading.Thread(target=follow, args=(watch,))
        waiting.start()
        begun = time.monotonic()
    waiting.join(10)
    for error in (ended[0], query.exception(10)):
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "the service is stopping" in error.details()
        status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
        assert error_details_pb2.RetryInfo.DESCRIPTOR.full_name in [each.TypeName() for each in status.details]
    assert time.monotonic() - begun < STOP_GRACE_S
    channel.close()


def apply(served: ServedViews, models: dict[str, str], **options: Any) -> dict[str, tuple[int, str]]:
    response = served.stub.ApplyViews(views_pb2.ApplyViewsRequest(manifest=manifest(models), **options))
    return {view.view: (view.change, view.problem) for view in response.views}


def test_a_manifest_is_put_in_force_and_stays(tmp_path: Path) -> None:
    change = views_pb2.AppliedView
    models = {
        "by_country": BY_COUNTRY.replace("max(note)", "min(note)"),
        "by_note": f"select note, count(*) as sales from {SOURCE} group by note",
        "wrong": REFUSED,
    }
    with serving(tmp_path, manifest(VIEWS)) as served:
        served.rows("by_country", served.send({"note": "a"}, {"note": "b"}))
        watch = served.watch("by_country", only_new=True)
        gone = served.watch("by_minute", only_new=True)
        next(watch)
        next(gone)
        expected = {
            "by_country": change.CHANGE_CHANGED, "by_note": change.CHANGE_ADDED, "wrong": change.CHANGE_REFUSED,
            "by_minute": change.CHANGE_REMOVED,
        }  # fmt: skip
        found = apply(served, models, check_only=True)
        assert {name: change for name, (change, _) in found.items()} == expected
        assert "ORDER BY" in found["wrong"][1]
        assert [view.view for view in served.tm.views()] == ["by_country", "by_minute"]
        assert {name: change for name, (change, _) in apply(served, models).items()} == expected
        # Those who watch are told: of the rebuilt one by a reset, of the one that is gone by an end.
        told = next(watch)
        assert (told.reset, told.values[0].values[3].string_value) == (True, "a")
        code, said = refusal(lambda: next(gone))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "by_minute" in said
        assert apply(served, models)["by_country"] == (change.CHANGE_SAME, "")
        applied = served.tm.apply_views(manifest(models), check_only=True)
        assert {each.view: each.change for each in applied} == {
            "by_country": tidemill.DefinitionChange.SAME, "by_note": tidemill.DefinitionChange.SAME,
            "wrong": tidemill.DefinitionChange.REFUSED,
        }  # fmt: skip
    # The file that --manifest names has not changed since it was taken: what was applied is in force.
    with serving(tmp_path, given=tmp_path / "manifest.json") as served:
        assert [view.view for view in served.tm.views()] == ["by_country", "by_note", "wrong"]
        assert served.rows("by_country", 2)[0]["note"] == "a"
    # Without a file, too.
    with serving(tmp_path) as served:
        assert [view.view for view in served.tm.views()] == ["by_country", "by_note", "wrong"]
    with serving(tmp_path, manifest({"by_minute": BY_MINUTE})) as served:
        assert [view.view for view in served.tm.views()] == ["by_minute"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff", b"[]", b'{"nodes": 7}', manifest({"x": ""}),
     b'{"nodes": {"a": {"resource_type": "model", "tags": ["live"], "compiled_code": "x"}}}',
     b'{"nodes": {"a": 7}}', b'{"nodes": {}, "sources": {"a": {}}}', b'{"nodes": {}, "sources": 7}'],
)  # fmt: skip
def test_what_is_no_manifest_changes_nothing(served: ServedViews, content: bytes) -> None:
    for check_only in (True, False):
        request = views_pb2.ApplyViewsRequest(manifest=content, check_only=check_only)
        code, said = refusal(lambda request=request: served.stub.ApplyViews(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "manifest" in said
    assert len(served.tm.views()) == 3


def test_a_manifest_that_is_too_large_is_refused(served: ServedViews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_manifest, "MANIFEST_BYTES_MAX", 1 << 20)
    for check_only in (True, False):
        with pytest.raises(tidemill.RequestRefused, match="at most 1 MiB, came 1100000 bytes"):
            served.tm.apply_views(b" " * 1_100_000, check_only=check_only)


def test_who_may_do_what(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    now = dt.datetime.now(dt.UTC)
    secrets = {}
    with KeyFile(tmp_path / "data").changing() as keys:
        for name, streams, rights in (
            ("admin", "*", set(Right)), ("keeper", "sales", {Right.ADMIN}), ("reader", "sales", {Right.READ}),
            ("stranger", "other", set(Right)),
        ):  # fmt: skip
            key, secrets[name] = new_key(name, frozenset([streams]), frozenset(rights), now, None)
            keys.append(key)
    with serving(tmp_path, manifest(VIEWS), api_key=secrets["admin"]) as served:
        covered = served.send({})
        clients = {
            name: tidemill.connect(served.address, credentials=tidemill.Credentials(api_key=secret))
            for name, secret in secrets.items()
        }
        calls: dict[str, Callable[[tidemill.Client], Any]] = {
            "query": lambda tm: tm.view("by_country").query(after=covered),
            "watch": first_change,
            "rebuild": lambda tm: tm.view("by_country").rebuild(),
            "confirm": lambda tm: tm.view("by_country").confirm_reconciled(now.date(), now.date(), 7),
            "check": lambda tm: tm.apply_views(manifest(VIEWS), check_only=True),
            "apply": lambda tm: tm.apply_views(manifest(VIEWS)),
        }
        denied, unknown, wrong = "PERMISSION_DENIED", "UNKNOWN_VIEW", "BAD_REQUEST"
        expected = {
            "admin": ["", "", "", wrong, "", ""],
            "keeper": [unknown, unknown, "", wrong, denied, denied],
            "reader": ["", "", denied, denied, denied, denied],
            "stranger": [unknown, unknown, unknown, unknown, denied, denied],
        }
        assert {name: [reason(call, tm) for call in calls.values()] for name, tm in clients.items()} == expected
        assert [len(tm.views()) for tm in clients.values()] == [2, 0, 2, 0]
        # A key that is revoked ends the watches that it began, and nothing of them stays.
        watch = clients["reader"].view("by_minute").watch()
        next(watch)
        eventually(lambda: watchers(served) == 1)
        with KeyFile(tmp_path / "data").changing() as keys:
            keys[:] = [key for key in keys if key.name != "reader"]
        with pytest.raises(tidemill.AccessDenied, match="revoked or has expired"):
            next(watch)
        eventually(lambda: watchers(served) == 0)
        for tm in clients.values():
            tm.close()


def reason(call: Callable[[tidemill.Client], Any], tm: tidemill.Client) -> str:
    try:
        call(tm)
    except tidemill.ServiceError as error:
        return error.reason
    return ""


def test_what_was_reconciled_is_confirmed(served: ServedViews) -> None:
    served.rows("by_minute", served.send({}))
    view = served.tm.view("by_minute")
    date = view.query().rows()[0]["window_start"].date()
    seal = served.tm.seal("sales", date, force=True)
    view.sealed(date, date, seal.seal_offset)
    view.confirm_reconciled(date, date, seal.seal_offset)
    with pytest.raises(tidemill.RequestRefused, match="no copy"):
        view.confirm_reconciled(date, date, seal.seal_offset + 1)
    with pytest.raises(tidemill.NotFound):
        served.tm.view("nope").confirm_reconciled(date, date, seal.seal_offset)
    for dates, said in ((("soon", ""), "expected a date"), (("2023-11-15", "2023-11-14"), "in their order")):
        request = views_pb2.ConfirmReconciledRequest(view="by_minute", first_date=dates[0], last_date=dates[1])
        code, text = refusal(lambda request=request: served.stub.ConfirmReconciled(request))
        assert (code, said in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
