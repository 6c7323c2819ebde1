"""What comes of a run's comparisons, and the run's rows that they must have covered."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from quality.config import DayConfig
from quality.errors import LakeFailed, ReconciliationFailed
from quality.lake import reading_lake
from quality.reconcile import Comparison, Difference
from quality.reconcile_views import NOTHING, judge, streams_unseen
from quality.run import Run
from quality.sealed_copy import NotComparable

Compared = Callable[..., Comparison]
RUN = Run("r1", "2011-12-05", "2011-12-06")


def compared(view: str = "sales", windows: int = 3, differences: int = 0, stream: str = "order_lines") -> Comparison:
    listed = tuple(Difference(view, f"2011-12-05 08:{i:02}", "", "lines", "2", "1", "1") for i in range(differences))
    return Comparison(view, stream, windows, windows, differences, listed)


def expired(view: str = "bursts", stream: str = "order_lines") -> Comparison:
    return Comparison(view, stream, 0, 0, 0, (), "all have left the live table", compared=False)


def test_comparisons_that_agree_are_the_result():
    result = judge(RUN, [compared(), expired()], [])
    assert result == {
        "views": {
            "sales": {
                "stream": "order_lines", "compared": True, "windows": 3, "rows": 3, "differences": 0, "explained": 0,
                "causes": {}, "note": "",
            },
            "bursts": {
                "stream": "order_lines", "compared": False, "windows": 0, "rows": 0, "differences": 0,
                "explained": 0, "causes": {}, "note": "all have left the live table",
            },
        },
        "note": "",
    }  # fmt: skip


def test_differences_fail_the_run_and_some_are_named():
    with pytest.raises(ReconciliationFailed) as caught:
        judge(RUN, [compared(), compared("bursts", differences=7)], [])
    assert caught.value.views == ["bursts"]
    assert not caught.value.retryable
    assert str(caught.value).startswith("UNEXPLAINED: bursts 2011-12-05 08:00 UTC: lines live 2, batch 1, difference 1")
    assert str(caught.value).endswith("and 2 more in bursts")


def test_a_view_that_cannot_be_compared_fails_the_run():
    with pytest.raises(ReconciliationFailed, match="sales stands still: disk full") as caught:
        judge(RUN, [compared("bursts")], [NotComparable("sales stands still: disk full")])
    assert not caught.value.retryable


def test_only_what_time_can_mend_is_retried():
    waiting = NotComparable("sales is being rebuilt", retryable=True)
    for failures, comparisons, retryable in (
        ([waiting], [compared("bursts")], True),
        ([waiting, NotComparable("other stands still")], [], False),
        ([waiting], [compared("bursts", differences=1)], False),
    ):
        with pytest.raises(ReconciliationFailed) as caught:
            judge(RUN, comparisons, failures)
        assert caught.value.retryable is retryable


def test_a_stream_with_rows_must_have_had_a_window_compared():
    # A filter view without any window is fine beside one that has some.
    assert judge(RUN, [compared(), compared("bursts", 0)], [])["note"] == ""
    with pytest.raises(ReconciliationFailed) as caught:
        judge(RUN, [compared(), compared("traffic", 0, stream="web"), compared("errors", 0, stream="web")], [], ["web"])
    assert str(caught.value).startswith(
        "web has rows of 2011-12-05 to 2011-12-06, but neither live nor batch has a window of them in errors, traffic: "
        "nothing was compared"
    )


def test_a_stream_that_no_view_follows_is_fine_beside_others_that_were_compared():
    assert judge(RUN, [compared()], [], ["web"])["note"] == ""
    with pytest.raises(ReconciliationFailed, match=r"^web: expected a live view, .* nothing was compared$"):
        judge(RUN, [compared(windows=0)], [], ["web"])
    with pytest.raises(ReconciliationFailed, match=r"^order_lines, web: expected a live view"):
        judge(RUN, [], [], ["web", "order_lines"])


def test_windows_that_have_expired_are_no_failure():
    assert judge(RUN, [expired()], [], ["order_lines"])["note"] == ""
    with pytest.raises(ReconciliationFailed, match="a window of them in bursts, sales"):
        judge(RUN, [expired(), compared(windows=0)], [], ["order_lines"])


def test_dates_without_rows_leave_nothing_to_compare():
    assert judge(RUN, [compared(windows=0)], [])["note"] == NOTHING
    assert judge(RUN, [], [])["note"] == NOTHING


def test_streams_with_rows_of_the_dates_and_no_window_compared_are_found(config: DayConfig, run: Run):
    with duckdb.connect(":memory:") as connection:

        def unseen(date: str, comparisons: list[Comparison]) -> list[str]:
            return streams_unseen(config, Run("r1", date, date, run.streams), connection, comparisons)

        assert unseen("2011-12-05", []) == ["payments"]
        assert unseen("2011-12-05", [compared(windows=0, stream="payments")]) == ["payments"]
        assert unseen("2011-12-05", [compared(stream="payments")]) == []
        # A stream that was not chosen is as it was published: what it has of the dates was compared then.
        others = {"payments": dataclasses.replace(run.streams["payments"], fresh=False)}
        assert streams_unseen(config, dataclasses.replace(run, streams=others), connection, []) == []
        # A row of the 6th is in the lake, but not below the seal offset.
        assert unseen("2011-12-06", []) == []
        for file in (config.data / "lake" / "payments").rglob("*.parquet"):
            file.unlink()
        with pytest.raises(LakeFailed, match=r"the lake cannot be read: .*payments"), reading_lake():
            unseen("2011-12-05", [])


def test_a_stream_without_any_event_has_nothing_to_compare(config: DayConfig, run: Run, tmp_path: Path):
    empty = run.streams["payments"].__class__(0, str(tmp_path / "none"), 0, 0, run.streams["payments"].counts)
    with duckdb.connect(":memory:") as connection:
        assert streams_unseen(config, Run("r1", RUN.date, RUN.date, {"payments": empty}), connection, []) == []
