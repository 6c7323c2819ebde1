"""What a person sees when something is wrong: one clear line that says what to do, and no traceback."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIDEMILL = [sys.executable, "-c", "import sys; from tidemill.cli import main; sys.exit(main())"]
SERVICE = [sys.executable, "-m", "ingest_service"]


def refused(command: list[str], *, code: int = 1) -> str:
    """Run it; the one line that it says on stderr."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("tidemill: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def taken_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_missing_manifest(tmp_path):
    line = refused([*SERVICE, "--data", str(tmp_path / "data"), "--manifest", str(tmp_path / "manifest.json")])
    assert re.search(r"--manifest: there is no file .*manifest.json.*dbt compile", line)


def test_a_busy_port_of_the_service(tmp_path, taken_port):
    line = refused([*SERVICE, "--data", str(tmp_path / "data"), "--listen", f"127.0.0.1:{taken_port}"])
    assert re.search(rf"can't listen on 127.0.0.1:{taken_port}: the port is in use.*--listen", line)


def test_a_busy_port_of_up(tmp_path, taken_port):
    line = refused([*TIDEMILL, "up", "--no-airflow", "--data", str(tmp_path / "data"), "--port", str(taken_port)])
    assert str(taken_port) in line
    assert "--port" in line


def test_a_data_folder_in_use(tmp_path):
    command = [*SERVICE, "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert first.stdout is not None
        assert first.stdout.readline().startswith("listening on")
        assert re.search(rf"in use by another ingest service \(process {first.pid}\)", refused(command))
    finally:
        first.terminate()
        first.communicate(timeout=30)
    assert first.returncode == 0


def test_a_data_folder_of_another_release(tmp_path):
    (tmp_path / "FORMAT").write_text("99\n")
    line = refused([*SERVICE, "--data", str(tmp_path), "--listen", "127.0.0.1:0"])
    assert re.search(r"expected format 1 .* found '99'.*another release", line)


def test_listening_beyond_this_machine_without_keys(tmp_path):
    line = refused([*SERVICE, "--data", str(tmp_path / "data"), "--listen", "0.0.0.0:0"])
    assert "--allow-open-network" in line


def test_no_contracts(tmp_path):
    line = refused([*SERVICE, "--data", str(tmp_path / "data"), "--proto", str(tmp_path), "--listen", "127.0.0.1:0"])
    assert "no contract in" in line


def test_a_service_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        # Bound, but nobody listens.
        assert address in refused([*TIDEMILL, "status", "--address", address])


@pytest.mark.parametrize("name", ["missing.parquet", "broken.parquet", "rows.xlsx"])
def test_an_input_file_that_cannot_be_read(tmp_path, name):
    path = tmp_path / name
    if not name.startswith("missing"):
        path.write_bytes(b"no such format")
    line = refused([*TIDEMILL, "demo", "--input", str(path), "--data", str(tmp_path / "data")])
    assert name in line


def test_a_clean_that_would_remove_what_is_no_data_folder(tmp_path):
    (tmp_path / "precious.txt").write_text("keep me")
    line = refused([*TIDEMILL, "demo", "--clean", "--data", str(tmp_path)])
    assert "is not a data folder of Tidemill" in line
    assert (tmp_path / "precious.txt").exists()
