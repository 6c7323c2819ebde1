"""The ingest service as a supervised process, and the compiled models that it keeps live views of."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import socket
import sys
from pathlib import Path

from tidemill.local.airflow_settings import QUIET
from tidemill.local.errors import CompileFailed, ProcessFailed
from tidemill.local.folder import DataFolder
from tidemill.local.ports import LOOPBACK
from tidemill.local.process import ProcessSpec
from tidemill.local.supervisor import Supervisor

SERVICE = "ingest-service"
COMPILE = "dbt-compile"
# What dbt itself writes into a project.
GENERATED = {"target", "logs", "dbt_packages", ".user.yml", "__pycache__"}


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
        environment=_environment(),
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


def compile_models(project: Path, folder: DataFolder, supervisor: Supervisor) -> Path:
    """Compile the live models with dbt, unless they are as they were; gives the manifest's path.

    The order of the end makes a crash harmless: the manifest is replaced as a whole, and only then its digest is.
    Raises CompileFailed with what dbt said.
    """
    models = project / "dbt_project"
    digest = project_digest(models)
    known = folder.manifest.with_suffix(".sha256")
    if folder.manifest.exists() and known.exists() and known.read_text() == digest:
        return folder.manifest
    folder.compile.mkdir(parents=True, exist_ok=True)
    supervisor.start(_compile_spec(models, folder))
    try:
        supervisor.wait_ready(COMPILE)
    except ProcessFailed as error:
        said = error.tail.rpartition("Encountered an error:")[2].strip("\n") or error.reason
        raise CompileFailed(
            f"dbt could not compile the live models in {models}; its log is {error.log}\n{said}", error.log
        ) from error
    written = folder.compile / "target" / "manifest.json"
    copy = folder.manifest.with_suffix(".new")
    shutil.copyfile(written, copy)
    copy.replace(folder.manifest)
    known.write_text(digest)
    return folder.manifest


def project_digest(models: Path) -> str:
    """A digest of all that dbt compiles from: the project's files and dbt's versions."""
    digest = hashlib.sha256()
    for package in ("dbt-core", "dbt-duckdb", "duckdb"):
        digest.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    for file in sorted(models.rglob("*")):
        relative = file.relative_to(models)
        if file.is_file() and not GENERATED.intersection(relative.parts):
            content = file.read_bytes()
            digest.update(f"{relative.as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _compile_spec(models: Path, folder: DataFolder) -> ProcessSpec:
    places = {
        "--project-dir": models,
        "--profiles-dir": models,
        "--target-path": folder.compile / "target",
        "--log-path": folder.compile,
    }
    flags = ["--no-use-colors", "--no-send-anonymous-usage-stats"]
    program = "from dbt.cli.main import cli; cli(prog_name='dbt')"
    arguments = ["compile", "--select", "tag:live", *flags, *(str(part) for pair in places.items() for part in pair)]
    return ProcessSpec(
        name=COMPILE,
        command=[sys.executable, "-P", "-c", program, *arguments],
        log=folder.log(COMPILE),
        environment={
            **_environment(),
            "TIDEMILL_DATA": str(folder.root),
            # Compiling reads no table; a file of its own keeps it clear of every writer.
            "TIDEMILL_WAREHOUSE": str(folder.compile / "scratch.duckdb"),
        },
        # The profile names the project relative to where dbt runs.
        folder=models,
        ready_timeout_s=120.0,
        once=True,
    )


def _environment() -> dict[str, str]:
    # PYTHONDONTWRITEBYTECODE would make each start compile all libraries anew; TIDEMILL_PINS is of some run.
    dropped = {"PYTHONDONTWRITEBYTECODE", "TIDEMILL_PINS"}
    return {**QUIET, **{name: value for name, value in os.environ.items() if name not in dropped}}
