"""Live views as clients see them: where they are, their rows, what changes in them, and which there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import grpc

from ingest_service.access.key import ALL_STREAMS
from ingest_service.errors import BadRequest, UnknownView
from ingest_service.live import LiveViews, ViewChange, ViewQuery, ViewResult
from ingest_service.rpc.caller import Caller, caller
from ingest_service.rpc.commits import Commits
from ingest_service.rpc.status import answers
from ingest_service.rpc.view_manifest import ViewManifest, check_manifest
from ingest_service.rpc.view_messages import (
    applied_message,
    arrow_rows,
    date_range,
    query_of,
    result_message,
    status_message,
    value_rows,
    watch_of,
)
from ingest_service.rpc.watching import Watching
from tidemill.v1 import views_pb2, views_pb2_grpc

RESPONSE_BYTES_MAX = 64 << 20
_Call = grpc.aio.ServicerContext[Any, Any]
_Result = TypeVar("_Result")


class ViewServicer(views_pb2_grpc.ViewServiceServicer):
    """Tells of live views, reads them, and changes which there are."""

    def __init__(
        self,
        views: LiveViews,
        manifest: ViewManifest,
        queries: Executor,
        watches: Executor,
        *,
        guarded: bool = False,
    ) -> None:
        """queries, watches: where views are read for either; their threads bound how much of that goes on at once.

        guarded: see `Streams`.
        """
        self._views, self._manifest, self._queries, self._guarded = views, manifest, queries, guarded
        self._commits = Commits(views)
        self._watching = Watching(views, self._commits, watches)

    def stop(self) -> None:
        """End the calls that wait for changes: they are told to go on later."""
        self._commits.stop()

    @answers
    async def ListViews(self, request: views_pb2.ListViewsRequest, context: _Call) -> views_pb2.ListViewsResponse:
        """All live views, by name."""
        del request, context
        known = self._caller()
        listed = await self._run(self._views.status)
        return views_pb2.ListViewsResponse(
            views=[status_message(status) for status in listed if known.may_see(status.stream)]
        )

    @answers
    async def QueryView(self, request: views_pb2.QueryViewRequest, context: _Call) -> views_pb2.QueryViewResponse:
        """A view's rows: as they are, as they were sealed, or across time."""
        del context
        self._check_visible(request.view)
        query = query_of(request)
        arrow = request.format == views_pb2.ROW_FORMAT_ARROW
        result = await self._result(query)
        return await self._run(partial(_response, result, query, arrow=arrow))

    async def _result(self, query: ViewQuery) -> ViewResult:
        """The answer, as soon as the view is there: whoever waits for it holds no thread.

        Raises:
            ViewBehind: it is not there in time, or waiting can't help.
        """
        deadline_s = asyncio.get_running_loop().time() + query.wait_s
        is_over = False
        while True:
            count = self._commits.count()
            result = await self._run(partial(self._views.look, query))
            if result is not None:
                return result
            if is_over:
                raise self._views.behind(query)
            try:
                async with asyncio.timeout_at(deadline_s):
                    await self._commits.after(count)
            except TimeoutError:
                is_over = True

    @answers
    async def WatchView(self, request: views_pb2.WatchViewRequest, context: _Call) -> None:
        """Tell of a view's changes for as long as the caller listens."""
        watch = watch_of(request)
        arrow = request.format == views_pb2.ROW_FORMAT_ARROW
        # Asked anew each time: the view may be another one by now, of another stream.
        await self._watching.serve(
            watch, arrow=arrow, check=partial(self._check_visible, request.view), context=context
        )

    @answers
    async def ApplyViews(self, request: views_pb2.ApplyViewsRequest, context: _Call) -> views_pb2.ApplyViewsResponse:
        """Put another manifest in force, or say what it would do."""
        del context
        # It says which views there are of any stream.
        self._caller().check(ALL_STREAMS)
        changes = await asyncio.to_thread(self._apply, request)
        return views_pb2.ApplyViewsResponse(views=[applied_message(change) for change in changes])

    def _apply(self, request: views_pb2.ApplyViewsRequest) -> list[ViewChange]:
        if request.check_only:
            check_manifest(request.manifest)
            return self._views.check(request.manifest)
        return self._manifest.apply(request.manifest, self._views.apply)

    @answers
    async def RebuildView(self, request: views_pb2.RebuildViewRequest, context: _Call) -> views_pb2.RebuildViewResponse:
        """Make a view's rows anew."""
        del context
        self._check_allowed(request.view)
        await asyncio.to_thread(self._views.rebuild, request.view)
        return views_pb2.RebuildViewResponse()

    @answers
    async def ConfirmReconciled(
        self, request: views_pb2.ConfirmReconciledRequest, context: _Call
    ) -> views_pb2.ConfirmReconciledResponse:
        """Take note that a sealed copy and batch agree."""
        del context
        self._check_allowed(request.view)
        first, last = date_range(request.first_date, request.last_date, "first_date")
        await asyncio.to_thread(self._views.confirm_reconciled, request.view, first, last, request.seal_offset)
        return views_pb2.ConfirmReconciledResponse()

    def _caller(self) -> Caller:
        return caller(guarded=self._guarded)

    def _check_visible(self, view: str) -> None:
        """Raises UnknownView where there is none, or of a stream that is none of the caller's business."""
        known = self._caller()
        streams = self._views.streams()
        if view not in streams or not known.may_see(streams[view]):
            raise UnknownView(view, [name for name, stream in streams.items() if known.may_see(stream)])

    def _check_allowed(self, view: str) -> None:
        """The same; PermissionDenied for who may do other things with the view's stream, but not this."""
        stream = self._views.streams().get(view)
        if stream is not None and self._caller().knows(stream):
            self._caller().check(stream)
        self._check_visible(view)

    async def _run(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._queries, function)


def _response(result: ViewResult, query: ViewQuery, *, arrow: bool) -> views_pb2.QueryViewResponse:
    response = result_message(result)
    if arrow:
        # A sealed copy is asked for as a whole, by the daily run: a million rows fit that way.
        response.arrow = arrow_rows(result.table, compressed=query.sealed is not None)
    else:
        response.values.extend(value_rows(result.table))
    size_bytes = response.ByteSize()
    if size_bytes > RESPONSE_BYTES_MAX:
        raise BadRequest(
            f"the answer has {result.table.num_rows} rows and {size_bytes >> 20} MiB, more than "
            f"{RESPONSE_BYTES_MAX >> 20}: ask for less with filters or limit, or watch {query.view}, which comes part "
            "by part"
        )
    return response
