"""The published warehouse, as the service reads it: batch's part of a view that is read across time.

Owns how the file that the daily run publishes is opened, and what is in it beside the models: when it was published,
and which dates of which view were reconciled by then. Does not own the file: it is only ever read, and never held open
for longer than one query. Knows nothing of live views.

Main types: `PublishedWarehouse` (the file, whichever is in its place), `Publication` (one of them, opened).
"""

from ingest_service.warehouse.published import BatchTable, Publication, PublishedWarehouse

__all__ = ["BatchTable", "Publication", "PublishedWarehouse"]
