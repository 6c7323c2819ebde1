"""What the tools say, in lines for people."""

from __future__ import annotations

from ingest_service.data.backup import BackupMade
from ingest_service.data.report import Damage, Report
from ingest_service.data.restore import Restored
from ingest_service.data.usage import Usage

_DAYS_SHOWN_MAX = 3650


def size(count: float) -> str:
    """Bytes as people read them: 1.2 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def verify_lines(report: Report, seconds: float) -> list[str]:
    """What was read, what is worth a word, what is damaged, and the verdict."""
    lines = [
        f"log of {log.stream}: {log.rows:,} rows in {_count(log.frames, 'frame')}, {_count(log.segments, 'segment')}, "
        f"{size(log.bytes)}; offsets {log.start_offset:,} to {log.next_offset:,}"
        for log in report.logs
    ]
    lines += [
        f"lake of {lake.stream}: {lake.rows:,} rows in {_count(lake.files, 'file')}, {size(lake.bytes)}; version "
        f"{lake.version}, reaches offset {lake.offset:,}"
        for lake in report.lakes
    ]
    lines += [f"view {view.view}: covers {view.stream} to offset {view.offset:,}" for view in report.views]
    lines += [f"{what}: read" for what in report.other]
    lines += [f"note: {note}" for note in report.notes]
    lines += [_damage(damage) for damage in report.damages]
    read = sum(log.bytes for log in report.logs) + sum(lake.bytes for lake in report.lakes)
    verdict = "nothing is damaged" if report.ok else f"{_count(len(report.damages), 'damage')} found"
    return [*lines, f"{report.data}: {verdict}; {size(read)} of log and lake read in {seconds:.1f} s"]


def usage_lines(usage: Usage) -> list[str]:
    """The parts as a table, the largest first, and the outlook."""
    parts = sorted(usage.parts, key=lambda part: -part.bytes)
    rows = [("part", "size", "share", "growth a day", "")]
    rows += [
        (part.name, size(part.bytes), f"{part.bytes / usage.total:.0%}",
         "unsure" if part.growth is None else size(part.growth), part.how)
        for part in parts
    ]  # fmt: skip
    rows.append(("all", size(usage.total), "100%", "unsure" if usage.growth is None else size(usage.growth), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    return [*lines, f"free: {size(usage.free)} of {size(usage.disk)}; {_outlook(usage)}"]


def backup_lines(made: BackupMade) -> list[str]:
    """Where the backup is, how far it goes, and what it shares with the former one."""
    lines = [f"note: {note}" for note in made.notes]
    lines += [f"{name}: every row below offset {stream.next_offset:,}" for name, stream in made.streams.items()]
    shared = f", {size(made.linked_bytes)} of it unchanged since {made.base} and linked to it" if made.base else ""
    return [*lines, f"backed up to {made.path}: {_count(made.files, 'file')}, {size(made.bytes)}{shared}"]


def restore_lines(restored: Restored) -> list[str]:
    """Where the folder is now, how far it goes, and where the former one went."""
    lines = [f"{name}: every row below offset {offset:,}" for name, offset in restored.next_offsets.items()]
    if restored.before:
        lines.append(f"what was there is in {restored.before} now; remove it once you miss nothing")
    files = f"{_count(restored.files, 'file')}, {size(restored.bytes)}"
    return [*lines, f"restored {restored.backup} to {restored.path}: {files}, every checksum right"]


def _damage(damage: Damage) -> str:
    at = "" if damage.position is None else f" at byte {damage.position}"
    return f"damaged: {damage.path}{at}: {damage.problem}"


def _outlook(usage: Usage) -> str:
    if usage.days_left is None:
        return f"how long the disk lasts: unsure, {usage.unsure}"
    if usage.days_left > _DAYS_SHOWN_MAX:
        return "at this rate the disk lasts for more than ten years"
    return f"at this rate the disk lasts for about {_count(round(usage.days_left), 'day')}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
