"""`python -m ingest_service.data`: the tools for a data folder, as `tidemill data` starts them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ingest_service.data.folder import DataFolder
from ingest_service.errors import IngestError

# What reads the parts is imported by the tool that needs it: a wrong folder is said at once.

_REDRAW_S = 0.2


def main(arguments: list[str] | None = None) -> int:
    """Run one tool: 0 when all is well, 1 for damage or a failure, 2 for wrong use, 130 stopped by Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = options.run
        return run(options)
    except (IngestError, OSError) as error:
        print(f"tidemill: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return 1
    except KeyboardInterrupt:
        return 130


def _verify(options: argparse.Namespace) -> int:
    folder = DataFolder.existing(options.data, options.lake)
    from ingest_service.data.shown import verify_lines
    from ingest_service.data.verify import verify

    began = time.monotonic()
    with _Bar() as bar:
        report = verify(folder, bar.show)
    _print(options, {"ok": report.ok, **dataclasses.asdict(report)}, verify_lines(report, time.monotonic() - began))
    return 0 if report.ok else 1


def _usage(options: argparse.Namespace) -> int:
    folder = DataFolder.existing(options.data)
    from ingest_service.data.shown import usage_lines
    from ingest_service.data.usage import usage

    measured = usage(folder)
    _print(options, dataclasses.asdict(measured), usage_lines(measured))
    return 0


def _backup(options: argparse.Namespace) -> int:
    folder = DataFolder.existing(options.data)
    from ingest_service.data.backup import backup
    from ingest_service.data.shown import backup_lines

    made = backup(folder, options.destination)
    _print(options, dataclasses.asdict(made), backup_lines(made))
    return 0


def _restore(options: argparse.Namespace) -> int:
    from ingest_service.data.restore import restore
    from ingest_service.data.shown import restore_lines

    restored = restore(options.source, options.data, force=options.force)
    _print(options, dataclasses.asdict(restored), restore_lines(restored))
    return 0


def _print(options: argparse.Namespace, values: dict[str, object], lines: list[str]) -> None:
    print(json.dumps(values) if options.json else "\n".join(lines), flush=True)  # noqa: T201 - the command's output


class _Bar:
    """How far it is, on a terminal's last line; nothing where nobody looks."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._drawn_at = 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201 - takes the bar away

    def show(self, done: int, total: int) -> None:
        """Draw it, if it is time to."""
        now = time.monotonic()
        if not self._wanted or now - self._drawn_at < _REDRAW_S:
            return
        self._drawn_at = now
        share = done / total if total else 1.0
        bar = ("█" * int(30 * share)).ljust(30, "░")
        print(f"\r\x1b[K{bar} {share:4.0%}", end="", file=sys.stderr, flush=True)  # noqa: T201 - the bar


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ingest_service.data", description="Looks after a data folder.")
    tools = parser.add_subparsers(required=True, metavar="TOOL")

    def tool(name: str, run: Callable[[argparse.Namespace], int], what: str) -> argparse.ArgumentParser:
        added = tools.add_parser(name, help=what, description=what)
        default = Path(os.environ.get("TIDEMILL_DATA", ".tidemill"))
        added.add_argument("--data", type=Path, default=default, metavar="DIR", help="the data folder")
        added.add_argument("--json", action="store_true", help="print one JSON object")
        added.set_defaults(run=run)
        return added

    verifier = tool("verify", _verify, "Read everything back: checksums, offsets, counts.")
    verifier.add_argument("--lake", metavar="URL", help="the lake's folder or URL, when the service has one")
    tool("usage", _usage, "What takes room, what grows, how long the disk lasts.")
    maker = tool("backup", _backup, "Copy the data folder while the service runs.")
    maker.add_argument("destination", type=Path, metavar="DEST")
    restorer = tool("restore", _restore, "Make a data folder out of a backup.")
    restorer.add_argument("source", type=Path, metavar="SRC")
    restorer.add_argument("--force", action="store_true", help="move aside what is in the data folder's place")
    return parser


if __name__ == "__main__":
    sys.exit(main())
