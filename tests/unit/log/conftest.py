"""Logs in temporary folders."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.logs import SPEC, SetClock

from ingest_service.log import Log, LogSettings, LogSpec
from ingest_service.log.files import Files


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def open_log(tmp_path: Path, clock: SetClock) -> Iterator[Callable[..., Log]]:
    opened: list[Log] = []

    def open_(files: Files | None = None, spec: LogSpec = SPEC, **settings: int) -> Log:
        log = Log.open(tmp_path / "log", spec, clock=clock, files=files, settings=LogSettings(**settings))
        opened.append(log)
        return log

    yield open_
    for log in opened:
        log.close()
