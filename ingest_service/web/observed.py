"""What metrics and health look at."""

# ruff: noqa: D102 - the protocols say what their implementations' methods do
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ingest_service.errors import ContractError, IngestError
from ingest_service.lake.table import LakeState
from ingest_service.live.status import ViewPosition
from ingest_service.log import Counts
from ingest_service.log.load import Load


class ObservedLog(Protocol):
    """What is asked of a log."""

    @property
    def durable_offset(self) -> int: ...

    @property
    def start_offset(self) -> int: ...

    @property
    def watermark_us(self) -> int | None: ...

    def counts(self) -> Counts: ...

    def load(self) -> Load: ...


class ObservedLake(Protocol):
    """What is asked of a lake exporter."""

    def state(self) -> LakeState: ...

    @property
    def last_error(self) -> IngestError | None: ...


class ObservedStream(Protocol):
    """What is asked of a stream's parts."""

    @property
    def log(self) -> ObservedLog: ...

    @property
    def lake(self) -> ObservedLake: ...

    @property
    def error(self) -> str:
        """Why it takes no events; empty while it does."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A service's parts, as far as they are watched.

    streams: by name; refused: streams that could not be opened. views: asks for the live views' positions, by name.
    refusals: calls that were refused, by reason. keys: asks how many API keys are valid; None: none are asked for.
    """

    data: Path
    streams: Mapping[str, ObservedStream]
    refused: Mapping[str, ContractError]
    views: Callable[[], Mapping[str, ViewPosition]]
    refusals: Counter[str]
    keys: Callable[[], int] | None
