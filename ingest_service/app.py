"""The only place that wires the service's parts together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ingest_service.clock import Clock, SystemClock
from ingest_service.contracts import Intake, load_contracts
from ingest_service.data.folder import lock_folder
from ingest_service.errors import ConfigError
from ingest_service.lake import LakeExporter
from ingest_service.live import LiveViews
from ingest_service.log import PARTITION, Log, LogSettings
from ingest_service.rpc.append import AppendServicer
from ingest_service.rpc.parts import StreamParts, Streams
from ingest_service.rpc.server import Server
from ingest_service.rpc.streams import StreamServicer
from ingest_service.rpc.views import ViewServicer

_DECODE_THREADS = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What the service is started with.

    data: the data folder; made when missing. proto: the folder of the contracts; must exist.
    manifest: dbt's manifest of the live models; None: no live views. host, port: where it listens; port 0 takes a
    free one. lake: the lake's folder or URL; None: below `data`. store: the live views' database as a SQLAlchemy
    URL; None: SQLite below `data`. export_interval_s: how often the lake follows the log by itself, in seconds; 0:
    only when asked. allow_open_network: listen beyond loopback although nobody is asked who they are.
    """

    data: Path
    proto: Path
    manifest: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7433
    lake: str | None = None
    store: str | None = None
    export_interval_s: float = 30.0
    allow_open_network: bool = False
    log: LogSettings = field(default_factory=LogSettings)

    def check(self) -> None:
        """Check what can be checked before anything is opened.

        Raises:
            ConfigError: an option is wrong; the text says which and what to do.
        """
        if not self.proto.is_dir():
            raise ConfigError(f"--proto: expected a folder of .proto files, {self.proto} is none")
        if self.manifest is not None and not self.manifest.is_file():
            raise ConfigError(
                f"--manifest: there is no file {self.manifest}. `dbt compile` writes it (target/manifest.json), and "
                "`tidemill up` does so by itself; leave the option out to run without live views"
            )
        if self.export_interval_s < 0:
            raise ConfigError(f"--export-interval: expected seconds, 0 or more; came {self.export_interval_s}")
        if not _is_loopback(self.host) and not self.allow_open_network:
            raise ConfigError(
                f"--listen: {self.host} is reachable from other machines, and this release has neither TLS nor keys. "
                "Listen on 127.0.0.1, or say --allow-open-network where the network itself is closed"
            )

    def lake_uri(self, stream: str) -> str:
        """Where a stream's lake table is; absolute, because clients are told it."""
        return f"{self.lake.rstrip('/')}/{stream}" if self.lake else str(self.data.absolute() / "lake" / stream)

    def store_url(self) -> str:
        """Where the live views' tables are."""
        return self.store or f"sqlite:///{self.data.absolute() / 'live' / 'live.sqlite'}"


class Service:
    """All parts of one service, opened together and closed together."""

    def __init__(self, config: ServiceConfig, clock: Clock | None = None) -> None:
        config.check()
        self._config = config
        self._clock = clock or SystemClock()
        self._closing = contextlib.ExitStack()
        try:
            self._open()
        except BaseException:
            self._closing.close()
            raise

    def _open(self) -> None:
        config = self._config
        self._closing.enter_context(lock_folder(config.data))
        loaded = load_contracts(config.proto)
        for problem in loaded.problems:
            log.error("contract refused, its stream does not start: %s", problem)
        if not loaded.contracts:
            raise ConfigError(f"--proto: no contract in {config.proto}: no stream could be served")
        parts: dict[str, StreamParts] = {}
        for name, contract in loaded.contracts.items():
            stream_log = Log.open(
                config.data / "log" / name / str(PARTITION), contract.log_spec(), clock=self._clock, settings=config.log
            )
            self._closing.callback(stream_log.close)
            lake = LakeExporter(stream_log, name, config.lake_uri(name))
            lake.ensure()
            if config.export_interval_s:
                lake.start(config.export_interval_s)
            self._closing.callback(lake.stop)
            parts[name] = StreamParts(contract, Intake(contract), stream_log, lake)
            log.info("stream %s: %d rows, message %s", name, stream_log.durable_offset, contract.message_type)
        self._streams = Streams(parts)
        logs = {name: each.log for name, each in parts.items()}
        self._views = LiveViews.open(config.manifest, config.store_url(), logs, clock=self._clock)
        self._closing.callback(self._views.close)

    async def run(self, ready: Callable[[str], None]) -> None:
        """Serve until SIGINT or SIGTERM; `ready` gets the address once calls are answered."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopping.set)
        with ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode") as executor:
            server = Server(
                AppendServicer(self._streams, self._clock, executor),
                StreamServicer(self._streams),
                ViewServicer(self._views),
            )
            port = await server.start(self._config.host, self._config.port)
            ready(f"{self._config.host}:{port}")
            await stopping.wait()
            log.info("stopping: new calls are refused, running ones may end")
            await server.stop()

    def close(self) -> None:
        """Stop the views, the exporters and the logs, in this order. Idempotent."""
        self._closing.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def serve(config: ServiceConfig, ready: Callable[[str], None]) -> None:
    """Open the service, serve until a signal comes, and close it.

    Raises:
        IngestError: it could not be started; the text says why and what to do.
    """
    service = Service(config)
    try:
        asyncio.run(service.run(ready))
    finally:
        service.close()
