"""Beyond loopback a service starts with TLS and keys, or with a flag that admits what it does."""

import datetime as dt

import pytest
import trustme

from ingest_service.access import KeyFile, Right, TlsFiles, check_reach, is_loopback
from ingest_service.access.key import new_key
from ingest_service.errors import ConfigError


@pytest.fixture
def keys(tmp_path) -> KeyFile:
    file = KeyFile(tmp_path)
    key, _ = new_key("shop", frozenset({"*"}), frozenset(Right), dt.datetime.now(dt.UTC), None)
    with file.changing() as kept:
        kept.append(key)
    return file


@pytest.fixture
def tls(tmp_path) -> TlsFiles:
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    return TlsFiles(cert, key)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_nothing(host, tmp_path):
    assert is_loopback(host)
    check_reach("--listen", host, None, KeyFile(tmp_path), allow_open_network=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "ingest", "localhost.example", "127.0.0.1.example"])
def test_other_addresses_need_both(host, tmp_path, tls, keys):
    nothing = KeyFile(tmp_path / "none")
    for given, missing in (((None, nothing), "no certificate.*no API key"), ((tls, nothing), "is no API key")):
        with pytest.raises(ConfigError, match=missing):
            check_reach("--listen", host, *given, allow_open_network=False)
    with pytest.raises(ConfigError, match=r"is no certificate \(--tls-cert"):
        check_reach("--listen", host, None, keys, allow_open_network=False)
    check_reach("--listen", host, tls, keys, allow_open_network=False)
    check_reach("--listen", host, None, nothing, allow_open_network=True)


def test_a_file_without_a_key_is_no_key(tmp_path, tls, keys):
    with keys.changing() as kept:
        kept.clear()
    with pytest.raises(ConfigError, match="no API key"):
        check_reach("--listen", "10.0.0.1", tls, keys, allow_open_network=False)


def test_a_private_key_is_private(tls):
    tls.check()
    tls.key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        tls.check()


@pytest.mark.parametrize("which", ["cert", "key"])
def test_files_that_are_no_pem_are_named(tls, which):
    getattr(tls, which).write_bytes(b"\x30\x82")
    with pytest.raises(ConfigError, match=f"--tls-{which}: expected a PEM file"):
        tls.check()
    getattr(tls, which).unlink()
    with pytest.raises(ConfigError, match=f"--tls-{which}: the file .* can't be read"):
        tls.check()


def test_a_key_of_another_certificate_is_refused(tls):
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tls.key)
    tls.key.chmod(0o600)
    with pytest.raises(ConfigError, match="is not the private key of"):
        tls.check()
