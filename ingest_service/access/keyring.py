"""The API keys that a running service knows."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from pathlib import Path

from ingest_service.access.key import ApiKey, split_key
from ingest_service.access.key_file import KeyFile
from ingest_service.clock import Clock
from ingest_service.errors import IngestError, Unauthenticated

LOOK_AGAIN_S = 0.5
"""A key that is revoked counts no more after so many seconds at the latest; one that is created counts at once."""

log = logging.getLogger(__name__)


class Keyring:
    """The keys of a data folder; follows the key file's changes. Thread-safe.

    While the file can't be read the keys known before stay valid. Without a file no key is: a service that began by
    asking for keys does not open by itself.
    """

    def __init__(self, data: Path, clock: Clock) -> None:
        """Raises ConfigError: the key file can't be read."""
        self._file = KeyFile(data)
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = self._seen = self._stamp_now()
        self._keys = {key.id: key for key in self._file.read()}
        self._looked_s = clock.monotonic_s()

    def __len__(self) -> int:
        """How many keys are valid now."""
        now = self._now()
        return sum(not key.has_expired(now) for key in self._keys.values())

    def authenticate(self, authorization: str | None) -> ApiKey:
        """The key that an `authorization` header of a call carries.

        Raises:
            Unauthenticated: there is none, or it is unknown, revoked or expired; the text does not say which of these.
        """
        self._follow()
        if not authorization:
            raise Unauthenticated(
                "expected an API key, as metadata `authorization: Bearer tm_…`; came none. `tidemill key create` makes "
                "one; clients take it from TIDEMILL_API_KEY_FILE or TIDEMILL_API_KEY"
            )
        scheme, _, text = authorization.partition(" ")
        parts = split_key(text.strip()) if scheme.lower() == "bearer" else None
        key = (self._keys.get(parts[0]) or self._look_again_for(parts[0])) if parts else None
        if parts and key is not None and key.is_its_secret(parts[1]) and not key.has_expired(self._now()):
            return key
        raise Unauthenticated(
            "the API key is unknown, revoked or expired; `tidemill key list` shows the keys of this service"
        )

    def is_valid(self, key: ApiKey) -> bool:
        """Whether the key still counts: running calls end when theirs does not."""
        self._follow()
        return self._keys.get(key.id) == key and not key.has_expired(self._now())

    def _follow(self) -> None:
        """Look at the file, every LOOK_AGAIN_S at the most."""
        if self._clock.monotonic_s() - self._looked_s >= LOOK_AGAIN_S:
            self._look()

    def _look_again_for(self, key_id: str) -> ApiKey | None:
        """A key that was made since the last look, or one that another thread is just reading.

        A file that can't be read is not tried again for it: whoever has no key would fill the service's log.
        """
        if self._stamp_now() != self._seen:
            self._look()
        with self._lock:
            return self._keys.get(key_id)

    def _look(self) -> None:
        """Read the file again if it has changed."""
        with self._lock:
            self._looked_s = self._clock.monotonic_s()
            self._seen = stamp = self._stamp_now()
            if stamp == self._stamp:
                return
            try:
                self._keys = {key.id: key for key in self._file.read()}
            except IngestError as error:
                log.error("the API keys known before stay in force: %s", error)
                return
            self._stamp = stamp
            log.info("API keys read again: %d", len(self._keys))

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = self._file.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_us() / 1e6, dt.UTC)
