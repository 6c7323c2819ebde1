"""The only place that wires the service's parts together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ingest_service.access import KeyFile, Keyring, TlsFiles, check_reach, is_loopback
from ingest_service.clock import Clock, SystemClock
from ingest_service.contracts import Contract, ContractStore, load_contracts, standings
from ingest_service.data.folder import HOLD_NAME, DataFolder, lock_folder
from ingest_service.errors import ConfigError, ContractError
from ingest_service.lake import LakeExporter, WholeLog
from ingest_service.live import LiveViews
from ingest_service.log import PARTITION, Log, LogSettings, Retention, RetentionHold
from ingest_service.rpc.append import AppendServicer
from ingest_service.rpc.auth import Guard
from ingest_service.rpc.parts import StreamParts, Streams
from ingest_service.rpc.read import ReadServicer
from ingest_service.rpc.server import Server
from ingest_service.rpc.streams import StreamServicer
from ingest_service.rpc.view_manifest import ViewManifest
from ingest_service.rpc.views import ViewServicer
from ingest_service.warehouse import PublishedWarehouse
from ingest_service.web import HttpListen, HttpServer, Observed

_DECODE_THREADS = 2
_READ_THREADS = 2
_QUERY_THREADS = 2
_WATCH_THREADS = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """What the service is started with.

    data: the data folder; made when missing. proto: the folder of the contracts; must exist.
    manifest: dbt's manifest of the live models; None: those that the data folder has. host, port: where it listens;
    port 0 takes a free one. lake: the lake's folder or URL; None: below `data`. store: the live views' database as a
    SQLAlchemy URL; None: SQLite below `data`. export_interval_s: how often the lake follows the log by itself, in
    seconds; 0: only when asked. tls: the files of TLS; None: plain text. Keys are asked for when the data folder has a
    key file.
    allow_open_network: listen beyond loopback also without TLS and keys. http: where /metrics, /healthz and /readyz are
    answered; None: nowhere.
    """

    data: Path
    proto: Path
    manifest: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7433
    lake: str | None = None
    store: str | None = None
    export_interval_s: float = 30.0
    tls: TlsFiles | None = None
    allow_open_network: bool = False
    http: HttpListen | None = None
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
                "`tidemill up` does so by itself; leave the option out to go on with the views that there are"
            )
        self.log.check()
        if self.export_interval_s < 0:
            raise ConfigError(f"--export-interval: expected seconds, 0 or more; came {self.export_interval_s}")
        if self.tls is not None:
            self.tls.check()
        keys = KeyFile(self.data)
        check_reach("--listen", self.host, self.tls, keys, allow_open_network=self.allow_open_network)
        if self.http is not None:
            check_reach("--http-listen", self.http.host, self.tls, keys, allow_open_network=self.allow_open_network)

    def lake_uri(self, stream: str) -> str:
        """Where a stream's lake table is; absolute, because clients are told it."""
        return f"{self.lake.rstrip('/')}/{stream}" if self.lake else str(self.data.absolute() / "lake" / stream)

    @property
    def warehouse(self) -> Path:
        """The published warehouse: where the daily run over the same data folder puts it."""
        return self.data / "warehouse" / "warehouse.duckdb"

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
        self._keyring = Keyring(config.data, self._clock) if KeyFile(config.data).exists() else None
        if self._keyring is None:
            level = logging.INFO if is_loopback(config.host) else logging.WARNING
            log.log(level, "open: whoever reaches %s may send and read; `tidemill key create` makes a key", config.host)
        else:
            log.info("API keys are asked for; %d are valid", len(self._keyring))
        parts, refused = self._open_streams()
        self._parts, self._refused = parts, refused
        self._streams = Streams(parts, refused=refused, guarded=self._keyring is not None)
        logs = {name: each.whole for name, each in parts.items()}
        self._manifest = ViewManifest(DataFolder(config.data).live_manifest, config.manifest)
        warehouse = PublishedWarehouse(config.warehouse)
        self._views = LiveViews.open(
            self._manifest.at_start(), config.store_url(), logs, clock=self._clock, warehouse=warehouse
        )
        self._closing.callback(self._views.close)
        self._manifest.taken()

    def _open_streams(self) -> tuple[dict[str, StreamParts], dict[str, ContractError]]:
        """The streams that could be opened, by name, and why others could not: none stops another."""
        config = self._config
        parts: dict[str, StreamParts] = {}
        refused: dict[str, ContractError] = {}
        contracts = ContractStore(config.data / "contracts")
        loaded = load_contracts(config.proto)
        for problem in loaded.problems:
            log.error("contract refused: %s", problem.text)
        streams = standings(loaded, contracts)
        if not streams and not loaded.problems:
            raise ConfigError(f"--proto: no contract in {config.proto}: no stream could be served")
        for name, standing in streams.items():
            if standing.refusal is not None:
                log.error("stream %s takes no events: %s", name, standing.refusal)
            try:
                if standing.contract is None:
                    refused[name] = standing.refusal or ContractError("it has no contract", name)
                    continue
                parts[name] = self._open_stream(standing.contract, contracts, standing.refusal)
            except ContractError as error:
                log.error("stream %s could not be opened: %s", name, error)
                refused[name] = error
        if not any(each.refusal is None for each in parts.values()):
            log.error("--proto: no contract in %s can be used: no stream takes events", config.proto)
        return parts, refused

    def _open_stream(self, contract: Contract, contracts: ContractStore, refusal: ContractError | None) -> StreamParts:
        """A stream's parts; its contract is kept as the one in force once its rows turned out to fit it."""
        config, name = self._config, contract.stream
        folder = config.data / "log" / name / str(PARTITION)
        stream_log = Log.open(folder, contract.log_spec(), clock=self._clock, settings=config.log)
        self._closing.callback(stream_log.close)
        if refusal is None:
            contracts.keep(contract)
        lake = LakeExporter(stream_log, name, config.lake_uri(name))
        lake.ensure()
        if config.export_interval_s:
            lake.start(config.export_interval_s)
        self._closing.callback(lake.stop)
        retention = Retention(
            stream_log,
            folder,
            lambda: lake.state().offset,
            RetentionHold(config.data / HOLD_NAME),
            settings=config.log,
            clock=self._clock,
        )
        retention.start()
        self._closing.callback(retention.stop)
        log.info("stream %s: %d rows, message %s", name, stream_log.durable_offset, contract.message_type)
        whole = WholeLog(stream_log, config.lake_uri(name))
        return StreamParts(contract, stream_log, lake, whole, contracts, refusal)

    async def run(self, ready: Callable[[str], None], stopping: asyncio.Event | None = None) -> None:
        """Serve until SIGINT or SIGTERM or, in a program that keeps its own signals, until `stopping` is set.

        `ready` gets the address once calls are answered.
        """
        if stopping is None:
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            for name in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(name, stopping.set)
        with (
            ThreadPoolExecutor(_DECODE_THREADS, thread_name_prefix="decode") as executor,
            ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="read") as readers,
            ThreadPoolExecutor(_QUERY_THREADS, thread_name_prefix="query") as queries,
            ThreadPoolExecutor(_WATCH_THREADS, thread_name_prefix="watch") as watches,
        ):
            guard = Guard(self._keyring)
            server = Server(
                AppendServicer(self._streams, self._clock, executor),
                ReadServicer(self._streams, readers),
                StreamServicer(self._streams, self._clock),
                ViewServicer(self._views, self._manifest, queries, watches, guarded=self._keyring is not None),
                guard=guard,
                tls=self._config.tls,
            )
            port = await server.start(self._config.host, self._config.port)
            self._start_http(guard.refusals)
            ready(f"{self._config.host}:{port}")
            await stopping.wait()
            log.info("stopping: new calls are refused, running ones may end")
            await server.stop()

    def _start_http(self, refusals: Counter[str]) -> None:
        http, keyring = self._config.http, self._keyring
        if http is None:
            return
        keys = None if keyring is None else keyring.__len__
        observed = Observed(self._config.data, self._parts, self._refused, self._views.positions, refusals, keys)
        # On loopback, metrics say nothing that this machine's users could not find out anyway.
        asked = None if is_loopback(http.host) else keyring
        server = HttpServer(observed, asked, None if is_loopback(http.host) else self._config.tls)
        try:
            port = server.start(http.host, http.port)
        except ConfigError as error:
            if http.required:
                raise
            log.warning("no metrics and no health over HTTP: %s", error)
            return
        self._closing.callback(server.stop)
        log.info("metrics and health at %s:%d", http.host, port)

    def close(self) -> None:
        """Stop the views, the exporters and the logs, in this order. Idempotent."""
        self._closing.close()


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
