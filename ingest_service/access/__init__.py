"""Who may do what: API keys, and the certificates of TLS.

Owns the file `keys.json` in the data folder (`key_file`), what a key is and allows (`key`), the keys that a running
service knows (`keyring`), TLS files that are read again when they change (`tls`), and what an address asks of both
(`network`). Knows no protobuf; of gRPC only the credentials that a port is opened with. Which call needs which right
is `ingest_service.rpc.auth`'s. Main types: `ApiKey`, `KeyFile`, `Keyring`, `TlsFiles`.
"""

from ingest_service.access.key import ALL_STREAMS, ApiKey, Right
from ingest_service.access.key_file import KEY_FILE, KeyFile
from ingest_service.access.keyring import Keyring
from ingest_service.access.network import check_reach, is_loopback
from ingest_service.access.tls import TlsFiles

__all__ = ["ALL_STREAMS", "KEY_FILE", "ApiKey", "KeyFile", "Keyring", "Right", "TlsFiles", "check_reach", "is_loopback"]
