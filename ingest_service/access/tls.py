"""TLS: the service's certificate, and the authorities of its clients' certificates."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

import grpc

from ingest_service.errors import ConfigError

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. cert: the service's certificate chain. key: its private key. client_ca: authorities of the clients'
    certificates; with it, who has none of theirs gets no connection (mTLS). None: clients need no certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> None:
        """Raises ConfigError for a file that can't be read or holds no PEM, or for a key that anybody may read."""
        for option, file in self._files():
            content = _read(option, file)
            if b"-----BEGIN " not in content:
                raise ConfigError(f"{option}: expected a PEM file (-----BEGIN …), {file} is none")
        if self.key.stat().st_mode & 0o007:
            raise ConfigError(f"--tls-key: everybody on this machine may read {self.key}: chmod 600 {self.key}")
        _check_pair(self.cert, self.key)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for a port; each new connection gets the files as they are then."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            _Follower(self).changed,  # type: ignore[arg-type]
            require_client_authentication=self.client_ca is not None,
        )

    def stamp(self) -> _Stamp:
        """Differs once one of the files was replaced or rewritten; raises OSError."""
        stats = [file.stat() for _, file in self._files()]
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in stats)

    def _files(self) -> list[tuple[str, Path]]:
        files = [("--tls-cert", self.cert), ("--tls-key", self.key)]
        return files if self.client_ca is None else [*files, ("--tls-client-ca", self.client_ca)]

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        contents = [_read(option, file) for option, file in self._files()]
        ca = contents[2] if self.client_ca is not None else None
        return grpc.ssl_server_certificate_configuration([(contents[1], contents[0])], root_certificates=ca)


class _Follower:
    """Tells gRPC of changed files, at each new connection. What can't be used changes nothing."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp = files.stamp()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration when a file has changed; None while nothing has."""
        try:
            with self._lock:
                stamp = self._files.stamp()
                if stamp == self._stamp:
                    return None
                self._stamp = stamp
            self._files.check()
            configuration = self._files._configuration()
        except (OSError, ConfigError) as error:
            log.error("the TLS files have changed and can't be used; those from before stay in force: %s", error)
            return None
        log.info("TLS files read again: %s", self._files.cert)
        return configuration


def _read(option: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: the file {file} can't be read: {error.strerror}") from error


def _check_pair(cert: Path, key: Path) -> None:
    """gRPC would take a key that does not belong to the certificate, and fail at every connection."""
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"--tls-cert, --tls-key: {key} is not the private key of {cert}, or one of them is damaged "
            f"({getattr(error, 'reason', None) or error})"
        ) from None
