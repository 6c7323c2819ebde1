"""The HTTP server: /metrics, /healthz and /readyz, on a thread of its own."""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import dataclass

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ingest_service.access import ALL_STREAMS, Keyring, Right, TlsFiles
from ingest_service.errors import ConfigError, Unauthenticated
from ingest_service.web.health import Health
from ingest_service.web.metrics import registry_of
from ingest_service.web.observed import Observed

_CONNECTIONS_MAX = 64
_KEEP_ALIVE_S = 15
_STOP_S = 5.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpListen:
    """Where to listen; port 0 takes a free one. required: without the address the service does not start."""

    host: str
    port: int
    required: bool = True


class HttpServer:
    """Answers over HTTP from `start` to `stop`.

    keyring: who may read /metrics; None: anyone. /healthz and /readyz are open: a probe has no key.
    """

    def __init__(self, observed: Observed, keyring: Keyring | None, tls: TlsFiles | None) -> None:
        self._observed = observed
        self._keyring = keyring
        self._tls = tls
        self._health = Health(observed)
        self._registry = registry_of(observed)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> int:
        """Listen and answer; gives the port.

        Raises:
            ConfigError: the address can't be listened on.
        """
        assert self._thread is None, "started twice"
        listening = _listen(host, port)
        config = uvicorn.Config(
            self._routes(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
            ssl_certfile=None if self._tls is None else str(self._tls.cert),
            ssl_keyfile=None if self._tls is None else str(self._tls.key),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="http", daemon=True
        )
        self._thread.start()
        bound: int = listening.getsockname()[1]
        return bound

    def stop(self) -> None:
        """Stop answering. Idempotent."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(_STOP_S)
            self._server = self._thread = None

    def _routes(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/healthz", self._alive),
                Route("/readyz", self._ready),
            ]
        )

    async def _metrics(self, request: Request) -> Response:
        if self._keyring is not None:
            try:
                key = self._keyring.authenticate(request.headers.get("authorization"))
            except Unauthenticated as error:
                self._observed.refusals["UNAUTHENTICATED"] += 1
                return PlainTextResponse(f"{error}\n", 401, {"WWW-Authenticate": "Bearer"})
            if not key.allows(Right.READ, ALL_STREAMS):
                self._observed.refusals["PERMISSION_DENIED"] += 1
                return PlainTextResponse("the API key has to allow read on every stream (--stream '*')\n", 403)
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._registry), media_type=content_type)

    async def _alive(self, request: Request) -> Response:
        del request
        return _told(self._health.dead())

    async def _ready(self, request: Request) -> Response:
        del request
        return _told(self._health.not_ready())


def _told(problems: list[str]) -> Response:
    return JSONResponse({"ok": not problems, "problems": problems}, 503 if problems else 200)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_CONNECTIONS_MAX)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"--http-listen: can't listen on {host}:{port}: {error.strerror or error}. Stop what uses it, choose "
            "another address, or say --http-listen none"
        ) from error
    return listening
