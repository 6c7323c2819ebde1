"""A client of Airflow's REST API, as much of it as starting and following a run needs.

Standard library only: it is on the path of a command's start. Answers of 5xx and broken connections are tried again,
within bounds: Airflow gives them while it starts and when its database is busy.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.local.airflow_settings import Login
from tidemill.local.errors import AirflowError, DagBroken

REQUEST_TIMEOUT_S = 10.0
RETRY_FOR_S = 30.0
RETRY_PAUSE_S = 0.5
POLL_S = 0.25
ENDED = ("success", "failed")


@dataclass(frozen=True)
class TaskChange:
    """A task of a run has entered a state (Airflow's word for it). duration_s is None until it has ended."""

    task_id: str
    state: str
    try_number: int
    duration_s: float | None

    @property
    def ended(self) -> bool:
        """Whether the task will not run again in this run, as it stands."""
        return self.state in {"success", "failed", "skipped", "upstream_failed", "removed"}


@dataclass(frozen=True)
class TaskFailure:
    """A task that failed, with the text of its error; `url` is its page in Airflow."""

    task_id: str
    message: str
    url: str


class AirflowClient:
    """Talks to one Airflow as one user. One thread at a time."""

    def __init__(self, url: str, login: Login) -> None:
        """Connect to nothing yet; url without a slash at its end."""
        self.url = url
        self._login = login
        self._token: str | None = None
        # No proxy: Airflow is on this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def is_up(self) -> bool:
        """Whether the API answers, its database included. Never raises."""
        try:
            health = self._request("GET", "/api/v2/monitor/health", None)
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return bool(health["metadatabase"]["status"] == "healthy")

    def health(self) -> dict[str, str | None]:
        """Each component's status by its last heartbeat: "healthy", "unhealthy", or None when it never ran."""
        return {name: state["status"] for name, state in self._call("GET", "/monitor/health").items()}

    def wait_dag(self, dag_id: str, timeout_s: float = 60.0, check: Callable[[], None] | None = None) -> None:
        """Wait until a DAG has been read.

        check: called between looks; may raise, to end the waiting (a process died).
        Raises DagBroken when DAG files cannot be imported, AirflowError when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if check is not None:
                check()
            try:
                self._call("GET", f"/dags/{_quote(dag_id)}")
            except AirflowError as error:
                if error.status != 404:
                    raise
            else:
                return
            # A file of the same folder that is broken in another DAG is not in the way.
            broken = [e for e in self._call("GET", "/importErrors")["import_errors"] if dag_id in e["filename"]]
            if broken:
                ends = "\n".join(f"{e['filename']}:\n{_last_lines(e['stack_trace'])}" for e in broken)
                raise DagBroken(f"Airflow cannot import the DAG {dag_id!r}:\n{ends}")
            if time.monotonic() > deadline:
                raise AirflowError(f"Airflow did not find a DAG {dag_id!r} within {timeout_s:.0f} s in its dags folder")
            time.sleep(POLL_S)

    def is_paused(self, dag_id: str) -> bool:
        """Whether the DAG's runs wait until somebody switches it on. Raises AirflowError when there is no such DAG."""
        return bool(self._call("GET", f"/dags/{_quote(dag_id)}")["is_paused"])

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self._call("PATCH", f"/dags/{_quote(dag_id)}", {"is_paused": False})

    def trigger(self, dag_id: str, conf: dict[str, Any], run_id: str) -> None:
        """Start a run with these params, as a user's own run without a logical date.

        run_id: new for each run; a repeated request for the same id starts nothing twice.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        # 409 is the answer to a request that was tried again after its first answer got lost.
        self._call("POST", f"/dags/{_quote(dag_id)}/dagRuns", body, accept=(409,))

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The run's state: queued, running, success or failed."""
        return str(self._call("GET", self._run_path(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """A run's tasks as Airflow describes them: task_id, state, try_number, start_date, end_date, duration, …"""
        path = self._run_path(dag_id, run_id) + "/taskInstances?limit=200"
        return list(self._call("GET", path)["task_instances"])

    def follow(
        self, dag_id: str, run_id: str, timeout_s: float = 1800.0, check: Callable[[], None] | None = None
    ) -> Iterator[TaskChange]:
        """Give each change of a task's state, in the order of their starts, until the run has ended.

        check: called between looks; may raise, to end the following (a process died).
        Raises AirflowError when the run has not ended in time; how it ended is told by `run_state`.
        """
        seen: dict[str, tuple[str, int]] = {}
        deadline = time.monotonic() + timeout_s
        while True:
            if check is not None:
                check()
            # First the run, then its tasks: tasks that end in between are seen before the following ends.
            ended = self.run_state(dag_id, run_id) in ENDED
            for task in sorted(self.tasks(dag_id, run_id), key=lambda task: task["start_date"] or "9"):
                change = _change(task)
                now = (change.state, change.try_number)
                if change.state != "none" and seen.get(change.task_id) != now:
                    seen[change.task_id] = now
                    yield change
            if ended:
                return
            if time.monotonic() > deadline:
                url = self.run_url(dag_id, run_id)
                raise AirflowError(f"run {run_id} of {dag_id} has not ended within {timeout_s:.0f} s: see {url}")
            time.sleep(POLL_S)

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task of a run returned; None when it returned nothing."""
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/xcomEntries/return_value"
        answer = self._call("GET", path + "?deserialize=true", accept=(404,))
        return answer.get("value")

    def failures(self, dag_id: str, run_id: str) -> list[TaskFailure]:
        """The run's failed tasks with the text of their errors, from their logs."""
        failed = sorted(
            (t for t in self.tasks(dag_id, run_id) if t["state"] == "failed"),
            key=lambda task: task["start_date"] or "9",
        )
        return [self._failure(dag_id, run_id, task["task_id"], task["try_number"]) for task in failed]

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The run's page."""
        return f"{self.url}/dags/{_quote(dag_id)}/runs/{_quote(run_id)}"

    def _failure(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> TaskFailure:
        path = f"{self._run_path(dag_id, run_id)}/taskInstances/{_quote(task_id)}/logs/{try_number}?full_content=true"
        lines = self._call("GET", path, accept=(404,)).get("content", [])
        message = "its log says no more"
        for line in lines:
            if isinstance(line, dict) and line.get("level") in {"error", "critical"}:
                details = line.get("error_detail") or []
                # The first is what was raised; its causes follow.
                message = str(details[0]["exc_value"]) if details else str(line["event"])
        return TaskFailure(task_id, message, f"{self.run_url(dag_id, run_id)}/tasks/{_quote(task_id)}")

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"/dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}"

    def _call(self, method: str, path: str, body: Any = None, accept: tuple[int, ...] = ()) -> dict[str, Any]:
        """Ask with a token, again after what passes by itself. Statuses to accept give {}; others AirflowError."""
        deadline = time.monotonic() + RETRY_FOR_S
        renewed = False
        while True:
            try:
                if self._token is None:
                    self._token = self._new_token()
                return self._request(method, "/api/v2" + path, body)
            except urllib.error.HTTPError as error:
                with error:
                    status, text = error.code, error.read().decode(errors="replace")[:500]
                if status in accept:
                    return {}
                if status == 401 and not renewed:
                    self._token, renewed = None, True
                elif status < 500 or time.monotonic() > deadline:
                    raise AirflowError(f"Airflow answered {status} to {method} {path}: {text}", status) from error
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise AirflowError(f"Airflow at {self.url} does not answer: {error}") from error
            time.sleep(RETRY_PAUSE_S)

    def _new_token(self) -> str:
        body = {"username": self._login.user, "password": self._login.password}
        return str(self._request("POST", "/auth/token", body)["access_token"])

    def _request(self, method: str, path: str, body: Any) -> dict[str, Any]:
        request = urllib.request.Request(self.url + path, method=method)  # noqa: S310  # http by construction
        request.add_header("Accept", "application/json")
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with self._opener.open(request, timeout=REQUEST_TIMEOUT_S) as answer:
            text = answer.read()
        parsed = json.loads(text) if text else {}
        return parsed if isinstance(parsed, dict) else {"content": parsed}


def _change(task: dict[str, Any]) -> TaskChange:
    state = task["state"] or "none"
    # A task that is tried again still carries the duration of its last try.
    ended = state in {"success", "failed", "up_for_retry"}
    return TaskChange(task["task_id"], state, task["try_number"], task["duration"] if ended else None)


def _quote(part: str) -> str:
    return urllib.parse.quote(part, safe="")


def _last_lines(text: str, lines: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
