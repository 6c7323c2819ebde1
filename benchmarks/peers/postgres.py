"""PostgreSQL: COPY in text form, a transaction a batch, each on disk before it is acknowledged."""

from __future__ import annotations

import io
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import Peer, PeerMissing
from retail.v1 import order_line_pb2
from tidemill.local.errors import LocalError
from tidemill.local.postgres import SETTINGS, Postgres

BATCH_ROWS = 10_000
_SETTINGS = {**SETTINGS, "synchronous_commit": "on", "shared_buffers": "512MB", "max_wal_size": "4GB"}
_TABLE = """
create table order_lines (
    event_id text {key}, invoice_no text, stock_code text, description text, quantity bigint,
    unit_price numeric(12, 3), invoiced_at timestamptz, customer_id bigint, country text)
"""


@contextmanager
def postgres_table(*, key: bool) -> Iterator[Peer]:
    """A fresh table; rows are turned into COPY's text before, as ours are serialized before."""
    try:
        import psycopg2
    except ModuleNotFoundError:
        raise PeerMissing("psycopg2 is not installed") from None
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        database = Postgres(folder / "data", folder / "postgres.log", _SETTINGS)
        try:
            database.prepare()
        except LocalError as error:
            raise PeerMissing(str(error)) from None
        spec = database.spec()
        with spec.log.open("wb") as log:
            process = subprocess.Popen(spec.command, env=spec.environment, stdout=log, stderr=log)
        try:
            while not spec.ready():  # type: ignore[misc]
                if process.poll() is not None:
                    raise PeerMissing(f"PostgreSQL did not start: {spec.log.read_text()[-500:]}")
            connection = psycopg2.connect(database.url)
            with connection, connection.cursor() as cursor:
                cursor.execute(_TABLE.format(key="primary key" if key else ""))

            def send(texts: list[str]) -> None:
                for text in texts:
                    with connection, connection.cursor() as cursor:
                        cursor.copy_expert("copy order_lines from stdin", io.StringIO(text))

            yield Peer(_texts, send)
            connection.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _texts(rows: list[bytes]) -> list[str]:
    """The rows as COPY reads them, a text a batch."""
    return ["".join(map(_line, rows[begin : begin + BATCH_ROWS])) for begin in range(0, len(rows), BATCH_ROWS)]


def _line(row: bytes) -> str:
    line = order_line_pb2.OrderLine.FromString(row)
    return (
        f"{line.event_id}\t{line.invoice_no}\t{line.stock_code}\t{line.description}\t{line.quantity}\t"
        f"{line.unit_price}\t{line.invoiced_at.ToJsonString()}\t{line.customer_id}\t{line.country}\n"
    )
