"""Waiting for a view's sealed copy. The service is a list of what it answers, one status after another."""

import dataclasses
import datetime as dt
import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from quality.run import Pin, Run
from quality.sealed_copy import NotComparable, SealedCopies, _by_parts
from tidemill import NotFound, RequestRefused, ServiceBusy, TidemillError, ViewColumn, ViewState, ViewStatus

RUN = Run("r1", "2011-12-05", "2011-12-06", {"payments": Pin(40, "", 0, 40, {})})
FOLLOWING = ViewStatus(
    view="sales", stream="payments", offset=50, lag=0, rows=1, group_columns=("a",), window_column="", error="",
    definition_hash="old", columns=(ViewColumn("a", "BIGINT", True, 0),),
)  # fmt: skip
REBUILDING = dataclasses.replace(FOLLOWING, state=ViewState.REBUILDING, rebuild_offset=7)
REBUILT = dataclasses.replace(FOLLOWING, definition_hash="new")


class Service:
    """Answers as it was told, in turn; the last answer stays. Time passes only while somebody waits."""

    def __init__(self, *statuses: ViewStatus | TidemillError, copy: TidemillError | None = None) -> None:
        self._statuses = list(statuses)
        self._copy = copy
        self.copies: list[tuple[str, dt.date, dt.date, int]] = []
        self.waited_s = 0.0

    def view(self, name: str) -> "Service":
        assert name == "sales"
        return self

    def status(self) -> ViewStatus:
        answer = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        if isinstance(answer, TidemillError):
            raise answer
        self._last = answer
        return answer

    def sealed(self, first: dt.date, last: dt.date, seal_offset: int, *, wait_s: float) -> pa.Table:
        self.sealed_wait_s = wait_s
        if self._copy:
            raise self._copy
        self.copies.append((self._last.definition_hash, first, last, seal_offset))
        return pa.table({"definition": [self._last.definition_hash]})

    def wait(self, seconds: float) -> None:
        self.waited_s += seconds

    def take(self) -> tuple[ViewStatus, pa.Table | None]:
        copies = SealedCopies(
            self,  # type: ignore[arg-type]
            RUN, wait_s=30, now_s=lambda: self.waited_s, sleep=self.wait,
        )  # fmt: skip
        return copies.take("sales")


def test_the_copy_of_the_runs_seal_is_taken():
    service = Service(FOLLOWING)
    status, table = service.take()
    assert (status, table.to_pylist()) == (FOLLOWING, [{"definition": "old"}])
    assert service.copies == [("old", dt.date(2011, 12, 5), dt.date(2011, 12, 6), 40)]
    assert service.waited_s == 0


def test_a_rebuild_is_waited_for_and_the_new_rows_copy_is_taken():
    service = Service(*[REBUILDING] * 5, REBUILT)
    status, table = service.take()
    assert (status, table.to_pylist(), service.waited_s) == (REBUILT, [{"definition": "new"}], 5)
    assert len(service.copies) == 1
    # One deadline for all: what was waited for one view is not waited for another again.
    assert service.sealed_wait_s == 25


def test_a_definition_that_changes_while_the_copy_is_read_is_read_again():
    status, table = Service(FOLLOWING, REBUILDING, REBUILT).take()
    assert (status, table.to_pylist()) == (REBUILT, [{"definition": "new"}])


def test_one_that_changes_for_ever_is_given_up():
    others = [dataclasses.replace(FOLLOWING, definition_hash=str(i)) for i in range(20)]
    with pytest.raises(NotComparable, match="again and again") as caught:
        Service(*others).take()
    assert caught.value.retryable


def test_a_rebuild_that_takes_longer_can_be_tried_again():
    service = Service(REBUILDING)
    with pytest.raises(NotComparable, match="sales is being rebuilt, and has come to offset 7 after waiting") as caught:
        service.take()
    assert caught.value.retryable
    assert (service.waited_s, service.copies) == (30, [])


