"""Makes answers of templates: whatever they are given is escaped, and what could mislead a reader is spelt out."""

from __future__ import annotations

import datetime as dt
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse

from orchestration.pages.steps import moment

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).with_name("templates")
CHARS_MAX = 300
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
"""What our own pages may load: their one style, their one script, nothing from elsewhere, nothing inside the page."""


def show(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page made from a template; it knows where our pages are (`base`) and where Airflow is."""
    base = str(request.scope.get("root_path", ""))
    text = _templates().get_template(template).render(base=base, airflow=base.rpartition("/")[0], **values)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"})


def plain(value: Any, chars_max: int = CHARS_MAX) -> str:
    """Show a text from anywhere: cut where it is long, and without what cannot be seen or turns writing around."""
    text = str(value)
    cut = text[:chars_max] + "…" * (len(text) > chars_max)
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in cut)


def took(seconds: float | None) -> str:
    """Put a duration in words: 0.42 s, 12.3 s, 3 min 05 s, 2 h 07 min."""
    if seconds is None:
        return "\N{EN DASH}"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def many(number: int, noun: str) -> str:
    """Count something: 1 row, 1,200 rows."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@functools.cache
def _templates() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        address=lambda text: quote(str(text), safe=""),
        clock=lambda time: f"{_utc(time):%H:%M:%S}",
        many=many,
        moment=moment,
        number=lambda number: f"{number:,}",
        plain=plain,
        took=took,
        utc=lambda time: f"{_utc(time):%Y-%m-%d %H:%M:%S}",
        weekday=lambda date: f"{date:%A}",
    )
    return environment


def _utc(time: dt.datetime) -> dt.datetime:
    return time.astimezone(dt.UTC)
