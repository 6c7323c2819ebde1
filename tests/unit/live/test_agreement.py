"""Random models and random events in random micro-batches, with restarts between: live equals batch."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.agreement import Disagreement, compare
from support.random_events import SCHEMA, RandomEvents
from support.random_models import RandomModels
from support.random_runs import STREAM, Stage, Warehouse, live_model, new_files, random_model
from support.random_steps import random_steps

from ingest_service.live.plan import plan_view
from ingest_service.log.records import Rows
from tidemill.local.postgres import Postgres
from tidemill.local.supervisor import Supervisor

NEW_SEED = random.SystemRandom().randrange(10**9)
NEW = pytest.param(NEW_SEED, id="new")
"""A seed that is new each time; a failure shows it."""
SEEDS = [*range(24), NEW]
SOAK_SEEDS = 100


@pytest.fixture(scope="module")
def warehouse() -> Iterator[Warehouse]:
    made = Warehouse()
    yield made
    made.close()


@pytest.fixture
def stage(tmp_path: Path, warehouse: Warehouse, duck: Any, kit: Any) -> Stage:
    return Stage(warehouse, duck, kit.ListLog, new_files(tmp_path))


def check(stage: Stage, warehouse: Warehouse, seed: int) -> int:
    """Plays what a seed makes; gives how many rows were compared."""
    rng = random.Random(seed)
    model, refused = random_model(rng, warehouse)
    play = stage.check(seed, model, random_steps(rng))
    print(
        f"seed {seed}: {play.compared} rows compared, {refused} models refused by DuckDB, {play.stopped or 'no stop'}"
    )
    print(model.sql)
    return play.compared


@pytest.mark.parametrize("seed", SEEDS)
def test_live_equals_batch(stage: Stage, warehouse: Warehouse, seed: int) -> None:
    check(stage, warehouse, seed)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL's URL, without its scheme."""
    server = Postgres(tmp_path_factory.mktemp("postgres") / "data", tmp_path_factory.mktemp("log") / "postgres.log")
    server.prepare()
    with Supervisor() as supervisor:
        supervisor.start(server.spec())
        supervisor.wait_ready("postgres")
        yield server.url.removeprefix("postgresql")


@pytest.mark.parametrize("seed", SEEDS[-4:])
def test_live_in_postgresql_equals_batch(warehouse: Warehouse, duck: Any, kit: Any, postgres: str, seed: int) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    url = f"postgresql{postgres}"

    def new_schema() -> str:
        name = f"life_{uuid.uuid4().hex}"
        with closing(psycopg2.connect(url)) as connection:
            connection.cursor().execute(f"create schema {name}")
            connection.commit()
        return f"{url}&options=-csearch_path%3D{name}"

    check(Stage(warehouse, duck, kit.ListLog, new_schema), warehouse, seed)


@pytest.mark.soak
@pytest.mark.parametrize("block", range(20))
def test_live_equals_batch_for_long(stage: Stage, warehouse: Warehouse, block: int) -> None:
    first = NEW_SEED + 10**9 + block * SOAK_SEEDS
    print(f"seeds {first} to {first + SOAK_SEEDS - 1}")
    assert sum(check(stage, warehouse, seed) for seed in range(first, first + SOAK_SEEDS)) > 0


def test_the_models_cover_the_grammar(warehouse: Warehouse) -> None:
    """DuckDB takes nearly all of them, and each thing that can stand in a model stands in some."""
    features: Counter[str] = Counter()
    refused = 0
    for seed in range(200):
        model, again = random_model(random.Random(seed), warehouse)
        features.update(set(model.features))
        refused += again
    print(f"{refused} models refused by DuckDB; {dict(features.most_common())}")
    assert refused < 10
    assert min(features.values()) >= 4
    assert features.keys() >= EXPECTED, EXPECTED - features.keys()


EXPECTED = {
    *(f"group by {how}" for how in ("all", "ordinals", "expressions", "aliases", "mixed", "nothing")),
    *(f"join {kind}" for kind in ("inner", "left", "semi", "anti")),
    *("cte", "subquery", "*", "t.*", "* exclude", "* replace", "select * from final", "per event", "using"),
    *("alias reused", "alias hides a column", "alias of an aggregate reused", "qualified column", "table alias"),
    *(
        "odd name",
        "no alias",
        "other type",
        "letter case",
        "renamed column",
        "comment",
        "where",
        "filter",
        "group expression",
        "may fail",
    ),
    *("window inside a day", "other window", "expression over aggregates"),
    *(f"aggregate {name}" for name in ("count", "count_if", "sum", "sum of doubles", "extreme", "avg", "bool")),
    *(f"aggregate {name}" for name in ("spread", "count(distinct)", "approx_count_distinct", "approx_quantile")),
    *(f"aggregate {name}" for name in ("first", "arg_min")),
}


@pytest.mark.parametrize("seed", [*range(8), NEW])
def test_the_comparison_allows_what_batch_allows_itself(kit: Any, warehouse: Warehouse, duck: Any, seed: int) -> None:
    """DuckDB over the same rows in another order: a tolerance that this breaks would be none."""
    rng = random.Random(seed)
    model, _ = random_model(rng, warehouse, off=frozenset({"may fail"}))
    log = kit.ListLog(SCHEMA)
    rows = log.append(RandomEvents(rng, tame=True).batch(60)).batch
    plan = plan_view(live_model(model), {STREAM: log}, duck)
    order = list(range(60))
    rng.shuffle(order)
    warehouse.fill(pa.Table.from_batches([rows.take(pa.array(order))]))
    shuffled = warehouse.query(model.sql)
    warehouse.fill(log.table())
    groups = plan.description.group_columns
    yardsticks = warehouse.yardsticks(model, groups)
    compare(shuffled, warehouse.query(model.sql), plan.description.columns, groups, yardsticks)


@pytest.mark.parametrize("seed", SEEDS[-3:])
def test_batches_that_overlap_what_is_covered_change_nothing(kit: Any, seed: int) -> None:
    rng = random.Random(seed)
    for minute in range(5):
        kit.log.append([kit.line(minute, quantity=rng.randint(-2, 5)) for _ in range(10)])
    rows = kit.log.table().combine_chunks().to_batches()[0]
    covered = 0
    while covered < 50:
        with kit.view() as view:
            covered = view.offset
            start, end = rng.randint(0, covered), rng.randint(covered, 50)
            view.apply([Rows(rows.slice(start, end - start), start, end)])
            kit.assert_agrees(below=view.offset)


def test_a_gap_in_the_offsets_stops_the_view(kit: Any) -> None:
    for minute in range(3):
        kit.log.append([kit.line(minute)])
    with kit.view() as view, pytest.raises(Exception, match="expected the row at offset 1, and the log gave 2"):
        view.apply([kit.log.entries[0], kit.log.entries[2]])


def test_a_failing_life_is_told_in_few_rows(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a developer gets of a failure: the seed, the SQL, and hardly more rows and columns than it takes."""
    monkeypatch.setattr("support.shrink.ATTEMPTS_MAX", 80)
    monkeypatch.setattr("support.random_runs.Play._check_bounds", fail_above_three)

    def play_until_one_fails() -> None:
        models = RandomModels(random.Random(1))
        for _ in range(30):
            stage.check("here", models.model(), random_steps(random.Random(1)))

    with pytest.raises(Disagreement, match="seed here: Disagreement: four groups") as raised:
        play_until_one_fails()
    assert str(raised.value).count("'event_id'") <= 12


def fail_above_three(_: Any, live: pa.Table) -> None:
    if live.num_rows > 3:
        raise Disagreement("four groups")
