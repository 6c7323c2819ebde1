"""Structured logs: one line an event, as key=value for people or as JSON for programs, and no secrets in either.

Modules log as ever (`logging.getLogger(__name__)`); fields may be added by `extra={...}` or through structlog. Made of
structlog, which renders the standard library's records too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ingest_service.access.key import PREFIX, SECRET_PATTERN


class LogFormat(StrEnum):
    """How a line looks."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up_logs(stream: TextIO, log_format: LogFormat = LogFormat.TEXT, level: LogLevel = LogLevel.INFO) -> None:
    """Send everything that this process logs to the stream; takes the place of an earlier set-up."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _hide_keys,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: Processor = (
        _as_text if log_format is LogFormat.TEXT else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)


def _hide_keys(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Nobody logs an API key on purpose; should one be in a text, its id stays and its secret goes."""
    del logger, name
    for key, value in event.items():
        if isinstance(value, str) and f"{PREFIX}_" in value:
            event[key] = SECRET_PATTERN.sub(rf"{PREFIX}_\1_…", value)
    return event


_logfmt = structlog.processors.LogfmtRenderer(key_order=["time", "level", "logger", "event"], bool_as_flag=False)


def _as_text(logger: WrappedLogger, name: str, event: Mapping[str, Any]) -> str:
    fields = dict(event)
    # A traceback is for eyes: below the line, as it is.
    traceback = fields.pop("exception", None)
    line = _logfmt(logger, name, {key.replace(" ", "_"): value for key, value in fields.items()})
    return line if traceback is None else f"{line}\n{traceback}"
