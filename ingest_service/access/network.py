"""From where a service may be reached, and what that asks of it."""

from __future__ import annotations

from ipaddress import ip_address

from ingest_service.access.key_file import KeyFile
from ingest_service.access.tls import TlsFiles
from ingest_service.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it; False for names, which may mean anything, but localhost."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_reach(option: str, host: str, tls: TlsFiles | None, keys: KeyFile, *, allow_open_network: bool) -> None:
    """Beyond loopback a service needs TLS and keys, unless its network is said to be closed.

    Raises:
        ConfigError: one of them is missing; the text says what to do.
    """
    if is_loopback(host) or allow_open_network:
        return
    missing = []
    if tls is None:
        missing.append("no certificate (--tls-cert FILE --tls-key FILE)")
    if not keys.read():
        missing.append(f"no API key (tidemill key create NAME --stream S --allow write --data {keys.path.parent})")
    if missing:
        raise ConfigError(
            f"{option}: {host} is reachable from other machines, and there is {' and '.join(missing)}. Give what is "
            "missing, listen on 127.0.0.1, or say --allow-open-network where the network itself is closed"
        )
