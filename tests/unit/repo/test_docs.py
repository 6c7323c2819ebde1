"""The documents say what the code does: options, variables, errors, paths."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from unit.repo import cli_reference
from unit.repo.blocks import DOCUMENTS, ROOT, blocks

import tidemill.errors
from ingest_service import errors
from ingest_service.rpc import status

OPERATE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
ERRORS = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PACKAGES = ("tidemill", "ingest_service", "quality", "orchestration")
# Of the data folder, or of an example.
OF_NO_REPOSITORY = {
    "docs/dbt/",
    "docs/data/",
    "docs/gx/",
    "proto/payments/v1/payment.proto",
    "proto/payments/v2/payment.proto",
}
SOURCES = [
    file
    for folder in (*PACKAGES, "dags", "dbt_project")
    for file in (ROOT / folder).rglob("*")
    if file.suffix in {".py", ".yml"} and "__pycache__" not in file.parts
]


def test_every_command_and_option_is_in_the_reference():
    again = f"run: {Path(sys.executable).name} tests/unit/repo/cli_reference.py"
    # Where a line is broken differs between Pythons.
    assert cli_reference.FILE.read_text(encoding="utf-8").split() == cli_reference.reference().split(), again


def test_every_environment_variable_is_described():
    used = {name for file in SOURCES for name in re.findall(r"\bTIDEMILL_[A-Z_]+\b", file.read_text(encoding="utf-8"))}
    described = set(re.findall(r"^\| `(TIDEMILL_[A-Z_]+)`", OPERATE, re.MULTILINE))
    assert used - described == set()
    assert described - used == set()


def errors_of(root: type[Exception]) -> set[type[Exception]]:
    found = {root}
    for each in root.__subclasses__():
        found |= errors_of(each)
    return {each for each in found if each.__module__ == root.__module__}


def table(text: str, columns: int) -> dict[str, list[str]]:
    """The rows of the tables with so many columns, by the code word in their first cell."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    cells = {name: [cell.strip() for cell in rest.split(" | ")] for name, rest in rows}
    return {name: found for name, found in cells.items() if len(found) == columns - 1}


def test_every_status_is_in_the_table():
    told = table(ERRORS, 5)
    # An option that is wrong ends the service's start: no call ever sees it.
    kinds = errors_of(errors.IngestError) - {errors.IngestError, errors.ConfigError}
    answers = {kind: status.answer_of(kind.__new__(kind)) for kind in kinds}
    assert [kind.__name__ for kind, answer in answers.items() if answer.reason == status.INTERNAL] == []
    assert set(told) == {answer.reason for answer in answers.values()} | {status.INTERNAL}
    for answer in answers.values():
        code, retry, *_ = told[answer.reason]
        assert (code, retry) == (answer.code.name, "no" if answer.retry_after_ms is None else "yes"), answer


def test_the_table_says_what_the_sdk_raises():
    from tidemill.client import status as client_status

    for reason, (code, _, _, raised) in table(ERRORS, 5).items():
        by_code = {each.name: kind for each, kind in client_status._CLASSES.items()}
        expected = by_code.get(code, tidemill.errors.ServiceError)
        assert raised == f"`{expected.__name__}`", reason


def test_a_retry_is_promised_only_where_the_sdk_makes_one():
    from tidemill.client import status as client_status

    retried = {code.name for code in client_status.LOST | client_status.BUSY}
    for reason, (code, retry, _, raised) in table(ERRORS, 5).items():
        assert (retry == "yes") == (code in retried), reason
        assert (retry == "yes") == getattr(tidemill.errors, raised.strip("`")).retryable, reason


def test_every_error_of_the_sdk_is_described():
    kinds = errors_of(tidemill.errors.TidemillError) - {tidemill.errors.TidemillError}
    assert set(table(ERRORS, 2)) == {kind.__name__ for kind in kinds}
    for kind in kinds:
        if kind.retryable:
            assert "retryable" in table(ERRORS, 2)[kind.__name__][0], kind


def test_every_rule_of_ours_is_described():
    from ingest_service.contracts import own_rules

    contracts = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    rules = {value for value in vars(own_rules).values() if isinstance(value, str) and value.startswith("tidemill.")}
    assert rules == set(re.findall(r"^\| `(tidemill\.\w+)`", contracts, re.MULTILINE))


def test_every_contract_option_is_described():
    from tidemill.v1 import options_pb2

    contracts = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    for message in (options_pb2.StreamOptions, options_pb2.FieldOptions):
        for field in message.DESCRIPTOR.fields:
            assert f"| `{field.name}` |" in contracts, field.full_name


