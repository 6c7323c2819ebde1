"""`python -m ingest_service`: the service as a process. argparse, so that the service needs no command-line library."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path

from ingest_service.app import ServiceConfig, serve
from ingest_service.errors import ConfigError, IngestError


def main(arguments: list[str] | None = None) -> int:
    """Run the service; 0 once it was stopped by a signal, 1 when it could not start, 2 for wrong options."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        host, port = _listen(options.listen)
        config = ServiceConfig(
            data=options.data,
            proto=options.proto,
            manifest=options.manifest,
            host=host,
            port=port,
            lake=options.lake,
            store=options.store,
            export_interval_s=options.export_interval,
            allow_open_network=options.allow_open_network,
        )
        serve(config, _ready)
    except IngestError as error:
        print(f"tidemill: {error}", file=sys.stderr)  # noqa: T201 - the command's own message
        return 1
    return 0


def _ready(address: str) -> None:
    # Start-up leaves objects that stay for good: the collector need not look at them again.
    gc.collect()
    gc.freeze()
    print(f"listening on {address}", flush=True)  # noqa: T201 - who started the service reads this line


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen: expected HOST:PORT, such as 127.0.0.1:7433; came {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ingest_service",
        description="Tidemill's ingest service: takes events over gRPC into an append log, keeps live views and lake.",
        epilog="example: python -m ingest_service --data .tidemill --proto proto --listen 127.0.0.1:7433",
    )
    add = parser.add_argument
    data = Path(os.environ.get("TIDEMILL_DATA", ".tidemill"))
    add("--data", type=Path, default=data, metavar="DIR",
        help="data folder, made when missing (TIDEMILL_DATA; default: .tidemill)")  # fmt: skip
    add("--proto", type=Path, default=Path("proto"), metavar="DIR", help="folder of the contracts (default: proto)")
    add("--manifest", type=Path, metavar="FILE",
        help="dbt's manifest.json with the compiled live models (default: no live views)")  # fmt: skip
    add("--listen", default="127.0.0.1:7433", metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: 127.0.0.1:7433)")  # fmt: skip
    add("--lake", metavar="URL", help="the lake's folder or URL (default: lake/ in the data folder)")
    add("--store", metavar="URL",
        help="the live views' database as a SQLAlchemy URL (default: SQLite in the data folder)")  # fmt: skip
    add("--export-interval", type=float, default=30.0, metavar="SECONDS",
        help="how often the lake follows the log by itself; 0: only when asked (default: 30)")  # fmt: skip
    add("--allow-open-network", action="store_true",
        help="listen beyond loopback without TLS and keys: whoever reaches the port may send and read")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
