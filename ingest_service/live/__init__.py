"""Live views: dbt models tagged `live`, kept up to date as events arrive.

Owns the way from a model's compiled SQL to a table that follows its stream: manifest, merge plan, store, checkpoint,
rebuild, and queries, across time too. Does not own the log and the warehouse that it reads, and knows nothing of gRPC
or of the lake.

Main types: `LiveViews` (all of them), `LiveView` (one, as a function of a prefix of the log), `MergePlan` (its SQL),
`Store` (its tables, in SQLite or PostgreSQL).
"""

from ingest_service.live.boundary import Boundary
from ingest_service.live.description import ViewColumn
from ingest_service.live.engine import LiveViews
from ingest_service.live.query import Operator, SealedRange, ViewFilter, ViewQuery, ViewResult
from ingest_service.live.status import Change, ViewChange, ViewState, ViewStatus
from ingest_service.live.watch import ViewChanges, ViewWatch

__all__ = [
    "Boundary",
    "Change",
    "LiveViews",
    "Operator",
    "SealedRange",
    "ViewChange",
    "ViewChanges",
    "ViewColumn",
    "ViewFilter",
    "ViewQuery",
    "ViewResult",
    "ViewState",
    "ViewStatus",
    "ViewWatch",
]
