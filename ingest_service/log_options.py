"""The log's bounds as options of the service."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import fields

from ingest_service.log import LogSettings

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES = {"": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_NUMBER = re.compile(r"^(\d{1,15})([A-Za-z]*)$", re.ASCII)


def duration_s(text: str) -> int:
    """Seconds of a duration: a whole number and its unit, such as 90s, 30m, 12h, 7d; 0 needs none.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = _NUMBER.match(text)
    if match and (match[2] in _SECONDS or match[1] == "0"):
        return int(match[1]) * _SECONDS.get(match[2], 1)
    raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 30m, 12h or 7d, came {text!r}")


def size_bytes(text: str) -> int:
    """Bytes of a size: a whole number and perhaps its unit, such as 256MiB, 50GB.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = _NUMBER.match(text)
    if match and match[2] in _BYTES:
        return int(match[1]) * _BYTES[match[2]]
    raise argparse.ArgumentTypeError(f"expected a size such as 256MiB or 50GB, came {text!r}")


_OPTIONS: tuple[tuple[str, str, Callable[[str], int], str, str, str], ...] = (
    ("--retain-age", "retain_age_s", duration_s, "DURATION", "7d",
     "the log drops segments whose rows are all older, once they are in the lake; 0: none for its age"),
    ("--retain-bytes", "retain_bytes", size_bytes, "SIZE", "0",
     "it drops the oldest while it is larger, by stream; 0: none for the log's size"),
    ("--segment-bytes", "segment_bytes", size_bytes, "SIZE", "256MiB", "a segment is closed once it is longer"),
    ("--quarantine-age", "quarantine_age_s", duration_s, "DURATION", "90d", "quarantined rows are kept for so long"),
    ("--quarantine-rows", "quarantine_rows_max", int, "N", "1000000", "and so many of them, by stream"),
    ("--producers-max", "producers_max", int, "N", "100000", "producers remembered, by stream"),
    ("--producer-expiry", "producer_expiry_s", duration_s, "DURATION", "7d",
     "a producer that sent nothing for so long is forgotten"),
    ("--dedup-ids", "dedup_ids_max", int, "N", "5000000", "event ids remembered, by stream"),
    ("--dedup-age", "dedup_age_s", duration_s, "DURATION", "1d", "for how long they are remembered"),
    ("--idle-after", "idle_after_s", duration_s, "DURATION", "60s",
     "without events for so long, a stream's watermark follows the clock"),
)  # fmt: skip


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `log_settings` reads."""
    group = parser.add_argument_group("log", "bounds of each stream's log")
    for option, name, kind, metavar, default, text in _OPTIONS:
        group.add_argument(
            option, dest=name, type=kind, metavar=metavar, default=kind(default), help=f"{text} (default: {default})"
        )


def log_settings(options: argparse.Namespace) -> LogSettings:
    """The bounds that were asked for."""
    asked = {option[1] for option in _OPTIONS}
    assert asked <= {field.name for field in fields(LogSettings)}
    return LogSettings(**{name: getattr(options, name) for name in asked})