@pytest.mark.parametrize(
    ("state", "text", "retryable"),
    [
        (ViewState.STOPPED, "sales stands still: no cast", False),
        (ViewState.REFUSED, "sales is refused: no cast", False),
        (ViewState.FOLLOWING, "sales is not as it should be: no cast", True),
        (ViewState.REBUILDING, "sales is not as it should be: no cast", True),
    ],
)
def test_a_view_with_an_error_is_not_waited_for(state: ViewState, text: str, retryable: bool):
    service = Service(dataclasses.replace(FOLLOWING, state=state, error="no cast"))
    with pytest.raises(NotComparable) as caught:
        service.take()
    assert (str(caught.value), caught.value.retryable, service.waited_s) == (text, retryable, 0)


def test_a_model_that_the_service_does_not_know_is_named():
    with pytest.raises(NotComparable, match="no live view of the service: apply the project"):
        Service(NotFound("there is no live view 'sales'", "NOT_FOUND")).take()


@pytest.mark.parametrize("error", [NotFound("no copy", "NOT_FOUND"), RequestRefused("not sealed", "INVALID_ARGUMENT")])
def test_a_copy_that_does_not_exist_asks_for_another_seal(error: TidemillError):
    with pytest.raises(NotComparable, match=r"the seal at offset 40 cannot be had: .* run the day again") as caught:
        Service(FOLLOWING, copy=error).take()
    assert not caught.value.retryable


def test_no_copy_is_asked_for_where_all_windows_have_left():
    expired = dataclasses.replace(FOLLOWING, window_column="a", expired_before=dt.datetime(2011, 12, 7, tzinfo=dt.UTC))
    assert Service(expired, copy=NotFound("no copy", "NOT_FOUND")).take() == (expired, None)
    # Also when they leave while it is asked for.
    assert Service(FOLLOWING, expired, copy=NotFound("no copy", "NOT_FOUND")).take() == (expired, None)


def test_a_view_that_is_behind_stays_the_services_own_retryable_error():
    with pytest.raises(ServiceBusy):
        Service(FOLLOWING, copy=ServiceBusy("behind", "DEADLINE_EXCEEDED")).take()


class LargeCopies:
    """A view whose copy is answered by at most so many rows at once; sorts and filters as the service does."""

    def __init__(self, rows: pa.Table, rows_max: int) -> None:
        self._rows = rows
        self._rows_max = rows_max
        self.answers = 0

    def sealed(self, where: list = (), order_by: str = "", limit: int = 0) -> pa.Table:
        rows = self._rows
        for column, operator, value in where:
            values = rows[column]
            if value is None:
                rows = rows.filter(values.is_valid() if operator == "!=" else values.is_null())
            else:
                rows = rows.filter(pc.greater_equal(values, value))
        if order_by:
            rows = rows.sort_by(order_by)
        rows = rows.slice(0, limit or rows.num_rows)
        if rows.num_rows > self._rows_max:
            raise RequestRefused(f"the answer has {rows.num_rows} rows and 65 MiB, more than 64", "INVALID_ARGUMENT")
        self.answers += 1
        return rows


@pytest.mark.parametrize("rows_max", [10, 97, 1_000, 4_000])
def test_a_copy_larger_than_an_answer_is_read_by_parts(rows_max: int):
    # 30 values with 1 to 59 rows each, of which some are more than a part holds; and rows without one.
    chance = random.Random(rows_max)
    values = [value for value in range(30) for _ in range(min(2 * value + 1, rows_max // 2))] + [None] * 5
    chance.shuffle(values)
    rows = pa.table({"a": pa.array(values, pa.int64()), "n": range(len(values))})
    service = LargeCopies(rows, rows_max)
    found = _by_parts(service.sealed, FOLLOWING)
    assert sorted(found["n"].to_pylist()) == list(range(len(values)))


def test_a_copy_of_which_a_part_cannot_be_had_is_refused():
    rows = pa.table({"a": [1] * 50})
    with pytest.raises(RequestRefused):
        _by_parts(LargeCopies(rows, 0).sealed, FOLLOWING)
