"""An API key: whose it is, what it allows, and how a secret is told to be its own."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from ingest_service.errors import ConfigError

ALL_STREAMS = "*"
"""In place of a stream's name: every stream, also those to come."""
PREFIX = "tm"
_SECRET_BYTES = 32
_ID_BYTES = 6
SECRET_PATTERN = re.compile(rf"\b{PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_[A-Za-z0-9_-]+")
"""Finds keys in text, with the key's id as its group."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Right(StrEnum):
    """What a key may do with the streams that it names. None of them includes another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: everything but its secret.

    id: public, names the key in lists and logs. name: the client's, chosen by people. streams: names, or ALL_STREAMS.
    sha256: of the secret. The secret is 256 random bits, so there is nothing to guess: a slow hash, which makes
    guessing people's passwords dear, would only make every call dear here. created_at, expires_at: UTC.
    """

    id: str
    name: str
    streams: frozenset[str]
    rights: frozenset[Right]
    sha256: bytes
    created_at: dt.datetime
    expires_at: dt.datetime | None = None

    def is_its_secret(self, secret: str) -> bool:
        """Whether the secret is the key's own; takes as long whatever the answer is."""
        return hmac.compare_digest(self.sha256, _digest(secret))

    def allows(self, right: Right | None, stream: str) -> bool:
        """Whether it allows this on the stream; None: whether it allows anything at all there."""
        return (ALL_STREAMS in self.streams or stream in self.streams) and (right is None or right in self.rights)

    def has_expired(self, now: dt.datetime) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now >= self.expires_at

    def to_json(self) -> dict[str, Any]:
        """As it stands in the key file."""
        return {
            "id": self.id,
            "name": self.name,
            "streams": sorted(self.streams),
            "allow": sorted(self.rights),
            "created_at": self.created_at.isoformat(),
            "expires_at": self.expires_at.isoformat() if self.expires_at else None,
            "sha256": self.sha256.hex(),
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError for what `to_json` did not write."""
        expires_at = found["expires_at"]
        return cls(
            id=found["id"],
            name=found["name"],
            streams=frozenset(found["streams"]),
            rights=frozenset(Right(each) for each in found["allow"]),
            sha256=bytes.fromhex(found["sha256"]),
            created_at=dt.datetime.fromisoformat(found["created_at"]),
            expires_at=dt.datetime.fromisoformat(expires_at) if expires_at else None,
        )


def new_key(
    name: str, streams: frozenset[str], rights: frozenset[Right], now: dt.datetime, expires_at: dt.datetime | None
) -> tuple[ApiKey, str]:
    """A key and its text, `tm_<id>_<secret>`, which is kept nowhere.

    Raises:
        ConfigError: a name that is none, no stream, no right, or an expiry that has passed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"expected a key's name of letters, digits, dots, '-' and '_', at most 63; came {name!r}")
    if not streams or not rights:
        raise ConfigError("a key without a stream or a right could do nothing: name at least one of each")
    if expires_at is not None and expires_at <= now:
        raise ConfigError(f"the key would have expired already: expected a time after {now.isoformat()}")
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    key = ApiKey(key_id, name, streams, rights, _digest(secret), now, expires_at)
    return key, f"{PREFIX}_{key_id}_{secret}"


def split_key(text: str) -> tuple[str, str] | None:
    """Id and secret of a key's text; None for text that is no key."""
    prefix, _, rest = text.partition("_")
    key_id, colon, secret = rest.partition("_")
    return (key_id, secret) if prefix == PREFIX and colon and secret else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
