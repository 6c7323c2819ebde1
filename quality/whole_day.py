"""A whole day in this process, from its turn to its documents; and how the dates are."""

from __future__ import annotations

import dataclasses
import datetime as dt
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from quality import day, late, turn
from quality.config import DayConfig
from quality.errors import QualityError, RunWrong, ServiceFailed
from quality.publish import publications, published_dates
from quality.run import LAYERS, check_dates, load_run
from quality.service import connected

POLL_S = 0.5

Progress = Callable[[str, str], None]
"""Told of each stage: its name and what is to be said of it; an empty text where it begins."""


@dataclass(frozen=True)
class DateState:
    """One UTC date as readers see it: `state` is published, in part, sealed, or open (it has events).

    In part: published without streams that have events of it. verdict: of the run that published it last, and why the
    last run of it failed. late_rows: they are in no publication of the date; None where the service could not be
    asked. left_out: stream → rows, of the streams that it was published without.
    """

    date: str
    state: str
    run_id: str
    verdict: str
    published_at: str
    late_rows: int | None
    left_out: dict[str, int]


def new_run_id(date: str) -> str:
    """Name a run of this date that nobody has named yet."""
    return f"{date}_local-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def run_day(config: DayConfig, ticket: turn.Ticket, progress: Progress) -> dict[str, Any]:
    """Run the day that a ticket asks for; give run_id, dates, and what its publication gave.

    When another run has published the dates along with its own meanwhile: shared is true, and run_id is that run's.
    Raises what the stages raise; the turn is given back in any case.
    """
    taken = _wait_turn(config, ticket, progress)
    if taken["turn"] == "shared":
        return {"shared": True, **{key: taken[key] for key in ("run_id", "date", "last_date")}}
    failed = True
    try:
        result = _run_stages(config, ticket, taken, progress)
        failed = False
    finally:
        day.give_turn(config, ticket.ticket_id, failed)
    _timed(progress, "docs", lambda: day.document(config, ticket.run_id))
    return {"shared": False, **result}


def date_states(
    config: DayConfig, first: dt.date | None, last: dt.date | None, away: Callable[[str], None] = lambda _: None
) -> list[DateState]:
    """Give the dates that have events, a seal or a publication, oldest first; those between the bounds, if given.

    away: told why, when the service does not answer: then only published dates are known, and no late rows.
    """
    published = {str(date): row for date, row in _published_by_date(config).items()}
    try:
        events, sealed = _seen(config)
        pending: dict[str, dict[str, int]] | None = _by_date(late.pending(config))
        left_out = _by_date(late.left_out(config))
    except ServiceFailed as error:
        events, sealed, pending, left_out = set(), set(), None, {}
        away(str(error))
    failures = _failures(config)
    states = []
    for date in sorted(published.keys() | events | sealed):
        if (first and date < str(first)) or (last and date > str(last)):
            continue
        run_id, published_at = published.get(date, ("", ""))
        without = left_out.get(date, {})
        state = ("in part" if without else "published") if run_id else "sealed" if date in sealed else "open"
        failure = failures.get(date)
        verdict = _verdict(config, run_id) if run_id else ""
        if failure is not None and failure[0] > published_at:
            verdict = f"{verdict}; last run failed at {failure[1]}".removeprefix("; ")
        if without:
            verdict = f"{verdict}; without {', '.join(f'{name} ({rows:,} rows)' for name, rows in without.items())}"
        late_now = None if pending is None else sum(pending.get(date, {}).values())
        states.append(DateState(date, state, run_id, verdict, published_at, late_now, without))
    return states


def _wait_turn(config: DayConfig, ticket: turn.Ticket, progress: Progress) -> dict[str, Any]:
    told = ""
    try:
        while True:
            answer = day.take_turn(config, dataclasses.asdict(ticket))
            if answer["turn"] != "wait":
                return answer
            if answer["holder_run_id"] != told:
                told = answer["holder_run_id"]
                progress("turn", f"waiting for run {told}")
            time.sleep(POLL_S)
    except BaseException:
        day.give_turn(config, ticket.ticket_id, True)
        raise


