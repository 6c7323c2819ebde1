"""The turn: from seal to publish, one run at a time writes the next warehouse of a data folder.

So no later publication is ever built from older pins than an earlier one. Whoever wants the turn puts a ticket in the
queue and asks again until it has it. Tickets get it in the order in which they came; who gets it takes waiting tickets
of neighbouring dates with the same options along: one seal, one build and one publication for all. If that run fails,
those are run alone.

    warehouse/queue/<number>-<ticket>.json   a ticket that waits, or that has been served along with another
    warehouse/turn.json                      the ticket that has the turn, with those that it took along
    warehouse/turn.lock                      locked while any of these is changed

Everything is a function of these files: a process may die between any two steps.

    take: 1. the ticket stands in the queue
          2. turn.json names it, and its companions: from here it has the turn
          3. its own ticket leaves the queue; until then it is ignored, as it has the turn
    give: 1. each companion's ticket says by which run it was served, or that it is to be run alone
          2. turn.json is removed: from here the turn is free
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import fcntl
import hashlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quality.config import DayConfig
from quality.errors import RunWrong
from quality.files import sync_folder, write_atomically
from quality.run import check_dates, check_run_id, load_run

WAITING, ALONE, SERVED = "waiting", "alone", "served"
COMPANIONS_MAX = 366
"""How many tickets one run takes along at the most."""
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Ticket:
    """Who wants to write the warehouse, for which dates (UTC, ISO form, both included), with which options.

    holder: {"kind": "airflow", "dag_id", "run_id"} or {"kind": "process", "pid", "started", "host"}: who is asked
    whether it still lives. shares: it may take others along; False for a run that has sealed its dates before.
    state: waiting; alone: waiting, and neither takes others along nor is taken; served: `served_by` has published its
    dates. number: its place in the queue.
    """

    ticket_id: str
    run_id: str
    date: str
    last_date: str
    holder: dict[str, Any]
    force: bool = False
    streams: tuple[str, ...] | None = None
    full_refresh: bool = False
    as_of: str = ""
    shares: bool = True
    state: str = WAITING
    served_by: str = ""
    number: int = 0

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Ticket:
        """Make one of what was asked or read; RunWrong says what is missing. Keys of others are left out."""
        names = {each.name for each in dataclasses.fields(cls)}
        values = {name: value for name, value in content.items() if name in names}
        try:
            values["date"], values["last_date"] = check_dates(values["date"], values.get("last_date"))
            values["streams"] = tuple(sorted(values["streams"])) if values.get("streams") else None
            values["as_of"] = values.get("as_of") or ""
            check_run_id(values["run_id"])
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise RunWrong(f"expected a ticket with ticket_id, run_id, date and holder; {error!r} is wrong") from error

    @property
    def options(self) -> tuple[object, ...]:
        """What has to be equal for two tickets to be run as one."""
        return self.force, self.streams, self.full_refresh, self.as_of

    @property
    def may_be_shared(self) -> bool:
        """Whether it may be run together with others."""
        return self.state == WAITING and self.shares and not self.as_of


@dataclass(frozen=True)
class Turn:
    """Who has the turn: the ticket, the companions that it took along, and the dates of all of them together."""

    ticket: Ticket
    companions: tuple[Ticket, ...] = ()
    taken_at: str = ""
    date: str = field(default="")
    last_date: str = field(default="")


def take(config: DayConfig, ticket: Ticket) -> dict[str, Any]:
    """Ask for the turn; asked again by the same ticket, it gives the same answer until that changes.

    Gives turn: `held` (run_id, date and last_date are those to be run, companions the run ids taken along); `wait`
    (holder: whose turn it is, or who stands in front; place: how many are to have the turn before this one, beside
    who has it now); `shared` (run_id: the run that has published the dates).
    A ticket that is told `shared` is out of the queue.
    """
    with _locked(config):
        turn = _living_turn(config)
        if turn is not None and turn.ticket.ticket_id == ticket.ticket_id:
            _drop_ticket(config, ticket.ticket_id)
            return _held(turn)
        queue = _living_queue(config)
        mine = next((each for each in queue if each.ticket_id == ticket.ticket_id), None)
        if mine is not None and mine.state == SERVED:
            _drop_ticket(config, ticket.ticket_id)
            return {"turn": "shared", **_asked(mine), "run_id": mine.served_by}
        if mine is None:
            mine = dataclasses.replace(
                ticket, state=WAITING, number=1 + max((each.number for each in queue), default=0)
            )
            _write_ticket(config, mine)
            queue = [*queue, mine]
        waiting = [each for each in queue if each.state != SERVED]
        if turn is not None or waiting[0].ticket_id != ticket.ticket_id:
            first = turn.ticket if turn is not None else waiting[0]
            asked = {**_asked(mine), "place": _place(mine, waiting, turn)}
            return {"turn": "wait", **asked, "holder": first.holder, "holder_run_id": first.run_id}
        taken = _take(config, mine, waiting)
        _drop_ticket(config, mine.ticket_id)
        return _held(taken)


def give(config: DayConfig, ticket_id: str, *, failed: bool) -> bool:
    """Give the turn back, or leave the queue. Whether the ticket had the turn.

    failed: nothing was published; its companions are run alone then. A run that has published in spite of that (its
    process died right after) has served them.
    """
    with _locked(config):
        turn = _read_turn(config)
        if turn is not None and turn.ticket.ticket_id == ticket_id:
            _end(config, turn, failed=failed)
            return True
        if turn is not None and any(each.ticket_id == ticket_id for each in turn.companions):
            left = tuple(each for each in turn.companions if each.ticket_id != ticket_id)
            _write_turn(config, dataclasses.replace(turn, companions=left))
        _drop_ticket(config, ticket_id)
        return False


def break_turn(config: DayConfig, holder: Mapping[str, Any]) -> bool:
    """Take the turn, and the places in the queue, from a holder that is gone. Whether it had any of them."""
    with _locked(config):
        had = False
        turn = _read_turn(config)
        if turn is not None and _is(turn.ticket.holder, holder):
            _end(config, turn, failed=True)
            had = True
        for ticket in _queue(config):
            if _is(ticket.holder, holder) and ticket.state != SERVED:
                _drop_ticket(config, ticket.ticket_id)
                had = True
        return had


def current(config: DayConfig) -> Turn | None:
    """Give who has the turn now, or None; nothing is changed."""
    return _read_turn(config)


def waiting(config: DayConfig) -> list[Ticket]:
    """Give the tickets that wait, in their order; nothing is changed."""
    turn = _read_turn(config)
    holds = turn.ticket.ticket_id if turn else ""
    return [each for each in _queue(config) if each.state != SERVED and each.ticket_id != holds]


def this_process() -> dict[str, Any]:
    """Give a holder that lives as long as this process does."""
    return {"kind": "process", "pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname()}


def neighbours(ticket: Ticket, others: list[Ticket]) -> list[Ticket]:
    """Give those that with the ticket make one range of dates without a gap, and may be run with it."""
    first, last = dt.date.fromisoformat(ticket.date), dt.date.fromisoformat(ticket.last_date)
    left = [each for each in others if each.may_be_shared and each.options == ticket.options]
    taken: list[Ticket] = []
    found = True
    while found and len(taken) < COMPANIONS_MAX:
        found = False
        for each in left:
            begin, end = dt.date.fromisoformat(each.date), dt.date.fromisoformat(each.last_date)
            if begin <= last + _DAY and end >= first - _DAY:
                first, last, found = min(first, begin), max(last, end), True
                taken.append(each)
                left.remove(each)
                break
    return taken


def _place(ticket: Ticket, waiting: list[Ticket], turn: Turn | None) -> int:
    """Give how many stand before a ticket; a companion of the turn has all behind it, as it is not to have its own."""
    companions = {each.ticket_id for each in turn.companions} if turn is not None else set()
    line = [each.ticket_id for each in waiting if each.ticket_id not in companions]
    return line.index(ticket.ticket_id) if ticket.ticket_id in line else len(line)


def _take(config: DayConfig, ticket: Ticket, waiting: list[Ticket]) -> Turn:
    others = [each for each in waiting if each.ticket_id != ticket.ticket_id]
    companions = neighbours(ticket, others) if ticket.may_be_shared else []
    all_of_them = [ticket, *companions]
    turn = Turn(
        ticket,
        tuple(companions),
        dt.datetime.now(dt.UTC).isoformat(),
        min(each.date for each in all_of_them),
        max(each.last_date for each in all_of_them),
    )
    _write_turn(config, turn)
    return turn


def _end(config: DayConfig, turn: Turn, *, failed: bool) -> None:
    """Settle the companions, then free the turn."""
    served = not failed or _has_published(config, turn)
    state: dict[str, Any] = {"state": SERVED, "served_by": turn.ticket.run_id} if served else {"state": ALONE}
    for companion in turn.companions:
        _write_ticket(config, dataclasses.replace(companion, **state))
    _drop_ticket(config, turn.ticket.ticket_id)
    config.turn.unlink(missing_ok=True)
    sync_folder(config.turn.parent)


def _has_published(config: DayConfig, turn: Turn) -> bool:
    """Whether the turn's run has published all of its dates since it took the turn."""
    try:
        run = load_run(config, turn.ticket.run_id)
    except RunWrong:
        return False
    covers = run.date <= turn.date and turn.last_date <= run.last_date
    return bool(covers and run.stages.get("publish", {}).get("ended_at", "") >= turn.taken_at)


