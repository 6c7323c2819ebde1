"""What the triggerer watches: the watermark, the turn, and late rows. None of it holds a worker.

All three ask `quality` in a thread, so that a slow disk or service holds up nobody else's trigger, and go on asking
when the service is away: it comes back.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

log = logging.getLogger(__name__)

ALIVE = ["queued", "running"]
PATIENCE_MAX = 5
"""Who is further back in the line for the turn asks more seldom, down to one time in so many: each asking costs."""
_FIRED = "fired"


def look_at_watermark(last_date: str, streams: list[str] | None) -> dict[str, Any]:
    """Look once whether dates up to this one are complete.

    Gives complete and waiting (stream → why); `failed` holds the error when asking again cannot help.
    """
    from quality import day
    from quality.config import DayConfig
    from quality.errors import QualityError

    try:
        return dict(day.is_complete(DayConfig.from_environment(), last_date, streams))
    except QualityError as error:
        if error.retryable:
            return {"complete": False, "waiting": {"service": str(error)}}
        return {"complete": False, "waiting": {}, "failed": str(error)}


def ask_turn(ticket: dict[str, Any]) -> dict[str, Any]:
    """Ask once for the turn: see `quality.day.take_turn`. `turn` is "failed" when asking again cannot help."""
    from quality import day
    from quality.config import DayConfig
    from quality.errors import QualityError

    try:
        return dict(day.take_turn(DayConfig.from_environment(), ticket))
    except OSError as error:  # such as a full disk
        log.warning("the turn cannot be asked for now: %s", error)
        return {"turn": "wait", "holder": None}
    except QualityError as error:
        if error.retryable:
            return {"turn": "wait", "holder": None}
        return {"turn": "failed", "error": str(error)}


class WatermarkTrigger(BaseTrigger):
    """Fires when every stream's watermark has passed the end of a date, or the time is over."""

    def __init__(self, last_date: str, streams: list[str] | None, until: str, poll_s: float) -> None:
        """streams: None for all. until: when to give up, in ISO form."""
        super().__init__()
        self.last_date, self.streams, self.until, self.poll_s = last_date, streams, until, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what makes this trigger again elsewhere."""
        kept = {name: getattr(self, name) for name in ("last_date", "streams", "until", "poll_s")}
        return f"{__name__}.WatermarkTrigger", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the date is complete."""
        until = datetime.fromisoformat(self.until)
        told = None
        while True:
            look = await asyncio.to_thread(look_at_watermark, self.last_date, self.streams)
            if look["complete"] or look.get("failed") or datetime.now(UTC) >= until:
                yield TriggerEvent(look)
                return
            if set(look["waiting"]) != told:
                told = set(look["waiting"])
                self.log.info("%s is not complete: %s", self.last_date, look["waiting"])
            await asyncio.sleep(self.poll_s)


class TurnTrigger(BaseTrigger):
    """Fires when a ticket has the turn, or when another run has published its dates along with its own.

    Whoever holds the turn, or stands in front, in an Airflow run that is no longer running loses it: a worker that was
    killed cannot give it back.
    """

    def __init__(self, ticket: dict[str, Any], poll_s: float) -> None:
        """ticket: see `quality.turn`."""
        super().__init__()
        self.ticket, self.poll_s = ticket, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what makes this trigger again elsewhere."""
        return f"{__name__}.TurnTrigger", {"ticket": self.ticket, "poll_s": self.poll_s}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Ask until the turn comes."""
        while True:
            answer = await asyncio.to_thread(ask_turn, self.ticket)
            if answer["turn"] != "wait":
                yield TriggerEvent(answer)
                return
            if not await self._break_if_gone(answer.get("holder")):
                await asyncio.sleep(self.poll_s * min(1 + answer.get("place", 0), PATIENCE_MAX))

    async def on_kill(self) -> None:
        """Leave the queue: the task was marked, or cleared (then it asks anew)."""
        await asyncio.to_thread(_leave, self.ticket["ticket_id"])

    async def _break_if_gone(self, holder: dict[str, Any] | None) -> bool:
        """Take the turn from a holder whose run has ended; whether it was so."""
        if not holder or holder.get("kind") != "airflow":
            return False
        if await is_alive(holder["dag_id"], holder["run_id"]):
            return False
        self.log.warning("%s of %s is not running: it loses its turn", holder["run_id"], holder["dag_id"])
        await asyncio.to_thread(_break, holder)
        return True


