"""What the published warehouse says of itself, read for the pages: publications, and the dates they are of.

The file is opened by its path for as long as two small queries take, read-only, and again only once another has been
put in its place. So no page keeps an old file alive, and none is in a publication's way: those are renames.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass, field

from quality.config import DayConfig
from quality.publish import publications, published_dates


@dataclass(frozen=True)
class Publication:
    """A run's publication of the dates from the first to the last, both included."""

    run_id: str
    first: dt.date
    last: dt.date
    published_at: dt.datetime


@dataclass(frozen=True)
class Published:
    """What is published. publications: the last one first. rows: date → stream → rows it was published with.

    problem: why the warehouse could not be read; empty when it could, and before the first publication.
    """

    publications: tuple[Publication, ...] = ()
    rows: dict[dt.date, dict[str, int]] = field(default_factory=dict)
    problem: str = ""

    def by_date(self) -> dict[dt.date, Publication]:
        """Give for every published date the publication that it was last in."""
        found: dict[dt.date, Publication] = {}
        for each in self.publications:
            for day in range((each.last - each.first).days + 1):
                found.setdefault(each.first + dt.timedelta(days=day), each)
        return found


class Warehouse:
    """The published warehouse as it was read last. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version: tuple[str, int, int, int] | None = None
        self._published = Published()

    def read(self, config: DayConfig) -> Published:
        """Give what is published now."""
        with self._lock:
            try:
                state = config.warehouse.stat()
            except FileNotFoundError:
                return Published()
            except OSError as error:
                return Published(problem=f"{config.warehouse} cannot be read: {error}")
            version = (str(config.warehouse), state.st_ino, state.st_mtime_ns, state.st_size)
            if version != self._version:
                published = _read(config)
                if published.problem:
                    return published
                self._version, self._published = version, published
            return self._published


def _read(config: DayConfig) -> Published:
    import duckdb

    try:
        listed = tuple(
            Publication(
                each["run_id"],
                dt.date.fromisoformat(each["first_date"]),
                dt.date.fromisoformat(each["last_date"]),
                dt.datetime.fromisoformat(each["published_at"]),
            )
            for each in publications(config)
        )
        rows: dict[dt.date, dict[str, int]] = {}
        for stream, date, _, _, count in published_dates(config):
            rows.setdefault(date, {})[stream] = int(count)
    except (duckdb.Error, OSError) as error:
        return Published(problem=f"{config.warehouse} cannot be read: {' '.join(str(error).split())}")
    return Published(listed, rows)
