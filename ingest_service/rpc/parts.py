"""What the servicers need of the service's parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ingest_service.contracts import Contract, Intake
from ingest_service.errors import UnknownStream
from ingest_service.lake import LakeExporter
from ingest_service.log import Log


@dataclass(frozen=True, slots=True)
class StreamParts:
    """One stream: its contract, the intake that validates by it, its log, and its way into the lake."""

    contract: Contract
    intake: Intake
    log: Log
    lake: LakeExporter


class Streams:
    """The streams of the service, by name."""

    def __init__(self, parts: Mapping[str, StreamParts]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> StreamParts:
        """The stream's parts.

        Raises:
            UnknownStream: there is none of that name.
        """
        try:
            return self._parts[name]
        except KeyError:
            raise UnknownStream(name, list(self._parts)) from None

    def items(self) -> Iterable[tuple[str, StreamParts]]:
        """Names and parts, by name."""
        return sorted(self._parts.items())
