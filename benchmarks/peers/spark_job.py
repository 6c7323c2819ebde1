"""Spark Structured Streaming, local[2], as a job of `environment`; runs in the peers' venv.

Requests, each with the answer's fields:
    {"do": "replay", "parquet", "view", "files"}: availableNow over a folder, so many files a micro-batch -> seconds,
        rows, groups, batches
    {"do": "follow", "folder"}: follow a folder, a micro-batch as soon as the one before is done -> nothing
    {"do": "covered", "time_us"}: wait until an event of that time has come out -> covered: [[event time in µs,
        monotonic seconds], …], an entry a micro-batch
    {"do": "rest"}: follow nothing any more -> nothing
"""

import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f
from pyspark.sql.streaming import StreamingQuery

_OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
    "spark.driver.memory": "6g",
    "spark.sql.session.timeZone": "UTC",
    # As many as cores; measured beside it: the RocksDB state store, which takes twice as long as the default one.
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    "spark.sql.streaming.minBatchesToRetain": "2",
}
_VIEWS = {
    "minute": lambda: [f.window("invoiced_at", "1 minute"), "country"],
    "customer": lambda: ["customer_id"],
}
_WAIT_S = 60


class Spark:
    """One session, and the query that follows a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        builder = SparkSession.builder.master("local[2]").config("spark.local.dir", str(folder / "local"))
        for name, value in _OPTIONS.items():
            builder = builder.config(name, value)
        self._spark = builder.getOrCreate()
        self._covered: list[tuple[int, float]] = []
        self._progress = threading.Condition()

    def replay(self, parquet: str, view: str, files: int) -> dict[str, float]:
        """All of a folder into the view, and how long it took."""
        start = time.perf_counter()
        query = self._start(self._view(parquet, view, files).writeStream.format("noop").trigger(availableNow=True))
        query.awaitTermination()
        seconds = time.perf_counter() - start
        progress = query.recentProgress
        return {
            "seconds": seconds,
            "rows": sum(batch["numInputRows"] for batch in progress),
            "groups": progress[-1]["stateOperators"][0]["numRowsTotal"],
            "batches": len(progress),
        }

    def follow(self, folder: str) -> dict[str, float]:
        """Begins to follow a folder."""
        self._covered = []
        self._start(self._view(folder, "minute", None).writeStream.foreachBatch(self._take))
        return {}

    def covered(self, time_us: int) -> dict[str, list[tuple[int, float]]]:
        """Which event times had come out when."""
        with self._progress:
            self._progress.wait_for(lambda: bool(self._covered) and self._covered[-1][0] >= time_us, _WAIT_S)
        return {"covered": self._covered}

    def rest(self) -> dict[str, float]:
        """Ends following, so that others are measured alone."""
        for query in self._spark.streams.active:
            query.stop()
        return {}

    def _take(self, rows: DataFrame, _number: int) -> None:
        last = rows.agg(f.unix_micros(f.max("last"))).collect()[0][0]
        if last is not None:
            with self._progress:
                self._covered.append((last, time.monotonic()))
                self._progress.notify_all()

    def _view(self, parquet: str, view: str, files: int | None) -> DataFrame:
        reader = self._spark.readStream.schema(self._spark.read.parquet(parquet).schema)
        if files is not None:
            reader = reader.option("maxFilesPerTrigger", files)
        columns = [
            f.count("*").alias("lines"),
            f.sum("quantity").alias("units"),
            f.sum(f.expr("quantity * unit_price")).alias("revenue"),
        ]
        if files is None:
            columns.append(f.max("invoiced_at").alias("last"))
        return reader.parquet(parquet).where("quantity > 0").groupBy(*_VIEWS[view]()).agg(*columns)

    def _start(self, writer) -> StreamingQuery:
        checkpoint = Path(self._folder / "checkpoint")
        shutil.rmtree(checkpoint, ignore_errors=True)
        return writer.outputMode("update").option("checkpointLocation", str(checkpoint)).start()


def main() -> None:
    """Answers requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    spark = Spark(Path(tempfile.mkdtemp(dir=sys.argv[1])))
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(spark, request.pop("do"))(**request)
        print(json.dumps(answer), file=answers, flush=True)


main()
