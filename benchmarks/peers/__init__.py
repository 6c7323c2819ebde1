"""Others that take events, measured in the same run: the same rows, batches and acknowledgement, from one process.

Each peer takes turns with Tidemill, round after round, so that what else happens on the machine hits both.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import tidemill
from benchmarks.events import serialized
from benchmarks.peers.kafka import kafka_topic
from benchmarks.peers.peer import Peer, PeerMissing
from benchmarks.peers.postgres import postgres_table
from benchmarks.peers.redis import redis_stream
from benchmarks.result import Result
from benchmarks.service import ingest_service

ROWS = 200_000
ROUNDS = 5


def postgres() -> list[Result]:
    """versus_postgres: COPY with synchronous_commit, into a table with the event id as its key, and without."""
    return [
        *_versus("versus_postgres", "PostgreSQL COPY, primary key", lambda: postgres_table(key=True)),
        *_versus("versus_postgres_no_dedup", "PostgreSQL COPY", lambda: postgres_table(key=False), dedup=False),
    ]


def redis() -> list[Result]:
    """versus_redis: XADD in pipelines, appendfsync always."""
    return _versus("versus_redis", "Redis Streams, appendfsync always", redis_stream, dedup=False)


def kafka() -> list[Result]:
    """versus_kafka: one broker, acks=all, an idempotent producer; as Kafka comes, and fsynced like the others."""
    return [
        *_versus("versus_kafka", "Kafka acks=all, not fsynced", lambda: kafka_topic(fsync=False), dedup=False),
        *_versus("versus_kafka_fsync", "Kafka acks=all, fsynced", lambda: kafka_topic(fsync=True), dedup=False),
    ]


def _versus(
    name: str, label: str, start: Callable[[], AbstractContextManager[Peer]], *, dedup: bool = True
) -> list[Result]:
    """Tidemill's rows a second and the ratio to the peer's; nothing where the peer cannot be had."""
    ours, theirs = [], []
    try:
        with start() as peer, ingest_service(dedup=dedup) as address, tidemill.connect(address) as client:
            stream = client.stream("order_lines")
            for round_ in range(ROUNDS + 1):
                rows = serialized(stream, ROWS, f"{name}{round_}")
                prepared = peer.prepare(rows)
                took = _seconds(lambda rows=rows: stream.send_many(rows).result(300)), _seconds(peer.send, prepared)  # type: ignore[misc]
                if round_:  # the first one warms both
                    ours.append(ROWS / took[0])
                    theirs.append(ROWS / took[1])
    except PeerMissing as missing:
        print(f"skipped: {name}: {missing}", file=sys.stderr)
        return []
    value, other = statistics.median(ours), statistics.median(theirs)
    return [Result(name, value, "rows/s acknowledged", f"{label}: {other:,.0f} rows/s", value / other)]


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start
