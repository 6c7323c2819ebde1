"""What `verify` found: what it read, what is damaged, and what is worth saying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[int], None]
"""Told of every further so many bytes that were read."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written. path: the file; position: bytes into it, None for all of it."""

    path: str
    position: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class LogChecked:
    """One log, read to its end. rows: start_offset … next_offset - 1; those before were dropped by retention."""

    stream: str
    partition: str
    start_offset: int
    segments: int
    frames: int
    bytes: int
    rows: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class LakeChecked:
    """One lake table, read at one version. offset: what it says that it reaches."""

    stream: str
    version: int
    files: int
    bytes: int
    rows: int
    offset: int


@dataclass(frozen=True, slots=True)
class ViewChecked:
    """A live view as the store has it: its rows are those of the log below `offset`."""

    view: str
    stream: str
    offset: int


@dataclass(slots=True)
class Report:
    """Everything that was checked, in the order in which it was. Not thread-safe."""

    data: str
    logs: list[LogChecked] = field(default_factory=list)
    lakes: list[LakeChecked] = field(default_factory=list)
    views: list[ViewChecked] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    def damaged(self, path: Path | str, problem: object, position: int | None = None) -> None:
        """Remember a damage."""
        self.damages.append(Damage(str(path), position, str(problem)))

    def next_offset(self, stream: str) -> int | None:
        """Where the log of a stream ends, or None when it has none."""
        return next((log.next_offset for log in self.logs if log.stream == stream), None)
