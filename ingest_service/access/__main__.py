"""`python -m ingest_service.access`: makes, lists and revokes the API keys of a data folder; behind `tidemill key`."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
from pathlib import Path

from ingest_service.access.key import ALL_STREAMS, ApiKey, Right, new_key
from ingest_service.access.key_file import KeyFile
from ingest_service.clock import SystemClock
from ingest_service.errors import ConfigError, IngestError

_UNITS = {"h": "hours", "d": "days"}


def main(arguments: list[str] | None = None) -> int:
    """Do one of create, list and revoke; 0 done, 1 failed (one line on stderr says why), 2 wrong options."""
    options = _parser().parse_args(arguments)
    now = dt.datetime.fromtimestamp(SystemClock().now_us() // 1_000_000, dt.UTC)
    try:
        {"create": _create, "list": _list, "revoke": _revoke}[options.command](options, KeyFile(options.data), now)
    except IngestError as error:
        print(f"tidemill: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return 1
    return 0


def _create(options: argparse.Namespace, file: KeyFile, now: dt.datetime) -> None:
    if not options.data.is_dir():
        raise ConfigError(f"--data: there is no folder {options.data}; name the data folder of the service")
    expires_at = now + _duration(options.expires) if options.expires else None
    rights = frozenset(Right(each) for each in options.allow)
    key, text = new_key(options.name, frozenset(options.stream), rights, now, expires_at)
    first = not file.exists()
    with file.changing() as keys:
        if any(each.name == key.name for each in keys):
            raise ConfigError(
                f"there is a key named {key.name!r}: one client, one key. Take another name, or revoke that one first"
            )
        keys.append(key)
    if options.json:
        _say(json.dumps({**_shown(key, now), "key": text}))
        return
    _say(text)
    _note(f"{_line(key, now)}\nThe key is shown this once and kept nowhere: give it to {key.name} alone.")
    if first:
        _note("It is the first key of this folder: a service that runs asks for keys from its next start on.")


def _list(options: argparse.Namespace, file: KeyFile, now: dt.datetime) -> None:
    keys = file.read()
    for key in keys:
        _say(json.dumps(_shown(key, now)) if options.json else _line(key, now))
    if not keys and not options.json:
        everyone = "nobody gets in" if file.exists() else "the service asks nobody who they are"
        _note(f"no keys in {options.data}: {everyone}")


def _revoke(options: argparse.Namespace, file: KeyFile, now: dt.datetime) -> None:
    with file.changing() as keys:
        found = [key for key in keys if options.key in {key.id, key.name}]
        if not found:
            known = ", ".join(f"{key.name} ({key.id})" for key in keys) or "none"
            raise ConfigError(f"there is no key {options.key!r}; the keys are: {known}")
        for key in found:
            keys.remove(key)
    for key in found:
        _say(json.dumps(_shown(key, now)) if options.json else f"revoked: {_line(key, now)}")


def _shown(key: ApiKey, now: dt.datetime) -> dict[str, object]:
    """A key as it may be shown: without its hash."""
    shown = key.to_json()
    del shown["sha256"]
    return {**shown, "expired": key.has_expired(now)}


def _line(key: ApiKey, now: dt.datetime) -> str:
    state = "" if key.expires_at is None else f"  {'expired' if key.has_expired(now) else 'until'} {key.expires_at}"
    streams = ",".join(sorted(key.streams))
    return f"{key.id}  {key.name}  {','.join(sorted(key.rights))} on {streams}  since {key.created_at}{state}"


def _duration(text: str) -> dt.timedelta:
    match = re.fullmatch(r"(\d{1,5})([hd])", text)
    if match is None:
        raise ConfigError(f"--expires: expected hours or days, such as 12h or 90d; came {text!r}")
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's output


def _note(line: str) -> None:
    # Beside the output, so that `tidemill key create … > file` writes nothing but the key.
    print(line, file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingest_service.access", description="API keys of a data folder.")
    commands = parser.add_subparsers(dest="command", required=True)
    create, listing, revoke = (commands.add_parser(name) for name in ("create", "list", "revoke"))
    for each in (create, listing, revoke):
        each.add_argument("--data", type=Path, required=True, metavar="DIR")
        each.add_argument("--json", action="store_true")
    create.add_argument("name")
    create.add_argument("--stream", action="append", required=True, help=f"a stream's name, or {ALL_STREAMS}")
    create.add_argument("--allow", action="append", required=True, choices=[right.value for right in Right])
    create.add_argument("--expires")
    revoke.add_argument("key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
