"""Tidemill's SDK and command line.

    import tidemill

    with tidemill.connect("localhost:7433") as tm:
        lines = tm.stream("order_lines")
        ack = lines.send({"invoice_no": "536365", ...}).result()
        print(tm.view("sales_by_minute").query(after=ack).rows())

Names are imported when they are first used, so that `tidemill --help` and the service, which shares only the generated
stubs in `tidemill.v1`, don't pay for the SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidemill.client.ack import Ack, Acked, Rejected, RowVerdict, TableAck, TableAcked, Verdict
    from tidemill.client.applied import AppliedContract, AppliedView, ContractChange, DefinitionChange
    from tidemill.client.client import DEFAULT_ADDRESS, Client, connect
    from tidemill.client.counts import SendCounts
    from tidemill.client.credentials import Credentials
    from tidemill.client.delivery import ProducerState
    from tidemill.client.models import (
        Counts,
        Export,
        LakeUpkeep,
        Quarantine,
        QuarantinedRow,
        Rates,
        Replay,
        Seal,
        StreamStatus,
        ViewColumn,
        ViewState,
        ViewStatus,
    )
    from tidemill.client.options import ProducerOptions
    from tidemill.client.outbox import Outbox, SetAside
    from tidemill.client.read import Reading
    from tidemill.client.stream import Stream
    from tidemill.client.view import View, ViewRows
    from tidemill.client.watch import ViewChange, Watch
    from tidemill.errors import (
        AccessDenied,
        BadEvent,
        BadQuery,
        BadTable,
        ClientClosed,
        InputError,
        MissingExtra,
        NotFound,
        OutboxError,
        OutOfSequence,
        RequestRefused,
        RowQuarantined,
        SendBufferFull,
        ServiceBusy,
        ServiceError,
        ServiceUnavailable,
        TidemillError,
        WaitTimeout,
    )

__version__ = "0.1.0"

_NAMES = {
    "tidemill.client.ack": ("Ack", "Acked", "Rejected", "RowVerdict", "TableAck", "TableAcked", "Verdict"),
    "tidemill.client.applied": ("AppliedContract", "AppliedView", "ContractChange", "DefinitionChange"),
    "tidemill.client.client": ("DEFAULT_ADDRESS", "Client", "connect"),
    "tidemill.client.credentials": ("Credentials",),
    "tidemill.client.models": (
        "Counts", "Export", "LakeUpkeep", "Quarantine", "QuarantinedRow", "Rates", "Replay", "Seal", "StreamStatus",
        "ViewColumn", "ViewState", "ViewStatus",
    ),
    "tidemill.client.delivery": ("ProducerState",),
    "tidemill.client.options": ("ProducerOptions",),
    "tidemill.client.outbox": ("Outbox", "SetAside"),
    "tidemill.client.counts": ("SendCounts",),
    "tidemill.client.read": ("Reading",),
    "tidemill.client.stream": ("Stream",),
    "tidemill.client.view": ("View", "ViewRows"),
    "tidemill.client.watch": ("ViewChange", "Watch"),
    "tidemill.errors": (
        "AccessDenied", "BadEvent", "BadQuery", "BadTable", "ClientClosed", "InputError", "MissingExtra", "NotFound",
        "OutOfSequence", "OutboxError", "RequestRefused", "RowQuarantined", "SendBufferFull", "ServiceBusy",
        "ServiceError", "ServiceUnavailable", "TidemillError", "WaitTimeout",
    ),
}  # fmt: skip
_MODULES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "DEFAULT_ADDRESS",
    "AccessDenied",
    "Ack",
    "Acked",
    "AppliedContract",
    "AppliedView",
    "BadEvent",
    "BadQuery",
    "BadTable",
    "Client",
    "ClientClosed",
    "ContractChange",
    "Counts",
    "Credentials",
    "DefinitionChange",
    "Export",
    "InputError",
    "LakeUpkeep",
    "MissingExtra",
    "NotFound",
    "OutOfSequence",
    "Outbox",
    "OutboxError",
    "ProducerOptions",
    "ProducerState",
    "Quarantine",
    "QuarantinedRow",
    "Rates",
    "Reading",
    "Rejected",
    "Replay",
    "RequestRefused",
    "RowQuarantined",
    "RowVerdict",
    "Seal",
    "SendBufferFull",
    "SendCounts",
    "ServiceBusy",
    "ServiceError",
    "ServiceUnavailable",
    "SetAside",
    "Stream",
    "StreamStatus",
    "TableAck",
    "TableAcked",
    "TidemillError",
    "Verdict",
    "View",
    "ViewChange",
    "ViewColumn",
    "ViewRows",
    "ViewState",
    "ViewStatus",
    "WaitTimeout",
    "Watch",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tidemill' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
