"""Starts processes, restarts those that die, and leaves none behind."""

from __future__ import annotations

import atexit
import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from tidemill.local import guard
from tidemill.local.errors import ProcessFailed
from tidemill.local.process import ProcessEvent, ProcessSpec, ProcessStatus, RestartPolicy, Run, State, describe_exit

PROBE_S = 0.05
TRIM_EVERY_S = 30.0


class _Child:
    """A supervised process over all its starts; its fields are read and written under the supervisor's lock."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.state = State.STARTING
        self.run: Run | None = None
        self.restarts = 0
        self.quick_deaths = 0
        self.stopping = False
        self.failure: ProcessFailed | None = None
        self.thread: threading.Thread | None = None


class Supervisor:
    """Owns child processes from start to end: none outlives it, however it ends.

    Each child leads a session of its own with a log file of its own, and a thread here waits for its end. A child that
    dies before it was ever ready has failed (its options are wrong); one that dies later is restarted by the policy.
    `stop` asks the leader of each session, then kills whatever of the session is left. When the supervisor itself is
    killed, the guard process does the same (see `guard`).

    Thread-safe. on_event is called from a thread of its own, one call at a time, and may call anything here but `stop`.
    """

    def __init__(
        self,
        *,
        on_event: Callable[[ProcessEvent], None] | None = None,
        policy: RestartPolicy | None = None,
        hold: tuple[int, ...] = (),
    ) -> None:
        """Start nothing yet. hold: file descriptors that the guard keeps open as long as it lives (a lock)."""
        self._policy = policy or RestartPolicy()
        self._hold = hold
        self._children: dict[str, _Child] = {}
        self._changed = threading.Condition(threading.RLock())
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopped = False
        # Events leave through a queue: whoever shows them may hold locks of its own while it asks for a status.
        self._events: queue.SimpleQueue[ProcessEvent | None] = queue.SimpleQueue()
        self._teller = threading.Thread(
            target=self._tell_events, args=(on_event,), name="supervise-events", daemon=True
        )
        self._teller.start()

    def start(self, spec: ProcessSpec) -> None:
        """Start a process and return at once; `wait_ready` waits for it."""
        with self._changed:
            assert not self._stopped, "a stopped supervisor starts nothing"
            assert spec.name not in self._children, f"{spec.name} is supervised already"
            if self._guard is None:
                self._start_guard()
                atexit.register(self.stop)
            child = _Child(spec)
            self._children[spec.name] = child
            child.thread = threading.Thread(target=self._supervise, args=(child,), name=f"supervise-{spec.name}")
            child.thread.daemon = True
            child.thread.start()

    def wait_ready(self, *names: str) -> None:
        """Wait until these processes are ready; how long that may take stands in their specs.

        Raises ProcessFailed as soon as one of them has died or taken too long.
        """
        children = [self._children[name] for name in names]
        with self._changed:
            while any(child.state not in (State.READY, State.DONE) for child in children):
                for child in children:
                    if child.failure is not None:
                        raise child.failure
                    if child.stopping:
                        raise ProcessFailed(child.spec.name, "was stopped", child.spec.log, "")
                self._changed.wait()

    def wait_failure(self, timeout_s: float | None = None) -> None:
        """Wait until a process is given up, or the time is over; raises ProcessFailed for the first one."""
        with self._changed:
            self._changed.wait_for(lambda: any(c.failure for c in self._children.values()), timeout_s)
            for child in self._children.values():
                if child.failure is not None:
                    raise child.failure

    def status(self) -> list[ProcessStatus]:
        """What is known of each process, in the order of their start."""
        with self._changed:
            return [
                ProcessStatus(c.spec.name, c.state, c.run.pid if c.run else None, c.restarts, c.spec.log)
                for c in self._children.values()
            ]

    def stop(self) -> None:
        """Stop all processes, later stages first, and wait for their end. An interrupt meanwhile kills at once."""
        with self._changed:
            self._stopped = True
        hurry = False
        for stage in sorted({child.spec.stage for child in self._children.values()}, reverse=True):
            children = [child for child in self._children.values() if child.spec.stage == stage]
            for child in children:
                self._ask_to_stop(child)
            asked = time.monotonic()
            for child in children:
                hurry = self._wait_for_end(child, asked, hurry)
        self._end_guard()
        self._events.put(None)
        self._teller.join()
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _supervise(self, child: _Child) -> None:
        """The life of a child, in its own thread: start, wait for readiness, wait for the end, again."""
        while (run := self._spawn(child)) is not None:
            timed_out = not self._probe(child, run)
            code = run.popen.wait()
            # What its session still holds would be in the way of the next start.
            guard.kill_session(run.pid)
            self._tell_guard(f"remove {run.pid}")
            if not self._goes_on(child, run, code, "was not ready in time" if timed_out else describe_exit(code)):
                return

    def _spawn(self, child: _Child) -> Run | None:
        """Start the process, unless it is to stop; under the lock, so that stop sees either no process or its id."""
        with self._changed:
            if child.stopping:
                self._enter(child, State.STOPPED)
                return None
            try:
                child.run = Run(child.spec)
            except OSError as error:
                child.failure = ProcessFailed(child.spec.name, f"cannot be started: {error}", child.spec.log, "")
                self._enter(child, State.FAILED, child.failure.reason)
                return None
            self._tell_guard(f"add {child.run.pid} {child.spec.stop_signal}")
            self._enter(child, State.STARTING)
            return child.run

    def _probe(self, child: _Child, run: Run) -> bool:
        """Wait until the process is ready or has ended; False when it took too long, and was killed."""
        spec = child.spec
        while run.popen.poll() is None:
            if not spec.once and (spec.ready is None or spec.ready()):
                self._enter(child, State.READY)
                return True
            if time.monotonic() - run.started > spec.ready_timeout_s:
                guard.kill_session(run.pid)
                return False
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.popen.wait(PROBE_S)
        return True

    def _goes_on(self, child: _Child, run: Run, code: int, reason: str) -> bool:
        """Decide on a process that ended: True after the pause before its next start, False when that was all."""
        with self._changed:
            if child.stopping:
                self._enter(child, State.STOPPED)
                return False
            if child.spec.once and code == 0:
                self._enter(child, State.DONE)
                return False
            was_ready = child.state is State.READY
            quick = not was_ready or time.monotonic() - run.started < self._policy.quick_s
            child.quick_deaths = child.quick_deaths + 1 if quick else 1
            never_ready = not was_ready and child.restarts == 0
            if never_ready or child.quick_deaths > self._policy.max_quick_deaths:
                times = "" if never_ready else f" {child.quick_deaths} times in a row and is given up"
                child.failure = ProcessFailed(child.spec.name, reason + times, child.spec.log, run.tail())
                self._enter(child, State.FAILED, child.failure.reason)
                return False
            self._enter(child, State.WAITING, reason)
            child.restarts += 1
            self._changed.wait_for(lambda: child.stopping, self._policy.delay_s(child.quick_deaths))
            return True

    def _enter(self, child: _Child, state: State, detail: str = "") -> None:
        with self._changed:
            child.state = state
            self._changed.notify_all()
            self._events.put(ProcessEvent(child.spec.name, state, detail))

    def _tell_events(self, on_event: Callable[[ProcessEvent], None] | None) -> None:
        while True:
            try:
                event = self._events.get(timeout=TRIM_EVERY_S)
            except queue.Empty:
                self._trim_logs()
                continue
            if event is None:
                return
            if on_event is not None:
                on_event(event)

    def _trim_logs(self) -> None:
        with self._changed:
            runs = [child.run for child in self._children.values() if child.run is not None]
        for run in runs:
            with contextlib.suppress(OSError):
                run.trim_log()

    def _ask_to_stop(self, child: _Child) -> None:
        with self._changed:
            child.stopping = True
            self._changed.notify_all()
            if child.run is not None and child.run.popen.poll() is None:
                child.run.popen.send_signal(child.spec.stop_signal)

    def _wait_for_end(self, child: _Child, asked: float, hurry: bool) -> bool:
        """Wait for a child's thread, kill when its grace is over; gives whether there is a hurry now."""
        assert child.thread is not None
        while child.thread.is_alive():
            left = 0.0 if hurry else asked + child.spec.grace_s - time.monotonic()
            try:
                child.thread.join(max(0.0, left))
                if child.thread.is_alive() and left <= 0 and child.run is not None:
                    guard.kill_session(child.run.pid)
                    child.thread.join(1.0)
            except KeyboardInterrupt:
                hurry = True
        return hurry

    def _start_guard(self) -> None:
        program = [sys.executable, "-I", "-S", str(Path(guard.__file__).resolve())]
        self._guard = subprocess.Popen(
            program, stdin=subprocess.PIPE, start_new_session=True, pass_fds=self._hold, cwd="/"
        )

    def _tell_guard(self, line: str) -> None:
        with self._changed:
            assert self._guard is not None
            assert self._guard.stdin is not None
            try:
                self._guard.stdin.write(line.encode() + b"\n")
                self._guard.stdin.flush()
            except BrokenPipeError:
                # Somebody killed the guard: a new one learns of all that runs.
                self._end_guard()
                self._start_guard()
                for child in self._children.values():
                    if child.run is not None and child.run.popen.poll() is None:
                        self._tell_guard(f"add {child.run.pid} {child.spec.stop_signal}")

    def _end_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            # What a dead guard did not read is still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let TERM, and HUP of a closing terminal, end the block as Ctrl-C does: by KeyboardInterrupt. Main thread only."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
