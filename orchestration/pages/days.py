"""The days: each date (UTC) with what became of it, as the warehouse, the runs' records and the log tell it."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestration.pages.published import Publication, Published
from orchestration.pages.records import Summary
from quality.config import DayConfig
from quality.errors import LakeFailed
from quality.lake import streams_of

PAGE_DAYS = 31
"""How many rows of the list a page shows."""
ASK_TIMEOUT_S = 3.0
"""How long the ingest service is waited for: the page is shown without it then."""
_DAY = dt.timedelta(days=1)


class Show(enum.StrEnum):
    """Which days are listed."""

    ALL = "all"
    PUBLISHED = "published"
    OPEN = "not published"
    WARNED = "with warnings"
    LATE = "with late rows"
    FAILED = "failed"


@dataclass(frozen=True)
class Counted:
    """The log's own count: date → stream → rows appended. problem: why it is not known; empty when it is."""

    rows: Mapping[dt.date, Mapping[str, int]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Day:
    """One date. publication: the last one it was in, with the run that made it, if its record is still there.

    attempt: the newest run of this date that did something after that and published nothing. rows: stream → rows, as
    published or, before that, as the log has counted. late: rows that came after the publication. left_out: stream →
    rows, of the streams that have events of it and that it was published without. over: the date has passed.
    """

    date: dt.date
    publication: Publication | None
    run: Summary | None
    attempt: Summary | None
    rows: Mapping[str, int]
    late: int
    left_out: Mapping[str, int]
    over: bool

    @property
    def total(self) -> int:
        """Its rows in all streams."""
        return sum(self.rows.values())

    @property
    def failed(self) -> bool:
        """The newest run of it failed."""
        return self.attempt is not None and self.attempt.state == "failed"

    def is_shown(self, show: Show) -> bool:
        """Whether a choice of the list includes it."""
        match show:
            case Show.PUBLISHED:
                return self.publication is not None
            case Show.OPEN:
                return self.publication is None or bool(self.left_out)
            case Show.WARNED:
                return self.run is not None and self.run.warnings > 0
            case Show.LATE:
                return self.late > 0
            case Show.FAILED:
                return self.failed
            case _:
                return True


@dataclass(frozen=True)
class Gap:
    """Dates in a row, both included, of which nothing is known: no event, no run."""

    first: dt.date
    last: dt.date

    @property
    def days(self) -> int:
        """How many they are."""
        return (self.last - self.first).days + 1


@dataclass(frozen=True)
class DayList:
    """A page of the list, newest date first, and what it is a page of. page counts from 1."""

    entries: Sequence[Day | Gap]
    show: Show
    counts: Mapping[Show, int]
    page: int
    pages: int
    total_rows: int
    late_rows: int
    last_published: dt.date | None


def count_log(config: DayConfig) -> Counted:
    """Ask the ingest service for its counts, of the streams that the project's dbt sources read."""
    import tidemill

    found: dict[dt.date, dict[str, int]] = {}
    try:
        known = streams_of(config)
        with tidemill.connect(config.address, timeout_s=ASK_TIMEOUT_S) as client:
            for status in client.streams():
                if status.stream not in known:
                    continue
                for date, rows in status.counts.appended_by_date.items():
                    found.setdefault(date, {})[status.stream] = rows
    except tidemill.TidemillError as error:
        return Counted(problem=f"the ingest service at {config.address} did not answer: {error}")
    except LakeFailed as error:
        return Counted(problem=str(error))
    return Counted(found)


def list_days(published: Published, runs: Sequence[Summary], counted: Counted, today: dt.date) -> list[Day]:
    """Put together every date that is published, was run or has events; newest first.

    runs: the one that began last first.
    """
    by_date, by_id = published.by_date(), {run.run_id: run for run in runs}
    attempts: dict[dt.date, Summary] = {}
    for run in runs:
        # A run as of another one is for looking at; of the others the newest counts.
        if not run.as_of:
            for number in range((run.last - run.first).days + 1):
                date = run.first + number * _DAY
                if date not in attempts or attempts[date].last_at < run.last_at:
                    attempts[date] = run
    days = []
    for date in sorted(by_date.keys() | attempts.keys() | counted.rows.keys(), reverse=True):
        publication, newest = by_date.get(date), attempts.get(date)
        is_told = newest is None or newest.state == "published" or _is_older(newest, publication)
        attempt = None if is_told else newest
        logged = counted.rows.get(date, {})
        rows = published.rows.get(date, {}) if publication else logged
        late = sum(max(logged.get(stream, 0) - number, 0) for stream, number in rows.items()) if publication else 0
        # A publication of an older release says nothing of its streams.
        left_out = {stream: number for stream, number in logged.items() if number and rows and stream not in rows}
        made_by = by_id.get(publication.run_id) if publication else None
        days.append(Day(date, publication, made_by, attempt, rows, late, left_out, date < today))
    return days


def take_page(days: Sequence[Day], show: Show, page: int, date: dt.date | None) -> DayList:
    """Take a page of the list; that with a date, or the next older one, where a date is given.

    Dates in between of which nothing is known are one entry, where all are shown.
    """
    chosen: list[Day | Gap] = []
    for day in days:
        if not day.is_shown(show):
            continue
        if show is Show.ALL and chosen and (newer := _date(chosen[-1])) - day.date > _DAY:
            chosen.append(Gap(day.date + _DAY, newer - _DAY))
        chosen.append(day)
    pages = max(1, -(-len(chosen) // PAGE_DAYS))
    if date is not None:
        older: Callable[[Day | Gap], bool] = lambda entry: _date(entry) <= date  # noqa: E731
        place = next((number for number, entry in enumerate(chosen) if older(entry)), len(chosen) - 1)
        page = 1 + max(place, 0) // PAGE_DAYS
    page = min(max(page, 1), pages)
    return DayList(
        entries=chosen[(page - 1) * PAGE_DAYS : page * PAGE_DAYS],
        show=show,
        counts={each: sum(day.is_shown(each) for day in days) for each in Show},
        page=page,
        pages=pages,
        total_rows=sum(day.total for day in days if day.publication),
        late_rows=sum(day.late for day in days),
        last_published=next((day.date for day in days if day.publication), None),
    )


def _date(entry: Day | Gap) -> dt.date:
    return entry.date if isinstance(entry, Day) else entry.first


def _is_older(run: Summary, publication: Publication | None) -> bool:
    """Whether the publication came after all that the run did."""
    if publication is None or not run.last_at:
        return False
    return dt.datetime.fromisoformat(run.last_at) < publication.published_at
