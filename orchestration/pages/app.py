"""The pages' application: its routes, each behind the login, and the headers of every answer."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from orchestration.pages.airflow_runs import AirflowRun, find_run
from orchestration.pages.days import Show, count_log, list_days, take_page
from orchestration.pages.docs_files import find_file, send_file
from orchestration.pages.login import User, check_may_read, may_read
from orchestration.pages.published import Warehouse
from orchestration.pages.records import Records, Summary
from orchestration.pages.report import make_report
from orchestration.pages.show import PAGE_POLICY, show
from quality.config import DayConfig
from quality.errors import ConfigWrong, RunWrong
from quality.run import load_run

HERE = Path(__file__).parent
DAILY = "daily"
"""The DAG whose readers may see the docs, the days and the runs that no DAG made."""
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
_TITLES = {401: "Not logged in", 403: "Not allowed", 404: "Nothing here", 422: "Nothing here"}

log = logging.getLogger(__name__)


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
    pages = Pages()
    app.middleware("http")(_answer)
    app.exception_handler(StarletteHTTPException)(_show_refusal)
    app.exception_handler(RequestValidationError)(_show_unknown)
    app.get("/")(_start)
    app.get("/days")(pages.days)
    app.get("/runs/{dag_id}/{run_id:path}")(pages.airflow_run)
    app.get("/records/{run_id}")(pages.record)
    app.get("/docs/dbt")(_to_folder)
    app.get("/docs/data")(_to_folder)
    app.get("/docs/dbt/{path:path}")(_dbt_docs)
    app.get("/docs/data/{path:path}")(_data_docs)
    app.get("/static/{path:path}")(_static)
    app.api_route("/{path:path}", methods=METHODS)(_nowhere)
    return app


class Pages:
    """The pages made from what the runs left behind; what was read once is remembered until it changes."""

    def __init__(self) -> None:
        self._records = Records()
        self._warehouse = Warehouse()

    def days(
        self, request: Request, user: User, show_: str = "", page: int = 1, date: str = "", dag: str = DAILY
    ) -> Response:
        """List the days. show_ comes as `show`; date: the page with that date; dag: on whose page it is shown.

        Runs are told of whose DAG the user may read, whichever DAG the address names.
        """
        check_may_read(user, dag or DAILY)
        config = DayConfig.from_environment()
        chosen = request.query_params.get("show", show_)
        published, counted = self._warehouse.read(config), count_log(config)
        records = self._records.all(config)
        open_dags = {name for name in {each.dag_id for each in records} if may_read(user, name or DAILY)}
        records = [each for each in records if each.dag_id in open_dags]
        days = list_days(published, records, counted, dt.datetime.now(dt.UTC).date())
        listed = take_page(days, Show(chosen) if chosen in set(Show) else Show.ALL, page, _date(date))
        return show(
            request, "days.html", list=listed, shows=Show, published=published, counted=counted, date=date, dag=dag
        )

    def airflow_run(self, request: Request, user: User, dag_id: str, run_id: str, record: str = "") -> Response:
        """Report on a run of Airflow. record: which of its groups of dates; the first one otherwise."""
        check_may_read(user, dag_id)
        config = DayConfig.from_environment()
        run = find_run(dag_id, run_id)
        found = self._records.of_airflow_run(config, dag_id, run_id)
        if not found:
            if run is None:
                raise HTTPException(404, f"{dag_id} has no run {run_id!r}: it may have been deleted")
            return self._without_record(request, config, run)
        chosen = next((each for each in found if each.run_id == record), found[0])
        return self._report(request, config, chosen.run_id, run, found if len(found) > 1 else [])

    def record(self, request: Request, user: User, run_id: str) -> Response:
        """Report on a run by the name of its record, such as one that `tidemill day run --local` made."""
        config = DayConfig.from_environment()
        try:
            options = load_run(config, run_id).options
        except RunWrong as error:
            raise HTTPException(404, f"There is no record of a run {run_id!r}: it may have been cleaned up") from error
        check_may_read(user, options.dag_id or DAILY)
        run = find_run(options.dag_id, options.dag_run_id) if options.dag_run_id else None
        return self._report(request, config, run_id, run, [])

    def _report(
        self, request: Request, config: DayConfig, run_id: str, airflow: AirflowRun | None, others: list[Summary]
    ) -> Response:
        try:
            run = load_run(config, run_id)
        except RunWrong as error:
            raise HTTPException(404, str(error)) from error
        report = make_report(config, run, airflow, self._warehouse.read(config), count_log(config))
        return show(request, "report.html", report=report, others=others)

    def _without_record(self, request: Request, config: DayConfig, run: AirflowRun) -> Response:
        names = {task.task_id.rpartition(".")[2] for task in run.tasks}
        shared = [each for each in self._records.all(config) if each.run_id in run.published_by]
        title, texts = "No report", []
        if "seal" not in names:
            texts = [f"{run.dag_id} publishes no days: its runs have no report."]
        elif run.published_by:
            title = "Published by another run"
            gone = set(run.published_by) - {each.run_id for each in shared}
            texts = [f"Its dates were published by run {name}, whose record is gone." for name in sorted(gone)]
        elif run.is_running:
            title, texts = "Not begun yet", ["The report begins once the run has its turn and seals its dates."]
        elif run.state == "failed":
            texts = ["The run ended before it sealed any date. The log of the task that failed says why."]
        else:
            texts = ["The record of this run is gone: the clean-up of old runs takes it, the warehouse keeps the rest."]
        return show(request, "waiting.html", run=run, title=title, texts=texts, shared=shared)


def _start(request: Request) -> Response:
    return RedirectResponse(f"{request.scope.get('root_path', '')}/days")


def _to_folder(request: Request) -> Response:
    # Links inside are relative to the folder.
    return RedirectResponse(f"{request.url.path}/")


def _dbt_docs(request: Request, user: User, path: str) -> Response:
    check_may_read(user, DAILY)
    folder = DayConfig.from_environment().dbt_docs.parent
    if path in {"", "index.html"} and not (folder / "index.html").is_file():
        text = "The first run of daily that is published writes them: each model with its columns, tests and lineage."
        return show(request, "message.html", title="No dbt docs yet", text=text)
    return send_file(find_file(folder, path), DBT_DOCS_POLICY)


def _data_docs(request: Request, user: User, path: str) -> Response:
    check_may_read(user, DAILY)
    folder = DayConfig.from_environment().data_docs
    if path in {"", "index.html"} and not (folder / "index.html").is_file():
        text = "The first run of daily writes them: what each run expected of source and marts, and what it found."
        return show(request, "message.html", title="No data docs yet", text=text)
    return send_file(find_file(folder, path), DATA_DOCS_POLICY)


def _static(path: str) -> Response:
    return send_file(find_file(HERE / "static", path), PAGE_POLICY)


def _nowhere(path: str) -> Response:
    raise HTTPException(404, f"There is no page {path!r} here")


def _date(text: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(text) if text else None
    except ValueError:
        return None


async def _answer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Put the headers on every answer; what goes wrong inside is logged, and shown without its insides."""
    try:
        response = await call_next(request)
    except ConfigWrong as error:
        response = show(request, "message.html", 500, title="Not set up", text=str(error))
    except Exception:
        log.exception("%s could not be shown", request.url.path)
        text = "The page could not be made. The log of Airflow's API server says why."
        response = show(request, "message.html", 500, title="It did not work", text=text)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["X-Frame-Options"] = "SAMEORIGIN"
    response.headers["Referrer-Policy"] = "same-origin"
    return response


def _show_refusal(request: Request, error: Any) -> Response:
    """Show what went wrong as a page: whoever sees it is a person in front of a frame."""
    text = "Log in to Airflow, then open this page again." if error.status_code == 401 else str(error.detail)
    title = _TITLES.get(error.status_code, "It did not work")
    return show(request, "message.html", error.status_code, title=title, text=text)


def _show_unknown(request: Request, error: Any) -> Response:
    del error
    return show(request, "message.html", 422, title=_TITLES[422], text="The address of this page is not right.")
