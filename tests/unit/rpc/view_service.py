"""A service with a stream of sales and live views of it, in this process."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

import tidemill
from ingest_service.app import Service, ServiceConfig
from tidemill.testing import _served
from tidemill.v1 import views_pb2, views_pb2_grpc

PROTO = """syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
message Sale {
  option (tidemill.v1.stream) = { name: "sales" event_time: "at" out_of_orderness_s: 60 };
  google.protobuf.Timestamp at = 1;
  string country = 2;
  int64 units = 3;
  string note = 4;
}
"""
SOURCE = '"warehouse"."events"."sales"'
BY_MINUTE = f"""select time_bucket(interval '1 minute', at) as window_start, country, count(*) as sales,
    sum(units) as units from {SOURCE} group by all"""
BY_COUNTRY = f"select country, count(*) as sales, sum(units) as units, max(note) as note from {SOURCE} group by all"
REFUSED = f"select country, units from {SOURCE} order by units"
VIEWS = {"by_minute": BY_MINUTE, "by_country": BY_COUNTRY}
AT_S = 1_700_000_000 // 60 * 60
"""The beginning of a minute."""
ARROW = views_pb2.ROW_FORMAT_ARROW


def manifest(models: Mapping[str, str]) -> bytes:
    """What dbt compiles, as far as the service reads it: models by name."""
    source = {"name": "sales", "relation_name": SOURCE, "meta": {"stream": "sales"}}
    nodes = {
        f"model.shop.{name}": {
            "resource_type": "model",
            "name": name,
            "original_file_path": f"models/live/{name}.sql",
            "tags": ["live"],
            "config": {"materialized": "table"},
            "compiled_code": sql,
            "raw_code": sql,
        }
        for name, sql in models.items()
    }
    return json.dumps({"nodes": nodes, "sources": {"source.shop.events.sales": source}}).encode()


@dataclass
class ServedViews:
    """A service that answers: its parts, an SDK's client, and a stub that takes no more than gRPC's own 4 MiB."""

    service: Service
    tm: tidemill.Client
    channel: grpc.Channel

    @property
    def stub(self) -> Any:
        return views_pb2_grpc.ViewServiceStub(self.channel)

    @property
    def address(self) -> str:
        return self.tm.address

    def send(self, *sales: Mapping[str, Any]) -> int:
        """Send sales, one batch; the offset below which a view covers them."""
        stream = self.tm.stream("sales")
        acks = [stream.send(sale(**fields)) for fields in sales]
        return acks[-1].result(30).offset + 1

    def watch(self, view: str, **request: Any) -> Any:
        """A WatchView call, as an iterator of responses."""
        return self.stub.WatchView(views_pb2.WatchViewRequest(view=view, **request))

    def rows(self, view: str, after: int = 0) -> list[dict[str, Any]]:
        """A view's rows, once it covers an offset."""
        return self.tm.view(view).query(after=after, order_by="country").rows()


def sale(*, minute: int = 0, country: str = "France", units: int = 1, note: str = "") -> dict[str, Any]:
    """A sale as the SDK takes it."""
    return {"at": f"2023-11-14T22:{13 + minute:02}:30Z", "country": country, "units": units, "note": note}


@contextmanager
def serving(
    folder: Path, content: bytes | None = None, *, given: Path | None = None, api_key: str | None = None
) -> Iterator[ServedViews]:
    """The service in that folder until the block ends; `content`: a manifest that --manifest names, or `given`."""
    proto = folder / "proto"
    proto.mkdir(exist_ok=True)
    (proto / "sale.proto").write_text(PROTO, encoding="utf-8")
    if content is not None:
        given = folder / "manifest.json"
        given.write_bytes(content)
    config = ServiceConfig(data=folder / "data", proto=proto, manifest=given, port=0, export_interval_s=0)
    with (
        closing(Service(config)) as service,
        _served(service) as address,
        grpc.insecure_channel(address) as channel,
        tidemill.connect(address, credentials=tidemill.Credentials(api_key=api_key)) as tm,
    ):
        yield ServedViews(service, tm, channel)


class Copy:
    """A watcher's copy of a view, kept by what it is told."""

    def __init__(self, *key: str) -> None:
        self.key = key
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.resume = ""
        self.resets = 0

    def take(self, change: tidemill.ViewChange) -> None:
        if change.reset:
            self.rows.clear()
            self.resets += 1
        for row in change:
            self.rows[tuple(row[name] for name in self.key)] = row
        self.resume = change.resume

    def sorted(self) -> list[dict[str, Any]]:
        return sorted(self.rows.values(), key=str)


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """What the network or another thread does is told by no event here."""
    end = time.monotonic() + within_s
    for _ in itertools.count():
        if holds():
            return
        assert time.monotonic() < end
        time.sleep(0.01)
