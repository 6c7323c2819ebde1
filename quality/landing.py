"""Imports files from the landing folder, each once by its content, through `Append` like everything else.

`look` lists what lies ready, `take` imports one file:

    1. copy it into the data folder, hashing it; it has not changed meanwhile
    2. it is whole, of a known format, and all of it fits the contract: nothing of a bad file is sent
    3. the ledger says that it is being sent, as which producer
    4. send it in numbered parts, the number being the sequence; the ledger follows
    5. the ledger says that it was sent, and what became of it
    6. move it to `done`

Killed at any moment, the next `take` goes on: before 3 from the start, in 4 at the first part that the service does not
have, after 5 with the move. A bad file is moved to `failed`, with the reason beside it.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import shutil
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quality.config import DayConfig
from quality.errors import ConfigWrong, LandingFailed, QualityError
from quality.landing_content import PARQUET_ENDINGS, PARQUET_MAGIC, BadFile, cut_short, read_through
from quality.landing_folder import DONE, FAILED, REASON_ENDING, SETTINGS, LandedFile, LandingFolder
from quality.landing_ledger import SENDING, SENT, Entry, Ledger
from quality.landing_sending import Sending
from quality.service import connected

if TYPE_CHECKING:
    from tidemill import Client
    from tidemill.input import InputFile

SETTLE_S = 5.0
"""A file is ready when it was the same in two looks that are so far apart, s."""
HALF_WRITTEN_S = 600.0
"""A file that is cut short is being written still, until it has been the same for so long, s."""
FILES_MAX = 500
"""How many files a look gives at the most, those that have lain there longest: each becomes a task."""
DATES_MAX = 1_000
"""How many dates a result lists, those with the most rows."""

_OWN = {"airflow", "alerts", "contracts", "docs", "lake", "landing", "live", "log", "logs", "runs", "warehouse"}
"""The data folder's own folders, as docs/operate.md lists them."""

_log = logging.getLogger(__name__)
Clock = Callable[[], float]


def look(config: DayConfig, folder: LandingFolder | None = None, clock: Clock = time.time) -> list[dict[str, Any]]:
    """List the files that lie ready, for `take`: those that are as they were at an earlier look, and whole.

    folder: TIDEMILL_LANDING's unless given. Raises ConfigWrong when it cannot be opened or read, or is the data
    folder's own; LandingFailed when a store does not answer.
    """
    landing, ledger, now = folder or landing_folder(), Ledger(config), clock()
    _check_apart(config, landing)
    before, seen, ready = ledger.looks(), {}, []
    try:
        for stream in ["", *landing.streams()]:
            for name, size_bytes, modified_ns in landing.waiting(stream):
                file = LandedFile(stream, name, size_bytes, modified_ns, now)
                if ledger.is_put_aside(file.path, size_bytes, modified_ns):
                    continue
                if isinstance(known := before.get(file.path), dict) and known == {
                    **file.to_json(), "seen_at": known.get("seen_at")
                }:  # fmt: skip
                    file = LandedFile.parse(known)
                seen[file.path] = file.to_json()
                if now - file.seen_at >= SETTLE_S and not _is_being_written(landing, file, now):
                    ready.append(file.to_json())
    except OSError as error:
        text = f"TIDEMILL_LANDING: {landing.url} cannot be read: {error}"
        if landing.local is None:
            raise LandingFailed(text, retryable=True) from error
        raise ConfigWrong(text) from error
    ledger.keep_looks(seen)
    return sorted(ready, key=lambda file: (file["modified_ns"], file["stream"], file["name"]))[:FILES_MAX]


def take(
    config: DayConfig, file: dict[str, Any], folder: LandingFolder | None = None, clock: Clock = time.time
) -> dict[str, Any]:
    """Import one file that `look` gave; give what became of it.

    The result's `state` is "sent", "duplicate" (its content was imported before), "waiting" (it is being written, or
    another process has it) or "gone". Raises LandingFailed for a file that was set aside, or cannot be for its
    `import.yml`, and ServiceFailed when the service does not answer: taken again, it goes on.
    """
    return _Taking(config, LandedFile.parse(file), folder or landing_folder(), clock).run()


def landing_folder() -> LandingFolder:
    """The folder or URL that TIDEMILL_LANDING names; raises ConfigWrong."""
    url = os.environ.get("TIDEMILL_LANDING", "")
    if not url:
        raise ConfigWrong("expected a folder or an s3:// URL in TIDEMILL_LANDING; it is not set")
    return LandingFolder.open(url)


def _check_apart(config: DayConfig, landing: LandingFolder) -> None:
    """Raise ConfigWrong where the data folder's own files would be taken for landed ones, and moved."""
    if landing.local is None:
        return
    place, data = Path(os.path.realpath(landing.local)), Path(os.path.realpath(config.data))
    own = place.is_relative_to(data) and place != data and place.relative_to(data).parts[0] in _OWN
    if own or data.is_relative_to(place):
        raise ConfigWrong(
            f"TIDEMILL_LANDING: expected a folder of its own, came {landing.url}, where the data folder has its own "
            f"files ({config.data}). Make another one, such as {config.data / 'incoming'}"
        )


