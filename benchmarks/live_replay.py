"""Replay: how fast live views are made of a log, beside others that make the same of the same events in Parquet."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from benchmarks.live_events import CUSTOMERS, Events, events
from benchmarks.live_service import WAIT_S, forget_views, live_service, manifest, replay_s
from benchmarks.live_views import ALIKE, BY_CUSTOMER, BY_MINUTE, over
from benchmarks.peers import duckdb_bound
from benchmarks.peers.dataflow import dataflow
from benchmarks.peers.environment import Job
from benchmarks.peers.peer import PeerMissing
from benchmarks.peers.spark import spark
from benchmarks.result import Result
from benchmarks.service import PROJECT
from ingest_service.contracts import load_contracts
from ingest_service.live import LiveViews, ViewQuery
from ingest_service.log import Log

ROWS = 20_000_000
ROUNDS = 3
_FILES = 2
"""Files of a peer's micro-batch: 400,000 events, so under 1,000 groups of minute and country; one file a core."""
_FILES_MILLION = 10
"""The same for a million groups, where larger micro-batches change each group less often."""

Timed = Callable[[], float]


def replay() -> list[Result]:
    """replay…: 20 million events into one-minute windows by country, by a service that has no live tables yet."""
    made = events(ROWS)
    groups = _groups(made, BY_MINUTE)
    with ExitStack() as peers:
        timed: dict[str, Timed] = {
            "service": lambda: _service_s(made, {"by_minute": BY_MINUTE}, groups),
            "in process": lambda: _in_process_s(made, BY_MINUTE),
            "duckdb": lambda: duckdb_bound.seconds(over(made.parquet, BY_MINUTE))[0],
        }
        for peer, start in (("spark", spark), ("bytewax", dataflow)):
            for job in _started(peers, f"replay_versus_{peer}", start):
                timed[peer] = lambda job=job: _job_s(job, made, "minute", _FILES, groups)  # type: ignore[misc]
        rates = _rates(timed, warm=True)
    ours = rates["service"]
    return [
        Result("replay", ours, "events/s into the view"),
        Result("replay_in_process", rates["in process"], "events/s into the view"),
        *_versus("replay_versus_spark", ours, rates.get("spark"), "Spark Structured Streaming, local[2]"),
        *_versus("replay_versus_bytewax", ours, rates.get("bytewax"), "bytewax, rows aggregated by pyarrow"),
        *_versus("replay_versus_duckdb", ours, rates["duckdb"], "DuckDB over the Parquet, the bound"),
    ]


def further_views() -> list[Result]:
    """replay_views_…: the same with more views of one stream at once; further_view: what each further one costs."""
    made = events(ROWS)
    some = {count: dict(list(ALIKE.items())[:count]) for count in (1, 2, 4, 8)}
    rates = _rates({str(n): lambda views=views: _service_s(made, views) for n, views in some.items()})  # type: ignore[misc]
    further = (rates["1"] / rates["8"] - 1) / 7
    return [
        *(Result(f"replay_views_{n}", rates[str(n)], f"events/s into {n} views") for n in some if n > 1),
        Result("further_view", 100 * further, "% of the first view's time, each"),
    ]


def million_groups() -> list[Result]:
    """replay_million…: the same events into a view by customer, a million of them."""
    made = events(ROWS)
    with ExitStack() as peers:
        timed: dict[str, Timed] = {"service": lambda: _service_s(made, {"by_customer": BY_CUSTOMER}, CUSTOMERS)}
        for job in _started(peers, "replay_million_versus_spark", spark):
            # What Spark compiles while it runs, it has compiled then.
            _job_s(job, made, "minute", _FILES)
            timed["spark"] = lambda job=job: _job_s(job, made, "customer", _FILES_MILLION, CUSTOMERS)  # type: ignore[misc]
        rates = _rates(timed, rounds=1)
    ours = rates["service"]
    return [
        Result("replay_million", ours, "events/s into the view"),
        *_versus("replay_million_versus_spark", ours, rates.get("spark"), "Spark Structured Streaming, local[2]"),
    ]


def _rates(timed: dict[str, Timed], *, rounds: int = ROUNDS, warm: bool = False) -> dict[str, float]:
    """Events a second of each, which take turns; medians. warm: a first round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in range(-int(warm), rounds):
        for name, work in timed.items():
            seconds = work()
            if round_ >= 0:
                taken[name].append(seconds)
    return {name: ROWS / statistics.median(seconds) for name, seconds in taken.items()}


def _versus(name: str, ours: float, theirs: float | None, label: str) -> list[Result]:
    if theirs is None:
        return []
    return [Result(name, ours, "events/s into the view", f"{label}: {theirs:,.0f} events/s", ours / theirs)]


def _started(peers: ExitStack, figure: str, start: Callable[[], AbstractContextManager[Job]]) -> list[Job]:
    """The peer, running until `peers` closes; none with a line that says why when it cannot be had."""
    try:
        return [peers.enter_context(start())]
    except PeerMissing as missing:
        print(f"skipped: {figure}: {missing}", file=sys.stderr)
        return []


def _groups(made: Events, query: str) -> int:
    return duckdb_bound.seconds(over(made.parquet, query))[1]


def _service_s(made: Events, views: dict[str, str], groups: int | None = None) -> float:
    forget_views(made.data)
    with live_service(made.data) as service:
        return replay_s(service.address, views, made.rows, groups)


def _in_process_s(made: Events, query: str) -> float:
    contract = load_contracts(PROJECT / "proto").contracts["order_lines"]
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-bench-")))
        (folder / "manifest.json").write_bytes(manifest({"by_minute": query}))
        log = Log.open(made.data / "log" / "order_lines" / "0", contract.log_spec())
        closing.callback(log.close)
        start = time.perf_counter()
        views = LiveViews.open(folder / "manifest.json", f"sqlite:///{folder}/live.sqlite", {"order_lines": log})
        closing.callback(views.close)
        views.query(ViewQuery("by_minute", after_offset=made.rows, wait_s=WAIT_S, limit=1))
        return time.perf_counter() - start


def _job_s(job: Job, made: Events, view: str, files: int, groups: int | None = None) -> float:
    answer = job.ask(do="replay", parquet=str(made.parquet), view=view, files=files)
    if groups not in (None, answer["groups"]):
        raise RuntimeError(f"expected {groups} groups, came {answer}")
    return float(answer["seconds"])
