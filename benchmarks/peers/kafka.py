"""Kafka: one broker, an idempotent producer with acks=all."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.peer import Peer, PeerMissing
from benchmarks.service import PROJECT
from tidemill.local.ports import free_port

VERSION = "4.1.1"
_JARS = PROJECT / "build" / "kafka" / VERSION
_START_S = 60
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>tidemill</groupId><artifactId>kafka</artifactId><version>1</version>
<dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{version}</version>
</dependency></dependencies></project>
"""
_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
log.dirs={folder}/logs
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
"""


@contextmanager
def kafka_topic(*, fsync: bool) -> Iterator[Peer]:
    """A fresh topic of one partition. fsync: the broker syncs every batch; Kafka's default: none.

    A row is a message, as Kafka's users have it; the producer makes batches of them by itself.
    """
    try:
        from confluent_kafka import KafkaError, Producer
        from confluent_kafka.admin import AdminClient, NewTopic
    except ModuleNotFoundError:
        raise PeerMissing("the Python package confluent-kafka is not installed") from None
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-") as name, _broker(Path(name)) as address:
        # Until the broker listens, its client would log every attempt.
        servers = {"bootstrap.servers": address, "log_level": 0}
        config = {"flush.messages": "1"} if fsync else {}
        topic = NewTopic("order_lines", num_partitions=1, replication_factor=1, config=config)
        admin = AdminClient(servers)
        admin.create_topics([topic], request_timeout=_START_S)["order_lines"].result(_START_S)
        producer = Producer(
            {
                **servers, "acks": "all", "enable.idempotence": True, "linger.ms": 5, "batch.size": 1 << 20,
                "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1 << 20,
            }
        )  # fmt: skip
        failed: list[KafkaError] = []

        def told(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failed.append(error)

        def send(rows: list[bytes]) -> None:
            for row in rows:
                producer.produce("order_lines", row, on_delivery=told)
            if producer.flush(300) or failed:
                raise RuntimeError(f"Kafka did not take all rows: {failed[:1]}")

        yield Peer(list, send)


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    """A broker in a folder, and its address."""
    java = shutil.which("java")
    if java is None:
        raise PeerMissing("there is no Java")
    controller, broker = free_port(), free_port()
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(folder=folder, controller=controller, broker=broker))
    command = [java, "-Xmx1g", "-cp", f"{_jars()}/*"]
    form = [*command, "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22], "-c", str(properties)]
    formatted = subprocess.run(form, capture_output=True, text=True, check=False)
    if formatted.returncode:
        raise PeerMissing(f"Kafka can't make its folder: {formatted.stderr.strip()[-300:]}")
    with (folder / "kafka.log").open("wb") as log:
        process = subprocess.Popen([*command, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{broker}"
    finally:
        process.terminate()
        process.wait()


def _jars() -> Path:
    """The broker's jars, by Maven, once."""
    if (_JARS / "lib").is_dir():
        return _JARS / "lib"
    maven = shutil.which("mvn")
    if maven is None:
        raise PeerMissing("there is no Kafka, and no Maven that could bring it")
    _JARS.mkdir(parents=True, exist_ok=True)
    (_JARS / "pom.xml").write_text(_POM.format(version=VERSION))
    command = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={_JARS}/new"]
    copied = subprocess.run(command, cwd=_JARS, capture_output=True, text=True, check=False)
    if copied.returncode:
        raise PeerMissing(f"Maven could not bring Kafka: {copied.stdout.strip()[-200:]}")
    (_JARS / "new").rename(_JARS / "lib")
    return _JARS / "lib"
