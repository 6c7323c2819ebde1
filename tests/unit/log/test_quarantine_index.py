"""The index of quarantined rows against a plain model of it, and its bound."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.errors import BadRequest
from ingest_service.log.quarantine_index import QuarantineIndex, RowId, replays_of

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4), st.integers(0, 2)),
        st.tuples(st.just("replay"), st.integers(0, 30), st.integers(0, 4)),
        st.tuples(st.just("older"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("keep"), st.integers(0, 12), st.integers(0, 12)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_it_knows_what_a_dict_would(steps):
    index = QuarantineIndex()
    model: dict[tuple[int, int], list[bool]] = {}
    times: dict[tuple[int, int], int] = {}
    segment, position = 1, 100
    for now, (what, a, b) in enumerate(steps):
        if what == "add":
            segment, position = segment + b, position + 7 if not b else 100
            index.add(segment, position, now, now, a)
            model[segment, position], times[segment, position] = [False] * a, now
        elif what == "replay" and model:
            place = list(model)[a % len(model)]
            number = b % len(model[place])
            index.mark_replayed(replays_of([str(RowId(*place, number))]))
            model[place][number] = True
        elif what == "older":
            index.drop_older(a)
            model = {place: rows for place, rows in model.items() if times[place] >= a}
        elif what == "keep":
            index.keep(a, {b})
            model = {place: rows for place, rows in model.items() if place[0] >= a or place[0] == b}
        elif what == "restart":
            again = QuarantineIndex()
            again.restore(index.pack())
            index = again
        waiting = [place for place, rows in model.items() if not all(rows)]
        assert index.waiting == sum(rows.count(False) for rows in model.values())
        assert [(frame.segment, frame.position) for frame in index.frames()] == waiting
        assert [(frame.segment, frame.position) for frame in index.newest(3)] == waiting[-3:][::-1]
        assert index.segments() == {place[0] for place in model}
        for place, rows in model.items():
            frame = index.frame(*place)
            assert [bool(frame.replayed >> number & 1) for number in range(frame.rows)] == rows
            assert frame.append_time_us == times[place]
        of_one = [frame.position for frame in index.frames_of(segment)]
        assert of_one == [place[1] for place in waiting if place[0] == segment]
    index.mark_replayed(replays_of(["99-1-0"]))
    assert index.frame(99, 1) is None


def test_over_its_bound_the_oldest_go():
    index = QuarantineIndex(80)
    for position in range(100):
        index.add(1, position, 0, 0, 1)
        assert index.waiting <= 90
    assert [frame.position for frame in index.frames()] == list(range(100 - index.waiting, 100))
    assert index.waiting >= 80
    smaller = QuarantineIndex(8)
    smaller.restore(index.pack())
    assert smaller.waiting == 9


def test_ids_are_read_back_and_others_refused():
    assert RowId.parse("7-123456789012-3") == RowId(7, 123456789012, 3)
    for text in ("", "7", "7-1", "7-1-1-1", "-1-1-1", "a-1-1", "1-1-x", "7-1-1 ", "\u0667-1-1", "1-1234567890123-1"):
        with pytest.raises(BadRequest, match="expected a quarantined row's id"):
            RowId.parse(text)
