"""The outbox's file: what was sent and not yet acknowledged, so that it survives the producer's own crash.

Looked at instead: a queue library such as persist-queue or litequeue (neither keeps a batch's numbers with it, which is
what makes the resend exact); SQLite from the standard library does the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tidemill.client.ack import Batch
from tidemill.errors import OutboxError
from tidemill.v1 import append_pb2

_FORMAT = 1
_REMOVED_MAX = 64
_SCHEMA = """
create table batch(
    id integer primary key,
    stream text not null,
    producer_id text not null,
    sequence integer not null,
    rows_sent integer not null,
    rows integer not null,
    arrow integer not null,
    payload blob not null,
    error text
);
create index batch_by_producer on batch(producer_id, sequence);
create table contract(stream text primary key, response blob not null) without rowid;
"""


class OutboxFile:
    """Batches with their producer ids and sequences, on disk before they leave. Thread-safe.

    An SQLite file (WAL, synchronous=FULL): a batch that `add` returned for survives a crash of the program and of the
    machine. One client at a time has it open, by an flock on the file's name with `.lock` behind it (SQLite's own locks
    end as soon as anybody in the process opens and closes the file); another one is refused.

    `lock` is held by whoever gives batches their numbers until these are on disk, so that a producer's numbers here and
    in memory are always the same; a producer takes its own lock after this one, never before.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.lock = threading.RLock()
        self.set_aside_bytes = 0
        self._removed: list[int] = []
        self._claimed: set[str] = set()
        self._closed = False
        with contextlib.ExitStack() as opened, self._errors("opened"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened.enter_context(_hold(self.path))
            # Events may be personal data: nobody but the owner reads them.
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=1.0)
            opened.callback(self._db.close)
            self._prepare()
            self._closing = opened.pop_all()

    def _prepare(self) -> None:
        for pragma in ("journal_mode=wal", "synchronous=full", "journal_size_limit=4194304"):
            self._db.execute(f"pragma {pragma}")
        self._db.execute("begin immediate")
        (found,) = self._db.execute("pragma user_version").fetchone()
        if not found:
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"pragma user_version={_FORMAT}")
        self._db.execute("commit")
        if found not in {0, _FORMAT}:
            raise OutboxError(
                f"the outbox {self.path}: expected format {_FORMAT}, found {found}: another release of the SDK wrote "
                "it; let that one deliver what it holds",
                str(self.path),
            )
        (self._last_before,) = self._db.execute("select coalesce(max(id), 0) from batch").fetchone()
        self._last_id = self._last_before
        self._count_set_aside()

    # ---- what producers do -------------------------------------------------------------------------------------

    def claim(self, stream: str) -> list[Batch]:
        """What earlier programs left for this stream, in the order sent; the second time nothing."""
        with self.lock:
            if stream in self._claimed:
                return []
            self._claimed.add(stream)
            rows = self._query(
                "select id, producer_id, sequence, rows_sent, rows, arrow, payload from batch "
                "where stream = ? and id <= ? and error is null order by id",
                (stream, self._last_before),
            )
        return [_to_batch(stream, *row) for row in rows]

    def unclaimed(self) -> list[str]:
        """The streams for which earlier programs left something that nobody has claimed."""
        with self.lock:
            left = self._query(
                "select distinct stream from batch where id <= ? and error is null order by stream",
                (self._last_before,),
            )
            return [stream for (stream,) in left if stream not in self._claimed]

    def add(self, batches: Sequence[Batch]) -> None:
        """Write numbered batches; when it returns they are on disk. Raises OutboxError: then none of them is."""
        numbers = range(self._last_id + 1, self._last_id + 1 + len(batches))
        rows = [
            (number, b.stream, b.producer_id, b.sequence, b.rows_sent, b.rows, b.arrow is not None, _payload(b))
            for number, b in zip(numbers, batches, strict=True)
        ]
        with self._transaction():
            self._db.executemany("insert into batch values(?, ?, ?, ?, ?, ?, ?, ?, null)", rows)
        self._last_id += len(batches)
        for number, batch in zip(numbers, batches, strict=True):
            batch.outbox_id = number

    def remove(self, batch: Batch, *, at_once: bool) -> None:
        """Forget an acknowledged batch; unless `at_once`, and while there are few, whoever writes next does it too.

        A crash before that leads to a resend, which the service recognises.
        """
        self._removed.append(batch.outbox_id)
        if (at_once or len(self._removed) >= _REMOVED_MAX) and self.lock.acquire(blocking=False):
            try:
                # Without an fsync of its own: nothing is lost when a removal is.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("pragma synchronous=normal")
                with contextlib.suppress(OutboxError), self._transaction():
                    pass  # the next transaction tries again
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("pragma synchronous=full")
                self.lock.release()

    def set_aside(self, batches: Iterable[Batch], error: str, renumbered: Iterable[Batch]) -> None:
        """Keep batches that can't be delivered, with the reason, and the new numbers of those behind them."""
        with self._transaction():
            self._db.executemany("update batch set error = ? where id = ?", [(error, b.outbox_id) for b in batches])
            self._db.executemany(
                "update batch set producer_id = ?, sequence = ?, rows_sent = ? where id = ?",
                [(b.producer_id, b.sequence, b.rows_sent, b.outbox_id) for b in renumbered],
            )
        self._count_set_aside()

    # ---- contracts, for a start without the service --------------------------------------------------------------

    def keep_contract(self, stream: str, response: bytes) -> None:
        """Remember what the service told of a stream."""
        with self.lock:
            if self.contract(stream) != response:
                with self._transaction():
                    self._db.execute("insert or replace into contract values(?, ?)", (stream, response))

    def contract(self, stream: str) -> bytes | None:
        """What the service told of a stream the last time; None when it never did."""
        with self.lock:
            found = self._query("select response from contract where stream = ?", (stream,))
        return bytes(found[0][0]) if found else None

    # ---- what people ask ---------------------------------------------------------------------------------------

    def pending_rows(self) -> int:
        """Rows that wait for delivery."""
        with self.lock:
            rows = self._query("select id, rows from batch where error is null", ())
            gone = set(self._removed)
            return sum(count for number, count in rows if number not in gone)

    def set_aside_batches(self) -> list[tuple[int, str, int, str, bool, bytes]]:
        """What can't be delivered: number, stream, rows, error, whether it is Arrow, payload."""
        with self.lock:
            return self._query(
                "select id, stream, rows, error, arrow, payload from batch where error is not null order by id", ()
            )

    def discard(self, ids: Iterable[int]) -> None:
        """Remove batches that were set aside."""
        with self.lock:
            with self._transaction():
                self._db.executemany("delete from batch where id = ? and error is not null", [(each,) for each in ids])
            self._count_set_aside()

    def close(self) -> None:
        """Close the file; what was not delivered stays in it. Idempotent."""
        with self.lock:
            if not self._closed:
                with contextlib.suppress(OutboxError), self._transaction():
                    pass
                self._closed = True
                self._closing.close()

    # ---- SQLite ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; removals that wait go along. Raises OutboxError."""
        with self.lock, self._errors("written"):
            removed = self._removed[:]
            self._db.execute("begin immediate")
            try:
                self._db.executemany("delete from batch where id = ?", [(number,) for number in removed])
                yield
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
            del self._removed[: len(removed)]

    def _query(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._errors("read"):
            return self._db.execute(statement, values).fetchall()

    def _count_set_aside(self) -> None:
        ((self.set_aside_bytes,),) = self._query(
            "select coalesce(sum(length(payload)), 0) from batch where error is not null", ()
        )

    @contextlib.contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            reason = "its client is closed" if self._closed else str(error)
            raise OutboxError(f"the outbox {self.path} can't be {done}: {reason}", str(self.path)) from error


@contextlib.contextmanager
def _hold(path: Path) -> Iterator[None]:
    """Have the outbox alone; raises OutboxError when somebody else has it."""
    with open(f"{path}.lock", "a+", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise OutboxError(
                f"the outbox {path} is in use by process {file.read().strip() or 'unknown'}; give each client an "
                "outbox of its own",
                str(path),
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _payload(batch: Batch) -> bytes:
    if batch.arrow is not None:
        return batch.arrow
    return append_pb2.ProtoRows(messages=batch.messages).SerializeToString()


def _to_batch(
    stream: str, number: int, producer_id: str, sequence: int, rows_sent: int, rows: int, arrow: int, payload: bytes
) -> Batch:
    """A batch of an earlier program: whether it left is not known."""
    batch = Batch(stream, payload if arrow else None, rows)
    if not arrow:
        batch.messages = list(append_pb2.ProtoRows.FromString(payload).messages)
        batch.size_bytes = len(payload)
    batch.producer_id, batch.sequence, batch.rows_sent = producer_id, sequence, rows_sent
    batch.outbox_id, batch.in_doubt = number, True
    return batch
