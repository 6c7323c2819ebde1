"""One of the service's own tools as a child process: this package may not import the service, and runs without it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import IO, Any, Self

import click

from tidemill.errors import MissingExtra

Line = dict[str, Any]
"""What a tool says: one JSON object a line."""


class Tool:
    """A tool while it runs, as a context manager: left by an error it is killed, otherwise its end is waited for.

    `said` tells whether it said anything but what it was asked `first`; a tool that failed and said nothing raises
    ClickException, with the last line of what it wrote to stderr.
    """

    def __init__(self, command: str, module: str, arguments: Iterable[str]) -> None:
        """`command`: the one that needs it, for messages. Raises MissingExtra."""
        if importlib.util.find_spec("ingest_service") is None or importlib.util.find_spec("sqlglot") is None:
            raise MissingExtra(command, "service")
        self._command = [sys.executable, "-m", module, *arguments]
        self._said = False

    def __enter__(self) -> Self:
        # A file, not a pipe: nobody reads it meanwhile.
        self._errors: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._process.kill()
                self._process.wait()
                return
            self._end_input()
            code = self._process.wait()
            if code and not self._said:
                self._errors.seek(0)
                *_, last = ["it said nothing", *self._errors.read().strip().splitlines()]
                raise click.ClickException(last.removeprefix("tidemill: "))
        finally:
            self._end_input()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._errors.close()

    def first(self) -> Line | None:
        """The first line, for a tool that then waits to be told something; None when it ends without one."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else None

    def tell(self, line: Line) -> None:
        """Tell it something; it hears no more after it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # why it ended already, it says on stderr
            self._process.stdin.write(json.dumps(line) + "\n")
        self._end_input()

    def _end_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def lines(self) -> Iterator[Line]:
        """All that it says, as it says it."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said = True
            yield json.loads(line)
