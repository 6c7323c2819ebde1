"""Redis Streams: XADD in pipelines, on disk before they are acknowledged (appendfsync always)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import Peer, PeerMissing

BATCH_ROWS = 10_000


@contextmanager
def redis_stream() -> Iterator[Peer]:
    """A fresh stream."""
    try:
        import redis
    except ModuleNotFoundError:
        raise PeerMissing("the Python package redis is not installed") from None
    program = shutil.which("redis-server")
    if program is None:
        raise PeerMissing("there is no redis-server (apt-get install redis-server)")
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as folder:
        socket = Path(folder) / "redis.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", folder, "--appendonly", "yes"]
        options += ["--appendfsync", "always", "--save", "", "--no-appendfsync-on-rewrite", "no"]
        with (Path(folder) / "redis.log").open("wb") as log:
            process = subprocess.Popen([program, *options], stdout=log, stderr=log)
        try:
            client = redis.Redis(unix_socket_path=str(socket))
            while True:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    if process.poll() is not None:
                        raise PeerMissing(f"redis-server ended with code {process.returncode}") from None

            def send(rows: list[bytes]) -> None:
                for begin in range(0, len(rows), BATCH_ROWS):
                    with client.pipeline(transaction=False) as pipeline:
                        for row in rows[begin : begin + BATCH_ROWS]:
                            pipeline.xadd("order_lines", {"e": row})
                        pipeline.execute()

            yield Peer(list, send)
            client.close()
        finally:
            process.terminate()
            process.wait()
