"""Ctrl-C that ends a loop between two of its steps, never inside one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self


class Interruptible:
    """While it is entered, Ctrl-C raises KeyboardInterrupt at once, but inside `step()` only at the step's end.

    So a batch is either sent and counted, or neither. A second Ctrl-C does not wait. When it is not `wanted`, and
    elsewhere than in the main thread, where no signals come, it changes nothing.
    """

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._in_step = False
        self._pending = False
        self._before: object = None

    def __enter__(self) -> Self:
        if self._wanted and threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            # A shell's background job ignores Ctrl-C, and goes on doing so.
            if self._before is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if callable(self._before):
            signal.signal(signal.SIGINT, self._before)

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """What is not to be torn."""
        self._in_step = True
        try:
            yield
        finally:
            self._in_step = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._pending or not self._in_step:
            raise KeyboardInterrupt
        self._pending = True
