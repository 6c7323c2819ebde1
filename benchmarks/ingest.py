"""Sending: rows a second acknowledged, and the time from one send to its ack. Client and server share the cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import tidemill
from benchmarks.events import messages, serialized, table
from benchmarks.result import Result, percentile
from benchmarks.service import data_folder, ingest_service, running_stack

TYPED_ROWS = 500_000
PREPARED_ROWS = 3_000_000
SINGLE_SENDS = 1_000
_CHUNK_ROWS = 500_000


def append() -> list[Result]:
    """append_typed, append_prepared, append_arrow: fsynced, validated, deduplicated, by one producer."""
    return _append("", dedup=True)


def append_no_dedup() -> list[Result]:
    """The same for a contract without an event id."""
    return _append("_no_dedup", dedup=False)


def _append(suffix: str, *, dedup: bool) -> list[Result]:
    results: list[Result] = []
    with ingest_service(dedup=dedup) as address, tidemill.connect(address) as client:
        stream = client.stream("order_lines")
        stream.send_many(serialized(stream, 20_000, "warm")).result(60)
        for name, send in (("typed", _typed), ("prepared", _prepared), ("arrow", _arrow)):
            rows, size_bytes, seconds = send(stream)
            figure = f"append_{name}{suffix}"
            results.append(Result(figure, rows / seconds, "rows/s acknowledged"))
            results.append(Result(f"{figure}_bytes", size_bytes / seconds, "bytes/s acknowledged, as protobuf"))
    return results


def append_live() -> list[Result]:
    """append_prepared_live: the same while a live view and the lake follow, as `tidemill up` runs it."""
    with data_folder() as data, running_stack(data) as stack, tidemill.connect(stack.address) as client:
        rows, _, seconds = _prepared(client.stream("order_lines"))
    return [Result("append_prepared_live", rows / seconds, "rows/s acknowledged, with a live view")]


def _typed(stream: tidemill.Stream) -> tuple[int, int, float]:
    typed = list(messages(stream, TYPED_ROWS, "typed"))
    size_bytes = sum(message.ByteSize() for message in typed)  # type: ignore[attr-defined]

    def send() -> None:
        for message in typed:
            stream.send(message)
        stream.flush()

    return TYPED_ROWS, size_bytes, _seconds(send)


def _prepared(stream: tidemill.Stream) -> tuple[int, int, float]:
    """In chunks, so that the prepared events need not all be in memory; only the sending is timed."""
    size_bytes, seconds = 0, 0.0
    for begin in range(0, PREPARED_ROWS, _CHUNK_ROWS):
        prepared = serialized(stream, _CHUNK_ROWS, f"prepared{begin}")
        size_bytes += sum(map(len, prepared))
        seconds += _seconds(lambda rows=prepared: _whole(stream.send_many(rows), len(rows)))  # type: ignore[misc]
    return PREPARED_ROWS, size_bytes, seconds


def _arrow(stream: tidemill.Stream) -> tuple[int, int, float]:
    row_bytes = len(serialized(stream, 1, "arrow")[0])
    prepared = table(PREPARED_ROWS, "arrow")
    return (
        PREPARED_ROWS,
        PREPARED_ROWS * row_bytes,
        _seconds(lambda: _whole(stream.send_table(prepared), PREPARED_ROWS)),
    )


def _whole(ack: tidemill.TableAck, rows: int) -> None:
    acked = ack.result(300)
    if acked.appended != rows:
        raise RuntimeError(f"expected {rows} rows appended, came {acked.appended}")


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ack() -> list[Result]:
    """ack_ms_p50, ack_ms_p99: one event at a time, from send to ack."""
    return _ack("ack_ms", _alone)


def ack_live() -> list[Result]:
    """ack_live_ms_p50, ack_live_ms_p99: the same while a live view follows."""
    return _ack("ack_live_ms", _with_views)


def _ack(name: str, service: Callable[[], contextmanager]) -> list[Result]:  # type: ignore[type-arg]
    waited_ms = []
    with service() as address, tidemill.connect(address) as client:
        stream = client.stream("order_lines")
        for message in messages(stream, 50, "warm"):
            stream.send(message).result(10)
        for message in messages(stream, SINGLE_SENDS, "single"):
            waited_ms.append(1000 * _seconds(lambda m=message: stream.send(m).result(10)))  # type: ignore[misc]
    return [Result(f"{name}_p{n}", percentile(waited_ms, n / 100), "ms, send to ack") for n in (50, 99)]


@contextmanager
def _alone() -> Iterator[str]:
    with ingest_service() as address:
        yield address


@contextmanager
def _with_views() -> Iterator[str]:
    with data_folder() as data, running_stack(data) as stack:
        yield stack.address
