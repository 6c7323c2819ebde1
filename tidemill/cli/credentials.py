"""The options of TLS and keys, given before the command: `tidemill --tls-ca ca.pem stream list`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_CREDENTIALS = {
    "TIDEMILL_API_KEY_FILE": ("--api-key-file", "File of the API key. The key itself may stand in TIDEMILL_API_KEY."),
    "TIDEMILL_TLS_CA": ("--tls-ca", "Talk TLS; PEM file of the authorities of the service's certificate."),
    "TIDEMILL_TLS_CERT": ("--tls-cert", "Our own certificate (PEM), where the service asks for one."),
    "TIDEMILL_TLS_KEY": ("--tls-key", "Its private key (PEM)."),
}


def credentials(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of TLS and keys. They take files, never secrets: others can read a process's command line.

    What is given goes into the environment, from which every client of this process takes it, and its children too.
    """
    for variable, (option, text) in reversed(_CREDENTIALS.items()):
        command = click.option(
            option, type=_FILE, envvar=variable, show_envvar=True, metavar="FILE", help=text,
            expose_value=False, callback=_into_environment(variable),
        )(command)  # fmt: skip
    return command


def _into_environment(variable: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def keep(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        del ctx, param
        if value is not None:
            os.environ[variable] = str(value)

    return keep
