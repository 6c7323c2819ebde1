"""docker-compose.yml by the book: the Compose Specification's own schema, and what we promise of it."""

import hashlib
import json
import re
from pathlib import Path

import jsonschema
import pytest
from unit.repo import compose

from tidemill.local import airflow, airflow_settings
from tidemill.local.templates import shared_files

SCHEMA = Path(__file__).with_name("compose-spec.json")
DOCKERFILE = (compose.ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPONENTS = {name: words for name, words in airflow.COMMANDS.items() if name != "migrate"}
PARTS = {"ingest", "postgres", *(f"airflow-{name}" for name in COMPONENTS)}
ONCE = {"manifest", "airflow-init"}


@pytest.fixture(scope="module")
def services():
    return compose.load(compose.SECRETS)["services"]


def test_schema_is_the_one_that_is_named():
    text = SCHEMA.with_suffix(".md").read_text(encoding="utf-8")
    assert hashlib.sha256(SCHEMA.read_bytes()).hexdigest() in text


@pytest.mark.parametrize("environment", [None, compose.SECRETS], ids=["as written", "interpolated"])
def test_file_keeps_the_compose_specification(environment):
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    problems = [f"{list(e.absolute_path)}: {e.message}" for e in validator.iter_errors(compose.load(environment))]
    assert problems == []


def test_schema_would_find_a_mistake():
    content = compose.load(compose.SECRETS)
    content["services"]["ingest"]["restart_policy"] = "always"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_parts_are_those_of_make_up(services):
    assert set(services) == PARTS | ONCE


def test_components_have_the_commands_of_make_up(services):
    for name, arguments in COMPONENTS.items():
        assert services[f"airflow-{name}"]["command"] == ["airflow", *arguments]


@pytest.mark.parametrize("name", sorted(compose.SECRETS))
def test_without_a_secret_nothing_starts(name):
    others = {key: value for key, value in compose.SECRETS.items() if key != name}
    with pytest.raises(compose.VariableMissing, match=name):
        compose.load(others)
    with pytest.raises(compose.VariableMissing, match=name):
        compose.load({**others, name: ""})


def test_no_secret_is_written_down():
    for name, value in re.findall(r"(\w*(?:PASSWORD|SECRET|KEY)\w*): +(\S.*)", compose.FILE.read_text("utf-8")):
        assert re.match(r"\$\{\w+:\?", value) or name.endswith("PASSWORDS_FILE"), name


def test_every_port_is_bound_to_loopback(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert "network_mode" not in compose.FILE.read_text("utf-8")


def test_long_running_parts_are_watched_and_restarted(services):
    for name in PARTS:
        assert services[name]["restart"] == "unless-stopped", name
        assert services[name]["healthcheck"]["test"][0] == "CMD", name
    for name in ONCE:
        assert services[name]["restart"] == "no", name


def test_parts_wait_for_what_they_need(services):
    conditions = {
        (name, other): needed["condition"]
        for name, service in services.items()
        for other, needed in service.get("depends_on", {}).items()
    }
    for (name, other), condition in conditions.items():
        expected = "service_completed_successfully" if other in ONCE else "service_healthy"
        assert condition == expected, (name, other)
    assert ("ingest", "manifest") in conditions
    assert ("airflow-init", "postgres") in conditions
    assert {name for name, other in conditions if other == "airflow-init"} == PARTS - {"ingest", "postgres"}


def test_settings_are_those_of_make_up(services):
    measured = {**airflow_settings.TUNING, **airflow_settings.QUIET}
    for name in PARTS - {"ingest", "postgres"}:
        given = services[name]["environment"]
        assert {key: given.get(key) for key in measured} == measured, name


def test_airflow_is_told_as_much_as_by_make_up(services):
    login = airflow_settings.Login("admin", "x", Path("/data/airflow/login.json"))
    locally = airflow_settings.airflow_environment(
        home=Path("/data/airflow"), dags=Path("/tidemill/dags"), port=8080, database_url="postgresql://a@b/c",
        login=login, keys=airflow_settings.Secrets("a", "b", "c"), extra={},
    )  # fmt: skip
    given = services["airflow-scheduler"]["environment"]
    settings = {name for name in locally if name.startswith("AIRFLOW")}
    assert settings - set(given) == set()
    same = {
        "AIRFLOW_HOME",
        "AIRFLOW__CORE__EXECUTOR",
        "AIRFLOW__CORE__DAGS_FOLDER",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER",
    }
    assert {name: given[name] for name in same} == {name: locally[name] for name in same}


def test_what_the_days_read_of_the_environment_can_be_said(services):
    sources = [file for folder in ("orchestration", "quality") for file in (compose.ROOT / folder).rglob("*.py")]
    read = {name for file in sources for name in re.findall(r"\bTIDEMILL_[A-Z_]+\b", file.read_text("utf-8"))}
    by_the_run = {"TIDEMILL_PINS", "TIDEMILL_WAREHOUSE", "TIDEMILL_WORK_COPY"}
    for name in ("airflow-scheduler", "airflow-triggerer", "airflow-dag-processor", "airflow-api-server"):
        assert read - by_the_run - set(services[name]["environment"]) == set(), name


def test_volumes_are_declared():
    content = compose.load(compose.SECRETS)
    used = {volume.split(":")[0] for service in content["services"].values() for volume in service["volumes"]}
    assert used == set(content["volumes"])


def test_images_have_a_tag_and_one_is_ours(services):
    images = {service["image"] for service in services.values()}
    assert images == {"tidemill:0.1.0", "postgres:18-bookworm"}
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases == ["python:3.12-slim-bookworm"] * 2


def test_image_installs_as_make_does():
    makefile = (compose.ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = re.search(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)
    assert wanted
    assert f"ARG UV_VERSION={wanted[1]}\n" in DOCKERFILE
    assert "--require-hashes -r requirements.lock" in DOCKERFILE
    users = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert users == ["tidemill"]


def test_image_gets_every_folder_that_it_needs():
    ignore = (compose.ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignore[1 + ignore.index("*") :] if ignore[0] == "*" else "*" in ignore
    for name in ("dags", "dbt_project", "ingest_service", "orchestration", "proto", "quality", "retail", "suites",
                 "tidemill", "requirements.lock", "pyproject.toml", "README.md", "LICENSE",
                 *{Path(path).parts[0] for path in shared_files()}):  # fmt: skip
        assert f"!{name}" in ignore