def _living_turn(config: DayConfig) -> Turn | None:
    """Give the turn; that of a process that has died is ended first."""
    turn = _read_turn(config)
    if turn is not None and _has_died(turn.ticket.holder):
        _end(config, turn, failed=True)
        return None
    return turn


def _living_queue(config: DayConfig) -> list[Ticket]:
    """Give the tickets in their order; those of processes that have died are removed first."""
    tickets = _queue(config)
    for ticket in tickets:
        if _has_died(ticket.holder):
            _drop_ticket(config, ticket.ticket_id)
    return [ticket for ticket in tickets if not _has_died(ticket.holder)]


def _held(turn: Turn) -> dict[str, Any]:
    companions = [each.run_id for each in turn.companions]
    return {
        "turn": "held",
        "run_id": turn.ticket.run_id,
        "date": turn.date,
        "last_date": turn.last_date,
        "companions": companions,
    }


def _asked(ticket: Ticket) -> dict[str, Any]:
    return {"run_id": ticket.run_id, "date": ticket.date, "last_date": ticket.last_date}


def _is(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    names = ("kind", "dag_id", "run_id", "pid", "started", "host")
    return all(one.get(name) == other.get(name) for name in names)


def _has_died(holder: Mapping[str, Any]) -> bool:
    """Whether it is a process of this machine that is no more. Of others it is not known: see `break_turn`."""
    if holder.get("kind") != "process" or holder.get("host") != socket.gethostname():
        return False
    return bool(_started(int(holder["pid"])) != holder["started"])


def _started(pid: int) -> str:
    """Give when a process began, in words of the system's own; empty when there is none. A pid is used again."""
    try:
        # Behind the name, which may hold anything, in brackets: the state, and 19 fields later the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return ""
        said = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return said.stdout.strip()
    return "" if fields[0] == "Z" else fields[19]


@contextlib.contextmanager
def _locked(config: DayConfig) -> Iterator[None]:
    config.queue.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(config.turn.with_name("turn.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _file(config: DayConfig, ticket: Ticket) -> Path:
    words = re.sub(r"[^A-Za-z0-9]+", "-", ticket.ticket_id).strip("-")[:80]
    digest = hashlib.sha256(ticket.ticket_id.encode()).hexdigest()[:8]
    return config.queue / f"{ticket.number:012d}-{words}-{digest}.json"


def _queue(config: DayConfig) -> list[Ticket]:
    """Read the tickets, in their order. A file that is none of ours is passed over."""
    tickets = []
    for file in sorted(config.queue.glob("*.json")) if config.queue.is_dir() else []:
        with contextlib.suppress(OSError, ValueError, RunWrong):
            tickets.append(Ticket.of(json.loads(file.read_text(encoding="utf-8"))))
    return sorted(tickets, key=lambda ticket: ticket.number)


def _write_ticket(config: DayConfig, ticket: Ticket) -> None:
    write_atomically(_file(config, ticket), json.dumps(dataclasses.asdict(ticket), indent=2) + "\n")


def _drop_ticket(config: DayConfig, ticket_id: str) -> None:
    for ticket in _queue(config):
        if ticket.ticket_id == ticket_id:
            _file(config, ticket).unlink(missing_ok=True)


def _write_turn(config: DayConfig, turn: Turn) -> None:
    write_atomically(config.turn, json.dumps(dataclasses.asdict(turn), indent=2) + "\n")


def _read_turn(config: DayConfig) -> Turn | None:
    try:
        content = json.loads(config.turn.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise RunWrong(
            f"{config.turn} is no turn ({error}): no run is writing the warehouse? Then remove it"
        ) from error
    companions = tuple(Ticket.of(each) for each in content.pop("companions"))
    return Turn(Ticket.of(content.pop("ticket")), companions, **content)