def test_every_producer_option_is_described():
    import dataclasses

    from tidemill import ProducerOptions

    text = (ROOT / "docs" / "send-events.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(ProducerOptions):
        assert f"`{field.name}`" in text, field.name


def test_limits_are_those_of_the_code():
    from ingest_service.contracts import IntakeLimits
    from ingest_service.live.manifest import DISTINCT_VALUES_MAX
    from ingest_service.log import LogSettings
    from ingest_service.log.sealing import SEAL_DAYS_MAX
    from ingest_service.rpc.append import IN_FLIGHT_MAX
    from ingest_service.rpc.read import HELD_BYTES_MAX
    from ingest_service.rpc.server import MESSAGE_BYTES_MAX

    log = LogSettings()
    text = " ".join(OPERATE.split())
    for words in (
        f"{MESSAGE_BYTES_MAX >> 20} MiB and {IntakeLimits().max_rows:,} rows a message",
        f"{IN_FLIGHT_MAX} requests of a call unanswered",
        f"{log.queue_bytes_max >> 20} MiB and {log.queue_appends_max:,} appends waiting",
        f"{log.dedup_ids_max // 1_000_000} million",
        f"{log.producer_expiry_s // 86_400} days, {log.producers_max:,}",
        f"{SEAL_DAYS_MAX:,} days in one seal",
        f"{HELD_BYTES_MAX >> 20} MiB of rows waiting for all readers",
    ):
        assert words in text
    assert log.dedup_age_s == 86_400
    assert f"{DISTINCT_VALUES_MAX:,} a group" in (ROOT / "docs" / "live-views.md").read_text(encoding="utf-8")


def test_limits_of_calls_are_those_of_the_code():
    from ingest_service.rpc import admission, server

    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for words in (
        f"| a message | {server.MESSAGE_BYTES_MAX >> 20} MiB |",
        f"| metadata of a call | {server.METADATA_BYTES_MAX >> 10} KiB |",
        f"| calls of one connection | {server.CALLS_PER_CONNECTION_MAX:,} |",
        f"read, and not committed | {admission.IN_HAND_BYTES_MAX >> 20} MiB |",
        f"| requests that wait so | {admission.WAITING_BYTES_MAX >> 20} MiB |",
        f"| read ahead of a call that waits | {server.READ_AHEAD_BYTES >> 20} MiB |",
    ):
        assert words in text


def test_architecture_names_only_what_exists():
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:py|toml))`", ARCHITECTURE))
    # Modules named without their folder, in a paragraph that is about one package.
    bare = {name for name in named if "/" not in name and name != "pyproject.toml"}
    assert [name for name in sorted(named - bare) if not (ROOT / name).exists()] == []
    modules = {file.name for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert bare - modules == set()
    diagram = re.findall(r"^ +[│├└▼►─ ]*((?:tidemill|ingest_service|proto|dags)/[\w./]+)", ARCHITECTURE, re.MULTILINE)
    assert [name for name in diagram if not (ROOT / name).exists()] == []


def test_architecture_names_every_package():
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*/__init__.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    whole = {"tidemill", "ingest_service", "retail", "sensors", "web", "benchmarks"}
    packages = {str(Path(file).parent) for file in tracked} - whole
    assert [package for package in sorted(packages) if f"`{package}`" not in ARCHITECTURE] == []


def test_architecture_names_functions_that_exist():
    for paths, names in re.findall(r"((?:`[\w/]+\.py`(?:, )?)+) \(((?:`\w+`(?:, )?)+)\)", ARCHITECTURE):
        files = [ROOT / path for path in re.findall(r"`([\w/]+\.py)`", paths)]
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"\b{name}\b", files[-1].read_text(encoding="utf-8")), (files[-1], name)


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_documents_name_only_files_that_exist(file):
    text = file.read_text(encoding="utf-8")
    named = re.findall(r"`((?:ingest_service|tidemill|quality|dbt_project|dags|tests|proto|docs)/[\w./-]+)`", text)
    places = (ROOT, ROOT / "proto")
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert [name for name in missing if name not in OF_NO_REPOSITORY] == []


def test_the_contract_in_the_documents_is_one(tmp_path):
    from ingest_service.contracts import load_contracts

    example, _ = blocks(ROOT / "docs" / "contracts.md", "proto")
    file = tmp_path / "payments" / "v1" / "payment.proto"
    file.parent.mkdir(parents=True)
    file.write_text(example.text, encoding="utf-8")
    loaded = load_contracts(tmp_path)
    assert loaded.problems == ()
    assert str(loaded.contracts["payments"].schema.field("amount").type) == "decimal128(12, 2)"


def test_decisions_are_listed():
    folder = ROOT / "docs" / "adr"
    text = (folder / "README.md").read_text(encoding="utf-8")
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [page for page in pages if f"({page})" not in text] == []
    assert [page[:4] for page in pages] == [f"{number:04d}" for number in range(1, len(pages) + 1)]
    for page in pages:
        titles = re.findall(r"^## (.+)$", (folder / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert titles == ["Context", "Choice", "What it costs"], page


def test_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
