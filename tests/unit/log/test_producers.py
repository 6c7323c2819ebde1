"""Producers against a model: a list of everything that was committed, looked through from its end."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.logs import batch

from ingest_service.errors import ProducerError
from ingest_service.log import Append, AppendResult, RowVerdict, Verdict
from ingest_service.log.producers import RESULTS_KEPT, RESULTS_KEPT_LEAST, VERDICTS_KEPT, Producers

MOST = 3
EXPIRY_US = 50
NAMES = [f"p{number}" for number in range(6)]


@dataclass
class Model:
    """Each producer's responses by sequence, and when it was last heard of; producers in that order."""

    responses: dict[str, list[AppendResult]] = field(default_factory=dict)
    heard_us: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Model:
        return Model({name: list(each) for name, each in self.responses.items()}, dict(self.heard_us))

    def take(self, name: str, result: AppendResult, now_us: int) -> None:
        self.responses[name] = [*self.responses.pop(name, []), result]
        self.heard_us[name] = now_us

    def forget(self) -> None:
        newest_us = max(self.heard_us.values(), default=0)
        for name in list(self.responses):
            if len(self.responses) > MOST or newest_us - self.heard_us[name] > EXPIRY_US:
                del self.responses[name], self.heard_us[name]


def expected(model: Model, name: str, sequence: int) -> AppendResult | str | None:
    """The response to a batch: an earlier one, None where it is new, or why it is refused."""
    responses = model.responses.get(name)
    if responses is None:
        return "unknown or expired" if sequence else None
    if sequence > len(responses):
        return f"expected sequence {len(responses)}, came {sequence}"
    if sequence < len(responses) - RESULTS_KEPT:
        return "was taken before, but only the last"
    return None if sequence == len(responses) else responses[sequence]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(NAMES), st.integers(-3, 2)),
        st.tuples(st.just("many"), st.sampled_from(NAMES), st.integers(1, RESULTS_KEPT + 3)),
        st.tuples(st.just("wait"), st.just(""), st.integers(0, EXPIRY_US)),
        st.tuples(st.sampled_from(["commit", "commit", "roll_back", "restart"]), st.just(""), st.just(0)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_producers_are_as_the_model_says(steps):
    producers = Producers(MOST, EXPIRY_US)
    committed, staged, now_us, offset = Model(), Model(), 0, 0
    for what, name, number in steps:
        if what == "wait":
            now_us += number
        elif what == "commit":
            producers.commit()
            staged.forget()
            committed = staged.copy()
        elif what == "roll_back":
            producers.roll_back()
            staged = committed.copy()
        elif what == "restart":
            producers.roll_back()
            staged = committed.copy()
            packed, producers = producers.pack(), Producers(MOST, EXPIRY_US)
            producers.restore(packed)
        elif what == "many":
            for _ in range(number):
                sequence = len(staged.responses.get(name, []))
                offset = send(producers, staged, name, sequence, now_us, offset)
        else:
            sequence = max(0, len(staged.responses.get(name, [])) + number)
            offset = send(producers, staged, name, sequence, now_us, offset)
        assert len(producers) == len(staged.responses)
        for each in NAMES:
            check_known(producers, staged, each)


def send(producers: Producers, model: Model, name: str, sequence: int, now_us: int, offset: int) -> int:
    append = Append(batch([]), 1, producer_id=name, sequence=sequence, rows_sent=offset)
    wanted = expected(model, name, sequence)
    if isinstance(wanted, str):
        with pytest.raises(ProducerError, match=wanted) as caught:
            producers.replay_of(append)
        assert caught.value.expected_sequence == (len(model.responses[name]) if name in model.responses else None)
        return offset
    replay = producers.replay_of(append)
    if wanted is not None:
        assert replay is not None
        assert replay.replayed
        assert replay.base_offset == wanted.base_offset
        return offset
    assert replay is None
    result = AppendResult(0, offset, 1, offset + 1, False, ())
    producers.take(append, result, now_us)
    model.take(name, result, now_us)
    return offset + 1


def check_known(producers: Producers, model: Model, name: str) -> None:
    known = producers.known(name)
    assert (known is not None) == (name in model.responses)
    if known is not None:
        responses = model.responses[name]
        assert known.last_sequence == len(responses) - 1
        assert known.last_append_us == model.heard_us[name]
        assert [(sequence, each.base_offset) for sequence, each in known.results] == [
            (sequence, each.base_offset) for sequence, each in enumerate(responses)
        ][-RESULTS_KEPT:]


def test_responses_that_say_much_of_single_rows_are_forgotten_sooner():
    producers = Producers(MOST, EXPIRY_US)
    verdicts = tuple(RowVerdict(index, Verdict.QUARANTINED, "r", "f", "m") for index in range(VERDICTS_KEPT // 10))
    for sequence in range(RESULTS_KEPT):
        result = AppendResult(0, 0, 0, 0, False, verdicts)
        producers.take(Append(batch([]), len(verdicts), producer_id="p", sequence=sequence), result, sequence)
        producers.commit()
    state = producers.known("p")
    assert state is not None
    assert len(state.results) == RESULTS_KEPT_LEAST
    first = RESULTS_KEPT - RESULTS_KEPT_LEAST
    assert producers.replay_of(Append(batch([]), 0, producer_id="p", sequence=first)).replayed
    with pytest.raises(ProducerError, match=f"only the last {RESULTS_KEPT_LEAST} responses are remembered"):
        producers.replay_of(Append(batch([]), 0, producer_id="p", sequence=first - 1))
