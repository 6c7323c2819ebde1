"""The dedup window against a model: exact within its bounds, also after a roll-back or a restart, and bounded."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lives import FOLDER
from support.logs import NOON_US, SPEC, SetClock, append, ids_in
from support.power import Disk, PowerFiles

from ingest_service.log import Log, LogSettings, Verdict
from ingest_service.log.dedup import DedupWindow

IDS_MAX = 6
AGE_US = 20


@dataclass
class Model:
    """Every id appended, with when, in order."""

    appended: list[tuple[str, int]] = field(default_factory=list)

    def take(self, ids: list[str], now_us: int) -> list[int]:
        window = {each for each, at_us in self.appended[-IDS_MAX:] if now_us - at_us <= AGE_US}
        duplicates = []
        for index, each in enumerate(ids):
            if each in window:
                duplicates.append(index)
            else:
                window.add(each)
                self.appended.append((each, now_us))
        return duplicates


IDS = st.lists(st.sampled_from([f"id{number}" for number in range(15)]), max_size=8)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), IDS),
        st.tuples(st.just("wait"), st.integers(0, AGE_US + 2)),
        st.tuples(st.sampled_from(["commit", "commit", "roll_back"]), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(STEPS)
def test_the_window_is_as_the_model_says(steps):
    window, model, now_us = DedupWindow(IDS_MAX, AGE_US), Model(), 0
    committed = 0
    for what, given_ in steps:
        if what == "take":
            found = window.take(pa.array(given_, pa.string()), now_us)
            assert ([] if found is None else found.tolist()) == model.take(given_, now_us)
        elif what == "wait":
            now_us += given_
        elif what == "commit":
            window.commit()
            committed = len(model.appended)
        else:
            window.roll_back()
            del model.appended[committed:]


@settings(deadline=None)
@given(st.lists(st.lists(IDS, min_size=1, max_size=3), max_size=12), IDS)
def test_a_window_made_again_from_frames_is_the_same(lives, probe):
    live, again = DedupWindow(IDS_MAX, AGE_US), DedupWindow(IDS_MAX, AGE_US)
    for now_us, frame in enumerate(lives):
        appended = []
        for ids in frame:
            duplicates = live.take(pa.array(ids, pa.string()), now_us)
            appended += np.delete(np.array(ids, object), [] if duplicates is None else duplicates).tolist()
        live.commit()
        again.restore(pa.array(appended, pa.string()), now_us)
    found = [window.take(pa.array(probe, pa.string()), len(lives)) for window in (live, again)]
    of_live, of_again = ([] if each is None else each.tolist() for each in found)
    assert of_live == of_again


LIVES = st.lists(
    st.one_of(
        st.tuples(st.just("append"), IDS),
        st.tuples(st.just("wait"), st.integers(0, AGE_US + 2)),
        st.tuples(st.sampled_from(["restart", "power"]), st.none()),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(LIVES)
def test_a_log_keeps_its_window_whatever_happens_to_it(steps):
    clock, model, disk = SetClock(), Model(), Disk()
    settings = LogSettings(segment_bytes=2000, dedup_ids_max=IDS_MAX, dedup_age_s=AGE_US)
    log = Log.open(FOLDER, SPEC, clock=clock, files=(files := PowerFiles(disk, random.Random(0))), settings=settings)
    try:
        for what, given_ in steps:
            if what == "append":
                result = log.append(append(given_)).result()
                duplicates = [each.index for each in result.verdicts if each.verdict is Verdict.DUPLICATE]
                assert duplicates == model.take(given_, (clock.us - NOON_US) // 1_000_000)
            elif what == "wait":
                clock.us += given_ * 1_000_000
            else:
                if what == "power":
                    files.kill()
                    disk = disk.after_power_loss(random.Random(0))
                log.close()
                files = PowerFiles(disk, random.Random(0))
                log = Log.open(FOLDER, SPEC, clock=clock, files=files, settings=settings)
        assert ids_in(log) == [each for each, _ in model.appended]
    finally:
        log.close()


def test_what_the_window_holds_in_memory_is_bounded():
    window = DedupWindow(10_000, 1_000_000)
    for number in range(100):
        window.take(pa.array(np.arange(number * 1_000, number * 1_000 + 1_000).astype(str)), number)
        window.commit()
        assert window.ids <= 15_000 + 1_000
    assert window.take(pa.array([str(90_000)]), 100).tolist() == [0]
    assert window.take(pa.array([str(89_000)]), 100) is None
