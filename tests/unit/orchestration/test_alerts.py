"""Alerts reach the webhook within bounds, and nobody's log tells where it is."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("airflow")

from orchestration import alerts
from orchestration.airflow_upkeep import command_environment


class Answers(ThreadingHTTPServer):
    """Answers with the statuses that it is given, one after another."""

    def __init__(self, *statuses: int) -> None:
        self.left, self.asked = list(statuses), 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.asked += 1
                self.rfile.read(int(self.headers["Content-Length"]))
                status = server.left.pop(0)
                if not status:
                    self.wfile.write(b"no HTTP at all\r\n\r\n")
                    return
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/very-secret")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:very-secret@127.0.0.1:{self.server_address[1]}/very-secret?token=very-secret"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    monkeypatch.setattr(alerts, "PAUSE_S", 0.0)
    caplog.set_level(logging.DEBUG)
    yield
    assert "very-secret" not in caplog.text


@pytest.mark.parametrize(
    ("statuses", "taken", "asked"),
    [
        ((204,), True, 1),
        ((503, 204), True, 2),
        ((500, 500, 500), False, 3),
        ((429, 200), True, 2),
        ((404,), False, 1),
        ((302,), False, 1),
        ((0, 204), True, 2),
    ],
)
def test_it_is_sent_again_where_that_can_help(statuses: tuple[int, ...], taken: bool, asked: int) -> None:
    with Answers(*statuses) as server:
        assert alerts.send(server.url, {"message": "no"}) is taken
        assert server.asked == asked
        server.shutdown()


def test_a_webhook_that_is_away_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert not alerts.send(f"http://127.0.0.1:{unused.getsockname()[1]}/very-secret", {})
    assert "ConnectionRefusedError" in caplog.text


@pytest.mark.parametrize(
    "address",
    ["no address/very-secret", "file:///very-secret", "ftp://here/very-secret", "http://[very-secret", "http:///a",
     "http://localhost:very-secret/", "http://localhost/very secret", "http://localhost/very-secret\nX: y"],
)  # fmt: skip
def test_an_address_that_cannot_be_one_fails_nothing(address: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not alerts.send(address, {})
    assert "alert not sent" in caplog.text


def test_without_a_webhook_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alerts.WEBHOOK_VARIABLE, raising=False)
    assert not alerts.send_alert(kind="failed", dag_id="a", dag_run_id="b", task_id=None, message="c")


def test_a_runs_page_is_named_as_airflow_quotes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://here:1/")
    assert alerts.run_url("daily", "manual__2026-01-01T00:00:00+00:00", "dbt.marts") == (
        "http://here:1/dags/daily/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/dbt.marts"
    )


def test_airflows_own_commands_get_the_database_back() -> None:
    given = {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///",
        "AIRFLOW__CORE__SQL_ALCHEMY_CONN": "airflow-db-not-allowed:///",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": "postgresql+asyncpg://me:a@b/c?ssl=require",
    }
    assert command_environment(given)["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == (
        "postgresql+psycopg2://me:a@b/c?sslmode=require"
    )
    assert "AIRFLOW__CORE__SQL_ALCHEMY_CONN" not in command_environment(given)
    with pytest.raises(Exception, match="by cron instead"):
        command_environment({})
