"""The pages' application: its routes, each behind the login, and the headers of every answer."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from orchestration.pages.docs_files import find_file, send_file
from quality.config import DayConfig

if TYPE_CHECKING:
    import jinja2

HERE = Path(__file__).parent
PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
# Our data docs hold their style in the page. No script runs in them: they show values from events.
DATA_DOCS_POLICY = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
# One file with all its scripts and styles inside; it loads nothing and asks nobody.
DBT_DOCS_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; "
    "font-src data:; connect-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def make_app() -> FastAPI:
    """Make the application. Every route asks for the login first, that for unknown addresses too."""
    app = FastAPI(
        title="Tidemill",
        dependencies=[Depends(get_user)],
        # These would be open to all.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.middleware("http")(_add_headers)
    app.exception_handler(StarletteHTTPException)(_show_refusal)
    app.get("/")(_start)
    app.get("/days")(_days)
    app.get("/docs/dbt")(_to_folder)
    app.get("/docs/data")(_to_folder)
    app.get("/docs/dbt/{path:path}")(_dbt_docs)
    app.get("/docs/data/{path:path}")(_data_docs)
    app.get("/static/{path:path}")(_static)
    app.api_route("/{path:path}", methods=METHODS)(_nowhere)
    return app


def show(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a page made from a template."""
    base = str(request.scope.get("root_path", ""))
    text = _templates().get_template(template).render(base=base, airflow=base.rpartition("/")[0], **values)
    return HTMLResponse(text, status, headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"})


def _start(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/days")


def _days(request: Request) -> Response:
    return show(request, "message.html", title="Days", text="No day has been run yet.")


def _to_folder(request: Request) -> Response:
    # Links inside are relative to the folder.
    return RedirectResponse(f"{request.url.path}/")


def _dbt_docs(request: Request, path: str) -> Response:
    folder = DayConfig.from_environment().dbt_docs.parent
    if path in {"", "index.html"} and not (folder / "index.html").is_file():
        text = "The first run of daily that is published writes them: each model with its columns, tests and lineage."
        return show(request, "message.html", title="No dbt docs yet", text=text)
    return send_file(find_file(folder, path), DBT_DOCS_POLICY)


def _data_docs(request: Request, path: str) -> Response:
    folder = DayConfig.from_environment().data_docs
    if path in {"", "index.html"} and not (folder / "index.html").is_file():
        text = "The first run of daily writes them: what each run expected of source and marts, and what it found."
        return show(request, "message.html", title="No data docs yet", text=text)
    return send_file(find_file(folder, path), DATA_DOCS_POLICY)


def _static(path: str) -> Response:
    return send_file(find_file(HERE / "static", path), PAGE_POLICY)


def _nowhere(path: str) -> Response:
    raise HTTPException(404, f"There is no page {path!r} here")


async def _add_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _show_refusal(request: Request, error: Exception) -> Response:
    """Show what went wrong as a page: whoever sees it is a person in front of a frame."""
    assert isinstance(error, StarletteHTTPException)
    titles = {401: "Not logged in", 403: "Not allowed", 404: "Nothing here"}
    text = "Log in to Airflow, then open this page again." if error.status_code == 401 else str(error.detail)
    return show(
        request, "message.html", error.status_code, title=titles.get(error.status_code, "It did not work"), text=text
    )


@functools.cache
def _templates() -> jinja2.Environment:
    """Give the templates; whatever they are given is escaped."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
