"""Who a client is, and how it knows the service: the API key and the files of TLS."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from tidemill.errors import TidemillError

_KEY_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client shows to the service, and what it asks the service to show.

    api_key: from `tidemill key create`; never shown by `repr`. None: none is sent.
    tls: encrypt, and check the service's certificate by the authorities that this machine trusts.
    ca: PEM file of the authorities to trust instead; means `tls`.
    cert, key: PEM files of the client's own certificate chain and private key, for services that ask for them (mTLS);
        both or neither; mean `tls`.
    plaintext_key: send the key without TLS also to other machines. Whoever sees the network's traffic can use it then.

    Raises TidemillError when `cert` comes without `key` or the other way round, or the key can't be one.
    """

    api_key: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    tls: bool = False
    plaintext_key: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            given, missing = ("cert", "key") if self.key is None else ("key", "cert")
            raise TidemillError(f"TLS: {given} is given without {missing}; a client certificate needs both files")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable() and self.api_key):
            raise TidemillError(
                "expected an API key as `tidemill key create` prints it; came empty or unprintable text"
            )

    @property
    def secure(self) -> bool:
        """Whether the connection is encrypted."""
        return self.tls or self.ca is not None or self.cert is not None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The credentials that the environment names; none where it names none.

        TIDEMILL_API_KEY or TIDEMILL_API_KEY_FILE, TIDEMILL_TLS (1: by this machine's authorities), TIDEMILL_TLS_CA,
        TIDEMILL_TLS_CERT, TIDEMILL_TLS_KEY, TIDEMILL_PLAINTEXT_KEY (1). Raises TidemillError for a file that can't be
        read.
        """
        found = os.environ if environment is None else environment
        api_key = found.get("TIDEMILL_API_KEY") or None
        key_file = found.get("TIDEMILL_API_KEY_FILE")
        if api_key is None and key_file:
            api_key = read_secret("TIDEMILL_API_KEY_FILE", Path(key_file))
        return cls(
            api_key=api_key,
            ca=_path(found, "TIDEMILL_TLS_CA"),
            cert=_path(found, "TIDEMILL_TLS_CERT"),
            key=_path(found, "TIDEMILL_TLS_KEY"),
            tls=_is_set(found, "TIDEMILL_TLS"),
            plaintext_key=_is_set(found, "TIDEMILL_PLAINTEXT_KEY"),
        )

    @classmethod
    def chosen(cls, api_key: str | None, tls: bool | str | os.PathLike[str] | None) -> Self:
        """What was given to `connect`, and the environment's where nothing was."""
        found = cls.from_environment()
        if api_key is not None:
            found = replace(found, api_key=api_key)
        if isinstance(tls, bool):
            # Off is off, whatever the environment trusts.
            return replace(found, tls=True) if tls else replace(found, tls=False, ca=None, cert=None, key=None)
        return found if tls is None else replace(found, ca=Path(tls))


def read_secret(name: str, file: Path) -> str:
    """The first line of a file that holds nothing but a secret; `name` says whose it is in TidemillError."""
    return read_file(name, file, _KEY_BYTES_MAX).decode("ascii", "replace").strip()


def read_file(name: str, file: Path, bytes_max: int = 1 << 20) -> bytes:
    """A small file's bytes; raises TidemillError, which tells the file and never what is in it."""
    try:
        with file.open("rb") as opened:
            return opened.read(bytes_max)
    except OSError as error:
        raise TidemillError(f"{name}: the file {file} can't be read: {error.strerror or error}") from None


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(environment[name]) if environment.get(name) else None


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return environment.get(name, "").lower() in {"1", "true", "yes"}
