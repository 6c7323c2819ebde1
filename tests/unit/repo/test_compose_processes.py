"""Runs each command of docker-compose.yml as a process here, until its own health check is content.

No Docker engine runs here: what stays untested is what only an engine does (the image, networks, restarts).
"""

import subprocess
from pathlib import Path

import pytest
from unit.repo import compose
from unit.repo.services import Containers

from tidemill.local.postgres import Postgres

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")


@pytest.fixture
def containers(tmp_path):
    made = Containers(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def test_manifest_then_ingest(containers):
    containers.run_once("manifest")
    assert (containers.here.data / "live" / "manifest.json").is_file()
    containers.start("ingest")
    containers.wait_healthy("ingest")

    import tidemill

    with tidemill.connect(f"127.0.0.1:{containers.here.ingest_port}") as tm:
        views = tm.views()
        assert [stream.stream for stream in tm.streams()] == ["order_lines", "readings", "web_requests"]
    models = sorted(file.stem for file in (compose.ROOT / "dbt_project" / "models" / "live").glob("*.sql"))
    assert [view.view for view in views] == models
    assert [view.error for view in views] == [""] * len(models)


def test_ingest_ends_without_its_manifest(containers):
    service = containers.services["ingest"]
    done = subprocess.run(
        containers.here.command(service), env=containers.here.environment(service), cwd=compose.ROOT,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--manifest: there is no file" in done.stderr


@pytest.mark.airflow
def test_airflow_from_its_init_on(containers):
    start_postgres(containers)
    containers.run_once("airflow-init")
    assert (containers.here.data / "airflow" / "login.json").stat().st_mode & 0o077 == 0
    for name in AIRFLOW:
        containers.start(name)
        containers.wait_healthy(name)


def start_postgres(containers: Containers) -> None:
    """The image's PostgreSQL is not here: the wheel's, with the user and database that the image would make."""
    server = Postgres(containers.here.data / "postgres", containers.log("postgres"))
    server.prepare()
    spec, port = server.spec(), containers.here.postgres_port
    containers.start("postgres", [*spec.command, "--listen_addresses=127.0.0.1", f"--port={port}"])
    binaries = Path(next(word for word in spec.command if word.endswith("/bin/postgres"))).parent
    wanted = containers.services["postgres"]["environment"]
    ready = [str(binaries / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    containers.wait_healthy("postgres", ready)
    user, database = wanted["POSTGRES_USER"], wanted["POSTGRES_DB"]
    connect = ["--host=127.0.0.1", f"--port={port}", "--username=postgres"]
    subprocess.run([binaries / "createuser", *connect, user], check=True)
    subprocess.run([binaries / "createdb", *connect, f"--owner={user}", database], check=True)