class LateRowsTrigger(BaseEventTrigger):
    """Fires when sealed dates have rows that came after their publication, and nothing more has come for a while.

    It fires again only for more than it fired for: a reprocessing that failed is not started over and over. What it
    fired for is kept with the asset, over restarts of the triggerer. The event's payload is stream → date → rows.
    """

    def __init__(self, quiet_s: float = 30.0, bundle_s: float = 600.0, poll_s: float = 5.0) -> None:
        """quiet_s: how long nothing more must have come. bundle_s: a trickle that never ends is cut after so long."""
        super().__init__()
        self.quiet_s, self.bundle_s, self.poll_s = quiet_s, bundle_s, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what makes this trigger again elsewhere."""
        kept = {name: getattr(self, name) for name in ("quiet_s", "bundle_s", "poll_s")}
        return f"{__name__}.LateRowsTrigger", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the ledger, for ever."""
        bundle = Bundle(self.quiet_s, self.bundle_s, await _load_fired(self.asset_state_store))
        while True:
            pending = await asyncio.to_thread(_pending)
            if pending is not None:
                if bundle.is_due(pending, asyncio.get_running_loop().time()):
                    self.log.info("late rows: %s", json.dumps(pending, sort_keys=True))
                    yield TriggerEvent(pending)
                if bundle.changed:
                    await _save_fired(self.asset_state_store, bundle.fired)
                    bundle.changed = False
            await asyncio.sleep(self.poll_s)


class Bundle:
    """Decides when late rows are reprocessed. Times in seconds of any clock that only goes forward.

    `fired` is what was last fired for; it forgets dates that are no longer pending. `changed` tells that it has to be
    kept.
    """

    def __init__(self, quiet_s: float, bundle_s: float, fired: dict[str, dict[str, int]] | None = None) -> None:
        """Begin with what was fired for before."""
        self.fired: dict[str, dict[str, int]] = fired or {}
        self.changed = False
        self._quiet_s, self._bundle_s = quiet_s, bundle_s
        self._last: dict[str, dict[str, int]] | None = None
        self._first_s = self._changed_s = 0.0

    def is_due(self, pending: dict[str, dict[str, int]], now_s: float) -> bool:
        """Whether to fire for what is pending now."""
        kept = {
            stream: {date: rows for date, rows in dates.items() if date in pending.get(stream, {})}
            for stream, dates in self.fired.items()
        }
        kept = {stream: dates for stream, dates in kept.items() if dates}
        if kept != self.fired:
            self.fired, self.changed = kept, True
        if not self._has_grown(pending):
            self._last = None
            return False
        if self._last is None:
            self._first_s = now_s
        if pending != self._last:
            self._last, self._changed_s = pending, now_s
        if now_s - self._changed_s < self._quiet_s and now_s - self._first_s < self._bundle_s:
            return False
        self.fired, self.changed, self._last = pending, True, None
        return True

    def _has_grown(self, pending: dict[str, dict[str, int]]) -> bool:
        return any(
            rows > self.fired.get(stream, {}).get(date, 0)
            for stream, dates in pending.items()
            for date, rows in dates.items()
        )


async def is_alive(dag_id: str, run_id: str) -> bool:
    """Whether an Airflow run is queued or running; one that was deleted is not."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from asgiref.sync import sync_to_async

    count = await sync_to_async(RuntimeTaskInstance.get_dr_count)(dag_id=dag_id, run_ids=[run_id], states=ALIVE)
    return bool(count)


def _pending() -> dict[str, dict[str, int]] | None:
    """Ask the ledger; None when it cannot be asked now: the service is away, or somebody writes to the warehouse."""
    import duckdb

    from quality import late
    from quality.config import DayConfig
    from quality.errors import QualityError

    try:
        pending = late.pending(DayConfig.from_environment())
    except QualityError:
        return None
    except (duckdb.Error, OSError) as error:
        log.warning("late rows cannot be looked for now: %s", error)
        return None
    return {
        stream: {str(date): int(rows) for date, rows in dates.items()} for stream, dates in pending.items() if dates
    }


def _break(holder: dict[str, Any]) -> None:
    from quality import turn
    from quality.config import DayConfig

    turn.break_turn(DayConfig.from_environment(), holder)


def _leave(ticket_id: str) -> None:
    from quality import day
    from quality.config import DayConfig

    day.give_turn(DayConfig.from_environment(), ticket_id, failed=True)


async def _load_fired(store: AssetStateStoreAccessors | None) -> dict[str, dict[str, int]]:
    kept = await store.aget(_FIRED) if store is not None else None
    return kept if isinstance(kept, dict) else {}


async def _save_fired(store: AssetStateStoreAccessors | None, fired: dict[str, dict[str, int]]) -> None:
    if store is not None:
        await store.aset(_FIRED, fired)
