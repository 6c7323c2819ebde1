"""`python -m ingest_service`: the service as a process. argparse, so that the service needs no command-line library."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path

from ingest_service.access import TlsFiles
from ingest_service.app import ServiceConfig, serve
from ingest_service.errors import ConfigError, IngestError
from ingest_service.log_options import add_log_options, log_settings
from ingest_service.logs import LogFormat, LogLevel, set_up_logs
from ingest_service.web import HttpListen


def main(arguments: list[str] | None = None) -> int:
    """Run the service; 0 once it was stopped by a signal, 1 when it could not start, 2 for wrong options."""
    options = _parser().parse_args(arguments)
    set_up_logs(sys.stderr, LogFormat(options.log_format), LogLevel(options.log_level))
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
            tls=_tls(options),
            allow_open_network=options.allow_open_network,
            http=_http(options.http_listen, port),
            log=log_settings(options),
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


def _listen(text: str, option: str = "--listen") -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{option}: expected HOST:PORT, such as 127.0.0.1:7433; came {text!r}")
    return host.strip("[]") or "127.0.0.1", int(port)


def _http(text: str | None, grpc_port: int) -> HttpListen | None:
    """Where HTTP listens. Nobody asked for the default address: should it be taken, the service starts without it."""
    if text is None:
        return HttpListen("127.0.0.1", grpc_port + 1 if 0 < grpc_port < 65535 else 0, required=False)
    return None if text == "none" else HttpListen(*_listen(text, "--http-listen"))


def _tls(options: argparse.Namespace) -> TlsFiles | None:
    if options.tls_cert is None and options.tls_key is None and options.tls_client_ca is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise ConfigError("TLS needs both --tls-cert and --tls-key; --tls-client-ca comes on top of them")
    return TlsFiles(options.tls_cert, options.tls_key, options.tls_client_ca)


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
        help="dbt's manifest.json with the compiled live models, taken once and whenever it has changed "
        "(default: those that were applied last)")  # fmt: skip
    add("--listen", default="127.0.0.1:7433", metavar="HOST:PORT",
        help="where to listen; port 0 takes a free one (default: 127.0.0.1:7433)")  # fmt: skip
    add("--lake", metavar="URL", help="the lake's folder or URL (default: lake/ in the data folder)")
    add("--store", metavar="URL",
        help="the live views' database as a SQLAlchemy URL (default: SQLite in the data folder)")  # fmt: skip
    add("--export-interval", type=float, default=30.0, metavar="SECONDS",
        help="how often the lake follows the log by itself; 0: only when asked (default: 30)")  # fmt: skip
    add("--http-listen", metavar="HOST:PORT",
        help="/metrics, /healthz and /readyz; none: nowhere (default: 127.0.0.1, a port above --listen)")  # fmt: skip
    add(
        "--tls-cert", type=Path, metavar="FILE", help="certificate chain of the service (PEM); TLS needs it and its key"
    )
    add("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--tls-client-ca", type=Path, metavar="FILE",
        help="authorities (PEM) of which every client must have a certificate (mTLS)")  # fmt: skip
    add("--allow-open-network", action="store_true",
        help="listen beyond loopback without TLS or keys too: whoever reaches the port may send and read")  # fmt: skip
    add("--log-format", choices=[each.value for each in LogFormat], default=LogFormat.TEXT.value,
        help="text: key=value; json: one object a line (default: text)")  # fmt: skip
    add("--log-level", choices=[each.value for each in LogLevel], default=LogLevel.INFO.value,
        help="the least that is logged (default: info)")  # fmt: skip
    add_log_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
