"""Logs are lines of fields, in two formats, without secrets."""

import datetime as dt
import io
import json
import logging

import pytest
import structlog

from ingest_service.access.key import Right, new_key, split_key
from ingest_service.logs import LogFormat, LogLevel, set_up_logs


@pytest.fixture
def said():
    """Sets the logs up, logs, and gives what was written; afterwards all is as before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()

    def set_up(*options) -> io.StringIO:
        set_up_logs(stream, *options)
        return stream

    yield set_up
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_text_is_key_value(said):
    stream = said()
    logging.getLogger("ingest_service.app").info("stream %s: %d rows", "orders", 5, extra={"offset": 7})
    structlog.get_logger("ingest_service.x").warning("slow disk", seconds=0.5)
    first, second = stream.getvalue().splitlines()
    assert first.startswith("time=2")
    assert 'level=info logger=ingest_service.app event="stream orders: 5 rows" offset=7' in first
    assert 'level=warning logger=ingest_service.x event="slow disk" seconds=0.5' in second


def test_json_is_one_object_a_line(said):
    stream = said(LogFormat.JSON, LogLevel.WARNING)
    log = logging.getLogger("ingest_service.log")
    log.info("not wanted")
    log.error("bad\nthing", extra={"path": "ü"})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["path"]) == ("bad\nthing", "error", "ü")


@pytest.mark.parametrize("log_format", LogFormat)
def test_keys_are_hidden_wherever_they_stand(said, log_format):
    stream = said(log_format)
    key, text = new_key("shop", frozenset("*"), frozenset({Right.READ}), dt.datetime.now(dt.UTC), None)
    try:
        raise ValueError(f"Bearer {text}")
    except ValueError:
        logging.getLogger("x").exception("call with %s", text, extra={"authorization": f"Bearer {text}"})
    assert text not in stream.getvalue()
    assert split_key(text)[1] not in stream.getvalue()
    assert f"tm_{key.id}_…" in stream.getvalue()


def test_a_traceback_stands_below_its_line(said):
    stream = said()
    try:
        raise ValueError("why")
    except ValueError as error:
        logging.getLogger("x").error("failed", exc_info=error)
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("event=failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: why"


def test_hostile_text_stays_on_its_line(said):
    stream = said()
    logging.getLogger("x").warning("stream %r", 'a" level=error event="forged\n2026 level=error')
    assert len(stream.getvalue().splitlines()) == 1
    logging.getLogger("x").warning('a" level=error event="forged\nlevel=error')
    (_, line) = stream.getvalue().splitlines()
    assert "\\n" in line
