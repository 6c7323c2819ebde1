"""The ingest service as a supervised process."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from tidemill.local.airflow_settings import QUIET
from tidemill.local.folder import DataFolder
from tidemill.local.ports import LOOPBACK
from tidemill.local.process import ProcessSpec

SERVICE = "ingest-service"


def service_spec(project: Path, folder: DataFolder, port: int) -> ProcessSpec:
    """The service as a process to supervise: ready when its health service says SERVING."""
    options = {
        "--data": folder.root,
        "--listen": f"{LOOPBACK}:{port}",
        "--proto": project / "proto",
        "--manifest": folder.manifest,
    }
    return ProcessSpec(
        name=SERVICE,
        command=[sys.executable, "-m", "ingest_service", *(str(part) for pair in options.items() for part in pair)],
        log=folder.log(SERVICE),
        environment=child_environment(),
        folder=project,
        ready=lambda: is_serving(port),
        ready_timeout_s=60.0,
    )


def is_serving(port: int) -> bool:
    """Ask a service on this machine for its health; False also when nobody answers."""
    try:
        # gRPC would wait longer after each refusal: ask it only when somebody listens.
        socket.create_connection((LOOPBACK, port), timeout=0.5).close()
    except OSError:
        return False
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def child_environment() -> dict[str, str]:
    """The environment of the service and of dbt, without what is of another process or run."""
    # PYTHONDONTWRITEBYTECODE would make each start compile all libraries anew; TIDEMILL_PINS is of some run.
    dropped = {"PYTHONDONTWRITEBYTECODE", "TIDEMILL_PINS"}
    return {**QUIET, **{name: value for name, value in os.environ.items() if name not in dropped}}