@dataclass(frozen=True)
class _Settings:
    """A stream's `import.yml`. mapping: as `--map` takes it; timezone: of times without one."""

    mapping: list[str]
    timezone: str | None


class _Taking:
    """The import of one file."""

    def __init__(self, config: DayConfig, file: LandedFile, landing: LandingFolder, clock: Clock) -> None:
        self._config, self._file, self._landing, self._clock = config, file, landing, clock
        self._ledger = Ledger(config)
        self._content = ""

    def run(self) -> dict[str, Any]:
        file, work = self._file, self._ledger.work / uuid.uuid4().hex
        try:
            try:
                self._check_place()
                if not self._copy(work / file.name):  # 1
                    return self._answer("waiting" if self._landing.exists(file.path) else "gone")
                return self._take(work / file.name)
            except BadFile as bad:
                raise self._set_aside(str(bad), bad.rows_sent) from None
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _check_place(self) -> None:
        file = self._file
        if not self._landing.is_inside(file.path):
            raise BadFile("expected a file in the landing folder, came a link to one elsewhere")
        if not file.stream:
            raise BadFile("expected the file in the folder of its stream, such as order_lines/; came one beside them")

    def _copy(self, target: Path) -> bool:
        """Copy the file; False when it is not as it was seen, or gone."""
        try:
            self._content = self._landing.copy(self._file.path, target)
            return self._landing.is_as(self._file)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise LandingFailed(
                f"{self._file.path} cannot be copied from {self._landing.url}: {error}",
                **self._named(),
                retryable=self._landing.local is None,
            ) from error

    def _take(self, path: Path) -> dict[str, Any]:
        stream = self._file.stream
        if problem := cut_short(path):  # 2
            if self._clock() - self._file.seen_at < HALF_WRITTEN_S:
                return self._answer("waiting", why=problem)
            raise BadFile(f"{problem}, and it has not changed for {HALF_WRITTEN_S / 60:g} minutes")
        with self._ledger.holding(stream, self._content) as alone:
            if not alone:
                return self._answer("waiting", why="another process is importing it")
            entry = self._ledger.entry(stream, self._content)
            if entry is None or entry.state != SENT:
                entry = self._send(path, entry)
            elif entry.name != self._file.name or entry.moved_to:
                moved = self._put_away(DONE, f"imported before, as {entry.name}")
                return self._answer("duplicate", imported_as=entry.name, moved_to=moved, imported=entry.result)
            entry.moved_to = self._put_away(DONE, "imported")  # 6
            self._keep(entry)
            return {**entry.result, "moved_to": entry.moved_to}

    def _send(self, path: Path, entry: Entry | None) -> Entry:
        from tidemill.input import PART_OPTIONS, file_identity

        stream = self._file.stream
        settings = _Settings(entry.mapping, entry.timezone) if entry else self._settings()
        started_s = time.monotonic()
        with connected(self._config, PART_OPTIONS) as tm:
            source = self._source(tm, path, settings)
            with self._own_words(path):
                rows, dates = read_through(source, tm.stream(stream).contract.event_time)
            if entry is None:
                producer_id = file_identity(path, stream, source.mapping, settings.timezone)
                entry = Entry(SENDING, self._file.name, producer_id, settings.mapping, settings.timezone, self._clock())
            sending = Sending(tm, stream, source, entry, path, self._keep)
            sending.run(self._clock())  # 3, 4
        entry.state = SENT
        entry.result = self._answer(
            "sent",
            sha256=self._content,
            rows=rows,
            **entry.counts,
            rows_of_earlier_starts=sending.uncounted,
            first_date=min(dates, default=None),
            last_date=max(dates, default=None),
            dates=_most(dates),
            seconds=round(time.monotonic() - started_s, 3),
            notes=source.report.notes(),
        )
        self._keep(entry)  # 5
        return entry

    def _keep(self, entry: Entry) -> None:
        self._ledger.keep(self._file.stream, self._content, entry)

    def _source(self, tm: Client, path: Path, settings: _Settings) -> InputFile:
        from tidemill.errors import InputError, NotFound
        from tidemill.input import ColumnMap, InputFile

        try:
            columns = ColumnMap.parse(settings.mapping)
        except InputError as error:
            raise self._settings_wrong(str(error)) from None
        try:
            stream = tm.stream(self._file.stream)
        except NotFound as error:
            raise BadFile(str(error)) from None
        with self._own_words(path):
            return InputFile(path, stream.schema, stream.contract.required, columns, settings.timezone)

    @contextmanager
    def _own_words(self, path: Path) -> Iterator[None]:
        """What is wrong with the copy is wrong with the file, and is said of it."""
        from tidemill.errors import BadTable, InputError

        try:
            yield
        except (InputError, BadTable) as error:
            said = str(error).replace(str(path), self._file.name)
            for option, key in (("--map ", "map: "), ("--timezone ", "timezone: ")):
                said = said.replace(option, f"in {SETTINGS}, {key}")
            raise BadFile(said) from None

    def _settings(self) -> _Settings:
        import yaml

        where = f"{self._file.stream}/{SETTINGS}"
        if not self._landing.is_inside(where):
            raise self._settings_wrong("it is a link out of the landing folder")
        try:
            text = self._landing.read_text(where)
            content = {} if text is None else yaml.safe_load(text) or {}
            if not isinstance(content, dict) or not set(content) <= {"map", "timezone"}:
                raise ValueError("expected the keys map and timezone alone")
            entries, timezone = content.get("map") or [], content.get("timezone")
            if isinstance(entries, dict):
                # Nothing nested is written out: a few lines of YAML can stand for gigabytes of it.
                entries = [
                    f"{name}={source}" if isinstance(source, str | int | float) else source
                    for name, source in entries.items()
                ]
            plain = isinstance(entries, list) and all(isinstance(entry, str) for entry in entries)
            if not plain or (timezone is not None and type(timezone) is not str):
                raise ValueError("expected under map FIELD: SOURCE, and a name such as Europe/London as timezone")
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise self._settings_wrong(str(error)) from error
        return _Settings([str(entry) for entry in entries], timezone)

    def _settings_wrong(self, problem: str) -> LandingFailed:
        """The file is not to blame: it stays."""
        return LandingFailed(
            f"{self._file.stream}/{SETTINGS}: {problem}. Correct it; {self._file.name} stays where it is until then",
            **self._named(),
        )

    def _put_away(self, folder: str, why: str) -> str:
        """Move the file; where nothing may be moved it stays, and is known as done with. Where it is now."""
        file = self._file
        try:
            return self._landing.put_away(file, folder, self._content or uuid.uuid4().hex)
        except FileNotFoundError:
            return ""  # somebody was faster
        except OSError as error:
            note = self._ledger.put_aside(file.path, file.size_bytes, file.modified_ns, why)
            _log.warning("%s stays where it is, %s says that it is done with: %s", file.path, note, error)
            return file.path

    def _set_aside(self, reason: str, rows_sent: int) -> LandingFailed:
        file, at = self._file, dt.datetime.fromtimestamp(self._clock(), dt.UTC)
        moved = self._put_away(FAILED, reason)
        sent = f"{rows_sent:,} rows of it had been sent before." if rows_sent else "No row of it was sent."
        text = (
            f"{file.path} was not imported ({at:%Y-%m-%d %H:%M:%S} UTC):\n\n{reason}\n\n{sent}\n"
            f"Correct it and move it back to {file.stream or '<stream>'}/; it is tried again then.\n"
        )
        if moved and moved != file.path:
            try:
                self._landing.write_text(moved + REASON_ENDING, text)
            except OSError as error:
                _log.warning("the reason cannot be written beside %s: %s", moved, error)
        return LandingFailed(
            f"{file.path} was not imported: {reason}. {sent} It is in {moved} now",
            **self._named(), reason=reason, moved_to=moved, rows_sent=rows_sent,
        )  # fmt: skip

    def _named(self) -> dict[str, Any]:
        return {"stream": self._file.stream, "file": self._file.name}

    def _answer(self, state: str, **more: Any) -> dict[str, Any]:
        return {"state": state, "stream": self._file.stream, "file": self._file.name, **more}


