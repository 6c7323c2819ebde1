"""Calls whose responses come as a stream, made again when they are lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import grpc

from tidemill.client.read_progress import Patience
from tidemill.errors import ClientClosed

Response = TypeVar("Response")


class LastingCall(Generic[Response]):
    """The responses of a call, one after another; a call that is lost is made again.

    make: makes the call; what it asks for is where the responses that came end. Only when it fails for `retry_for_s`
    seconds is ServiceUnavailable raised. For one thread at a time, but for `close`.
    """

    def __init__(self, make: Callable[[], Any], address: str, retry_for_s: float) -> None:
        self._make, self._address = make, address
        self._patience = Patience(address, retry_for_s)
        self._call: Any = None
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed.is_set()

    def next(self) -> Response | None:
        """The next response; None once the service has ended the call as it should, or it was closed."""
        while not self._closed.is_set():
            try:
                if self._call is None:
                    self._call = self._make()
                    if self._closed.is_set():  # meanwhile: `close` did not see this call
                        self._call.cancel()
                response: Response | None = next(self._call, None)
            except grpc.RpcError as error:
                self._call = None
                if not self._closed.is_set():
                    self._closed.wait(self._patience.wait_s(error))
                continue
            except ValueError as error:  # gRPC says so when the channel is closed
                raise ClientClosed(f"the client of {self._address} is closed") from error
            if response is not None:
                self._patience.progress()
            return response
        return None

    def close(self) -> None:
        """End the call, from any thread. Idempotent."""
        self._closed.set()
        call = self._call
        if call is not None:
            call.cancel()
