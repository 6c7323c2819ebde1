from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest_service.contracts import Contract, Intake, LoadedContracts, load_contracts
from ingest_service.contracts.contract import message_class

REPO = Path(__file__).parents[3]
NOW = dt.datetime(2011, 12, 9, 12, 0, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def now_us() -> int:
    return int(NOW.timestamp()) * 1_000_000


@pytest.fixture(scope="session")
def contract() -> Contract:
    return load_contracts(REPO / "proto").contracts["order_lines"]


@pytest.fixture(scope="session")
def intake(contract: Contract) -> Intake:
    return Intake(contract)


@pytest.fixture(scope="session")
def order_line(contract: Contract) -> Callable[..., Any]:
    """Makes a valid OrderLine; keywords replace fields, None takes one away."""
    message = message_class(contract.descriptor())

    def make(**fields: Any) -> Any:
        values: dict[str, Any] = {
            "event_id": "r1",
            "invoice_no": "536365",
            "stock_code": "85123A",
            "description": "WHITE HANGING HEART T-LIGHT HOLDER",
            "quantity": 6,
            "unit_price": "2.550",
            "invoiced_at": NOW - dt.timedelta(hours=1),
            "customer_id": 17850,
            "country": "United Kingdom",
        } | fields
        return message(**{name: value for name, value in values.items() if value is not None})

    return make


@pytest.fixture
def write_protos(tmp_path: Path) -> Callable[..., Path]:
    """Writes .proto files (path → text) into a folder of their own, and gives the folder."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            file = tmp_path / "proto" / f"{name.replace('__', '/')}.proto"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return tmp_path / "proto"

    return write


@pytest.fixture
def load(write_protos: Callable[..., Path]) -> Callable[..., LoadedContracts]:
    return lambda **files: load_contracts(write_protos(**files))


def proto(body: str, package: str = "shop.v1") -> str:
    return f"""syntax = "proto3";
package {package};
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "tidemill/v1/options.proto";
{body}
"""


@pytest.fixture(scope="session")
def proto_text() -> Callable[..., str]:
    return proto


@pytest.fixture(scope="session")
def ipc() -> Callable[[pa.RecordBatch | pa.Table], bytes]:
    def write(rows: pa.RecordBatch | pa.Table, **options: Any) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write(rows)
        return sink.getvalue().to_pybytes()

    return write
