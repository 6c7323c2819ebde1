"""The project's live models as the service takes them: compiled with dbt, and cut down to a *live manifest*.

A live manifest is dbt's manifest.json with what live views need of it, and nothing that differs from one compile, or
one machine, to the next: `metadata`; `nodes`, the models tagged `live` and the seeds that they read, each with its CSV
file's text as `tidemill_content`; `sources`. So this one file is all that the service needs, also where it has no
project beside it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidemill.errors import MissingExtra
from tidemill.local.errors import CompileFailed, FolderBusy, ProcessFailed
from tidemill.local.folder import DataFolder
from tidemill.local.process import ProcessSpec
from tidemill.local.service import child_environment
from tidemill.local.supervisor import Supervisor

COMPILE = "dbt-compile"
LIVE_TAG = "live"
FORMAT = 1
"""Counted up when a live manifest holds something else than before: all are then made anew."""
SEED_BYTES_MAX = 8 << 20
"""The largest seed that a live model may read: it travels in the manifest, and stands in the service's memory."""
COMPILE_WAIT_S = 120.0
# What dbt itself writes into a project.
GENERATED = {"target", "logs", "dbt_packages", ".user.yml", "__pycache__"}

_NODE_FIELDS = (
    "unique_id", "resource_type", "package_name", "name", "alias", "database", "schema", "relation_name",
    "original_file_path", "description", "tags", "meta", "raw_code", "compiled_code", "depends_on",
)  # fmt: skip
_CONFIG_FIELDS = (
    "materialized", "incremental_strategy", "event_time", "batch_size", "unique_key", "tags", "meta", "column_types",
    "delimiter", "quote_columns", "fast", "pre-hook", "post-hook",
)  # fmt: skip
_SOURCE_FIELDS = (
    "unique_id", "resource_type", "package_name", "source_name", "name", "identifier", "database", "schema",
    "relation_name", "meta",
)  # fmt: skip
_METADATA_FIELDS = ("dbt_schema_version", "dbt_version", "adapter_type", "project_name")


def put_in_force(project: Path, folder: DataFolder, supervisor: Supervisor) -> Path:
    """Compile the live models, and make them those that the service of this data folder starts with.

    Gives the manifest's path. Raises as `compile_models` does.
    """
    compiled = compile_models(project, folder, supervisor).read_bytes()
    if not folder.manifest.exists() or folder.manifest.read_bytes() != compiled:
        _replace(folder.manifest, compiled)
    return folder.manifest


def compile_models(project: Path, folder: DataFolder, supervisor: Supervisor | None = None) -> Path:
    """Compile the live models with dbt, unless they are as they were; gives the live manifest's path.

    It stands beside dbt's target folder in the data folder, not where a service that runs there takes its own from.
    supervisor: of the process; None: one of its own. The order of the end makes a crash harmless: the manifest is
    replaced as a whole, and only then its digest is.
    Raises CompileFailed with what dbt said, MissingExtra without dbt, FolderBusy when another compile does not end.
    """
    models = project / "dbt_project"
    manifest = folder.compile / "manifest.json"
    if _is_current(manifest, project_digest(models)):
        return manifest
    with _one_at_a_time(folder):
        digest = project_digest(models)
        if not _is_current(manifest, digest):
            _run_dbt(models, folder, supervisor)
            written = json.loads((folder.compile / "target" / "manifest.json").read_text(encoding="utf-8"))
            _replace(manifest, _as_bytes(live_manifest(written, folder.log(COMPILE))))
            _replace(_digest_file(manifest), digest.encode())
    return manifest


