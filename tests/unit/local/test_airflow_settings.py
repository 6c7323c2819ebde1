"""Airflow's environment and secrets: made once, for nobody else's eyes, and not to be undone by stray variables."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import pytest

from tidemill.local.airflow_settings import LOCAL_SETTINGS, airflow_environment, make_login, make_secrets
from tidemill.local.errors import LocalError

ROOT = Path(__file__).parents[3]


def environment(home: Path, url: str = "postgresql://me:secret@host/db") -> dict[str, str]:
    return airflow_environment(
        home=home,
        dags=home / "dags",
        port=8080,
        database_url=url,
        login=make_login(home),
        keys=make_secrets(home),
        extra={"TIDEMILL_DATA": "/data"},
    )


def test_login_and_secrets_are_made_once_and_kept_private(tmp_path: Path) -> None:
    login, keys = make_login(tmp_path), make_secrets(tmp_path)
    assert make_login(tmp_path) == login
    assert make_secrets(tmp_path) == keys
    assert make_login(tmp_path / "other").password != login.password
    assert {file.stat().st_mode & 0o777 for file in tmp_path.glob("*.json")} == {0o600}


def test_no_secret_is_shown_by_accident(tmp_path: Path) -> None:
    login, keys = make_login(tmp_path), make_secrets(tmp_path)
    assert login.password not in repr(login)
    assert keys.jwt_secret not in repr(keys)


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "login.json").write_text(content)
    (tmp_path / "secrets.json").write_text(content)
    with pytest.raises(LocalError, match=r"login\.json .* delete it"):
        make_login(tmp_path)
    with pytest.raises(LocalError, match=r"secrets\.json .* delete it"):
        make_secrets(tmp_path)


def test_both_drivers_get_the_same_database(tmp_path: Path) -> None:
    made = environment(tmp_path, "postgres://me:secret@host/db?sslmode=require")
    assert made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == "postgresql+psycopg2://me:secret@host/db?sslmode=require"
    assert made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == "postgresql+asyncpg://me:secret@host/db?ssl=require"


def test_another_database_is_refused_without_telling_its_password(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"TIDEMILL_AIRFLOW_DATABASE_URL .* begins with 'mysql'") as refused:
        environment(tmp_path, "mysql://me:secret@host/db")
    assert "secret" not in str(refused.value)


def test_what_holds_the_parts_together_wins_and_the_rest_is_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/elsewhere")
    monkeypatch.setenv("AIRFLOW__API__PORT", "1")
    monkeypatch.setenv("AIRFLOW__CORE__PARALLELISM", "16")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("NO_PROXY", "internal")
    made = environment(tmp_path)
    assert made["AIRFLOW_HOME"] == str(tmp_path)
    assert made["AIRFLOW__API__PORT"] == "8080"
    assert made["AIRFLOW__CORE__PARALLELISM"] == "16"
    assert made["TIDEMILL_DATA"] == "/data"
    assert "PYTHONDONTWRITEBYTECODE" not in made
    assert made["NO_PROXY"] == "internal,127.0.0.1,localhost"
    assert json.loads((tmp_path / "login.json").read_text())["admin"] not in made.values()


def test_what_is_imported_ahead_is_there() -> None:
    (ahead,) = [
        ast.literal_eval(statement.value)
        for statement in ast.parse(LOCAL_SETTINGS).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_AHEAD"
    ]
    assert set(ahead) == {"scheduler", "triggerer"}
    ours = [
        name for modules in ahead.values() for name in modules if name.split(".")[0] in {"quality", "orchestration"}
    ]
    assert [name for name in ours if not (ROOT / Path(*name.split("."))).with_suffix(".py").exists()] == []
    others = {name.split(".")[0] for modules in ahead.values() for name in modules}
    assert [name for name in sorted(others) if importlib.util.find_spec(name) is None] == []