def _most(dates: dict[str, int]) -> dict[str, int]:
    return dict(sorted(Counter(dates).most_common(DATES_MAX)))


def _is_being_written(landing: LandingFolder, file: LandedFile, now: float) -> bool:
    """Whether a Parquet file's end is missing yet; that of a compressed file shows only when it is read."""
    if not file.name.lower().endswith(PARQUET_ENDINGS) or now - file.seen_at >= HALF_WRITTEN_S:
        return False
    try:
        return landing.is_inside(file.path) and landing.read_end(file.path, 4) != PARQUET_MAGIC
    except FileNotFoundError:
        return True  # gone since it was listed
    except OSError:
        return False  # `take` says what is wrong with it, and the others go on


def main() -> int:
    """`python -m quality.landing`: import what lies in TIDEMILL_LANDING; one JSON object a file. 1 when any failed."""
    try:
        config, folder = DayConfig.from_environment(), landing_folder()
        look(config, folder)
        if any(folder.waiting(stream) for stream in ["", *folder.streams()]):
            # What is written to now is not as it was after this.
            time.sleep(SETTLE_S)
        files = look(config, folder)
    except QualityError as error:
        print(f"tidemill: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return 2
    failed = False
    for file in files:
        try:
            result = take(config, file, folder)
        except QualityError as error:
            result = {"state": "failed", "stream": file["stream"], "file": file["name"], "error": str(error)}
            failed = True
        print(json.dumps(result), flush=True)  # noqa: T201 - the command's output
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
