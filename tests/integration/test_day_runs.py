"""Days one after another, and what goes wrong in them: a small dbt project, a real service, real dbt."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from support.small_shop import SmallShop, small_shop

from quality import day, late
from quality.errors import DiskFull, RunWrong, ServiceFailed
from quality.publish import is_stale, publications
from quality.run import LAYERS, load_run
from quality.turn import current, waiting

pytestmark = [
    # dbt and GX call names that their libraries have renamed since; both releases are pinned, and not ours to change.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:duckdb-engine doesn't yet support reflection on indices"),
]
FIRST, SECOND = "2011-12-05", "2011-12-06"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallShop]:
    with small_shop(tmp_path_factory.mktemp("days")) as shop:
        shop.send_lines(120, [5, 6], 0)
        shop.send_requests(20, 5, 0)
        yield shop


@pytest.fixture(scope="module")
def first(shop: SmallShop) -> dict:
    return shop.run("first", FIRST)


@pytest.fixture(scope="module")
def second(shop: SmallShop, first: dict) -> dict:
    """The next date; before it, late rows of the first date come."""
    shop.send_lines(6, [5], 9_000)
    return shop.run("second", SECOND)


def program(shop: SmallShop, *arguments: str) -> list[str]:
    config = shop.config
    where = ["--data", str(config.data), "--project", str(config.root), "--address", config.address]
    return [sys.executable, "-m", "quality", *arguments, *where]


def test_a_whole_day_is_published_and_gives_its_turn_back(shop: SmallShop, first: dict):
    assert (first["shared"], first["run_id"], first["date"]) == (False, "first", FIRST)
    assert (current(shop.config), waiting(shop.config)) == (None, [])
    assert shop.ask("select lines from fct_days order by event_date") == shop.ask(
        "select count(*) from stg_order_lines group by event_date order by event_date"
    )
    # Both layers' tests ran once each: one of a staging model reads a mart, and runs with that.
    run = load_run(shop.config, "first")
    tests = {layer: [t["name"] for t in run.result(f"dbt.{layer}")["test_results"]] for layer in LAYERS}
    assert [name.startswith("unique_stg") for name in tests["staging"]] == [True]
    assert any(name.startswith("relationships_stg_order_lines") for name in tests["marts"])
    # A mart that reads a live model is built with those.
    assert set(run.result("dbt.live")["models"]) == {"sales_by_minute", "traffic_by_minute", "fct_minutes"}
    assert run.result("dbt.intermediate")["note"] == "nothing to build in this layer"
    assert shop.ask("select run_id, state, first_date::varchar from pipeline_runs") == [("first", "published", FIRST)]
    seals = shop.ask("select view, date::varchar, seal_offset from tidemill_reconciled order by all")
    assert seals == [("sales_by_minute", FIRST, 120), ("traffic_by_minute", FIRST, 20)]


def test_late_rows_are_in_the_ledger_until_their_date_is_published_again(shop: SmallShop, second: dict):
    # The second date's publication has read them, but marks nothing of the first.
    assert late.pending(shop.config) == {"order_lines": {FIRST: 6}}
    said = subprocess.run(program(shop, "status", "--json"), capture_output=True, text=True, check=True).stdout
    states = {row["date"]: row for row in map(json.loads, said.splitlines())}
    assert (states[FIRST]["state"], states[FIRST]["late_rows"], states[FIRST]["run_id"]) == ("published", 6, "first")
    assert (states[SECOND]["late_rows"], states[SECOND]["verdict"]) == (0, "passed")
    windows = "select sum(lines) from sales_by_minute where window_start < '2011-12-06'"
    before = shop.ask(windows)
    shop.run("again", FIRST)
    assert late.pending(shop.config) == {}
    assert shop.ask(windows) > before
    assert [each["run_id"] for each in publications(shop.config)] == ["again", "second", "first"]


def test_a_cleared_run_whose_pins_are_older_is_sealed_anew(shop: SmallShop, second: dict):
    shop.run("newer", FIRST)
    before = shop.tables()
    assert is_stale(shop.config, load_run(shop.config, "first"))
    # Cleared in the middle: what it needs and no longer has is run again with it.
    day.build(shop.config, "first", "live")
    for stage in ("check_marts", "reconcile", "publish", "document"):
        getattr(day, stage)(shop.config, "first")
    assert shop.tables() == before
    assert not is_stale(shop.config, load_run(shop.config, "first"))


@pytest.mark.parametrize("stage", ["export", "dbt.intermediate", "check_marts", "reconcile", "publish"])
def test_a_published_run_may_be_cleared_at_any_stage(shop: SmallShop, second: dict, stage: str):
    before = shop.tables()
    stages = [*("export", "check_sources", "balance"), *(f"dbt.{layer}" for layer in LAYERS)]
    stages += ["check_marts", "reconcile", "publish", "document"]
    for name in stages[stages.index(stage) :]:
        if name.startswith("dbt."):
            day.build(shop.config, "second", name.removeprefix("dbt."))
        else:
            getattr(day, name)(shop.config, "second")
    assert shop.tables() == before
    assert load_run(shop.config, "second").state == "published"


def test_a_run_that_was_killed_right_after_it_published_is_not_built_again(shop: SmallShop, second: dict):
    shop.send_lines(2, [6], 40_000)
    shop.run("just_published", SECOND)
    before = load_run(shop.config, "just_published")
    assert before.result("publish")["late"]["order_lines"][SECOND] >= 2
    # It had no time to take its copy away.
    work = shop.config.work_copy("just_published")
    work.parent.mkdir()
    os.link(shop.config.warehouse.resolve(), work)
    work.with_name("base.json").write_text(json.dumps({"publication": "", "taken_at": ""}))
    day.publish(shop.config, "just_published")
    after = load_run(shop.config, "just_published")
    assert not work.exists()
    assert {**after.stages, "publish": {}, "document": {}} == {**before.stages, "publish": {}, "document": {}}
    assert after.result("publish") == before.result("publish")
    # Of an earlier run of the date, the service has no copies any more that it could confirm.
    day.publish(shop.config, "second")
    assert publications(shop.config)[0]["run_id"] == "just_published"


def test_only_what_depends_on_the_chosen_streams_is_built(shop: SmallShop, second: dict):
    before = shop.tables()
    published = load_run(shop.config, publications(shop.config)[0]["run_id"]).streams["order_lines"]
    shop.send_lines(3, [6], 20_000)
    shop.send_requests(5, 6, 1_000)
    result = shop.run("web", SECOND, streams=["web_requests"])
    assert result["published_at"]
    run = load_run(shop.config, "web")
    assert (run.streams["order_lines"].fresh, run.streams["web_requests"].fresh) == (False, True)
    assert run.streams["order_lines"].seal_offset == published.seal_offset
    built = {name for layer in LAYERS for name in run.result(f"dbt.{layer}")["models"]}
    assert built == {"fct_pages", "traffic_by_minute"}
    after = shop.tables()
    assert after["stg_order_lines"] == before["stg_order_lines"]
    assert len(after["fct_pages"]) == len(before["fct_pages"]) + 1
    assert late.pending(shop.config) == {"order_lines": {SECOND: 3}}
    with pytest.raises(RunWrong, match="came nothing_such"):
        shop.run("unknown", SECOND, streams=["nothing_such"])
    assert current(shop.config) is None


def test_a_streams_late_rows_are_taken_in_on_a_date_that_the_others_were_not_published_for_last(
    shop: SmallShop, second: dict
):
    # The other stream's pin is a seal of this date alone: there is no copy of it for an earlier one.
    shop.run("both", SECOND)
    shop.send_requests(4, 5, 3_000)
    assert late.pending(shop.config)["web_requests"] == {FIRST: 4}
    # Of a stream that dbt reads no more, no run could take them in.
    source = shop.config.sources / "web_requests.yml"
    source.rename(source.with_suffix(".away"))
    assert "web_requests" not in late.pending(shop.config)
    source.with_suffix(".away").rename(source)
    result = shop.run("web_late", FIRST, streams=["web_requests"])
    assert result["published_at"]
    assert "web_requests" not in late.pending(shop.config)
    assert set(load_run(shop.config, "web_late").result("reconcile")["views"]) == {"traffic_by_minute"}


def test_a_date_that_was_published_without_a_stream_is_told_to_be_published_in_part(shop: SmallShop, second: dict):
    third = "2011-12-07"
    shop.send_lines(3, [7], 60_000)
    shop.send_requests(4, 7, 6_000)
    shop.run("part", third, streams=["web_requests"])
    assert late.left_out(shop.config) == {"order_lines": {third: 3}}
    command = program(shop, "status", "--json", f"--from={third}", f"--to={third}")
    said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (said["state"], said["left_out"], said["late_rows"]) == ("in part", {"order_lines": 3}, 0)
    assert said["verdict"].endswith("; without order_lines (3 rows)")
    shop.run("whole", third)
    assert late.left_out(shop.config) == {}


def test_a_full_refresh_keeps_the_other_dates(shop: SmallShop, second: dict):
    day_counts = "select window_start::date, sum(lines) from sales_by_minute group by 1 order by 1"
    before = shop.ask(day_counts)
    shop.run("refreshed", FIRST, full_refresh=True)
    after = shop.ask(day_counts)
    assert [date for date, _ in after] == [date for date, _ in before]
    # Made anew from all that is below the seal: late rows of the second date are in it too.
    lines = shop.ask("select sum(lines) from sales_by_minute")
    assert lines == shop.ask("select count(*) from stg_order_lines where quantity > 0")
    assert shop.ask("select count(*) > 1 from pipeline_runs") == [(True,)]


def test_a_run_as_of_another_reads_the_very_same_rows_and_is_not_published(shop: SmallShop, second: dict):
    # The last run of its date: the service keeps the copies of its seal alone.
    shop.run("latest", SECOND)
    shop.send_lines(9, [6], 30_000)
    inode = shop.config.warehouse.stat().st_ino
    earlier = load_run(shop.config, "latest")
    result = shop.run("as_of", SECOND, as_of="latest")
    assert (result["published"], shop.config.warehouse.stat().st_ino) == (False, inode)
    run = load_run(shop.config, "as_of")
    assert (run.streams, run.state) == (earlier.streams, "built")
    assert run.result("reconcile")["views"]["sales_by_minute"]["windows"] > 0
    kept = Path(result["warehouse"])
    assert kept == shop.config.run_folder("as_of") / "warehouse.duckdb"
    with duckdb.connect(str(kept), read_only=True) as connection:
        rows = connection.execute("select count(*) from stg_order_lines").fetchall()
    assert rows == [(earlier.streams["order_lines"].seal_offset,)]
    with pytest.raises(RunWrong, match="expected dates among those"):
        shop.run("other_date", FIRST, as_of="latest")
    assert "as_of" not in [each["run_id"] for each in publications(shop.config)]


def test_a_run_that_is_killed_anywhere_is_run_again_and_nobody_waits_for_it(shop: SmallShop, second: dict):
    for stage in ("dbt.staging", "reconcile"):
        command = program(shop, "run", SECOND, "--force", "--run-id", f"killed-{stage}")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            # It tells of a stage once that has ended: the next one is running.
            assert any(line.startswith(stage) for line in process.stdout)
            os.kill(process.pid, signal.SIGKILL)
    # The turn of one that is dead is free.
    result = shop.run("killed-reconcile", SECOND)
    assert result["published_at"]
    assert shop.tables()["fct_days"]


def test_a_date_that_is_not_complete_is_waited_for_and_refused(shop: SmallShop):
    look = day.is_complete(shop.config, "2999-01-01")
    assert not look["complete"]
    assert set(look["waiting"]) == {"order_lines", "web_requests"}
    assert "watermark" in look["waiting"]["order_lines"]
    assert day.is_complete(shop.config, FIRST, ["web_requests"])["waiting"].keys() <= {"web_requests"}
    done = subprocess.run(program(shop, "run", "2999-01-01"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("tidemill: ")
    with pytest.raises(ServiceFailed):
        day.seal(shop.config, "early", "2999-01-01")
    (failure,) = load_run(shop.config, "early").failures
    assert (failure["stage"], failure["rows"]) == ("seal", None)
    done = subprocess.run(program(shop, "run", "soon"), capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_full_disk_is_told_and_the_run_goes_through_once_there_is_space(
    shop: SmallShop, second: dict, tmp_path: Path
):
    # The warehouse's folder becomes a small disk of its own.
    folder = shop.config.warehouse.parent
    shutil.copytree(folder, tmp_path / "kept")
    size = shop.config.warehouse.stat().st_size * 6 + (1 << 24)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tidemill-test", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: it needs root")
    try:
        shutil.copytree(tmp_path / "kept", folder, dirs_exist_ok=True)
        before = shop.tables()
        day.seal(shop.config, "full", SECOND, force=True)
        for stage in ("export", "check_sources", "balance"):
            getattr(day, stage)(shop.config, "full")
        for layer in ("staging", "intermediate"):
            day.build(shop.config, "full", layer)
        filler = folder / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))
        with pytest.raises(DiskFull, match=r"the disk is full: .*No space left") as caught:
            day.build(shop.config, "full", "marts")
        assert caught.value.retryable
        assert not shop.config.work_copy("full").exists()
        assert shop.tables() == before
        (failure,) = load_run(shop.config, "full").failures
        assert failure["stage"] == "dbt.marts"
        filler.unlink()
        # The task is tried again: the copy, and the layers before it, are made anew with it.
        for layer in ("marts", "live"):
            day.build(shop.config, "full", layer)
        for stage in ("check_marts", "reconcile", "publish"):
            getattr(day, stage)(shop.config, "full")
        assert load_run(shop.config, "full").failures == ()
        assert publications(shop.config)[0]["run_id"] == "full"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