def _run_stages(config: DayConfig, ticket: turn.Ticket, taken: dict[str, Any], progress: Progress) -> dict[str, Any]:
    run_id = ticket.run_id
    if taken["companions"]:
        progress("turn", f"{taken['date']} to {taken['last_date']} together with {', '.join(taken['companions'])}")
    sealed = _timed(
        progress,
        "seal",
        lambda: day.seal(
            config, run_id, taken["date"], taken["last_date"], force=ticket.force, streams=ticket.streams,
            full_refresh=ticket.full_refresh, as_of=ticket.as_of or None,
        ),
    )  # fmt: skip
    for name in ("export", "check_sources", "balance"):
        _timed(progress, name, lambda name=name: getattr(day, name)(config, run_id))  # type: ignore[misc]
    for layer in LAYERS:
        _timed(progress, f"dbt.{layer}", lambda layer=layer: day.build(config, run_id, layer))  # type: ignore[misc]
    for name in ("check_marts", "reconcile"):
        _timed(progress, name, lambda name=name: getattr(day, name)(config, run_id))  # type: ignore[misc]
    published = _timed(progress, "publish", lambda: day.publish(config, run_id))
    return {**{key: sealed[key] for key in ("run_id", "date", "last_date")}, **_short(published)}


def _timed(progress: Progress, stage: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    progress(stage, "")
    began_s = time.monotonic()
    result = work()
    progress(stage, f"{time.monotonic() - began_s:.1f} s{_said(result)}")
    return result


def _said(result: dict[str, Any]) -> str:
    """Give what a reader wants to know of a stage's result, in some words."""
    words = []
    if "verdict" in result:
        words.append(f"{result['checks']} checks, {result['verdict']}")
    if result.get("models"):
        words.append(f"{len(result['models'])} models, {result['tests']} tests")
    if "views" in result:
        compared = sum(view["windows"] for view in result["views"].values())
        words.append(f"{len(result['views'])} views, {compared:,} windows compared")
    if result.get("note"):
        words.append(str(result["note"]))
    return f": {', '.join(words)}" if words else ""


def _short(published: dict[str, Any]) -> dict[str, Any]:
    names = ("published_at", "published", "warehouse", "size_bytes", "note")
    return {name: published[name] for name in names if name in published}


def _by_date(rows: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Turn stream → date → rows into date → stream → rows."""
    found: dict[str, dict[str, int]] = {}
    for stream, dates in rows.items():
        for date, count in dates.items():
            found.setdefault(date, {})[stream] = count
    return found


def _published_by_date(config: DayConfig) -> dict[dt.date, tuple[str, str]]:
    """Give each published date's last run and when that published."""
    found: dict[dt.date, tuple[str, str]] = {}
    published_at = {each["run_id"]: each["published_at"] for each in publications(config)}
    for _, date, run_id, _, _ in published_dates(config):
        at = published_at.get(run_id, "")
        if at >= found.get(date, ("", ""))[1]:
            found[date] = run_id, at
    return found


def _seen(config: DayConfig) -> tuple[set[str], set[str]]:
    """Give the dates that have events, and those that are sealed, in any stream."""
    with connected(config) as client:
        streams = client.streams()
    events = {str(date) for stream in streams for date, rows in stream.counts.appended_by_date.items() if rows}
    sealed = {
        str(seal.date + dt.timedelta(days=number))
        for stream in streams
        for seal in stream.seals
        for number in range((seal.last_date - seal.date).days + 1)
    }
    return events, sealed


def _verdict(config: DayConfig, run_id: str) -> str:
    """Say in some words how a published run's checks went."""
    try:
        run = load_run(config, run_id)
        warnings = sum(len(run.result(stage).get("warnings", [])) for stage in ("check_sources", "check_marts"))
        views = run.result("reconcile")["views"].values()
    except RunWrong:
        return "passed"  # its record has been cleaned up since; it would not have been published otherwise
    text = f"passed with {warnings} warning{'s' * (warnings > 1)}" if warnings else "passed"
    explained = sum(int(view.get("explained") or 0) for view in views)
    return f"{text}, {explained:,} differences explained" if explained else text


def _failures(config: DayConfig) -> dict[str, tuple[str, str]]:
    """Give for each date the last failure of a run of it: when, and the stage."""
    found: dict[str, tuple[str, str]] = {}
    for file in config.runs.glob("*/run.json"):
        try:
            run = load_run(config, file.parent.name)
        except QualityError:
            continue
        for failure in run.failures:
            for date in run.dates:
                found[str(date)] = max(found.get(str(date), ("", "")), (failure["at"], failure["stage"]))
    return found


def ticket_of(
    date: str,
    last_date: str | None,
    *,
    streams: list[str] | None = None,
    force: bool = False,
    full_refresh: bool = False,
    as_of: str = "",
    run_id: str = "",
) -> turn.Ticket:
    """Make this process's ticket for a day. Raises RunWrong."""
    first, last = check_dates(date, last_date)
    name = run_id or new_run_id(first)
    return turn.Ticket.of(
        {
            "ticket_id": name, "run_id": name, "date": first, "last_date": last, "holder": turn.this_process(),
            "streams": streams, "force": force, "full_refresh": full_refresh, "as_of": as_of,
        }
    )  # fmt: skip
