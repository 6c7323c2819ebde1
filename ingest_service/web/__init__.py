"""The service over HTTP: metrics for Prometheus, and whether it is alive and ready.

Owns a small server on a thread of its own (`server`), the metrics (`metrics`) and the checks (`health`). Only asks the
parts what they count anyway: nothing here is on the path of a row. Main types: `HttpServer`, `Observed`.
"""

from ingest_service.web.observed import Observed, ObservedStream
from ingest_service.web.server import HttpListen, HttpServer

__all__ = ["HttpListen", "HttpServer", "Observed", "ObservedStream"]
