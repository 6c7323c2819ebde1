"""The ingest service as a process, whose live views a benchmark decides upon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import tidemill
from benchmarks.service import PROJECT

WAIT_S = 1800.0
_QUERY_S = 250.0
_KIB = 1024 if sys.platform == "linux" else 1  # what ru_maxrss counts in


class LiveService:
    """One run of the service. After `stop`, `peak_bytes` is the most memory that it had resident."""

    def __init__(self, data: Path, *options: str) -> None:
        """Starts it and waits until it answers."""
        data.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ingest_service", "--data", str(data), "--proto", str(PROJECT / "proto")]
        command += ["--listen", "127.0.0.1:0", "--http-listen", "none", *options]
        log = data / "service.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=out)
        self.peak_bytes = 0
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("listening on "):
            self.stop()
            raise RuntimeError(f"the service did not start: {log.read_text()[-2000:]}")
        self.address = line.split()[-1]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends it; once more does nothing."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(how)
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self.peak_bytes = usage.ru_maxrss * _KIB


@contextmanager
def live_service(data: Path, *, export: bool = False) -> Iterator[LiveService]:
    """The service over a data folder. export: whether the lake follows the log, as it does under `tidemill up`."""
    service = LiveService(data, *([] if export else ["--export-interval", "0"]))
    try:
        yield service
    finally:
        service.stop()


def forget_views(data: Path) -> None:
    """Has a data folder's next service find no live tables, and no word of what they were."""
    shutil.rmtree(data / "live", ignore_errors=True)


def replay_s(address: str, views: Mapping[str, str], rows: int, groups: int | None = None) -> float:
    """Gives a service views, SQL by name, and waits until a query of each covers the log's `rows` rows: seconds.

    groups: how many rows the views are expected to have then.
    """
    with tidemill.connect(address) as client:
        start = time.perf_counter()
        apply(client, views)
        for name in views:
            _wait(client.view(name), rows, start + WAIT_S)
        seconds = time.perf_counter() - start
        for name in views:
            found = client.view(name).status().rows
            if groups not in (None, found):
                raise RuntimeError(f"expected {groups} rows of the view {name}, came {found}")
    return seconds


def _wait(view: tidemill.View, rows: int, until_s: float) -> None:
    """Waits until a view covers the first `rows` events; the service itself lets no query wait longer than 300 s."""
    while True:
        try:
            view.query(after=rows, wait_s=_QUERY_S, limit=1)
        except tidemill.ServiceBusy:
            if time.perf_counter() > until_s:
                raise
        else:
            return


def apply(client: tidemill.Client, views: Mapping[str, str]) -> None:
    """Makes these a service's live views."""
    for applied in client.apply_views(manifest(views)):
        if applied.problem:
            raise RuntimeError(f"the view {applied.view} was refused: {applied.problem}")


def manifest(views: Mapping[str, str]) -> bytes:
    """What the service reads of a dbt manifest, with these models over the stream `order_lines`."""
    source = {
        "name": "order_lines",
        "relation_name": '"warehouse"."events"."order_lines"',
        "meta": {"stream": "order_lines"},
    }
    nodes = {
        f"model.tidemill.{name}": {
            "resource_type": "model", "name": name, "original_file_path": f"models/live/{name}.sql", "tags": ["live"],
            "config": {"materialized": "table"}, "compiled_code": sql, "raw_code": sql,
        }
        for name, sql in views.items()
    }  # fmt: skip
    text = json.dumps({"metadata": {}, "nodes": nodes, "sources": {"source.tidemill.events.order_lines": source}})
    return text.encode()
