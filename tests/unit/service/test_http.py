"""Metrics and health over HTTP, of real parts."""

import datetime as dt
import json
import re
import ssl
import urllib.error
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families
from support.faults import FailingFiles
from support.logs import SPEC, SetClock, append

from ingest_service.access import KeyFile, Keyring, Right, TlsFiles
from ingest_service.access.key import new_key
from ingest_service.errors import ConfigError, ContractError, StorageError
from ingest_service.lake import LakeExporter
from ingest_service.live.status import ViewPosition
from ingest_service.log import Log, QuarantinedRow
from ingest_service.log.records import Append
from ingest_service.web import HttpServer, Observed, health
from ingest_service.web.metrics import registry_of

OPERATE = Path(__file__).parents[3] / "docs" / "operate.md"


@dataclass
class Stream:
    log: Log
    lake: LakeExporter
    error: str = ""


@dataclass
class Watched:
    """A stream's parts and the server that tells of them."""

    folder: Path
    files: FailingFiles = field(default_factory=FailingFiles)
    keyring: Keyring | None = None
    closing: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        log = Log.open(self.folder / "log", SPEC, clock=SetClock(), files=self.files)
        self.closing.callback(log.close)
        lake = LakeExporter(log, SPEC.stream, str(self.folder / "lake"))
        lake.ensure()
        self.stream = Stream(log, lake)
        self.views: dict[str, ViewPosition] = {}
        self.refused: dict[str, ContractError] = {}
        self.observed = Observed(
            self.folder, {SPEC.stream: self.stream}, self.refused, lambda: self.views, Counter({"OVERLOADED": 3}), None
        )
        self.start()

    def start(self) -> None:
        server = HttpServer(self.observed, self.keyring, None)
        self.port = server.start("127.0.0.1", 0)
        self.closing.callback(server.stop)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Samples by name and the values of their labels but the stream's."""
        status, text = self.get("/metrics")
        assert status == 200
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = [value for name, value in sorted(sample.labels.items()) if name != "stream"]
                found[" ".join([sample.name, *labels])] = sample.value
        return found


@pytest.fixture
def watched(tmp_path):
    watched = Watched(tmp_path)
    with watched.closing:
        yield watched


def test_metrics_tell_what_the_parts_count(watched):
    log = watched.stream.log
    broken = QuarantinedRow(1, "string.min_len", "event_id", "why", b"")
    log.append(append(["a", "b", "a"], producer="p")).result(20)
    log.append(Append(append(["c"]).rows, 2, (broken,))).result(20)
    watched.stream.lake.export(2)
    log.append(append(["d"])).result(20)
    watched.views["by_minute"] = ViewPosition(SPEC.stream, 1, "")
    found = watched.metrics()
    assert found["tidemill_rows_total appended"] == 4
    assert found["tidemill_rows_total duplicate"] == 1
    assert found["tidemill_rows_total quarantined"] == 1
    assert found["tidemill_durable_offset"] == 4
    assert found["tidemill_lake_offset"] == 2
    assert found["tidemill_lake_lag_rows"] == 2
    assert found["tidemill_view_lag_rows by_minute"] == 3
    assert found["tidemill_view_stopped by_minute"] == 0
    assert found["tidemill_producers"] == 1
    assert found["tidemill_dedup_ids"] == 4
    assert found["tidemill_segments"] == 1
    assert found["tidemill_segment_bytes"] == next((watched.folder / "log").glob("*.seg")).stat().st_size
    assert found["tidemill_queue_bytes"] == 0
    assert found["tidemill_refusals_total OVERLOADED"] == 3
    for name in ("commit", "sync"):
        assert found[f"tidemill_{name}_seconds_count"] == 3
        assert found[f"tidemill_{name}_seconds_bucket +Inf"] == 3
        assert 0 < found[f"tidemill_{name}_seconds_sum"] < 20
    assert found["process_resident_memory_bytes"] > 0


def test_every_metric_is_in_the_documents(watched):
    ours = {family.name for family in registry_of(watched.observed).collect() if family.name.startswith("tidemill_")}
    described = set(re.findall(r"^\| `(tidemill_\w+)`", OPERATE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name.removesuffix("_total") for name in described} == ours


def test_a_service_that_is_well_says_so(watched):
    for path in ("/healthz", "/readyz"):
        assert watched.get(path) == (200, '{"ok":true,"problems":[]}')
    assert not (watched.folder / "PROBE").exists()
    assert watched.get("/")[0] == 404


def test_not_ready_names_every_cause(watched):
    watched.stream.error = "field amount: was int64, is string"
    watched.refused["payments"] = ContractError("it has no contract")
    status, text = watched.get("/readyz")
    assert status == 503
    problems = json.loads(text)["problems"]
    assert any("was int64, is string" in each for each in problems)
    assert any("stream payments: it has no contract" in each for each in problems)
    assert watched.get("/healthz")[0] == 200, "a restart would mend nothing"


def test_a_disk_that_is_full_is_not_ready_until_there_is_room(watched, monkeypatch):
    monkeypatch.setattr(health, "PROBE_S", 0.0)
    watched.files.left["write"] = 0
    with pytest.raises(StorageError):
        watched.stream.log.append(append(["a"])).result(20)
    assert watched.metrics()["tidemill_write_failed"] == 1
    room = watched.folder / "PROBE"
    room.mkdir()
    status, text = watched.get("/readyz")
    assert (status, "can't be written" in text) == (503, True)
    room.rmdir()
    # Nothing was appended meanwhile: the disk is asked, not the log's last error.
    assert watched.get("/readyz")[0] == 200
    watched.stream.log.append(append(["a"])).result(20)
    assert watched.metrics()["tidemill_write_failed"] == 0


def test_a_committer_that_ended_is_dead(watched):
    watched.stream.log.close()
    status, text = watched.get("/healthz")
    assert status == 503
    assert "its committer has ended" in text


def test_metrics_may_ask_for_a_key(tmp_path):
    file, texts = KeyFile(tmp_path), {}
    with file.changing() as keys:
        for name, streams in (("prometheus", "*"), ("shop", SPEC.stream)):
            key, texts[name] = new_key(
                name, frozenset({streams}), frozenset({Right.READ}), dt.datetime.now(dt.UTC), None
            )
            keys.append(key)
    watched = Watched(tmp_path, keyring=Keyring(tmp_path, SetClock()))
    with watched.closing:
        assert watched.get("/metrics")[0] == 401
        assert watched.get("/metrics", Authorization=f"Bearer {texts['shop']}")[0] == 403
        assert watched.get("/metrics", Authorization=f"Bearer {texts['prometheus']}")[0] == 200
        assert watched.get("/readyz")[0] == 200
        assert watched.observed.refusals["UNAUTHENTICATED"] == 1


def test_with_a_certificate_it_is_https(watched, tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(files.cert)
    issued.private_key_pem.write_to_path(files.key)
    server = HttpServer(watched.observed, None, files)
    port = server.start("localhost", 0)
    watched.closing.callback(server.stop)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with urllib.request.urlopen(f"https://localhost:{port}/readyz", context=context, timeout=20) as answer:
        assert json.load(answer)["ok"]


def test_an_address_in_use_is_named(watched):
    other = HttpServer(watched.observed, None, None)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{watched.port}"):
        other.start("127.0.0.1", watched.port)
