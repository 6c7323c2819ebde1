"""A service inside your own tests: no process, no port to choose, no folder to clean.

    import pytest, tidemill.testing

    @pytest.fixture
    def tm():
        with tidemill.testing.service(proto="proto") as tm:
            yield tm

    def test_an_order_is_counted(tm):
        ack = tm.stream("orders").send({"order_id": "1", ...}).result(10)
        assert ack.offset == 0

Needs `pip install 'tidemill[service]'`. It is the real service, in a thread: everything that it does in production it
does here, fsync included.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.client.client import Client, connect
from tidemill.client.credentials import Credentials
from tidemill.client.options import ProducerOptions
from tidemill.errors import MissingExtra, TidemillError

if TYPE_CHECKING:
    from ingest_service.app import Service

START_S = 30.0
"""How long the service may take to answer, in seconds."""


def live_models(project: Path | str | None = None) -> Path:
    """Compile a project's live models, for `service(manifest=…)`; gives the manifest's path.

    project: the folder with proto/ and dbt_project/; None: the current one, or one above it. What dbt compiled stays in
    the project's data folder, as for `tidemill view check`: only a changed project is compiled again. Needs
    `pip install 'tidemill[batch]'`.

    Raises MissingExtra without dbt, TidemillError with what dbt said of a wrong model.
    """
    from tidemill.local.folder import DataFolder, find_project
    from tidemill.local.live_models import compile_models

    root = find_project(project)
    return compile_models(root, DataFolder.at(None, root))


@contextlib.contextmanager
def service(
    proto: Path | str = "proto",
    *,
    manifest: Path | str | None = None,
    data: Path | str | None = None,
    options: ProducerOptions | None = None,
) -> Iterator[Client]:
    """A service of its own on a free port of this machine, and a client of it; both end with the block.

    proto: the folder of the contracts. manifest: dbt's manifest.json with the compiled live models, such as
    `live_models()` gives; None: those that `data` has. data: the data folder, which stays; None: a temporary one, which
    does not. options: as for `connect`.
    Other clients connect to `tm.address`. The lake follows only when asked (`tm.export`).

    Raises MissingExtra without the extra `service`, TidemillError when the service can't be started, and at the end
    what `Client.close` raises.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(data) if data else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidemill-")))
        opened = _open(folder, Path(proto), None if manifest is None else Path(manifest))
        stack.callback(opened.close)
        address = stack.enter_context(_served(opened))
        yield stack.enter_context(connect(address, options=options, credentials=Credentials()))


def _open(data: Path, proto: Path, manifest: Path | None) -> Service:
    try:
        from ingest_service.app import Service, ServiceConfig
        from ingest_service.errors import IngestError
    except ModuleNotFoundError as error:
        raise MissingExtra("tidemill.testing", "service") from error
    try:
        return Service(ServiceConfig(data=data, proto=proto, manifest=manifest, port=0, export_interval_s=0))
    except IngestError as error:
        raise TidemillError(f"the service can't be started: {error}") from error


@contextlib.contextmanager
def _served(opened: Service) -> Iterator[str]:
    """Serve in a thread with an event loop of its own; the address."""
    address: Future[str] = Future()
    stop: Future[Any] = Future()

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.set_result(lambda: loop.call_soon_threadsafe(stopping.set))
        await opened.run(address.set_result, stopping)

    def serve() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits for the address
            if not address.done():
                address.set_exception(error)

    thread = threading.Thread(target=serve, name="tidemill-service", daemon=True)
    thread.start()
    try:
        yield address.result(START_S)
    finally:
        stop.result(START_S)()
        thread.join()
