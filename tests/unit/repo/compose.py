"""Reads docker-compose.yml as Compose does, and turns a service's command into one for this machine."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docker-compose.yml"
SECRETS = {
    "POSTGRES_PASSWORD": "a1b2c3",
    "AIRFLOW_PASSWORD": "d4e5f6",
    "AIRFLOW_JWT_SECRET": "0123456789abcdef" * 4,
    "AIRFLOW_SECRET_KEY": "fedcba9876543210" * 4,
    "AIRFLOW_FERNET_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
}
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)(?::([-?])([^}]*))?\})")


class VariableMissing(Exception):
    """Compose would refuse to start: a variable has neither value nor default."""


def load(environment: dict[str, str] | None = None) -> Any:
    """The file with merges resolved; with an environment, its variables are put in."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return content if environment is None else _interpolate(content, environment)


def _interpolate(node: Any, environment: dict[str, str]) -> Any:
    if isinstance(node, dict):
        return {key: _interpolate(value, environment) for key, value in node.items()}
    if isinstance(node, list):
        return [_interpolate(value, environment) for value in node]
    return _VARIABLE.sub(lambda m: _value(m, environment), node) if isinstance(node, str) else node


def _value(match: re.Match[str], environment: dict[str, str]) -> str:
    dollar, name, kind, rest = match.groups()
    if dollar:
        return "$"
    if environment.get(name):
        return environment[name]
    if kind == "-":
        return str(rest)
    raise VariableMissing(f"{name}: {rest or 'not set'}")


@dataclass(frozen=True)
class Here:
    """Where this machine has what the containers have under fixed names."""

    data: Path
    ingest_port: int
    api_port: int = 0
    postgres_port: int = 0

    def text(self, text: str) -> str:
        """The text with the containers' paths, hosts and ports replaced by this machine's."""
        text = re.sub(r"(?<![\w.])/data\b", str(self.data), text)
        text = re.sub(r"(?<![\w.])/tidemill\b", str(ROOT), text)
        text = re.sub(r"\b(ingest|127\.0\.0\.1|0\.0\.0\.0):7433\b", f"127.0.0.1:{self.ingest_port}", text)
        text = re.sub(r"\b(airflow-api-server|127\.0\.0\.1|localhost):8080\b", f"127.0.0.1:{self.api_port}", text)
        return text.replace("@postgres:5432/", f"@127.0.0.1:{self.postgres_port}/")

    def environment(self, service: Any) -> dict[str, str]:
        """The service's environment, on top of what a process needs here to find its programs."""
        # Without a value it is handed on from whoever starts Compose: here from nobody.
        told = {name: value for name, value in service["environment"].items() if value is not None}
        given = {name: self.text(str(value)) for name, value in told.items()}
        if "AIRFLOW__API__PORT" in given:
            given |= {"AIRFLOW__API__PORT": str(self.api_port), "AIRFLOW__API__HOST": "127.0.0.1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.data), "LANG": "C.UTF-8", "no_proxy": "127.0.0.1"} | given

    def command(self, service: Any) -> list[str]:
        """The service's command."""
        return [self.text(word) for word in service["command"]]

    def health_command(self, service: Any) -> list[str]:
        """The service's health check."""
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        return [self.text(word) for word in words]
