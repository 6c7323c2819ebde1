"""The ingest service, as the stages ask it: the SDK, its errors as the stages' own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quality.config import DayConfig
from quality.errors import ServiceFailed

if TYPE_CHECKING:
    from tidemill import Client, ProducerOptions


@contextmanager
def connected(config: DayConfig, options: ProducerOptions | None = None) -> Iterator[Client]:
    """Give a client of the service at `config.address`; what goes wrong with it is raised as ServiceFailed.

    options: how its streams send, where the default is not wanted.
    """
    import tidemill

    try:
        with tidemill.connect(config.address, timeout_s=30, options=options) as client:
            yield client
    except tidemill.TidemillError as error:
        code = error.code if isinstance(error, tidemill.ServiceError) else type(error).__name__
        raise ServiceFailed(str(error), code, error.retryable) from error