def live_manifest(manifest: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """Cut dbt's manifest down to a live one (see the module); `log` is dbt's, for errors.

    Raises CompileFailed when a seed that a live model reads cannot travel in it.
    """
    nodes: Mapping[str, Any] = manifest["nodes"]
    live = {name: node for name, node in nodes.items() if _is_live(node)}
    seeds = {name: nodes[name] for name in sorted(_seeds_read(live.values(), nodes))}
    kept = {name: _cut_node(node) for name, node in live.items()}
    kept |= {name: _cut_node(node) | {"tidemill_content": _content(node, log)} for name, node in seeds.items()}
    metadata = {field: manifest.get("metadata", {}).get(field) for field in _METADATA_FIELDS}
    return {
        "metadata": {**metadata, "tidemill_format": FORMAT},
        "nodes": kept,
        "sources": {name: _cut(source, _SOURCE_FIELDS) for name, source in manifest.get("sources", {}).items()},
    }


def project_digest(models: Path) -> str:
    """A digest of all that a live manifest is made from: the dbt project's files, dbt's versions and our own format.

    Raises MissingExtra without dbt.
    """
    digest = hashlib.sha256()
    digest.update(f"live manifest {FORMAT}\n".encode())
    for package in ("dbt-core", "dbt-duckdb", "duckdb"):
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise MissingExtra("compiling the live models with dbt", "batch") from error
        digest.update(f"{package} {version}\n".encode())
    for file in sorted(models.rglob("*")):
        relative = file.relative_to(models)
        if file.is_file() and not GENERATED.intersection(relative.parts):
            content = file.read_bytes()
            digest.update(f"{relative.as_posix()} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _is_live(node: Mapping[str, Any]) -> bool:
    return node.get("resource_type") == "model" and LIVE_TAG in node.get("tags", ())


def _seeds_read(models: Iterable[Mapping[str, Any]], nodes: Mapping[str, Any]) -> set[str]:
    """The seeds whose tables the models' compiled SQL may name: their own, and those of ephemeral models in it."""
    found: set[str] = set()
    waiting = [name for model in models for name in _reads(model)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        node = nodes.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node["resource_type"] == "seed":
            found.add(name)
        elif node.get("config", {}).get("materialized") == "ephemeral":
            waiting += _reads(node)
    return found


def _reads(node: Mapping[str, Any]) -> list[str]:
    names: list[str] = node.get("depends_on", {}).get("nodes", [])
    return names


def _cut_node(node: Mapping[str, Any]) -> dict[str, Any]:
    # `begin` moves from day to day, and says nothing of the rows that a live view has.
    return {**_cut(node, _NODE_FIELDS), "config": _cut(node.get("config", {}), _CONFIG_FIELDS)}


def _cut(values: Mapping[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    return {field: values[field] for field in fields if field in values}


def _content(seed: Mapping[str, str], log: Path) -> str:
    """A seed's file as text, its line ends kept: DuckDB has to read the same bytes as at night."""
    path = Path(seed["root_path"], seed["original_file_path"])
    what = f"the seed {seed['name']}, which a live model reads ({seed['original_file_path']}),"
    try:
        content = path.read_bytes()
        if len(content) > SEED_BYTES_MAX:
            raise CompileFailed(
                f"{what} has {len(content):,} bytes, more than {SEED_BYTES_MAX:,}: join it in a model that reads the "
                "live one",
                log,
            )
        return content.decode("utf-8")
    except OSError as error:
        raise CompileFailed(f"{what} cannot be read: {error}", log) from error
    except UnicodeDecodeError as error:
        raise CompileFailed(f"{what} is not UTF-8 (byte {error.start:,}): save it as UTF-8", log) from error


def _is_current(manifest: Path, digest: str) -> bool:
    known = _digest_file(manifest)
    return manifest.exists() and known.exists() and known.read_text(encoding="utf-8") == digest


def _digest_file(manifest: Path) -> Path:
    return manifest.with_suffix(".sha256")


def _as_bytes(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def _replace(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


@contextlib.contextmanager
def _one_at_a_time(folder: DataFolder) -> Iterator[None]:
    """Keep other compiles of this data folder waiting: dbt's target folder is for one."""
    folder.compile.mkdir(parents=True, exist_ok=True)
    with (folder.compile / "lock").open("ab") as lock:
        asked = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - asked >= COMPILE_WAIT_S:
                    raise FolderBusy(
                        f"another dbt compile in {folder.compile} has not ended for {COMPILE_WAIT_S:.0f} s: end it, "
                        "or choose another folder with --data"
                    ) from None
                time.sleep(0.05)
        yield


def _run_dbt(models: Path, folder: DataFolder, supervisor: Supervisor | None) -> None:
    with contextlib.ExitStack() as own:
        supervisor = supervisor or own.enter_context(Supervisor())
        supervisor.start(_compile_spec(models, folder))
        try:
            supervisor.wait_ready(COMPILE)
        except ProcessFailed as error:
            said = error.tail.rpartition("Encountered an error:")[2].strip("\n") or error.reason
            raise CompileFailed(
                f"dbt could not compile the live models in {models}; its log is {error.log}\n{said}", error.log
            ) from error


def _compile_spec(models: Path, folder: DataFolder) -> ProcessSpec:
    places = {
        "--project-dir": models,
        "--profiles-dir": models,
        "--target-path": folder.compile / "target",
        "--log-path": folder.compile,
    }
    flags = ["--no-use-colors", "--no-send-anonymous-usage-stats"]
    program = "from dbt.cli.main import cli; cli(prog_name='dbt')"
    arguments = [
        "compile", "--select", f"tag:{LIVE_TAG}", *flags, *(str(part) for pair in places.items() for part in pair),
    ]  # fmt: skip
    return ProcessSpec(
        name=COMPILE,
        command=[sys.executable, "-P", "-c", program, *arguments],
        log=folder.log(COMPILE),
        environment={
            **child_environment(),
            "TIDEMILL_DATA": str(folder.root),
            # Compiling reads no table; a file of its own keeps it clear of every writer. It is named as the warehouse
            # is, because names in the compiled SQL begin with it: the daily run holds its own SQL against this one.
            "TIDEMILL_WAREHOUSE": str(folder.compile / "warehouse.duckdb"),
        },
        # The profile names the project relative to where dbt runs.
        folder=models,
        ready_timeout_s=COMPILE_WAIT_S,
        once=True,
    )
